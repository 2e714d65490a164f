//! A Merkle tree whose nodes also carry sums: what an epoch of vouchers nets to for each account. A root whose sum
//! is zero takes from some exactly what it gives to others, and every proof of a leaf proves that as well.
//!
//! A leaf is hashed as `0x00 ‖ SCALE(leaf)` and sums to its delta; an inner node is hashed as
//! `0x01 ‖ left.hash ‖ left.sum ‖ right.hash ‖ right.sum` with sums as 16 bytes, little endian, and sums to both. A
//! node without a partner rises as it is. The root does not say how many leaves there are: who checks a proof knows
//! it from elsewhere.

mod challenge;

use alloc::vec::Vec;
use core::fmt;

use parity_scale_codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

pub use challenge::{BadSum, Beneath, Duplicate};

use crate::{
    Account, Bounded, Hash,
    crypto::blake2_256,
    shape::{Step, path},
};

/// What an epoch nets to for one account.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Leaf {
    /// Whose it is.
    pub account: Account,
    /// What it earned less what it spent, in millionths of a credit.
    pub delta: i128,
    /// What it earned and spent together, in millionths of a credit.
    pub gross: u128,
    /// [`vouchers_root`](crate::vouchers_root) of the vouchers that count.
    pub vouchers_root: Hash,
}

impl Leaf {
    /// Its hash in the tree.
    pub fn hash(&self) -> Hash {
        self.using_encoded(|bytes| blake2_256(&[&[0], bytes]))
    }

    /// Its node in the tree.
    pub fn node(&self) -> SumNode {
        SumNode { hash: self.hash(), sum: self.delta }
    }
}

/// A node of the tree.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct SumNode {
    /// Over everything beneath it.
    pub hash: Hash,
    /// The sum of the deltas beneath it, in millionths of a credit.
    pub sum: i128,
}

impl SumNode {
    /// The hash of the node above two others.
    pub fn hash_above(left: &Self, right: &Self) -> Hash {
        let sums = (left.sum.to_le_bytes(), right.sum.to_le_bytes());
        blake2_256(&[&[1], &left.hash, &sums.0, &right.hash, &sums.1])
    }

    /// The node above two others; `None` when their sum is too large.
    pub fn above(left: &Self, right: &Self) -> Option<Self> {
        let sum = left.sum.checked_add(right.sum)?;
        Some(Self { hash: Self::hash_above(left, right), sum })
    }
}

/// Why leaves make no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// There are none.
    Empty,
    /// There are more than `u32::MAX`.
    TooMany,
    /// The leaf at this index does not come after the one before it: accounts must rise strictly.
    Order(u32),
    /// A sum is too large.
    Overflow,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a tree of no leaves"),
            Self::TooMany => f.write_str("a tree of more leaves than can be counted"),
            Self::Order(at) => write!(f, "leaf {at} is not after the one before it"),
            Self::Overflow => f.write_str("deltas whose sum is too large"),
        }
    }
}

impl core::error::Error for TreeError {}

/// A whole tree, kept to prove its leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumTree {
    leaves: Vec<Leaf>,
    leaf_count: u32,
    /// From the leaves up; the last row is the root alone.
    rows: Vec<Vec<SumNode>>,
    root: SumNode,
}

impl SumTree {
    /// The tree over these leaves, whose accounts rise strictly.
    ///
    /// # Errors
    /// [`TreeError`]. A sum other than zero is none: it is for whom the tree is for to refuse it.
    pub fn build(leaves: Vec<Leaf>) -> Result<Self, TreeError> {
        let leaf_count = u32::try_from(leaves.len()).map_err(|_| TreeError::TooMany)?;
        let sorted = |pair: &[Leaf]| matches!(pair, [a, b] if a.account < b.account);
        if let Some(at) = leaves.windows(2).position(|pair| !sorted(pair)) {
            let at = u32::try_from(at).map_err(|_| TreeError::TooMany)?;
            return Err(TreeError::Order(at.saturating_add(1)));
        }
        let mut row: Vec<SumNode> = leaves.iter().map(Leaf::node).collect();
        let mut rows = Vec::new();
        let root = loop {
            match row.as_slice() {
                [] => return Err(TreeError::Empty),
                [root] => break *root,
                _ => {}
            }
            let next = row.chunks(2).map(|pair| match pair {
                [left, right] => SumNode::above(left, right).ok_or(TreeError::Overflow),
                [alone] => Ok(*alone),
                _ => Err(TreeError::Empty),
            });
            let next = next.collect::<Result<Vec<_>, _>>()?;
            rows.push(core::mem::replace(&mut row, next));
        };
        rows.push(row);
        Ok(Self { leaves, leaf_count, rows, root })
    }

    /// The node above all.
    pub fn root(&self) -> SumNode {
        self.root
    }

    /// How many leaves there are: at least one.
    pub fn leaf_count(&self) -> u32 {
        self.leaf_count
    }

    /// The leaves, by rising account.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Where the leaf of an account lies.
    pub fn index_of(&self, account: &Account) -> Option<u32> {
        let at = self.leaves.binary_search_by(|leaf| leaf.account.cmp(account)).ok()?;
        u32::try_from(at).ok()
    }

    /// The proof of the leaf at `index`, if there is one.
    pub fn prove(&self, index: u32) -> Option<SumProof> {
        let mut siblings = Bounded::empty();
        for (row, step) in self.rows.iter().zip(path(index, self.leaf_count)?) {
            if let Step::Partner { partner, .. } = step {
                siblings.push(*row.get(usize::try_from(partner).ok()?)?).ok()?;
            }
        }
        Some(SumProof { index, leaf_count: self.leaf_count, siblings })
    }
}

/// That a leaf is in a tree, and that the sums above it add up.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct SumProof {
    /// Where the leaf lies, from 0.
    pub index: u32,
    /// How many leaves the tree has. Compare it with what the tree was submitted with.
    pub leaf_count: u32,
    /// The partners on the way up.
    pub siblings: Bounded<SumNode, 32>,
}

impl SumProof {
    /// Whether `leaf` lies at `index` in the tree of `leaf_count` leaves with this root, where both numbers are what
    /// the proof says: trees of almost as many leaves have the same way up. Where the count is known,
    /// [`Self::verify_in`] compares it too.
    pub fn verify(&self, leaf: &Leaf, root: &SumNode) -> bool {
        climb(leaf.node(), self.index, self.leaf_count, &self.siblings) == Some(*root)
    }

    /// As [`Self::verify`], in a tree that is known to have `leaf_count` leaves.
    pub fn verify_in(&self, leaf: &Leaf, root: &SumNode, leaf_count: u32) -> bool {
        self.leaf_count == leaf_count && self.verify(leaf, root)
    }
}

/// The root that `node` leads to from `index` of a row of `count`; `None` for another number of partners than the
/// way has, and where a sum is too large.
fn climb(node: SumNode, index: u32, count: u32, siblings: &[SumNode]) -> Option<SumNode> {
    let mut siblings = siblings.iter();
    let mut node = node;
    for step in path(index, count)? {
        if let Step::Partner { on_left, .. } = step {
            let sibling = siblings.next()?;
            node = if on_left { SumNode::above(sibling, &node)? } else { SumNode::above(&node, sibling)? };
        }
    }
    if siblings.next().is_some() { None } else { Some(node) }
}
