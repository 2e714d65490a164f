//! Arithmetic in integers: shares in millionths, products that do not overflow, logarithms.

/// One, in millionths.
pub const ONE: u64 = 1_000_000;

/// One, in the unit of [`ln`]: 2³² parts.
pub const LN_ONE: i64 = 1 << 32;

/// The natural logarithm of two, in 2⁻³².
const LN_2: i64 = 2_977_044_472;

/// `value · times / by`, rounded down; `None` where `by` is zero or the result is beyond a `u64`.
pub fn mul_div(value: u64, times: u64, by: u64) -> Option<u64> {
    if let Some(product) = value.checked_mul(times) {
        return product.checked_div(by);
    }
    u128::from(value).checked_mul(times.into())?.checked_div(by.into())?.try_into().ok()
}

/// `value · times / by`, rounded up; `None` where `by` is zero or the result is beyond a `u64`.
pub fn mul_div_up(value: u64, times: u64, by: u64) -> Option<u64> {
    if by == 0 {
        return None;
    }
    u128::from(value).checked_mul(times.into())?.div_ceil(by.into()).try_into().ok()
}

/// [`mul_div`] that stays at `u64::MAX` where the result is beyond it; a division by zero also gives that, but for
/// nothing divided by zero, which is nothing.
pub fn mul_div_saturating(value: u64, times: u64, by: u64) -> u64 {
    if value == 0 || times == 0 {
        return 0;
    }
    mul_div(value, times, by).unwrap_or(u64::MAX)
}

/// `part / whole` in millionths, rounded down, at most a million; of nothing, nothing.
pub fn share(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 0;
    }
    mul_div(part.min(whole), ONE, whole).unwrap_or(ONE)
}

/// `share` millionths of `value`, rounded down, at most `u64::MAX`.
pub fn of(value: u64, share: u64) -> u64 {
    mul_div_saturating(value, share, ONE)
}

/// The natural logarithm of a whole number in 2⁻³², within 2⁻²⁷; `None` for 0.
///
/// `x = m·2ᵉ` with `m` between √½ and √2, and `ln m = 2·artanh((m − 1)/(m + 1))`, whose series is cut after the
/// fifteenth power.
pub fn ln(x: u64) -> Option<i64> {
    // 2³¹ · √2
    const SQRT_2: u64 = 3_037_000_500;
    const HALF: u32 = 31;
    if x == 0 {
        return None;
    }
    let mut exponent = x.ilog2();
    // The leading bit comes to 2³¹: `m` between 1 and 2 in 2⁻³¹.
    let mut mantissa = if exponent > HALF {
        x.wrapping_shr(exponent.wrapping_sub(HALF))
    } else {
        x.wrapping_shl(HALF.wrapping_sub(exponent))
    };
    if mantissa > SQRT_2 {
        exponent = exponent.wrapping_add(1);
        mantissa = mantissa.wrapping_shr(1);
    }
    let one = 1_i64.wrapping_shl(HALF);
    let m = i64::try_from(mantissa).ok()?;
    // Below, everything is smaller than 2³¹ in size, so that no product overflows.
    let r = m.wrapping_sub(one).wrapping_shl(HALF).checked_div(m.wrapping_add(one))?;
    let times = |a: i64, b: i64| a.wrapping_mul(b).wrapping_shr(HALF);
    let square = times(r, r);
    let mut sum = 0_i64;
    let mut power = r;
    for odd in [1_i64, 3, 5, 7, 9, 11, 13, 15] {
        sum = sum.wrapping_add(power.checked_div(odd)?);
        power = times(power, square);
    }
    // Twice the series, and twice again from 2⁻³¹ to 2⁻³².
    Some(i64::from(exponent).wrapping_mul(LN_2).wrapping_add(sum.wrapping_mul(4)))
}

/// The natural logarithm of `a / b` in 2⁻³², within 2⁻²⁶; `None` where one of them is 0.
pub fn ln_ratio(a: u64, b: u64) -> Option<i64> {
    ln(a)?.checked_sub(ln(b)?)
}

/// A number in 2⁻³² as thousandths, rounded towards zero: for words.
pub fn thousandths(value: i64) -> i64 {
    let wide = i128::from(value).wrapping_mul(1000).checked_div(i128::from(LN_ONE)).unwrap_or(0);
    i64::try_from(wide).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_beyond_a_word_are_divided_first() {
        assert_eq!(mul_div(10, 7, 4), Some(17));
        assert_eq!(mul_div_up(10, 7, 4), Some(18));
        assert_eq!(mul_div(u64::MAX, u64::MAX, u64::MAX), Some(u64::MAX));
        assert_eq!(mul_div_up(u64::MAX, u64::MAX, u64::MAX), Some(u64::MAX));
        assert_eq!(mul_div(u64::MAX, 2, 1), None);
        assert_eq!((mul_div(1, 1, 0), mul_div_up(1, 1, 0)), (None, None));
        assert_eq!(mul_div_saturating(u64::MAX, 3, 2), u64::MAX);
        assert_eq!((mul_div_saturating(0, 9, 0), mul_div_saturating(9, 9, 0)), (0, u64::MAX));
    }

    #[test]
    fn shares_are_between_nothing_and_all() {
        assert_eq!((share(0, 0), share(1, 0), share(1, 3), share(9, 3)), (0, 0, 333_333, ONE));
        assert_eq!(share(u64::MAX, u64::MAX), ONE);
        assert_eq!((of(10, 500_000), of(u64::MAX, ONE), of(u64::MAX, 2 * ONE)), (5, u64::MAX, u64::MAX));
    }

    #[test]
    #[allow(
        clippy::float_arithmetic,
        clippy::cast_precision_loss,
        reason = "compared with the machine's own"
    )]
    fn logarithms_agree_with_the_machines_own() {
        assert_eq!((ln(0), ln(1)), (None, Some(0)));
        let near = (1..5000).chain((0..64).flat_map(|e| {
            let power = 1_u64 << e;
            [power, power | 1, power | (power >> 1), power | (power / 3), power | (power - 1)]
        }));
        for x in near.chain([u64::MAX, u64::MAX / 3]) {
            let ours = ln(x).unwrap() as f64 / LN_ONE as f64;
            assert!((ours - (x as f64).ln()).abs() < 1.0 / (1_u64 << 27) as f64, "{x}: {ours}");
        }
        let ours = ln_ratio(200_000, 5_000).unwrap() as f64 / LN_ONE as f64;
        assert!((ours - 40_f64.ln()).abs() < 1e-8);
        assert_eq!((ln_ratio(1, 0), ln_ratio(0, 1)), (None, None));
        assert_eq!(
            (thousandths(LN_ONE), thousandths(-LN_ONE / 2), thousandths(i64::MAX)),
            (1000, -500, 2_147_483_647_999)
        );
    }
}
