//! How even a distribution is, in one number.

/// The Gini coefficient: 0 where all have the same, near 1 where one has all. 0 of nothing.
pub fn gini(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (n, total) = (sorted.len() as f64, sorted.iter().sum::<f64>());
    if total <= 0.0 {
        return 0.0;
    }
    let weighted: f64 = (1_u32..).zip(&sorted).map(|(rank, value)| f64::from(rank) * value).sum();
    (2.0 * weighted / (n * total) - (n + 1.0) / n).max(0.0)
}

/// The index of Jain, Chiu and Hawe (1984): 1 where all have the same, 1/n where one of n has all. 1 of nothing.
pub fn jain(values: &[f64]) -> f64 {
    let (sum, squares) = (values.iter().sum::<f64>(), values.iter().map(|value| value * value).sum::<f64>());
    if squares <= 0.0 { 1.0 } else { sum * sum / (values.len() as f64 * squares) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_both_scales() {
        assert!(gini(&[3.0; 10]).abs() < 1e-12 && (jain(&[3.0; 10]) - 1.0).abs() < 1e-12);
        let one = [0.0, 0.0, 0.0, 8.0];
        assert!((gini(&one) - 0.75).abs() < 1e-12 && (jain(&one) - 0.25).abs() < 1e-12);
        assert_eq!((gini(&[]), jain(&[]), gini(&[0.0; 3]), jain(&[0.0; 3])), (0.0, 1.0, 0.0, 1.0));
        // Worked by hand: |differences| sum to 2·(1+2+3+1+2+1) = 20; 20 / (2 · 4² · 2.5) = 0.25.
        assert!((gini(&[4.0, 2.0, 1.0, 3.0]) - 0.25).abs() < 1e-12);
    }
}
