//! The edges of every window: the last block in it, and the first one after.

use potluck_primitives::Block;

use super::*;
use crate::{
    BatchCount, Batches, CREDIT,
    mock::{go_to, test},
};

const SETTLER: u32 = 5;

/// Runs `case` at each of these blocks, on a fresh chain each, and gives where it succeeds.
fn succeeds(blocks: &[u32], case: impl Fn(u32) -> bool) -> Vec<u32> {
    let mut found = Vec::new();
    for block in blocks {
        test(|| {
            if case(*block) {
                found.push(*block);
            }
        });
    }
    found
}

/// The honest books of epoch 0, whose settler and payer are ready.
fn ready() -> Books {
    register(SETTLER);
    deposit(1, 100 * CREDIT);
    allow(1, SETTLER);
    let voucher = sign(netted(SETTLER, 1, 3, 0, CREDIT), 1);
    books(&[voucher], &genesis())
}

/// The same, submitted at block 10: challenged until 15, final from 16.
fn submitted() -> (BatchId, Books) {
    let books = ready();
    go_to(10);
    let batch = submit(SETTLER, 0, &books);
    (batch, books)
}

#[test]
fn escrow_asked_back_at_block_1_comes_back_from_block_41() {
    let found = succeeds(&[1, 2, 39, 40, 41, 42, u32::MAX], |block| {
        deposit(1, CREDIT);
        send(1, Call::start_withdraw { amount: CREDIT }).unwrap();
        go_to(block);
        send(1, Call::withdraw {}).is_ok()
    });
    assert_eq!(found, [41, 42, u32::MAX]);
}

#[test]
fn a_thaw_that_would_end_after_the_last_block_cannot_begin() {
    let found = succeeds(&[u32::MAX - 41, u32::MAX - 40, u32::MAX - 39], |block| {
        deposit(1, CREDIT);
        go_to(block);
        send(1, Call::start_withdraw { amount: CREDIT }).is_ok()
    });
    assert_eq!(found, [u32::MAX - 41, u32::MAX - 40]);
}

#[test]
fn a_voucher_is_paid_in_the_block_it_expires_in_and_not_after() {
    let found = succeeds(&[1, 19, 20, 21, 22], |block| {
        deposit(1, CREDIT);
        go_to(block);
        redeem(vec![sign(Voucher { expires: Block(20), ..voucher(1, 2, 0, 1, CREDIT) }, 1)]) == [Ok(CREDIT)]
    });
    assert_eq!(found, [1, 19, 20]);
}

#[test]
fn a_batch_of_epoch_0_is_submitted_from_block_10_to_19() {
    let found = succeeds(&[1, 8, 9, 10, 11, 18, 19, 20, 21], |block| {
        let books = ready();
        go_to(block);
        let (root, leaf_count, gross) = (books.tree.root(), books.tree.leaf_count(), books.gross);
        send(SETTLER, Call::submit_batch { epoch: 0, root, leaf_count, gross }).is_ok()
    });
    assert_eq!(found, [10, 11, 18, 19]);
}

#[test]
fn vouchers_of_epoch_0_without_a_batch_are_redeemed_from_block_20() {
    let found = succeeds(&[1, 9, 10, 19, 20, 21], |block| {
        ready();
        go_to(block);
        redeem(vec![sign(netted(SETTLER, 1, 3, 0, CREDIT), 1)]) == [Ok(CREDIT)]
    });
    assert_eq!(found, [20, 21]);
}

#[test]
fn a_leaf_is_challenged_until_the_window_ends() {
    let found = succeeds(&[10, 11, 14, 15, 16, 17], |block| {
        let (batch, _) = submitted();
        go_to(block);
        send(6, Call::challenge_leaf { batch, index: 0 }).is_ok()
    });
    assert_eq!(found, [10, 11, 14, 15]);
}

#[test]
fn a_challenge_of_block_12_is_answered_until_15() {
    let found = succeeds(&[12, 13, 14, 15, 16, 17], |block| {
        let (batch, books) = submitted();
        go_to(12);
        send(6, Call::challenge_leaf { batch, index: 0 }).unwrap();
        go_to(block);
        send(SETTLER, answer(batch, &books, 0)).is_ok()
    });
    assert_eq!(found, [12, 13, 14, 15]);
}

#[test]
fn a_challenge_of_block_12_expires_from_16_however_late_it_is_told() {
    let found = succeeds(&[12, 15, 16, 17, 1_000], |block| {
        let (batch, _) = submitted();
        go_to(12);
        send(6, Call::challenge_leaf { batch, index: 0 }).unwrap();
        go_to(block);
        send(7, Call::expire_challenge { batch, index: 0 }).is_ok()
    });
    assert_eq!(found, [16, 17, 1_000]);
}

#[test]
fn a_batch_without_challenges_is_final_from_block_16() {
    let found = succeeds(&[10, 14, 15, 16, 17], |block| {
        let (batch, books) = submitted();
        go_to(block);
        let claimed = send_bare(claim(batch, &books, index_of(&books, 1))).is_ok();
        assert_eq!(claimed, send(SETTLER, Call::release_bond { batch }).is_ok());
        claimed
    });
    assert_eq!(found, [16, 17]);
}

#[test]
fn a_batch_is_not_final_while_a_challenge_is_open() {
    let found = succeeds(&[16, 17, 18, 19, 20], |block| {
        let (batch, books) = submitted();
        go_to(15);
        send(6, Call::challenge_leaf { batch, index: 0 }).unwrap();
        go_to(block);
        send_bare(claim(batch, &books, index_of(&books, 1))).is_ok()
    });
    assert!(found.is_empty());
}

#[test]
fn an_answer_gives_others_a_window_to_see_it() {
    // Answered in block 17, its window lasts until 20.
    let found = succeeds(&[17, 18, 19, 20, 21, 22], |block| {
        let (batch, books) = submitted();
        go_to(15);
        send(6, Call::challenge_leaf { batch, index: 0 }).unwrap();
        go_to(17);
        send(SETTLER, answer(batch, &books, 0)).unwrap();
        refused(send(6, Call::challenge_leaf { batch, index: 1 }), Error::NotDisputable);
        go_to(block);
        send_bare(claim(batch, &books, index_of(&books, 1))).is_ok()
    });
    assert_eq!(found, [21, 22]);
}

#[test]
fn an_early_answer_does_not_shorten_the_window() {
    let found = succeeds(&[13, 14, 15, 16], |block| {
        let (batch, books) = submitted();
        send(6, Call::challenge_leaf { batch, index: 0 }).unwrap();
        send(SETTLER, answer(batch, &books, 0)).unwrap();
        go_to(block);
        send_bare(claim(batch, &books, index_of(&books, 1))).is_ok()
    });
    assert_eq!(found, [16]);
}

#[test]
fn a_fault_is_proven_until_the_window_ends() {
    let found = succeeds(&[10, 15, 16, 17], |block| {
        register(SETTLER);
        go_to(10);
        let (left, right) = ([1; 32], [2; 32]);
        let node = |hash, sum| potluck_primitives::SumNode { hash, sum };
        let (left, right) = (node(left, 1), node(right, 1));
        let root = node(potluck_primitives::SumNode::hash_above(&left, &right), 0);
        send(SETTLER, Call::submit_batch { epoch: 0, root, leaf_count: 2, gross: 0 }).unwrap();
        let batch = BatchCount::<Test>::get() - 1;
        go_to(block);
        let fault = potluck_primitives::BadSum {
            level: 1,
            index: 0,
            node: root,
            beneath: potluck_primitives::Beneath::Nodes { left, right },
            siblings: potluck_primitives::Bounded::empty(),
        };
        send(6, Call::prove_bad_sum { batch, fault }).is_ok()
    });
    assert_eq!(found, [10, 15]);
}

#[test]
fn a_batch_that_is_not_settled_is_closed_from_block_51() {
    let found = succeeds(&[16, 49, 50, 51, 52], |block| {
        let (batch, _) = submitted();
        assert_eq!(Batches::<Test>::get(batch).unwrap().closable_from, 15 + 3 + 3 + 30);
        go_to(block);
        send(7, Call::close_batch { batch }).is_ok()
    });
    assert_eq!(found, [51, 52]);
}

#[test]
fn escrow_asked_back_in_the_last_block_of_an_epoch_outlasts_the_longest_dispute_of_it() {
    test(|| {
        let (deposited, asked) = (100 * CREDIT, 9);
        register(SETTLER);
        deposit(1, deposited);
        allow(1, SETTLER);
        let voucher = sign(netted(SETTLER, 1, 3, 0, CREDIT), 1);
        let books = books(&[voucher], &genesis());
        go_to(asked);
        send(1, Call::start_withdraw { amount: deposited }).unwrap();
        go_to(19);
        let batch = submit(SETTLER, 0, &books);
        go_to(24);
        send(6, Call::challenge_leaf { batch, index: 0 }).unwrap();
        go_to(27);
        send(SETTLER, answer(batch, &books, 0)).unwrap();
        go_to(31);
        refused(send(1, Call::withdraw {}), Error::StillThawing);
        send_bare(claim(batch, &books, index_of(&books, 1))).unwrap();
        assert_eq!(escrow(1), deposited - CREDIT);
    });
}
