use frame_support::{assert_noop, assert_ok};
use potluck_primitives::{PolicyHash, PolicyKind, PoolClass};
use proptest::prelude::*;
use sp_runtime::DispatchError;

use crate::{
    Approved, Error, Event, History, MAX_HISTORY, Scheduled, Uri,
    mock::{MinDelay, Policies, RuntimeOrigin, System, Test, new_test_ext, run},
};

const KIND: PolicyKind = PolicyKind::Slashing;
const CLASS: PoolClass = PoolClass(0);

fn hash(byte: u8) -> PolicyHash {
    PolicyHash([byte; 32])
}

fn approve(byte: u8, at: u32) -> sp_runtime::DispatchResult {
    Policies::approve(RuntimeOrigin::root(), KIND, CLASS, hash(byte), at, Uri::default())
}

fn active(at: u32) -> Option<PolicyHash> {
    Policies::active(KIND, CLASS, at)
}

#[test]
fn only_governance_decides() {
    run(|| {
        let nobody = RuntimeOrigin::signed(1);
        assert_noop!(
            Policies::approve(nobody.clone(), KIND, CLASS, hash(1), 100, Uri::default()),
            DispatchError::BadOrigin
        );
        assert_noop!(Policies::revoke(nobody, KIND, CLASS, hash(1)), DispatchError::BadOrigin);
    });
}

#[test]
fn a_policy_is_in_force_from_its_height_on_and_not_a_block_earlier() {
    run(|| {
        assert_ok!(approve(1, 6));
        assert_eq!(active(5), None);
        assert_eq!(active(6), Some(hash(1)));
        assert_eq!(active(u32::MAX), Some(hash(1)));
        System::assert_last_event(
            Event::Approved { kind: KIND, class: CLASS, hash: hash(1), from: 6 }.into(),
        );
    });
}

#[test]
fn a_height_within_the_delay_is_refused_and_the_next_one_taken() {
    run(|| {
        let soonest = 1 + MinDelay::get();
        assert_noop!(approve(1, soonest - 1), Error::<Test>::TooSoon);
        assert_noop!(approve(1, 0), Error::<Test>::TooSoon);
        assert_ok!(approve(1, soonest));
    });
}

#[test]
fn a_block_number_that_cannot_be_counted_is_refused() {
    run(|| {
        System::set_block_number(u32::MAX - 1);
        assert_noop!(approve(1, u32::MAX), Error::<Test>::Overflow);
    });
}

#[test]
fn kinds_and_classes_do_not_mix() {
    run(|| {
        assert_ok!(approve(1, 6));
        assert_eq!(Policies::active(PolicyKind::Routing, CLASS, 6), None);
        assert_eq!(Policies::active(KIND, PoolClass(1), 6), None);
    });
}

#[test]
fn a_decision_replaces_one_that_has_not_taken_effect() {
    run(|| {
        assert_ok!(approve(1, 10));
        assert_ok!(approve(2, 20));
        assert_eq!(active(15), None);
        assert_eq!(active(20), Some(hash(2)));
        System::assert_has_event(Event::Dropped { kind: KIND, class: CLASS, hash: hash(1) }.into());
    });
}

#[test]
fn what_was_in_force_is_remembered_by_its_blocks() {
    run(|| {
        assert_ok!(approve(1, 10));
        System::set_block_number(12);
        assert_ok!(approve(2, 20));
        System::set_block_number(30);
        assert_ok!(approve(3, 40));
        for (at, expected) in
            [(9, None), (10, Some(1)), (19, Some(1)), (20, Some(2)), (39, Some(2)), (40, Some(3))]
        {
            assert_eq!(active(at), expected.map(hash), "at {at}");
        }
        assert_eq!(History::<Test>::get(KIND, CLASS).len(), 1);
    });
}

#[test]
fn revoking_what_is_in_force_leaves_none_at_once() {
    run(|| {
        assert_ok!(approve(1, 10));
        System::set_block_number(15);
        assert_ok!(Policies::revoke(RuntimeOrigin::root(), KIND, CLASS, hash(1)));
        assert_eq!(active(14), Some(hash(1)));
        assert_eq!(active(15), None);
        assert_eq!(active(100), None);
    });
}

#[test]
fn revoking_what_is_to_come_leaves_what_is_in_force() {
    run(|| {
        assert_ok!(approve(1, 10));
        System::set_block_number(15);
        assert_ok!(approve(2, 30));
        assert_ok!(Policies::revoke(RuntimeOrigin::root(), KIND, CLASS, hash(2)));
        assert_eq!(active(30), Some(hash(1)));
        assert_noop!(
            Policies::revoke(RuntimeOrigin::root(), KIND, CLASS, hash(2)),
            Error::<Test>::NotApproved
        );
    });
}

#[test]
fn revoking_a_hash_that_is_both_ends_both() {
    run(|| {
        assert_ok!(approve(1, 10));
        System::set_block_number(15);
        assert_ok!(approve(1, 30));
        assert_ok!(Policies::revoke(RuntimeOrigin::root(), KIND, CLASS, hash(1)));
        assert_eq!((active(15), active(30)), (None, None));
    });
}

#[test]
fn the_history_keeps_the_newest() {
    run(|| {
        for round in 0..MAX_HISTORY + 10 {
            let at = 10 * (round + 1);
            assert_ok!(approve(round as u8, at));
            System::set_block_number(at);
        }
        let history = History::<Test>::get(KIND, CLASS);
        assert!(history.len() as u32 <= MAX_HISTORY);
        assert_eq!(active(10 * (MAX_HISTORY + 10)), Some(hash(MAX_HISTORY as u8 + 9)));
        assert_eq!(active(10), None, "the oldest is forgotten");
    });
}

#[test]
fn the_view_lists_what_is_in_force_and_what_is_to_come() {
    run(|| {
        assert_ok!(approve(1, 10));
        System::set_block_number(15);
        assert_ok!(approve(2, 30));
        let hashes = |of: Vec<crate::PolicyView>| of.iter().map(|it| (it.hash, it.from)).collect::<Vec<_>>();
        assert_eq!(hashes(Policies::views()), [(hash(1), 10), (hash(2), 30)]);
        System::set_block_number(30);
        assert_eq!(hashes(Policies::views()), [(hash(2), 30)]);
    });
}

/// What a test does next.
#[derive(Clone, Debug)]
enum Step {
    Approve(u8, u32),
    Revoke(u8),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8, 0..20u32).prop_map(|(hash, ahead)| Step::Approve(hash, ahead)),
        (0..4u8).prop_map(Step::Revoke),
        (0..15u32).prop_map(Step::Wait),
    ]
}

/// How many sequences of 100 calls to try.
fn sequences() -> u32 {
    std::env::var("POTLUCK_CHAIN_SEQUENCES").ok().and_then(|it| it.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(sequences()) })]

    /// The model notes at each block which policy the decisions so far mean. What was in force must never change
    /// afterwards, as long as the history reaches.
    #[test]
    fn what_was_in_force_at_a_block_never_changes_later(steps in prop::collection::vec(step(), 100)) {
        new_test_ext().execute_with(|| {
            let mut now = 1;
            let mut in_force: Option<u8> = None;
            let mut to_come: Option<(u8, u32)> = None;
            let mut seen: Vec<(u32, Option<u8>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Approve(byte, ahead) => {
                        let outcome = approve(byte, now + ahead);
                        prop_assert_eq!(outcome.is_ok(), ahead >= MinDelay::get());
                        if outcome.is_ok() {
                            to_come = Some((byte, now + ahead));
                        }
                    }
                    Step::Revoke(byte) => {
                        let known = in_force == Some(byte) || to_come.is_some_and(|it| it.0 == byte);
                        let outcome = Policies::revoke(RuntimeOrigin::root(), KIND, CLASS, hash(byte));
                        prop_assert_eq!(outcome.is_ok(), known);
                        if in_force == Some(byte) {
                            in_force = None;
                        }
                        to_come = to_come.filter(|it| it.0 != byte);
                    }
                    Step::Wait(blocks) => {
                        for _ in 0..blocks {
                            seen.push((now, in_force));
                            now += 1;
                            if let Some((byte, _)) = to_come.filter(|it| it.1 == now) {
                                in_force = Some(byte);
                                to_come = None;
                            }
                        }
                        System::set_block_number(now);
                    }
                }
                prop_assert_eq!(active(now), in_force.map(hash));
                prop_assert_eq!(Policies::do_try_state(), Ok(()));
            }
            if History::<Test>::get(KIND, CLASS).len() < MAX_HISTORY as usize {
                for (at, expected) in seen {
                    prop_assert_eq!(active(at), expected.map(hash), "at block {}", at);
                }
            }
            let stored = Approved::<Test>::iter().count() + Scheduled::<Test>::iter().count();
            prop_assert!(stored <= 2);
            Ok(())
        })?;
    }
}
