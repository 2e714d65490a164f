//! What came out.

use std::{collections::BTreeMap, sync::Arc};

use crate::policy::Policy;
use serde::Serialize;

use super::{trace::Trace, world::Rules};

/// Points of a curve: the least, each hundredth part, and the most.
pub(super) const POINTS: u64 = 100;

/// A distribution.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// How many values there are.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The value that half of them do not exceed.
    pub p50: u64,
    /// The value that nine tenths do not exceed.
    pub p90: u64,
    /// The value that 99 of a hundred do not exceed.
    pub p99: u64,
    /// The least, each hundredth part, and the most: 101 values, or none.
    pub curve: Vec<u64>,
}

impl Spread {
    /// Of values in any order.
    pub fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let Some(last) = values.len().checked_sub(1).map(|last| last as u64) else { return Self::default() };
        // The nearest rank: of 100 values the 99th is the p99.
        let at = |hundredths: u64| {
            let rank = (values.len() as u64 * hundredths).div_ceil(POINTS).saturating_sub(1).min(last);
            usize::try_from(rank).ok().and_then(|rank| values.get(rank)).copied().unwrap_or(0)
        };
        let sum: u128 = values.iter().map(|value| u128::from(*value)).sum();
        Self {
            count: values.len() as u64,
            mean: rounded(sum as f64 / values.len() as f64),
            p50: at(50),
            p90: at(90),
            p99: at(99),
            curve: (0..=POINTS).map(at).collect(),
        }
    }
}

/// Four digits after the point.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// How machines were used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Load {
    /// Share of the slots that were used while the machine was there and jobs were asked for, in millionths, of each
    /// machine that has models.
    pub utilisation: Spread,
    /// Gini coefficient of that: 0 where all are used the same.
    pub gini: f64,
    /// The most used machine in relation to the mean.
    pub max_over_mean: f64,
    /// Share of the prompts' tokens that were in a cache, in millionths.
    pub reused: u64,
}

/// What jobs cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Micro-credits paid for a job that was answered; nothing is counted where no pricing policy decides.
    pub paid: Spread,
    /// What the computed tokens of such a job take on the reference machine, in micro-credits: less where a cache
    /// helps, more where machines fail.
    pub work: Spread,
    /// Jobs that cost more than the one who asked would pay.
    pub beyond_limit: u64,
}

/// Who has it better.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Fairness {
    /// How many times longer a job took than alone on the fastest machine that has the model, in thousandths.
    pub slowdown: Spread,
    /// The mean of that for each machine that asked for at least five jobs that were answered, in thousandths.
    pub askers: Spread,
    /// Jain's index of these means: 1 where all wait alike.
    pub askers_jain: f64,
    /// Jain's index of what machines earned in relation to what they are able to do: 1 where all are used alike.
    pub providers_jain: f64,
}

/// How jobs ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Jobs asked for.
    pub jobs: u64,
    /// Jobs that were answered.
    pub done: u64,
    /// Jobs that were not, by why.
    pub failed: BTreeMap<&'static str, u64>,
    /// Requests that were sent to machines.
    pub tries: u64,
    /// Those of them that a machine refused because it had too much to do.
    pub refused: u64,
    /// Those of them that broke.
    pub broken: u64,
    /// Times that somebody waited a second because all machines were full.
    pub waits: u64,
    /// Jobs that were begun by one machine and ended by another.
    pub resumed: u64,
    /// Decisions.
    pub decisions: u64,
    /// Decisions that the policy refused in words; the native order was used.
    pub refusals: u64,
    /// Decisions that the policy failed to give; the native order was used.
    pub failures: u64,
    /// Price lists that the pricing policy refused or failed to give.
    pub unpriced: u64,
}

impl Totals {
    /// Jobs that were not answered.
    pub fn lost(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// What came out for one contestant.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// What it is called.
    pub name: String,
    /// The hash of the component; `None`: an order that is built in.
    pub hash: Option<String>,
    /// How jobs ended.
    pub totals: Totals,
    /// Microseconds to the first token, of jobs that were answered.
    pub first: Spread,
    /// Microseconds to the end of the answer, of jobs that were answered.
    pub whole: Spread,
    /// How machines were used.
    pub load: Load,
    /// What jobs cost.
    pub cost: Cost,
    /// Who has it better.
    pub fairness: Fairness,
    /// When the last job ended, in microseconds.
    pub ended_us: u64,
}

/// Everything that came out. Depends on the trace, the rules and the components, and on nothing else.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was simulated, for people.
    pub note: String,
    /// Models, machines and jobs.
    pub models: u64,
    /// Machines; not all of them have models.
    pub machines: u64,
    /// Jobs.
    pub jobs: u64,
    /// When the last job was asked for, in microseconds.
    pub span_us: u64,
    /// The rules.
    pub rules: Rules,
    /// The pricing policy by name and hash.
    pub pricing: Option<[String; 2]>,
    /// What came out for each contestant, the first being what the others are compared with.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    pub(super) fn new(
        trace: &Trace,
        rules: &Rules,
        pricing: Option<&Arc<Policy>>,
        outcomes: Vec<Outcome>,
    ) -> Self {
        Self {
            note: trace.head.note.clone(),
            models: trace.models.len() as u64,
            machines: trace.machines.len() as u64,
            jobs: trace.jobs.len() as u64,
            span_us: trace.span(),
            rules: rules.clone(),
            pricing: pricing.map(|policy| [policy.describe().name.clone(), policy.hash().to_string()]),
            outcomes,
        }
    }

    /// The names of [`Self::rows`].
    pub const HEAD: [&'static str; 13] = [
        "ORDER",
        "FIRST p50",
        "p90",
        "p99",
        "WHOLE p50",
        "p90",
        "p99",
        "GINI",
        "MAX/MEAN",
        "COST",
        "JAIN ASK",
        "JAIN GIVE",
        "LOST",
    ];

    /// The outcome as a table: times in seconds, the mean cost in micro-credits (paid, or else the work).
    pub fn rows(&self) -> Vec<[String; 13]> {
        let seconds = |micros: u64| format!("{:.2}", micros as f64 / 1e6);
        let row = |it: &Outcome| {
            [
                it.name.clone(),
                seconds(it.first.p50),
                seconds(it.first.p90),
                seconds(it.first.p99),
                seconds(it.whole.p50),
                seconds(it.whole.p90),
                seconds(it.whole.p99),
                format!("{:.3}", it.load.gini),
                format!("{:.1}", it.load.max_over_mean),
                format!("{:.0}", self.cost(it).mean),
                format!("{:.3}", it.fairness.askers_jain),
                format!("{:.3}", it.fairness.providers_jain),
                it.totals.lost().to_string(),
            ]
        };
        self.outcomes.iter().map(row).collect()
    }

    /// What was paid, or the work where no pricing policy decides.
    pub(super) const fn cost<'a>(&self, outcome: &'a Outcome) -> &'a Spread {
        if self.pricing.is_some() { &outcome.cost.paid } else { &outcome.cost.work }
    }
}

/// What deciding cost on the machine that simulated: another machine, or another run, gives other numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Which contestant.
    pub name: String,
    /// Decisions.
    pub decisions: u64,
    /// Candidates of one decision, on average.
    pub candidates: f64,
    /// Decisions per second of one thread, the time of the policy's calls alone.
    pub decisions_per_second: f64,
    /// Microseconds of one decision, on average.
    pub mean_micros: f64,
    /// Fuel of one decision, on average; 0 for an order that is built in.
    pub mean_fuel: u64,
    /// The most fuel that one took.
    pub most_fuel: u64,
}

impl Measured {
    /// The names of [`Self::row`].
    pub const HEAD: [&'static str; 7] =
        ["ORDER", "DECISIONS", "CANDIDATES", "PER SECOND", "MICROSECONDS", "FUEL", "MOST FUEL"];

    /// The numbers as a row of a table.
    pub fn row(&self) -> [String; 7] {
        [
            self.name.clone(),
            self.decisions.to_string(),
            format!("{:.1}", self.candidates),
            format!("{:.0}", self.decisions_per_second),
            format!("{:.1}", self.mean_micros),
            self.mean_fuel.to_string(),
            self.most_fuel.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let spread = Spread::of((1..=100).rev().collect());
        assert_eq!((spread.p50, spread.p90, spread.p99, spread.mean), (50, 90, 99, 50.5));
        assert_eq!((spread.curve.len(), spread.curve[0], spread.curve[100]), (101, 1, 100));
        let one = Spread::of(vec![7]);
        assert_eq!((one.p50, one.p99, one.curve[0]), (7, 7, 7));
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
