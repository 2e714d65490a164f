use frame_support::{assert_noop, assert_ok};

use super::*;
use crate::{Event, MAX_UNBONDING, SetStarts, Sets, Stakes, Verifiers};

#[test]
fn a_stake_is_on_hold_until_its_period_is_over_and_not_a_block_less() {
    run(|| {
        assert_ok!(Providers::stake(by(0), 5_000));
        assert_ok!(Providers::unstake(by(0), 2_000));
        assert_eq!(held(0), 5_000);
        go_to(20);
        assert_noop!(Providers::withdraw_unstaked(by(0)), Error::<Test>::NothingToWithdraw);
        go_to(21);
        assert_ok!(Providers::withdraw_unstaked(by(0)));
        assert_eq!(held(0), 3_000);
        assert_eq!(Stakes::<Test>::get(account(0)).active, 3_000);
        assert_noop!(Providers::withdraw_unstaked(by(0)), Error::<Test>::NothingToWithdraw);
    });
}

#[test]
fn nothing_and_more_than_there_is_are_refused() {
    run(|| {
        assert_noop!(Providers::stake(by(0), 0), Error::<Test>::Zero);
        assert_noop!(Providers::unstake(by(0), 0), Error::<Test>::Zero);
        assert_noop!(Providers::unstake(by(0), 1), Error::<Test>::ExceedsStake);
        assert!(Providers::stake(by(0), START + 1).is_err());
        assert!(Providers::stake(by(0), u128::MAX).is_err());
        assert_ok!(Providers::stake(by(0), 10));
        assert_noop!(Providers::unstake(by(0), 11), Error::<Test>::ExceedsStake);
    });
}

#[test]
fn as_many_parts_leave_as_can_be_counted_and_those_of_one_block_are_one() {
    run(|| {
        assert_ok!(Providers::stake(by(0), 5_000));
        assert_ok!(Providers::unstake(by(0), 1));
        assert_ok!(Providers::unstake(by(0), 1));
        assert_eq!(Stakes::<Test>::get(account(0)).unbonding.len(), 1);
        for round in 1..MAX_UNBONDING {
            go_to(1 + round);
            assert_ok!(Providers::unstake(by(0), 1));
        }
        go_to(1 + MAX_UNBONDING);
        assert_noop!(Providers::unstake(by(0), 1), Error::<Test>::TooManyUnbonding);
    });
}

#[test]
fn a_verifier_has_the_least_stake_and_keeps_it() {
    run(|| {
        assert_ok!(Providers::stake(by(0), 999));
        assert_noop!(Providers::register_verifier(by(0)), Error::<Test>::VerifierStake);
        assert_ok!(Providers::stake(by(0), 1));
        assert_ok!(Providers::register_verifier(by(0)));
        assert_noop!(Providers::register_verifier(by(0)), Error::<Test>::AlreadyVerifier);
        assert_noop!(Providers::unstake(by(0), 1), Error::<Test>::VerifierStake);
        assert_ok!(Providers::leave_verifiers(by(0)));
        assert_noop!(Providers::leave_verifiers(by(0)), Error::<Test>::NotVerifier);
        assert_ok!(Providers::unstake(by(0), 1));
    });
}

#[test]
fn sets_change_when_an_era_begins_and_old_ones_answer_for_their_blocks() {
    run(|| {
        assert_ok!(Providers::stake(by(1), 1_000));
        assert_ok!(Providers::register_verifier(by(1)));
        go_to(4);
        assert!(SetStarts::<Test>::get().is_empty());
        go_to(5);
        assert_eq!(SetStarts::<Test>::get().to_vec(), [5]);
        System::assert_has_event(Event::SetChanged { from: 5, verifiers: 1 }.into());
        assert_ok!(Providers::stake(by(2), 1_000));
        assert_ok!(Providers::register_verifier(by(2)));
        go_to(12);
        assert_eq!(SetStarts::<Test>::get().to_vec(), [5, 10]);
        let size = |at| Pallet::<Test>::set_at(at).map(|set| set.len());
        assert_eq!((size(4), size(5), size(9), size(10)), (None, Some(1), Some(1), Some(2)));
    });
}

#[test]
fn sets_that_no_verdict_can_need_are_forgotten() {
    run(|| {
        assert_ok!(Providers::stake(by(1), 1_000));
        assert_ok!(Providers::register_verifier(by(1)));
        for era in 1..20 {
            go_to(5 * era);
            assert_ok!(Providers::stake(by(1), 1));
        }
        let starts = SetStarts::<Test>::get();
        // From a block that is as old as a verdict may be: 95 - 20.
        assert_eq!(starts.to_vec(), [75, 80, 85, 90, 95]);
        assert_eq!(Sets::<Test>::iter().count(), starts.len());
    });
}

#[test]
fn a_draw_is_the_same_for_everyone_and_without_the_provider() {
    run(|| {
        with_verifiers();
        for job in 0..50 {
            let drawn = drawn(job, 6);
            assert_eq!(drawn.len(), 3);
            assert_eq!(drawn, super::drawn(job, 6));
            assert!(drawn.iter().all(|account| Verifiers::<Test>::get().contains(account)));
            let of_verifier = Pallet::<Test>::draw(&raw(1), &[job; 16], 6).unwrap_or_default();
            assert!(!of_verifier.contains(&raw(1)), "nobody judges oneself");
            let view = Providers::sample_view(&raw(0), &[job; 16], 6).map(|view| (view.drawn, view.quorum));
            assert_eq!(view, Some((drawn, 2)));
        }
    });
}

#[test]
fn blocks_that_are_too_old_or_have_no_hash_yet_draw_nobody() {
    run(|| {
        with_verifiers();
        let draw = |at| Pallet::<Test>::draw(&raw(0), &[1; 16], at).map(|drawn| drawn.len());
        let error = |error: Error<Test>| Err(error);
        let same = |a: Result<usize, Error<Test>>, b: Result<usize, Error<Test>>| {
            assert_eq!(a.map_err(DispatchError::from), b.map_err(DispatchError::from));
        };
        same(draw(6), Ok(3));
        same(draw(7), error(Error::BadBlock));
        same(draw(8), error(Error::BadBlock));
        same(draw(4), error(Error::NoVerifiers));
        go_to(26);
        same(draw(6), Ok(3));
        go_to(27);
        same(draw(6), error(Error::BadBlock));
    });
}
