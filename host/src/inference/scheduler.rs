//! Continuous batching: which sequences get the next step of a model, and with how many tokens.
//!
//! One thread owns the engine and everything here. Every step takes one token of each sequence that is being
//! decoded, and fills up with chunks of prompts. Pages of the KV cache are kept for prefixes; when they run out,
//! the youngest sequence gives its pages up and is computed again later, to the same result.

mod sequence;
mod step;
pub(super) mod text;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::{Duration, Instant},
};

use potluck_kernels::{backend::PAGE, engine::kv::PagePool};

use super::{
    counters::{Cells, add},
    engine::Core,
    grammar::{Advanced, GrammarWorker},
    lease::Gauge,
};
use crate::job::{FinishReason, JobError};
pub(super) use sequence::Work;
use sequence::{Constraint, Sequence};

/// How long to sleep when every sequence waits for its reader.
const NAP: Duration = Duration::from_millis(4);

/// How long a failed engine waits for jobs that are on their way to it.
const BREAK_OFF: Duration = Duration::from_secs(2);

/// What a scheduler is told.
pub(super) enum Command {
    /// Answer a job.
    Run(Box<Work>),
}

/// What a scheduler needs beside the engine.
pub(super) struct Setup {
    pub(super) commands: Receiver<Command>,
    pub(super) gauge: Arc<Gauge>,
    pub(super) cells: Arc<Cells>,
    pub(super) runtime: tokio::runtime::Handle,
    /// Sequences in the engine at the same time.
    pub(super) parallel: usize,
    /// Sequences in all.
    pub(super) most: usize,
}

/// The scheduler of one loaded model.
pub(super) struct Scheduler<C> {
    core: C,
    pool: PagePool,
    setup: Setup,
    parallel: usize,
    /// New ones at the back, those that gave their pages up at the front.
    waiting: VecDeque<Sequence>,
    /// In order of arrival.
    running: Vec<Sequence>,
    grammar: GrammarWorker,
    pace: step::Pace,
    next_id: u64,
    open: bool,
}

impl<C: Core> Scheduler<C> {
    pub(super) fn new(core: C, setup: Setup) -> Self {
        let pool = PagePool::new(core.pages());
        let parallel = setup.parallel.min(core.max_outputs()).min(core.max_batch()).max(1);
        let grammar = GrammarWorker::new(setup.most);
        let (waiting, running) = (VecDeque::new(), Vec::new());
        Self {
            core,
            pool,
            setup,
            parallel,
            waiting,
            running,
            grammar,
            pace: step::Pace::default(),
            next_id: 0,
            open: true,
        }
    }

    /// Works until the command channel is closed and everything is answered, or the engine fails.
    ///
    /// # Errors
    /// The engine's reason; every job has been told.
    pub(super) fn run(mut self) -> Result<(), String> {
        loop {
            if !self.intake() {
                return Ok(());
            }
            if self.setup.gauge.abort.load(Ordering::Acquire) {
                self.end_all(&JobError::ShuttingDown);
                continue;
            }
            self.sweep();
            self.collect_masks();
            self.admit();
            self.report();
            match self.step() {
                Ok(true) => {}
                Ok(false) => self.nap(),
                Err(reason) => {
                    self.break_off(&reason);
                    return Err(reason);
                }
            }
        }
    }

    /// The engine failed: everyone is told, those included whose jobs are still on their way here.
    fn break_off(&mut self, reason: &str) {
        let gauge = self.setup.gauge.clone();
        gauge.broken.store(true, Ordering::Release);
        let error = JobError::Internal { reason: reason.to_owned() };
        let began = Instant::now();
        loop {
            self.end_all(&error);
            self.report();
            if gauge.leased.load(Ordering::Acquire) == 0 || began.elapsed() > BREAK_OFF {
                return;
            }
            match self.setup.commands.recv_timeout(NAP) {
                Ok(command) => self.accept(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Takes new jobs in; waits for one when there is nothing to do. False at the end.
    fn intake(&mut self) -> bool {
        if self.waiting.is_empty() && self.running.is_empty() {
            self.report();
            match self.setup.commands.recv() {
                Ok(command) => self.accept(command),
                Err(_) => return false,
            }
        }
        while self.open {
            match self.setup.commands.try_recv() {
                Ok(command) => self.accept(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.open = false,
            }
        }
        true
    }

    fn accept(&mut self, Command::Run(work): Command) {
        let id = self.next_id;
        self.next_id += 1;
        let sequence = Sequence::new(id, *work);
        add(&self.setup.cells.prompt_tokens, sequence.prompt);
        if let Some(reason) = sequence.ended {
            add(&self.setup.cells.completed, 1);
            sequence.finish(reason).deliver(&self.setup.runtime);
        } else {
            self.waiting.push_back(sequence);
        }
    }

    /// Drops what nobody waits for, and retries what readers had no room for.
    fn sweep(&mut self) {
        for sequence in &mut self.running {
            sequence.unblock();
        }
        let pool = &mut self.pool;
        let mut gone = self.running.extract_if(.., |s| s.is_gone()).map(|mut s| s.release(pool)).count();
        let before = self.waiting.len();
        self.waiting.retain(|s| !s.is_gone());
        gone += before - self.waiting.len();
        add(&self.setup.cells.cancelled, gone);
    }

    /// Gives waiting sequences a place, in order, as long as their prompts fit the cache.
    fn admit(&mut self) {
        while self.running.len() < self.parallel {
            let Some(mut sequence) = self.waiting.pop_front() else { return };
            let (pages, matched) = self.pool.lookup_prefix(&sequence.tokens);
            let first_time = sequence.tokens.len() == sequence.prompt + sequence.resumed;
            sequence.pages = pages;
            sequence.computed = matched;
            let need = PagePool::pages_for(sequence.tokens.len()).saturating_sub(sequence.pages.len());
            // Each sequence in the engine may want a page soon.
            if self.pool.available() < need + self.running.len() {
                sequence.release(&mut self.pool);
                self.waiting.push_front(sequence);
                return;
            }
            for _ in 0..need {
                sequence.pages.extend(self.pool.alloc());
            }
            if first_time && sequence.usage.cached_tokens == 0 {
                sequence.usage.cached_tokens =
                    u32::try_from(matched.min(sequence.prompt)).unwrap_or(u32::MAX);
                add(&self.setup.cells.cached_tokens, matched);
            }
            sequence.start();
            let at = self.running.partition_point(|other| other.id < sequence.id);
            self.running.insert(at, sequence);
        }
    }

    /// Finds a page for every sequence whose next token starts one; takes pages from the youngest when none is
    /// left.
    fn secure_pages(&mut self) {
        let mut i = 0;
        while let Some(sequence) = self.running.get_mut(i) {
            if !sequence.is_ready() || sequence.pages.len() * PAGE >= sequence.tokens.len() {
                i += 1;
                continue;
            }
            match self.pool.alloc() {
                Ok(page) => sequence.pages.push(page),
                Err(error) => {
                    let Some(mut youngest) = self.running.pop() else { return };
                    youngest.release(&mut self.pool);
                    if self.running.is_empty() {
                        // The cache holds a whole context, so this does not happen; it must not loop if it does.
                        let reason = error.to_string();
                        add(&self.setup.cells.failed, 1);
                        youngest.fail(JobError::Internal { reason }).deliver(&self.setup.runtime);
                    } else {
                        add(&self.setup.cells.preempted, 1);
                        self.waiting.push_front(youngest);
                    }
                }
            }
        }
    }

    /// Takes over what the grammar thread has finished.
    fn collect_masks(&mut self) {
        while let Some((id, advanced)) = self.grammar.poll() {
            self.take_mask(id, advanced);
        }
    }

    fn take_mask(&mut self, id: u64, advanced: Advanced) {
        let in_engine = self.running.iter().position(|s| s.id == id);
        let sequence = match in_engine {
            Some(at) => self.running.get_mut(at),
            None => self.waiting.iter_mut().find(|s| s.id == id),
        };
        // Without one, its caller went away meanwhile.
        let Some(sequence) = sequence else { return };
        let end = match advanced {
            Advanced::Allowed(grammar, mask) => {
                sequence.constraint = Constraint::Allowed(grammar, mask);
                let (logits, length) = (sequence.logits.take(), sequence.tokens.len());
                let end = logits.and_then(|row| step::advance(sequence, &row, &mut self.grammar));
                if let Some(vouching) = sequence.vouching.as_mut() {
                    vouching.drawn(sequence.tokens.len() > length);
                }
                end
            }
            Advanced::Complete => Some(Ok(FinishReason::Stop)),
            Advanced::Failed(reason) => Some(Err(JobError::Internal { reason })),
        };
        if let Some(end) = end {
            let sequence = match in_engine {
                Some(at) => Some(self.running.remove(at)),
                None => {
                    let at = self.waiting.iter().position(|s| s.id == id);
                    at.and_then(|at| self.waiting.remove(at))
                }
            };
            if let Some(sequence) = sequence {
                self.end(sequence, end);
            }
        }
    }

    /// Ends one answer.
    fn end(&mut self, mut sequence: Sequence, end: Result<FinishReason, JobError>) {
        sequence.release(&mut self.pool);
        let cells = &self.setup.cells;
        let made = usize::try_from(sequence.usage.completion_tokens).unwrap_or(0);
        add(&cells.completion_tokens, made.saturating_sub(sequence.resumed));
        let ended = match end {
            Ok(reason) => {
                add(&cells.completed, 1);
                sequence.lease.gauge().note_job(sequence.in_engine());
                sequence.finish(reason)
            }
            Err(error) => {
                add(&cells.failed, 1);
                sequence.fail(error)
            }
        };
        ended.deliver(&self.setup.runtime);
    }

    fn end_all(&mut self, error: &JobError) {
        let all: Vec<_> = self.running.drain(..).chain(self.waiting.drain(..)).collect();
        for sequence in all {
            self.end(sequence, Err(error.clone()));
        }
    }

    /// Nothing can be computed: every sequence waits for its reader or its grammar.
    fn nap(&mut self) {
        if self.running.iter().any(|s| s.logits.is_some()) {
            if let Some((id, advanced)) = self.grammar.wait(NAP) {
                self.take_mask(id, advanced);
            }
        } else if !self.running.is_empty() || !self.waiting.is_empty() {
            match self.setup.commands.recv_timeout(NAP) {
                Ok(command) => self.accept(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.open = false;
                    std::thread::sleep(NAP);
                }
            }
        }
    }

    fn report(&self) {
        self.setup.gauge.active.store(self.running.len(), Ordering::Relaxed);
        self.setup.gauge.waiting.store(self.waiting.len(), Ordering::Relaxed);
    }
}
