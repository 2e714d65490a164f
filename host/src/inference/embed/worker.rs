//! The thread that owns the encoders.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    Lane, Shared, Snapshot, key,
    model::{Encoder, Opener},
    queue::{Queue, Slice, Work},
};
use crate::{
    inference::{LoadedModel, ModelEntry},
    job::{JobError, KeepAlive},
};

/// Encoders in memory at the same time; the one used longest ago makes room.
const MAX_LOADED: usize = 2;
/// How long a slice may take. Nobody who waits interactively waits longer for the background.
const SLICE: Duration = Duration::from_millis(35);
/// Fewest and most tokens in a slice.
const SLICE_TOKENS: std::ops::RangeInclusive<usize> = 64..=super::model::MAX_BATCH;
/// Tokens of the first slice, when the speed is not known.
const FIRST_SLICE: usize = 256;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    Embed(Lane, Box<Work>),
    Load(Box<ModelEntry>, Option<KeepAlive>, oneshot::Sender<Result<Duration, JobError>>),
    Unload(String, oneshot::Sender<bool>),
    /// Look at the flags.
    Wake,
}

/// An encoder in memory.
struct Loaded {
    key: String,
    entry: ModelEntry,
    encoder: Encoder,
    keep: KeepAlive,
    used: Instant,
    /// Tokens per second, smoothed.
    speed: Option<f64>,
}

impl Loaded {
    /// Tokens that take about [`SLICE`].
    fn budget(&self) -> usize {
        let Some(speed) = self.speed else { return FIRST_SLICE };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and clamped at once"
        )]
        let tokens = (speed * SLICE.as_secs_f64()) as usize;
        tokens.clamp(*SLICE_TOKENS.start(), *SLICE_TOKENS.end())
    }

    fn note(&mut self, tokens: usize, time: Duration) {
        let now = tokens as f64 / time.as_secs_f64().max(1e-6);
        // Short texts say little about the speed of long slices.
        if tokens >= *SLICE_TOKENS.start() {
            self.speed = Some(self.speed.map_or(now, |old| old * 0.75 + now * 0.25));
        }
    }

    fn expires_in(&self) -> Option<Duration> {
        match self.keep {
            KeepAlive::Forever => None,
            KeepAlive::For(time) => Some(time.saturating_sub(self.used.elapsed())),
        }
    }
}

/// The thread's state.
pub(super) struct Worker {
    inbox: Receiver<Command>,
    opener: Arc<dyn Opener>,
    shared: Arc<Shared>,
    queue: Queue,
    loaded: Vec<Loaded>,
}

impl Worker {
    pub(super) fn new(inbox: Receiver<Command>, opener: Arc<dyn Opener>, shared: Arc<Shared>) -> Self {
        Self { inbox, opener, shared, queue: Queue::default(), loaded: Vec::new() }
    }

    /// Works until all handles are gone or the node stops.
    pub(super) fn run(mut self) {
        while self.receive() {
            let budget = self.queue.next_key().map_or(FIRST_SLICE, |key| {
                self.loaded.iter().find(|l| l.key == key).map_or(FIRST_SLICE, Loaded::budget)
            });
            if let Some(slice) = self.queue.slice(budget) {
                self.embed(slice);
            }
            self.unload_expired();
        }
        self.queue.fail(&JobError::ShuttingDown);
        self.loaded.clear();
        self.publish();
    }

    /// Takes what has come; waits when there is nothing to do. False when the thread is to end.
    fn receive(&mut self) -> bool {
        loop {
            if self.shared.abort.load(Ordering::Acquire) {
                return false;
            }
            let command = if self.queue.is_empty() {
                self.publish();
                match self.loaded.iter().filter_map(Loaded::expires_in).min() {
                    None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(time) => self.inbox.recv_timeout(time),
                }
            } else {
                match self.inbox.try_recv() {
                    Err(TryRecvError::Empty) => return true,
                    other => other.map_err(|_| RecvTimeoutError::Disconnected),
                }
            };
            match command {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => self.unload_expired(),
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Embed(lane, work) => self.queue.push(lane, *work),
            Command::Load(entry, keep, reply) => {
                let key = key(&entry);
                let outcome = self.bring_in(&key, &entry).map(|(loaded, time)| {
                    loaded.keep = keep.unwrap_or(KeepAlive::Forever);
                    loaded.used = Instant::now();
                    time
                });
                self.publish();
                let _ = reply.send(outcome);
            }
            Command::Unload(key, reply) => {
                let before = self.loaded.len();
                self.loaded.retain(|l| l.key != key);
                self.publish();
                let _ = reply.send(self.loaded.len() < before);
            }
            Command::Wake => {}
        }
    }

    fn embed(&mut self, slice: Slice) {
        let Some((key, entry)) = slice.first().map(|work| (work.key.clone(), work.entry.clone())) else {
            return;
        };
        let keep = slice.keep().unwrap_or(KeepAlive::Forever);
        let (loaded, load) = match self.bring_in(&key, &entry) {
            Ok(found) => found,
            Err(error) => return slice.fail(&error),
        };
        let began = Instant::now();
        let encoder = &mut loaded.encoder;
        let outcome = catch_unwind(AssertUnwindSafe(|| encoder.embed(&slice.inputs)));
        let outcome =
            outcome.unwrap_or_else(|_| Err("the encoder broke; this is a defect in Potluck".into()));
        match outcome {
            Ok(vectors) => {
                loaded.note(slice.tokens(), began.elapsed());
                (loaded.keep, loaded.used) = (keep, Instant::now());
                self.queue.finish(slice, vectors, load);
            }
            Err(reason) => {
                tracing::error!(model = entry.name, reason, "embedding failed; the model is loaded again");
                self.loaded.retain(|l| l.key != key);
                slice.fail(&JobError::Internal { reason });
            }
        }
    }

    /// The encoder, loaded if need be, and the time that took.
    fn bring_in(&mut self, key: &str, entry: &ModelEntry) -> Result<(&mut Loaded, Duration), JobError> {
        let mut time = Duration::ZERO;
        if !self.loaded.iter().any(|l| l.key == key) {
            if self.loaded.len() >= MAX_LOADED
                && let Some(oldest) =
                    (0..self.loaded.len()).min_by_key(|i| self.loaded.get(*i).map(|l| l.used))
            {
                self.loaded.swap_remove(oldest);
            }
            let began = Instant::now();
            let opened = catch_unwind(AssertUnwindSafe(|| self.opener.encoder(entry)));
            let broke = || JobError::ModelUnusable {
                model: entry.name.clone(),
                reason: "the loader failed; this is a defect in Potluck".into(),
            };
            let encoder = opened.unwrap_or_else(|_| Err(broke()))?;
            time = began.elapsed();
            tracing::info!(model = entry.name, ms = time.as_millis(), "loaded");
            let (key, entry) = (key.to_owned(), entry.clone());
            let (keep, used) = (KeepAlive::Forever, Instant::now());
            self.loaded.push(Loaded { key, entry, encoder, keep, used, speed: None });
            self.publish();
        }
        let found = self.loaded.iter_mut().find(|l| l.key == key);
        let lost = || JobError::Internal { reason: "the encoder is not where it was put".into() };
        found.map(|loaded| (loaded, time)).ok_or_else(lost)
    }

    fn unload_expired(&mut self) {
        let queue = &self.queue;
        let before = self.loaded.len();
        self.loaded.retain(|l| l.expires_in() != Some(Duration::ZERO) || queue.wants(&l.key));
        if self.loaded.len() < before {
            self.publish();
        }
    }

    /// Writes down what is loaded for those who ask.
    fn publish(&self) {
        let describe = |loaded: &Loaded| Snapshot {
            model: LoadedModel {
                entry: loaded.entry.clone(),
                device: loaded.encoder.describe(),
                weights_bytes: loaded.encoder.weights,
                cache_bytes: 0,
                context: loaded.encoder.context as u64,
                active: usize::from(!self.queue.is_empty()),
                queued: 0,
                expires_in: None,
            },
            keep: loaded.keep,
            used: loaded.used,
        };
        let list = self.loaded.iter().map(describe).collect();
        *self.shared.loaded.lock().unwrap_or_else(PoisonError::into_inner) = list;
    }
}
