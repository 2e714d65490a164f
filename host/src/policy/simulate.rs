//! A pool that exists only in numbers: the same jobs, on the same machines, with the same bad luck, once for each way
//! of choosing machines, so that a proposal can be judged before a vote.
//!
//! A [`Trace`] says what happens: who asks for what and when, and which machines there are and when they are away. It
//! is recorded, or made up by a [`Scenario`] from a seed. [`simulate`] replays it for each [`Contestant`] in virtual
//! time and gives a [`Report`], which can be printed, drawn and stored. Nothing in a report depends on a clock or on
//! the machine that computed it: the same trace, rules and components give the same bytes. What does depend on the
//! machine, decisions per second and fuel, is kept apart in [`Measured`].

mod event;
mod fairness;
mod generate;
mod job;
mod known;
mod number;
mod picture;
mod prices;
mod report;
mod router;
mod server;
mod tally;
#[cfg(test)]
mod tests;
mod trace;
mod view;
mod world;

pub use fairness::{gini, jain};
pub use generate::Scenario;
pub use picture::picture;
pub use report::{Cost, Fairness, Load, Measured, Outcome, Report, Spread, Totals};
pub use router::{Contestant, Order};
pub use trace::{
    Job as TracedJob, MAX_JOBS, MAX_LINE, MAX_MODELS, MAX_PEERS, Machine, Model, Trace, TraceError, TraceHead,
};
pub use world::{Progress, Rules};

use std::sync::Arc;

use crate::policy::{Kind, Policy};

/// Most ways of choosing machines in one run.
pub const MAX_CONTESTANTS: usize = 12;

/// Why there is no simulation.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The trace cannot be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A policy of another kind.
    #[error("`{name}` is a {kind} policy, and {wanted} is to be simulated; give it a {wanted} policy")]
    Kind {
        /// What it calls itself.
        name: String,
        /// What it decides.
        kind: Kind,
        /// What is needed.
        wanted: Kind,
    },
    /// Nothing to compare, or too much.
    #[error("{0} ways of choosing machines cannot be simulated at once; give 1 to {MAX_CONTESTANTS}")]
    Contestants(usize),
    /// A rule that cannot be.
    #[error("the simulation cannot run, since {0}; correct it")]
    Rule(&'static str),
    /// Whoever asked for it does not want it any more.
    #[error("the simulation was stopped before its end; nothing was written")]
    Stopped,
}

/// Replays a trace for each contestant, the first being what the others are compared with.
///
/// Each contestant meets exactly the same jobs, machines, absences and failures. `progress` is called about once for
/// each hundredth of the work; when it returns `false` the simulation stops.
///
/// # Errors
/// [`SimulateError`]: a trace or rules that cannot be used, a policy of the wrong kind, or it was stopped.
pub fn simulate(
    trace: &Trace,
    contestants: &[Contestant],
    pricing: Option<&Arc<Policy>>,
    rules: &Rules,
    progress: &mut dyn FnMut(Progress<'_>) -> bool,
) -> Result<(Report, Vec<Measured>), SimulateError> {
    if contestants.is_empty() || contestants.len() > MAX_CONTESTANTS {
        return Err(SimulateError::Contestants(contestants.len()));
    }
    trace.check()?;
    rules.check()?;
    for contestant in contestants {
        contestant.check()?;
    }
    if let Some(policy) = pricing.filter(|policy| policy.kind() != Kind::Pricing) {
        let (name, kind) = (policy.describe().name.clone(), policy.kind());
        return Err(SimulateError::Kind { name, kind, wanted: Kind::Pricing });
    }
    let mut outcomes = Vec::new();
    let mut measured = Vec::new();
    for (place, contestant) in contestants.iter().enumerate() {
        let world = world::World::new(trace, contestant, pricing, rules);
        let mut told = |done| {
            let (of, name) = (contestants.len(), contestant.name.as_str());
            progress(Progress { name, place, of, done, jobs: trace.jobs.len() })
        };
        let (outcome, cost) = world.run(&mut told).ok_or(SimulateError::Stopped)?;
        outcomes.push(outcome);
        measured.push(cost);
    }
    Ok((Report::new(trace, rules, pricing, outcomes), measured))
}
