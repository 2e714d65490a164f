//! Grants, burns and parameters.

use sp_runtime::Permill;

use super::*;
use crate::{
    Burnt, CREDIT, Granted, Parameters, Settings,
    mock::{START, parameters, send_root, test},
};

#[test]
fn only_governance_grants_burns_and_disburses() {
    test(|| {
        let everyone = [
            Call::grant { account: account(1), amount: 1 },
            Call::burn { amount: 1 },
            Call::disburse { account: account(1), amount: 1 },
            Call::set_parameters { parameters: parameters() },
        ];
        for call in everyone {
            assert_eq!(send(1, call).unwrap_err().error, DispatchError::BadOrigin);
        }
        assert_eq!(Granted::<Test>::get(), 10 * START);
    });
}

#[test]
fn a_grant_makes_credits_and_a_burn_ends_credits_of_the_treasury() {
    test(|| {
        let before = Credits::issuance();
        send_root(Call::grant { account: AccountId32::new([7; 32]), amount: CREDIT }).unwrap();
        assert_eq!(Credits::issuance(), before + CREDIT);
        send_root(Call::burn { amount: CREDIT / 2 }).unwrap();
        assert_eq!(Credits::issuance(), before + CREDIT / 2);
        assert_eq!(Burnt::<Test>::get(), CREDIT / 2);
        assert!(send_root(Call::burn { amount: CREDIT }).is_err(), "more than the treasury has");
        send_root(Call::disburse { account: account(30), amount: CREDIT / 2 }).unwrap();
        assert_eq!((free(30), treasury()), (CREDIT / 2, 0));
    });
}

#[test]
fn a_grant_that_cannot_be_counted_is_refused() {
    test(|| {
        assert!(send_root(Call::grant { account: account(1), amount: u128::MAX }).is_err());
        refused(send_root(Call::grant { account: account(1), amount: 0 }), Error::Zero);
        let most = u128::MAX - Credits::issuance();
        send_root(Call::grant { account: account(11), amount: most }).unwrap();
        // The ledger is full, and still works.
        send(11, Call::deposit { amount: most - 100 }).unwrap();
        let paid = redeem(vec![sign(voucher(11, 2, 0, 1, u128::MAX), 11)]);
        assert_eq!(paid, vec![Ok(most - 100)]);
    });
}

#[test]
fn unsound_parameters_are_refused() {
    test(|| {
        let sound = parameters();
        let unsound: [Parameters; 9] = [
            Parameters { call_fee: 0, ..sound.clone() },
            Parameters { min_redeem: 0, ..sound.clone() },
            Parameters { settler_bond: 0, ..sound.clone() },
            Parameters { challenger_bond: 0, ..sound.clone() },
            Parameters { dispute_window: 0, ..sound.clone() },
            Parameters { response_window: 0, ..sound.clone() },
            Parameters { response_window: u32::MAX, ..sound.clone() },
            // Two epochs, a dispute and two responses last 31 blocks.
            Parameters { thaw_delay: 30, ..sound.clone() },
            Parameters { protocol_share: Permill::from_percent(51), ..sound.clone() },
        ];
        for parameters in unsound {
            refused(send_root(Call::set_parameters { parameters }), Error::Unsound);
        }
        let parameters = Parameters { epoch_length: 9, ..sound.clone() };
        refused(send_root(Call::set_parameters { parameters }), Error::EpochLengthFixed);
        let parameters = Parameters { thaw_delay: 31, ..sound };
        send_root(Call::set_parameters { parameters: parameters.clone() }).unwrap();
        assert_eq!(Settings::<Test>::get(), parameters);
    });
}

#[test]
fn the_parameters_that_are_shipped_are_sound() {
    assert!(Parameters::real().sound());
    assert!(Parameters::development().sound());
}

#[test]
fn another_share_applies_to_what_is_paid_from_then_on() {
    test(|| {
        deposit(1, 10 * CREDIT);
        redeem(vec![sign(voucher(1, 2, 0, 1, CREDIT), 1)]);
        let parameters = Parameters { protocol_share: Permill::from_percent(50), ..parameters() };
        send_root(Call::set_parameters { parameters }).unwrap();
        let before = treasury();
        redeem(vec![sign(voucher(1, 2, 0, 2, 2 * CREDIT), 1)]);
        assert_eq!(treasury() - before, CREDIT / 2);
    });
}

#[test]
fn a_thaw_keeps_the_delay_it_began_with() {
    test(|| {
        deposit(1, CREDIT);
        send(1, Call::start_withdraw { amount: 1 }).unwrap();
        let parameters = Parameters { thaw_delay: 400, ..parameters() };
        send_root(Call::set_parameters { parameters }).unwrap();
        assert_eq!(Credits::escrow_of(&account(1)).thawed_at, Some(41));
    });
}
