//! What was decided, kept so that it can be explained and executed again.
//!
//! Two files of bounded size hold the latest decisions: one is written to, and when it is full it takes the place of
//! the other, whose decisions are forgotten. Each decision carries a checksum, so that a torn or spoiled one is passed
//! over and the rest can still be read. Writing happens on a thread of its own: whoever decides hands the decision over
//! and goes on, and when the disk cannot keep up decisions are dropped and counted, never waited for.

mod paper;
mod segment;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use parity_scale_codec::{Decode, Encode};
use uuid::Uuid;

pub use paper::{PaperError, Replay};

use self::segment::Segment;
use super::{
    Kind, PolicyHash,
    types::{Input, Output},
};

/// Decisions that wait to be written before further ones are dropped.
const WAITING: usize = 1024;

/// How much is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DecisionsConfig {
    /// Bytes of each of the two files.
    pub segment: u64,
}

impl Default for DecisionsConfig {
    fn default() -> Self {
        Self { segment: 16 << 20 }
    }
}

/// Why decisions cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum DecisionsError {
    /// The disk.
    #[error("decisions cannot be kept in {}: {error}; make room or correct the folder's permissions", .path.display())]
    Disk {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The thread is gone.
    #[error("decisions are no longer written, since the writer has ended; restart the node")]
    Ended,
}

/// A decision as it is kept: SCALE bytes of the question and of the answer, which is all that anyone needs, beside the
/// component, to come to the same answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The job, or the case.
    pub job: Uuid,
    /// What was decided.
    pub kind: Kind,
    /// Which policy decided.
    pub policy: PolicyHash,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// SCALE bytes of the [`Input`].
    pub input: Vec<u8>,
    /// SCALE bytes of the [`Output`].
    pub output: Vec<u8>,
}

impl Decision {
    /// A decision as it was made.
    pub fn new(job: Uuid, policy: PolicyHash, time_ms: u64, input: &Input, output: &Output) -> Self {
        Self { job, kind: input.kind(), policy, time_ms, input: input.encode(), output: output.encode() }
    }

    fn to_bytes(&self) -> Vec<u8> {
        (self.job.as_bytes(), self.kind, self.policy, self.time_ms, &self.input, &self.output).encode()
    }

    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        type Stored = ([u8; 16], Kind, PolicyHash, u64, Vec<u8>, Vec<u8>);
        let (job, kind, policy, time_ms, input, output) = Stored::decode(&mut bytes).ok()?;
        let job = Uuid::from_bytes(job);
        bytes.is_empty().then_some(Self { job, kind, policy, time_ms, input, output })
    }
}

/// What the writer is told.
enum Order {
    Keep(Box<Made>),
    /// Answers when everything before it is on disk.
    Flush(SyncSender<()>),
}

/// A decision before it is encoded, which happens off the caller's path.
struct Made {
    job: Uuid,
    policy: PolicyHash,
    time_ms: u64,
    input: Input,
    output: Output,
}

/// The store of decisions. Dropping it writes what is waiting.
#[derive(Debug)]
pub struct Decisions {
    orders: Option<SyncSender<Order>>,
    writer: Option<JoinHandle<()>>,
    files: Arc<Mutex<Files>>,
    dropped: AtomicU64,
}

impl Decisions {
    /// Opens the store in a folder of its own, or makes it.
    ///
    /// # Errors
    /// [`DecisionsError::Disk`].
    pub fn open(dir: &Path, config: &DecisionsConfig) -> Result<Self, DecisionsError> {
        let disk = |error| DecisionsError::Disk { path: dir.to_owned(), error };
        fs::create_dir_all(dir).map_err(disk)?;
        let files = Files::open(dir, config.segment).map_err(disk)?;
        let files = Arc::new(Mutex::new(files));
        let (orders, receiver) = sync_channel(WAITING);
        let written = files.clone();
        let writer =
            thread::Builder::new().name("policy-decisions".into()).spawn(move || write(&receiver, &written));
        Ok(Self {
            orders: Some(orders),
            writer: Some(writer.map_err(disk)?),
            files,
            dropped: AtomicU64::new(0),
        })
    }

    /// Keeps a decision, if the disk keeps up. Never waits. Returns whether it will be kept.
    pub fn record(&self, job: Uuid, policy: PolicyHash, time_ms: u64, input: Input, output: Output) -> bool {
        let made = Box::new(Made { job, policy, time_ms, input, output });
        let sent = self.orders.as_ref().is_some_and(|orders| orders.try_send(Order::Keep(made)).is_ok());
        if !sent {
            self.dropped.fetch_add(1, Relaxed);
        }
        sent
    }

    /// Decisions that were dropped since the start, because the disk did not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until everything that was recorded before is on disk. Blocks.
    ///
    /// # Errors
    /// [`DecisionsError::Ended`].
    pub fn flush(&self) -> Result<(), DecisionsError> {
        let orders = self.orders.as_ref().ok_or(DecisionsError::Ended)?;
        let (done, wait) = sync_channel(1);
        orders.send(Order::Flush(done)).map_err(|_| DecisionsError::Ended)?;
        wait.recv().map_err(|_| DecisionsError::Ended)
    }

    /// All decisions about a job that are still kept, the latest first. Reads the files: it blocks.
    ///
    /// # Errors
    /// [`DecisionsError::Disk`].
    pub fn find(&self, job: Uuid) -> Result<Vec<Decision>, DecisionsError> {
        self.select(|decision| decision.job == job, usize::MAX)
    }

    /// The latest decisions, the latest first. Reads the files: it blocks.
    ///
    /// # Errors
    /// [`DecisionsError::Disk`].
    pub fn latest(&self, most: usize) -> Result<Vec<Decision>, DecisionsError> {
        self.select(|_| true, most)
    }

    fn select(
        &self,
        wanted: impl Fn(&Decision) -> bool,
        most: usize,
    ) -> Result<Vec<Decision>, DecisionsError> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let disk = |error| DecisionsError::Disk { path: files.dir.clone(), error };
        let mut found = Vec::new();
        for name in [NEW, OLD] {
            let mut of_file = Vec::new();
            segment::scan(&files.dir.join(name), files.most, |bytes| {
                of_file.extend(Decision::from_bytes(bytes).filter(|decision| wanted(decision)));
            })
            .map_err(disk)?;
            found.extend(of_file.into_iter().rev());
        }
        found.truncate(most);
        Ok(found)
    }
}

impl Drop for Decisions {
    fn drop(&mut self) {
        // The writer ends when nobody can send any more.
        self.orders = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

const NEW: &str = "decisions.new";
const OLD: &str = "decisions.old";

#[derive(Debug)]
struct Files {
    dir: PathBuf,
    most: u64,
    current: Segment,
}

impl Files {
    fn open(dir: &Path, most: u64) -> io::Result<Self> {
        let current = Segment::open(&dir.join(NEW), most)?;
        Ok(Self { dir: dir.to_owned(), most, current })
    }

    fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        if !self.current.has_room(payload, self.most) {
            fs::rename(self.dir.join(NEW), self.dir.join(OLD))?;
            self.current = Segment::open(&self.dir.join(NEW), self.most)?;
        }
        self.current.append(payload)
    }
}

fn write(orders: &Receiver<Order>, files: &Mutex<Files>) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Keep(made) => {
                let Made { job, policy, time_ms, input, output } = *made;
                let payload = Decision::new(job, policy, time_ms, &input, &output).to_bytes();
                let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = files.append(&payload) {
                    tracing::warn!(dir = %files.dir.display(), %error, "a decision could not be kept");
                }
            }
            Order::Flush(done) => {
                let files = files.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = files.current.sync() {
                    tracing::warn!(dir = %files.dir.display(), %error, "decisions could not be made durable");
                }
                drop(files);
                // Whoever asked may be gone.
                let _: Result<(), TrySendError<()>> = done.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
