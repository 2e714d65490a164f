use super::*;
use crate::journal::fault;

fn deposit(amount: u128) -> Call {
    Call::Deposit(MicroCredits(amount))
}

fn attempt(nonce: u64) -> Attempt {
    Attempt { nonce, birth: 5, birth_hash: [1; 32], period: 64, hash: [2; 32], bytes: vec![3; 200] }
}

#[test]
fn what_is_under_way_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outbox");
    let mut outbox = Outbox::open(&path).unwrap();
    let first = outbox.ask(deposit(1), 10).unwrap().id();
    let second = outbox.ask(deposit(2), 11).unwrap().id();
    assert_eq!(outbox.ask(deposit(1), 12).unwrap(), Asked::UnderWay(first));
    outbox.attempt(first, attempt(7)).unwrap();
    outbox.attempt(first, attempt(8)).unwrap();
    outbox.end(second, Outcome::AlreadyDone, 13).unwrap();
    drop(outbox);
    let outbox = Outbox::open(&path).unwrap();
    let entries: Vec<_> = outbox.entries().collect();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].id, entries[0].attempts, entries[0].asked_ms), (first, 2, 10));
    assert_eq!(entries[0].attempt, Some(attempt(8)));
    let history: Vec<_> = outbox.history().collect();
    assert_eq!((history.len(), history[0].id, history[0].ended_ms), (1, second, 13));
}

#[test]
fn calls_that_make_no_sense_and_too_many_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(&dir.path().join("outbox")).unwrap();
    assert!(matches!(outbox.ask(deposit(0), 0), Err(OutboxError::Call(CallError::Nothing))));
    assert!(matches!(
        outbox.ask(Call::Redeem(Vec::new()), 0),
        Err(OutboxError::Call(CallError::Vouchers(0)))
    ));
    for amount in 1..=MAX_OPEN {
        outbox.ask(deposit(amount as u128), 0).unwrap();
    }
    assert!(matches!(outbox.ask(deposit(1_000), 0), Err(OutboxError::Full)));
    assert!(matches!(outbox.ask(deposit(1), 0), Ok(Asked::UnderWay(_))));
}

#[test]
fn a_crash_at_any_file_operation_keeps_what_was_promised() {
    for steps in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        fault::after(Some(steps));
        let mut promised = Vec::new();
        let mut ended = 0;
        let _: Result<(), OutboxError> = (|| {
            let mut outbox = Outbox::open(&path)?;
            for amount in 1..6 {
                let id = outbox.ask(deposit(amount), 0)?.id();
                promised.push((id, None));
                outbox.attempt(id, attempt(amount as u64))?;
                promised.last_mut().unwrap().1 = Some(attempt(amount as u64));
            }
            for (id, _) in promised.clone() {
                outbox.end(id, Outcome::AlreadyDone, 0)?;
                ended += 1;
            }
            Ok(())
        })();
        fault::after(None);
        let outbox = Outbox::open(&path).unwrap();
        let found = outbox.history().count();
        assert!((ended..=ended + 1).contains(&found), "after {steps} steps");
        for (id, kept) in promised.iter().skip(found) {
            let entry = outbox.entry(*id).unwrap_or_else(|| panic!("lost after {steps} steps"));
            assert!(kept.is_none() || entry.attempt == *kept, "after {steps} steps");
        }
    }
}

#[test]
fn the_file_does_not_grow_with_what_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outbox");
    let mut outbox = Outbox::open(&path).unwrap();
    let long = Attempt { bytes: vec![1; 60_000], ..attempt(1) };
    let kept = outbox.ask(deposit(1), 3).unwrap().id();
    outbox.attempt(kept, attempt(1)).unwrap();
    for amount in 2..200 {
        let id = outbox.ask(deposit(amount), 0).unwrap().id();
        outbox.attempt(id, long.clone()).unwrap();
        outbox.end(id, Outcome::Refused { reason: "x".repeat(5_000) }, 0).unwrap();
    }
    assert!(outbox.journal.size() < 2 * COMPACT, "{} bytes", outbox.journal.size());
    drop(outbox);
    let outbox = Outbox::open(&path).unwrap();
    assert_eq!(outbox.history().count(), 198);
    assert_eq!(outbox.entry(kept).unwrap().attempt, Some(attempt(1)));
}
