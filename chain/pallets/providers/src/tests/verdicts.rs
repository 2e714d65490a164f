use frame_support::{assert_noop, assert_ok};
use potluck_primitives::{Genesis, MILLION, PolicyHash};

use super::*;
use crate::{Cases, Event, Judged, MAX_CASES, OpenCases, Stage, Stakes, Verifiers};

const JOB: [u8; 16] = [1; 16];

fn submitted() {
    with_verifiers();
    assert_ok!(Providers::submit_verdict(by(9), verdict_of(1, 500_000)));
}

#[test]
fn a_verdict_slashes_its_part_after_the_window_and_pays_who_signed() {
    run(|| {
        submitted();
        let signers = drawn(1, 6);
        let before: Vec<u128> = signers.iter().map(|it| Ledger::balance(&(*it).into())).collect();
        let treasury = Ledger::balance(&Treasury::get());
        go_to(12);
        assert_noop!(Providers::execute(by(9), account(0), JOB), Error::<Test>::TooEarly);
        go_to(13);
        assert_ok!(Providers::execute(by(9), account(0), JOB));
        // Half of 10,000; a fifth of it among three, whole micro-credits each.
        assert_eq!(held(0), 5_000);
        for (signer, before) in signers.iter().zip(before) {
            assert_eq!(Ledger::balance(&(*signer).into()), before + 333);
        }
        assert_eq!(Ledger::balance(&Treasury::get()), treasury + FEE + 5_000 - 999);
        System::assert_has_event(
            Event::Slashed { provider: account(0), job: JOB, slashed: 5_000, signers: 999 }.into(),
        );
        assert_noop!(Providers::execute(by(9), account(0), JOB), Error::<Test>::UnknownVerdict);
    });
}

#[test]
fn a_provider_is_judged_once_for_a_job() {
    run(|| {
        submitted();
        assert_noop!(Providers::submit_verdict(by(9), verdict_of(1, 500_000)), Error::<Test>::AlreadyJudged);
        go_to(13);
        assert_ok!(Providers::execute(by(9), account(0), JOB));
        let again = signed(verdict(0, 1, POLICY, 1, 12), &drawn(1, 12), &GENESIS);
        assert_noop!(Providers::submit_verdict(by(9), again), Error::<Test>::AlreadyJudged);
        assert!(Judged::<Test>::contains_key(account(0), JOB));
    });
}

#[test]
fn a_stake_on_its_way_out_is_slashed_too() {
    run(|| {
        with_verifiers();
        assert_ok!(Providers::unstake(by(0), 8_000));
        assert_ok!(Providers::submit_verdict(by(9), verdict_of(1, 500_000)));
        go_to(13);
        assert_ok!(Providers::execute(by(9), account(0), JOB));
        let stake = Stakes::<Test>::get(account(0));
        assert_eq!((stake.active, stake.total()), (0, Some(5_000)));
    });
}

#[test]
fn a_stake_stays_while_a_verdict_waits() {
    run(|| {
        with_verifiers();
        assert_ok!(Providers::unstake(by(0), 10_000));
        go_to(25);
        let late = signed(verdict(0, 1, POLICY, MILLION, 24), &drawn(1, 24), &GENESIS);
        assert_ok!(Providers::submit_verdict(by(9), late));
        go_to(30);
        assert_noop!(Providers::withdraw_unstaked(by(0)), Error::<Test>::UnderVerdict);
        go_to(31);
        assert_ok!(Providers::execute(by(9), account(0), JOB));
        assert_eq!(held(0), 0);
        assert!(!Stakes::<Test>::contains_key(account(0)));
    });
}

#[test]
fn who_was_not_drawn_or_did_not_sign_does_not_count() {
    run(|| {
        with_verifiers();
        let (of, drawn) = (verdict(0, 1, POLICY, 500_000, 6), drawn(1, 6));
        let submit = |signed| Providers::submit_verdict(by(9), signed);
        assert_noop!(submit(signed(of.clone(), &drawn[..1], &GENESIS)), Error::<Test>::TooFew);
        let stranger = [drawn[0], drawn[1], raw(9)];
        assert_noop!(submit(signed(of.clone(), &stranger, &GENESIS)), Error::<Test>::Stranger);
        assert_noop!(submit(signed(of.clone(), &drawn, &Genesis([1; 32]))), Error::<Test>::Forged);
        let mut other = signed(of.clone(), &drawn, &GENESIS);
        other.verdict.parts = MILLION;
        assert_noop!(submit(other), Error::<Test>::Forged);
        let mut doubled = signed(of.clone(), &drawn[..1], &GENESIS).signatures.into_inner();
        doubled.push(doubled[0]);
        let doubled = SignedVerdict { verdict: of.clone(), signatures: doubled.try_into().unwrap() };
        assert_noop!(submit(doubled), Error::<Test>::BadOrder);
        assert_ok!(submit(signed(of, &drawn[..2], &GENESIS)));
    });
}

#[test]
fn a_verdict_names_a_policy_in_force_and_a_part_of_a_stake() {
    run(|| {
        with_verifiers();
        let of = |policy, parts| signed(verdict(0, 1, policy, parts, 6), &drawn(1, 6), &GENESIS);
        let submit = |signed| Providers::submit_verdict(by(9), signed);
        assert_noop!(submit(of(PolicyHash([2; 32]), 1)), Error::<Test>::NotApproved);
        assert_noop!(submit(of(POLICY, 0)), Error::<Test>::BadParts);
        assert_noop!(submit(of(POLICY, MILLION + 1)), Error::<Test>::BadParts);
        let unknown = verdict(8, 1, POLICY, 1, 6);
        let drawn = Pallet::<Test>::draw(&raw(8), &JOB, 6).unwrap_or_default();
        assert_noop!(submit(signed(unknown, &drawn, &GENESIS)), Error::<Test>::NothingAtStake);
        assert_ok!(submit(of(POLICY, MILLION)));
    });
}

#[test]
fn a_verifier_that_left_still_judges_the_blocks_it_was_one_at() {
    run(|| {
        with_verifiers();
        let (signers, verdict) = (drawn(1, 6), verdict_of(1, 500_000));
        for number in 1..=5 {
            assert_ok!(Providers::leave_verifiers(by(number)));
        }
        go_to(12);
        assert_eq!(drawn(1, 6), signers);
        assert!(drawn(1, 11).is_empty());
        assert_ok!(Providers::submit_verdict(by(9), verdict));
    });
}

#[test]
fn an_appeal_is_taken_until_the_window_ends_and_not_a_block_later() {
    run(|| {
        submitted();
        assert_noop!(Providers::appeal(by(1), JOB), Error::<Test>::UnknownVerdict);
        go_to(12);
        assert_ok!(Providers::appeal(by(0), JOB));
        assert_noop!(Providers::appeal(by(0), JOB), Error::<Test>::NotOpen);
        let stage = Cases::<Test>::get(account(0), JOB).map(|case| case.stage);
        assert_eq!(stage, Some(Stage::Appealed { until: 20, bond: 500 }));
    });
    run(|| {
        submitted();
        go_to(13);
        assert_noop!(Providers::appeal(by(0), JOB), Error::<Test>::TooLate);
    });
}

#[test]
fn who_wins_an_appeal_has_everything_back() {
    run(|| {
        submitted();
        let before = free(0);
        assert_ok!(Providers::appeal(by(0), JOB));
        assert_eq!(free(0), before - FEE - 500);
        assert_noop!(Providers::rule(by(0), account(0), JOB, false), DispatchError::BadOrigin);
        assert_ok!(Providers::rule(RuntimeOrigin::root(), account(0), JOB, false));
        assert_eq!(free(0), before - FEE);
        assert_eq!(held(0), 10_000);
        assert_eq!(OpenCases::<Test>::get(account(0)), 0);
        go_to(40);
        assert_noop!(Providers::execute(by(9), account(0), JOB), Error::<Test>::UnknownVerdict);
    });
}

#[test]
fn who_loses_an_appeal_loses_the_bond_and_is_slashed_at_once() {
    run(|| {
        submitted();
        assert_noop!(
            Providers::rule(RuntimeOrigin::root(), account(0), JOB, true),
            Error::<Test>::NotAppealed
        );
        assert_ok!(Providers::appeal(by(0), JOB));
        let (before, treasury) = (free(0), Ledger::balance(&Treasury::get()));
        assert_ok!(Providers::rule(RuntimeOrigin::root(), account(0), JOB, true));
        assert_eq!((free(0), Ledger::balance(&Treasury::get())), (before, treasury + 500));
        assert_noop!(
            Providers::rule(RuntimeOrigin::root(), account(0), JOB, false),
            Error::<Test>::NotAppealed
        );
        assert_ok!(Providers::execute(by(9), account(0), JOB));
        assert_eq!(held(0), 5_000);
    });
}

#[test]
fn a_verdict_stands_when_nobody_rules_in_time() {
    run(|| {
        submitted();
        assert_ok!(Providers::appeal(by(0), JOB));
        go_to(15);
        assert_noop!(Providers::execute(by(9), account(0), JOB), Error::<Test>::TooEarly);
        go_to(16);
        let before = free(0);
        assert_ok!(Providers::execute(by(9), account(0), JOB));
        assert_eq!((free(0), held(0)), (before, 5_000));
    });
}

#[test]
fn a_verifier_that_is_slashed_below_the_least_stake_is_none_any_more() {
    run(|| {
        with_verifiers();
        let drawn = Pallet::<Test>::draw(&raw(1), &JOB, 6).unwrap_or_default();
        let of = signed(verdict(1, 1, POLICY, 1_000, 6), &drawn, &GENESIS);
        assert_ok!(Providers::submit_verdict(by(9), of));
        go_to(13);
        assert_ok!(Providers::execute(by(9), account(1), JOB));
        assert_eq!(held(1), 999);
        assert!(!Verifiers::<Test>::get().contains(&raw(1)));
        assert_eq!(Verifiers::<Test>::get().len(), 4);
    });
}

#[test]
fn verdicts_that_wait_are_bounded() {
    run(|| {
        with_verifiers();
        for job in 0..MAX_CASES {
            assert_ok!(Providers::submit_verdict(by(9), verdict_of(job as u8, 1)));
        }
        assert_noop!(
            Providers::submit_verdict(by(9), verdict_of(MAX_CASES as u8, 1)),
            Error::<Test>::TooManyCases
        );
    });
}
