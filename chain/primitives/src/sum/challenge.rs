//! What shows, in one step, that a submitted tree is no tree: anyone who holds it can find one of these in it.

use parity_scale_codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use super::{Leaf, SumNode, SumProof, climb};
use crate::{Bounded, shape::width};

/// What a node stands for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum Beneath {
    /// A leaf; the node is in the lowest row.
    #[codec(index = 0)]
    Leaf(Leaf),
    /// Two nodes.
    #[codec(index = 1)]
    Nodes {
        /// The left one.
        left: SumNode,
        /// The right one.
        right: SumNode,
    },
}

/// A node whose stated sum is not the sum of what is beneath it.
///
/// Above the node the sums have to add up. Where they do not, the fault is further up, and that node is the one to
/// show: every faulty tree has a node of which this holds.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct BadSum {
    /// The row of the node: 0 is that of the leaves.
    pub level: u32,
    /// Where in its row it lies, from 0.
    pub index: u32,
    /// The node as the tree states it.
    pub node: SumNode,
    /// What it stands for.
    pub beneath: Beneath,
    /// The partners on the way from the node to the root.
    pub siblings: Bounded<SumNode, 32>,
}

impl BadSum {
    /// Whether it shows that the tree with this root and so many leaves is wrong.
    pub fn verify(&self, root: &SumNode, leaf_count: u32) -> bool {
        let (hash, sum) = match &self.beneath {
            Beneath::Leaf(leaf) if self.level == 0 => (leaf.hash(), Some(leaf.delta)),
            Beneath::Nodes { left, right } if self.pairs(leaf_count) => {
                (SumNode::hash_above(left, right), left.sum.checked_add(right.sum))
            }
            _ => return false,
        };
        let row = width(leaf_count, self.level);
        // A sum too large to be counted is never the stated one.
        self.node.hash == hash
            && sum != Some(self.node.sum)
            && climb(self.node, self.index, row, &self.siblings) == Some(*root)
    }

    /// Whether the node is where two nodes meet: a node that rose alone is shown where it came from.
    fn pairs(&self, leaf_count: u32) -> bool {
        let Some(below) = self.level.checked_sub(1).filter(|below| *below < 32) else { return false };
        let right = self.index.checked_mul(2).and_then(|left| left.checked_add(1));
        right.is_some_and(|right| right < width(leaf_count, below))
    }
}

/// Two leaves that cannot both be in a tree whose accounts rise strictly.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Duplicate {
    /// The leaf with the smaller index.
    pub first: Leaf,
    /// That it is in the tree.
    pub first_proof: SumProof,
    /// The leaf with the larger index, whose account is the same or a smaller one.
    pub second: Leaf,
    /// That it is in the tree.
    pub second_proof: SumProof,
}

impl Duplicate {
    /// Whether it shows that the tree with this root and so many leaves is wrong.
    pub fn verify(&self, root: &SumNode, leaf_count: u32) -> bool {
        self.first_proof.index < self.second_proof.index
            && self.first.account >= self.second.account
            && self.first_proof.verify_in(&self.first, root, leaf_count)
            && self.second_proof.verify_in(&self.second, root, leaf_count)
    }
}
