//! Numbers that look random and are the same everywhere: to take turns, and to spread work.
//!
//! Not for secrets: who knows the input knows the output.

/// Mixes two numbers into one. Each bit of both reaches each bit of the result.
pub const fn mix(a: u64, b: u64) -> u64 {
    finish(finish(a.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ b)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
const fn finish(mut x: u64) -> u64 {
    x = (x ^ x.wrapping_shr(30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x.wrapping_shr(27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x.wrapping_shr(31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_matters_and_their_order_too() {
        assert_ne!(mix(1, 2), mix(2, 1));
        assert_ne!(mix(0, 0), 0);
        for bit in 0..64 {
            let changed = mix(1 << bit, 7) ^ mix(0, 7);
            assert!((12..=52).contains(&changed.count_ones()), "{bit}: {changed:064b}");
            let changed = mix(7, 1 << bit) ^ mix(7, 0);
            assert!((12..=52).contains(&changed.count_ones()), "{bit}: {changed:064b}");
        }
    }
}
