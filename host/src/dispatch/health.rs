//! What was seen of the members' machines: tokens that came back, how fast, and what failed.
//!
//! A machine is healthy for a model when a token of it came back lately over the path that leads to it now. Speeds
//! are smoothed over what was measured here and replace what the machine says of itself. Failures open a breaker:
//! nothing is asked for a while that doubles with each failure, then one try decides.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use crate::identity::NodeId;

/// How long a token proves that a model answers.
pub const FRESH: Duration = Duration::from_secs(90);
/// First pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Weight of the newest measurement.
const WEIGHT: f64 = 0.3;
/// Pairs of machine and model that are remembered.
const REMEMBERED: usize = 4096;

/// What a failure says something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The machine or the way to it.
    Machine,
    /// One of its models.
    Model,
}

/// What is known of one model of one machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Seen {
    /// Whether a token came back lately over the present path; `None`: nothing is known.
    pub healthy: Option<bool>,
    /// Whether nothing may be asked of it now.
    pub open: bool,
    /// Time to the first token, in milliseconds.
    pub first_ms: Option<f64>,
    /// Prompt tokens per second, waiting included.
    pub prefill: Option<f64>,
    /// Tokens per second of one answer.
    pub decode: Option<f64>,
    /// Jobs of this machine that are there now, for this model.
    pub in_flight: u32,
    /// And for all models.
    pub there: u32,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure in words.
    pub trouble: Option<String>,
}

/// A measurement of one answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// From acceptance to the first text.
    pub first: Duration,
    /// Prompt tokens that had to be computed.
    pub prompt_tokens: u32,
    /// Tokens after the first.
    pub tokens: u32,
    /// Time for them.
    pub time: Duration,
}

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    until: Option<Instant>,
    trouble: Option<String>,
}

#[derive(Debug, Default)]
struct Pair {
    /// The path that `token` came over.
    path: String,
    token: Option<Instant>,
    used: Option<Instant>,
    failed: Option<Instant>,
    first_ms: Option<f64>,
    prefill: Option<f64>,
    decode: Option<f64>,
    in_flight: u32,
    breaker: Breaker,
}

#[derive(Debug, Default)]
struct Rows {
    pairs: HashMap<NodeId, HashMap<String, Pair>>,
    machines: HashMap<NodeId, Breaker>,
}

/// What was seen of all machines.
#[derive(Debug, Default)]
pub struct Health {
    rows: Mutex<Rows>,
}

impl Health {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, peer: NodeId, model: &str, work: impl FnOnce(&mut Pair) -> T) -> T {
        let mut rows = self.rows();
        if rows.pairs.values().map(HashMap::len).sum::<usize>() > REMEMBERED {
            for pairs in rows.pairs.values_mut() {
                pairs.retain(|_, pair| pair.in_flight > 0);
            }
        }
        work(rows.pairs.entry(peer).or_default().entry(model.to_owned()).or_default())
    }

    /// A job goes to a machine.
    pub fn begin(&self, peer: NodeId, model: &str, real: bool, now: Instant) {
        self.with(peer, model, |pair| {
            pair.in_flight = pair.in_flight.saturating_add(1);
            if real {
                pair.used = Some(now);
            }
        });
    }

    /// A job is not there any more.
    pub fn end(&self, peer: NodeId, model: &str) {
        self.with(peer, model, |pair| pair.in_flight = pair.in_flight.saturating_sub(1));
    }

    /// A token came back.
    pub fn token(&self, peer: NodeId, model: &str, path: &str, now: Instant) {
        self.with(peer, model, |pair| {
            pair.token = Some(now);
            pair.failed = None;
            if pair.path != path {
                path.clone_into(&mut pair.path);
            }
            pair.breaker = Breaker::default();
        });
        self.rows().machines.remove(&peer);
    }

    /// An answer is complete.
    pub fn measured(&self, peer: NodeId, model: &str, measured: Measured) {
        let mix = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old + WEIGHT * (new - old)));
        self.with(peer, model, |pair| {
            let first = measured.first.as_secs_f64().max(1e-4);
            pair.first_ms = mix(pair.first_ms, first * 1e3);
            // Of few tokens the time says more about the way than about the machine.
            if measured.prompt_tokens >= 32 {
                pair.prefill = mix(pair.prefill, f64::from(measured.prompt_tokens) / first);
            }
            if measured.tokens >= 4 {
                let time = measured.time.as_secs_f64().max(1e-4);
                pair.decode = mix(pair.decode, f64::from(measured.tokens) / time);
            }
        });
    }

    /// Something failed. `jitter` is random, from 0 to 1.
    pub fn failed(&self, peer: NodeId, model: &str, blame: Blame, why: &str, jitter: f64, now: Instant) {
        let trip = |breaker: &mut Breaker| {
            breaker.failures = breaker.failures.saturating_add(1);
            let pause = FIRST_PAUSE * 2_u32.saturating_pow(breaker.failures.min(7).saturating_sub(1));
            let pause = pause.min(LONGEST_PAUSE).mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0));
            breaker.until = Some(now + pause);
            breaker.trouble = Some(why.chars().take(300).collect());
        };
        self.with(peer, model, |pair| {
            pair.failed = Some(now);
            if blame == Blame::Model {
                trip(&mut pair.breaker);
            }
        });
        if blame == Blame::Machine {
            trip(self.rows().machines.entry(peer).or_default());
        }
    }

    /// Forgets a machine that is no member any more.
    pub fn forget(&self, peer: NodeId) {
        let mut rows = self.rows();
        rows.pairs.remove(&peer);
        rows.machines.remove(&peer);
    }

    /// What is known.
    pub fn seen(&self, peer: NodeId, model: &str, path: &str, now: Instant) -> Seen {
        let rows = self.rows();
        let machine = rows.machines.get(&peer);
        let there = rows.pairs.get(&peer).map_or(0, |pairs| pairs.values().map(|pair| pair.in_flight).sum());
        let Some(pair) = rows.pairs.get(&peer).and_then(|pairs| pairs.get(model)) else {
            let none = Seen { there, ..Seen::default() };
            return machine.map_or(none.clone(), |breaker| with_breaker(none, breaker, now));
        };
        let fresh =
            pair.path == path && pair.token.is_some_and(|at| now.saturating_duration_since(at) <= FRESH);
        let healthy = if pair.failed.is_some() { Some(false) } else { fresh.then_some(true) };
        let seen = Seen {
            healthy,
            first_ms: pair.first_ms,
            prefill: pair.prefill,
            decode: pair.decode,
            in_flight: pair.in_flight,
            there,
            ..Seen::default()
        };
        let seen = with_breaker(seen, &pair.breaker, now);
        machine.map_or(seen.clone(), |breaker| with_breaker(seen, breaker, now))
    }

    /// When a token of a model last came back over this path.
    pub fn last_token(&self, peer: NodeId, model: &str, path: &str) -> Option<Instant> {
        let rows = self.rows();
        let pair = rows.pairs.get(&peer)?.get(model)?;
        pair.token.filter(|_| pair.path == path)
    }

    /// Whether a model of a machine was asked for since `after`.
    pub fn used_since(&self, peer: NodeId, model: &str, after: Instant) -> bool {
        let rows = self.rows();
        let pair = rows.pairs.get(&peer).and_then(|pairs| pairs.get(model));
        pair.and_then(|pair| pair.used).is_some_and(|used| used >= after)
    }
}

fn with_breaker(mut seen: Seen, breaker: &Breaker, now: Instant) -> Seen {
    // When the pause is over one job may try; while it does, no other.
    let waits = breaker.until.is_some_and(|until| now < until || seen.in_flight > 0);
    seen.open |= waits;
    if breaker.failures > 0 {
        seen.healthy = Some(false);
        seen.failures = seen.failures.max(breaker.failures);
        seen.trouble = breaker.trouble.clone().or(seen.trouble);
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId([3; 32]);

    #[test]
    fn health_is_a_token_over_the_present_path() {
        let (health, now) = (Health::default(), Instant::now());
        assert_eq!(health.seen(PEER, "m", "direct", now), Seen::default());
        health.token(PEER, "m", "direct", now);
        assert_eq!(health.seen(PEER, "m", "direct", now).healthy, Some(true));
        assert_eq!(health.seen(PEER, "m", "relay", now).healthy, None);
        assert_eq!(health.seen(PEER, "other", "direct", now).healthy, None);
        assert_eq!(health.seen(PEER, "m", "direct", now + Duration::from_secs(91)).healthy, None);
    }

    #[test]
    fn failures_pause_twice_as_long_each_time_and_a_token_mends_all() {
        let (health, mut now) = (Health::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            health.failed(PEER, "m", Blame::Machine, "gone", 0.5, now);
            let from = now;
            assert!(health.seen(PEER, "other", "p", now).open, "the machine is meant, not the model");
            while health.seen(PEER, "m", "p", now).open {
                now += Duration::from_millis(500);
            }
            pauses.push(now.saturating_duration_since(from).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        // The one try is under way.
        health.begin(PEER, "m", true, now);
        assert!(health.seen(PEER, "m", "p", now).open);
        health.token(PEER, "m", "p", now);
        let seen = health.seen(PEER, "m", "p", now);
        assert_eq!((seen.open, seen.healthy, seen.failures, seen.in_flight), (false, Some(true), 0, 1));
        health.failed(PEER, "m", Blame::Model, "broken", 0.5, now);
        assert!(health.seen(PEER, "m", "p", now).open && !health.seen(PEER, "n", "p", now).open);
    }

    #[test]
    fn speeds_follow_what_is_measured() {
        let health = Health::default();
        let measured = |tokens| Measured {
            first: Duration::from_millis(100),
            prompt_tokens: 100,
            tokens,
            time: Duration::from_secs(1),
        };
        health.measured(PEER, "m", measured(10));
        health.measured(PEER, "m", measured(20));
        let seen = health.seen(PEER, "m", "p", Instant::now());
        assert_eq!((seen.first_ms, seen.prefill, seen.decode), (Some(100.0), Some(1000.0), Some(13.0)));
    }
}
