//! What is counted about a policy.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::Serialize;

use super::{CallError, Reason};

/// Steps of a doubling. A quantile is told to within one of them, 19 percent.
const STEPS: u32 = 4;
/// Doublings of a nanosecond: up to 68 seconds.
const DOUBLINGS: u32 = 36;
const BUCKETS: usize = 144;

/// Durations, counted in buckets that grow by a quarter of a doubling.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&self, took: Duration) {
        if let Some(bucket) = self.buckets.get(bucket(took)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// The duration, in nanoseconds, that this share of all stay below; `None`: nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let wanted = (all as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0);
        let mut below = 0;
        counts.iter().enumerate().find_map(|(place, count)| {
            below += count;
            (all > 0 && below as f64 >= wanted).then(|| upper_bound(place))
        })
    }
}

fn bucket(took: Duration) -> usize {
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(4);
    let doublings = nanos.ilog2();
    // The two bits after the first are the quarter.
    let step = (nanos >> (doublings - 2)) & 3;
    let place = u64::from(doublings.min(DOUBLINGS - 1) * STEPS) + step;
    usize::try_from(place).unwrap_or(BUCKETS - 1).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> u64 {
    let place = u32::try_from(bucket).unwrap_or(0);
    let (doublings, step) = (place / STEPS, place % STEPS);
    (u64::from(step) + 5).checked_shl(doublings).unwrap_or(u64::MAX) / 4
}

/// Counts the calls of one policy in one set.
#[derive(Debug, Default)]
pub struct Meter {
    calls: AtomicU64,
    warm: AtomicU64,
    fuel: AtomicU64,
    took: Histogram,
    reasons: [AtomicU64; Reason::ALL.len()],
}

impl Meter {
    pub(super) fn decided(&self, fuel: u64, took: Duration, warm: bool) {
        self.calls.fetch_add(1, Relaxed);
        self.fuel.fetch_add(fuel, Relaxed);
        self.took.add(took);
        if warm {
            self.warm.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn failed(&self, error: &CallError, took: Duration) {
        self.calls.fetch_add(1, Relaxed);
        self.took.add(took);
        let reason = error.reason();
        let place = Reason::ALL.iter().position(|other| *other == reason);
        if let Some(count) = place.and_then(|place| self.reasons.get(place)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// What was counted so far.
    pub fn read(&self) -> Reading {
        let counts = self.reasons.iter().map(|count| count.load(Relaxed));
        let reasons = Reason::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect();
        Reading {
            calls: self.calls.load(Relaxed),
            warm: self.warm.load(Relaxed),
            fuel: self.fuel.load(Relaxed),
            p50_nanos: self.took.quantile(0.5),
            p99_nanos: self.took.quantile(0.99),
            reasons,
        }
    }
}

/// What was counted about one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Calls, failed ones included.
    pub calls: u64,
    /// Calls that a warm instance answered.
    pub warm: u64,
    /// Fuel of all decisions.
    pub fuel: u64,
    /// Half of the calls took no longer, in nanoseconds.
    pub p50_nanos: Option<u64>,
    /// All but a hundredth of the calls took no longer, in nanoseconds.
    pub p99_nanos: Option<u64>,
    /// Calls without a decision, by reason.
    pub reasons: BTreeMap<Reason, u64>,
}

impl Reading {
    /// Calls that failed by the policy's fault.
    pub fn failures(&self) -> u64 {
        self.reasons.iter().filter(|(reason, _)| reason.blames_policy()).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_below_the_bound_of_its_bucket() {
        let mut last = 0;
        for nanos in (0..4000).chain((12..36).map(|n| 1u64 << n)).chain((12..36).map(|n| (1u64 << n) - 1)) {
            let bound = upper_bound(bucket(Duration::from_nanos(nanos)));
            assert!(nanos <= bound, "{nanos} {bound}");
            assert!(nanos < 8 || bound <= nanos + nanos / 4 + 1, "{nanos} {bound}");
        }
        for place in 8..BUCKETS {
            assert!(upper_bound(place) > last, "{place}");
            last = upper_bound(place);
        }
        assert!(bucket(Duration::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (0..98).for_each(|_| histogram.add(Duration::from_micros(10)));
        (0..2).for_each(|_| histogram.add(Duration::from_millis(10)));
        let median = histogram.quantile(0.5).unwrap();
        assert!((10_000..12_500).contains(&median), "{median}");
        let most = histogram.quantile(0.99).unwrap();
        assert!((10_000_000..12_500_000).contains(&most), "{most}");
    }

    #[test]
    fn refusals_are_told_apart_from_failures() {
        let meter = Meter::default();
        meter.decided(100, Duration::from_micros(3), true);
        meter.failed(&CallError::Refused("no".into()), Duration::ZERO);
        meter.failed(&CallError::Fuel { budget: 1 }, Duration::ZERO);
        meter.failed(&CallError::Fuel { budget: 1 }, Duration::ZERO);
        let reading = meter.read();
        assert_eq!((reading.calls, reading.warm, reading.fuel, reading.failures()), (4, 1, 100, 2));
        assert_eq!(reading.reasons.get(&Reason::Refused), Some(&1));
    }
}
