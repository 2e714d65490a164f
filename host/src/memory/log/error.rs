//! What can go wrong with a log, and what was found when it was opened.

use std::io;
use std::path::{Path, PathBuf};

use super::super::record::{CodecError, NodeId};

/// Why a log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another process has the log open.
    #[error(
        "the memory is open in another process (lock {}): stop that one first, or talk to \
         it",
        path.display()
    )]
    InUse {
        /// The file that is locked.
        path: PathBuf,
    },
    /// A newer program wrote the log. Nothing was touched.
    #[error(
        "{} has format {found} and this program reads up to {known}: update potluck; nothing was changed",
        path.display()
    )]
    Future {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this program reads.
        known: u32,
    },
    /// A file belongs to another machine than its folder says. Nothing was touched.
    #[error(
        "{} holds entries of the machine {origin}: move it into the folder of that name; nothing was changed",
        path.display()
    )]
    Misplaced {
        /// The file.
        path: PathBuf,
        /// The machine it belongs to.
        origin: NodeId,
    },
    /// The disk is full. Nothing was kept of what was to be written.
    #[error(
        "there is no room left on the disk of {}: free some and try again; nothing was \
         written",
        path.display()
    )]
    Full {
        /// The file that did not fit.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{} cannot be read or written: {source}; check the disk and the rights to it", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An earlier failure left it unknown what is on disk.
    #[error(
        "the memory stopped writing after a failure of the disk: open it again, so that it finds out what is \
         kept"
    )]
    Stopped,
    /// An entry does not follow the one before it.
    #[error("the entry {found} of {origin} does not follow: fetch those from {expected} first")]
    Gap {
        /// The machine that wrote it.
        origin: NodeId,
        /// The sequence that is next.
        expected: u64,
        /// The sequence given.
        found: u64,
    },
    /// An entry is in the log already.
    #[error("the entry {sequence} of {origin} is in the log already: fetch those from {expected} on")]
    Known {
        /// The machine that wrote it.
        origin: NodeId,
        /// The sequence given.
        sequence: u64,
        /// The sequence that is next.
        expected: u64,
    },
    /// An entry cannot be written as bytes.
    #[error(transparent)]
    Entry(#[from] CodecError),
    /// An entry on disk is not readable any more.
    #[error(
        "the entry at byte {offset} of {} cannot be read ({reason}): fetch it again from another \
         machine",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where its frame starts, in bytes.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A location is not of this log, as it is open now.
    #[error("there is no file {segment} in this log: look the entry up again")]
    NoSegment {
        /// The file, by its number.
        segment: u32,
    },
}

impl LogError {
    /// Turns an error of the system about `path` into one of the log.
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { path: path.to_owned() }
            }
            _ => Self::Io { path: path.to_owned(), source },
        }
    }
}

/// A stretch of a file that cannot be read. It stays where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where the stretch starts, in bytes.
    pub offset: u64,
    /// Its length, in bytes.
    pub len: u64,
    /// The first and last sequence that are lost with it; `None` if no entry is. The last is a guess, and at
    /// least the first, where nothing readable follows.
    pub lost: Option<(u64, u64)>,
}

/// A tail that was cut off, kept in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The file that was cut.
    pub file: PathBuf,
    /// Where it was cut, in bytes.
    pub offset: u64,
    /// How many bytes were cut off.
    pub len: u64,
    /// Where they are kept.
    pub kept: PathBuf,
    /// Whether the tail has the full length of an entry. It may then have been acknowledged before it was
    /// damaged: ask other machines for entries of this origin before writing new ones under the same
    /// sequence.
    pub complete: bool,
}

/// What was found when a log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// How many files there are.
    pub segments: u64,
    /// How many entries can be read.
    pub entries: u64,
    /// Tails that were cut off.
    pub torn: Vec<Torn>,
    /// Stretches that cannot be read.
    pub damage: Vec<Damage>,
    /// Sequences that are missing although later ones are here.
    pub gaps: Vec<Gap>,
    /// Unfinished copies of files that were removed; the originals are whole.
    pub unfinished: Vec<PathBuf>,
}

impl Recovery {
    /// Whether everything that was ever written can be read.
    pub fn is_clean(&self) -> bool {
        self.torn.is_empty() && self.damage.is_empty() && self.gaps.is_empty()
    }
}

/// Sequences of a machine that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Gap {
    /// The machine.
    pub origin: NodeId,
    /// The first that is missing.
    pub first: u64,
    /// The last that is missing.
    pub last: u64,
}
