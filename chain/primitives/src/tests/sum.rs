use super::*;

pub(super) fn leaf(at: u8, delta: i128) -> Leaf {
    Leaf { account: [at; 32], delta, gross: delta.unsigned_abs(), vouchers_root: [at.wrapping_add(0x10); 32] }
}

pub(super) fn leaves(deltas: &[i128]) -> Vec<Leaf> {
    (1..).zip(deltas).map(|(at, delta)| leaf(at, *delta)).collect()
}

const DELTAS: [i128; 5] = [-5_000_000, 3_000_000, 1_500_000, 400_000, 100_000];

#[test]
fn the_format_stays() {
    let tree = SumTree::build(leaves(&DELTAS)).unwrap();
    assert_eq!(hex(&tree.root().hash), "7eaac3c1d91e00cbfc839e59803b1c065b31985a2ae4fa23bf8ca8768c485c2e");
    assert_eq!((tree.root().sum, tree.leaf_count()), (0, 5));
    assert_eq!(leaf(1, -1).encode().len(), 96);
    assert_eq!(SumProof::max_encoded_len(), 4 + 4 + 1 + 32 * 48);
    comes_back(&leaf(1, -1));
    comes_back(&tree.prove(2).unwrap());
}

#[test]
fn what_makes_no_tree_is_refused() {
    let build = |leaves: &[Leaf]| SumTree::build(leaves.to_vec()).map(|tree| tree.root().sum);
    assert_eq!(build(&[]), Err(TreeError::Empty));
    assert_eq!(build(&[leaf(1, 0), leaf(1, 0)]), Err(TreeError::Order(1)));
    assert_eq!(build(&[leaf(1, 0), leaf(3, 0), leaf(2, 0)]), Err(TreeError::Order(2)));
    assert_eq!(build(&[leaf(1, i128::MAX), leaf(2, 1)]), Err(TreeError::Overflow));
    assert_eq!(build(&[leaf(1, i128::MIN), leaf(2, -1)]), Err(TreeError::Overflow));
    assert_eq!(build(&[leaf(1, i128::MIN), leaf(2, i128::MAX)]), Ok(-1));
    assert_eq!(build(&[leaf(1, 7)]), Ok(7));
}

#[test]
fn every_changed_bit_breaks_a_proof_or_a_leaf() {
    let tree = SumTree::build(leaves(&DELTAS)).unwrap();
    let (root, leaf) = (tree.root(), tree.leaves()[2]);
    let proof = tree.prove(2).unwrap();
    assert!(proof.verify_in(&leaf, &root, 5));
    let holds = |proof: &SumProof| proof.verify_in(&leaf, &root, 5);
    assert!(!flips(&proof.encode()).filter_map(|bytes| read(&bytes)).any(|proof| holds(&proof)));
    let holds = |leaf: &Leaf| proof.verify(leaf, &root);
    assert!(!flips(&leaf.encode()).filter_map(|bytes| read(&bytes)).any(|leaf| holds(&leaf)));
    let holds = |root: &SumNode| proof.verify(&leaf, root);
    assert!(!flips(&root.encode()).filter_map(|bytes| read(&bytes)).any(|root| holds(&root)));
}

/// A settler who hides a row of nodes where the leaves should be gains nothing.
#[test]
fn an_inner_node_is_no_leaf() {
    let tree = SumTree::build(leaves(&DELTAS[..4])).unwrap();
    let proof = tree.prove(0).unwrap();
    let short =
        SumProof { leaf_count: 2, siblings: Bounded::new(proof.siblings[1..].to_vec()).unwrap(), ..proof };
    assert!(tree.leaves().iter().all(|leaf| !short.verify(leaf, &tree.root())));
}

proptest! {
    #[test]
    fn each_leaf_is_proven_where_it_lies(
        deltas in proptest::collection::vec(-1_000_000_000_000..1_000_000_000_000_i128, 1..70), at: u32, other: u32,
        noise in 1..i128::MAX,
    ) {
        let tree = SumTree::build(leaves(&deltas)).unwrap();
        let (root, count) = (tree.root(), tree.leaf_count());
        prop_assert_eq!(root.sum, deltas.iter().sum::<i128>());
        let (at, other) = (at % count, other % count);
        let leaf = tree.leaves()[at as usize];
        prop_assert_eq!(tree.index_of(&leaf.account), Some(at));
        let proof = tree.prove(at).unwrap();
        comes_back(&proof);
        prop_assert!(proof.verify_in(&leaf, &root, count));
        prop_assert!(!proof.verify_in(&leaf, &root, count + 1));
        let richer = Leaf { delta: leaf.delta.wrapping_add(noise), ..leaf };
        prop_assert!(!proof.verify(&richer, &root));
        let higher = SumNode { sum: root.sum.wrapping_add(noise), ..root };
        prop_assert!(!proof.verify(&leaf, &higher));
        if other != at {
            prop_assert!(!proof.verify(&tree.leaves()[other as usize], &root));
            let moved = SumProof { index: other, ..proof.clone() };
            prop_assert!(!moved.verify(&leaf, &root));
        }
        let mut longer = proof.clone();
        longer.siblings.push(SumNode { hash: [0; 32], sum: 0 }).unwrap();
        prop_assert!(!longer.verify(&leaf, &root));
        prop_assert_eq!(tree.prove(count), None);
        let beyond = SumProof { index: count, ..proof };
        prop_assert!(!beyond.verify(&leaf, &root));
    }

    #[test]
    fn what_some_gain_others_lose(deltas in proptest::collection::vec(-1_000_000..1_000_000_i128, 1..70)) {
        let mut deltas = deltas;
        deltas.push(-deltas.iter().sum::<i128>());
        prop_assert_eq!(SumTree::build(leaves(&deltas)).unwrap().root().sum, 0);
    }
}
