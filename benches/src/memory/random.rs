//! A small seeded generator, so that every run can be repeated from its seed.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that gives the same numbers for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator for one part of a run, so that leaving another part out changes nothing here.
    pub fn of(seed: u64, part: &str) -> Self {
        // FNV-1a: spreads names well enough, and SplitMix64 does the rest.
        let hash = part.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut mixed = Self(seed ^ hash);
        Self(mixed.next())
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, every one equally likely (0 when `bound` is 0).
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * u128::try_from(bound).unwrap_or(0);
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// Puts these in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// At most `count` of these, each at most once, in random order.
    pub fn sample<'a, T>(&mut self, from: &'a [T], count: usize) -> Vec<&'a T> {
        let mut all: Vec<&T> = from.iter().collect();
        self.shuffle(&mut all);
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_shuffle_keeps_everything_and_repeats() {
        let mut a: Vec<u32> = (0..100).collect();
        let mut b = a.clone();
        Random::of(7, "x").shuffle(&mut a);
        Random::of(7, "x").shuffle(&mut b);
        assert_eq!(a, b);
        assert_ne!(a, (0..100).collect::<Vec<_>>());
        a.sort_unstable();
        assert_eq!(a, (0..100).collect::<Vec<_>>());
        assert_ne!(Random::of(7, "x").next(), Random::of(7, "y").next());
        assert_ne!(Random::of(7, "x").next(), Random::of(8, "x").next());
    }

    #[test]
    fn a_sample_has_nothing_twice() {
        let all: Vec<u32> = (0..30).collect();
        let mut taken: Vec<u32> = Random::new(3).sample(&all, 10).into_iter().copied().collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), 10);
        assert_eq!(Random::new(3).sample(&all, 99).len(), 30);
        assert_eq!(Random::new(3).below(0), 0);
    }
}
