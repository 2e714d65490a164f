//! Random calls by honest people and cheats: whatever they do, the sums hold.
//!
//! `POTLUCK_CHAIN_SEQUENCES` is how many sequences of 100 calls are run. Each is a chain of its own, and is repeated
//! by its number. After every call all invariants are checked.

use std::{collections::BTreeMap, env};

use potluck_primitives::{
    Account, BadSum, Beneath, Block, Bounded, Duplicate, Leaf, SumNode, SumProof, SumTree,
};

use super::*;
use crate::{
    Batches, CREDIT, Evidence, Granted, Knowledge, LaneKey, Lanes,
    mock::{START, chain, check, go_to, send_root, test},
};

const CALLS: u32 = 100;
const SETTLERS: [u32; 2] = [5, 6];
const PEOPLE: u32 = 10;

fn sequences() -> u64 {
    number("POTLUCK_CHAIN_SEQUENCES", 30)
}

/// The numbers of the sequences to run. `POTLUCK_CHAIN_FIRST` is the first, to run many in parts.
fn seeds() -> std::ops::Range<u64> {
    let first = number("POTLUCK_CHAIN_FIRST", 0);
    first..first + sequences()
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(otherwise)
}

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
        (self.roll() % u64::from(end)) as u32
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    fn amount(&mut self) -> u128 {
        match self.below(12) {
            0 => 0,
            1 => 1,
            2 => u128::MAX,
            3 => i128::MAX.unsigned_abs(),
            4..7 => u128::from(self.below(2_000)),
            _ => u128::from(self.below(60)) * CREDIT + u128::from(self.below(1_000_000)),
        }
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len() as u32) as usize) }
    }
}

/// How a settler cheats, and what shows it.
#[derive(Clone)]
enum Cheat {
    /// A leaf takes from somebody what another gives to a friend: it cannot be shown to add up.
    Shifted(u32),
    /// A proof voids it at once.
    Proven(Box<Call<Test>>),
}

struct Submitted {
    books: Books,
    cheat: Option<Cheat>,
    /// A voucher that was left out without a promise, and what shows it.
    omitted: Option<(Evidence, SignedVoucher)>,
}

/// What becomes of a random call does not matter here.
fn ignore<R>(_: R) {}

struct World {
    dice: Dice,
    /// Everything that was ever signed.
    vouchers: Vec<SignedVoucher>,
    batches: Vec<Submitted>,
    /// What payers can have lost at most: the most that was signed for on each of their lanes.
    signed_for: BTreeMap<(Account, [u8; 32], Account, u32), u128>,
    lost: BTreeMap<Account, u128>,
    redeemed: u64,
    claimed: u64,
    voided: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let dice = Dice(seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
        for settler in SETTLERS {
            register(settler);
        }
        for payer in 1..5 {
            let limit = if payer == 4 { 20 * CREDIT } else { u128::MAX };
            send(payer, Call::deposit { amount: 300 * CREDIT }).unwrap();
            for settler in SETTLERS {
                send(payer, Call::allow_settler { settler: account(settler), limit }).unwrap();
            }
        }
        Self {
            dice,
            vouchers: Vec::new(),
            batches: Vec::new(),
            signed_for: BTreeMap::new(),
            lost: BTreeMap::new(),
            redeemed: 0,
            claimed: 0,
            voided: 0,
        }
    }

    /// A new voucher of payers 1 to 4 and payees 3 to 9, in either kind of pool, mostly good.
    fn write(&mut self) -> SignedVoucher {
        let (payer, payee) = (1 + self.dice.below(4), 3 + self.dice.below(7));
        // Mostly small, so that an escrow lasts.
        let small = u128::from(self.dice.below(9_000_000));
        let cumulative = if self.dice.chance(85) { small } else { self.dice.amount() };
        let nonce = self.dice.roll();
        let settler = SETTLERS[self.dice.below(2) as usize];
        let epoch = Credits::epoch_of(System::block_number());
        let mut voucher = if self.dice.chance(50) {
            netted(settler, payer, payee, epoch.saturating_sub(self.dice.below(3)), cumulative)
        } else {
            voucher(payer, payee, self.dice.below(2), nonce, cumulative)
        };
        voucher.nonce = nonce;
        if self.dice.chance(20) {
            voucher.expires = Block(System::block_number() + self.dice.below(30));
        }
        let forged = self.dice.chance(5);
        let signed = sign(voucher, if forged { 0 } else { payer });
        if !forged {
            let of = &signed.voucher;
            let most = self.signed_for.entry((of.payer, of.pool, of.payee, of.lane)).or_default();
            *most = (*most).max(of.cumulative.0);
        }
        self.vouchers.push(signed.clone());
        signed
    }

    fn some_vouchers(&mut self, most: u32) -> Vec<SignedVoucher> {
        let count = 1 + self.dice.below(most);
        (0..count)
            .map(|_| {
                let old = self.dice.pick(&self.vouchers).cloned();
                if self.dice.chance(40) { self.write() } else { old.unwrap_or_else(|| self.write()) }
            })
            .collect()
    }

    /// What an honest settler counts: of each lane the best voucher that it can.
    fn countable(&self, settler: u32, epoch: u32) -> Vec<SignedVoucher> {
        let mut best: BTreeMap<(Account, Account), SignedVoucher> = BTreeMap::new();
        for signed in &self.vouchers {
            let of = &signed.voucher;
            let fits = of.pool == raw(settler)
                && of.lane == epoch
                && of.payer != of.payee
                && of.expires.0 >= System::block_number()
                && of.cumulative.0 < 1 << 60
                && Credits::signed(signed);
            let lane = (of.payer, of.payee);
            let better = best.get(&lane).is_none_or(|other| other.voucher.cumulative < of.cumulative);
            if fits && better {
                best.insert(lane, signed.clone());
            }
        }
        best.into_values().collect()
    }

    fn submit(&mut self) {
        let settler = SETTLERS[self.dice.below(2) as usize];
        let Some(epoch) = Credits::epoch_of(System::block_number()).checked_sub(1) else { return };
        let counted = self.countable(settler, epoch);
        if counted.is_empty() {
            return;
        }
        let honest = books(&counted, &genesis());
        let batch = self.batches.len() as BatchId;
        let (root, leaf_count, gross, submitted) = match self.dice.below(9) {
            0 => self.shifted(honest),
            1 => bad_sum(batch, honest),
            2 => doubled(batch, honest),
            3 => stale(batch, settler, &counted, honest, true),
            4 => stale(batch, settler, &counted, honest, false),
            _ => {
                let gross = honest.gross;
                (
                    honest.tree.root(),
                    honest.tree.leaf_count(),
                    gross,
                    Submitted { books: honest, cheat: None, omitted: None },
                )
            }
        };
        if send(settler, Call::submit_batch { epoch, root, leaf_count, gross }).is_ok() {
            self.batches.push(submitted);
        }
    }

    fn shifted(&mut self, honest: Books) -> (SumNode, u32, u128, Submitted) {
        let mut leaves = honest.tree.leaves().to_vec();
        let by = i128::from(1 + self.dice.below(50_000_000));
        let last = leaves.len() - 1;
        leaves[0].delta -= by;
        leaves[last].delta += by;
        let books = Books { tree: SumTree::build(leaves).unwrap(), ..honest };
        let cheat = Some(Cheat::Shifted(self.dice.below(2) * last as u32));
        let (root, count, gross) = (books.tree.root(), books.tree.leaf_count(), books.gross);
        (root, count, gross, Submitted { books, cheat, omitted: None })
    }

    /// Challengers who watch: every cheat is shown before its window ends, or before time goes on past it.
    fn watch(&mut self) {
        for batch in 0..self.batches.len() {
            let state = Batches::<Test>::get(batch as BatchId).unwrap();
            let now = System::block_number();
            let cheat = self.batches[batch].cheat.clone();
            let Some(cheat) = cheat.filter(|_| state.disputable(now)) else { continue };
            match cheat {
                Cheat::Proven(call) => {
                    send(7, *call).unwrap();
                }
                Cheat::Shifted(index) => {
                    let batch = batch as BatchId;
                    if crate::Challenges::<Test>::get(batch, index).is_none() {
                        send_root(Call::grant { account: account(8), amount: 100 * CREDIT }).unwrap();
                        send(8, Call::challenge_leaf { batch, index }).unwrap();
                    }
                    // It cannot be answered, and time stops for nobody.
                    assert!(
                        send(SETTLERS[0], answer(batch, &self.batches[batch as usize].books, index)).is_err()
                    );
                    if send(9, Call::expire_challenge { batch, index }).is_err() {
                        continue;
                    }
                }
            }
            self.voided += 1;
            assert_eq!(
                Batches::<Test>::get(batch as BatchId).map(|it| it.standing),
                Some(crate::Standing::Void)
            );
        }
    }

    /// Moves time on, under the eyes of those who watch.
    fn wait(&mut self) {
        self.watch();
        go_to(System::block_number() + 1 + self.dice.below(5));
        self.watch();
    }

    /// A leaf of some final batch is claimed, or a voucher that it left out is redeemed.
    fn claim(&mut self) {
        let now = System::block_number();
        let is_final = |id: &BatchId| Batches::<Test>::get(id).is_some_and(|batch| batch.is_final(now));
        let finals: Vec<_> = (0..self.batches.len() as BatchId).filter(is_final).collect();
        let Some(batch) = self.dice.pick(&finals).copied() else { return self.wait() };
        let submitted = &self.batches[batch as usize];
        if let Some((evidence, voucher)) = submitted.omitted.clone().filter(|_| self.dice.chance(30)) {
            ignore(send_bare(Call::redeem_omitted { batch, evidence, voucher }));
            return;
        }
        let index = self.dice.below(submitted.books.tree.leaf_count());
        ignore(send_bare(claim(batch, &submitted.books, index)));
    }

    /// Some open challenge is answered, if it can be.
    fn answer(&mut self, who: u32) {
        let open: Vec<_> = crate::Challenges::<Test>::iter()
            .filter(|(.., challenge)| matches!(challenge, crate::Challenge::Open { .. }))
            .map(|(batch, index, _)| (batch, index))
            .collect();
        let Some((batch, index)) = self.dice.pick(&open).copied() else { return };
        let books = &self.batches[batch as usize].books;
        if index < books.tree.leaf_count() {
            ignore(send(who, answer(batch, books, index)));
        }
    }

    fn step(&mut self) {
        let who = self.dice.below(PEOPLE + 2);
        let amount = self.dice.amount();
        let batch = self.dice.below(self.batches.len() as u32 + 1);
        let index = self.dice.below(12);
        let settler = account(SETTLERS[self.dice.below(2) as usize]);
        match self.dice.below(100) {
            0..5 => ignore(send(who, Call::deposit { amount })),
            5..8 => ignore(send(who, Call::start_withdraw { amount })),
            8 => ignore(send(who, Call::cancel_withdraw {})),
            9..11 => ignore(send(who, Call::withdraw {})),
            11..26 => ignore(self.write()),
            26..40 => {
                let vouchers = BoundedVec::try_from(self.some_vouchers(6)).unwrap();
                send_bare(Call::redeem { vouchers }).unwrap();
            }
            40..50 => self.submit(),
            50..54 => ignore(send(who, Call::challenge_leaf { batch, index })),
            54..60 => self.answer(who),
            60..82 => self.claim(),
            82 => ignore(send(who, Call::release_bond { batch })),
            83 => ignore(send(who, Call::close_batch { batch })),
            84..86 => ignore(send(who, Call::expire_challenge { batch, index })),
            86 => ignore(send(who, Call::reclaim_challenge { batch, index })),
            87 => ignore(send_root(Call::grant { account: account(who), amount })),
            88 => ignore(send_root(Call::burn { amount: amount % (CREDIT + 1) })),
            89 => ignore(send_root(Call::disburse { account: account(who), amount })),
            90 => ignore(send(who, Call::allow_settler { settler, limit: amount })),
            _ => self.wait(),
        }
    }

    /// Counts what payers have lost, by the events of one step.
    fn account_for(&mut self) {
        for event in events() {
            match event {
                Event::Redeemed { key, paid, .. } => {
                    *self.lost.entry(key.payer).or_default() += paid;
                    self.redeemed += 1;
                }
                Event::Claimed { account, debit, amount, .. } => {
                    self.claimed += 1;
                    if debit {
                        *self.lost.entry(*AsRef::<Account>::as_ref(&account)).or_default() += amount;
                    }
                }
                _ => {}
            }
        }
    }

    /// Nobody has paid more than it signed for: nothing was paid twice, by neither way nor by both.
    fn no_more_than_signed_for(&self) {
        for (payer, lost) in &self.lost {
            let lanes = self.signed_for.iter().filter(|((of, ..), _)| of == payer);
            let most = lanes.map(|(_, most)| *most).fold(0, u128::saturating_add);
            assert!(*lost <= most, "a payer lost {lost} of {most}");
        }
        for (key, lane) in Lanes::<Test>::iter() {
            let most = self.signed_for.get(&(key.payer, key.pool, key.payee, key.lane));
            assert!(Some(&lane.cumulative) <= most, "a lane of {lane:?} that was signed for {most:?}");
        }
    }
}

fn bad_sum(batch: BatchId, honest: Books) -> (SumNode, u32, u128, Submitted) {
    // The right half of the tree is given back less than it was taken from.
    let tree = &honest.tree;
    let (first, last) = (tree.leaves()[0], tree.leaves()[tree.leaves().len() - 1]);
    let left = Leaf { delta: first.delta + 1, ..first }.node();
    let right = last.node();
    let root = SumNode { hash: SumNode::hash_above(&left, &right), sum: 0 };
    let beneath = Beneath::Nodes { left, right };
    let fault = BadSum { level: 1, index: 0, node: root, beneath, siblings: Bounded::empty() };
    let really = left.sum + right.sum;
    // Two leaves that happen to cancel out are no fault.
    let cheat = (really != 0).then_some(Cheat::Proven(Box::new(Call::prove_bad_sum { batch, fault })));
    (root, 2, honest.gross, Submitted { books: honest, cheat, omitted: None })
}

fn doubled(batch: BatchId, honest: Books) -> (SumNode, u32, u128, Submitted) {
    let first = honest.tree.leaves()[0];
    let second = Leaf { delta: -first.delta, ..first };
    let root = SumNode::above(&first.node(), &second.node()).unwrap();
    let proof = |index, other: &Leaf| SumProof {
        index,
        leaf_count: 2,
        siblings: Bounded::new(vec![other.node()]).unwrap(),
    };
    let fault = Duplicate { first, first_proof: proof(0, &second), second, second_proof: proof(1, &first) };
    let cheat = Some(Cheat::Proven(Box::new(Call::prove_duplicate { batch, fault })));
    (root, 2, honest.gross, Submitted { books: honest, cheat, omitted: None })
}

/// Leaves out the first voucher, which the settler may have promised to count.
fn stale(
    batch: BatchId,
    settler: u32,
    counted: &[SignedVoucher],
    honest: Books,
    promised: bool,
) -> (SumNode, u32, u128, Submitted) {
    let omitted = &counted[0];
    if counted.len() < 2 || omitted.voucher.cumulative.0 == 0 {
        let (root, count, gross) = (honest.tree.root(), honest.tree.leaf_count(), honest.gross);
        return (root, count, gross, Submitted { books: honest, cheat: None, omitted: None });
    }
    let part = books(&counted[1..], &genesis());
    let payee = omitted.voucher.payee;
    let leaves = part.tree.leaves();
    let at = |index: usize| (leaves[index], part.tree.prove(index as u32).unwrap());
    let evidence = match part.tree.index_of(&payee) {
        Some(index) => {
            let (leaf, proof) = at(index as usize);
            let listed: Vec<_> = part.listed[index as usize].iter().map(|it| it.voucher.clone()).collect();
            Evidence::Listed { leaf, proof, listed: listed.try_into().unwrap() }
        }
        None => {
            let next = leaves.iter().position(|leaf| leaf.account > payee).unwrap_or(leaves.len());
            let before = next.checked_sub(1).map(at);
            Evidence::Absent { before, after: (next < leaves.len()).then(|| at(next)) }
        }
    };
    let (root, count, gross) = (part.tree.root(), part.tree.leaf_count(), part.gross);
    let omitted = omitted.clone();
    if !promised {
        let omitted = Some((evidence, omitted));
        return (root, count, gross, Submitted { books: part, cheat: None, omitted });
    }
    let knowledge = Knowledge::Acknowledged(acknowledged(&omitted.voucher, settler, &genesis()));
    let call = Call::prove_stale { batch, evidence, voucher: omitted, knowledge };
    let cheat = Some(Cheat::Proven(Box::new(call)));
    (root, count, gross, Submitted { books: part, cheat, omitted: None })
}

#[test]
fn random_calls_keep_every_sum() {
    let (mut redeemed, mut claimed, mut voided, mut batches) = (0, 0, 0, 0);
    for seed in seeds() {
        chain().execute_with(|| {
            let mut world = World::new(seed);
            for _ in 0..CALLS {
                world.step();
                world.account_for();
                check();
            }
            world.no_more_than_signed_for();
            let made = Granted::<Test>::get();
            assert!(made >= 10 * START, "grants are the only source");
            redeemed += world.redeemed;
            claimed += world.claimed;
            voided += world.voided;
            batches += world.batches.len();
        });
    }
    println!("{redeemed} redemptions, {claimed} claims, {batches} batches, {voided} of them void");
    // A loop that reaches none of these has tested nothing.
    assert!(redeemed > 0 && claimed > 0 && voided > 0, "{redeemed} {claimed} {voided}");
}

/// What lanes, parties and the treasury end up with, for one set of vouchers tried in one order.
fn ending(vouchers: &[SignedVoucher], groups: &[usize]) -> (Vec<(LaneKey, u128)>, Vec<u128>) {
    let mut end = (Vec::new(), Vec::new());
    test(|| {
        for payer in 1..4 {
            deposit(payer, 900 * CREDIT);
        }
        let mut rest = vouchers;
        for size in groups.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*size).min(rest.len()));
            redeem(now.to_vec());
            rest = later;
        }
        let mut lanes: Vec<_> = Lanes::<Test>::iter().map(|(key, lane)| (key, lane.redeemed)).collect();
        lanes.sort_by_key(|(key, _)| key.encode());
        let everyone = (0..PEOPLE).flat_map(|it| [free(it), escrow(it)]);
        end = (lanes, everyone.chain([treasury()]).collect());
    });
    end
}

#[test]
fn redeeming_in_any_order_in_any_groups_and_often_comes_to_the_same() {
    for seed in seeds() {
        let mut dice = Dice(seed ^ 0xabcd);
        let mut vouchers = Vec::new();
        chain().execute_with(|| {
            for _ in 0..30 {
                let (payer, payee) = (1 + dice.below(3), 4 + dice.below(3));
                // Little enough that no escrow runs out: then first come would be first served.
                let cumulative = u128::from(dice.below(40_000_000));
                let (lane, nonce) = (dice.below(2), dice.roll());
                vouchers.push(sign(voucher(payer, payee, lane, nonce, cumulative), payer));
            }
        });
        let plain = ending(&vouchers, &[32]);
        for _ in 0..3 {
            let mut mixed = vouchers.clone();
            mixed.extend_from_slice(&vouchers);
            for at in (1..mixed.len()).rev() {
                mixed.swap(at, dice.below(at as u32 + 1) as usize);
            }
            let groups: Vec<_> = (0..5).map(|_| 1 + dice.below(32) as usize).collect();
            assert_eq!(ending(&mixed, &groups), plain, "sequence {seed}");
        }
    }
}
