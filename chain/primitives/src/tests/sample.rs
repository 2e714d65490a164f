use super::*;
use crate::sample::high_half;

fn verifiers(stakes: &[u128]) -> Vec<(Account, MicroCredits)> {
    stakes.iter().enumerate().map(|(at, stake)| ([at as u8; 32], MicroCredits(*stake))).collect()
}

fn drawn(stakes: &[u128], seed: Hash, count: u32) -> Vec<usize> {
    sample(&verifiers(stakes), seed, count).iter().map(|account| usize::from(account[0])).collect()
}

#[test]
fn a_draw_stays() {
    let seed = sample_seed(&[7; 16], &[0x63; 32]);
    assert_eq!(hex(&seed), "15dd7a4babe732c2c81947a59f3bf5e94d03e6752a8029a7f2772470e1d1e8ad");
    let stakes: Vec<u128> = (1..=10).map(|stake| stake * 1_000_000).collect();
    assert_eq!(drawn(&stakes, seed, 4), [9, 6, 4, 3]);
}

#[test]
fn who_stakes_more_is_drawn_more_often() {
    let mut hits = [0_u32; 3];
    for round in 0..10_000_u32 {
        let seed = blake2_256(&[&round.to_le_bytes()]);
        hits[drawn(&[1, 2, 7], seed, 1)[0]] += 1;
    }
    // Five standard deviations of a thousand, two thousand and seven thousand hits.
    for (hits, (expected, slack)) in hits.iter().zip([(1_000, 150), (2_000, 200), (7_000, 230)]) {
        assert!(hits.abs_diff(expected) < slack, "{hits} of {expected}");
    }
}

#[test]
fn a_draw_ends_with_the_stakes() {
    assert_eq!(drawn(&[], [1; 32], 3), []);
    assert_eq!(drawn(&[0, 0], [1; 32], 3), []);
    assert_eq!(drawn(&[0, 5, 0], [1; 32], 3), [1]);
    assert_eq!(drawn(&[5], [1; 32], 0), []);
    assert_eq!(drawn(&[u128::MAX, 1], [1; 32], 2), []);
    let mut all = drawn(&[u128::MAX - 2, 1, 1], [1; 32], 9);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2]);
}

#[test]
fn products_of_256_bits_are_whole() {
    assert_eq!(high_half(u128::MAX, u128::MAX), u128::MAX - 1);
    assert_eq!(high_half(1 << 127, 1 << 127), 1 << 126);
    assert_eq!(high_half(1 << 64, (1 << 64) - 1), 0);
}

proptest! {
    #[test]
    fn a_smaller_draw_begins_a_larger_one(
        stakes in proptest::collection::vec(0..1_000_000_000_u128, 0..40), seed: [u8; 32], count in 0..40_u32,
    ) {
        let all = drawn(&stakes, seed, u32::MAX);
        let some = drawn(&stakes, seed, count);
        prop_assert_eq!(&all[..some.len()], &some[..]);
        let staked = stakes.iter().filter(|stake| **stake > 0).count();
        prop_assert_eq!(some.len(), staked.min(count as usize));
        prop_assert!(all.iter().all(|at| stakes[*at] > 0));
        let mut once = all.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), all.len());
    }

    #[test]
    fn the_upper_half_is_that_of_the_product(a: u128, b: u64) {
        let b = u128::from(b);
        let expected = ((a >> 64) * b + (((a & u128::from(u64::MAX)) * b) >> 64)) >> 64;
        prop_assert_eq!(high_half(a, b), expected);
        prop_assert_eq!(high_half(b, a), expected);
    }
}
