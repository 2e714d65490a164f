//! Vouchers paid one by one.

use potluck_primitives::{Genesis, MicroCredits};

use super::*;
use crate::{
    CREDIT, LaneKey, Lanes,
    mock::{START, go_to, send, test},
};

#[test]
fn a_voucher_pays_what_its_lane_is_worth_less_the_share() {
    test(|| {
        deposit(1, 10 * CREDIT);
        let before = treasury();
        let signed = sign(voucher(1, 2, 7, 3, 5 * CREDIT), 1);
        assert_eq!(redeem(vec![signed.clone()]), vec![Ok(5 * CREDIT)]);
        assert_eq!(escrow(1), 5 * CREDIT);
        assert_eq!(free(2), START + 5 * CREDIT - CREDIT / 10);
        assert_eq!(treasury(), before + CREDIT / 10);
        let lane = Credits::lane(LaneKey::from(&signed.voucher));
        assert_eq!((lane.nonce, lane.cumulative, lane.redeemed), (3, 5 * CREDIT, 5 * CREDIT));
    });
}

#[test]
fn an_account_that_never_was_is_paid_without_owning_anything() {
    test(|| {
        deposit(1, CREDIT);
        assert_eq!(redeem(vec![sign(voucher(1, 30, 0, 1, 1), 1)]), vec![Ok(1)]);
        assert_eq!(free(30), 1);
    });
}

#[test]
fn a_voucher_redeemed_twice_pays_once() {
    test(|| {
        deposit(1, 10 * CREDIT);
        let signed = sign(voucher(1, 2, 0, 1, CREDIT), 1);
        let paid = redeem(vec![signed.clone(), signed.clone()]);
        assert_eq!(paid, vec![Ok(CREDIT), Err(Refusal::NothingDue)]);
        assert_eq!(redeem(vec![signed]), vec![Err(Refusal::NothingDue)]);
        assert_eq!(escrow(1), 9 * CREDIT);
    });
}

#[test]
fn vouchers_in_another_order_pay_the_same() {
    let run = |order: [usize; 3]| {
        let mut end = (0, 0, 0);
        test(|| {
            deposit(1, 10 * CREDIT);
            let all = [(1, 3_333_333), (2, 4_444_444), (3, 7_777_777)];
            for at in order {
                let (nonce, cumulative) = all[at];
                redeem(vec![sign(voucher(1, 2, 0, nonce, cumulative), 1)]);
            }
            end = (escrow(1), free(2), treasury());
        });
        end
    };
    let all = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    assert!(all.iter().all(|order| run(*order) == run([2, 1, 0])));
}

#[test]
fn a_later_voucher_for_less_takes_nothing_from_an_earlier_one() {
    test(|| {
        deposit(1, 10 * CREDIT);
        // A payer could sign this to itself be rid of what it owes.
        assert_eq!(redeem(vec![sign(voucher(1, 2, 0, u64::MAX, 1), 1)]), vec![Ok(1)]);
        assert_eq!(redeem(vec![sign(voucher(1, 2, 0, 5, CREDIT), 1)]), vec![Ok(CREDIT - 1)]);
    });
}

#[test]
fn a_forged_voucher_spoils_no_other() {
    test(|| {
        deposit(1, 10 * CREDIT);
        let good = |lane| sign(voucher(1, 2, lane, 1, CREDIT), 1);
        let by_payee = sign(voucher(1, 2, 1, 1, CREDIT), 2);
        let mut flipped = good(2);
        flipped.signature[10] ^= 1;
        let mut raised = good(3);
        raised.voucher.cumulative = MicroCredits(2 * CREDIT);
        let paid = redeem(vec![by_payee, good(0), flipped, raised, good(4)]);
        let forged = Err(Refusal::Forged);
        assert_eq!(paid, vec![forged, Ok(CREDIT), forged, forged, Ok(CREDIT)]);
        let indexes: Vec<u32> = {
            redeem(vec![good(0), good(5), good(0)]);
            System::reset_events();
            let vouchers = BoundedVec::try_from(vec![good(6), good(0)]).unwrap();
            send_bare(Call::redeem { vouchers }).unwrap();
            let number = |event| match event {
                Event::NotRedeemed { index, .. } => Some(index),
                _ => None,
            };
            events().into_iter().filter_map(number).collect()
        };
        assert_eq!(indexes, vec![1]);
    });
}

#[test]
fn every_flipped_bit_of_a_voucher_makes_it_forged_or_another_that_pays_nothing() {
    test(|| {
        deposit(1, 10 * CREDIT);
        let good = sign(voucher(1, 2, 0, 1, CREDIT), 1);
        let encoded = good.encode();
        for bit in 0..encoded.len() * 8 {
            let mut bytes = encoded.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(bad) = <SignedVoucher as codec::Decode>::decode(&mut &bytes[..]) else { continue };
            let paid = redeem(vec![bad]);
            assert!(matches!(paid[..], [Err(_)]), "bit {bit}: {paid:?}");
        }
        assert_eq!(escrow(1), 10 * CREDIT);
    });
}

#[test]
fn a_voucher_for_another_chain_or_pool_pays_nothing() {
    test(|| {
        deposit(1, 10 * CREDIT);
        let elsewhere = signed(voucher(1, 2, 0, 1, CREDIT), 1, &Genesis([1; 32]));
        let trusted = Voucher { pool: OTHER_POOL, ..voucher(1, 2, 0, 1, CREDIT) };
        let paid = redeem(vec![elsewhere, sign(trusted, 1)]);
        assert_eq!(paid, vec![Err(Refusal::Forged), Err(Refusal::UnknownPool)]);
    });
}

#[test]
fn a_voucher_moved_to_another_lane_is_forged() {
    test(|| {
        deposit(1, 10 * CREDIT);
        let mut moved = sign(voucher(1, 2, 0, 1, CREDIT), 1);
        redeem(vec![moved.clone()]);
        moved.voucher.lane = 1;
        assert_eq!(redeem(vec![moved]), vec![Err(Refusal::Forged)]);
    });
}

#[test]
fn nobody_pays_itself() {
    test(|| {
        deposit(1, 10 * CREDIT);
        assert_eq!(redeem(vec![sign(voucher(1, 1, 0, 1, CREDIT), 1)]), vec![Err(Refusal::OneParty)]);
    });
}

#[test]
fn a_voucher_for_more_than_can_be_counted_pays_what_there_is() {
    test(|| {
        deposit(1, 10 * CREDIT);
        let signed = sign(voucher(1, 2, 0, 1, u128::MAX), 1);
        assert_eq!(redeem(vec![signed.clone()]), vec![Ok(10 * CREDIT)]);
        assert_eq!(redeem(vec![signed.clone()]), vec![Err(Refusal::EscrowEmpty)]);
        let lane = Lanes::<Test>::get(LaneKey::from(&signed.voucher));
        assert_eq!((lane.cumulative, lane.redeemed), (u128::MAX, 10 * CREDIT));
    });
}

#[test]
fn what_an_escrow_could_not_pay_stays_owed_and_is_paid_after_a_deposit() {
    test(|| {
        deposit(1, CREDIT);
        let signed = sign(voucher(1, 2, 0, 1, 3 * CREDIT), 1);
        assert_eq!(redeem(vec![signed.clone()]), vec![Ok(CREDIT)]);
        deposit(1, CREDIT);
        assert_eq!(redeem(vec![signed.clone()]), vec![Ok(CREDIT)]);
        deposit(1, 5 * CREDIT);
        assert_eq!(redeem(vec![signed]), vec![Ok(CREDIT)]);
        assert_eq!(escrow(1), 4 * CREDIT);
    });
}

#[test]
fn what_was_shown_in_time_stays_owed_after_its_expiry_and_no_more() {
    test(|| {
        deposit(1, CREDIT);
        let until = |block, nonce, cumulative| {
            let expires = potluck_primitives::Block(block);
            sign(Voucher { expires, ..voucher(1, 2, 0, nonce, cumulative) }, 1)
        };
        assert_eq!(redeem(vec![until(20, 1, 3 * CREDIT)]), vec![Ok(CREDIT)]);
        go_to(21);
        deposit(1, 10 * CREDIT);
        assert_eq!(redeem(vec![until(20, 2, 4 * CREDIT)]), vec![Err(Refusal::Expired)]);
        assert_eq!(redeem(vec![until(20, 1, 3 * CREDIT)]), vec![Ok(2 * CREDIT)]);
    });
}

#[test]
fn an_empty_escrow_pays_nothing_and_remembers_nothing() {
    test(|| {
        assert_eq!(redeem(vec![sign(voucher(1, 2, 0, 1, 5), 1)]), vec![Err(Refusal::EscrowEmpty)]);
        assert!(Lanes::<Test>::iter().next().is_none());
    });
}

#[test]
fn many_small_redemptions_cost_the_share_of_one_large_one() {
    let end = |steps: u128| {
        let mut end = 0;
        test(|| {
            deposit(1, 10 * CREDIT);
            let before = treasury();
            for step in 1..=steps {
                redeem(vec![sign(voucher(1, 2, 0, 1, 999 * step / steps), 1)]);
            }
            end = treasury() - before;
        });
        end
    };
    assert_eq!(end(1), 19);
    assert_eq!(end(7), 19);
    assert_eq!(end(333), 19);
}

#[test]
fn a_signed_redemption_pays_as_well() {
    test(|| {
        deposit(1, CREDIT);
        let vouchers = BoundedVec::try_from(vec![sign(voucher(1, 2, 0, 1, 5), 1)]).unwrap();
        send(3, Call::redeem { vouchers }).unwrap();
        assert_eq!(free(2), START + 5);
    });
}

#[test]
fn an_escrow_is_shared_first_come_first_served() {
    test(|| {
        deposit(1, 3 * CREDIT);
        let both = vec![
            sign(voucher(1, 2, 0, 1, 2 * CREDIT), 1),
            sign(voucher(1, 3, 0, 1, 2 * CREDIT), 1),
            sign(voucher(1, 4, 0, 1, 2 * CREDIT), 1),
        ];
        assert_eq!(redeem(both), vec![Ok(2 * CREDIT), Ok(CREDIT), Err(Refusal::EscrowEmpty)]);
    });
}
