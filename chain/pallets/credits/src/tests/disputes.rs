//! Dishonest settlers and challengers, one each.

use potluck_primitives::{
    BadSum, Beneath, Bounded, Duplicate, Leaf, MerkleProof, SignatureBytes, SumNode, SumProof, SumTree,
};

use super::*;
use crate::{
    Batches, CREDIT, Challenges, Evidence, Fault, Knowledge, Standing,
    mock::{START, go_to, test},
};

const SETTLER: u32 = 5;
const BOND: u128 = 10 * CREDIT;

fn pay(payer: u32, payee: u32, credits: u128) -> SignedVoucher {
    sign(netted(SETTLER, payer, payee, 0, credits * CREDIT), payer)
}

fn epoch() -> Vec<SignedVoucher> {
    register(SETTLER);
    deposit(1, 100 * CREDIT);
    deposit(2, 100 * CREDIT);
    allow(1, SETTLER);
    allow(2, SETTLER);
    go_to(10);
    vec![pay(1, 3, 30), pay(1, 4, 10), pay(2, 3, 20)]
}

/// Submits whatever the settler likes, for the flat bond.
fn submit_root(root: SumNode, leaf_count: u32) -> BatchId {
    send(SETTLER, Call::submit_batch { epoch: 0, root, leaf_count, gross: 0 }).unwrap();
    System::reset_events();
    crate::BatchCount::<Test>::get() - 1
}

/// Asserts that the batch was lost to `winner`, who began with all its credits, and paid for `calls`.
fn lost(batch: BatchId, fault: Fault, winner: u32, calls: u128) {
    let state = Batches::<Test>::get(batch).unwrap();
    assert_eq!((state.standing, state.bond), (Standing::Void, 0));
    assert_eq!(free(winner), START + BOND / 2 - calls * 10);
    assert_eq!(crate::Burnt::<Test>::get(), BOND / 2);
    let voided = events().into_iter().find_map(|event| match event {
        Event::BatchVoided { fault, reward, burnt, .. } => Some((fault, reward, burnt)),
        _ => None,
    });
    assert_eq!(voided, Some((fault, BOND / 2, BOND / 2)));
}

fn listed(books: &Books, number: u32) -> Evidence {
    let index = index_of(books, number);
    let listed: Vec<_> = books.listed[index as usize].iter().map(|it| it.voucher.clone()).collect();
    let leaf = books.tree.leaves()[index as usize];
    Evidence::Listed { leaf, proof: books.tree.prove(index).unwrap(), listed: listed.try_into().unwrap() }
}

#[test]
fn an_answered_challenge_costs_the_challenger_and_not_the_settler() {
    test(|| {
        let books = books(&epoch(), &genesis());
        let batch = submit(SETTLER, 0, &books);
        let index = index_of(&books, 3);
        let before = free(SETTLER);
        send(6, Call::challenge_leaf { batch, index }).unwrap();
        assert_eq!(held(HoldReason::ChallengerBond, 6), CREDIT);
        refused(send(7, Call::challenge_leaf { batch, index }), Error::AlreadyChallenged);
        send(8, answer(batch, &books, index)).unwrap();
        assert_eq!(held(HoldReason::ChallengerBond, 6), 0);
        assert_eq!(free(6), START - CREDIT - 10);
        assert_eq!(free(SETTLER), before + CREDIT / 2);
        refused(send(7, Call::challenge_leaf { batch, index }), Error::AlreadyChallenged);
        refused(send(7, answer(batch, &books, index)), Error::NotChallenged);
        go_to(16);
        send_bare(claim(batch, &books, index_of(&books, 1))).unwrap();
    });
}

#[test]
fn a_settler_who_does_not_answer_loses_and_its_vouchers_are_redeemed() {
    test(|| {
        let all = epoch();
        let books = books(&all, &genesis());
        let batch = submit_root(books.tree.root(), books.tree.leaf_count());
        send(6, Call::challenge_leaf { batch, index: 0 }).unwrap();
        go_to(14);
        send(7, Call::expire_challenge { batch, index: 0 }).unwrap();
        lost(batch, Fault::Unanswered, 6, 1);
        assert_eq!(redeem(all), [30, 10, 20].map(|credits| Ok(credits * CREDIT)).to_vec());
        refused(send_bare(claim(batch, &books, 0)), Error::NotFinal);
        refused(
            send(
                SETTLER,
                Call::submit_batch {
                    epoch: 0,
                    root: books.tree.root(),
                    leaf_count: books.tree.leaf_count(),
                    gross: 0,
                },
            ),
            Error::AlreadySubmitted,
        );
        go_to(1_000);
        refused(send_bare(claim(batch, &books, 0)), Error::NotFinal);
        refused(send(SETTLER, Call::release_bond { batch }), Error::NotFinal);
    });
}

#[test]
fn a_dispute_does_not_run_down_the_life_of_a_voucher() {
    test(|| {
        epoch();
        let expires = potluck_primitives::Block(10);
        let short = sign(Voucher { expires, ..netted(SETTLER, 1, 3, 0, CREDIT) }, 1);
        let late =
            sign(Voucher { expires: potluck_primitives::Block(9), ..netted(SETTLER, 1, 4, 0, CREDIT) }, 1);
        let books = books(&[short.clone(), late.clone()], &genesis());
        let batch = submit_root(books.tree.root(), books.tree.leaf_count());
        send(6, Call::challenge_leaf { batch, index: 0 }).unwrap();
        go_to(14);
        send(7, Call::expire_challenge { batch, index: 0 }).unwrap();
        go_to(500);
        assert_eq!(redeem(vec![short, late]), vec![Ok(CREDIT), Err(Refusal::Expired)]);
    });
}

#[test]
fn vouchers_that_do_not_add_up_to_the_leaf_are_no_answer() {
    test(|| {
        let all = epoch();
        let honest = books(&all, &genesis());
        let mut leaves = honest.tree.leaves().to_vec();
        // The settler gives a friend what it takes from a payer.
        let (payer, friend) = (index_of(&honest, 1) as usize, index_of(&honest, 4) as usize);
        leaves[payer].delta -= 5_000_000;
        leaves[friend].delta += 5_000_000;
        let tree = SumTree::build(leaves).unwrap();
        let books = Books { tree, ..honest };
        let batch = submit_root(books.tree.root(), books.tree.leaf_count());
        for index in [payer, friend] {
            send(6, Call::challenge_leaf { batch, index: index as u32 }).unwrap();
            refused(send(SETTLER, answer(batch, &books, index as u32)), Error::BadAnswer);
        }
        go_to(14);
        send(9, Call::expire_challenge { batch, index: payer as u32 }).unwrap();
        // The other challenge still holds its bond.
        send(9, Call::reclaim_challenge { batch, index: friend as u32 }).unwrap();
        lost(batch, Fault::Unanswered, 6, 2);
    });
}

#[test]
fn an_answer_must_be_all_the_vouchers_signed_in_order_and_of_this_epoch() {
    test(|| {
        epoch();
        let foreign = [
            sign(netted(SETTLER, 1, 3, 1, 30 * CREDIT), 1),
            sign(netted(6, 1, 3, 0, 30 * CREDIT), 1),
            sign(voucher(1, 3, 0, 1, 30 * CREDIT), 1),
            sign(netted(SETTLER, 1, 3, 0, 30 * CREDIT), 2),
            sign(netted(SETTLER, 1, 4, 0, 30 * CREDIT), 1),
            sign(
                Voucher { expires: potluck_primitives::Block(9), ..netted(SETTLER, 1, 3, 0, 30 * CREDIT) },
                1,
            ),
        ];
        // A leaf over each of them, as if it were the account's only voucher.
        let me = raw(3);
        let leaves: Vec<Leaf> = foreign
            .iter()
            .map(|it| Leaf {
                delta: 30_000_000,
                gross: 30 * CREDIT,
                ..leaf_of(me, std::slice::from_ref(it), &genesis())
            })
            .collect();
        for (leaf, it) in leaves.iter().zip(&foreign) {
            let opposite = Leaf { account: [0xff; 32], delta: -leaf.delta, ..*leaf };
            let tree = SumTree::build(vec![*leaf, opposite]).unwrap();
            let batch = submit_root(tree.root(), 2);
            send(6, Call::challenge_leaf { batch, index: 0 }).unwrap();
            let vouchers = BoundedVec::try_from(vec![it.clone()]).unwrap();
            let proof = tree.prove(0).unwrap();
            refused(
                send(SETTLER, Call::answer_leaf { batch, leaf: *leaf, proof, vouchers }),
                Error::BadAnswer,
            );
            unmake(batch);
        }
    });
}

/// Takes a batch back as if it had never been submitted.
fn unmake(batch: BatchId) {
    let state = Batches::<Test>::take(batch).unwrap();
    if state.bond > 0 {
        Credits::release(HoldReason::SettlerBond, &state.settler, state.bond).unwrap();
    }
    for (_, challenge) in Challenges::<Test>::drain_prefix(batch) {
        if let crate::Challenge::Open { challenger, bond, .. } = challenge {
            Credits::release(HoldReason::ChallengerBond, &challenger, bond).unwrap();
        }
    }
    crate::Epochs::<Test>::remove(&state.settler, state.epoch);
}

#[test]
fn vouchers_out_of_order_or_twice_are_no_answer() {
    test(|| {
        let all = epoch();
        let honest = books(&all, &genesis());
        let index = index_of(&honest, 3);
        let mut turned = honest.listed[index as usize].clone();
        turned.reverse();
        let doubled = vec![turned[0].clone(), turned[0].clone()];
        for wrong in [turned, doubled] {
            let mut leaves = honest.tree.leaves().to_vec();
            let leaf = leaf_of(raw(3), &wrong, &genesis());
            let others = leaves.iter_mut().find(|leaf| leaf.account == raw(1)).unwrap();
            others.delta += leaves_delta(&honest, 3) - leaf.delta;
            leaves[index as usize] = leaf;
            let tree = SumTree::build(leaves).unwrap();
            let batch = submit_root(tree.root(), tree.leaf_count());
            send(6, Call::challenge_leaf { batch, index }).unwrap();
            let vouchers = BoundedVec::try_from(wrong).unwrap();
            let proof = tree.prove(index).unwrap();
            refused(send(SETTLER, Call::answer_leaf { batch, leaf, proof, vouchers }), Error::BadAnswer);
            unmake(batch);
        }
    });
}

fn leaves_delta(books: &Books, number: u32) -> i128 {
    books.tree.leaves()[index_of(books, number) as usize].delta
}

#[test]
fn a_stated_sum_that_is_not_one_loses() {
    test(|| {
        epoch();
        let left = Leaf { account: raw(3), delta: 70_000_000, gross: 0, vouchers_root: [0; 32] };
        let right = Leaf { account: [0xff; 32], delta: -1, ..left };
        let (left, right) = (left.node(), right.node());
        let root = SumNode { hash: SumNode::hash_above(&left, &right), sum: 0 };
        let batch = submit_root(root, 2);
        let beneath = Beneath::Nodes { left, right };
        let fault = BadSum { level: 1, index: 0, node: root, beneath, siblings: Bounded::empty() };
        let mut wrong = fault.clone();
        wrong.beneath = Beneath::Nodes { left: right, right: left };
        refused(send(6, Call::prove_bad_sum { batch, fault: wrong }), Error::NoFault);
        send(6, Call::prove_bad_sum { batch, fault: fault.clone() }).unwrap();
        lost(batch, Fault::BadSum, 6, 1);
        refused(send(7, Call::prove_bad_sum { batch, fault }), Error::NotDisputable);
    });
}

#[test]
fn two_leaves_of_one_account_or_out_of_order_lose() {
    test(|| {
        epoch();
        let leaf = |account, delta| Leaf { account, delta, gross: 0, vouchers_root: [0; 32] };
        for (first, second) in [(leaf([8; 32], 5), leaf([8; 32], -5)), (leaf([9; 32], 5), leaf([8; 32], -5))]
        {
            let burnt = crate::Burnt::<Test>::get();
            let root = SumNode::above(&first.node(), &second.node()).unwrap();
            let proof = |index, other: &Leaf| SumProof {
                index,
                leaf_count: 2,
                siblings: Bounded::new(vec![other.node()]).unwrap(),
            };
            let batch = submit_root(root, 2);
            let fault =
                Duplicate { first, first_proof: proof(0, &second), second, second_proof: proof(1, &first) };
            let mut swapped = fault.clone();
            std::mem::swap(&mut swapped.first, &mut swapped.second);
            std::mem::swap(&mut swapped.first_proof, &mut swapped.second_proof);
            refused(send(6, Call::prove_duplicate { batch, fault: swapped }), Error::NoFault);
            send(6, Call::prove_duplicate { batch, fault }).unwrap();
            assert_eq!(crate::Burnt::<Test>::get() - burnt, BOND / 2);
            unmake(batch);
        }
    });
}

/// Books that count less of one voucher than there was, and what the settler signed for it.
fn stale(counted: Option<u128>) -> (Books, SignedVoucher, SignatureBytes) {
    let mut all = epoch();
    let voucher = all.remove(0);
    let promise = acknowledged(&voucher.voucher, SETTLER, &genesis());
    all.extend(counted.map(|credits| pay(1, 3, credits)));
    (books(&all, &genesis()), voucher, promise)
}

#[test]
fn a_batch_that_counts_less_than_its_settler_promised_loses() {
    for counted in [None, Some(29)] {
        test(|| {
            let (books, voucher, promise) = stale(counted);
            let batch = submit_root(books.tree.root(), books.tree.leaf_count());
            let known = Knowledge::Acknowledged(promise);
            let call = |evidence, knowledge| Call::prove_stale {
                batch,
                evidence,
                voucher: voucher.clone(),
                knowledge,
            };
            let mut forged = promise;
            forged[0] ^= 1;
            let unknown = call(listed(&books, 3), Knowledge::Acknowledged(forged));
            refused(send(6, unknown), Error::NotKnown);
            refused(send(6, call(listed(&books, 2), known.clone())), Error::BadProof);
            send(6, call(listed(&books, 3), known)).unwrap();
            lost(batch, Fault::Stale, 6, 1);
            assert_eq!(redeem(vec![voucher.clone()]), vec![Ok(30 * CREDIT)]);
        });
    }
}

#[test]
fn a_batch_that_counts_all_it_promised_does_not_lose() {
    test(|| {
        let (books, voucher, promise) = stale(Some(30));
        let batch = submit_root(books.tree.root(), books.tree.leaf_count());
        let evidence = listed(&books, 1);
        let knowledge = Knowledge::Acknowledged(promise);
        refused(send(6, Call::prove_stale { batch, evidence, voucher, knowledge }), Error::NoFault);
    });
}

#[test]
fn a_promise_to_count_a_voucher_that_is_not_for_this_batch_proves_nothing() {
    test(|| {
        let (books, ..) = stale(None);
        let batch = submit_root(books.tree.root(), books.tree.leaf_count());
        let expired = Voucher { expires: potluck_primitives::Block(9), ..netted(SETTLER, 1, 3, 0, CREDIT) };
        let other_epoch = netted(SETTLER, 1, 3, 1, CREDIT);
        let other_pool = netted(6, 1, 3, 0, CREDIT);
        for voucher in [expired, other_epoch, other_pool] {
            let knowledge = Knowledge::Acknowledged(acknowledged(&voucher, SETTLER, &genesis()));
            let voucher = sign(voucher, 1);
            let evidence = listed(&books, 3);
            let call = Call::prove_stale { batch, evidence, voucher, knowledge };
            refused(send(6, call), Error::BadVoucher);
        }
        let unsigned = sign(netted(SETTLER, 1, 3, 0, CREDIT), 2);
        let knowledge = Knowledge::Acknowledged(acknowledged(&unsigned.voucher, SETTLER, &genesis()));
        let call = Call::prove_stale { batch, evidence: listed(&books, 3), voucher: unsigned, knowledge };
        refused(send(6, call), Error::BadVoucher);
    });
}

#[test]
fn a_lane_counted_for_one_party_and_not_for_the_other_loses() {
    test(|| {
        let all = epoch();
        let honest = books(&all, &genesis());
        // Payer 1 is spared what it owes to 3, and 2 pays it: every leaf adds up by itself.
        let double = pay(2, 3, 50);
        let mut leaves = honest.tree.leaves().to_vec();
        let spared = [all[1].clone()];
        leaves[index_of(&honest, 1) as usize] = leaf_of(raw(1), &spared, &genesis());
        leaves[index_of(&honest, 2) as usize] = leaf_of(raw(2), std::slice::from_ref(&double), &genesis());
        let tree = SumTree::build(leaves).unwrap();
        assert_eq!(tree.root().sum, 0);
        let batch = submit_root(tree.root(), tree.leaf_count());
        let index = index_of(&honest, 3);
        let digests: Vec<_> =
            honest.listed[index as usize].iter().map(|it| it.voucher.digest(&genesis())).collect();
        let at = digests.iter().position(|it| *it == all[0].voucher.digest(&genesis())).unwrap();
        let knowledge = |membership| Knowledge::Counted {
            leaf: tree.leaves()[index as usize],
            proof: tree.prove(index).unwrap(),
            membership,
        };
        let of_payer = index_of(&honest, 1);
        let evidence = Evidence::Listed {
            leaf: tree.leaves()[of_payer as usize],
            proof: tree.prove(of_payer).unwrap(),
            listed: vec![all[1].voucher.clone()].try_into().unwrap(),
        };
        let call = |knowledge| Call::prove_stale {
            batch,
            evidence: evidence.clone(),
            voucher: all[0].clone(),
            knowledge,
        };
        let other = MerkleProof::of(&digests, 1 - at as u32).unwrap();
        refused(send(6, call(knowledge(other))), Error::NotKnown);
        let membership = MerkleProof::of(&digests, at as u32).unwrap();
        send(6, call(knowledge(membership))).unwrap();
        lost(batch, Fault::Stale, 6, 1);
    });
}

#[test]
fn challenges_cost_more_the_more_are_open() {
    test(|| {
        epoch();
        let leaf = |number: u8| Leaf { account: [number; 32], delta: 0, gross: 0, vouchers_root: [0; 32] };
        let leaves: Vec<_> = (1..=40).map(leaf).collect();
        let tree = SumTree::build(leaves.clone()).unwrap();
        let batch = submit_root(tree.root(), 40);
        let mut bonds = Vec::new();
        for index in 0..26 {
            let before = held(HoldReason::ChallengerBond, 6);
            send(6, Call::challenge_leaf { batch, index }).unwrap();
            bonds.push((held(HoldReason::ChallengerBond, 6) - before) / CREDIT);
        }
        assert_eq!(bonds[..8], [1; 8]);
        assert_eq!(bonds[8..16], [2; 8]);
        assert_eq!(bonds[16..24], [4; 8]);
        assert_eq!(bonds[24..], [8; 2]);
        // A leaf of no vouchers is shown by showing none.
        for index in 0..25 {
            let call = Call::answer_leaf {
                batch,
                leaf: leaves[index as usize],
                proof: tree.prove(index).unwrap(),
                vouchers: BoundedVec::default(),
            };
            send(SETTLER, call).unwrap();
        }
        send(7, Call::challenge_leaf { batch, index: 30 }).unwrap();
        assert_eq!(held(HoldReason::ChallengerBond, 7), CREDIT, "it falls as they are answered");
        assert_eq!(Credits::challenge_bond(u32::MAX), None, "it never wraps");
    });
}

#[test]
fn other_challengers_of_a_lost_batch_get_their_bonds_back() {
    test(|| {
        let books = books(&epoch(), &genesis());
        let batch = submit_root(books.tree.root(), books.tree.leaf_count());
        for (who, index) in [(6, 0), (7, 1)] {
            send(who, Call::challenge_leaf { batch, index }).unwrap();
        }
        refused(send(7, Call::reclaim_challenge { batch, index: 1 }), Error::NotVoid);
        go_to(14);
        send(8, Call::expire_challenge { batch, index: 0 }).unwrap();
        assert_eq!(held(HoldReason::ChallengerBond, 7), CREDIT);
        refused(send(8, Call::expire_challenge { batch, index: 1 }), Error::NotDisputable);
        send(8, Call::reclaim_challenge { batch, index: 1 }).unwrap();
        assert_eq!((held(HoldReason::ChallengerBond, 7), free(7)), (0, START - 10));
        refused(send(8, Call::reclaim_challenge { batch, index: 1 }), Error::NotChallenged);
        refused(send(8, Call::reclaim_challenge { batch, index: 0 }), Error::NotChallenged);
    });
}

#[test]
fn a_leaf_that_is_not_there_cannot_be_challenged() {
    test(|| {
        let books = books(&epoch(), &genesis());
        let batch = submit(SETTLER, 0, &books);
        for index in [4, u32::MAX] {
            refused(send(6, Call::challenge_leaf { batch, index }), Error::UnknownLeaf);
        }
        refused(send(6, Call::challenge_leaf { batch: 9, index: 0 }), Error::UnknownBatch);
    });
}

#[test]
fn a_settler_that_loses_to_itself_still_loses_half() {
    test(|| {
        let books = books(&epoch(), &genesis());
        let batch = submit_root(books.tree.root(), books.tree.leaf_count());
        let before = free(SETTLER) + held(HoldReason::SettlerBond, SETTLER);
        send(SETTLER, Call::challenge_leaf { batch, index: 0 }).unwrap();
        go_to(14);
        send(SETTLER, Call::expire_challenge { batch, index: 0 }).unwrap();
        assert_eq!(free(SETTLER), before - BOND / 2 - 20);
    });
}
