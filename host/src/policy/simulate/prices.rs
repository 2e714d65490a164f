//! What machines ask for, where a pricing policy decides that.
//!
//! A machine's price list for a model holds as long as the policy says, at least a second, and is what all who ask in
//! that time are told: the policy is asked with the first job that comes after the last list has run out.

use std::{collections::HashMap, sync::Arc};

use crate::policy::{
    CallError, Policy,
    types::{Hardware, Job, Market, Price},
};

/// Least and most that may be asked for a thousand tokens of an answer, in micro-credits.
const FLOOR: u64 = 100;
const CEILING: u64 = 100_000_000;
/// How often a machine looks at the market, in microseconds.
const LOOK: u64 = 1_000_000;
/// For how long the share of the capacity that was used is averaged, in microseconds.
const HOUR: u64 = 3_600_000_000;
/// When a simulation begins, in milliseconds since 1970: with the year 2026.
const BEGIN_MS: u64 = 1_767_225_600_000;

/// A moment of the simulation in milliseconds since 1970.
pub(super) const fn millis(now: u64) -> u64 {
    BEGIN_MS + now / 1000
}

/// Jobs and places for one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) waiting: u64,
    pub(super) running: u64,
    pub(super) capacity: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stall {
    looked: Option<u64>,
    demand: Demand,
    used: f64,
    last: Option<u64>,
}

#[derive(Clone, Debug)]
struct Quoted {
    until: u64,
    price: Option<Price>,
}

/// All price lists.
#[derive(Debug)]
pub(super) struct Prices<'a> {
    policy: Option<&'a Arc<Policy>>,
    quotes: HashMap<(u32, u32), Quoted>,
    stalls: Vec<Stall>,
    pub(super) refused: u64,
    pub(super) failed: u64,
}

impl<'a> Prices<'a> {
    pub(super) fn new(policy: Option<&'a Arc<Policy>>, models: usize) -> Self {
        let stalls = vec![Stall::default(); models];
        Self { policy, quotes: HashMap::new(), stalls, refused: 0, failed: 0 }
    }

    pub(super) const fn are_asked(&self) -> bool {
        self.policy.is_some()
    }

    /// Whether the market for a model was not looked at for a while.
    pub(super) fn is_old(&self, model: u32, now: u64) -> bool {
        let stall = self.stalls.get(model as usize);
        stall.is_some_and(|stall| stall.looked.is_none_or(|at| now >= at + LOOK))
    }

    /// How much of a model is asked for and offered now.
    pub(super) fn look(&mut self, model: u32, demand: Demand, now: u64) {
        let Some(stall) = self.stalls.get_mut(model as usize) else { return };
        let used = demand.running as f64 / demand.capacity.max(1) as f64;
        let since = now - stall.looked.unwrap_or(0);
        let weight = since as f64 / now.clamp(1, HOUR) as f64;
        stall.used += weight.min(1.0) * (used.min(1.0) - stall.used);
        (stall.looked, stall.demand) = (Some(now), demand);
    }

    /// A machine's price list for a model; `None`: it does not take jobs now.
    pub(super) fn list(
        &mut self,
        machine: u32,
        model: u32,
        job: &Job,
        hardware: impl FnOnce() -> Hardware,
        now: u64,
    ) -> Option<&Price> {
        let old = self.quotes.get(&(machine, model)).is_none_or(|quoted| quoted.until <= now);
        if old {
            let quoted = self.ask(model, job, &hardware(), now)?;
            self.quotes.insert((machine, model), quoted);
        }
        self.quotes.get(&(machine, model))?.price.as_ref()
    }

    fn ask(&mut self, model: u32, job: &Job, hardware: &Hardware, now: u64) -> Option<Quoted> {
        let stall = self.stalls.get(model as usize)?;
        let market = Market {
            waiting: stall.demand.waiting,
            running: stall.demand.running,
            capacity: stall.demand.capacity,
            used: u32::try_from(super::number::whole(stall.used * 1e6)).unwrap_or(1_000_000),
            floor: FLOOR,
            ceiling: CEILING,
            last: stall.last,
        };
        let price = match self.policy?.quote(job, hardware, &market, millis(now)) {
            Ok(price) => Some(price),
            Err(CallError::Refused(_)) => {
                self.refused += 1;
                None
            }
            Err(_) => {
                self.failed += 1;
                None
            }
        };
        let valid = price.as_ref().map_or(0, |price| price.valid_ms).clamp(1000, 86_400_000);
        Some(Quoted { until: now + valid * 1000, price })
    }

    /// A job was paid by a list.
    pub(super) fn paid(&mut self, model: u32, price: &Price) {
        if let Some(stall) = self.stalls.get_mut(model as usize) {
            stall.last = Some(price.per_thousand_answer);
        }
    }
}
