use frame_support::{assert_noop, assert_ok, pallet_prelude::TransactionSource, traits::Authorize as _};
use potluck_primitives::{Block, Genesis};

use super::*;
use crate::{Entry, LastSequence, Registrations, fixtures::registration};

fn fresh(sequence: u64, at: u32) -> potluck_primitives::SignedRegistration {
    registration(0, sequence, at, 4, &GENESIS)
}

#[test]
fn an_account_without_any_credits_registers() {
    run(|| {
        let poor = registration(50, 1, 1, 4, &GENESIS);
        assert_ok!(Providers::register(frame_system::RawOrigin::Authorized.into(), poor.clone()));
        let entry = Registrations::<Test>::get(account(50));
        assert_eq!(entry, Some(Entry { signed: poor, since: 1 }));
    });
}

#[test]
fn what_is_let_into_the_pool_excludes_another_of_the_same_account() {
    run(|| {
        let ask = |signed| Call::<Test>::register { signed }.authorize(TransactionSource::External).unwrap();
        let (first, second) = (ask(fresh(1, 1)).unwrap().0, ask(fresh(2, 1)).unwrap().0);
        assert_eq!(first.provides, second.provides);
        assert!(first.propagate);
        let other = ask(registration(1, 1, 1, 4, &GENESIS)).unwrap().0;
        assert_ne!(first.provides, other.provides);
        let mut forged = fresh(1, 1);
        forged.registration.peer = [0; 32];
        assert!(ask(forged).is_err());
    });
}

#[test]
fn a_signed_call_registers_whomever_the_registration_names() {
    run(|| {
        assert_ok!(Providers::register(by(9), fresh(1, 1)));
        assert!(Registrations::<Test>::contains_key(account(0)));
        assert_ok!(Providers::register(RuntimeOrigin::none(), fresh(2, 1)));
        assert_noop!(Providers::register(RuntimeOrigin::root(), fresh(3, 1)), DispatchError::BadOrigin);
    });
}

#[test]
fn a_registration_is_taken_until_it_is_too_old_and_never_from_the_future() {
    run(|| {
        let (old, future) = (fresh(1, 1), fresh(2, 13));
        go_to(11);
        assert_ok!(Providers::register(by(0), old));
        let next = registration(1, 1, 1, 4, &GENESIS);
        go_to(12);
        assert_noop!(Providers::register(by(1), next), Error::<Test>::Stale);
        assert_noop!(Providers::register(by(0), future.clone()), Error::<Test>::Stale);
        go_to(13);
        assert_ok!(Providers::register(by(0), future));
    });
}

#[test]
fn a_sequence_number_counts_once() {
    run(|| {
        assert_ok!(Providers::register(by(0), fresh(5, 1)));
        assert_noop!(Providers::register(by(0), fresh(5, 1)), Error::<Test>::OldSequence);
        assert_noop!(Providers::register(by(0), fresh(4, 1)), Error::<Test>::OldSequence);
        assert_ok!(Providers::register(by(0), fresh(6, 1)));
    });
}

#[test]
fn too_little_work_is_refused() {
    run(|| {
        let mut lazy = fresh(1, 1);
        while lazy.work_bits(&GENESIS) >= 4 {
            lazy.work += 1;
        }
        assert_noop!(Providers::register(by(0), lazy), Error::<Test>::TooLittleWork);
    });
}

#[test]
fn a_registration_of_another_chain_or_hand_is_refused() {
    run(|| {
        let foreign = registration(0, 1, 1, 4, &Genesis([1; 32]));
        assert!(Providers::register(by(0), foreign).is_err());
        let mut changed = fresh(1, 1);
        changed.signature[0] ^= 1;
        assert_noop!(Providers::register(by(0), changed), Error::<Test>::Forged);
        // Work for what was changed, so that only the signature stands against it.
        let mut other = registration(1, 1, 1, 4, &GENESIS);
        let mut moved = other.registration.clone();
        moved.at = Block(0);
        other.work = potluck_primitives::find_work(&moved.digest(&GENESIS), 4, 0, 1_000).unwrap();
        other.registration = moved;
        assert_noop!(Providers::register(by(1), other), Error::<Test>::Forged);
    });
}

#[test]
fn what_was_taken_back_is_not_brought_again() {
    run(|| {
        let first = fresh(3, 1);
        assert_ok!(Providers::register(by(0), first.clone()));
        assert_ok!(Providers::deregister(by(0)));
        assert_noop!(Providers::deregister(by(0)), Error::<Test>::NotRegistered);
        assert_noop!(Providers::register(by(9), first), Error::<Test>::OldSequence);
        assert_ok!(Providers::register(by(9), fresh(4, 1)));
        assert_eq!(LastSequence::<Test>::get(account(0)), None);
    });
}

#[test]
fn what_is_not_renewed_is_removed_after_its_life_and_not_a_block_earlier() {
    run(|| {
        assert_ok!(Providers::register(by(0), fresh(1, 1)));
        go_to(51);
        assert_noop!(Providers::expire(by(9), account(0)), Error::<Test>::NotExpired);
        go_to(52);
        assert_ok!(Providers::expire(by(9), account(0)));
        assert_noop!(Providers::expire(by(9), account(0)), Error::<Test>::NotRegistered);
        assert_noop!(Providers::register(by(9), fresh(1, 1)), Error::<Test>::Stale);
    });
}
