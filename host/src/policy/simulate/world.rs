//! The simulation itself: what happens, in the order in which it happens.

mod ask;
mod hear;

use std::{collections::HashMap, rc::Rc, sync::Arc};

use crate::policy::{MAX_CANDIDATES, Policy, types::Price};
use serde::Serialize;

use super::{
    Contestant, Measured, Outcome, SimulateError,
    event::{Event, Events, News, Try},
    known::Known,
    number::mix_all,
    prices::Prices,
    router::Router,
    server::Server,
    tally::{End, Failure, Fate, Tally},
    trace::{Job, Machine, Trace},
    view::{Pair, Views},
};

/// The rules that all nodes of a simulation keep to; the default is what a node does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// Makes everything random that is not in the trace: what fails, who knows whom, and the policies' own seeds.
    pub seed: u64,
    /// Microseconds between two reports of a machine.
    pub report_us: u64,
    /// For how long a report holds, in microseconds.
    pub valid_us: u64,
    /// Machines with a model that one machine knows of, its own included. At most 1,024.
    pub candidates: usize,
    /// Machines that are tried for one job.
    pub tries: u32,
    /// Jobs that one machine gives another at the same time.
    pub in_flight: u32,
    /// Jobs that wait at a machine for each of its slots before it refuses more.
    pub queue_per_slot: u32,
    /// Time for a machine's first word, in microseconds, beside the way.
    pub first_us: u64,
    /// Silence after which a machine counts as gone, in microseconds.
    pub deadline_us: u64,
    /// When all machines are full, a job is asked for again after this time, in microseconds.
    pub again_us: u64,
    /// And given up after this time.
    pub patience_us: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            seed: 1,
            report_us: 2_000_000,
            valid_us: 10_000_000,
            candidates: 64,
            tries: 6,
            in_flight: 8,
            queue_per_slot: 4,
            first_us: 2_000_000,
            deadline_us: 700_000,
            again_us: 1_000_000,
            patience_us: 120_000_000,
        }
    }
}

impl Rules {
    pub(super) fn check(&self) -> Result<(), SimulateError> {
        const DAY: u64 = 86_400_000_000;
        let times =
            [self.report_us, self.valid_us, self.first_us, self.deadline_us, self.again_us, self.patience_us];
        let rules = [
            (self.candidates == 0 || self.candidates > MAX_CANDIDATES, "candidates must be 1 to 1024"),
            (self.tries == 0 || self.tries > 1000, "tries must be 1 to 1000"),
            (self.in_flight == 0, "in_flight must not be 0"),
            (self.report_us == 0 || self.again_us < 1000, "reports and repetitions need time between them"),
            (times.iter().any(|time| *time > DAY), "its times must not be longer than a day"),
        ];
        rules.iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, why)| Err(SimulateError::Rule(why)))
    }
}

/// How far a simulation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Which contestant.
    pub name: &'a str,
    /// Its place, from 0.
    pub place: usize,
    /// How many there are.
    pub of: usize,
    /// Jobs that have ended.
    pub done: usize,
    /// Jobs that there are.
    pub jobs: usize,
}

/// A job on its way.
#[derive(Clone, Debug, Default)]
struct Run {
    /// Requests that were sent for it; the last one is the one that counts.
    sent: u32,
    /// Machines tried since it was last put off.
    tried: Vec<u32>,
    /// Questions asked about it, so that each has another seed.
    asked: u64,
    machine: Option<u32>,
    sent_at: u64,
    /// First token of this try, and of all.
    first_here: Option<u64>,
    first: Option<u64>,
    /// Tokens of the answer that came from machines that are gone.
    made: u32,
    /// Whether a machine has counted the prompt's tokens.
    counted: bool,
    /// Whether a machine had too much to do.
    full: bool,
    price: Option<Price>,
    paid: u64,
    work: u64,
}

/// Everything, at one moment.
pub(super) struct World<'a> {
    trace: &'a Trace,
    rules: &'a Rules,
    now: u64,
    events: Events,
    servers: Vec<Server<'a>>,
    runs: Vec<Run>,
    views: Views,
    known: Vec<Known>,
    /// Machines with each model.
    holders: Vec<Vec<u32>>,
    /// Those of them that an asker knows of.
    members: HashMap<(u32, u32), Rc<[u32]>>,
    prices: Prices<'a>,
    router: Router<'a>,
    tally: Tally,
    heard: Vec<(Try, News)>,
    hash: Option<String>,
    name: &'a str,
    ended: usize,
}

impl<'a> World<'a> {
    pub(super) fn new(
        trace: &'a Trace,
        contestant: &'a Contestant,
        pricing: Option<&'a Arc<Policy>>,
        rules: &'a Rules,
    ) -> Self {
        let servers = (0..).zip(&trace.machines).map(|(number, it)| Server::new(trace, it, number, rules));
        let mut holders = vec![Vec::new(); trace.models.len()];
        for (number, machine) in (0..).zip(&trace.machines) {
            for model in &machine.models {
                if let Some(holders) = holders.get_mut(*model as usize) {
                    holders.push(number);
                }
            }
        }
        Self {
            trace,
            rules,
            now: 0,
            events: Events::default(),
            servers: servers.collect(),
            runs: vec![Run::default(); trace.jobs.len()],
            views: Views::default(),
            known: trace.machines.iter().map(|_| Known::default()).collect(),
            holders,
            members: HashMap::new(),
            prices: Prices::new(pricing, trace.models.len()),
            router: Router::new(contestant),
            tally: Tally::new(trace),
            heard: Vec::new(),
            hash: contestant.hash(),
            name: &contestant.name,
            ended: 0,
        }
    }

    /// Runs to the end; `None`: it was stopped.
    pub(super) fn run(mut self, progress: &mut dyn FnMut(usize) -> bool) -> Option<(Outcome, Measured)> {
        for (number, machine) in (0..).zip(&self.trace.machines) {
            for [from, to] in &machine.away {
                self.events.plan(*from, Event::Away(number));
                self.events.plan(*to, Event::Back(number));
            }
        }
        self.plan_job(0);
        let jobs = self.trace.jobs.len();
        let (mut told, step) = (0, (jobs / 100).max(1));
        while let Some((at, event)) = self.events.next() {
            self.now = at;
            self.happens(event);
            if self.ended == jobs {
                break;
            }
            if self.ended >= told {
                told = self.ended + step;
                if !progress(self.ended) {
                    return None;
                }
            }
        }
        progress(self.ended).then(|| self.finish())
    }

    fn finish(mut self) -> (Outcome, Measured) {
        let busy: Vec<u64> = self.servers.iter().map(Server::busy).collect();
        let totals = &mut self.tally.totals;
        totals.decisions = self.router.decisions;
        (totals.refusals, totals.failures) = (self.router.refused, self.router.failed);
        totals.unpriced = self.prices.refused + self.prices.failed;
        let measured = self.router.measured();
        let outcome = self.tally.outcome(self.trace, &busy);
        (Outcome { name: self.name.to_owned(), hash: self.hash, ..outcome }, measured)
    }

    fn happens(&mut self, event: Event) -> Option<()> {
        match event {
            Event::Back(machine) => self.servers.get_mut(machine as usize)?.come_back(self.now),
            Event::Away(machine) => {
                self.servers.get_mut(machine as usize)?.leave(self.now, &mut self.heard);
                self.tell(machine, self.rules.deadline_us)?;
            }
            Event::Step { machine, version } => {
                let server = self.servers.get_mut(machine as usize)?;
                if server.is_up() && server.version() == version {
                    server.step(self.now, &mut self.heard);
                    self.tell(machine, 0)?;
                    self.plan_step(machine)?;
                }
            }
            Event::Ask { job } => {
                if self.runs.get(job as usize)?.asked == 0 {
                    self.plan_job(job + 1);
                }
                self.ask(job)?;
            }
            Event::Request { try_, machine } => {
                let run = self.runs.get(try_.job as usize)?;
                let server = self.servers.get_mut(machine as usize)?;
                if server.is_up() {
                    server.take(try_, run.made, self.now, &mut self.heard)?;
                    self.tell(machine, 0)?;
                    self.plan_step(machine)?;
                } else {
                    self.heard.push((try_, News::Silence { made: run.made }));
                    self.tell(machine, self.rules.first_us)?;
                }
            }
            Event::Heard { try_, news } => self.hear(try_, news)?,
        }
        Some(())
    }

    fn plan_job(&mut self, job: u32) {
        if let Some(next) = self.trace.jobs.get(job as usize) {
            self.events.plan(next.at_us, Event::Ask { job });
        }
    }

    fn plan_step(&mut self, machine: u32) -> Option<()> {
        let (at, version) = self.servers.get(machine as usize)?.due()?;
        self.events.plan(at, Event::Step { machine, version });
        Some(())
    }

    /// News travel from a machine to those who ask, and are heard after `later` more microseconds.
    fn tell(&mut self, machine: u32, later: u64) -> Option<()> {
        for (try_, news) in std::mem::take(&mut self.heard) {
            let asker = self.trace.jobs.get(try_.job as usize)?.from;
            let at = self.now + self.round_trip(asker, machine) / 2 + later;
            self.events.plan(at, Event::Heard { try_, news });
        }
        Some(())
    }

    /// Microseconds to a machine and back.
    fn round_trip(&self, from: u32, to: u32) -> u64 {
        let find = |number: u32| self.trace.machines.get(number as usize);
        match (find(from), find(to)) {
            (Some(a), Some(b)) if from != to => distance(a, b),
            _ => 0,
        }
    }

    fn pair(&self, job: u32, machine: u32) -> Option<Pair> {
        let job = self.trace.jobs.get(job as usize)?;
        Some(Pair { asker: job.from, machine, model: job.model })
    }

    fn end(&mut self, job: u32, fate: Fate) -> Option<()> {
        let run = self.runs.get_mut(job as usize)?;
        let (at, first) = (self.now, run.first.unwrap_or(self.now));
        let (paid, work, resumed) = (run.paid, run.work, run.made > 0);
        *run = Run { asked: run.asked, sent: run.sent, ..Run::default() };
        let end = self.tally.ends.get_mut(job as usize)?;
        if end.is_none() {
            self.ended += 1;
        }
        *end = Some(End { at, fate, first, paid, work, resumed });
        Some(())
    }

    fn fail(&mut self, job: u32, why: Failure) -> Option<()> {
        self.end(job, Fate::Failed(why))
    }

    /// All machines are full: the job is asked for again in a while, or given up.
    fn put_off(&mut self, number: u32, job: &Job) -> Option<()> {
        if self.now >= job.at_us.saturating_add(self.rules.patience_us) {
            return self.fail(number, Failure::Full);
        }
        let run = self.runs.get_mut(number as usize)?;
        run.tried.clear();
        run.full = false;
        self.tally.totals.waits += 1;
        self.events.plan(self.now + self.rules.again_us, Event::Ask { job: number });
        Some(())
    }

    /// The machines with a model that an asker knows of: its own, and others by lot, always the same.
    fn members(&mut self, asker: u32, model: u32) -> Rc<[u32]> {
        if let Some(found) = self.members.get(&(asker, model)) {
            return found.clone();
        }
        let mut all = self.holders.get(model as usize).cloned().unwrap_or_default();
        if all.len() > self.rules.candidates {
            let lot = |it: &u32| {
                let number = mix_all(&[self.rules.seed, 3, asker.into(), (*it).into()]);
                (*it != asker, number)
            };
            all.sort_by_cached_key(lot);
            all.truncate(self.rules.candidates);
            all.sort_unstable();
        }
        let all: Rc<[u32]> = all.into();
        self.members.insert((asker, model), all.clone());
        all
    }
}

/// Microseconds from one machine to another and back.
pub(super) fn distance(a: &Machine, b: &Machine) -> u64 {
    let ([ax, ay], [bx, by]) = (a.place, b.place);
    let (x, y) = (f64::from(ax.abs_diff(bx)), f64::from(ay.abs_diff(by)));
    let way = super::number::whole((x * x + y * y).sqrt());
    // Through a third machine the way is longer, by half as a rule.
    let way = if a.walled && b.walled { way + way / 2 + 20_000 } else { way };
    way + u64::from(a.access_us) + u64::from(b.access_us)
}
