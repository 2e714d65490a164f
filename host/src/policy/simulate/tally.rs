//! From what happened to each job to what came out.

use super::{
    Cost, Fairness, Load, Outcome, Spread, Totals, gini, jain,
    job::alone,
    number::whole,
    report::rounded,
    trace::{Machine, Trace},
};

/// Why a job was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No machine that the asker knows of can serve it.
    Nobody,
    /// The order has nobody in it.
    LeftOut,
    /// All were full for too long.
    Full,
    /// Every machine that was tried failed.
    Tries,
}

impl Failure {
    const fn word(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::LeftOut => "left_out",
            Self::Full => "full",
            Self::Tries => "tries",
        }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    Failed(Failure),
}

/// What is known of a job at its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) at: u64,
    pub(super) fate: Fate,
    pub(super) first: u64,
    pub(super) paid: u64,
    pub(super) work: u64,
    pub(super) resumed: bool,
}

/// What is counted while the simulation runs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) totals: Totals,
    pub(super) ends: Vec<Option<End>>,
    /// What each machine earned, in micro-credits.
    pub(super) earned: Vec<u64>,
    /// Tokens of prompts that were begun, and those that were computed.
    pub(super) prompts: u64,
    pub(super) computed: u64,
}

impl Tally {
    pub(super) fn new(trace: &Trace) -> Self {
        let (ends, earned) = (vec![None; trace.jobs.len()], vec![0; trace.machines.len()]);
        Self { ends, earned, ..Self::default() }
    }

    /// What came out; `busy` is the time that each machine's slots were used.
    pub(super) fn outcome(self, trace: &Trace, busy: &[u64]) -> Outcome {
        let mut totals = self.totals.clone();
        let ends: Vec<_> =
            trace.jobs.iter().zip(&self.ends).filter_map(|(job, end)| Some((job, (*end)?))).collect();
        totals.jobs = trace.jobs.len() as u64;
        for (_, end) in &ends {
            match end.fate {
                Fate::Done => totals.done += 1,
                Fate::Failed(why) => *totals.failed.entry(why.word()).or_default() += 1,
            }
            totals.resumed += u64::from(end.resumed && end.fate == Fate::Done);
        }
        let ended_us = ends.iter().map(|(_, end)| end.at).max().unwrap_or(0);
        let done: Vec<_> = ends.into_iter().filter(|(_, end)| end.fate == Fate::Done).collect();
        let beyond =
            |(job, end): &&(&super::TracedJob, End)| job.max_price.is_some_and(|most| end.paid > most);
        Outcome {
            totals,
            first: Spread::of(done.iter().map(|(job, end)| end.first.saturating_sub(job.at_us)).collect()),
            whole: Spread::of(done.iter().map(|(job, end)| end.at.saturating_sub(job.at_us)).collect()),
            load: self.load(trace, busy),
            cost: Cost {
                paid: Spread::of(done.iter().map(|(_, end)| end.paid).collect()),
                work: Spread::of(done.iter().map(|(_, end)| end.work).collect()),
                beyond_limit: done.iter().filter(beyond).count() as u64,
            },
            fairness: self.fairness(trace, &done),
            ended_us,
            ..Outcome::default()
        }
    }

    fn load(&self, trace: &Trace, busy: &[u64]) -> Load {
        let serving = trace.machines.iter().zip(busy).filter(|(machine, _)| !machine.models.is_empty());
        let used: Vec<f64> = serving
            .map(|(machine, busy)| {
                let there = present(machine, trace.span()).saturating_mul(machine.slots.into());
                *busy as f64 / there.max(1) as f64
            })
            .collect();
        let mean = used.iter().sum::<f64>() / used.len().max(1) as f64;
        let most = used.iter().copied().fold(0.0, f64::max);
        let saved = self.prompts.saturating_sub(self.computed) as f64 / self.prompts.max(1) as f64;
        Load {
            utilisation: Spread::of(used.iter().map(|share| whole(share * 1e6)).collect()),
            gini: rounded(gini(&used)),
            max_over_mean: if mean > 0.0 { rounded(most / mean) } else { 0.0 },
            reused: whole(saved * 1e6),
        }
    }

    fn fairness(&self, trace: &Trace, done: &[(&super::TracedJob, End)]) -> Fairness {
        let mut askers = vec![(0_u64, 0_u64); trace.machines.len()];
        let mut slowdowns = Vec::with_capacity(done.len());
        let fastest = fastest(trace);
        for (job, end) in done {
            let (Some(Some(machine)), Some(model)) =
                (fastest.get(job.model as usize), trace.models.get(job.model as usize))
            else {
                continue;
            };
            let took = end.at.saturating_sub(job.at_us);
            let slowdown = took.saturating_mul(1000) / alone(job, machine, model).max(1);
            slowdowns.push(slowdown);
            if let Some((sum, count)) = askers.get_mut(job.from as usize) {
                (*sum, *count) = (sum.saturating_add(slowdown), *count + 1);
            }
        }
        let means: Vec<u64> =
            askers.iter().filter(|(_, count)| *count >= 5).map(|(sum, count)| sum / count).collect();
        let able = trace.machines.iter().zip(&self.earned).filter(|(machine, _)| !machine.models.is_empty());
        let rewards: Vec<f64> = able
            .map(|(machine, earned)| {
                *earned as f64 / (ability(machine) * present(machine, trace.span()).max(1) as f64)
            })
            .collect();
        Fairness {
            slowdown: Spread::of(slowdowns),
            askers_jain: rounded(jain(&means.iter().map(|mean| *mean as f64).collect::<Vec<_>>())),
            askers: Spread::of(means),
            providers_jain: rounded(jain(&rewards)),
        }
    }
}

/// The machine on which each model answers fastest.
fn fastest(trace: &Trace) -> Vec<Option<&Machine>> {
    let of = |model: u32| {
        let holders = trace.machines.iter().filter(|machine| machine.models.contains(&model));
        holders.max_by_key(|machine| (machine.decode, machine.prefill))
    };
    (0..).take(trace.models.len()).map(of).collect()
}

/// Microseconds that a machine was there before a moment.
fn present(machine: &Machine, until: u64) -> u64 {
    let away: u64 = machine.away.iter().map(|[from, to]| (*to).min(until).saturating_sub(*from)).sum();
    until.saturating_sub(away)
}

/// What a machine can do with all slots in use, in thousandths of an answer's tokens per second.
fn ability(machine: &Machine) -> f64 {
    let slots = f64::from(machine.slots);
    machine.decode as f64 * slots / (1.0 + f64::from(machine.crowding) / 1e6 * (slots - 1.0))
}
