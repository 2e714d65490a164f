//! Escrow, its thaw, and calls paid in credits.

use frame_support::dispatch::CheckIfFeeless;

use super::*;
use crate::mock::{RuntimeCall, RuntimeOrigin, START, go_to, test};
use crate::{CREDIT, Settings, Thaws};

fn feeless(who: u32, call: Call<Test>) -> bool {
    RuntimeCall::Credits(call).is_feeless(&RuntimeOrigin::signed(account(who)))
}

#[test]
fn a_deposit_becomes_escrow_and_its_fee_goes_to_the_treasury() {
    test(|| {
        send(1, Call::deposit { amount: 5 * CREDIT }).unwrap();
        assert_eq!(escrow(1), 5 * CREDIT);
        assert_eq!(free(1), START - 5 * CREDIT - 10);
        assert_eq!(treasury(), 10);
        let deposited = Event::Deposited { payer: account(1), amount: 5 * CREDIT, escrow: 5 * CREDIT };
        assert_eq!(events(), vec![deposited]);
        assert_eq!(Credits::escrow_of(&account(1)).held, 5 * CREDIT);
    });
}

#[test]
fn nothing_and_more_than_there_is_cannot_be_deposited() {
    test(|| {
        refused(send(1, Call::deposit { amount: 0 }), Error::Zero);
        assert!(send(1, Call::deposit { amount: START + 1 }).is_err());
        assert!(send(1, Call::deposit { amount: u128::MAX }).is_err());
        // One micro-credit keeps the account alive.
        assert!(send(1, Call::deposit { amount: START }).is_err());
        assert!(send(20, Call::deposit { amount: 1 }).is_err());
        assert_eq!((escrow(1), free(1), treasury()), (0, START, 0));
    });
}

#[test]
fn a_call_that_succeeds_and_can_pay_in_credits_is_free_of_other_fees() {
    test(|| {
        assert!(feeless(1, Call::deposit { amount: 1 }));
        assert_eq!((escrow(1), treasury()), (0, 0), "asking leaves no trace");
        assert!(!feeless(20, Call::deposit { amount: 1 }), "an account without credits");
        let root = RuntimeCall::Credits(Call::deposit { amount: 1 });
        assert!(!root.is_feeless(&RuntimeOrigin::root()));
    });
}

#[test]
fn a_call_that_fails_is_never_free() {
    test(|| {
        for call in [
            Call::deposit { amount: u128::MAX },
            Call::start_withdraw { amount: 1 },
            Call::cancel_withdraw {},
            Call::withdraw {},
            Call::submit_batch {
                epoch: 0,
                root: potluck_primitives::SumNode { hash: [0; 32], sum: 0 },
                leaf_count: 1,
                gross: 0,
            },
            Call::challenge_leaf { batch: 0, index: 0 },
            Call::expire_challenge { batch: 0, index: 0 },
            Call::reclaim_challenge { batch: 0, index: 0 },
            Call::release_bond { batch: 0 },
            Call::close_batch { batch: 0 },
        ] {
            assert!(!feeless(1, call.clone()), "{call:?}");
            assert!(send(1, call).is_err());
        }
        assert_eq!((free(1), treasury()), (START, 0));
    });
}

#[test]
fn a_call_that_cannot_spare_the_fee_takes_none_and_is_not_free() {
    test(|| {
        let all_but_one = START - 1;
        assert!(!feeless(1, Call::deposit { amount: all_but_one }));
        send(1, Call::deposit { amount: all_but_one }).unwrap();
        assert_eq!((escrow(1), free(1), treasury()), (all_but_one, 1, 0));
    });
}

#[test]
fn escrow_comes_back_after_the_thaw() {
    test(|| {
        deposit(1, 5 * CREDIT);
        send(1, Call::start_withdraw { amount: 2 * CREDIT }).unwrap();
        let seen = Credits::escrow_of(&account(1));
        assert_eq!((seen.held, seen.thawing, seen.thawed_at), (5 * CREDIT, 2 * CREDIT, Some(41)));
        refused(send(1, Call::withdraw {}), Error::StillThawing);
        refused(send(1, Call::start_withdraw { amount: 1 }), Error::AlreadyThawing);
        go_to(41);
        send(1, Call::withdraw {}).unwrap();
        assert_eq!(escrow(1), 3 * CREDIT);
        refused(send(1, Call::withdraw {}), Error::NotThawing);
    });
}

#[test]
fn no_more_than_the_escrow_can_be_asked_back() {
    test(|| {
        deposit(1, 5);
        refused(send(1, Call::start_withdraw { amount: 6 }), Error::ExceedsEscrow);
        refused(send(1, Call::start_withdraw { amount: 0 }), Error::Zero);
        refused(send(1, Call::cancel_withdraw {}), Error::NotThawing);
        send(1, Call::start_withdraw { amount: 5 }).unwrap();
        send(1, Call::cancel_withdraw {}).unwrap();
        assert!(Thaws::<Test>::iter().next().is_none());
    });
}

#[test]
fn vouchers_are_paid_from_escrow_that_was_asked_back() {
    test(|| {
        deposit(1, 5 * CREDIT);
        send(1, Call::start_withdraw { amount: 5 * CREDIT }).unwrap();
        go_to(40);
        let paid = redeem(vec![sign(voucher(1, 2, 0, 1, 4 * CREDIT), 1)]);
        assert_eq!(paid, vec![Ok(4 * CREDIT)]);
        go_to(41);
        send(1, Call::withdraw {}).unwrap();
        assert_eq!(escrow(1), 0);
        assert_eq!(free(1), START - 4 * CREDIT - 3 * 10, "only what was left came back");
    });
}

#[test]
fn a_payer_who_was_emptied_during_the_thaw_withdraws_nothing_and_can_start_again() {
    test(|| {
        deposit(1, CREDIT);
        send(1, Call::start_withdraw { amount: CREDIT }).unwrap();
        redeem(vec![sign(voucher(1, 2, 0, 1, u128::MAX), 1)]);
        go_to(50);
        send(1, Call::withdraw {}).unwrap();
        assert!(events().contains(&Event::Withdrawn { payer: account(1), amount: 0 }));
        deposit(1, CREDIT);
        send(1, Call::start_withdraw { amount: CREDIT }).unwrap();
    });
}

#[test]
fn a_deposit_does_not_shorten_a_thaw() {
    test(|| {
        deposit(1, CREDIT);
        send(1, Call::start_withdraw { amount: CREDIT }).unwrap();
        go_to(30);
        deposit(1, CREDIT);
        assert_eq!(Credits::escrow_of(&account(1)).thawed_at, Some(41));
        assert_eq!(Credits::escrow_of(&account(1)).thawing, CREDIT);
        assert_eq!(Settings::<Test>::get().thaw_delay, 40);
    });
}
