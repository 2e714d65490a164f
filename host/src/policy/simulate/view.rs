//! What one machine has seen of others, by the rules of a node's own health table: a token proves a machine well for
//! a while, speeds are smoothed over what was measured, and failures pause a machine for longer each time.

use std::collections::HashMap;

use crate::policy::types::Health;

use super::number::{self, mix_all};

/// How long a token proves that a model answers, in microseconds.
const FRESH: u64 = 90_000_000;
/// First and longest pause after a failure, in microseconds.
const FIRST_PAUSE: u64 = 1_000_000;
const LONGEST_PAUSE: u64 = 60_000_000;
/// A probe comes so long after a failure, in microseconds; at random up to twice as long.
const PROBE: u64 = 30_000_000;
/// Weight of the newest measurement.
const WEIGHT: f64 = 0.3;
/// After so many failures in a row a machine that is paused is not even asked about.
pub(super) const HOPELESS: u32 = 4;

/// What a failure says something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    Machine,
    Model,
}

/// Whom a row is about, and who has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub(super) asker: u32,
    pub(super) machine: u32,
    pub(super) model: u32,
}

/// What is known of one model of one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) health: Health,
    pub(super) failures: u32,
    /// Jobs of the one who asks that are there, for this model and for all.
    pub(super) in_flight: u32,
    pub(super) there: u32,
    /// Microseconds, and thousandths of a token per second.
    pub(super) first: Option<u64>,
    pub(super) prefill: Option<u64>,
    pub(super) decode: Option<u64>,
}

/// One answer, measured by the one who asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Microseconds until the first token.
    pub(super) first: u64,
    /// Tokens of the prompt that had to be computed.
    pub(super) prompt: u32,
    /// Tokens after the first, and microseconds for them.
    pub(super) tokens: u32,
    pub(super) time: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Breaker {
    failures: u32,
    until: u64,
    last: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    token: Option<u64>,
    failed: bool,
    first: Option<f64>,
    prefill: Option<f64>,
    decode: Option<f64>,
    in_flight: u32,
    breaker: Breaker,
}

#[derive(Clone, Copy, Debug, Default)]
struct Whole {
    there: u32,
    breaker: Breaker,
}

/// What all machines have seen of each other. Never gone through as a whole, so that the order of a hash table shows
/// nowhere.
#[derive(Debug, Default)]
pub(super) struct Views {
    rows: HashMap<Pair, Row>,
    machines: HashMap<(u32, u32), Whole>,
}

impl Views {
    /// A job goes to a machine.
    pub(super) fn begin(&mut self, pair: Pair) {
        self.rows.entry(pair).or_default().in_flight += 1;
        self.machines.entry((pair.asker, pair.machine)).or_default().there += 1;
    }

    /// A job is not there any more.
    pub(super) fn end(&mut self, pair: Pair) {
        let row = self.rows.entry(pair).or_default();
        row.in_flight = row.in_flight.saturating_sub(1);
        let whole = self.machines.entry((pair.asker, pair.machine)).or_default();
        whole.there = whole.there.saturating_sub(1);
    }

    /// A token came back.
    pub(super) fn token(&mut self, pair: Pair, now: u64) {
        let row = self.rows.entry(pair).or_default();
        (row.token, row.failed, row.breaker) = (Some(now), false, Breaker::default());
        self.machines.entry((pair.asker, pair.machine)).or_default().breaker = Breaker::default();
    }

    /// An answer is complete.
    pub(super) fn measured(&mut self, pair: Pair, measured: Measured) {
        let mix = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old + WEIGHT * (new - old)));
        // Thousandths of a token per second, of microseconds.
        let speed = |tokens: u32, micros: u64| f64::from(tokens) * 1e9 / (micros.max(100) as f64);
        let row = self.rows.entry(pair).or_default();
        row.first = mix(row.first, measured.first as f64);
        if measured.prompt >= 32 {
            row.prefill = mix(row.prefill, speed(measured.prompt, measured.first));
        }
        if measured.tokens >= 4 {
            row.decode = mix(row.decode, speed(measured.tokens, measured.time));
        }
    }

    /// Something failed.
    pub(super) fn failed(&mut self, pair: Pair, blame: Blame, now: u64) {
        let row = self.rows.entry(pair).or_default();
        row.failed = true;
        let whole = self.machines.entry((pair.asker, pair.machine)).or_default();
        let breaker = if blame == Blame::Machine { &mut whole.breaker } else { &mut row.breaker };
        breaker.failures = breaker.failures.saturating_add(1);
        let pause = (FIRST_PAUSE << (breaker.failures.min(7) - 1)).min(LONGEST_PAUSE);
        // From three quarters to five quarters, so that not all try again at the same time.
        let part = 750_000 + mix_all(&[pair.asker.into(), pair.machine.into(), now]) % 500_000;
        (breaker.until, breaker.last) = (now + pause * part / 1_000_000, now);
    }

    /// What is known. A machine that is there with the model in memory is `probed`: a node asks such a one for a token
    /// from time to time, so that it is known to be well, and one that failed is found to be well again.
    pub(super) fn seen(&self, pair: Pair, probed: bool, now: u64) -> Seen {
        let mut whole = self.machines.get(&(pair.asker, pair.machine)).copied().unwrap_or_default();
        let mut row = self.rows.get(&pair).copied().unwrap_or_default();
        let last = row.breaker.last.max(whole.breaker.last);
        if probed && now >= last + PROBE + mix_all(&[pair.asker.into(), pair.machine.into(), last]) % PROBE {
            (row.token, row.failed, row.breaker) = (Some(now), false, Breaker::default());
            whole.breaker = Breaker::default();
        }
        let failures = row.breaker.failures.max(whole.breaker.failures);
        // When a pause is over one job may try; while it does, no other.
        let open = [row.breaker, whole.breaker]
            .iter()
            .any(|it| it.failures > 0 && (now < it.until || row.in_flight > 0));
        let fresh = row.token.is_some_and(|at| now.saturating_sub(at) <= FRESH);
        let health = match () {
            () if open => Health::Paused,
            () if row.failed || failures > 0 => Health::Failed,
            () if fresh => Health::Healthy,
            () => Health::Unknown,
        };
        Seen {
            health,
            failures,
            in_flight: row.in_flight,
            there: whole.there,
            first: row.first.map(number::whole),
            prefill: row.prefill.map(number::whole),
            decode: row.decode.map(number::whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Pair = Pair { asker: 1, machine: 2, model: 0 };

    #[test]
    fn a_token_mends_and_failures_pause_for_longer_each_time() {
        let mut views = Views::default();
        assert_eq!(views.seen(PAIR, false, 0), Seen::default());
        views.token(PAIR, 5);
        assert_eq!(views.seen(PAIR, false, FRESH).health, Health::Healthy);
        assert_eq!(views.seen(PAIR, false, FRESH + 6).health, Health::Unknown);
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..8 {
            views.failed(PAIR, Blame::Machine, now);
            let from = now;
            while views.seen(PAIR, false, now).health == Health::Paused {
                now += 50_000;
            }
            pauses.push((now - from) / 1_000_000);
            assert_eq!(views.seen(PAIR, false, now).health, Health::Failed);
        }
        assert!(pauses.is_sorted() || pauses[6..].iter().all(|pause| *pause >= 45), "{pauses:?}");
        assert!(pauses[0] <= 1 && pauses[7] >= 45, "{pauses:?}");
        let other = Pair { model: 9, ..PAIR };
        views.failed(PAIR, Blame::Machine, now);
        assert_eq!(
            views.seen(other, false, now).health,
            Health::Paused,
            "the machine is meant, not the model"
        );
        let later = now + 2 * PROBE;
        assert_eq!(views.seen(PAIR, false, later).health, Health::Failed);
        assert_eq!(views.seen(PAIR, true, later).health, Health::Healthy, "a probe came back");
        assert_eq!(views.seen(PAIR, true, now + PROBE / 2).failures, 8 + 1, "none came yet");
        views.token(PAIR, now);
        assert_eq!(
            (views.seen(PAIR, false, now).health, views.seen(PAIR, false, now).failures),
            (Health::Healthy, 0)
        );
    }

    #[test]
    fn speeds_follow_what_is_measured() {
        let mut views = Views::default();
        let measured = |tokens| Measured { first: 100_000, prompt: 100, tokens, time: 1_000_000 };
        views.measured(PAIR, measured(10));
        views.measured(PAIR, measured(20));
        let seen = views.seen(PAIR, false, 0);
        assert_eq!((seen.first, seen.prefill, seen.decode), (Some(100_000), Some(1_000_000), Some(13_000)));
    }
}
