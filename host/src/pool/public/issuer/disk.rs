//! Lines of a journal: what an issuer, a purse and a till never forget.

use std::path::Path;

use parity_scale_codec::{Decode, Encode};
use potluck_chain_client::journal::{Journal, JournalError};

/// Length from which on a file is written anew, in bytes, unless that would not make it much shorter.
const COMPACT: u64 = 4 << 20;

/// Why a durable file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A line of it makes no sense.
    #[error("{path} holds a line that this potluck does not know (number {line}): update potluck")]
    Unknown {
        /// The file.
        path: String,
        /// Which line.
        line: usize,
    },
}

/// A journal whose lines are of one kind.
#[derive(Debug)]
pub(crate) struct Disk {
    journal: Journal,
    compact_at: u64,
}

impl Disk {
    /// Opens the file and reads its lines.
    pub(crate) fn open<L: Decode>(path: &Path) -> Result<(Self, Vec<L>), DiskError> {
        let (journal, records) = Journal::open(path)?;
        let line = |(number, bytes): (usize, &Vec<u8>)| {
            let mut rest = bytes.as_slice();
            let line = L::decode(&mut rest).ok().filter(|_| rest.is_empty());
            line.ok_or_else(|| DiskError::Unknown { path: path.display().to_string(), line: number + 1 })
        };
        let lines = records.iter().enumerate().map(line).collect::<Result<_, _>>()?;
        Ok((Self { journal, compact_at: COMPACT }, lines))
    }

    /// Appends a line; when this returns it is on disk.
    pub(crate) fn append(&mut self, line: &impl Encode) -> Result<(), DiskError> {
        fault::step(self.journal.path())?;
        self.journal.append(&line.encode())?;
        Ok(fault::step(self.journal.path())?)
    }

    /// Whether it is time to write it anew.
    pub(crate) fn is_long(&self) -> bool {
        self.journal.size() > self.compact_at
    }

    /// Writes it anew: these lines instead of all others.
    pub(crate) fn rewrite<L: Encode>(&mut self, lines: impl Iterator<Item = L>) -> Result<(), DiskError> {
        fault::step(self.journal.path())?;
        let records: Vec<Vec<u8>> = lines.map(|line| line.encode()).collect();
        self.journal.rewrite(records.iter().map(Vec::as_slice))?;
        self.compact_at = COMPACT.max(self.journal.size().saturating_mul(2));
        Ok(fault::step(self.journal.path())?)
    }
}

/// Where tests may end the world.
#[cfg(not(test))]
mod fault {
    use std::path::Path;

    use potluck_chain_client::journal::JournalError;

    #[expect(clippy::unnecessary_wraps, reason = "fails in tests")]
    pub(super) fn step(_: &Path) -> Result<(), JournalError> {
        Ok(())
    }
}

/// Lets tests end the world of one file before or after any of its writes.
#[cfg(test)]
pub(crate) mod fault {
    use std::{
        collections::HashMap,
        path::{Path, PathBuf},
        sync::{LazyLock, Mutex},
    };

    use potluck_chain_client::journal::JournalError;

    static LEFT: LazyLock<Mutex<HashMap<PathBuf, u32>>> = LazyLock::new(Mutex::default);

    /// Lets `steps` steps of a file succeed and all later ones fail; `None` lets all succeed.
    pub(crate) fn after(path: &Path, steps: Option<u32>) {
        let mut left = LEFT.lock().unwrap();
        match steps {
            Some(steps) => left.insert(path.to_owned(), steps),
            None => left.remove(path),
        };
    }

    /// Whether the world of a file has ended.
    pub(crate) fn is_dead(path: &Path) -> bool {
        LEFT.lock().unwrap().get(path) == Some(&0)
    }

    pub(crate) fn step(path: &Path) -> Result<(), JournalError> {
        match LEFT.lock().unwrap().get_mut(path) {
            Some(0) => Err(JournalError::Stopped { path: path.to_owned() }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
