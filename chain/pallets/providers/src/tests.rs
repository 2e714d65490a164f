mod random;
mod registrations;
mod stakes;
mod verdicts;

use frame_support::{
    assert_noop, assert_ok,
    dispatch::CheckIfFeeless as _,
    traits::fungible::{Inspect as _, InspectHold as _},
};
use potluck_primitives::{Account, SignedVerdict};
use sp_runtime::DispatchError;

use crate::{
    Call, Error, HoldReason, Pallet,
    fixtures::{account, raw, signed, verdict},
    mock::*,
};

/// Signed by a numbered account.
fn by(number: u32) -> RuntimeOrigin {
    RuntimeOrigin::signed(account(number))
}

fn free(number: u32) -> u128 {
    Ledger::balance(&account(number))
}

fn held(number: u32) -> u128 {
    Ledger::balance_on_hold(&HoldReason::Stake.into(), &account(number))
}

/// Five verifiers, the accounts 1 to 5, from block 5 on; account 0 has a stake of 10,000. The block is 7.
fn with_verifiers() {
    for number in 1..=5 {
        assert_ok!(Providers::stake(by(number), 1_000 * u128::from(number)));
        assert_ok!(Providers::register_verifier(by(number)));
    }
    assert_ok!(Providers::stake(by(0), 10_000));
    go_to(7);
}

/// The drawn verifiers of a job of account 0 and a block.
fn drawn(job: u8, at: u32) -> Vec<Account> {
    Pallet::<Test>::draw(&raw(0), &[job; 16], at).unwrap_or_default()
}

/// A verdict about account 0 and this job, signed by all that block 6 drew.
fn verdict_of(job: u8, parts: u32) -> SignedVerdict {
    signed(verdict(0, job, POLICY, parts, 6), &drawn(job, 6), &GENESIS)
}

#[test]
fn a_call_that_succeeds_is_paid_in_credits_where_the_caller_has_them() {
    run(|| {
        let before = free(0);
        let call = Call::<Test>::stake { amount: 100 };
        assert!(call.is_feeless(&by(0)));
        assert_eq!(free(0), before, "asking changes nothing");
        assert_ok!(Providers::stake(by(0), 100));
        assert_eq!(free(0), before - 100 - FEE);
        assert_eq!(Ledger::balance(&Treasury::get()), FEE);
    });
}

#[test]
fn a_call_that_fails_is_not_free() {
    run(|| {
        assert!(!Call::<Test>::unstake { amount: 1 }.is_feeless(&by(0)));
        assert!(!Call::<Test>::withdraw_unstaked {}.is_feeless(&by(0)));
        assert!(
            !Call::<Test>::stake { amount: START }.is_feeless(&by(0)),
            "nothing would be left for the fee"
        );
    });
}

#[test]
fn parameters_are_governances_and_must_be_sound() {
    run(|| {
        assert_noop!(Providers::set_parameters(by(0), parameters()), DispatchError::BadOrigin);
        let root = RuntimeOrigin::root;
        let unsound = [
            crate::Parameters { quorum: 0, ..parameters() },
            crate::Parameters { quorum: 4, ..parameters() },
            crate::Parameters { sample: 33, ..parameters() },
            crate::Parameters { verifier_stake: 0, ..parameters() },
            crate::Parameters { era_length: 0, ..parameters() },
            crate::Parameters { verdict_age: 21, ..parameters() },
            crate::Parameters { unbonding_period: 19, ..parameters() },
            crate::Parameters { registration_life: 9, ..parameters() },
        ];
        for parameters in unsound {
            assert_noop!(Providers::set_parameters(root(), parameters), Error::<Test>::Unsound);
        }
        assert_ok!(Providers::set_parameters(root(), crate::Parameters { sample: 4, ..parameters() }));
        assert_eq!(crate::Settings::<Test>::get().sample, 4);
    });
}

#[test]
fn the_parameters_that_chains_begin_with_are_sound() {
    assert!(crate::Parameters::real().sound());
    assert!(crate::Parameters::development().sound());
}
