//! Reading, at the same time as writing.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::super::record::{Entry, MAX_ENTRY, NodeId};
use super::error::{Damage, Gap, LogError};
use super::frame::{self, FRAME};
use super::shelf::{Location, Run, Segment, Shelf};

/// Reads a log that is open, from any thread, also while it is written. Clones share everything.
#[derive(Debug, Clone)]
pub struct Reader {
    shelf: Arc<RwLock<Shelf>>,
}

impl Reader {
    /// A reader of these files.
    pub(super) fn new(shelf: Shelf) -> Self {
        Self { shelf: Arc::new(RwLock::new(shelf)) }
    }

    /// What lies where. The lock is never held while the disk is busy.
    pub(super) fn shelf(&self) -> RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lies where, to change it.
    pub(super) fn shelf_mut(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`super::Log::version_vector`].
    pub fn version_vector(&self) -> BTreeMap<NodeId, u64> {
        self.shelf().version_vector()
    }

    /// See [`super::Log::gaps`].
    pub fn gaps(&self) -> Vec<Gap> {
        self.shelf().gaps()
    }

    /// Reads the entry at `location`: one read of the disk, its checksum compared, its signature not.
    ///
    /// # Errors
    /// [`LogError::NoSegment`] if the location is not of this log, [`LogError::Unreadable`] if it is damaged.
    pub fn read_at(&self, location: Location) -> Result<Entry, LogError> {
        let number = location.segment;
        let segment = self.shelf().segment(number).ok_or(LogError::NoSegment { segment: number })?;
        let unreadable = |reason: String| LogError::Unreadable {
            path: segment.path.clone(),
            offset: location.offset,
            reason,
        };
        let len = usize::try_from(location.len).unwrap_or(usize::MAX);
        if len > MAX_ENTRY {
            return Err(unreadable("its length is not one of an entry".to_owned()));
        }
        let mut bytes = vec![0; FRAME.saturating_add(len)];
        read_exact(&segment, &mut bytes, location.offset)?;
        let frame = frame::frame(&bytes, 0)
            .filter(|frame| frame.end == bytes.len())
            .ok_or_else(|| unreadable("its checksum is wrong".to_owned()))?;
        let entry = frame::entry(frame.payload).map_err(|error| unreadable(error.to_string()))?;
        if entry.origin() == segment.origin {
            Ok(entry)
        } else {
            Err(unreadable("it is of another machine".to_owned()))
        }
    }

    /// Calls `visit` with every entry of `origin` (of all machines, one after the other, if `None`) from
    /// `from_sequence` on, in the order of their sequences, until it breaks. Reads about 64 KiB at a time.
    /// Entries that became unreadable since the log was opened are left out and returned. Entries appended
    /// meanwhile are not visited.
    ///
    /// # Errors
    /// [`LogError::Io`] if the disk does not answer.
    pub fn for_each(
        &self,
        origin: Option<NodeId>,
        from_sequence: u64,
        mut visit: impl FnMut(Location, Entry) -> ControlFlow<()>,
    ) -> Result<Vec<Damage>, LogError> {
        let runs: Vec<Run> = {
            let shelf = self.shelf();
            let wanted = shelf.runs.iter().filter(|(of, _)| origin.is_none_or(|origin| origin == **of));
            wanted.flat_map(|(_, runs)| runs).filter(|run| run.last >= from_sequence).copied().collect()
        };
        let mut damage = Vec::new();
        let mut buffer = Vec::new();
        for run in runs {
            let found = self.shelf().segment(run.segment);
            let segment = found.ok_or(LogError::NoSegment { segment: run.segment })?;
            let len = usize::try_from(run.end.saturating_sub(run.offset)).unwrap_or(usize::MAX);
            buffer.clear();
            buffer.resize(len, 0);
            read_exact(&segment, &mut buffer, run.offset)?;
            if read_run(run, &segment, &buffer, from_sequence, &mut visit, &mut damage).is_break() {
                break;
            }
        }
        Ok(damage)
    }
}

/// Visits the entries of one run, whose bytes are `bytes`.
fn read_run(
    run: Run,
    segment: &Segment,
    bytes: &[u8],
    from_sequence: u64,
    visit: &mut impl FnMut(Location, Entry) -> ControlFlow<()>,
    damage: &mut Vec<Damage>,
) -> ControlFlow<()> {
    let mut at = 0;
    for sequence in run.first..=run.last {
        let offset = run.offset.saturating_add(at as u64);
        let mut lose = |len: usize, last: u64| {
            let file = segment.path.clone();
            damage.push(Damage { file, offset, len: len as u64, lost: Some((sequence, last)) });
        };
        let Some(end) = frame::extent(bytes, at) else {
            // Where the next frame starts is not known any more.
            lose(bytes.len().saturating_sub(at), run.last);
            return ControlFlow::Continue(());
        };
        let len = end.saturating_sub(at);
        if sequence >= from_sequence {
            let found = frame::frame(bytes, at).and_then(|frame| frame::entry(frame.payload).ok());
            let right = |entry: &Entry| entry.sequence() == sequence && entry.origin() == segment.origin;
            match found.filter(right) {
                Some(entry) => {
                    let payload = u32::try_from(len.saturating_sub(FRAME)).unwrap_or(u32::MAX);
                    visit(Location { segment: run.segment, len: payload, offset }, entry)?;
                }
                None => lose(len, sequence),
            }
        }
        at = end;
    }
    ControlFlow::Continue(())
}

/// Reads exactly as many bytes as `buffer` has.
fn read_exact(segment: &Segment, buffer: &mut [u8], offset: u64) -> Result<(), LogError> {
    segment.file.read_exact_at(buffer, offset).map_err(|source| {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            let reason = "the file ends before it".to_owned();
            LogError::Unreadable { path: segment.path.clone(), offset, reason }
        } else {
            LogError::Io { path: segment.path.clone(), source }
        }
    })
}
