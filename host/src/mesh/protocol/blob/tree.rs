//! What a file is named by, and what its blocks are checked with.
//!
//! A model is named by its BLAKE3 hash. BLAKE3 is a tree over chunks of 1 KiB, and every block of a megabyte at a
//! multiple of its length is a subtree of it. The hashes of these subtrees in the file's order are the block hashes;
//! merged two by two they give the file's hash, so a list of them needs no signature: the right one is the one that
//! merges to the name. A file of one block has no subtree but itself: its one block hash is its name.

use blake3::{
    Hasher,
    hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

/// The hash of a block, or of a file.
pub type Hash = [u8; 32];

/// Bytes of a block. A power of two of at least 1 KiB, or it were no subtree.
pub const BLOCK: u64 = 1 << 20;

/// How many blocks a file of `size` bytes has.
pub const fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

/// Bytes of the block numbered `index` of a file of `size` bytes; 0 beyond its end.
pub fn length(size: u64, index: u64) -> u64 {
    size.saturating_sub(index.saturating_mul(BLOCK)).min(BLOCK)
}

/// The hash of the block numbered `index`. `whole`: the file has no other. `None` for bytes that are no block.
pub fn block(index: u64, bytes: &[u8], whole: bool) -> Option<Hash> {
    if bytes.is_empty() || bytes.len() as u64 > BLOCK {
        return None;
    }
    if whole {
        return Some(*blake3::hash(bytes).as_bytes());
    }
    let mut hasher = Hasher::new();
    hasher.set_input_offset(index.checked_mul(BLOCK)?).update(bytes);
    Some(hasher.finalize_non_root())
}

/// The name of the file with these block hashes; `None` for no hashes.
pub fn root(hashes: &[Hash]) -> Option<Hash> {
    match hashes {
        [] => None,
        [whole] => Some(*whole),
        several => {
            let (left, right) = split(several)?;
            Some(*merge_subtrees_root(&merge(left)?, &merge(right)?, Mode::Hash).as_bytes())
        }
    }
}

fn merge(hashes: &[Hash]) -> Option<Hash> {
    match hashes {
        [] => None,
        [one] => Some(*one),
        several => {
            let (left, right) = split(several)?;
            Some(merge_subtrees_non_root(&merge(left)?, &merge(right)?, Mode::Hash))
        }
    }
}

/// The left subtree has as many blocks as fit: the largest power of two that leaves something to the right.
fn split(hashes: &[Hash]) -> Option<(&[Hash], &[Hash])> {
    hashes.split_at_checked(hashes.len().next_power_of_two() / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(size: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; size];
        Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn hashes(file: &[u8]) -> Vec<Hash> {
        let whole = blocks(file.len() as u64) == 1;
        let of = |(index, bytes): (usize, &[u8])| block(index as u64, bytes, whole).unwrap();
        file.chunks(BLOCK as usize).enumerate().map(of).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn block_hashes_merge_to_the_hash_that_every_other_program_computes(
            full in 0_usize..9, rest in 0_usize..(1 << 20), seed: u64, flip: u64,
        ) {
            let size = full * BLOCK as usize + rest.max(1);
            let file = bytes(size, seed);
            let mut hashes = hashes(&file);
            prop_assert_eq!(hashes.len() as u64, blocks(size as u64));
            prop_assert_eq!(root(&hashes).unwrap(), *blake3::hash(&file).as_bytes());
            let at = (flip % hashes.len() as u64) as usize;
            hashes[at][(flip % 32) as usize] ^= 1;
            prop_assert_ne!(root(&hashes).unwrap(), *blake3::hash(&file).as_bytes());
        }
    }

    #[test]
    fn blocks_have_places_and_lengths() {
        assert_eq!((blocks(0), blocks(1), blocks(BLOCK), blocks(BLOCK + 1)), (0, 1, 1, 2));
        assert_eq!((length(BLOCK + 3, 0), length(BLOCK + 3, 1), length(BLOCK + 3, 2)), (BLOCK, 3, 0));
        let bytes = bytes(BLOCK as usize, 1);
        assert_ne!(
            block(0, &bytes, false),
            block(1, &bytes, false),
            "a block of another place is another block"
        );
        assert_eq!(block(0, &[], false), None);
        assert_eq!(block(0, &vec![0; BLOCK as usize + 1], false), None);
        assert_eq!(block(u64::MAX, &bytes, false), None);
        assert_eq!(root(&[]), None);
    }
}
