use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::Serialize;
use wasmtime::Store;

use super::{
    Abi, CallError, Decided, Engine, Kind, PolicyHash,
    abi::{Guest, Program},
    call::{check_input, check_job_and_candidates, check_output, check_ranking},
    engine::limits::Limits,
    golden::Tried,
    types::{
        Candidate, Description, Evidence, Hardware, Input, Job, Market, Output, Price, Ranking, Verdict,
    },
    warm::Warm,
};

/// What was found out about a component while it was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Functions in it.
    pub functions: u32,
    /// Bytes of memory it starts with.
    pub memory: u64,
    /// Microseconds that compiling took, or reading what was compiled before.
    pub compile_micros: u64,
    /// Whether compiled code was found in the cache.
    pub cached: bool,
    /// The vectors it answered, the host's and its own.
    pub vectors: Vec<Tried>,
    /// Most fuel that one vector took.
    pub most_fuel: u64,
    /// Whether an instance that has answered before answers as a new one does. If not, each call gets a new one.
    pub keeps_nothing: bool,
}

/// A policy that was checked, compiled and tried: it can decide. Shared by all who use it.
pub struct Policy {
    engine: Engine,
    program: Program,
    hash: PolicyHash,
    size: usize,
    warm: Warm,
    pub(super) label: Description,
    pub(super) report: CheckReport,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("kind", &self.kind())
            .field("hash", &self.hash)
            .field("name", &self.label.name)
            .finish_non_exhaustive()
    }
}

/// An order of candidates, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// The order. Within all bounds.
    pub ranking: Ranking,
    /// Fuel used.
    pub fuel: u64,
    /// How long it took.
    pub took: Duration,
    /// Whether an instance was used that had answered before.
    pub warm: bool,
}

impl Policy {
    pub(super) fn new(engine: &Engine, program: Program, hash: PolicyHash, size: usize) -> Self {
        Self {
            engine: engine.clone(),
            program,
            hash,
            size,
            warm: Warm::default(),
            label: Description::default(),
            report: CheckReport::default(),
        }
    }

    /// What it decides.
    pub fn kind(&self) -> Kind {
        self.program.kind()
    }

    /// Its name for machines.
    pub const fn hash(&self) -> PolicyHash {
        self.hash
    }

    /// The version of the interface it speaks.
    pub const fn abi(&self) -> Abi {
        self.program.abi()
    }

    /// What it says of itself.
    pub const fn describe(&self) -> &Description {
        &self.label
    }

    /// Bytes of its component.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// What was found out while it was loaded.
    pub const fn report(&self) -> &CheckReport {
        &self.report
    }

    /// Whether instances may answer more than once. Switched off for good when one has answered otherwise than a new
    /// one.
    pub fn keeps_warm(&self) -> bool {
        self.report.keeps_nothing && self.warm.is_on()
    }

    /// Decides in a fresh instance. Only this way of asking is used where others must come to the same answer.
    ///
    /// # Errors
    /// [`CallError`]; a refusal of the policy in words is no error but an output.
    pub fn decide(&self, input: &Input) -> Result<Decided, CallError> {
        if input.kind() != self.kind() {
            return Err(CallError::WrongKind { policy: self.kind(), asked: input.kind() });
        }
        check_input(input).map_err(CallError::Question)?;
        let (output, fuel, took) = self.fresh(|guest, store| guest.decide(store, input))?;
        check_output(input, &output).map_err(CallError::Answer)?;
        Ok(Decided { output, fuel, took })
    }

    /// Orders candidates. May use an instance that has answered before.
    ///
    /// # Errors
    /// [`CallError`], a refusal in words included.
    pub fn rank(
        &self,
        job: &Job,
        candidates: &[Candidate],
        now: u64,
        seed: u64,
    ) -> Result<Ranking, CallError> {
        self.rank_counted(job, candidates, now, seed).map(|ranked| ranked.ranking)
    }

    /// Orders candidates as [`Self::rank`] does, and says what it cost.
    ///
    /// # Errors
    /// [`CallError`], a refusal in words included.
    pub fn rank_counted(
        &self,
        job: &Job,
        candidates: &[Candidate],
        now: u64,
        seed: u64,
    ) -> Result<Ranked, CallError> {
        if self.kind() != Kind::Routing {
            return Err(CallError::WrongKind { policy: self.kind(), asked: Kind::Routing });
        }
        check_job_and_candidates(job, candidates).map_err(CallError::Question)?;
        let ask = |guest: &Guest, store: &mut Store<Limits>| guest.rank(store, job, candidates, now, seed);
        let check = |answer: &Answer| match answer {
            Ok(ranking) => check_ranking(candidates.len(), ranking).map_err(CallError::Answer),
            Err(words) => super::call::check_refusal(words).map_err(CallError::Answer),
        };
        if self.keeps_warm()
            && let Some(ranked) = self.rank_warm(&ask, &check)
        {
            return ranked;
        }
        let (answer, fuel, took) = self.fresh(ask)?;
        check(&answer)?;
        ranked(answer, fuel, took, false)
    }

    /// `None`: no warm instance is free, or it failed. A fresh one has the last word then: what went wrong may lie in
    /// what earlier calls left behind.
    fn rank_warm(
        &self,
        ask: &impl Fn(&Guest, &mut Store<Limits>) -> wasmtime::Result<Option<Answer>>,
        check: &impl Fn(&Answer) -> Result<(), CallError>,
    ) -> Option<Result<Ranked, CallError>> {
        let start = Instant::now();
        let (answer, fuel) = self.warm.ask(&self.engine, &self.program, ask, check)?;
        let took = start.elapsed();
        if self.warm.is_due(self.engine.config().compare_every) {
            let fresh = self.fresh(ask).ok()?;
            if fresh.0 != answer {
                tracing::warn!(policy = %self.hash, "a policy answered otherwise after earlier calls; each call gets a new instance from now on");
                self.warm.switch_off();
                return None;
            }
        }
        Some(ranked(answer, fuel, took, true))
    }

    /// Asks for the price of a job on one machine.
    ///
    /// # Errors
    /// [`CallError`], a refusal in words included.
    pub fn quote(
        &self,
        job: &Job,
        hardware: &Hardware,
        market: &Market,
        now: u64,
    ) -> Result<Price, CallError> {
        let (job, hardware, market) = (job.clone(), hardware.clone(), market.clone());
        match self.decide(&Input::Pricing { job, hardware, market, now })?.output {
            Output::Pricing(Ok(price)) => Ok(price),
            other => Err(self.no_answer(&other, Kind::Pricing)),
        }
    }

    /// Asks for the verdict in one case.
    ///
    /// # Errors
    /// [`CallError`], a refusal in words included.
    pub fn judge(&self, evidence: &Evidence, now: u64) -> Result<Verdict, CallError> {
        match self.decide(&Input::Slashing { evidence: evidence.clone(), now })?.output {
            Output::Slashing(Ok(verdict)) => Ok(verdict),
            other => Err(self.no_answer(&other, Kind::Slashing)),
        }
    }

    fn no_answer(&self, output: &Output, asked: Kind) -> CallError {
        match output.refusal() {
            Some(words) => CallError::Refused(words.to_owned()),
            None => CallError::WrongKind { policy: self.kind(), asked },
        }
    }

    pub(super) fn fresh_label(&self) -> Result<Description, CallError> {
        Ok(self.fresh(|guest, store| guest.describe(store).map(Some))?.0)
    }

    /// One instance that answers all inputs, one after the other.
    pub(super) fn one_after_the_other(&self, inputs: &[&Input]) -> Result<Vec<Output>, CallError> {
        let _place = self.engine.place()?;
        let mut store = self.engine.store()?;
        let guest = self.program.instantiate(&mut store).map_err(|error| self.engine.explain(&error))?;
        let mut outputs = Vec::with_capacity(inputs.len());
        for input in inputs {
            self.engine.refill(&mut store)?;
            let output = guest.decide(&mut store, input).map_err(|error| self.engine.explain(&error))?;
            outputs.push(output.ok_or(CallError::WrongKind { policy: self.kind(), asked: input.kind() })?);
        }
        Ok(outputs)
    }

    /// Makes an instance, calls it once and drops it.
    fn fresh<T>(
        &self,
        call: impl FnOnce(&Guest, &mut Store<Limits>) -> wasmtime::Result<Option<T>>,
    ) -> Result<(T, u64, Duration), CallError> {
        let start = Instant::now();
        let _place = self.engine.place()?;
        let mut store = self.engine.store()?;
        let answer = self.program.instantiate(&mut store).and_then(|guest| call(&guest, &mut store));
        let answer = answer.map_err(|error| self.engine.explain(&error))?;
        let fuel = self.engine.burnt(&store);
        drop(store);
        let answer =
            answer.ok_or_else(|| CallError::Malformed("it answers another kind of question".to_owned()))?;
        Ok((answer, fuel, start.elapsed()))
    }
}

pub(super) type Answer = Result<Ranking, String>;

fn ranked(answer: Answer, fuel: u64, took: Duration, warm: bool) -> Result<Ranked, CallError> {
    answer.map(|ranking| Ranked { ranking, fuel, took, warm }).map_err(CallError::Refused)
}
