//! Texts in, unit vectors out: the encoder room.
//!
//! Callers turn their texts into tokens themselves; one thread owns the loaded encoders and takes the tokens over a
//! bounded channel (see `worker`). Sentences in a batch are laid end to end without padding, so that their lengths
//! need not be sorted.

mod minilm;
mod model;
mod queue;
mod worker;

pub(super) use minilm::{Installed, NAME, Part, is_alias, parts};
pub(super) use model::{describe, is_embedder};

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{oneshot, watch},
    task::spawn_blocking,
};

use super::{LoadedModel, ModelEntry};
use crate::job::{JobError, KeepAlive, Mode};
use model::{Frontend, Opener};
use queue::{Lease, Work};
use worker::{Command, Worker};

/// Most texts of one request.
pub const MAX_TEXTS: usize = 2048;
/// Most bytes of all texts of one request.
pub const MAX_TEXT_BYTES: usize = 64 << 20;
/// Most texts that wait at the same time, whoever sent them.
const MAX_WAITING: usize = 32 << 10;
/// Most commands on their way to the thread.
const MAX_COMMANDS: usize = 1024;
/// Texts of so few bytes are turned into tokens where they are; more are given to another thread.
const INLINE_BYTES: usize = 4096;
/// How long the end of the thread is waited for.
const END: Duration = Duration::from_secs(30);

/// How soon vectors are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lane {
    /// Somebody waits: goes before everything in the background.
    #[default]
    Interactive,
    /// Takes what is left, in slices of at most about 40 ms.
    Background,
}

/// Texts to embed.
#[derive(Clone, Debug)]
pub struct EmbedRequest {
    /// The model's name without mode suffix.
    pub model: String,
    /// Where it may run.
    pub mode: Mode,
    /// At most [`MAX_TEXTS`] texts of [`MAX_TEXT_BYTES`] together.
    pub texts: Vec<String>,
    /// Whether a text that is too long is cut; else it is refused.
    pub truncate: bool,
    /// How soon.
    pub lane: Lane,
    /// `None`: the encoder stays loaded.
    pub keep_alive: Option<KeepAlive>,
}

/// Vectors of texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// The model's full name.
    pub model: String,
    /// Length of each vector.
    pub dims: usize,
    /// Unit vectors, one per text in the texts' order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that were embedded, start and end tokens included.
    pub tokens: u64,
    /// Texts that were cut.
    pub cut: usize,
    /// Time spent loading the encoder for this request.
    pub load: Duration,
}

/// The installed embedder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedderInfo {
    /// The name to ask for.
    pub name: String,
    /// Length of its vectors.
    pub dims: usize,
    /// What tells its vectors from another's: `all-MiniLM-L6-v2:` and the first 16 hex digits of its weights'
    /// SHA-256.
    pub model_id: String,
}

/// An encoder in memory, for listings.
#[derive(Clone, Debug)]
struct Snapshot {
    model: LoadedModel,
    keep: KeepAlive,
    used: Instant,
}

/// What callers and the thread share.
#[derive(Debug, Default)]
struct Shared {
    /// Texts that wait or are being embedded.
    waiting: Arc<AtomicUsize>,
    loaded: Mutex<Vec<Snapshot>>,
    stopping: AtomicBool,
    abort: AtomicBool,
}

/// The handle to the encoder thread.
#[derive(Debug)]
pub(super) struct Embeds {
    opener: Arc<dyn Opener>,
    shared: Arc<Shared>,
    /// Tokenizers by file, kept when their encoder is unloaded: they are small.
    frontends: Mutex<HashMap<String, Arc<Frontend>>>,
    thread: OnceLock<Option<Thread>>,
}

#[derive(Debug)]
struct Thread {
    commands: SyncSender<Command>,
    ended: watch::Receiver<bool>,
}

/// What identifies a model in memory: its file.
fn key(entry: &ModelEntry) -> String {
    entry.path.as_ref().map_or_else(|| entry.name.clone(), |p| p.display().to_string())
}

impl Embeds {
    pub(super) fn new(device: super::Device, threads: Option<usize>) -> Self {
        Self::with(Arc::new(model::Files { device, threads }))
    }

    fn with(opener: Arc<dyn Opener>) -> Self {
        Self { opener, shared: Arc::default(), frontends: Mutex::default(), thread: OnceLock::new() }
    }

    /// The thread, started on first use.
    fn thread(&self) -> Result<&Thread, JobError> {
        let start = || {
            let (commands, inbox) = sync_channel(MAX_COMMANDS);
            let (end, ended) = watch::channel(false);
            let worker = Worker::new(inbox, self.opener.clone(), self.shared.clone());
            let thread = std::thread::Builder::new().name("embedder".into());
            let spawned = thread.spawn(move || {
                worker.run();
                end.send_replace(true);
            });
            spawned.map_err(|error| tracing::error!(%error, "no thread for the embedder")).ok()?;
            Some(Thread { commands, ended })
        };
        let failed = || JobError::Internal { reason: "the embedder's thread could not be started".into() };
        self.thread.get_or_init(start).as_ref().ok_or_else(failed)
    }

    fn send(&self, command: Command) -> Result<(), JobError> {
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(JobError::ShuttingDown);
        }
        self.thread()?.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => self.busy(),
            TrySendError::Disconnected(_) => {
                JobError::Internal { reason: "the embedder's thread has ended".into() }
            }
        })
    }

    fn busy(&self) -> JobError {
        let queued = self.shared.waiting.load(Ordering::Relaxed);
        JobError::Busy { queued, retry_after: Duration::from_secs(2) }
    }

    /// Embeds texts with the model of this entry.
    ///
    /// # Errors
    /// As [`super::Inference::embed`].
    pub(super) async fn embed(&self, entry: ModelEntry, request: EmbedRequest) -> Result<Embedded, JobError> {
        check(&request.texts)?;
        let frontend = self.frontend(&entry).await?;
        let lease =
            Lease::take(&self.shared.waiting, request.texts.len(), MAX_WAITING).ok_or_else(|| self.busy())?;
        let EmbedRequest { texts, truncate, lane, keep_alive, .. } = request;
        let (name, dims) = (entry.name.clone(), frontend.dims);
        let bytes: usize = texts.iter().map(String::len).sum();
        let encode = move || frontend.encode(&texts, truncate);
        let encoded = if bytes <= INLINE_BYTES {
            encode()
        } else {
            let broke = |_| JobError::Internal { reason: "tokenizing broke off".into() };
            spawn_blocking(encode).await.map_err(broke)?
        };
        let (inputs, cut) = encoded?;
        let tokens = inputs.iter().map(|input| input.len() as u64).sum();
        let (reply, done) = oneshot::channel();
        let work = Work::new(key(&entry), entry, inputs, keep_alive, reply, lease);
        self.send(Command::Embed(lane, Box::new(work)))?;
        let gone = |_| JobError::Internal { reason: "the embedder broke off".into() };
        let (vectors, load) = done.await.map_err(gone)??;
        Ok(Embedded { model: name, dims, vectors, tokens, cut, load })
    }

    /// The model's tokenizer and limits, read once.
    async fn frontend(&self, entry: &ModelEntry) -> Result<Arc<Frontend>, JobError> {
        let key = key(entry);
        if let Some(known) = self.frontends().get(&key) {
            return Ok(known.clone());
        }
        let (opener, asked) = (self.opener.clone(), entry.clone());
        let broke = |_| JobError::Internal { reason: "reading the tokenizer broke off".into() };
        let frontend = Arc::new(spawn_blocking(move || opener.frontend(&asked)).await.map_err(broke)??);
        self.frontends().insert(key, frontend.clone());
        Ok(frontend)
    }

    fn frontends(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Frontend>>> {
        self.frontends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads an encoder, or renews its keep-alive when it is loaded. Returns the time it took.
    ///
    /// # Errors
    /// [`JobError::ModelUnusable`], [`JobError::ShuttingDown`].
    pub(super) async fn load(
        &self,
        entry: ModelEntry,
        keep: Option<KeepAlive>,
    ) -> Result<Duration, JobError> {
        let (reply, done) = oneshot::channel();
        self.send(Command::Load(Box::new(entry), keep, reply))?;
        done.await.map_err(|_| JobError::Internal { reason: "the embedder broke off".into() })?
    }

    /// Unloads an encoder; false when it was not loaded.
    pub(super) async fn unload(&self, entry: &ModelEntry) -> bool {
        let key = key(entry);
        self.frontends().remove(&key);
        if self.loaded().is_empty() {
            return false;
        }
        let (reply, done) = oneshot::channel();
        self.send(Command::Unload(key, reply)).is_ok() && done.await.unwrap_or(false)
    }

    /// The encoders in memory.
    pub(super) fn loaded(&self) -> Vec<LoadedModel> {
        let loaded = self.shared.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = self.shared.waiting.load(Ordering::Relaxed);
        let describe = |snapshot: &Snapshot| LoadedModel {
            queued: waiting,
            expires_in: match snapshot.keep {
                KeepAlive::Forever => None,
                KeepAlive::For(time) => Some(time.saturating_sub(snapshot.used.elapsed())),
            },
            ..snapshot.model.clone()
        };
        loaded.iter().map(describe).collect()
    }

    /// Takes no more requests, lets waiting ones finish for `grace`, then ends the rest; returns when the thread
    /// has ended.
    pub(super) async fn shutdown(&self, grace: Duration) {
        self.shared.stopping.store(true, Ordering::Release);
        let Some(Some(thread)) = self.thread.get() else { return };
        let began = Instant::now();
        while began.elapsed() < grace && self.shared.waiting.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.shared.abort.store(true, Ordering::Release);
        // A full channel wakes the thread as well, and it looks at the flag before anything else.
        let _ = thread.commands.try_send(Command::Wake);
        let mut ended = thread.ended.clone();
        if tokio::time::timeout(END, ended.wait_for(|e| *e)).await.is_err() {
            tracing::warn!("the embedder's thread did not end in time");
        }
    }
}

/// Refuses requests that are empty or too large.
fn check(texts: &[String]) -> Result<(), JobError> {
    let refuse = |reason: String| Err(JobError::Invalid { field: "input".into(), reason });
    if texts.is_empty() {
        return refuse("there is no text to embed".into());
    }
    if texts.len() > MAX_TEXTS {
        return refuse(format!("at most {MAX_TEXTS} texts fit one request, not {}", texts.len()));
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    if bytes > MAX_TEXT_BYTES {
        return refuse(format!("at most {MAX_TEXT_BYTES} bytes fit one request, not {bytes}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
