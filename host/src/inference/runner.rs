//! A loaded model: its engine thread, and the handle to it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot, watch};

use super::{
    LoadedModel, ModelEntry,
    counters::Cells,
    engine::{Built, Loader},
    lease::Gauge,
    prepare::Frontend,
    scheduler::{Command, Scheduler, Setup, Work},
};
use crate::job::KeepAlive;

/// A model nobody has used yet is kept for this long, so that whoever asked for it finds it.
const FIRST_USE: Duration = Duration::from_secs(10);

/// What every runner of a node shares.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) loader: Arc<dyn Loader>,
    pub(super) cells: Arc<Cells>,
    pub(super) idle: Arc<Notify>,
    pub(super) parallel: usize,
    pub(super) max_queue: usize,
}

impl Shared {
    /// Jobs that one model takes in all.
    pub(super) fn most(&self) -> usize {
        self.parallel.saturating_add(self.max_queue).max(1)
    }
}

/// What became of a job given to a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It has its place.
    Queued,
    /// There is no place.
    Full,
    /// The engine has ended.
    Ended,
}

/// The handle to a loaded model. Dropping the last one ends its thread once all jobs are answered.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) entry: ModelEntry,
    pub(super) frontend: Arc<Frontend>,
    pub(super) gauge: Arc<Gauge>,
    pub(super) bytes: u64,
    device: String,
    weights: u64,
    cache: u64,
    commands: SyncSender<Command>,
    ended: watch::Receiver<bool>,
    keep: Mutex<KeepAlive>,
    used: AtomicBool,
    loaded: Instant,
}

impl Runner {
    /// Loads a model on a new thread, which then answers its jobs.
    pub(super) fn start(
        entry: ModelEntry,
        bytes: u64,
        keep: KeepAlive,
        shared: Shared,
    ) -> oneshot::Receiver<Result<Arc<Self>, String>> {
        let (report, loaded) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let name: String = entry.name.chars().rev().take(10).collect::<Vec<_>>().into_iter().rev().collect();
        let thread = std::thread::Builder::new().name(format!("m:{name}"));
        // When the thread cannot be started, the dropped sender says so.
        let spawned = thread.spawn(move || {
            let built = catch_unwind(AssertUnwindSafe(|| shared.loader.build(&entry)));
            let built =
                built.unwrap_or_else(|_| Err("the loader failed; this is a defect in Potluck".into()));
            let Built { core, frontend, device, weights, cache } = match built {
                Ok(built) => built,
                Err(reason) => {
                    let _ = report.send(Err(reason));
                    return;
                }
            };
            let (commands, inbox) = sync_channel(shared.most() + 1);
            let gauge = Arc::new(Gauge::new(shared.idle.clone()));
            let (end, ended) = watch::channel(false);
            let runner = Arc::new(Self {
                entry,
                frontend,
                gauge: gauge.clone(),
                bytes,
                device,
                weights,
                cache,
                commands,
                ended,
                keep: Mutex::new(keep),
                used: AtomicBool::new(false),
                loaded: Instant::now(),
            });
            let name = runner.entry.name.clone();
            if report.send(Ok(runner)).is_err() {
                return;
            }
            let most = shared.most();
            let setup = Setup {
                commands: inbox,
                gauge,
                cells: shared.cells,
                runtime,
                parallel: shared.parallel,
                most,
            };
            let run = catch_unwind(AssertUnwindSafe(|| Scheduler::new(core, setup).run()));
            match run {
                Ok(Ok(())) => tracing::debug!(model = name, "unloaded"),
                Ok(Err(reason)) => tracing::error!(
                    model = name,
                    reason,
                    "the engine failed; the model is loaded again on its next use"
                ),
                Err(_) => tracing::error!(
                    model = name,
                    "the engine thread broke; the model is loaded again on its next use"
                ),
            }
            end.send_replace(true);
            shared.idle.notify_one();
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for a model");
        }
        loaded
    }

    /// Queues a job.
    pub(super) fn send(&self, work: Work) -> Sent {
        if self.has_ended() {
            return Sent::Ended;
        }
        match self.commands.try_send(Command::Run(Box::new(work))) {
            Ok(()) => Sent::Queued,
            Err(TrySendError::Full(_)) => Sent::Full,
            Err(TrySendError::Disconnected(_)) => Sent::Ended,
        }
    }

    /// Whether the engine's thread has ended, or is about to because the engine failed.
    pub(super) fn has_ended(&self) -> bool {
        self.gauge.broken.load(Ordering::Acquire) || *self.ended.borrow()
    }

    /// Turns true when the engine's thread has ended and its memory is free.
    pub(super) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }

    /// Notes a use and how long the model is to stay after it.
    pub(super) fn keep(&self, keep: KeepAlive) {
        self.used.store(true, Ordering::Relaxed);
        self.gauge.touch();
        *self.keep.lock().unwrap_or_else(PoisonError::into_inner) = keep;
    }

    pub(super) fn keep_alive(&self) -> KeepAlive {
        *self.keep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any job claims it.
    pub(super) fn is_busy(&self) -> bool {
        self.gauge.leased.load(Ordering::Acquire) > 0
    }

    /// Time until it may be unloaded if nobody uses it; `None`: never.
    pub(super) fn expires_in(&self) -> Option<Duration> {
        let since = self.gauge.last_used().elapsed();
        match self.keep_alive() {
            KeepAlive::Forever => None,
            KeepAlive::For(_) if !self.used.load(Ordering::Relaxed) => {
                Some(FIRST_USE.saturating_sub(self.loaded.elapsed()))
            }
            KeepAlive::For(time) => Some(time.saturating_sub(since)),
        }
    }

    /// The listing's line.
    pub(super) fn describe(&self) -> LoadedModel {
        LoadedModel {
            entry: self.entry.clone(),
            device: self.device.clone(),
            weights_bytes: self.weights,
            cache_bytes: self.cache,
            context: self.frontend.context() as u64,
            active: self.gauge.active.load(Ordering::Relaxed),
            queued: self.gauge.waiting.load(Ordering::Relaxed),
            expires_in: self.expires_in(),
        }
    }
}
