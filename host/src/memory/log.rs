//! The log: every entry of every machine, appended and synced to disk before it counts.
//!
//! Each machine's entries lie in a folder of their own, `DIR/<machine>/<first sequence>.log`, numbered from 1
//! without holes, so that two machines compare what they have by one number per machine. Files are only ever
//! appended to, with two exceptions: a tail that a crash tore off half-written is cut (and kept beside the
//! file), and a hard forget rewrites files without the texts that must go. Nothing unreadable is deleted: it
//! is reported, and everything behind it is still read.
//!
//! [`Log`] writes and is owned by one task; [`Reader`] reads at the same time and can be cloned.

mod erase;
mod error;
mod frame;
mod read;
mod recover;
mod shelf;
#[cfg(test)]
mod tests;
mod verify;
mod write;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::record::{Entry, NodeId};
pub use erase::Erased;
pub use error::{Damage, Gap, LogError, Recovery, Torn};
pub use read::Reader;
pub use shelf::Location;
pub use verify::{Problem, Report, Trouble, Verifying};
use write::Cursor;

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The size, in bytes, from which on a file is left and a new one begun: 64 MiB. Held between 4 KiB and 1
    /// GiB.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20 }
    }
}

/// The log of this machine's memory: what it wrote and what others sent. One process at a time has it open.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    options: Options,
    reader: Reader,
    /// Where each machine's next entry goes.
    cursors: BTreeMap<NodeId, Cursor>,
    /// What could not be read when the log was opened.
    damage: Vec<Damage>,
    /// Set once it is unknown what is on disk: only opening the log again finds out.
    stopped: bool,
    /// Held, locked, for as long as the log is open.
    _lock: File,
    /// Bytes that may still be written before the disk plays full.
    #[cfg(test)]
    budget: Option<u64>,
}

impl Log {
    /// Opens the log in `dir`, creating it if need be, and reads it through once: a torn tail is cut off and
    /// kept beside its file, everything unreadable is reported.
    ///
    /// # Errors
    /// [`LogError::InUse`] if another process has it open; [`LogError::Future`] if a newer program wrote it,
    /// with nothing touched; [`LogError::Io`] if files cannot be read or written.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Recovery), LogError> {
        create_dir(dir)?;
        let lock = lock(dir)?;
        let segment_bytes = options.segment_bytes.clamp(4 << 10, 1 << 30);
        let found = recover::run(dir)?;
        let log = Self {
            dir: dir.to_owned(),
            options: Options { segment_bytes },
            reader: Reader::new(found.shelf),
            cursors: found.cursors,
            damage: found.recovery.damage.clone(),
            stopped: false,
            _lock: lock,
            #[cfg(test)]
            budget: None,
        };
        Ok((log, found.recovery))
    }

    /// A handle that reads this log, from any thread, while it is written.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The folder of the log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The sequence that the next new entry of `origin` must have: one after the highest ever seen.
    pub fn next_sequence(&self, origin: NodeId) -> u64 {
        self.cursors.get(&origin).map_or(1, |cursor| cursor.next)
    }

    /// Makes `sequence` the next of `origin`, leaving out those before it: for a machine that lost entries
    /// which no other machine has either, or for starting from a copy. The gap shows in [`Log::gaps`]. Takes
    /// effect with the next append, and does nothing if `sequence` is not ahead.
    pub fn skip_to(&mut self, origin: NodeId, sequence: u64) {
        let cursor = self.cursors.entry(origin).or_default();
        if sequence > cursor.next {
            *cursor = Cursor { segment: None, next: sequence };
        }
    }

    /// For each machine the sequence up to which everything is here: what it would take to bring this log up
    /// to date starts one later.
    pub fn version_vector(&self) -> BTreeMap<NodeId, u64> {
        self.reader.version_vector()
    }

    /// Sequences that are missing although later ones are here. Appending them fills the gaps.
    pub fn gaps(&self) -> Vec<Gap> {
        self.reader.gaps()
    }

    /// Reads one entry. See [`Reader::read_at`].
    ///
    /// # Errors
    /// As [`Reader::read_at`].
    pub fn read_at(&self, location: Location) -> Result<Entry, LogError> {
        self.reader.read_at(location)
    }

    /// Checks everything. See [`Reader::verify`].
    ///
    /// # Errors
    /// As [`Reader::verify`].
    pub fn verify(&self) -> Result<Report, LogError> {
        self.reader.verify(|_, _| {})
    }

    /// Reads many entries. See [`Reader::for_each`].
    ///
    /// # Errors
    /// As [`Reader::for_each`].
    pub fn for_each(
        &self,
        origin: Option<NodeId>,
        from_sequence: u64,
        visit: impl FnMut(Location, Entry) -> std::ops::ControlFlow<()>,
    ) -> Result<Vec<Damage>, LogError> {
        self.reader.for_each(origin, from_sequence, visit)
    }
}

/// Creates the folder `dir` and what is above it, readable by its owner only, and syncs the folder above.
fn create_dir(dir: &Path) -> Result<(), LogError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(LogError::io(dir))?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Makes the names in a folder durable.
fn sync_dir(dir: &Path) -> Result<(), LogError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(LogError::io(dir))
}

/// Locks the log against other processes, for as long as the file is open.
fn lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(LogError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::InUse { path }),
        Err(TryLockError::Error(source)) => Err(LogError::Io { path, source }),
    }
}

/// The folder of a machine's entries.
fn folder(dir: &Path, origin: NodeId) -> PathBuf {
    dir.join(origin.to_string())
}

/// A path beside `file` that is not taken: its name with `suffix` and a number.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut number = 1_u32;
    loop {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{suffix}-{number}"));
        let path = PathBuf::from(name);
        if number == u32::MAX || !fs::exists(&path).unwrap_or(true) {
            return path;
        }
        number = number.saturating_add(1);
    }
}
