//! Random calls of credits and providers together, on the ledger that both use: whatever anybody does, no credit
//! comes into being but by a grant or ceases but by burning, and every hold is one that a pallet's books explain.
//!
//! `POTLUCK_CHAIN_SEQUENCES` is how many sequences of 100 calls are run, `POTLUCK_CHAIN_FIRST` the number of the first.

use std::{collections::BTreeMap, env};

use frame_support::{
    BoundedVec,
    dispatch::DispatchResultWithPostInfo,
    traits::{UnfilteredDispatchable as _, fungible::InspectHold as _},
};
use pallet_potluck_credits::{
    Batches, Burnt, Call as Credit, Challenge, Challenges, Event as CreditEvent, Granted,
    HoldReason as CreditHold, Standing,
};
use pallet_potluck_providers::{
    Call as Provider, Cases, Event as ProviderEvent, HoldReason as ProviderHold, Job, Stage, Stakes,
};
use potluck_primitives::{
    Account, Block as At, Duplicate, Leaf, MILLION, MicroCredits, PUBLIC_POOL, SignedVerdict, SignedVoucher,
    SumNode, SumProof, SumTree, Verdict, Voucher, vouchers_root,
};

use super::*;

const CALLS: u32 = 100;
/// Who these are in genesis: payers and payees, a settler, and verifiers who pay and are paid too.
const SETTLER: usize = 4;
const POLICY: PolicyHash = PolicyHash([8; 32]);

/// SplitMix64: the same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, end: u32) -> u32 {
        (self.roll() % u64::from(end.max(1))) as u32
    }

    fn amount(&mut self) -> u128 {
        match self.below(12) {
            0 => 0,
            1 => 1,
            2 => u128::MAX,
            3 => i128::MAX.unsigned_abs(),
            4..7 => u128::from(self.below(2_000)),
            _ => u128::from(self.below(300)) * CREDIT + u128::from(self.below(1_000_000)),
        }
    }
}

/// A batch that was submitted, and what its settler shows when it is asked to.
struct Books {
    leaves: Vec<(Leaf, SumProof, Vec<SignedVoucher>)>,
    /// What shows that it is wrong, where one step does.
    fault: Option<Duplicate>,
}

/// How often what happened, so that a run that reaches nothing is no proof.
#[derive(Debug, Default)]
struct Seen {
    redeemed: u32,
    claimed: u32,
    voided: u32,
    answered: u32,
    slashed: u32,
    ruled: u32,
    burnt: u32,
}

struct World {
    dice: Dice,
    keys: Vec<SigningKey>,
    vouchers: Vec<SignedVoucher>,
    batches: Vec<Books>,
    seen: Seen,
}

/// Credits on hold, by what they are on hold for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Holds {
    escrow: u128,
    settlers: u128,
    challengers: u128,
    stakes: u128,
    appeals: u128,
}

impl World {
    fn new(seed: u64) -> Self {
        let of = |name: &str| SigningKey::from_bytes(&blake2_256(&[genesis::SEED_DOMAIN, name.as_bytes()]));
        let keys: Vec<_> = genesis::ACCOUNTS.iter().map(|it| of(it.0)).collect();
        let world = Self {
            dice: Dice(seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1)),
            keys,
            vouchers: Vec::new(),
            batches: Vec::new(),
            seen: Seen::default(),
        };
        let approve = pallet_potluck_policies::Call::approve {
            kind: PolicyKind::Slashing,
            class: PoolClass::PUBLIC,
            hash: POLICY,
            activates_at: 3,
            uri: Default::default(),
        };
        assert_ok!(RuntimeCall::Policies(approve).dispatch_bypass_filter(RuntimeOrigin::root()));
        assert_ok!(world.credit(SETTLER, Credit::register_settler {}));
        for payer in [0, 1, 5] {
            assert_ok!(world.credit(payer, Credit::deposit { amount: 400 * CREDIT }));
            let settler = world.account(SETTLER);
            assert_ok!(world.credit(payer, Credit::allow_settler { settler, limit: 300 * CREDIT }));
        }
        for verifier in [1, 5, 6, 7] {
            assert_ok!(world.provider(verifier, Provider::stake { amount: 120 * CREDIT }));
            assert_ok!(world.provider(verifier, Provider::register_verifier {}));
        }
        world.go(4);
        world
    }

    fn account(&self, who: usize) -> AccountId {
        AccountId::new(self.raw(who))
    }

    fn raw(&self, who: usize) -> Account {
        self.keys[who].verifying_key().to_bytes()
    }

    fn credit(&self, who: usize, call: Credit<Runtime>) -> DispatchResultWithPostInfo {
        RuntimeCall::Credits(call).dispatch_bypass_filter(RuntimeOrigin::signed(self.account(who)))
    }

    fn provider(&self, who: usize, call: Provider<Runtime>) -> DispatchResultWithPostInfo {
        RuntimeCall::Providers(call).dispatch_bypass_filter(RuntimeOrigin::signed(self.account(who)))
    }

    /// Blocks pass; each has a hash, as on a chain.
    fn go(&self, blocks: u32) {
        for _ in 0..blocks {
            let now = System::block_number();
            let hash = Hash::from(blake2_256(&[&now.to_le_bytes()]));
            frame_system::BlockHash::<Runtime>::insert(now, hash);
            go_to(now + 1);
        }
    }

    fn somebody(&mut self) -> usize {
        self.dice.below(self.keys.len() as u32) as usize
    }

    /// A new voucher, mostly good, in either kind of pool.
    fn write(&mut self) -> SignedVoucher {
        let (payer, payee) = ([0, 1, 5][self.dice.below(3) as usize], self.somebody());
        let epoch = Credits::epoch_of(System::block_number());
        let netted = self.dice.below(2) == 0;
        let cumulative =
            if self.dice.below(8) == 0 { self.dice.amount() } else { self.dice.roll() as u128 % 9_000_000 };
        let voucher = Voucher {
            pool: if netted { self.raw(SETTLER) } else { PUBLIC_POOL },
            payer: self.raw(payer),
            payee: self.raw(payee),
            lane: if netted { epoch.saturating_sub(self.dice.below(2)) } else { self.dice.below(2) },
            nonce: self.dice.roll(),
            cumulative: MicroCredits(cumulative),
            expires: At(System::block_number() + 5 + self.dice.below(60)),
            receipts_root: [0; 32],
        };
        let signer = if self.dice.below(20) == 0 { 3 } else { payer };
        let signed = SignedVoucher::sign(voucher, &Credits::genesis(), &self.keys[signer]);
        self.vouchers.push(signed.clone());
        signed
    }

    fn redeem(&mut self) {
        let count = 1 + self.dice.below(5);
        let vouchers: Vec<_> = (0..count)
            .map(|_| {
                let old = self.dice.below(self.vouchers.len() as u32 * 2 + 1) as usize;
                self.vouchers.get(old).cloned().unwrap_or_else(|| self.write())
            })
            .collect();
        let call = Credit::redeem { vouchers: BoundedVec::try_from(vouchers).unwrap() };
        assert_ok!(RuntimeCall::Credits(call).dispatch_bypass_filter(RuntimeOrigin::none()));
    }

    /// The honest leaves of the last epoch: of each lane the best voucher.
    fn leaves(&self, epoch: u32) -> BTreeMap<Account, Vec<SignedVoucher>> {
        let mut best: BTreeMap<(Account, Account), &SignedVoucher> = BTreeMap::new();
        for signed in &self.vouchers {
            let of = &signed.voucher;
            let fits = of.pool == self.raw(SETTLER)
                && of.lane == epoch
                && of.payer != of.payee
                && of.expires.0 >= System::block_number()
                && of.cumulative.0 < 1 << 60
                && signed.verify(&Credits::genesis()).is_ok();
            let better =
                best.get(&(of.payer, of.payee)).is_none_or(|other| other.voucher.cumulative < of.cumulative);
            if fits && better {
                best.insert((of.payer, of.payee), signed);
            }
        }
        let mut leaves: BTreeMap<Account, Vec<SignedVoucher>> = BTreeMap::new();
        for ((payer, payee), signed) in best {
            leaves.entry(payer).or_default().push(signed.clone());
            leaves.entry(payee).or_default().push(signed.clone());
        }
        leaves
    }

    /// Submits the last epoch: as it is, with money shifted between two leaves, or with one account in it twice.
    fn submit(&mut self) {
        let Some(epoch) = Credits::epoch_of(System::block_number()).checked_sub(1) else { return };
        let listed = self.leaves(epoch);
        let mut leaves: Vec<_> = listed.iter().map(|(account, mine)| leaf(*account, mine)).collect();
        if leaves.is_empty() {
            return;
        }
        let gross: u128 = leaves.iter().map(|leaf| leaf.gross).sum();
        let last = leaves.len() - 1;
        let kind = self.dice.below(4);
        if kind == 0 {
            let by = i128::from(1 + self.dice.below(40_000_000));
            leaves[0].delta -= by;
            leaves[last].delta += by;
        }
        let (root, leaf_count, books) = if kind == 1 {
            doubled(leaves[0])
        } else {
            let tree = SumTree::build(leaves.clone()).unwrap();
            let shown = leaves.iter().zip(0..).zip(listed.into_values());
            let leaves = shown.map(|((leaf, at), mine)| (*leaf, tree.prove(at).unwrap(), mine)).collect();
            (tree.root(), tree.leaf_count(), Books { leaves, fault: None })
        };
        if self.credit(SETTLER, Credit::submit_batch { epoch, root, leaf_count, gross }).is_ok() {
            self.batches.push(books);
        }
    }

    /// Something about some leaf of some batch; mostly about one that waits for it.
    fn about_a_batch(&mut self) {
        let who = self.somebody();
        let open: Vec<(u32, u32)> = Challenges::<Runtime>::iter()
            .filter(|(.., challenge)| matches!(challenge, Challenge::Open { .. }))
            .map(|(batch, index, _)| (batch, index))
            .collect();
        let some = open.get(self.dice.below(open.len() as u32) as usize).copied();
        let (batch, index) = match some.filter(|_| self.dice.below(3) > 0) {
            Some(some) => some,
            None => {
                let batch = (self.batches.len() as u32).saturating_sub(1 + self.dice.below(2));
                let Some(books) = self.batches.get(batch as usize) else { return self.write_more() };
                (batch, self.dice.below(books.leaves.len() as u32))
            }
        };
        let books = &self.batches[batch as usize];
        let (leaf, proof, mine) = books.leaves[index as usize].clone();
        let fault = books.fault.clone();
        let _ = match self.dice.below(12) {
            0 | 1 => self.credit(who, Credit::challenge_leaf { batch, index }),
            2..5 => {
                let vouchers = BoundedVec::truncate_from(mine);
                self.credit(who, Credit::answer_leaf { batch, leaf, proof, vouchers })
            }
            5 => self.credit(who, Credit::expire_challenge { batch, index }),
            6 => self.credit(who, Credit::reclaim_challenge { batch, index }),
            7 => match fault {
                Some(fault) => self.credit(who, Credit::prove_duplicate { batch, fault }),
                None => self.credit(who, Credit::expire_challenge { batch, index }),
            },
            8 => self.credit(who, Credit::release_bond { batch }),
            _ => RuntimeCall::Credits(Credit::claim { batch, leaf, proof })
                .dispatch_bypass_filter(RuntimeOrigin::none()),
        };
    }

    fn write_more(&mut self) {
        self.write();
    }

    /// A verdict about somebody for one of a few jobs, signed by some of those who are drawn.
    fn judge(&mut self) {
        let (who, by) = (self.somebody(), self.somebody());
        let job = [self.dice.below(4) as u8; 16];
        let at = System::block_number().saturating_sub(1 + self.dice.below(8));
        let provider = self.raw(who);
        let drawn = Providers::draw(&provider, &job, at).unwrap_or_default();
        let parts = if self.dice.below(9) == 0 { MILLION + 1 } else { 1 + self.dice.below(MILLION) };
        let verdict = Verdict { job, provider, evidence: [9; 32], policy: POLICY, parts, at: At(at) };
        let digest = verdict.digest(&Credits::genesis());
        let count = 1 + self.dice.below(3) as usize;
        let signatures = drawn.iter().take(count).map(|account| {
            let key = self.keys.iter().find(|key| key.verifying_key().to_bytes() == *account).unwrap();
            (*account, ed25519_dalek::Signer::sign(key, &digest).to_bytes())
        });
        let signed = SignedVerdict::new(verdict, signatures.collect()).unwrap();
        let _ = self.provider(by, Provider::submit_verdict { signed });
    }

    /// Something about a verdict that waits, or about none.
    fn about_a_verdict(&mut self) {
        let waiting: Vec<(AccountId, Job)> =
            Cases::<Runtime>::iter().map(|(account, job, _)| (account, job)).collect();
        let (who, upheld) = (self.somebody(), self.dice.below(2) == 0);
        let Some((provider, job)) = waiting.get(self.dice.below(waiting.len() as u32) as usize).cloned()
        else {
            return self.judge();
        };
        let _ = match self.dice.below(5) {
            0 | 1 => RuntimeCall::Providers(Provider::appeal { job })
                .dispatch_bypass_filter(RuntimeOrigin::signed(provider)),
            2 => RuntimeCall::Providers(Provider::rule { provider, job, upheld })
                .dispatch_bypass_filter(RuntimeOrigin::root()),
            _ => self.provider(who, Provider::execute { provider, job }),
        };
    }

    fn governance(&mut self) {
        let (amount, account) = (self.dice.amount(), self.somebody());
        let account = self.account(account);
        let call = match self.dice.below(3) {
            0 => Credit::grant { account, amount: amount % (100 * CREDIT) },
            1 => Credit::burn { amount: amount % CREDIT },
            _ => Credit::disburse { account, amount },
        };
        let _ = RuntimeCall::Credits(call).dispatch_bypass_filter(RuntimeOrigin::root());
    }

    fn step(&mut self) {
        let (who, amount) = (self.somebody(), self.dice.amount());
        let settler = self.account(SETTLER);
        let _ = match self.dice.below(100) {
            0..6 => self.credit(who, Credit::deposit { amount }),
            6..9 => self.credit(who, Credit::start_withdraw { amount }),
            9 => self.credit(who, Credit::cancel_withdraw {}),
            10..12 => self.credit(who, Credit::withdraw {}),
            12 => self.credit(who, Credit::allow_settler { settler, limit: amount }),
            13..19 => self.provider(who, Provider::stake { amount }),
            19..23 => self.provider(who, Provider::unstake { amount }),
            23..25 => self.provider(who, Provider::withdraw_unstaked {}),
            25..27 => self.provider(who, Provider::register_verifier {}),
            27 => self.provider(who, Provider::leave_verifiers {}),
            other => return self.more(other),
        };
    }

    fn more(&mut self, rolled: u32) {
        match rolled {
            28 => drop(self.credit(SETTLER, Credit::close_batch { batch: 0 })),
            29..42 => self.write_more(),
            42..48 => self.redeem(),
            48..54 => self.submit(),
            54..74 => self.about_a_batch(),
            74..77 => self.judge(),
            77..83 => self.about_a_verdict(),
            83..86 => self.governance(),
            _ => self.wait(),
        }
    }

    fn wait(&mut self) {
        let blocks = 1 + self.dice.below(5);
        self.go(blocks);
    }

    /// Counts what happened, by the events of one step.
    fn note(&mut self) {
        for record in System::events() {
            match record.event {
                RuntimeEvent::Credits(CreditEvent::Redeemed { .. }) => self.seen.redeemed += 1,
                RuntimeEvent::Credits(CreditEvent::Claimed { .. }) => self.seen.claimed += 1,
                RuntimeEvent::Credits(CreditEvent::BatchVoided { .. }) => self.seen.voided += 1,
                RuntimeEvent::Credits(CreditEvent::LeafAnswered { .. }) => self.seen.answered += 1,
                RuntimeEvent::Credits(CreditEvent::Burnt { .. }) => self.seen.burnt += 1,
                RuntimeEvent::Providers(ProviderEvent::Slashed { .. }) => self.seen.slashed += 1,
                RuntimeEvent::Providers(ProviderEvent::Ruled { .. }) => self.seen.ruled += 1,
                _ => {}
            }
        }
        System::reset_events();
    }
}

fn leaf(account: Account, mine: &[SignedVoucher]) -> Leaf {
    let sum = |of: fn(&Voucher) -> Account| -> u128 {
        mine.iter().map(|it| &it.voucher).filter(|it| of(it) == account).map(|it| it.cumulative.0).sum()
    };
    let (earned, spent) = (sum(|it| it.payee), sum(|it| it.payer));
    let vouchers_root = vouchers_root(mine, &Credits::genesis());
    Leaf { account, delta: earned as i128 - spent as i128, gross: earned + spent, vouchers_root }
}

/// A tree of one account twice, which one proof shows.
fn doubled(first: Leaf) -> (SumNode, u32, Books) {
    let second = Leaf { delta: -first.delta, ..first };
    let root = SumNode::above(&first.node(), &second.node()).unwrap();
    let proof = |index, other: &Leaf| {
        let siblings = potluck_primitives::Bounded::new(vec![other.node()]).unwrap();
        SumProof { index, leaf_count: 2, siblings }
    };
    let (first_proof, second_proof) = (proof(0, &second), proof(1, &first));
    let leaves = vec![(first, first_proof.clone(), Vec::new()), (second, second_proof.clone(), Vec::new())];
    let fault = Some(Duplicate { first, first_proof, second, second_proof });
    (root, 2, Books { leaves, fault })
}

/// What the pallets' books say is on hold, but for escrow, which only the ledger knows.
fn books() -> Holds {
    let mut holds = Holds::default();
    for batch in Batches::<Runtime>::iter_values() {
        assert!(batch.standing == Standing::Submitted || batch.bond == 0);
        holds.settlers += batch.bond;
    }
    for (_, _, challenge) in Challenges::<Runtime>::iter() {
        if let Challenge::Open { bond, .. } = challenge {
            holds.challengers += bond;
        }
    }
    holds.stakes = Stakes::<Runtime>::iter_values().map(|stake| stake.total().unwrap()).sum();
    for (_, _, case) in Cases::<Runtime>::iter() {
        if let Stage::Appealed { bond, .. } = case.stage {
            holds.appeals += bond;
        }
    }
    holds
}

/// What the ledger says: what everybody has, what of it is on hold, and what for.
fn ledger() -> (u128, u128, Holds) {
    let (mut total, mut reserved, mut holds) = (0, 0, Holds::default());
    for (account, data) in pallet_balances::Account::<Runtime, CreditsInstance>::iter() {
        total += data.free + data.reserved;
        reserved += data.reserved;
        let on_hold = |reason: RuntimeHoldReason| CreditBalances::balance_on_hold(&reason, &account);
        holds.escrow += on_hold(CreditHold::Escrow.into());
        holds.settlers += on_hold(CreditHold::SettlerBond.into());
        holds.challengers += on_hold(CreditHold::ChallengerBond.into());
        holds.stakes += on_hold(ProviderHold::Stake.into());
        holds.appeals += on_hold(ProviderHold::AppealBond.into());
    }
    (total, reserved, holds)
}

fn check() {
    let (total, reserved, on_hold) = ledger();
    let made = Granted::<Runtime>::get() - Burnt::<Runtime>::get();
    assert_eq!(total, made, "credits that were neither granted nor burnt");
    assert_eq!(CreditBalances::total_issuance(), made);
    let all = on_hold.escrow + on_hold.settlers + on_hold.challengers + on_hold.stakes + on_hold.appeals;
    assert_eq!(reserved, all, "holds that no pallet has a name for");
    assert_eq!(Holds { escrow: on_hold.escrow, ..books() }, on_hold);
    Credits::do_try_state().unwrap();
    Providers::do_try_state().unwrap();
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn random_calls_of_both_pallets_keep_every_sum_of_the_one_ledger() {
    let first = number("POTLUCK_CHAIN_FIRST", 0);
    let mut all = Seen::default();
    for seed in first..first + number("POTLUCK_CHAIN_SEQUENCES", 20) {
        development().execute_with(|| {
            let mut world = World::new(seed);
            let granted = Granted::<Runtime>::get();
            check();
            for _ in 0..CALLS {
                let before = (Granted::<Runtime>::get(), Burnt::<Runtime>::get());
                world.step();
                world.note();
                assert!(Granted::<Runtime>::get() >= before.0 && Burnt::<Runtime>::get() >= before.1);
                check();
            }
            assert!(Granted::<Runtime>::get() >= granted);
            let seen = world.seen;
            all.redeemed += seen.redeemed;
            all.claimed += seen.claimed;
            all.voided += seen.voided;
            all.answered += seen.answered;
            all.slashed += seen.slashed;
            all.ruled += seen.ruled;
            all.burnt += seen.burnt;
        });
    }
    println!("{all:?}");
    // A loop that reaches none of these has tested nothing.
    let Seen { redeemed, claimed, voided, answered, slashed, ruled, burnt } = all;
    assert!([redeemed, claimed, voided, answered, slashed, ruled, burnt].iter().all(|count| *count > 0));
}
