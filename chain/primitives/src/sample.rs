//! Which verifiers look at a job: drawn by stake, the same for everyone who knows the job and the block.

use alloc::vec::Vec;

use crate::{Account, Hash, MicroCredits, crypto::blake2_256};

/// Keeps the draw of verifiers apart from every other hash.
const DRAW: &[u8] = b"potluck sample 1\0";

/// What the verifiers of a job are drawn with: BLAKE2b-256 of the draw's name, the job and the hash of a block.
pub fn sample_seed(job: &[u8; 16], block_hash: &Hash) -> Hash {
    blake2_256(&[DRAW, job, block_hash])
}

/// Draws `count` verifiers, each draw by stake among those not drawn yet; fewer when fewer have a stake. The same
/// verifiers, in the same order, give the same draw, and a smaller count gives the beginning of a larger one's. Pass
/// them by rising account, each once. Stakes whose sum cannot be counted draw nobody.
///
/// A verifier's chance is off by less than the sum of the stakes over 2^128: nothing, for any sum there can be.
pub fn sample(verifiers: &[(Account, MicroCredits)], seed: Hash, count: u32) -> Vec<Account> {
    let total = verifiers.iter().try_fold(MicroCredits::ZERO, |total, (_, stake)| total.checked_add(*stake));
    let Some(MicroCredits(mut total)) = total else { return Vec::new() };
    let mut left: Vec<(Account, u128)> =
        verifiers.iter().map(|(account, stake)| (*account, stake.0)).collect();
    let mut drawn = Vec::new();
    for round in 0..count {
        if total == 0 {
            break;
        }
        let mut point = below(total, &blake2_256(&[&seed, &round.to_le_bytes()]));
        // The one whose stretch of the sum the point lies in.
        let hit = left.iter_mut().find(|(_, stake)| match point.checked_sub(*stake) {
            Some(beyond) => {
                point = beyond;
                false
            }
            None => true,
        });
        let Some((account, stake)) = hit else { break };
        drawn.push(*account);
        total = total.saturating_sub(core::mem::take(stake));
    }
    drawn
}

/// A number below `limit` out of a hash: its first sixteen bytes, little endian, as a fraction of the limit.
fn below(limit: u128, hash: &Hash) -> u128 {
    let fraction = hash.iter().take(16).rev().fold(0_u128, |number, byte| (number << 8) | u128::from(*byte));
    high_half(fraction, limit)
}

/// The upper 128 bits of a product of 256.
pub(crate) fn high_half(a: u128, b: u128) -> u128 {
    let halves = |number: u128| (number >> 64, number & u128::from(u64::MAX));
    let ((a1, a0), (b1, b0)) = (halves(a), halves(b));
    // None of these can overflow: a half is below 2^64, a product of two below 2^128 - 2^65 + 2.
    let low = halves(a0.wrapping_mul(b0)).0;
    let (middle, rest) = halves(a1.wrapping_mul(b0).wrapping_add(low));
    let carry = halves(a0.wrapping_mul(b1).wrapping_add(rest)).0;
    a1.wrapping_mul(b1).wrapping_add(middle).wrapping_add(carry)
}
