use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use super::Standing;
use crate::policy::{
    CallError, Kind, Policy, PolicyHash,
    metrics::{Meter, Reading},
};

/// A policy in its place in a set.
#[derive(Debug)]
pub struct Active {
    policy: Arc<Policy>,
    by: String,
    from_ms: u64,
    meter: Meter,
    /// Failures since the last decision.
    failures: AtomicU32,
    aside: AtomicBool,
}

impl Active {
    pub(super) fn new(policy: Arc<Policy>, by: String, from_ms: u64) -> Self {
        let (failures, aside) = (AtomicU32::new(0), AtomicBool::new(false));
        Self { policy, by, from_ms, meter: Meter::default(), failures, aside }
    }

    /// The policy.
    pub const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// What it decides.
    pub fn kind(&self) -> Kind {
        self.policy.kind()
    }

    /// Which policy it is.
    pub fn hash(&self) -> PolicyHash {
        self.policy.hash()
    }

    /// Who chose it.
    pub fn by(&self) -> &str {
        &self.by
    }

    /// From when on it was to decide, in milliseconds since 1970.
    pub const fn from_ms(&self) -> u64 {
        self.from_ms
    }

    /// Whether it failed so often that it is not asked any more.
    pub fn is_aside(&self) -> bool {
        self.aside.load(Relaxed)
    }

    /// What was counted about it in this place.
    pub fn reading(&self) -> Reading {
        self.meter.read()
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            kind: self.kind(),
            hash: self.hash(),
            name: self.policy.describe().name.clone(),
            by: self.by.clone(),
            from_ms: self.from_ms,
            aside: self.is_aside(),
            reading: self.reading(),
        }
    }

    pub(super) fn decided(&self, fuel: u64, took: Duration, warm: bool) {
        self.meter.decided(fuel, took, warm);
        self.well();
    }

    /// Written to only when there is something to forget: many callers share it.
    fn well(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// Counts a call without a decision. Returns the failures in a row when this one sets the policy aside.
    pub(super) fn failed(&self, error: &CallError, took: Duration, bound: u32) -> Option<u32> {
        self.meter.failed(error, took);
        if !error.blames_policy() {
            if matches!(error, CallError::Refused(_)) {
                self.well();
            }
            return None;
        }
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        (failures >= bound && !self.aside.swap(true, Relaxed)).then_some(failures)
    }
}
