//! The full check: every byte, every signature.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::super::record::{Entry, EntryError};
use super::Reader;
use super::error::{Gap, LogError};
use super::frame::{self, Header, Step, Walk};
use super::shelf::Segment;

/// What a full check of the log counted and found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many files were read.
    pub segments: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// How many versions are whole, tombstones included.
    pub versions: u64,
    /// How many embeddings are whole.
    pub vectors: u64,
    /// How many entries are there without their text or rows.
    pub erased: u64,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// Sequences that are missing although later ones are here.
    pub gaps: Vec<Gap>,
}

/// How far a full check is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verifying {
    /// So many files of so many were read.
    Files(u64, u64),
    /// It is done.
    Done(Report),
}

/// Something wrong at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Where, in bytes.
    pub offset: u64,
    /// The sequence concerned, if it is known.
    pub sequence: Option<u64>,
    /// What it is.
    #[serde(serialize_with = "in_words")]
    pub trouble: Trouble,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The header of the file is damaged.
    #[error("the header of the file is damaged; its entries are read by the names of file and folder")]
    Header,
    /// Bytes that are no entry.
    #[error("{len} bytes cannot be read: fetch the missing entries from another machine")]
    Unreadable {
        /// How many.
        len: u64,
    },
    /// An entry of a newer program.
    #[error("an entry is of a newer format: update potluck")]
    Future,
    /// An entry that is not what its origin signed.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// An entry in the folder of another machine.
    #[error("the entry belongs to another machine than the folder: fetch it again")]
    Origin,
    /// An entry twice in the log.
    #[error("the entry is in the log more than once, here not for the first time")]
    Twice,
}

fn in_words<S: Serializer>(trouble: &Trouble, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(trouble)
}

impl Report {
    /// Whether nothing is wrong or missing.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.gaps.is_empty()
    }
}

impl Reader {
    /// Reads everything and checks checksums, encodings, signatures, hashes and sequences, and says after each file
    /// how many there are of how many. Takes long; what is written meanwhile is left out.
    ///
    /// # Errors
    /// [`LogError::Io`] if the disk does not answer. What is wrong with the log is in the report.
    pub fn verify(&self, progress: impl Fn(u64, u64)) -> Result<Report, LogError> {
        let segments: Vec<(Arc<Segment>, Option<u64>)> = {
            let shelf = self.shelf();
            (0..)
                .zip(&shelf.segments)
                .map(|(number, segment)| (Arc::clone(segment), shelf.growing_end(number)))
                .collect()
        };
        let mut report = Report { gaps: self.gaps(), ..Report::default() };
        for (number, (segment, end)) in segments.iter().enumerate() {
            let mut bytes = fs::read(&segment.path).map_err(LogError::io(&segment.path))?;
            if let Some(end) = end.and_then(|end| usize::try_from(end).ok()) {
                bytes.truncate(end);
            }
            self.check(number, segment, &bytes, &mut report);
            progress(number as u64 + 1, segments.len() as u64);
        }
        Ok(report)
    }

    /// Checks one file.
    fn check(&self, number: usize, segment: &Segment, bytes: &[u8], report: &mut Report) {
        report.segments = report.segments.saturating_add(1);
        report.bytes = report.bytes.saturating_add(bytes.len() as u64);
        let mut problems = Vec::new();
        let mut note = |offset: usize, sequence, trouble| {
            let file = segment.path.clone();
            problems.push(Problem { file, offset: offset as u64, sequence, trouble });
        };
        let expected = Header::Valid { origin: segment.origin, first: segment.first };
        if frame::read_header(bytes) != expected {
            note(0, None, Trouble::Header);
        }
        for step in Walk::new(bytes, segment.origin, segment.first) {
            match step {
                Step::Unreadable { offset, end, .. } => {
                    note(offset, None, Trouble::Unreadable { len: end.saturating_sub(offset) as u64 });
                }
                Step::Future { .. } => note(bytes.len(), None, Trouble::Future),
                Step::Frame { offset, frame, peek } => {
                    let sequence = Some(peek.sequence);
                    match checked(frame.payload) {
                        Err(error) => note(offset, sequence, error.into()),
                        Ok(entry) if entry.origin() != segment.origin => {
                            note(offset, sequence, Trouble::Origin)
                        }
                        Ok(entry) if entry.is_erased() => report.erased = report.erased.saturating_add(1),
                        Ok(Entry::Version(_)) => report.versions = report.versions.saturating_add(1),
                        Ok(Entry::Vectors(_)) => report.vectors = report.vectors.saturating_add(1),
                    }
                    if self.shelf().holder(segment.origin, peek.sequence) != u32::try_from(number).ok() {
                        note(offset, sequence, Trouble::Twice);
                    }
                }
            }
        }
        report.problems.extend(problems);
    }
}

/// The entry of a payload, verified.
fn checked(payload: &[u8]) -> Result<Entry, EntryError> {
    let entry = frame::entry(payload)?;
    entry.verify()?;
    Ok(entry)
}
