//! Epochs netted by a settler: the honest way, the silent settler, and what both ways of payment make of one voucher.

use potluck_primitives::SumNode;

use super::*;
use crate::{
    BatchCount, Batches, CREDIT, Evidence, Settled, Standing,
    mock::{START, go_to, test},
};

const SETTLER: u32 = 5;

/// Payers 1 and 2, payees 3 and 4, and 4 pays 1 a little.
fn vouchers() -> Vec<SignedVoucher> {
    [(1, 3, 30), (1, 4, 10), (2, 3, 20), (2, 4, 5), (4, 1, 4)]
        .map(|(payer, payee, credits)| sign(netted(SETTLER, payer, payee, 0, credits * CREDIT), payer))
        .to_vec()
}

/// A settler, three payers with escrow, and the books of epoch 0, in the epoch after.
fn epoch() -> Books {
    register(SETTLER);
    for payer in [1, 2, 4] {
        deposit(payer, 100 * CREDIT);
        allow(payer, SETTLER);
    }
    go_to(10);
    books(&vouchers(), &genesis())
}

fn submit_call(epoch: u32, books: &Books) -> Call<Test> {
    let (root, leaf_count, gross) = (books.tree.root(), books.tree.leaf_count(), books.gross);
    Call::submit_batch { epoch, root, leaf_count, gross }
}

#[test]
fn an_honest_batch_pays_what_the_vouchers_come_to() {
    test(|| {
        let books = epoch();
        let before = [1, 2, 3, 4].map(|it| free(it) + escrow(it));
        let batch = submit(SETTLER, 0, &books);
        let share = treasury();
        // The flat bond, and a hundredth of what the leaves add up to.
        let bond = 10 * CREDIT + 2 * 69 * CREDIT / 100;
        assert_eq!(held(HoldReason::SettlerBond, SETTLER), bond);
        go_to(16);
        for number in [1, 2, 3, 4] {
            send_bare(claim(batch, &books, index_of(&books, number))).unwrap();
            check_no_more_claims(batch, &books, number);
        }
        let after = [1, 2, 3, 4].map(|it| free(it) + escrow(it));
        assert_eq!(after[0], before[0] - 36 * CREDIT);
        assert_eq!(after[1], before[1] - 25 * CREDIT);
        assert_eq!(after[2], before[2] + 49 * CREDIT);
        assert_eq!(after[3], before[3] + 11 * CREDIT - 11 * CREDIT / 50);
        assert_eq!(treasury() - share, 61 * CREDIT / 50);

        send(3, Call::release_bond { batch }).unwrap();
        assert_eq!(held(HoldReason::SettlerBond, SETTLER), 0);
        refused(send(3, Call::release_bond { batch }), Error::NoBond);
        send(3, Call::close_batch { batch }).unwrap();
        assert!(Settled::<Test>::iter().next().is_none());
        refused(send(3, Call::close_batch { batch }), Error::Closed);
        refused(send_bare(claim(batch, &books, 0)), Error::Closed);
    });
}

fn check_no_more_claims(batch: BatchId, books: &Books, number: u32) {
    refused(send_bare(claim(batch, books, index_of(books, number))), Error::AlreadyClaimed);
}

#[test]
fn a_batch_is_refused_that_is_not_of_a_settler_or_not_of_the_last_epoch() {
    test(|| {
        let books = epoch();
        refused(send(6, submit_call(0, &books)), Error::NotSettler);
        refused(send(SETTLER, submit_call(1, &books)), Error::WrongEpoch);
        refused(send(SETTLER, submit_call(u32::MAX, &books)), Error::WrongEpoch);
        submit(SETTLER, 0, &books);
        refused(send(SETTLER, submit_call(0, &books)), Error::AlreadySubmitted);
    });
}

#[test]
fn a_batch_is_refused_that_does_not_sum_to_zero() {
    test(|| {
        let books = epoch();
        for sum in [1, -1, i128::MAX, i128::MIN] {
            let root = SumNode { sum, ..books.tree.root() };
            let call = Call::submit_batch { epoch: 0, root, leaf_count: 4, gross: 0 };
            refused(send(SETTLER, call), Error::NotZeroSum);
        }
        let root = books.tree.root();
        for leaf_count in [0, crate::MAX_LEAVES + 1, u32::MAX] {
            let call = Call::submit_batch { epoch: 0, root, leaf_count, gross: 0 };
            refused(send(SETTLER, call), Error::LeafCount);
        }
        // A bond that nobody can have.
        assert!(
            send(SETTLER, Call::submit_batch { epoch: 0, root, leaf_count: 4, gross: u128::MAX }).is_err()
        );
        assert_eq!(BatchCount::<Test>::get(), 0);
    });
}

#[test]
fn the_public_pool_cannot_be_a_settler() {
    test(|| {
        use frame_support::traits::UnfilteredDispatchable;
        let call = crate::mock::RuntimeCall::Credits(Call::register_settler {});
        let zeros = crate::mock::RuntimeOrigin::signed(AccountId32::new([0; 32]));
        refused(call.dispatch_bypass_filter(zeros), Error::ReservedAccount);
        register(SETTLER);
        refused(send(SETTLER, Call::register_settler {}), Error::AlreadySettler);
    });
}

#[test]
fn a_voucher_is_never_redeemed_while_its_batch_can_come_or_is_there() {
    test(|| {
        let books = epoch();
        let all = vouchers();
        assert_eq!(redeem(all.clone()), vec![Err(Refusal::AwaitsBatch); 5]);
        let batch = submit(SETTLER, 0, &books);
        assert_eq!(redeem(all.clone()), vec![Err(Refusal::InBatch); 5]);
        go_to(16);
        assert_eq!(redeem(all.clone()), vec![Err(Refusal::InBatch); 5]);
        for index in [0, 1, 2, 3, 0, 1, 2, 3] {
            let _ = send_bare(claim(batch, &books, index));
        }
        assert_eq!(redeem(all.clone()), vec![Err(Refusal::InBatch); 5]);
        send(3, Call::close_batch { batch }).unwrap();
        go_to(10_000);
        assert_eq!(redeem(all), vec![Err(Refusal::InBatch); 5]);
    });
}

#[test]
fn a_settler_who_says_nothing_leaves_its_vouchers_to_be_redeemed() {
    test(|| {
        let books = epoch();
        go_to(19);
        assert_eq!(redeem(vouchers()), vec![Err(Refusal::AwaitsBatch); 5]);
        go_to(20);
        refused(send(SETTLER, submit_call(0, &books)), Error::WrongEpoch);
        let paid = redeem(vouchers());
        assert_eq!(paid, [30, 10, 20, 5, 4].map(|credits| Ok(credits * CREDIT)).to_vec());
        assert_eq!(redeem(vouchers()), vec![Err(Refusal::NothingDue); 5]);
    });
}

#[test]
fn a_voucher_for_an_epoch_that_never_comes_is_never_paid() {
    test(|| {
        register(SETTLER);
        deposit(1, 100 * CREDIT);
        go_to(u32::MAX);
        let never = |epoch| sign(netted(SETTLER, 1, 3, epoch, CREDIT), 1);
        assert_eq!(redeem(vec![never(u32::MAX), never(u32::MAX / 10)]), vec![Err(Refusal::AwaitsBatch); 2]);
        assert_eq!(redeem(vec![never(u32::MAX / 10 - 2)]), vec![Ok(CREDIT)]);
    });
}

#[test]
fn credits_wait_for_debits() {
    test(|| {
        let books = epoch();
        let batch = submit(SETTLER, 0, &books);
        go_to(16);
        let (first, second) = (index_of(&books, 1), index_of(&books, 2));
        let (large, small) = (index_of(&books, 3), index_of(&books, 4));
        refused(send_bare(claim(batch, &books, large)), Error::PotEmpty);
        refused(send_bare(claim(batch, &books, small)), Error::PotEmpty);
        send_bare(claim(batch, &books, first)).unwrap();
        // 36 of the 50 are there.
        send_bare(claim(batch, &books, large)).unwrap();
        assert_eq!(Batches::<Test>::get(batch).unwrap().pot, 0);
        refused(send_bare(claim(batch, &books, large)), Error::PotEmpty);
        send_bare(claim(batch, &books, second)).unwrap();
        send_bare(claim(batch, &books, small)).unwrap();
        send_bare(claim(batch, &books, large)).unwrap();
        refused(send_bare(claim(batch, &books, large)), Error::AlreadyClaimed);
        assert_eq!(free(3), START + 49 * CREDIT);
        assert_eq!(Batches::<Test>::get(batch).unwrap().pot, 0);
    });
}

#[test]
fn an_escrow_that_shrank_is_collected_as_far_as_it_goes_and_again_later() {
    test(|| {
        let books = epoch();
        let batch = submit(SETTLER, 0, &books);
        // The payer pays somebody else before the batch is final.
        assert_eq!(redeem(vec![sign(voucher(1, 6, 0, 1, 90 * CREDIT), 1)]), vec![Ok(90 * CREDIT)]);
        go_to(16);
        let (debit, credit) = (index_of(&books, 1), index_of(&books, 3));
        send_bare(claim(batch, &books, debit)).unwrap();
        refused(send_bare(claim(batch, &books, debit)), Error::NothingToCollect);
        send_bare(claim(batch, &books, credit)).unwrap();
        assert_eq!(free(3), START + 10 * CREDIT - CREDIT / 5);
        deposit(1, 50 * CREDIT);
        send_bare(claim(batch, &books, debit)).unwrap();
        refused(send_bare(claim(batch, &books, debit)), Error::AlreadyClaimed);
        assert_eq!(escrow(1), 24 * CREDIT);
        send_bare(claim(batch, &books, credit)).unwrap();
        send_bare(claim(batch, &books, index_of(&books, 2))).unwrap();
        send_bare(claim(batch, &books, credit)).unwrap();
        send_bare(claim(batch, &books, index_of(&books, 4))).unwrap();
        assert_eq!(free(3), START + 49 * CREDIT);
    });
}

#[test]
fn a_batch_takes_no_more_than_its_settler_was_bonded_for() {
    test(|| {
        let books = epoch();
        let (root, leaf_count) = (books.tree.root(), books.tree.leaf_count());
        send(SETTLER, Call::submit_batch { epoch: 0, root, leaf_count, gross: CREDIT }).unwrap();
        go_to(16);
        send_bare(claim(0, &books, index_of(&books, 1))).unwrap();
        assert_eq!(escrow(1), 99 * CREDIT);
        refused(send_bare(claim(0, &books, index_of(&books, 1))), Error::NothingToCollect);
        refused(send_bare(claim(0, &books, index_of(&books, 2))), Error::NothingToCollect);
    });
}

#[test]
fn a_claim_needs_the_leaf_where_it_is() {
    test(|| {
        let books = epoch();
        let batch = submit(SETTLER, 0, &books);
        refused(send_bare(claim(batch, &books, 0)), Error::NotFinal);
        refused(send_bare(claim(batch + 1, &books, 0)), Error::UnknownBatch);
        go_to(16);
        let leaf = books.tree.leaves()[0];
        let mut more = leaf;
        more.delta += 1;
        for (leaf, index, count) in [(more, 0, 4), (leaf, 1, 4), (leaf, 0, 3), (leaf, 0, 8), (leaf, 9, 4)] {
            let mut proof = books.tree.prove(0).unwrap();
            (proof.index, proof.leaf_count) = (index, count);
            refused(send_bare(Call::claim { batch, leaf, proof }), Error::BadProof);
        }
    });
}

#[test]
fn a_batch_is_closed_early_only_when_all_is_settled() {
    test(|| {
        let books = epoch();
        let batch = submit(SETTLER, 0, &books);
        refused(send(3, Call::close_batch { batch }), Error::NotFinal);
        go_to(16);
        send_bare(claim(batch, &books, index_of(&books, 1))).unwrap();
        refused(send(3, Call::close_batch { batch }), Error::Unsettled);
        let last = Batches::<Test>::get(batch).unwrap().closable_from;
        assert_eq!(last, 15 + 2 * 3 + 30);
        go_to(last - 1);
        refused(send(3, Call::close_batch { batch }), Error::Unsettled);
        go_to(last);
        let before = treasury();
        send(3, Call::close_batch { batch }).unwrap();
        assert_eq!(treasury() - before, 36 * CREDIT + 10, "what nobody claimed is the treasury's");
        assert_eq!(Batches::<Test>::get(batch).unwrap().standing, Standing::Closed);
    });
}

/// What a payee shows of a batch that left one of its vouchers out.
fn listed(books: &Books, number: u32) -> Evidence {
    let index = index_of(books, number);
    let listed = books.listed[index as usize].iter().map(|it| it.voucher.clone()).collect::<Vec<_>>();
    let leaf = books.tree.leaves()[index as usize];
    Evidence::Listed { leaf, proof: books.tree.prove(index).unwrap(), listed: listed.try_into().unwrap() }
}

#[test]
fn a_voucher_that_a_final_batch_left_out_is_redeemed_with_its_proof_once() {
    test(|| {
        epoch();
        let all = vouchers();
        // The settler leaves out what 2 owes to 3.
        let part: Vec<_> = [0, 1, 3, 4].map(|at| all[at].clone()).to_vec();
        let books = books(&part, &genesis());
        let batch = submit(SETTLER, 0, &books);
        let call = |voucher: usize, of| Call::redeem_omitted {
            batch,
            evidence: listed(&books, of),
            voucher: all[voucher].clone(),
        };
        refused(send_bare(call(2, 3)), Error::NotFinal);
        go_to(16);
        refused(send_bare(call(0, 3)), Error::NoFault);
        refused(send_bare(call(2, 2)), Error::BadProof);
        send_bare(call(2, 3)).unwrap();
        assert_eq!(escrow(2), 80 * CREDIT);
        refused(send_bare(call(2, 3)), Error::BadVoucher);
        for number in [1, 2, 3, 4] {
            send_bare(claim(batch, &books, index_of(&books, number))).unwrap();
        }
        assert_eq!((escrow(1), escrow(2)), (64 * CREDIT, 75 * CREDIT));
        assert_eq!(redeem(all), vec![Err(Refusal::InBatch); 5]);
    });
}

#[test]
fn of_a_voucher_that_a_final_batch_counted_for_less_the_rest_is_redeemed() {
    test(|| {
        epoch();
        let mut part = vouchers();
        part[2] = sign(netted(SETTLER, 2, 3, 0, 12 * CREDIT), 2);
        let books = books(&part, &genesis());
        let batch = submit(SETTLER, 0, &books);
        go_to(16);
        let voucher = vouchers()[2].clone();
        let call = Call::redeem_omitted { batch, evidence: listed(&books, 3), voucher };
        send_bare(call.clone()).unwrap();
        refused(send_bare(call), Error::BadVoucher);
        assert_eq!(escrow(2), 92 * CREDIT);
    });
}

#[test]
fn an_account_that_a_final_batch_left_out_shows_its_neighbours() {
    test(|| {
        epoch();
        let all = vouchers();
        let part: Vec<_> = all.iter().filter(|it| it.voucher.payee != raw(3)).cloned().collect();
        let books = books(&part, &genesis());
        let batch = submit(SETTLER, 0, &books);
        go_to(16);
        let leaves = books.tree.leaves();
        let after = leaves.iter().position(|leaf| leaf.account > raw(3)).unwrap_or(leaves.len());
        let at = |index: usize| (leaves[index], books.tree.prove(index as u32).unwrap());
        let before = after.checked_sub(1).map(at);
        let next = (after < leaves.len()).then(|| at(after));
        let call = |before, after| Call::redeem_omitted {
            batch,
            evidence: Evidence::Absent { before, after },
            voucher: all[0].clone(),
        };
        refused(send_bare(call(None, None)), Error::BadProof);
        refused(send_bare(call(next.clone(), before.clone())), Error::BadProof);
        send_bare(call(before, next)).unwrap();
        assert_eq!(escrow(1), 70 * CREDIT);
    });
}

#[test]
fn sums_at_the_edge_of_what_can_be_counted_are_settled_as_far_as_there_is_escrow() {
    test(|| {
        epoch();
        // One leaf that takes all that can be counted, and one that gives it.
        let most = i128::MAX.unsigned_abs();
        let books = books(&[sign(netted(SETTLER, 1, 3, 0, most), 1)], &genesis());
        let (root, leaf_count) = (books.tree.root(), books.tree.leaf_count());
        send(SETTLER, Call::submit_batch { epoch: 0, root, leaf_count, gross: 1_000 * CREDIT }).unwrap();
        go_to(16);
        send_bare(claim(0, &books, index_of(&books, 1))).unwrap();
        send_bare(claim(0, &books, index_of(&books, 3))).unwrap();
        assert_eq!(escrow(1), 0);
        assert_eq!(free(3), START + 98 * CREDIT);
    });
}
