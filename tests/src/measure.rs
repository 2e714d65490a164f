//! Measurements over several machines. What a scenario does in short, the program `pool_bench` does in full.

use std::time::Duration;

use serde_json::{Value, json};

pub mod converge;
pub mod failover;
pub mod first;
pub mod memory;
pub mod nat;
pub mod overhead;

/// Durations, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread(Vec<Duration>);

impl Spread {
    /// Of these, in any order.
    pub fn of(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut all: Vec<Duration> = durations.into_iter().collect();
        all.sort_unstable();
        Self(all)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest one that this share of all does not exceed: 0.5 for the median, 1.0 for the largest. Zero when
    /// there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let place = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(place.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The same in milliseconds.
    pub fn ms(&self, share: f64) -> f64 {
        ms(self.quantile(share))
    }

    /// The figures that are reported, in milliseconds.
    pub fn json(&self) -> Value {
        json!({"count": self.len(), "p50": self.ms(0.5), "p90": self.ms(0.9), "p95": self.ms(0.95),
            "p99": self.ms(0.99), "max": self.ms(1.0)})
    }
}

/// A duration in milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Says what is being done, on stderr: some of these take minutes.
pub(crate) fn tell(what: &str) {
    eprintln!("{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_there() {
        let spread = Spread::of((1..=100).rev().map(Duration::from_millis));
        let at = |share| spread.quantile(share).as_millis();
        assert_eq!((at(0.5), at(0.9), at(0.99), at(1.0), at(0.0)), (50, 90, 99, 100, 1));
        assert_eq!(Spread::of([Duration::from_millis(7)]).quantile(0.5), Duration::from_millis(7));
        assert_eq!((Spread::default().quantile(0.5), Spread::default().is_empty()), (Duration::ZERO, true));
    }
}
