use std::{future::Future as _, path::Path, pin::pin, task::Context};

use potluck_primitives::{Block, MicroCredits, SignedVoucher, Voucher};

use super::*;
use crate::journal::fault;

mod model;

use model::{Chain, FEE, Faults, PERIOD};

fn now() -> Pace {
    Pace { resend: Duration::ZERO, ..Pace::default() }
}

fn open(chain: &Chain, folder: &Path) -> Signer<Chain> {
    let outbox = Outbox::open(&folder.join("outbox")).unwrap();
    Signer::new(chain.clone(), outbox, now())
}

fn deposit(amount: u128) -> Call {
    Call::Deposit(MicroCredits(amount))
}

fn voucher(lane: u32, nonce: u64, cumulative: u128) -> SignedVoucher {
    let voucher = Voucher {
        pool: [0; 32],
        payer: [1; 32],
        payee: [2; 32],
        lane,
        nonce,
        cumulative: MicroCredits(cumulative),
        expires: Block(1_000),
        receipts_root: [0; 32],
    };
    SignedVoucher { voucher, signature: [0; 64] }
}

async fn settle(signer: &mut Signer<Chain>, chain: &Chain, blocks: u32) {
    for _ in 0..blocks {
        let _ = signer.step().await;
        chain.lock().make_block();
    }
    let _ = signer.step().await;
}

#[tokio::test]
async fn a_call_is_done_once_and_its_end_is_told() {
    let (chain, dir) = (Chain::new(1), tempfile::tempdir().unwrap());
    let mut signer = open(&chain, dir.path());
    let id = signer.outbox.ask(deposit(5), 0).unwrap();
    assert_eq!(signer.outbox.ask(deposit(5), 0).unwrap(), Asked::UnderWay(id.id()));
    settle(&mut signer, &chain, 3).await;
    assert_eq!(chain.lock().deposits, [5]);
    let done = signer.outbox.history().next_back().unwrap().clone();
    assert_eq!((done.id, done.outcome.is_success()), (id.id(), true));
    // When it is done, the same may be asked for again.
    assert!(matches!(signer.outbox.ask(deposit(5), 0).unwrap(), Asked::New(_)));
    settle(&mut signer, &chain, 3).await;
    assert_eq!(chain.lock().deposits, [5, 5]);
}

#[tokio::test]
async fn several_calls_go_in_one_block() {
    let (chain, dir) = (Chain::new(2), tempfile::tempdir().unwrap());
    let mut signer = open(&chain, dir.path());
    for amount in 1..=10 {
        signer.outbox.ask(deposit(amount), 0).unwrap();
    }
    settle(&mut signer, &chain, 1).await;
    assert_eq!(chain.lock().deposits, (1..=10).collect::<Vec<_>>());
    assert_eq!(signer.outbox.history().count(), 10);
}

#[tokio::test]
async fn what_another_machine_did_with_the_key_makes_a_new_transaction_necessary() {
    let (chain, dir) = (Chain::new(3), tempfile::tempdir().unwrap());
    let mut signer = open(&chain, dir.path());
    signer.outbox.ask(deposit(1), 0).unwrap();
    signer.step().await.unwrap();
    chain.lock().other_signer();
    settle(&mut signer, &chain, 3).await;
    assert_eq!(chain.lock().deposits, [1]);
}

#[tokio::test]
async fn what_the_runtime_refuses_has_failed() {
    let (chain, dir) = (Chain::new(4), tempfile::tempdir().unwrap());
    let mut signer = open(&chain, dir.path());
    signer.outbox.ask(deposit(2_000_000), 0).unwrap();
    settle(&mut signer, &chain, 2).await;
    let done = signer.outbox.history().next_back().unwrap();
    assert_eq!(done.outcome, Outcome::Failed { block: 1, reason: "not enough credits".into() });
    assert!(chain.lock().deposits.is_empty());
}

#[tokio::test]
async fn a_fee_that_cannot_be_paid_is_told_and_the_call_waits_for_it_in_its_era() {
    let (chain, dir) = (Chain::new(5), tempfile::tempdir().unwrap());
    let mut signer = open(&chain, dir.path());
    chain.lock().free = 0;
    let id = signer.outbox.ask(deposit(7), 0).unwrap().id();
    settle(&mut signer, &chain, 2).await;
    assert!(signer.seen[&id].trouble.as_ref().unwrap().contains("fee"));
    chain.lock().free = 7 + FEE;
    settle(&mut signer, &chain, 2).await;
    assert_eq!(chain.lock().deposits, [7]);
    // Without the fee until the end of its era it is refused, and then never included.
    signer.outbox.ask(deposit(8), 0).unwrap();
    settle(&mut signer, &chain, PERIOD + 2).await;
    let last = signer.outbox.history().next_back().unwrap().clone();
    assert!(matches!(last.outcome, Outcome::Refused { .. }), "{last:?}");
    chain.lock().free = 1_000;
    settle(&mut signer, &chain, 2).await;
    assert_eq!(chain.lock().deposits, [7]);
}

#[tokio::test]
async fn a_transaction_that_no_node_kept_is_made_anew_after_its_era() {
    let (chain, dir) = (Chain::new(6), tempfile::tempdir().unwrap());
    let mut signer = open(&chain, dir.path());
    signer.pace.resend = Duration::from_secs(10_000);
    chain.lock().faults.evicted = 1_000;
    let id = signer.outbox.ask(deposit(3), 0).unwrap().id();
    settle(&mut signer, &chain, PERIOD - 1).await;
    assert_eq!(signer.outbox.entry(id).unwrap().attempts, 1);
    assert_eq!(chain.lock().submitted, 1);
    chain.lock().faults.evicted = 0;
    settle(&mut signer, &chain, 3).await;
    assert_eq!(chain.lock().deposits, [3]);
}

#[tokio::test]
async fn a_chain_that_began_anew_holds_calls_up_until_they_are_given_up() {
    let (chain, dir) = (Chain::new(7), tempfile::tempdir().unwrap());
    let mut signer = open(&chain, dir.path());
    for _ in 0..5 {
        chain.lock().make_block();
    }
    chain.lock().faults.evicted = 1_000;
    let id = signer.outbox.ask(deposit(3), 0).unwrap().id();
    signer.step().await.unwrap();
    chain.lock().restart();
    chain.lock().faults.evicted = 0;
    settle(&mut signer, &chain, 3).await;
    assert!(signer.seen[&id].trouble.as_ref().unwrap().contains("shorter"));
    settle(&mut signer, &chain, 2 * PERIOD).await;
    assert!(signer.seen[&id].trouble.as_ref().unwrap().contains("another branch"));
    assert!(chain.lock().deposits.is_empty(), "it might be included on the branch it was made for");
    let (reply, _) = oneshot::channel();
    signer.obey(Command::Forget { reply });
    assert!(signer.outbox.entry(id).is_none());
}

#[tokio::test]
async fn a_chain_that_began_anew_while_nothing_was_under_way_is_used_at_once() {
    let (chain, dir) = (Chain::new(10), tempfile::tempdir().unwrap());
    let mut signer = open(&chain, dir.path());
    for amount in 1..=5 {
        signer.outbox.ask(deposit(amount), 0).unwrap();
        settle(&mut signer, &chain, 2).await;
    }
    chain.lock().restart();
    signer.outbox.ask(deposit(9), 0).unwrap();
    settle(&mut signer, &chain, 2).await;
    assert_eq!(chain.lock().deposits, [9]);
}

#[tokio::test]
async fn vouchers_that_are_redeemed_already_are_a_success() {
    let (chain, dir) = (Chain::new(8), tempfile::tempdir().unwrap());
    let mut signer = open(&chain, dir.path());
    signer.outbox.ask(Call::Redeem(vec![voucher(0, 1, 10), voucher(1, 1, 5)]), 0).unwrap();
    settle(&mut signer, &chain, 2).await;
    assert_eq!(chain.lock().earned, 15);
    let paid = signer.outbox.history().next_back().unwrap().outcome.clone();
    assert!(matches!(paid, Outcome::Done { paid: Some(MicroCredits(15)), .. }), "{paid:?}");
    signer.outbox.ask(Call::Redeem(vec![voucher(0, 1, 10)]), 0).unwrap();
    settle(&mut signer, &chain, 2).await;
    assert_eq!(signer.outbox.history().next_back().unwrap().outcome, Outcome::AlreadyDone);
    assert_eq!(chain.lock().earned, 15);
}

/// Polls a step at most so often, then drops it: the process is killed there.
fn killed_after(signer: &mut Signer<Chain>, polls: u32) {
    let mut step = pin!(signer.step());
    let mut context = Context::from_waker(futures::task::noop_waker_ref());
    for _ in 0..polls {
        if step.as_mut().poll(&mut context).is_ready() {
            return;
        }
    }
}

/// Runs calls over a chain that fails in every way while the process is killed again and again, also in the middle of
/// writing files; returns how often it was killed.
fn chaos(seed: u64, faults: Faults) -> u32 {
    // In memory where there is such a folder: what is killed here is the process and not the machine.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let chain = Chain::new(seed);
    chain.lock().faults = faults;
    let wanted = 12_u128;
    let (mut asked, mut kills) = (0, 0);
    for round in 0..2_000 {
        let steps = chain.lock().random(60);
        let crash = chain.lock().random(3) == 0;
        fault::after(crash.then_some(steps));
        if let Ok(outbox) = Outbox::open(&dir.path().join("outbox")) {
            let mut signer = Signer::new(chain.clone(), outbox, now());
            let acts = chain.lock().random(6);
            for _ in 0..acts {
                let more = chain.lock().random(2) == 0;
                if asked < wanted && more {
                    // Asked again until it is known to be kept, as a user or a script does.
                    let deposits = signer.outbox.ask(deposit(asked + 1), 0);
                    let vouchers = Call::Redeem(vec![voucher(0, asked as u64 + 1, 10 * (asked + 1))]);
                    if deposits.is_ok() && signer.outbox.ask(vouchers, 0).is_ok() {
                        asked += 1;
                    }
                }
                let polls = chain.lock().random(150);
                killed_after(&mut signer, polls);
                let mut model = chain.lock();
                if model.random(2) == 0 {
                    model.make_block();
                }
                if model.random(40) == 0 {
                    model.other_signer();
                }
            }
        }
        kills += 1;
        fault::after(None);
        let done =
            asked == wanted && Outbox::open(&dir.path().join("outbox")).unwrap().entries().count() == 0;
        if done {
            break;
        }
        if round == 1_999 {
            let open: Vec<_> = Outbox::open(&dir.path().join("outbox")).unwrap().entries().cloned().collect();
            let model = chain.lock();
            let (head, nonce) = (model.head(), model.nonce);
            panic!(
                "seed {seed}: {asked} asked, {head:?}, {nonce}, {} done, open: {open:?}",
                model.deposits.len()
            );
        }
    }
    let outbox = Outbox::open(&dir.path().join("outbox")).unwrap();
    let refused: Vec<_> = outbox.history().filter(|done| !done.outcome.is_success()).collect();
    assert!(refused.is_empty(), "seed {seed}: {refused:?}");
    let mut model = chain.lock();
    let mut deposits = model.deposits.clone();
    deposits.sort_unstable();
    deposits.dedup();
    assert_eq!(deposits.len(), model.deposits.len(), "seed {seed}: something was paid twice");
    assert_eq!(deposits, (1..=wanted).collect::<Vec<_>>(), "seed {seed}: something was lost");
    assert_eq!(model.escrow, (1..=wanted).sum::<u128>());
    assert_eq!(model.earned, 10 * wanted, "seed {seed}");
    // Nothing that is still somewhere can be included later.
    for _ in 0..=PERIOD {
        model.make_block();
    }
    assert_eq!(model.escrow, (1..=wanted).sum::<u128>());
    kills
}

#[test]
fn nothing_is_lost_or_paid_twice_however_often_the_node_is_killed() {
    let mut kills = 0;
    for seed in 0..100 {
        let faults = Faults { lost_request: 60, lost_answer: 60, evicted: 100, lagging: 100, nonsense: 20 };
        kills += chaos(seed, faults);
    }
    assert!(kills >= 1_000, "only {kills} kills");
}

#[test]
fn the_same_holds_over_a_chain_that_is_never_at_fault() {
    for seed in 100..110 {
        chaos(seed, Faults::default());
    }
}

#[tokio::test(start_paused = true)]
async fn handles_ask_wait_and_hear() {
    let (chain, dir) = (Chain::new(9), tempfile::tempdir().unwrap());
    let signer = open(&chain, dir.path());
    let heard = std::sync::Arc::new(Notify::new());
    let (handle, task) = signer.bind(heard.clone());
    let task = tokio::spawn(task);
    let blocks = chain.clone();
    let maker = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(6)).await;
            blocks.lock().make_block();
        }
    });
    let asked = handle.ask(deposit(4)).await.unwrap();
    let mut standing = handle.standing();
    standing.wait_for(|standing| standing.open.len() == 1).await.unwrap();
    let done = handle.wait(asked.id()).await.unwrap();
    assert!(done.outcome.is_success());
    standing.wait_for(|standing| standing.open.is_empty()).await.unwrap();
    assert_eq!(handle.history().await.unwrap().len(), 1);
    maker.abort();
    drop(handle);
    task.await.unwrap();
}
