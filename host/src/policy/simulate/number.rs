//! Random numbers and the two functions behind them, the same bits on every machine.
//!
//! Only additions, multiplications, divisions and square roots of floats are used, which IEEE 754 fixes to the last
//! bit. The platform's own logarithm would not be the same everywhere.

use std::f64::consts::LN_2;

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a number that looks nothing like the one before it.
pub(super) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A number for several, in this order.
pub(super) fn mix_all(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |sum, number| mix(sum ^ mix(*number)))
}

/// A stream of random numbers: SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The stream with a number, of all streams of a seed.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self(mix_all(&[seed, stream]))
    }

    /// Any number.
    pub(super) fn next(&mut self) -> u64 {
        let number = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        number
    }

    /// A number below another; 0 below 0.
    pub(super) fn below(&mut self, most: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(most);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// Whether something that happens so often, in millionths, does.
    pub(super) fn happens(&mut self, millionths: u64) -> bool {
        self.below(1_000_000) < millionths
    }

    /// From 0 up to 1, without 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The time until something that happens once in 1 on average.
    pub(super) fn exponential(&mut self) -> f64 {
        -ln(1.0 - self.unit())
    }

    /// Around 0, with a deviation of 1, by Marsaglia's polar method.
    pub(super) fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * ln(square) / square).sqrt();
            }
        }
    }

    /// A length around a median, rounded and kept within bounds.
    pub(super) fn log_normal(&mut self, median: f64, deviation: f64, least: u64, most: u64) -> u64 {
        whole(median * exp(deviation * self.normal())).clamp(least, most)
    }
}

/// The natural logarithm; that of 0 and less is the least number there is.
pub(super) fn ln(number: f64) -> f64 {
    if number.is_nan() || number <= 0.0 {
        return f64::MIN;
    }
    // Numbers too small for a leading bit are made larger first.
    let (number, shift) =
        if number < f64::MIN_POSITIVE { (number * (1_u64 << 54) as f64, 54) } else { (number, 0) };
    let bits = number.to_bits();
    let exponent = i32::try_from((bits >> 52) & 0x7ff).unwrap_or(0) - 1023 - shift;
    let mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    // ln m = 2 atanh((m - 1) / (m + 1)), whose series converges quickly below a third.
    let x = (mantissa - 1.0) / (mantissa + 1.0);
    let square = x * x;
    let series = (0..20).rev().fold(0.0, |sum, n| sum * square + 1.0 / f64::from(2 * n + 1));
    2.0 * x * series + f64::from(exponent) * LN_2
}

/// e to a power.
pub(super) fn exp(power: f64) -> f64 {
    if power.is_nan() || power < -700.0 {
        return 0.0;
    }
    let power = power.min(700.0);
    let twos = (power / LN_2).round();
    let rest = power - twos * LN_2;
    let series = (1..20).rev().fold(1.0, |sum, n| 1.0 + sum * rest / f64::from(n));
    let exponent = (whole(twos + 1023.0) & 0x7ff) << 52;
    series * f64::from_bits(exponent)
}

/// The nearest whole number; nothing below 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
pub(super) fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_and_power_are_those_of_the_platform() {
        let mut random = Random::new(1, 1);
        for _ in 0..10_000 {
            let x = exp(40.0 * (random.unit() - 0.5));
            assert!((ln(x) - x.ln()).abs() <= 1e-13 * x.ln().abs().max(1.0), "{x}");
            let power = 200.0 * (random.unit() - 0.5);
            assert!((exp(power) / power.exp() - 1.0).abs() < 1e-12, "{power}");
        }
        assert_eq!((ln(1.0), exp(0.0), exp(-1e9)), (0.0, 1.0, 0.0));
        assert!((ln(f64::from_bits(1)) - f64::from_bits(1).ln()).abs() < 1e-9);
    }

    #[test]
    fn the_distributions_have_their_means() {
        let mut random = Random::new(7, 0);
        let n = 200_000;
        let mean = |of: &mut dyn FnMut() -> f64| (0..n).map(|_| of()).sum::<f64>() / f64::from(n);
        assert!((mean(&mut || random.exponential()) - 1.0).abs() < 0.01);
        assert!(mean(&mut || random.normal()).abs() < 0.01);
        assert!((mean(&mut || random.normal().powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(&mut || random.below(10) as f64) - 4.5).abs() < 0.03);
        let mut lengths: Vec<_> = (0..n).map(|_| random.log_normal(400.0, 1.0, 8, 16_000)).collect();
        lengths.sort_unstable();
        assert!((380..420).contains(&lengths[lengths.len() / 2]));
        assert!(lengths.iter().all(|length| (8..=16_000).contains(length)));
    }
}
