//! What payers let settlers take: a settler that hides its leaves can take no more than that.

use potluck_primitives::{Bounded, Leaf, SumNode, SumProof, SumTree};

use super::*;
use crate::{
    Allowances, CREDIT,
    mock::{go_to, test},
};

const SETTLER: u32 = 5;

fn limit(payer: u32, limit: u128) -> frame_support::dispatch::DispatchResultWithPostInfo {
    send(payer, Call::allow_settler { settler: account(SETTLER), limit })
}

fn allowed(epoch: u32) -> u128 {
    Credits::allowance(account(1), account(SETTLER), epoch)
}

/// A batch that takes 50 credits from payer 1 for nothing, final since nobody looked, and its tree.
fn theft() -> SumTree {
    let leaf = |of, delta| Leaf { account: raw(of), delta, gross: 0, vouchers_root: [0; 32] };
    let mut all = vec![leaf(1, -50_000_000), leaf(9, 50_000_000)];
    all.sort_by_key(|leaf| leaf.account);
    let tree = SumTree::build(all).unwrap();
    go_to(10);
    let (root, leaf_count) = (tree.root(), tree.leaf_count());
    send(SETTLER, Call::submit_batch { epoch: 0, root, leaf_count, gross: 200 * CREDIT }).unwrap();
    go_to(16);
    tree
}

fn take(tree: &SumTree) -> frame_support::dispatch::DispatchResultWithPostInfo {
    let index = tree.index_of(&raw(1)).unwrap();
    let leaf = tree.leaves()[index as usize];
    send_bare(Call::claim { batch: 0, leaf, proof: tree.prove(index).unwrap() })
}

#[test]
fn a_settler_takes_nothing_from_a_payer_that_never_allowed_it() {
    test(|| {
        register(SETTLER);
        deposit(1, 100 * CREDIT);
        let tree = theft();
        refused(take(&tree), Error::NothingToCollect);
        assert_eq!(escrow(1), 100 * CREDIT);
    });
}

#[test]
fn a_settler_that_nobody_watches_takes_no_more_than_it_was_allowed() {
    test(|| {
        register(SETTLER);
        deposit(1, 100 * CREDIT);
        limit(1, 7 * CREDIT).unwrap();
        let tree = theft();
        take(&tree).unwrap();
        refused(take(&tree), Error::NothingToCollect);
        assert_eq!(escrow(1), 93 * CREDIT);
    });
}

#[test]
fn two_leaves_of_one_payer_take_no_more_together_than_one_may() {
    test(|| {
        register(SETTLER);
        deposit(1, 100 * CREDIT);
        limit(1, 7 * CREDIT).unwrap();
        let leaf = |delta| Leaf { account: raw(1), delta, gross: 0, vouchers_root: [0; 32] };
        let (first, second) = (leaf(-50_000_000), leaf(-40_000_000));
        let friend = Leaf { account: raw(9), ..leaf(90_000_000) };
        let left = SumNode::above(&first.node(), &second.node()).unwrap();
        let root = SumNode::above(&left, &friend.node()).unwrap();
        go_to(10);
        send(SETTLER, Call::submit_batch { epoch: 0, root, leaf_count: 3, gross: 200 * CREDIT }).unwrap();
        go_to(16);
        let call = |index, leaf, other: Leaf| {
            let siblings = Bounded::new(vec![other.node(), friend.node()]).unwrap();
            send_bare(Call::claim { batch: 0, leaf, proof: SumProof { index, leaf_count: 3, siblings } })
        };
        call(0, first, second).unwrap();
        refused(call(1, second, first), Error::NothingToCollect);
        assert_eq!(escrow(1), 93 * CREDIT);
    });
}

#[test]
fn more_is_allowed_at_once_and_less_from_the_next_epoch_on() {
    test(|| {
        register(SETTLER);
        limit(1, 10).unwrap();
        assert_eq!([0, 1, 2].map(allowed), [10, 10, 10]);
        limit(1, 20).unwrap();
        assert_eq!([0, 1, 2].map(allowed), [20, 20, 20]);
        go_to(15);
        limit(1, 5).unwrap();
        assert_eq!([0, 1, 2, 3].map(allowed), [20, 20, 5, 5]);
        limit(1, 6).unwrap();
        assert_eq!([0, 1, 2, 3].map(allowed), [20, 20, 6, 6]);
    });
}

#[test]
fn an_allowance_lowered_at_block_15_is_lowered_again_from_55() {
    for (block, works) in [(15, false), (54, false), (55, true), (56, true)] {
        test(|| {
            register(SETTLER);
            limit(1, 10).unwrap();
            go_to(15);
            limit(1, 5).unwrap();
            go_to(block);
            assert_eq!(limit(1, 0).is_ok(), works, "block {block}");
        });
    }
}

#[test]
fn a_payer_cannot_take_back_what_it_allowed_for_an_epoch_that_began() {
    test(|| {
        register(SETTLER);
        deposit(1, 100 * CREDIT);
        limit(1, 100 * CREDIT).unwrap();
        go_to(9);
        limit(1, 0).unwrap();
        let tree = theft();
        // Neither now nor once more.
        limit(1, 0).unwrap();
        take(&tree).unwrap();
        assert_eq!(escrow(1), 50 * CREDIT);
    });
}

#[test]
fn only_settlers_are_allowed_anything() {
    test(|| {
        refused(limit(1, 10), Error::NotSettler);
        assert!(Allowances::<Test>::iter().next().is_none());
    });
}
