use super::{
    sum::{leaf, leaves},
    *,
};

/// What a settler who cheats would submit: rows of nodes, in which each states a sum of its own.
struct Forgery {
    leaves: Vec<Leaf>,
    rows: Vec<Vec<SumNode>>,
}

impl Forgery {
    /// The tree over these leaves, in which the node at `lie` states `more` than what is beneath it.
    fn new(leaves: Vec<Leaf>, lie: (usize, usize), more: i128) -> Self {
        let twist = |level, mut row: Vec<SumNode>| {
            if lie.0 == level {
                row[lie.1].sum = row[lie.1].sum.wrapping_add(more);
            }
            row
        };
        let mut rows = std::vec![twist(0, leaves.iter().map(Leaf::node).collect())];
        while rows.last().unwrap().len() > 1 {
            let above = |pair: &[SumNode]| match pair {
                [left, right] => {
                    SumNode { hash: SumNode::hash_above(left, right), sum: left.sum.wrapping_add(right.sum) }
                }
                _ => pair[0],
            };
            let row = rows.last().unwrap().chunks(2).map(above).collect();
            rows.push(twist(rows.len(), row));
        }
        Self { leaves, rows }
    }

    fn root(&self) -> SumNode {
        self.rows.last().unwrap()[0]
    }

    fn count(&self) -> u32 {
        self.leaves.len() as u32
    }

    /// The partners of the node at `at` of row `level` on its way up.
    fn siblings(&self, level: usize, mut at: usize) -> Bounded<SumNode, 32> {
        let mut siblings = Bounded::empty();
        for row in &self.rows[level..] {
            if let Some(sibling) = row.get(at ^ 1) {
                siblings.push(*sibling).unwrap();
            }
            at /= 2;
        }
        siblings
    }

    fn challenge(&self, level: usize, at: usize) -> Option<BadSum> {
        let beneath = match level {
            0 => Beneath::Leaf(self.leaves[at]),
            _ => match self.rows[level - 1].get(2 * at..2 * at + 2)? {
                [left, right] => Beneath::Nodes { left: *left, right: *right },
                _ => return None,
            },
        };
        let (node, siblings) = (self.rows[level][at], self.siblings(level, at));
        Some(BadSum { level: level as u32, index: at as u32, node, beneath, siblings })
    }

    /// Where a challenge succeeds.
    fn faults(&self) -> Vec<(usize, usize)> {
        let places =
            self.rows.iter().enumerate().flat_map(|(level, row)| (0..row.len()).map(move |at| (level, at)));
        let holds = |challenge: BadSum| challenge.verify(&self.root(), self.count());
        places.filter(|(level, at)| self.challenge(*level, *at).is_some_and(holds)).collect()
    }

    fn proof(&self, at: usize) -> SumProof {
        SumProof { index: at as u32, leaf_count: self.count(), siblings: self.siblings(0, at) }
    }
}

#[test]
fn a_sum_too_large_to_be_counted_is_bad() {
    let forgery = Forgery::new(leaves(&[i128::MAX, 1, 0, 0]), (9, 0), 0);
    assert_eq!((forgery.root().sum, forgery.faults()), (i128::MIN, [(1, 0)].to_vec()));
    // Two faults, one above the other: the upper one can be shown.
    let forgery = Forgery::new(leaves(&[i128::MAX, 1, i128::MIN, 0]), (9, 0), 0);
    assert_eq!((forgery.root().sum, forgery.faults()), (0, [(2, 0)].to_vec()));
}

#[test]
fn every_changed_bit_breaks_a_challenge() {
    let forgery = Forgery::new(leaves(&[5, -1, -2, -3, 1]), (1, 1), 700);
    assert_eq!(forgery.faults(), [(1, 1)]);
    let (root, count) = (forgery.root(), forgery.count());
    let challenge = forgery.challenge(1, 1).unwrap();
    comes_back(&challenge);
    assert!(challenge.verify(&root, count));
    let changed = flips(&challenge.encode()).filter_map(|bytes| read::<BadSum>(&bytes));
    assert!(!changed.into_iter().any(|changed| changed.verify(&root, count)));
    assert!(!challenge.verify(&root, 0));
    for level in [0, 32, 33, u32::MAX] {
        assert!(!BadSum { level, ..challenge.clone() }.verify(&root, count));
    }
}

#[test]
fn a_twin_is_found_and_its_challenge_cannot_be_changed() {
    let twins = [leaf(1, -7), leaf(2, 3), leaf(2, 3), leaf(3, 1)];
    let forgery = Forgery::new(twins.to_vec(), (9, 0), 0);
    let show = |a: usize, b: usize| Duplicate {
        first: twins[a],
        first_proof: forgery.proof(a),
        second: twins[b],
        second_proof: forgery.proof(b),
    };
    let (root, count) = (forgery.root(), forgery.count());
    assert!(show(1, 2).verify(&root, count));
    comes_back(&show(1, 2));
    for (a, b) in [(0, 1), (0, 3), (2, 3), (2, 1), (1, 1)] {
        assert!(!show(a, b).verify(&root, count), "{a} {b}");
    }
    let changed = flips(&show(1, 2).encode()).filter_map(|bytes| read::<Duplicate>(&bytes));
    assert!(!changed.into_iter().any(|changed| changed.verify(&root, count)));
}

proptest! {
    #[test]
    fn an_honest_tree_cannot_be_challenged(
        deltas in proptest::collection::vec(-1_000_000..1_000_000_i128, 1..40), a: usize, b: usize,
        level in 0..7_u32, index in 0..40_u32,
    ) {
        let honest = Forgery::new(leaves(&deltas), (99, 0), 0);
        let tree = SumTree::build(leaves(&deltas)).unwrap();
        prop_assert_eq!((tree.root(), tree.leaf_count()), (honest.root(), honest.count()));
        prop_assert_eq!(honest.faults(), []);
        let (a, b) = (a % deltas.len(), b % deltas.len());
        let pair = Duplicate {
            first: honest.leaves[a], first_proof: honest.proof(a),
            second: honest.leaves[b], second_proof: honest.proof(b),
        };
        prop_assert!(!pair.verify(&honest.root(), honest.count()));
        // Nor with a true challenge that is said to be of another place.
        let moved = BadSum { level, index, ..honest.challenge(0, a).unwrap() };
        prop_assert!(!moved.verify(&honest.root(), honest.count()));
    }

    #[test]
    fn a_lie_is_shown_where_it_was_told(
        deltas in proptest::collection::vec(-1_000_000..1_000_000_i128, 1..40), level: usize, at: usize,
        more in 1..1_000_000_i128,
    ) {
        let honest = Forgery::new(leaves(&deltas), (99, 0), 0);
        let level = level % honest.rows.len();
        let at = at % honest.rows[level].len();
        let forgery = Forgery::new(leaves(&deltas), (level, at), more);
        if forgery.challenge(level, at).is_some() {
            prop_assert_eq!(forgery.faults(), [(level, at)]);
        } else {
            // A node that rose alone is shown where it came from: with the leaf or the pair that it is.
            let mut origin = (level, at);
            while forgery.challenge(origin.0, origin.1).is_none() {
                origin = (origin.0 - 1, origin.1 * 2);
            }
            let node = forgery.rows[level][at];
            let challenge = BadSum { node, ..forgery.challenge(origin.0, origin.1).unwrap() };
            prop_assert!(challenge.verify(&forgery.root(), forgery.count()));
        }
        // No leaf beneath a lie can be claimed.
        let beneath = |leaf: usize| leaf >> level == at;
        for (index, leaf) in forgery.leaves.iter().enumerate() {
            let holds = forgery.proof(index).verify(leaf, &forgery.root());
            prop_assert_eq!(holds, !beneath(index), "leaf {}", index);
        }
    }

    #[test]
    fn leaves_out_of_order_are_found(
        deltas in proptest::collection::vec(-1_000_000..1_000_000_i128, 2..40), a: usize, b: usize,
    ) {
        let (a, b) = (a % deltas.len(), b % deltas.len());
        let mut leaves = leaves(&deltas);
        leaves.swap(a, b);
        let forgery = Forgery::new(leaves, (99, 0), 0);
        let (first, second) = (a.min(b), a.max(b));
        let pair = Duplicate {
            first: forgery.leaves[first], first_proof: forgery.proof(first),
            second: forgery.leaves[second], second_proof: forgery.proof(second),
        };
        prop_assert_eq!(pair.verify(&forgery.root(), forgery.count()), a != b);
    }
}
