use proptest::prelude::*;

use super::super::clock::HOUR;
use super::*;
use crate::identity::{Signature, Signer};
use potluck_primitives::{Class, Micros, Receipt, Tokens, UnixMillis};

const NOW: Millis = 1_800_000_000_000;

fn signer(byte: u8) -> Signer {
    Signer::from_seed([byte; 32])
}

fn receipt(job: u8, provider: u8, requester: u8, ended: Millis, micros: u64) -> Receipt {
    Receipt {
        version: Receipt::VERSION,
        job: [job; 16],
        provider: signer(provider).node().0,
        requester: signer(requester).node().0,
        pool: [3; 32],
        model: [4; 32],
        class: Class::new("8b"),
        prompt_tokens: Tokens(100),
        completion_tokens: Tokens(50),
        compute: Micros(micros),
        started_at: UnixMillis((ended - 2_000).unsigned_abs()),
        ended_at: UnixMillis(ended.unsigned_abs()),
    }
}

fn signed(receipt: Receipt, provider: u8, requester: u8) -> Signed {
    let bytes = receipt.signed_bytes();
    Signed {
        receipt,
        by_provider: signer(provider).sign(&bytes).0,
        by_requester: signer(requester).sign(&bytes).0,
    }
}

fn open(dir: &tempfile::TempDir) -> Ledger {
    Ledger::open(&dir.path().join("ledger.log"), signer(1).node(), Limits::default(), NOW).unwrap()
}

#[test]
fn sums_are_by_member_model_and_month_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir);
    let given = signed(receipt(1, 1, 2, NOW, 1_500_000), 1, 2);
    assert!(ledger.record_now(&given, NOW).unwrap());
    assert!(!ledger.record_now(&given, NOW).unwrap());
    assert!(ledger.record_now(&signed(receipt(2, 1, 2, NOW, 500_000), 1, 2), NOW).unwrap());
    assert!(ledger.record_now(&signed(receipt(1, 2, 1, NOW, 9_000), 2, 1), NOW).unwrap());
    drop(ledger);
    let ledger = open(&dir);
    assert!(!ledger.record_now(&given, NOW).unwrap());
    let rows = ledger.rows();
    assert_eq!(rows.len(), 2);
    let row = rows.iter().find(|row| row.direction == Direction::Given).unwrap();
    assert_eq!((row.month.as_str(), row.node, row.model.as_str()), ("2027-01", signer(2).node(), "8b"));
    assert_eq!((row.sum.jobs, row.sum.compute_micros, row.sum.completion_tokens), (2, 2_000_000, 100));
    let json = serde_json::to_value(row).unwrap();
    assert_eq!(json["compute_micros"], 2_000_000);
}

#[test]
fn months_are_those_of_the_calendar() {
    for (ms, text) in [
        (0, "1970-01"),
        (951_782_400_000, "2000-02"),
        (951_868_800_000, "2000-03"),
        (1_709_164_800_000, "2024-02"),
        (1_735_689_599_999, "2024-12"),
        (1_735_689_600_000, "2025-01"),
        (4_107_542_400_000, "2100-03"),
    ] {
        assert_eq!(Month::of(ms).text(), text);
    }
}

#[test]
fn receipts_of_others_and_of_other_times_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir);
    let refused = |it: Signed| ledger.record_now(&it, NOW).unwrap_err();
    assert!(matches!(refused(signed(receipt(1, 2, 3, NOW, 1), 2, 3)), LedgerError::NotOurs));
    assert!(matches!(refused(signed(receipt(1, 1, 2, NOW + HOUR, 1), 1, 2)), LedgerError::Time { .. }));
    assert!(matches!(refused(signed(receipt(1, 1, 2, NOW - 8 * DAY, 1), 1, 2)), LedgerError::Time { .. }));
    assert!(matches!(refused(signed(receipt(1, 1, 2, NOW, 1), 1, 3)), LedgerError::Receipt(_)));
    assert!(ledger.rows().is_empty());
}

#[test]
fn limits_hold_for_a_month() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir);
    let (friend, other) = (signer(2).node(), signer(3).node());
    ledger.set_limits(Limits { everyone: None, members: [(friend, Some(1_000_000))].into() });
    assert!(ledger.allows(friend, NOW).is_ok());
    ledger.record_now(&signed(receipt(1, 1, 2, NOW, 2_000_000), 1, 2), NOW).unwrap();
    let reached = ledger.allows(friend, NOW).unwrap_err();
    assert!(reached.to_string().contains("in 2027-01"), "{reached}");
    assert!(ledger.allows(other, NOW).is_ok());
    assert!(ledger.allows(friend, NOW + 31 * DAY).is_ok());
    ledger.set_limits(Limits { everyone: Some(Limits::hours(1)), ..Limits::default() });
    assert!(ledger.allows(friend, NOW).is_ok());
}

fn seen() -> Seen {
    Seen {
        job: [1; 16],
        provider: signer(1).node(),
        pool: crate::identity::NodeId([3; 32]),
        model: [4; 32],
        prompt_tokens: Some(100),
        completion_tokens: 50,
        sent_at: NOW - 2_500,
        ended_at: NOW,
    }
}

#[test]
fn both_ends_sign_one_receipt() {
    let it = receipt(1, 1, 2, NOW, 1_900_000);
    let signed = consider(&offer(&it, &signer(1)).unwrap(), &seen(), &signer(2)).unwrap();
    assert_eq!(signed.receipt, it);
    assert!(signed.verify().is_ok());
    assert!(offer(&it, &signer(3)).is_err(), "nobody offers a receipt of another machine");
}

#[test]
fn only_what_was_seen_is_signed() {
    let refuse = |change: fn(&mut Receipt)| {
        let mut it = receipt(1, 1, 2, NOW, 1_900_000);
        change(&mut it);
        consider(&offer(&it, &signer(1)).unwrap(), &seen(), &signer(2)).unwrap_err()
    };
    assert_eq!(refuse(|it| it.job = [9; 16]), Refusal::Other("job".into()));
    assert_eq!(refuse(|it| it.pool = [9; 32]), Refusal::Other("pool".into()));
    assert_eq!(refuse(|it| it.model = [9; 32]), Refusal::Other("model".into()));
    assert_eq!(refuse(|it| it.requester = [9; 32]), Refusal::Other("requester".into()));
    let many = refuse(|it| it.completion_tokens = Tokens(500));
    assert_eq!(many, Refusal::Tokens { said: 500, counted: 50 });
    assert!(matches!(refuse(|it| it.prompt_tokens = Tokens(900)), Refusal::Tokens { .. }));
    assert!(matches!(refuse(|it| it.compute = Micros(3_000_000)), Refusal::Compute { .. }));
    assert!(matches!(refuse(|it| it.started_at.0 -= 9_000), Refusal::Compute { .. }));
    let shift = |it: &mut Receipt| {
        it.started_at.0 += 7_200_000;
        it.ended_at.0 += 7_200_000;
    };
    assert_eq!(refuse(shift), Refusal::Clock);
    let mut forged = offer(&receipt(1, 1, 2, NOW, 1), &signer(1)).unwrap();
    forged.by_provider = Signature([1; 64]);
    assert!(matches!(consider(&forged, &seen(), &signer(2)), Err(Refusal::Bad(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn sums_hold_whatever_comes(jobs in proptest::collection::vec((0..6_u8, any::<bool>(), 0..=86_400_000_000_u64), 0..20)) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(&dir);
        let mut expected: std::collections::BTreeMap<(u8, bool), u64> = Default::default();
        for (job, given, micros) in jobs {
            let (provider, requester) = if given { (1, 2) } else { (2, 1) };
            let it = signed(receipt(job, provider, requester, NOW, micros), provider, requester);
            let new = ledger.record_now(&it, NOW).unwrap();
            prop_assert_eq!(new, !expected.contains_key(&(job, given)));
            expected.entry((job, given)).or_insert(micros);
        }
        drop(ledger);
        for direction in [Direction::Given, Direction::Taken] {
            let rows = open(&dir).rows();
            let sum: u64 = rows.iter().filter(|row| row.direction == direction).map(|row| row.sum.compute_micros).sum();
            let of = |((_, given), micros): (&(u8, bool), &u64)| (*given == (direction == Direction::Given)).then_some(*micros);
            prop_assert_eq!(sum, expected.iter().filter_map(of).sum::<u64>());
        }
    }
}
