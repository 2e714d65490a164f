//! From the receipts of jobs to balances.

use std::{collections::BTreeMap, time::Duration};

use parity_scale_codec::Encode as _;
use potluck_chain_client::{Call, Key, call::MAX_VOUCHERS, outbox::Outcome, spec::known_key};
use potluck_primitives::{
    Account, Block, Class, Genesis, Hash, MicroCredits, Micros, PUBLIC_POOL, Receipt, Signed, SignedVoucher,
    Tokens, UnixMillis, Voucher, blake2_256, receipts_root,
};

use super::{
    chain::{Chain, Dice, Person, block_of},
    model::{CREDIT, Model},
};

const RECEIPTS: u32 = 1_000;
const LANES: u64 = 32;
const PAYERS: [&str; 2] = ["alice", "bob"];
const PAYEES: [&str; 5] = ["carol", "dave", "verifier1", "verifier2", "verifier3"];
/// Microseconds of computing that are worth a micro-credit: a credit is an hour.
const MICROS_PER_CREDIT: u64 = 3_600;

/// What one payer owes one payee on one lane.
#[derive(Default)]
struct Lane {
    receipts: Vec<Hash>,
    worth: u128,
    /// What the chain has paid of it.
    paid: u128,
    last: Option<SignedVoucher>,
}

/// Payer, payee and number.
type LaneKey = (usize, usize, u32);

struct Jobs {
    dice: Dice,
    genesis: Genesis,
    lanes: BTreeMap<LaneKey, Lane>,
    signed: u32,
    receipt_bytes: usize,
}

impl Jobs {
    /// A job is done: both ends sign its receipt, and the payer its voucher for the lane.
    fn job(&mut self, number: u32) {
        let (payer, payee) = (self.dice.below(2) as usize, self.dice.below(5) as usize);
        let lane = self.dice.below(LANES) as u32;
        let compute = 20_000_000 + self.dice.below(70_000_000);
        let (requester, provider) = (known_key(PAYERS[payer]), known_key(PAYEES[payee]));
        let receipt = receipt(number, &requester, &provider, compute);
        let signed = Signed {
            by_provider: provider.receipt(&receipt),
            by_requester: requester.receipt(&receipt),
            receipt,
        };
        let signed = Signed::open(&signed.encode()).unwrap();
        self.receipt_bytes += signed.encoded_size();
        let of = self.lanes.entry((payer, payee, lane)).or_default();
        of.receipts.push(blake2_256(&[&signed.encode()]));
        of.worth += u128::from(signed.receipt.compute.0 / MICROS_PER_CREDIT);
        let voucher = Voucher {
            pool: PUBLIC_POOL,
            payer: requester.account(),
            payee: provider.account(),
            lane,
            nonce: of.receipts.len() as u64,
            cumulative: MicroCredits(of.worth),
            expires: Block(100_000),
            receipts_root: receipts_root(&of.receipts),
        };
        let voucher = requester.voucher(voucher, &self.genesis);
        voucher.verify(&self.genesis).unwrap();
        of.last = Some(voucher);
        self.signed += 1;
    }

    /// The last vouchers of all lanes with something open, in any order.
    fn due(&mut self) -> Vec<(LaneKey, SignedVoucher)> {
        let open = self.lanes.iter().filter(|(_, lane)| lane.worth > lane.paid);
        let mut due: Vec<_> = open.map(|(key, lane)| (*key, lane.last.clone().unwrap())).collect();
        for at in (1..due.len()).rev() {
            let other = self.dice.below(at as u64 + 1) as usize;
            due.swap(at, other);
        }
        due
    }
}

fn receipt(number: u32, requester: &Key, provider: &Key, compute: u64) -> Receipt {
    let mut job = [0; 16];
    job[..4].copy_from_slice(&number.to_le_bytes());
    let started = 1_700_000_000_000 + u64::from(number) * 1_000;
    Receipt {
        version: Receipt::VERSION,
        job,
        provider: provider.account(),
        requester: requester.account(),
        pool: PUBLIC_POOL,
        model: [3; 32],
        class: Class::new("small"),
        prompt_tokens: Tokens(number % 900),
        completion_tokens: Tokens(number % 300),
        compute: Micros(compute),
        started_at: UnixMillis(started),
        ended_at: UnixMillis(started + compute / 1_000),
    }
}

fn people() -> Vec<(&'static str, Account)> {
    let names = ["alice", "bob", "carol", "dave", "settler", "verifier1", "verifier2", "verifier3"];
    names.iter().map(|name| (*name, known_key(name).account())).collect()
}

/// Redeems what is open, 32 vouchers at a time, and tells what the calls cost.
async fn redeem_all(who: &Person, jobs: &mut Jobs, model: &mut Model) {
    for group in jobs.due().chunks(MAX_VOUCHERS) {
        let call = Call::Redeem(group.iter().map(|(_, voucher)| voucher.clone()).collect());
        let done = who.done(call.clone()).await;
        let mut to_payees = 0;
        for ((payer, payee, number), voucher) in group {
            let lane = jobs.lanes.get_mut(&(*payer, *payee, *number)).unwrap();
            let (of, to) = (voucher.voucher.payer, voucher.voucher.payee);
            let before = model.purse(to).free;
            model.redeem(of, to, lane.paid, lane.worth);
            to_payees += model.purse(to).free - before;
            lane.paid = lane.worth;
        }
        let Outcome::Done { paid, notes, .. } = &done.outcome else { panic!("{done:?}") };
        assert_eq!((*paid, notes.len()), (Some(MicroCredits(to_payees)), 0), "{notes:?}");
        if group.len() == MAX_VOUCHERS {
            let (bytes, time, proof) = who.cost(&call, &done).await;
            let each = MAX_VOUCHERS as u64;
            println!(
                "a voucher redeemed among 32: {} bytes, {} µs, {} bytes of proof",
                bytes / MAX_VOUCHERS,
                time / each / 1_000_000,
                proof / each
            );
            assert!(bytes / MAX_VOUCHERS <= 240);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_receipts_are_paid_to_the_micro_credit() {
    let Some(chain) = Chain::start("a_thousand_receipts_are_paid_to_the_micro_credit", &[]).await else {
        return;
    };
    let (alice, bob, dave) =
        (chain.person("alice").await, chain.person("bob").await, chain.person("dave").await);
    let mut model = Model::read(&dave, &people()).await;
    let mut jobs =
        Jobs { dice: Dice(6), genesis: dave.genesis(), lanes: BTreeMap::new(), signed: 0, receipt_bytes: 0 };
    for (payer, credits) in [(&alice, 30), (&bob, 40)] {
        payer.done(Call::Deposit(MicroCredits(credits * CREDIT))).await;
        model.deposit(payer.account(), credits * CREDIT);
    }
    (0..RECEIPTS / 2).for_each(|number| jobs.job(number));
    // Dave has neither tokens nor credits: what he sends costs nothing, for himself and for others.
    redeem_all(&dave, &mut jobs, &mut model).await;
    let early = jobs.due();
    assert!(early.is_empty());
    let replayed = jobs.lanes.values().find_map(|lane| lane.last.clone()).unwrap();
    (RECEIPTS / 2..RECEIPTS).for_each(|number| jobs.job(number));
    redeem_all(&dave, &mut jobs, &mut model).await;
    let again = dave.ask(Call::Redeem(vec![replayed])).await;
    assert_eq!(again.outcome, Outcome::AlreadyDone, "what was paid is not paid again");
    println!("{} receipts of {} bytes, {} lanes", jobs.signed, jobs.receipt_bytes, jobs.lanes.len());
    model.check_all(&dave).await;
    spoilt(&alice, &dave, &mut model).await;
    emptied(&chain, &alice, &dave, &mut model).await;
    model.check_all(&dave).await;
    chain.report_times();
}

/// A group with one good voucher among bad ones pays the good one.
async fn spoilt(alice: &Person, dave: &Person, model: &mut Model) {
    let genesis = dave.genesis();
    let voucher = |lane| Voucher {
        pool: PUBLIC_POOL,
        payer: alice.account(),
        payee: dave.account(),
        lane,
        nonce: 1,
        cumulative: MicroCredits(CREDIT),
        expires: Block(100_000),
        receipts_root: [0; 32],
    };
    let good = alice.key.voucher(voucher(900), &genesis);
    let mut moved = alice.key.voucher(voucher(901), &genesis);
    moved.voucher.lane = 902;
    let expired = Voucher { expires: Block(1), ..voucher(903) };
    let elsewhere = Voucher { pool: [9; 32], ..voucher(904) };
    let group = vec![
        dave.key.voucher(voucher(905), &genesis),
        moved,
        good.clone(),
        alice.key.voucher(expired, &genesis),
        alice.key.voucher(voucher(906), &Genesis([1; 32])),
        alice.key.voucher(elsewhere, &genesis),
        good,
    ];
    let done = dave.done(Call::Redeem(group)).await;
    let (_, notes) = block_of(&done);
    let reasons = ["0: Forged", "1: Forged", "3: Expired", "4: Forged", "5: UnknownPool", "6: NothingDue"];
    assert_eq!(notes.len(), reasons.len(), "{notes:?}");
    for (note, reason) in notes.iter().zip(reasons) {
        assert!(note.ends_with(reason), "{note} is not {reason}");
    }
    model.redeem(alice.account(), dave.account(), 0, CREDIT);
}

/// A payer takes its escrow out; a voucher that comes during the thaw is paid, and one that comes after it is not
/// until there is escrow again.
async fn emptied(chain: &Chain, alice: &Person, dave: &Person, model: &mut Model) {
    let left = model.purse(alice.account()).escrow;
    let asked = alice.done(Call::StartWithdraw(MicroCredits(left))).await;
    model.fee(alice.account());
    let voucher = |cumulative| {
        let voucher = Voucher {
            pool: PUBLIC_POOL,
            payer: alice.account(),
            payee: dave.account(),
            lane: 910,
            nonce: 1,
            cumulative: MicroCredits(cumulative),
            expires: Block(100_000),
            receipts_root: [0; 32],
        };
        vec![alice.key.voucher(voucher, &dave.genesis())]
    };
    let thawed = block_of(&asked).0 + 31;
    // The block before the last in which the escrow stays.
    chain.go_to(dave, thawed - 2).await;
    dave.done(Call::Redeem(voucher(2 * CREDIT))).await;
    model.redeem(alice.account(), dave.account(), 0, 2 * CREDIT);
    alice.done(Call::Withdraw).await;
    model.withdraw(alice.account(), left - 2 * CREDIT);
    model.check_all(dave).await;
    let head = dave.head().await.number;
    // It is given up some blocks later: what it asks could have been in one that was not final.
    let blocks = async {
        for block in 1..=6 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            chain.go_to(alice, head + block).await;
        }
    };
    tokio::join!(dave.refused(Call::Redeem(voucher(3 * CREDIT)), "the chain would not do it now"), blocks);
    alice.done(Call::Deposit(MicroCredits(CREDIT / 2))).await;
    model.deposit(alice.account(), CREDIT / 2);
    let part = dave.done(Call::Redeem(voucher(3 * CREDIT))).await;
    assert_eq!(block_of(&part).1, ["0.500000 credits of a lane stay owed"]);
    model.redeem(alice.account(), dave.account(), 2 * CREDIT, 2 * CREDIT + CREDIT / 2);
}
