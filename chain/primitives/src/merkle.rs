//! A plain Merkle tree over hashes: which receipts a voucher pays for, which vouchers a settled leaf counts.
//!
//! A leaf is hashed as `0x00 ‖ item`, an inner node as `0x01 ‖ left ‖ right`; a node without a partner rises as it
//! is. The root of nothing is all zeros.

use alloc::vec::Vec;

use parity_scale_codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{
    Bounded, Genesis, Hash, SignedVoucher,
    crypto::blake2_256,
    shape::{Step, path},
};

/// The root over the hashes of receipts.
pub fn receipts_root(receipts: &[Hash]) -> Hash {
    merkle_root(receipts)
}

/// The root over the digests of vouchers, in this order.
pub fn vouchers_root(vouchers: &[SignedVoucher], genesis: &Genesis) -> Hash {
    let digests: Vec<Hash> = vouchers.iter().map(|signed| signed.voucher.digest(genesis)).collect();
    merkle_root(&digests)
}

/// The root over any hashes, in this order.
pub fn merkle_root(items: &[Hash]) -> Hash {
    let mut level: Vec<Hash> = items.iter().map(leaf).collect();
    while level.len() > 1 {
        level = above(&level);
    }
    level.first().copied().unwrap_or_default()
}

/// That one hash is in a tree.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct MerkleProof {
    /// Where it lies, from 0.
    pub index: u32,
    /// How many the tree holds.
    pub leaf_count: u32,
    /// The partners on the way up.
    pub siblings: Bounded<Hash, 32>,
}

impl MerkleProof {
    /// The proof for the item at `index`; `None` where there is none, and for more than `u32::MAX` items.
    pub fn of(items: &[Hash], index: u32) -> Option<Self> {
        let leaf_count = u32::try_from(items.len()).ok()?;
        let mut level: Vec<Hash> = items.iter().map(leaf).collect();
        let mut siblings = Bounded::empty();
        for step in path(index, leaf_count)? {
            if let Step::Partner { partner, .. } = step {
                siblings.push(*level.get(usize::try_from(partner).ok()?)?).ok()?;
            }
            level = above(&level);
        }
        Some(Self { index, leaf_count, siblings })
    }

    /// Whether `item` lies at `index` of the tree with this root. The root does not say how many the tree holds:
    /// who relies on the index must know the count.
    pub fn verify(&self, item: &Hash, root: &Hash) -> bool {
        let Some(steps) = path(self.index, self.leaf_count) else { return false };
        let mut siblings = self.siblings.iter();
        let mut node = leaf(item);
        for step in steps {
            if let Step::Partner { on_left, .. } = step {
                let Some(sibling) = siblings.next() else { return false };
                node = if on_left { inner(sibling, &node) } else { inner(&node, sibling) };
            }
        }
        siblings.next().is_none() && node == *root
    }
}

fn leaf(item: &Hash) -> Hash {
    blake2_256(&[&[0], item])
}

fn inner(left: &Hash, right: &Hash) -> Hash {
    blake2_256(&[&[1], left, right])
}

fn above(level: &[Hash]) -> Vec<Hash> {
    let parent = |pair: &[Hash]| match pair {
        [left, right] => Some(inner(left, right)),
        [alone] => Some(*alone),
        _ => None,
    };
    level.chunks(2).filter_map(parent).collect()
}
