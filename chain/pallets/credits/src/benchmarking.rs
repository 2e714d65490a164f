//! The worst case of each call. They run as tests too: `cargo test --features runtime-benchmarks`.

use alloc::{vec, vec::Vec};

use frame_benchmarking::v2::*;
use frame_support::{
    BoundedVec,
    pallet_prelude::TransactionSource,
    traits::{Authorize, EnsureOrigin, Get, fungible::Mutate},
};
use frame_system::{Pallet as System, RawOrigin, pallet_prelude::BlockNumberFor};
use potluck_primitives::{
    BadSum, Beneath, Bounded, Duplicate, Leaf, SignedVoucher, SumNode, SumProof, blake2_256,
};
use sp_runtime::traits::UniqueSaturatedInto;

// The benchmarks' own `account` is of keys that sign nothing.
use crate::{
    fixtures::{Books, account as person, acknowledged, books, leaf_of, netted, raw, signed},
    *,
};

const PAYER: u32 = 1;
const PAYEE: u32 = 2;
const SETTLER: u32 = 3;
const CHALLENGER: u32 = 4;
const RICH: u128 = 1_000_000 * CREDIT;

fn go_to<T: Config>(block: u32) {
    System::<T>::set_block_number(BlockNumberFor::<T>::from(block));
}

fn fund<T: Config>(number: u32) {
    Pallet::<T>::do_grant(&person(number), RICH).unwrap();
}

fn epoch<T: Config>() -> u32 {
    Settings::<T>::get().epoch_length
}

/// A payer with escrow, and parameters that are certain to be there.
fn ready<T: Config>() {
    Settings::<T>::put(Parameters::real());
    let treasury = T::Treasury::get();
    T::Credits::mint_into(&treasury, CREDIT).unwrap();
    Granted::<T>::put(Pallet::<T>::issuance());
    for number in [PAYER, SETTLER, CHALLENGER] {
        fund::<T>(number);
    }
    Pallet::<T>::do_deposit(&person(PAYER), RICH / 2).unwrap();
    Pallet::<T>::do_register_settler(&person(SETTLER)).unwrap();
}

/// Vouchers of many lanes of the settler's epoch 0, from one payer.
fn lanes<T: Config>(count: u32) -> Vec<SignedVoucher> {
    let genesis = Pallet::<T>::genesis();
    (0..count).map(|at| signed(netted(SETTLER, PAYER, 100 + at, 0, CREDIT), PAYER, &genesis)).collect()
}

/// A batch of epoch 0 over so many lanes, one block into the epoch after.
fn submitted<T: Config>(count: u32) -> Books {
    ready::<T>();
    let books = books(&lanes::<T>(count), &Pallet::<T>::genesis());
    go_to::<T>(epoch::<T>());
    submit_root::<T>(books.tree.root(), books.tree.leaf_count(), books.gross);
    books
}

fn submit_root<T: Config>(root: SumNode, leaf_count: u32, gross: u128) {
    Pallet::<T>::do_submit_batch(&person(SETTLER), 0, root, leaf_count, gross).unwrap();
}

/// A path as long as any can be, from a leaf to the root of a tree of the most leaves.
fn deep(leaf: &Leaf, index: u32) -> (SumNode, SumProof) {
    let levels = MAX_LEAVES.trailing_zeros();
    let mut node = leaf.node();
    let mut siblings = Bounded::empty();
    for level in 0..levels {
        let last = level + 1 == levels;
        let hash = blake2_256(&[&level.to_le_bytes()]);
        let sibling = SumNode { hash, sum: if last { -node.sum } else { 1 } };
        siblings.push(sibling).unwrap();
        let on_left = (index >> level) & 1 == 1;
        node =
            if on_left { SumNode::above(&sibling, &node) } else { SumNode::above(&node, &sibling) }.unwrap();
    }
    (node, SumProof { index, leaf_count: MAX_LEAVES, siblings })
}

fn standing<T: Config>() -> Standing {
    Batches::<T>::get(0).unwrap().standing
}

fn now<T: Config>() -> u32 {
    System::<T>::block_number().unique_saturated_into()
}

fn by(number: u32) -> RawOrigin<sp_runtime::AccountId32> {
    RawOrigin::Signed(person(number))
}

#[benchmarks]
mod benchmarks {
    use super::*;

    #[benchmark]
    fn deposit() {
        ready::<T>();
        #[extrinsic_call]
        _(by(PAYER), CREDIT);
        assert_eq!(Pallet::<T>::escrow_of(&person(PAYER)).held, RICH / 2 + CREDIT);
    }

    #[benchmark]
    fn start_withdraw() {
        ready::<T>();
        #[extrinsic_call]
        _(by(PAYER), CREDIT);
        assert!(Thaws::<T>::contains_key(person(PAYER)));
    }

    #[benchmark]
    fn cancel_withdraw() {
        ready::<T>();
        Pallet::<T>::do_start_withdraw(&person(PAYER), CREDIT).unwrap();
        #[extrinsic_call]
        _(by(PAYER));
        assert!(!Thaws::<T>::contains_key(person(PAYER)));
    }

    #[benchmark]
    fn withdraw() {
        ready::<T>();
        Pallet::<T>::do_start_withdraw(&person(PAYER), CREDIT).unwrap();
        go_to::<T>(now::<T>() + Settings::<T>::get().thaw_delay);
        #[extrinsic_call]
        _(by(PAYER));
        assert_eq!(Pallet::<T>::escrow_of(&person(PAYER)).held, RICH / 2 - CREDIT);
    }

    /// Each voucher is of another payer and payee, and of a settler's pool whose batch is void.
    fn setup_redeem<T: Config>(
        n: u32,
    ) -> BoundedVec<SignedVoucher, frame_support::traits::ConstU32<MAX_REDEEM>> {
        let genesis = Pallet::<T>::genesis();
        let mut vouchers = Vec::new();
        for at in 0..n {
            let payer = 1_000 + at;
            fund::<T>(payer);
            Pallet::<T>::do_deposit(&person(payer), CREDIT).unwrap();
            vouchers.push(signed(netted(SETTLER, payer, 2_000 + at, 0, CREDIT), payer, &genesis));
        }
        Batches::<T>::mutate(0, |batch| batch.as_mut().unwrap().standing = Standing::Void);
        BoundedVec::try_from(vouchers).unwrap()
    }

    #[benchmark]
    fn redeem(n: Linear<1, MAX_REDEEM>) {
        submitted::<T>(1);
        let vouchers = setup_redeem::<T>(n);
        #[extrinsic_call]
        _(RawOrigin::None, vouchers);
        assert_eq!(Lanes::<T>::iter().count(), n as usize);
    }

    #[benchmark]
    fn check_redeem(n: Linear<1, MAX_REDEEM>) {
        submitted::<T>(1);
        let call = Call::<T>::redeem { vouchers: setup_redeem::<T>(n) };
        #[block]
        {
            assert!(call.authorize(TransactionSource::External).unwrap().is_ok());
        }
    }

    #[benchmark]
    fn register_settler() {
        ready::<T>();
        #[extrinsic_call]
        _(by(PAYER));
        assert!(Settlers::<T>::contains_key(person(PAYER)));
    }

    #[benchmark]
    fn submit_batch() {
        ready::<T>();
        let books = books(&lanes::<T>(2), &Pallet::<T>::genesis());
        go_to::<T>(epoch::<T>());
        #[extrinsic_call]
        _(by(SETTLER), 0, books.tree.root(), books.tree.leaf_count(), books.gross);
        assert_eq!(BatchCount::<T>::get(), 1);
    }

    #[benchmark]
    fn challenge_leaf() {
        submitted::<T>(2);
        #[extrinsic_call]
        _(by(CHALLENGER), 0, 1);
        assert!(Challenges::<T>::contains_key(0, 1));
    }

    #[benchmark]
    fn answer_leaf(n: Linear<1, MAX_LISTED>) {
        ready::<T>();
        let mut listed = lanes::<T>(n);
        listed.sort_by_key(|it| (it.voucher.payer, it.voucher.payee));
        let leaf = leaf_of(raw(PAYER), &listed, &Pallet::<T>::genesis());
        let (root, proof) = deep(&leaf, 77);
        go_to::<T>(epoch::<T>());
        submit_root::<T>(root, MAX_LEAVES, leaf.gross);
        Pallet::<T>::do_challenge_leaf(&person(CHALLENGER), 0, 77).unwrap();
        let vouchers = BoundedVec::try_from(listed).unwrap();
        #[extrinsic_call]
        _(by(SETTLER), 0, leaf, proof, vouchers);
        assert_eq!(Challenges::<T>::get(0, 77), Some(Challenge::Answered));
    }

    #[benchmark]
    fn expire_challenge() {
        submitted::<T>(2);
        Pallet::<T>::do_challenge_leaf(&person(CHALLENGER), 0, 1).unwrap();
        go_to::<T>(now::<T>() + Settings::<T>::get().response_window + 1);
        #[extrinsic_call]
        _(by(PAYER), 0, 1);
        assert_eq!(standing::<T>(), Standing::Void);
    }

    #[benchmark]
    fn reclaim_challenge() {
        submitted::<T>(2);
        for index in [0, 1] {
            Pallet::<T>::do_challenge_leaf(&person(CHALLENGER), 0, index).unwrap();
        }
        go_to::<T>(now::<T>() + Settings::<T>::get().response_window + 1);
        Pallet::<T>::do_expire_challenge(0, 0).unwrap();
        #[extrinsic_call]
        _(by(PAYER), 0, 1);
        assert!(!Challenges::<T>::contains_key(0, 1));
    }

    #[benchmark]
    fn prove_bad_sum() {
        ready::<T>();
        let leaf = Leaf { account: raw(PAYER), delta: 5, gross: 5, vouchers_root: [0; 32] };
        let wrong = SumNode { sum: 6, ..leaf.node() };
        // A path above a node whose stated sum is not the leaf's.
        let (mut node, mut siblings) = (wrong, Bounded::empty());
        for level in 0..MAX_LEAVES.trailing_zeros() {
            let last = level + 1 == MAX_LEAVES.trailing_zeros();
            let sibling = SumNode { hash: [1; 32], sum: if last { -node.sum } else { 1 } };
            siblings.push(sibling).unwrap();
            node = SumNode::above(&node, &sibling).unwrap();
        }
        go_to::<T>(epoch::<T>());
        submit_root::<T>(node, MAX_LEAVES, 0);
        let fault = BadSum { level: 0, index: 0, node: wrong, beneath: Beneath::Leaf(leaf), siblings };
        #[extrinsic_call]
        _(by(CHALLENGER), 0, fault);
        assert_eq!(standing::<T>(), Standing::Void);
    }

    #[benchmark]
    fn prove_duplicate() {
        ready::<T>();
        let first = Leaf { account: [8; 32], delta: 5, gross: 5, vouchers_root: [0; 32] };
        let second = Leaf { delta: -5, ..first };
        let levels = MAX_LEAVES.trailing_zeros();
        // Two neighbours, as deep as leaves can lie.
        let mut node = SumNode::above(&first.node(), &second.node()).unwrap();
        let mut siblings = vec![second.node()];
        for _ in 1..levels {
            let sibling = SumNode { hash: [1; 32], sum: 0 };
            siblings.push(sibling);
            node = SumNode::above(&node, &sibling).unwrap();
        }
        let proof = |index, siblings: Vec<SumNode>| SumProof {
            index,
            leaf_count: MAX_LEAVES,
            siblings: Bounded::new(siblings).unwrap(),
        };
        let first_proof = proof(0, siblings.clone());
        siblings[0] = first.node();
        let fault = Duplicate { first, first_proof, second, second_proof: proof(1, siblings) };
        go_to::<T>(epoch::<T>());
        submit_root::<T>(node, MAX_LEAVES, 0);
        #[extrinsic_call]
        _(by(CHALLENGER), 0, fault);
        assert_eq!(standing::<T>(), Standing::Void);
    }

    #[benchmark]
    fn prove_stale() {
        ready::<T>();
        let genesis = Pallet::<T>::genesis();
        let mut listed = lanes::<T>(MAX_LISTED);
        listed.sort_by_key(|it| (it.voucher.payer, it.voucher.payee));
        let leaf = leaf_of(raw(PAYER), &listed, &genesis);
        let (root, proof) = deep(&leaf, 77);
        go_to::<T>(epoch::<T>());
        submit_root::<T>(root, MAX_LEAVES, leaf.gross);
        let voucher = signed(netted(SETTLER, PAYER, 100, 0, 2 * CREDIT), PAYER, &genesis);
        let knowledge = Knowledge::Acknowledged(acknowledged(&voucher.voucher, SETTLER, &genesis));
        let listed = listed.into_iter().map(|it| it.voucher).collect::<Vec<_>>();
        let evidence = Evidence::Listed { leaf, proof, listed: BoundedVec::try_from(listed).unwrap() };
        #[extrinsic_call]
        _(by(CHALLENGER), 0, evidence, voucher, knowledge);
        assert_eq!(standing::<T>(), Standing::Void);
    }

    /// A final batch of the most leaves, with something in its pot, and a leaf that takes some of it.
    fn claimable<T: Config>() -> (Leaf, SumProof) {
        ready::<T>();
        let leaf = Leaf { account: raw(PAYEE), delta: 5_000_000, gross: 5_000_000, vouchers_root: [0; 32] };
        let (root, proof) = deep(&leaf, 77);
        go_to::<T>(epoch::<T>());
        submit_root::<T>(root, MAX_LEAVES, 10 * CREDIT);
        let pot = Pallet::<T>::pot_account();
        T::Credits::mint_into(&pot, 10 * CREDIT).unwrap();
        Batches::<T>::mutate(0, |batch| {
            let batch = batch.as_mut().unwrap();
            (batch.pot, batch.debited) = (10 * CREDIT, 10 * CREDIT);
        });
        go_to::<T>(Batches::<T>::get(0).unwrap().proofs_until + 1);
        (leaf, proof)
    }

    #[benchmark]
    fn claim() {
        let (leaf, proof) = claimable::<T>();
        #[extrinsic_call]
        _(RawOrigin::None, 0, leaf, proof);
        assert!(Pallet::<T>::is_settled(0, 77));
    }

    #[benchmark]
    fn check_claim() {
        let (leaf, proof) = claimable::<T>();
        let call = Call::<T>::claim { batch: 0, leaf, proof };
        #[block]
        {
            assert!(call.authorize(TransactionSource::External).unwrap().is_ok());
        }
    }

    #[benchmark]
    fn redeem_omitted() {
        ready::<T>();
        let genesis = Pallet::<T>::genesis();
        let payee = raw(PAYEE);
        let mut listed: Vec<SignedVoucher> = Vec::new();
        for payer in 0..MAX_LISTED {
            listed.push(signed(netted(SETTLER, 500 + payer, PAYEE, 0, CREDIT), 500 + payer, &genesis));
        }
        listed.sort_by_key(|it| (it.voucher.payer, it.voucher.payee));
        let leaf = leaf_of(payee, &listed, &genesis);
        let (root, proof) = deep(&leaf, 77);
        go_to::<T>(epoch::<T>());
        submit_root::<T>(root, MAX_LEAVES, leaf.gross);
        go_to::<T>(Batches::<T>::get(0).unwrap().proofs_until + 1);
        let voucher = signed(netted(SETTLER, PAYER, PAYEE, 0, CREDIT), PAYER, &genesis);
        let listed = listed.into_iter().map(|it| it.voucher).collect::<Vec<_>>();
        let evidence = Evidence::Listed { leaf, proof, listed: BoundedVec::try_from(listed).unwrap() };
        #[extrinsic_call]
        _(RawOrigin::None, 0, evidence, voucher);
        assert_eq!(Lanes::<T>::iter().count(), 1);
    }

    #[benchmark]
    fn release_bond() {
        submitted::<T>(2);
        go_to::<T>(Batches::<T>::get(0).unwrap().proofs_until + 1);
        #[extrinsic_call]
        _(by(PAYER), 0);
        assert_eq!(Batches::<T>::get(0).unwrap().bond, 0);
    }

    #[benchmark]
    fn close_batch() {
        claimable::<T>();
        go_to::<T>(Batches::<T>::get(0).unwrap().closable_from);
        for entry in 0..CLEAR_LIMIT {
            Settled::<T>::insert(0, entry, [1; 32]);
            Partly::<T>::insert(0, entry, 1);
            Challenges::<T>::insert(0, entry, Challenge::Answered);
            Taken::<T>::insert(0, sp_runtime::AccountId32::new(blake2_256(&[&entry.to_le_bytes()])), 1);
        }
        #[extrinsic_call]
        _(by(PAYER), 0);
        assert_eq!(standing::<T>(), Standing::Closed);
        assert_eq!(Settled::<T>::iter_prefix(0).count(), 0);
    }

    #[benchmark]
    fn grant() -> Result<(), BenchmarkError> {
        ready::<T>();
        let origin = T::GovernanceOrigin::try_successful_origin().map_err(|_| BenchmarkError::Weightless)?;
        #[extrinsic_call]
        _(origin as T::RuntimeOrigin, person(PAYEE), CREDIT);
        assert_eq!(Granted::<T>::get(), Pallet::<T>::issuance());
        Ok(())
    }

    #[benchmark]
    fn burn() -> Result<(), BenchmarkError> {
        ready::<T>();
        let origin = T::GovernanceOrigin::try_successful_origin().map_err(|_| BenchmarkError::Weightless)?;
        #[extrinsic_call]
        _(origin as T::RuntimeOrigin, CREDIT);
        assert_eq!(Burnt::<T>::get(), CREDIT);
        Ok(())
    }

    #[benchmark]
    fn disburse() -> Result<(), BenchmarkError> {
        ready::<T>();
        let origin = T::GovernanceOrigin::try_successful_origin().map_err(|_| BenchmarkError::Weightless)?;
        #[extrinsic_call]
        _(origin as T::RuntimeOrigin, person(PAYEE), CREDIT);
        assert_eq!(Pallet::<T>::escrow_of(&person(PAYEE)).held, 0);
        Ok(())
    }

    #[benchmark]
    fn set_parameters() -> Result<(), BenchmarkError> {
        ready::<T>();
        let origin = T::GovernanceOrigin::try_successful_origin().map_err(|_| BenchmarkError::Weightless)?;
        let parameters = Parameters { call_fee: 7, ..Parameters::real() };
        #[extrinsic_call]
        _(origin as T::RuntimeOrigin, parameters);
        assert_eq!(Pallet::<T>::call_fee(), 7);
        Ok(())
    }

    #[benchmark]
    fn allow_settler() {
        ready::<T>();
        Pallet::<T>::do_allow_settler(&person(PAYER), &person(SETTLER), CREDIT).unwrap();
        #[extrinsic_call]
        _(by(PAYER), person(SETTLER), 0);
        assert_eq!(Allowances::<T>::get(person(PAYER), person(SETTLER)).limit, 0);
    }

    impl_benchmark_test_suite!(Pallet, crate::mock::chain(), crate::mock::Test);
}
