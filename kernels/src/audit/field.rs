//! Polynomials over the integers modulo 65,497, the largest prime below 2^16 − 38 that TOPLOC uses: every value fits
//! 16 bits.

use std::sync::LazyLock;

/// The modulus, a prime.
pub(super) const PRIME: u32 = 65_497;

/// Inverses of 0 (as 0) to `PRIME − 1`: 1/i = −⌊P/i⌋ · 1/(P mod i).
static INVERSES: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let mut table = vec![0, 1];
    for i in 2..PRIME {
        let rest = table.get((PRIME % i) as usize).copied().unwrap_or(0);
        table.push(multiply(PRIME - PRIME / i, rest));
    }
    table
});

/// Of numbers below the modulus, whose product fits 32 bits: 65,496² < 2^32.
const fn multiply(a: u32, b: u32) -> u32 {
    a * b % PRIME
}

const fn subtract(a: u32, b: u32) -> u32 {
    (a + PRIME - b) % PRIME
}

fn inverse(a: u32) -> u32 {
    INVERSES.get(a as usize).copied().unwrap_or(0)
}

/// Coefficients, the constant first, of the polynomial of the least degree through these points. The first of each
/// point is unlike all others; all are below the modulus.
///
/// Newton's divided differences, then multiplied out.
pub(super) fn interpolate(points: &[(u32, u32)]) -> Vec<u32> {
    let mut differences: Vec<u32> = points.iter().map(|p| p.1).collect();
    for order in 1..points.len() {
        // From the last to the first, so that what is still needed is not overwritten.
        for i in (order..points.len()).rev() {
            let (Some(&here), Some(&before)) = (differences.get(i), differences.get(i - 1)) else { continue };
            let (Some(to), Some(from)) = (points.get(i), points.get(i - order)) else { continue };
            let slope = multiply(subtract(here, before), inverse(subtract(to.0, from.0)));
            if let Some(difference) = differences.get_mut(i) {
                *difference = slope;
            }
        }
    }
    // (…(d_n (x − x_{n−1}) + d_{n−1})(x − x_{n−2}) + …) + d_0
    let mut coefficients: Vec<u32> = Vec::with_capacity(points.len());
    for (point, difference) in points.iter().zip(differences).rev() {
        let mut carried = 0;
        for coefficient in &mut coefficients {
            let shifted = carried;
            carried = *coefficient;
            *coefficient = subtract(shifted, multiply(point.0, carried));
        }
        coefficients.push(carried);
        if let Some(constant) = coefficients.first_mut() {
            *constant = (*constant + difference) % PRIME;
        }
    }
    coefficients
}

/// The polynomial's value.
pub(super) fn evaluate(coefficients: &[u16], x: u32) -> u32 {
    coefficients.iter().rev().fold(0, |sum, &c| (multiply(sum, x) + u32::from(c)) % PRIME)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn inverses_are_inverses() {
        assert!((1..PRIME).all(|a| multiply(a, inverse(a)) == 1));
    }

    proptest! {
        #[test]
        fn a_polynomial_goes_through_its_points(
            points in proptest::collection::btree_map(0..PRIME, 0..PRIME, 1..140),
        ) {
            let points: Vec<_> = points.into_iter().collect();
            let coefficients = interpolate(&points);
            prop_assert_eq!(coefficients.len(), points.len());
            let narrow: Vec<u16> = coefficients.iter().map(|&c| u16::try_from(c).unwrap()).collect();
            for (x, y) in points {
                prop_assert_eq!(evaluate(&narrow, x), y);
            }
        }
    }
}
