//! Exponential, logarithm and noise that give the same bits on every platform: libm does not.

use crate::synthetic::mix;

/// `e^x` for x ≤ 0 in f32, to about 2 ulp; 0 for x below −87. NaN stays NaN.
#[inline]
fn exp(x: f32) -> f32 {
    // 1.5·2^23: adding it leaves the nearest whole number in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    // ln 2 in two parts, so that the remainder is exact (Cody and Waite).
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.0
        + r * (1.0 + r * (0.5 + r * (0.166_666_66 + r * (0.041_666_6 + r * (0.008_333_6 + r * 0.001_394)))));
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x <= -87.0 { 0.0 } else { p * scale }
}

/// `e^((logit − max) / temperature)`.
#[allow(clippy::cast_possible_truncation, reason = "a ratio of probabilities needs no more than f32")]
pub(super) fn tempered_exp(logit: f32, max: f32, temperature: f64) -> f64 {
    f64::from(exp(((f64::from(logit) - f64::from(max)) / temperature) as f32))
}

/// `ln Σ e^logit`; not finite when any logit is NaN or +∞ or all are −∞.
pub(super) fn log_sum_exp(logits: &[f32], max: f32) -> f64 {
    let (blocks, rest) = logits.as_chunks::<16>();
    let mut lanes = [0.0f64; 16];
    // Sums of 16 in f32 lose nothing that matters and halve the conversions.
    for group in blocks.chunks(16) {
        let mut sums = [0.0f32; 16];
        for block in group {
            for (sum, &x) in sums.iter_mut().zip(block) {
                *sum += exp(x - max);
            }
        }
        lanes.iter_mut().zip(sums).for_each(|(lane, sum)| *lane += f64::from(sum));
    }
    let rest: f64 = rest.iter().map(|&x| f64::from(exp(x - max))).sum();
    let sum = lanes.iter().sum::<f64>() + rest;
    if sum.is_finite() && sum > 0.0 { f64::from(max) + ln(sum) } else { f64::NAN }
}

/// Natural logarithm of a positive, normal number, to about 1e-15.
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    #[allow(clippy::cast_possible_wrap, reason = "the exponent has 11 bits")]
    let mut exponent = (bits >> 52) as i64 - 1023;
    let mut m = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    // ln m = 2·artanh(s) with s = (m−1)/(m+1), |s| < 0.172.
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut series = 0.0;
    for k in (0..10).rev() {
        series = series * z + 1.0 / f64::from(2 * k + 1);
    }
    #[allow(clippy::cast_precision_loss, reason = "the exponent has 11 bits")]
    let exponent = exponent as f64;
    2.0 * s * series + exponent * std::f64::consts::LN_2
}

/// `base^exponent` for a positive base, to about 1e-14, where the result is neither tiny nor huge.
pub(crate) fn power(base: f64, exponent: f64) -> f64 {
    let x = ln(base) * exponent;
    let n = (x * std::f64::consts::LOG2_E).round();
    // ln 2 in two parts, as above; |r| < 0.35, where 16 terms of the series are more than enough.
    let r = x - n * 6.931_471_803_691_238e-1 - n * 1.908_214_929_270_587_7e-10;
    let series = (1..17).rev().fold(1.0, |sum, k| 1.0 + sum * r / f64::from(k));
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "held within the exponent's range"
    )]
    let bits = ((n.clamp(-1022.0, 1023.0) + 1023.0) as u64) << 52;
    series * f64::from_bits(bits)
}

/// The noise generator's state for one position.
pub(super) fn stream(seed: u64, position: u64) -> u64 {
    mix(seed ^ mix(position))
}

/// A token's uniform number from (0, 1), or 1 at the very top.
pub(super) fn uniform(stream: u64, id: u32) -> f64 {
    let bits = mix(stream.wrapping_add(u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    let uniform = ((bits >> 11) as f64 + 0.5) * UNIT;
    uniform
}

/// 2^-53.
const UNIT: f64 = 1.0 / (1u64 << 53) as f64;

/// Standard Gumbel noise from a uniform number.
pub(super) fn gumbel(uniform: f64) -> f64 {
    // The largest values round to 1, whose logarithm is 0.
    -ln((-ln(uniform)).max(UNIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_ln_are_near_the_library() {
        for i in 0..20_000 {
            let x = -f64::from(i) / 240.0;
            let (mine, theirs) = (f64::from(exp(x as f32)), f64::from(x as f32).exp());
            assert!((mine - theirs).abs() <= 3e-7 * theirs, "exp({x}): {mine} {theirs}");
            let y = f64::from(i + 1) * 0.37;
            assert!((ln(y) - y.ln()).abs() < 4e-15 * y.ln().abs().max(1.0), "ln({y})");
        }
        for i in 0..512 {
            for base in [10_000.0f64, 500_000.0, 1_000_000.0, 3.5] {
                let exponent = -f64::from(i) / 256.0;
                let (mine, theirs) = (power(base, exponent), base.powf(exponent));
                assert!((mine - theirs).abs() < 4e-14 * theirs, "{base}^{exponent}: {mine} {theirs}");
            }
        }
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn noise_has_gumbels_mean_and_variance() {
        let n = 100_000;
        let values: Vec<f64> = (0..n).map(|i| gumbel(uniform(stream(7, 3), i))).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!((mean - 0.577_215_66).abs() < 0.02, "{mean}");
        assert!((variance - 1.644_934).abs() < 0.05, "{variance}");
    }
}
