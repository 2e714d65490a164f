//! Appending: all entries of a call or none, and on disk before the call returns.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::record::{Entry, NodeId};
use super::error::LogError;
use super::frame::{self, FRAME, HEADER};
use super::shelf::{Location, Segment};
use super::{Log, create_dir, folder, sync_dir};

/// Where a machine's next entry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The file that is appended to and its length in bytes; `None` if the next entry begins a new file.
    pub(super) segment: Option<(u32, u64)>,
    /// The sequence of the next entry.
    pub(super) next: u64,
}

impl Default for Cursor {
    fn default() -> Self {
        Self { segment: None, next: 1 }
    }
}

/// Bytes to write to one file.
#[derive(Debug)]
struct Chunk {
    origin: NodeId,
    path: PathBuf,
    /// The file, if it is there already.
    number: Option<u32>,
    /// The first sequence of the file, if it is new.
    first: u64,
    /// Where to write, in bytes.
    start: u64,
    bytes: Vec<u8>,
    /// Index of the entry in the call, sequence, offset in the file, length.
    frames: Vec<(usize, u64, u64, u32)>,
    /// Whether it fills a gap instead of going on at the end.
    fills: bool,
}

/// What a call will write.
#[derive(Debug, Default)]
struct Plan {
    chunks: Vec<Chunk>,
    /// For each machine its next sequence, and the chunk that is its end.
    ends: BTreeMap<NodeId, (u64, Option<usize>)>,
}

impl Chunk {
    /// The length of the file once the chunk is written.
    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    /// Adds one entry.
    fn push(&mut self, index: usize, sequence: u64, payload: &[u8]) -> Result<(), LogError> {
        let offset = self.end();
        let len = frame::push(&mut self.bytes, payload, 0)?;
        self.frames.push((index, sequence, offset, len));
        Ok(())
    }
}

impl Log {
    /// Appends entries of any machines, in their order, and syncs them to disk: all of them, or none if it
    /// fails. Entries of others must have been verified before. Returns where they lie.
    ///
    /// # Errors
    /// [`LogError::Gap`] or [`LogError::Known`] if an entry does not follow those of its machine (nor fills a
    /// gap); [`LogError::Full`] if the disk is, after which the log works on; [`LogError::Stopped`] after a
    /// failure that leaves open what is on disk.
    pub fn append(&mut self, entries: &[Entry]) -> Result<Vec<Location>, LogError> {
        self.append_as(entries, false)
    }

    /// Appends like [`Log::append`], but entries may leave out some before them: what another machine does not show, or
    /// shows later. The holes are in [`Log::gaps`] and can be filled at any time.
    ///
    /// # Errors
    /// As [`Log::append`], but never [`LogError::Gap`].
    pub fn append_sparse(&mut self, entries: &[Entry]) -> Result<Vec<Location>, LogError> {
        self.append_as(entries, true)
    }

    fn append_as(&mut self, entries: &[Entry], sparse: bool) -> Result<Vec<Location>, LogError> {
        if self.stopped {
            return Err(LogError::Stopped);
        }
        let plan = self.plan(entries, sparse)?;
        let mut done: Vec<Arc<Segment>> = Vec::with_capacity(plan.chunks.len());
        let mut written = Ok(());
        for chunk in &plan.chunks {
            match self.open_chunk(chunk) {
                Ok(segment) => {
                    written = self
                        .write_at(&segment.file, &chunk.bytes, chunk.start)
                        .map_err(LogError::io(&chunk.path));
                    done.push(segment);
                }
                Err(error) => written = Err(error),
            }
            if written.is_err() {
                break;
            }
        }
        if written.is_ok() {
            written = sync(&plan.chunks, &done);
            // After a failed sync the system no longer knows which pages are on disk: do not build on them.
            self.stopped = written.is_err();
        }
        if let Err(error) = written {
            self.stopped |= roll_back(&plan.chunks, &done).is_err();
            return Err(error);
        }
        Ok(self.publish(plan, done))
    }

    /// Lays out which bytes go where.
    fn plan(&self, entries: &[Entry], sparse: bool) -> Result<Plan, LogError> {
        let mut plan = Plan::default();
        let shelf = self.reader.shelf();
        for (index, entry) in entries.iter().enumerate() {
            let (origin, sequence) = (entry.origin(), entry.sequence());
            let payload = entry.encode()?;
            let cursor = self.cursors.get(&origin).copied().unwrap_or_default();
            let (next, end) = plan.ends.get(&origin).copied().unwrap_or((cursor.next, None));
            if sequence > next && !sparse {
                return Err(LogError::Gap { origin, expected: next, found: sequence });
            }
            let fills = sequence < next;
            let mut here =
                plan.chunks.iter().filter(|chunk| chunk.origin == origin).flat_map(|chunk| &chunk.frames);
            if fills
                && (sequence == 0 || shelf.has(origin, sequence) || here.any(|frame| frame.1 == sequence))
            {
                return Err(LogError::Known { origin, sequence, expected: next });
            }
            let len = FRAME.saturating_add(payload.len()) as u64;
            let number = if fills {
                plan.patch(origin, sequence)
            } else {
                end.filter(|end| plan.chunks.get(*end).is_some_and(|chunk| self.fits(chunk.end(), len)))
            };
            let number = match number {
                Some(number) => number,
                None => {
                    let open =
                        cursor.segment.filter(|(_, at)| !fills && end.is_none() && self.fits(*at, len));
                    let open = open.and_then(|(number, at)| Some((number, at, shelf.segment(number)?)));
                    plan.chunks.push(self.chunk(origin, sequence, open, fills));
                    plan.chunks.len().saturating_sub(1)
                }
            };
            if let Some(chunk) = plan.chunks.get_mut(number) {
                chunk.push(index, sequence, &payload)?;
            }
            if !fills {
                plan.ends.insert(origin, (sequence.saturating_add(1), Some(number)));
            }
        }
        Ok(plan)
    }

    /// Whether a file of `at` bytes takes `len` more. The first entry always fits.
    fn fits(&self, at: u64, len: u64) -> bool {
        at <= HEADER as u64 || at.saturating_add(len) <= self.options.segment_bytes
    }

    /// An empty chunk at the end of an open file, or of a new one.
    fn chunk(
        &self,
        origin: NodeId,
        first: u64,
        open: Option<(u32, u64, Arc<Segment>)>,
        fills: bool,
    ) -> Chunk {
        let (number, start, path, bytes) = match open {
            Some((number, start, segment)) => (Some(number), start, segment.path.clone(), Vec::new()),
            None => (None, 0, fresh_path(&folder(&self.dir, origin), first), frame::header(origin, first)),
        };
        Chunk { origin, path, number, first, start, bytes, frames: Vec::new(), fills }
    }

    /// The file of a chunk, created if it is new.
    fn open_chunk(&self, chunk: &Chunk) -> Result<Arc<Segment>, LogError> {
        if let Some(number) = chunk.number {
            return self.reader.shelf().segment(number).ok_or(LogError::NoSegment { segment: number });
        }
        create_dir(&folder(&self.dir, chunk.origin))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&chunk.path)
            .map_err(LogError::io(&chunk.path))?;
        Ok(Arc::new(Segment { path: chunk.path.clone(), file, origin: chunk.origin, first: chunk.first }))
    }

    /// Makes what was written visible to readers.
    fn publish(&mut self, plan: Plan, done: Vec<Arc<Segment>>) -> Vec<Location> {
        let reader = self.reader.clone();
        let mut shelf = reader.shelf_mut();
        let mut locations = Vec::new();
        for (chunk, segment) in plan.chunks.into_iter().zip(done) {
            let number = chunk.number.unwrap_or_else(|| {
                shelf.segments.push(segment);
                u32::try_from(shelf.segments.len().saturating_sub(1)).unwrap_or(u32::MAX)
            });
            let end = chunk.end();
            for (index, sequence, offset, len) in chunk.frames {
                let location = Location { segment: number, len, offset };
                shelf.note(chunk.origin, sequence, location);
                locations.push((index, location));
                if !chunk.fills {
                    let cursor = Cursor { segment: Some((number, end)), next: sequence.saturating_add(1) };
                    self.cursors.insert(chunk.origin, cursor);
                }
            }
        }
        locations.sort_unstable_by_key(|(index, _)| *index);
        locations.into_iter().map(|(_, location)| location).collect()
    }

    /// Writes to a file; in tests the disk may play full.
    pub(super) fn write_at(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(budget) = &mut self.budget {
            let room = usize::try_from(*budget).unwrap().min(bytes.len());
            *budget -= room as u64;
            file.write_all_at(&bytes[..room], at)?;
            return if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) };
        }
        file.write_all_at(bytes, at)
    }
}

impl Plan {
    /// The chunk that fills gaps before `sequence`.
    fn patch(&self, origin: NodeId, sequence: u64) -> Option<usize> {
        self.chunks.iter().position(|chunk| {
            let last = chunk.frames.last().map_or(0, |frame| frame.1);
            chunk.fills && chunk.origin == origin && last < sequence
        })
    }
}

/// A path for a new file that starts with `first`: it may be taken if that entry was lost.
fn fresh_path(folder: &Path, first: u64) -> PathBuf {
    let mut path = folder.join(format!("{first:020}.log"));
    let mut number = 1_u32;
    while number < u32::MAX && fs::exists(&path).unwrap_or(false) {
        path = folder.join(format!("{first:020}-{number}.log"));
        number = number.saturating_add(1);
    }
    path
}

/// Makes the chunks durable, and the names of new files.
fn sync(chunks: &[Chunk], files: &[Arc<Segment>]) -> Result<(), LogError> {
    for (chunk, segment) in chunks.iter().zip(files) {
        segment.file.sync_data().map_err(LogError::io(&chunk.path))?;
        if let Some(folder) = chunk.path.parent().filter(|_| chunk.number.is_none()) {
            sync_dir(folder)?;
        }
    }
    Ok(())
}

/// Takes back what was written: half a call is worth nothing.
fn roll_back(chunks: &[Chunk], files: &[Arc<Segment>]) -> io::Result<()> {
    for (chunk, segment) in chunks.iter().zip(files) {
        match chunk.number {
            Some(_) => segment.file.set_len(chunk.start)?,
            None => fs::remove_file(&chunk.path)?,
        }
    }
    Ok(())
}
