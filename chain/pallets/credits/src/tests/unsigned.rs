//! What nodes let into their queues without a signature or a fee.

use frame_support::{
    pallet_prelude::{InvalidTransaction, TransactionSource, TransactionValidityError, ValidTransaction},
    traits::{Authorize, UnfilteredDispatchable},
};

#[allow(deprecated, reason = "it is what is tested")]
use frame_support::pallet_prelude::ValidateUnsigned;

use super::*;
use crate::{
    CREDIT, PAYER_SLOTS,
    mock::{RuntimeCall, RuntimeOrigin, START, chain, go_to, test},
};

/// The same answer by both ways in.
fn validate(call: Call<Test>) -> Result<ValidTransaction, TransactionValidityError> {
    #[allow(deprecated, reason = "it is what is tested")]
    let bare = Credits::validate_unsigned(TransactionSource::External, &call);
    let general = RuntimeCall::Credits(call).authorize(TransactionSource::External).unwrap();
    let general = general.map(|(valid, _)| valid);
    assert_eq!(bare, general);
    bare
}

fn redemption(vouchers: Vec<SignedVoucher>) -> Call<Test> {
    Call::redeem { vouchers: BoundedVec::try_from(vouchers).unwrap() }
}

fn too_little() -> Result<ValidTransaction, TransactionValidityError> {
    Err(InvalidTransaction::Custom(1).into())
}

#[test]
fn a_redemption_that_pays_enough_is_let_in_and_leaves_no_trace() {
    test(|| {
        deposit(1, CREDIT);
        let valid = validate(redemption(vec![sign(voucher(1, 2, 0, 1, 100), 1)])).unwrap();
        assert_eq!((valid.priority, valid.provides.len(), valid.propagate), (100, 1, true));
        assert_eq!((escrow(1), free(2)), (CREDIT, START));
        assert_eq!(events(), vec![]);
    });
}

#[test]
fn a_redemption_that_pays_less_than_the_minimum_is_not_let_in() {
    test(|| {
        deposit(1, CREDIT);
        assert_eq!(validate(redemption(vec![sign(voucher(1, 2, 0, 1, 99), 1)])), too_little());
        assert_eq!(validate(redemption(vec![])), too_little());
    });
}

#[test]
fn every_voucher_of_a_free_redemption_must_carry_its_own_weight() {
    test(|| {
        deposit(1, CREDIT);
        let lanes = |count: u32, of_first| {
            let amount = |lane| if lane == 0 { of_first } else { 1 };
            (0..count).map(|lane| sign(voucher(1, 2, lane, 1, amount(lane)), 1)).collect()
        };
        assert_eq!(validate(redemption(lanes(32, 3_168))), too_little());
        assert!(validate(redemption(lanes(32, 3_169))).is_ok());
    });
}

#[test]
fn forged_and_replayed_vouchers_alone_are_not_let_in() {
    test(|| {
        deposit(1, CREDIT);
        let good = sign(voucher(1, 2, 0, 1, 1_000), 1);
        let forged = sign(voucher(1, 2, 1, 1, 1_000), 2);
        assert_eq!(validate(redemption(vec![forged.clone(); 32])), too_little());
        assert!(validate(redemption(vec![forged, good.clone()])).is_ok());
        redeem(vec![good.clone()]);
        assert_eq!(validate(redemption(vec![good])), too_little());
    });
}

#[test]
fn one_escrow_is_not_counted_twice() {
    test(|| {
        deposit(1, 60);
        let vouchers = (0..32).map(|lane| sign(voucher(1, 2, lane, 1, 90), 1)).collect();
        assert_eq!(validate(redemption(vouchers)), too_little());
        deposit(2, CREDIT);
        let same = sign(voucher(2, 3, 0, 1, 60), 2);
        assert_eq!(validate(redemption(vec![same; 32])), too_little());
    });
}

#[test]
fn the_same_redemption_in_two_shapes_collides() {
    test(|| {
        deposit(1, CREDIT);
        let first = sign(voucher(1, 2, 0, 1, 1_000), 1);
        let second = sign(voucher(1, 2, 0, 2, 2_000), 1);
        let alone = validate(redemption(vec![first.clone()])).unwrap();
        let both = validate(redemption(vec![second.clone(), first])).unwrap();
        let newer = validate(redemption(vec![second])).unwrap();
        assert_eq!(alone.provides, both.provides);
        assert_eq!(alone.provides, newer.provides);
        assert!(newer.priority > alone.priority, "the one that pays more replaces the other");
    });
}

#[test]
fn one_payer_fills_only_so_many_slots_of_a_queue() {
    test(|| {
        deposit(1, CREDIT);
        let mut tags = std::collections::BTreeSet::new();
        for lane in 0..600 {
            let valid = validate(redemption(vec![sign(voucher(1, 40 + lane, lane, 1, 1_000), 1)])).unwrap();
            tags.extend(valid.provides);
        }
        assert_eq!(tags.len(), usize::from(PAYER_SLOTS));
    });
}

#[test]
fn a_claim_is_let_in_once_its_batch_is_final_and_it_moves_something() {
    test(|| {
        register(5);
        deposit(1, 100 * CREDIT);
        allow(1, 5);
        let books = books(&[signed(netted(5, 1, 3, 0, CREDIT), 1, &genesis())], &genesis());
        go_to(10);
        let batch = submit(5, 0, &books);
        let (debit, credit) = (index_of(&books, 1), index_of(&books, 3));
        let not_yet = Err(InvalidTransaction::Call.into());
        assert_eq!(validate(claim(batch, &books, debit)), not_yet);
        go_to(16);
        assert_eq!(validate(claim(batch, &books, credit)), not_yet, "the pot is empty");
        assert!(validate(claim(batch, &books, debit)).is_ok());
        send_bare(claim(batch, &books, debit)).unwrap();
        assert_eq!(validate(claim(batch, &books, debit)), not_yet);
        let valid = validate(claim(batch, &books, credit)).unwrap();
        assert_eq!(valid.priority, 1_000_000);
    });
}

#[test]
fn no_other_call_is_let_in_unsigned() {
    chain().execute_with(|| {
        #[allow(deprecated, reason = "it is what is tested")]
        let validate = |call: Call<Test>| Credits::validate_unsigned(TransactionSource::External, &call);
        let refused = Err(InvalidTransaction::Call.into());
        for call in [
            Call::deposit { amount: 1 },
            Call::withdraw {},
            Call::register_settler {},
            Call::grant { account: account(1), amount: 1 },
            Call::burn { amount: 1 },
            Call::close_batch { batch: 0 },
        ] {
            assert_eq!(validate(call.clone()), refused);
            assert!(RuntimeCall::Credits(call.clone()).authorize(TransactionSource::External).is_none());
            assert!(send_bare(call).is_err());
        }
        let by_root = RuntimeCall::Credits(redemption(vec![])).dispatch_bypass_filter(RuntimeOrigin::root());
        assert!(by_root.is_err());
    });
}
