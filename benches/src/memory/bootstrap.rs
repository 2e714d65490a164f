//! How sure a mean is, and percentiles.

use super::random::Random;

/// How many times the questions are drawn anew.
pub const RESAMPLES: usize = 1000;

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The mean of every column over all rows, each with the interval that 1,000 draws of rows with replacement give.
/// Rows are questions: a question asked in several haystacks is one row of its means, or the interval would be
/// too narrow. A row that is shorter than the first counts 0 in the columns it lacks.
pub fn estimates(rows: &[Vec<f64>], seed: u64) -> Vec<Estimate> {
    let Some(columns) = rows.first().map(Vec::len) else { return Vec::new() };
    let mean = |sums: Vec<f64>| -> Vec<f64> { sums.into_iter().map(|sum| sum / rows.len() as f64).collect() };
    let add = |mut sums: Vec<f64>, row: &Vec<f64>| {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        sums
    };
    let values = mean(rows.iter().fold(vec![0.0; columns], add));
    let mut random = Random::of(seed, "bootstrap");
    let mut drawn: Vec<Vec<f64>> = vec![Vec::with_capacity(RESAMPLES); columns];
    for _ in 0..RESAMPLES {
        let picks = (0..rows.len()).filter_map(|_| rows.get(random.below(rows.len())));
        let means = mean(picks.fold(vec![0.0; columns], add));
        drawn.iter_mut().zip(means).for_each(|(column, mean)| column.push(mean));
    }
    let interval = |(value, mut column): (f64, Vec<f64>)| {
        column.sort_unstable_by(f64::total_cmp);
        Estimate { value, low: quantile(&column, 0.025), high: quantile(&column, 0.975) }
    };
    values.into_iter().zip(drawn).map(interval).collect()
}

/// The value at this share of sorted values, between neighbours in proportion; 0 if there are none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let below = place.floor();
    let at = |index: f64| sorted.get(index as usize).copied().unwrap_or(0.0);
    let (low, high) = (at(below), at((below + 1.0).min(last as f64)));
    low + (high - low) * (place - below)
}

/// The median and the 95th percentile of values in any order.
pub fn p50_p95(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    (quantile(&values, 0.5), quantile(&values, 0.95))
}

/// The standard deviation of a sample; 0 for fewer than two values.
pub fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(quantile(&values, 0.5), 3.0);
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&values, 1.0), 5.0);
        assert!((quantile(&values, 0.95) - 4.8).abs() < 1e-9);
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[7.0], 0.95), 7.0);
        assert_eq!(p50_p95(vec![3.0, 1.0, 2.0]).0, 2.0);
    }

    #[test]
    fn intervals_hold_the_mean_and_repeat() {
        let rows: Vec<Vec<f64>> = (0..400).map(|i| vec![if i % 4 == 0 { 0.0 } else { 1.0 }, 0.5]).collect();
        let found = estimates(&rows, 1);
        let share = found[0];
        assert_eq!(share.value, 0.75);
        // The normal approximation gives ±1.96·√(.75·.25/400) = ±.0424.
        assert!((share.low - 0.7076).abs() < 0.008, "{share:?}");
        assert!((share.high - 0.7924).abs() < 0.008, "{share:?}");
        assert_eq!(found[1], Estimate { value: 0.5, low: 0.5, high: 0.5 });
        assert_eq!(estimates(&rows, 1), found);
        assert_ne!(estimates(&rows, 2)[0], share);
        assert!(estimates(&[], 1).is_empty());
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        assert!((deviation(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) - 2.138_089_935).abs() < 1e-6);
        assert_eq!(deviation(&[1.0]), 0.0);
    }
}
