//! Lots drawn from the seed, the same on every machine.
//!
//! Only additions, multiplications, divisions and square roots of floats are used, which IEEE 754 fixes to the last
//! bit. The platform's own logarithm would not be the same everywhere.

use std::f64::consts::LN_2;

use crate::memory::random::Random;

use super::money::{MILLION, Share};

/// The natural logarithm; that of 0 and less is the least number there is.
pub fn ln(number: f64) -> f64 {
    if number.is_nan() || number < f64::MIN_POSITIVE {
        return f64::MIN;
    }
    let bits = number.to_bits();
    let exponent = i32::try_from(bits >> 52).unwrap_or(0) - 1023;
    let mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    // ln m = 2 artanh((m − 1) / (m + 1)), whose series converges quickly below a third.
    let x = (mantissa - 1.0) / (mantissa + 1.0);
    let series = (0..20).rev().fold(0.0, |sum, n| sum * x * x + 1.0 / f64::from(2 * n + 1));
    2.0 * x * series + f64::from(exponent) * LN_2
}

/// e to a power that is not far from 0.
pub fn exp(power: f64) -> f64 {
    // e^x = (e^(x/1024))^1024.
    let small = power.clamp(-300.0, 300.0) / 1024.0;
    let once = (1..16).rev().fold(1.0, |sum, n| 1.0 + sum * small / f64::from(n));
    (0..10).fold(once, |square, _| square * square)
}

/// The nearest whole number; nothing below 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
pub fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// From 0 up to 1, without 1.
pub const fn unit(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Whether something that happens so often does.
pub const fn happens(random: &mut Random, share: Share) -> bool {
    let wide = random.next() as u128 * MILLION as u128;
    ((wide >> 64) as u64) < share.0
}

/// The time until something that happens once in 1 on average.
pub fn exponential(random: &mut Random) -> f64 {
    -ln(1.0 - unit(random))
}

/// Around 0, with a deviation of 1, by Marsaglia's polar method.
pub fn normal(random: &mut Random) -> f64 {
    loop {
        let (x, y) = (2.0 * unit(random) - 1.0, 2.0 * unit(random) - 1.0);
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            return x * (-2.0 * ln(square) / square).sqrt();
        }
    }
}

/// How many tries until something that succeeds so often does: 1 or more.
#[derive(Clone, Copy, Debug)]
pub struct Gaps {
    /// Logarithm of how often a try fails.
    failing: f64,
}

impl Gaps {
    /// For something that happens so often. What never happens does so after more tries than anybody makes.
    pub fn of(share: Share) -> Self {
        Self { failing: ln(1.0 - share.unit().min(1.0)) }
    }

    /// The next gap.
    pub fn next(self, random: &mut Random) -> u64 {
        if self.failing == 0.0 {
            return u64::MAX / 4;
        }
        let gap = (-exponential(random) / self.failing).floor();
        whole(gap.clamp(0.0, 1e15)).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_and_power_are_those_of_the_platform() {
        let mut random = Random::new(1);
        for _ in 0..10_000 {
            let power = 40.0 * (unit(&mut random) - 0.5);
            assert!((exp(power) / power.exp() - 1.0).abs() < 1e-11, "{power}");
            let number = power.exp();
            assert!((ln(number) - number.ln()).abs() < 1e-12 * number.ln().abs().max(1.0), "{number}");
        }
    }

    #[test]
    fn gaps_have_their_mean() {
        let mut random = Random::new(3);
        for (share, mean) in [(Share(50_000), 20.0), (Share(500_000), 2.0), (Share(1_000_000), 1.0)] {
            let gaps = Gaps::of(share);
            let sum: u64 = (0..100_000).map(|_| gaps.next(&mut random)).sum();
            assert!((sum as f64 / 1e5 / mean - 1.0).abs() < 0.02, "{share}");
        }
        assert!(Gaps::of(Share(0)).next(&mut random) > u64::MAX / 8);
    }
}
