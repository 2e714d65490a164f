//! A machine that answers: a queue, slots, models in memory, a KV cache, and the report that others have of it.
//!
//! Answers share the machine: each that is computed beside it slows an answer down by the machine's crowding. So work
//! is kept as what is left of it, in millionths of a microsecond alone, and is taken off at the present speed whenever
//! something changes.

use std::collections::VecDeque;

use super::{
    event::{News, Try},
    job::{speed, time},
    known::Cache,
    number::mix_all,
    trace::{Job, Machine, Trace},
    world::Rules,
};

/// What is said of a machine, as it was when it was said.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) running: u32,
    pub(super) queued: u32,
    pub(super) free_tokens: u64,
    /// Models in memory.
    pub(super) loaded: Vec<u32>,
    /// When it was said, in microseconds.
    pub(super) at: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    try_: Try,
    made: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Loading { until: u64 },
    Prompt,
    Answer,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    try_: Try,
    /// Tokens of the answer that there were before.
    made: u32,
    phase: Phase,
    /// Work of the phase, in millionths of a microsecond alone.
    left: u64,
    /// Tokens of the prompt that must be computed.
    computed: u32,
    fails: bool,
}

#[derive(Clone, Copy, Debug)]
struct Resident {
    model: u32,
    ready: u64,
    used: u64,
    users: u32,
}

impl Resident {
    const fn at_first(model: &u32) -> Self {
        Self { model: *model, ready: 0, used: 0, users: 0 }
    }
}

/// A machine at work.
#[derive(Debug)]
pub(super) struct Server<'a> {
    trace: &'a Trace,
    machine: &'a Machine,
    number: u32,
    seed: u64,
    report_us: u64,
    offset: u64,
    most_queued: usize,
    up: bool,
    back: u64,
    running: Vec<Running>,
    queue: VecDeque<Waiting>,
    resident: Vec<Resident>,
    reserved: u64,
    cache: Cache,
    at: u64,
    version: u64,
    said: Said,
    busy: u64,
}

impl<'a> Server<'a> {
    pub(super) fn new(trace: &'a Trace, machine: &'a Machine, number: u32, rules: &Rules) -> Self {
        let report_us = rules.report_us.max(1);
        let most_queued = rules.queue_per_slot.saturating_mul(machine.slots) as usize;
        let mut server = Self {
            trace,
            machine,
            number,
            seed: rules.seed,
            report_us,
            offset: mix_all(&[rules.seed, 1, number.into()]) % report_us,
            most_queued,
            up: true,
            back: 0,
            running: Vec::new(),
            queue: VecDeque::new(),
            resident: machine.models.iter().take(machine.resident as usize).map(Resident::at_first).collect(),
            reserved: 0,
            cache: Cache::default(),
            at: 0,
            version: 0,
            said: Said::default(),
            busy: 0,
        };
        server.said = server.now(0);
        server
    }

    pub(super) const fn is_up(&self) -> bool {
        self.up
    }

    /// Microseconds of all slots in which something was done, as long as jobs were asked for.
    pub(super) const fn busy(&self) -> u64 {
        self.busy
    }

    /// Jobs of a model that wait, and that are answered.
    pub(super) fn jobs_of(&self, model: u32) -> (u64, u64) {
        let of = |try_: &Try| self.job(*try_).is_some_and(|job| job.model == model);
        let waiting = self.queue.iter().filter(|it| of(&it.try_)).count();
        let running = self.running.iter().filter(|it| of(&it.try_)).count();
        (waiting as u64, running as u64)
    }

    fn job(&self, try_: Try) -> Option<&'a Job> {
        self.trace.jobs.get(try_.job as usize)
    }

    /// How it is now, as only itself knows.
    pub(super) fn now(&self, at: u64) -> Said {
        let loaded = self.resident.iter().filter(|it| it.ready <= at).map(|it| it.model).collect();
        Said {
            running: u32::try_from(self.running.len()).unwrap_or(u32::MAX),
            queued: u32::try_from(self.queue.len()).unwrap_or(u32::MAX),
            free_tokens: self.machine.kv_tokens.saturating_sub(self.reserved),
            loaded,
            at,
        }
    }

    /// The last report. Reports are made in a fixed rhythm; between two of them nothing that happens is seen.
    pub(super) fn said(&mut self, now: u64) -> &Said {
        let last = now.checked_sub(self.offset).map_or(0, |since| now - since % self.report_us);
        // Nothing has changed since the report was due: every change asks for it first.
        if self.up && last > self.said.at && last >= self.back {
            self.said = self.now(last);
        }
        &self.said
    }

    /// A request arrives. What is heard at once is added to `heard`.
    pub(super) fn take(
        &mut self,
        try_: Try,
        made: u32,
        now: u64,
        heard: &mut Vec<(Try, News)>,
    ) -> Option<()> {
        self.said(now);
        let job = self.job(try_)?;
        let answer = job.max_tokens.unwrap_or(job.answer).max(job.answer);
        let needs = u64::from(job.prompt) + u64::from(answer);
        let held = self.machine.models.contains(&job.model);
        if !held || needs > self.machine.context || tokens(job) > self.machine.kv_tokens {
            heard.push((try_, News::Small));
        } else if self.running.len() >= self.machine.slots as usize && self.queue.len() >= self.most_queued {
            heard.push((try_, News::Full));
        } else {
            self.advance(now);
            self.queue.push_back(Waiting { try_, made });
            self.begin(now);
            self.version += 1;
        }
        Some(())
    }

    /// Goes on with what is due. What is heard of it is added to `heard`.
    pub(super) fn step(&mut self, now: u64, heard: &mut Vec<(Try, News)>) {
        self.said(now);
        self.advance(now);
        let before = std::mem::take(&mut self.running);
        for mut run in before {
            if self.turn(&mut run, now, heard).is_some() {
                self.running.push(run);
            }
        }
        self.begin(now);
        self.version += 1;
    }

    /// When something is due next, and the version of the state for which that holds.
    pub(super) fn due(&self) -> Option<(u64, u64)> {
        let rate = self.rate();
        let at = |run: &Running| match run.phase {
            Phase::Loading { until } => until,
            Phase::Prompt | Phase::Answer => self.at.saturating_add(run.left.div_ceil(rate)),
        };
        self.running.iter().map(at).min().map(|at| (at, self.version))
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// The machine goes away with all that it has.
    pub(super) fn leave(&mut self, now: u64, heard: &mut Vec<(Try, News)>) {
        self.said(now);
        self.advance(now);
        for run in std::mem::take(&mut self.running) {
            heard.push((run.try_, News::Silence { made: self.made(&run) }));
        }
        for waiting in std::mem::take(&mut self.queue) {
            heard.push((waiting.try_, News::Silence { made: waiting.made }));
        }
        self.resident.clear();
        self.cache.clear();
        self.reserved = 0;
        self.up = false;
        self.version += 1;
    }

    pub(super) fn come_back(&mut self, now: u64) {
        (self.up, self.back, self.at) = (true, now, now);
    }

    /// Tokens of the answer that had come when the machine went.
    fn made(&self, run: &Running) -> u32 {
        let (Phase::Answer, Some(job)) = (run.phase, self.job(run.try_)) else { return run.made };
        let more = job.answer.saturating_sub(run.made).saturating_sub(1);
        let all = self.answer_work(job, more).max(1);
        let done = u128::from(all.saturating_sub(run.left)) * u128::from(more) / u128::from(all);
        // The last token never came: the answer would be complete.
        run.made + u32::try_from(done).unwrap_or(0).min(more.saturating_sub(1)) + u32::from(more > 0)
    }

    /// One answer's phases as far as they are over; `None`: it is at its end.
    fn turn(&mut self, run: &mut Running, now: u64, heard: &mut Vec<(Try, News)>) -> Option<()> {
        let job = self.job(run.try_)?;
        loop {
            match run.phase {
                Phase::Loading { until } if until <= now => run.phase = Phase::Prompt,
                Phase::Prompt if run.left == 0 && run.fails => {
                    self.release(job, 0, now);
                    heard.push((run.try_, News::Broken { computed: run.computed }));
                    return None;
                }
                Phase::Prompt if run.left == 0 => {
                    heard.push((run.try_, News::First));
                    run.phase = Phase::Answer;
                    run.left = self.answer_work(job, job.answer.saturating_sub(run.made).saturating_sub(1));
                }
                Phase::Answer if run.left == 0 => {
                    self.release(job, job.answer, now);
                    heard.push((run.try_, News::Done { computed: run.computed }));
                    return None;
                }
                Phase::Loading { .. } | Phase::Prompt | Phase::Answer => return Some(()),
            }
        }
    }

    fn release(&mut self, job: &Job, answer: u32, now: u64) {
        self.reserved = self.reserved.saturating_sub(tokens(job));
        for resident in self.resident.iter_mut().filter(|it| it.model == job.model) {
            resident.users = resident.users.saturating_sub(1);
            resident.used = now;
        }
        self.cache.keep(job, answer, self.machine.kv_tokens.saturating_sub(self.reserved));
    }

    /// Starts what can be started. What came first is first: what is behind it waits, even where it would fit.
    fn begin(&mut self, now: u64) -> Option<()> {
        while self.running.len() < self.machine.slots as usize {
            let Waiting { try_, made } = *self.queue.front()?;
            let job = self.job(try_)?;
            let reserved = self.reserved.saturating_add(tokens(job));
            if reserved > self.machine.kv_tokens {
                return None;
            }
            let ready = self.ready(job.model, now)?;
            self.queue.pop_front();
            let computed = u64::from(job.prompt) + u64::from(made) - self.cache.find(job);
            self.reserved = reserved;
            self.cache.shrink(self.machine.kv_tokens.saturating_sub(reserved));
            let model = self.trace.models.get(job.model as usize)?;
            let luck = mix_all(&[self.seed, 2, try_.job.into(), self.number.into()]) % 1_000_000;
            self.running.push(Running {
                try_,
                made,
                phase: if ready > now { Phase::Loading { until: ready } } else { Phase::Prompt },
                left: scaled(time(computed, speed(self.machine.prefill, model))),
                computed: u32::try_from(computed).unwrap_or(u32::MAX),
                fails: luck < self.machine.faults.into(),
            });
        }
        Some(())
    }

    /// When a model can be used by one more job; `None`: others must end first.
    fn ready(&mut self, model: u32, now: u64) -> Option<u64> {
        if let Some(resident) = self.resident.iter_mut().find(|it| it.model == model) {
            resident.users += 1;
            return Some(resident.ready);
        }
        if self.resident.len() >= self.machine.resident as usize {
            let idle = self.resident.iter().filter(|it| it.users == 0);
            let oldest = idle.min_by_key(|it| (it.used, it.model))?.model;
            self.resident.retain(|it| it.model != oldest);
            self.cache.forget(oldest);
        }
        let parameters = self.trace.models.get(model as usize)?.parameters;
        let ready = now.saturating_add(self.machine.load_us.saturating_mul(parameters) / 1000);
        self.resident.push(Resident { model, ready, used: now, users: 1 });
        Some(ready)
    }

    fn answer_work(&self, job: &Job, tokens: u32) -> u64 {
        let model = self.trace.models.get(job.model as usize);
        let speed = model.map_or(1, |model| speed(self.machine.decode, model));
        scaled(time(tokens.into(), speed))
    }

    /// Takes off what was done since the last change.
    fn advance(&mut self, now: u64) {
        let since = now.saturating_sub(self.at);
        let done = since.saturating_mul(self.rate());
        for run in &mut self.running {
            if !matches!(run.phase, Phase::Loading { .. }) {
                run.left = run.left.saturating_sub(done);
            }
        }
        let counted = now.min(self.trace.span()).saturating_sub(self.at);
        self.busy = self.busy.saturating_add(counted.saturating_mul(self.running.len() as u64));
        self.at = now;
    }

    /// How fast each answer is at present, in millionths of how fast it is alone.
    fn rate(&self) -> u64 {
        let computing = self.running.iter().filter(|run| !matches!(run.phase, Phase::Loading { .. })).count();
        let beside = (computing as u64).saturating_sub(1);
        (1_000_000_000_000 / (1_000_000 + u64::from(self.machine.crowding) * beside)).max(1)
    }
}

/// Tokens of the KV cache that a job is given.
fn tokens(job: &Job) -> u64 {
    u64::from(job.prompt) + u64::from(job.answer)
}

/// Work of so many microseconds.
fn scaled(micros: u64) -> u64 {
    micros.saturating_mul(1_000_000)
}
