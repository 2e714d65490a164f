//! Who is compared: policies, and the order that is built in.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::policy::{
    CallError, Kind, Native, Policy, Soonest,
    types::{Candidate, Job, Ranking},
};

use super::{Measured, SimulateError};

/// A way of choosing machines.
#[derive(Clone)]
pub enum Order {
    /// An order that is built in.
    Native(Arc<dyn Native>),
    /// A routing policy.
    Policy(Arc<Policy>),
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native(native) => f.debug_tuple("Native").field(native).finish(),
            Self::Policy(policy) => f.debug_tuple("Policy").field(policy).finish(),
        }
    }
}

/// A way of choosing machines, with a name for people.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// What it is called in the report.
    pub name: String,
    /// How it chooses.
    pub order: Order,
}

impl Contestant {
    /// The order that a node uses where no policy decides.
    pub fn native() -> Self {
        Self { name: "native".into(), order: Order::Native(Arc::new(Soonest)) }
    }

    /// A policy, by the name that it calls itself.
    pub fn policy(policy: Arc<Policy>) -> Self {
        Self { name: policy.describe().name.clone(), order: Order::Policy(policy) }
    }

    pub(super) fn check(&self) -> Result<(), SimulateError> {
        match &self.order {
            Order::Policy(policy) if policy.kind() != Kind::Routing => Err(SimulateError::Kind {
                name: self.name.clone(),
                kind: policy.kind(),
                wanted: Kind::Routing,
            }),
            Order::Policy(_) | Order::Native(_) => Ok(()),
        }
    }

    pub(super) fn hash(&self) -> Option<String> {
        match &self.order {
            Order::Native(_) => None,
            Order::Policy(policy) => Some(policy.hash().to_string()),
        }
    }
}

/// Asks a contestant and counts.
#[derive(Debug)]
pub(super) struct Router<'a> {
    contestant: &'a Contestant,
    pub(super) decisions: u64,
    /// Decisions that the policy refused in words, or failed to give.
    pub(super) refused: u64,
    pub(super) failed: u64,
    candidates: u64,
    fuel: u64,
    most_fuel: u64,
    took: Duration,
}

impl<'a> Router<'a> {
    pub(super) const fn new(contestant: &'a Contestant) -> Self {
        Self {
            contestant,
            decisions: 0,
            refused: 0,
            failed: 0,
            candidates: 0,
            fuel: 0,
            most_fuel: 0,
            took: Duration::ZERO,
        }
    }

    /// The order of the candidates; where a policy gives none, that of [`Soonest`], as in a node.
    pub(super) fn rank(&mut self, job: &Job, candidates: &[Candidate], now: u64, seed: u64) -> Ranking {
        self.decisions += 1;
        self.candidates += candidates.len() as u64;
        let policy = match &self.contestant.order {
            Order::Native(native) => {
                let start = Instant::now();
                let ranking = native.rank(job, candidates, now, seed);
                self.took += start.elapsed();
                return ranking;
            }
            Order::Policy(policy) => policy,
        };
        match policy.rank_counted(job, candidates, now, seed) {
            Ok(ranked) => {
                self.took += ranked.took;
                self.fuel = self.fuel.saturating_add(ranked.fuel);
                self.most_fuel = self.most_fuel.max(ranked.fuel);
                ranked.ranking
            }
            Err(error) => {
                if matches!(error, CallError::Refused(_)) {
                    self.refused += 1
                } else {
                    self.failed += 1
                }
                Soonest.rank(job, candidates, now, seed)
            }
        }
    }

    /// What deciding cost on this machine.
    pub(super) fn measured(&self) -> Measured {
        let (decisions, seconds) = (self.decisions.max(1) as f64, self.took.as_secs_f64());
        Measured {
            name: self.contestant.name.clone(),
            decisions: self.decisions,
            candidates: self.candidates as f64 / decisions,
            decisions_per_second: if seconds > 0.0 { self.decisions as f64 / seconds } else { 0.0 },
            mean_micros: 1e6 * seconds / decisions,
            mean_fuel: self.fuel / self.decisions.max(1),
            most_fuel: self.most_fuel,
        }
    }
}
