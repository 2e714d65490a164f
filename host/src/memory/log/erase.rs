//! Hard forgetting: texts and vectors leave the disk, headers and signatures stay.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::record::{CodecError, Entry, RecordId};
use super::error::{Damage, LogError};
use super::frame::{self, FRAME, Step, Walk};
use super::shelf::Segment;
use super::{Log, sync_dir};

/// What a hard forget did, and what it could not reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erased {
    /// How many versions lost their text.
    pub versions: u64,
    /// How many embeddings lost their rows.
    pub vectors: u64,
    /// The versions asked for that are not in the log, or already without text.
    pub without: Vec<RecordId>,
    /// How many files were written anew.
    pub segments: u64,
    /// Files beside the log, kept from crashes, that may still hold the text: look at them and delete them.
    pub aside: Vec<PathBuf>,
    /// Stretches of the log that cannot be read and may still hold the text.
    pub unreadable: Vec<Damage>,
}

impl Log {
    /// Erases the texts of these versions and the rows of their embeddings. Each file that holds some is
    /// written anew and takes the old one's place in one step: a crash leaves the old or the new. Locations
    /// stay right and signatures still verify. Reads the whole log once.
    ///
    /// # Errors
    /// [`LogError::Full`] or [`LogError::Io`] if a file cannot be written; those before it are done, and
    /// calling again does the rest.
    pub fn erase(&mut self, versions: &[RecordId]) -> Result<Erased, LogError> {
        if self.stopped {
            return Err(LogError::Stopped);
        }
        let wanted: HashSet<RecordId> = versions.iter().copied().collect();
        let mut missing = wanted.clone();
        let mut erased = Erased { unreadable: self.damage.clone(), ..Erased::default() };
        let segments = self.reader.shelf().segments.clone();
        for (number, old) in segments.iter().enumerate() {
            let bytes = fs::read(&old.path).map_err(LogError::io(&old.path))?;
            let Some(bytes) = without(bytes, old, &wanted, &mut missing, &mut erased)? else { continue };
            let fresh = self.replace(old, &bytes)?;
            erased.segments = erased.segments.saturating_add(1);
            if let Some(place) = self.reader.shelf_mut().segments.get_mut(number) {
                *place = Arc::new(fresh);
            }
        }
        erased.without = missing.into_iter().collect();
        erased.without.sort_unstable();
        erased.aside = aside(&self.dir)?;
        Ok(erased)
    }

    /// Puts a file of these bytes in the place of `old`.
    fn replace(&mut self, old: &Segment, bytes: &[u8]) -> Result<Segment, LogError> {
        let mut temporary = old.path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let result = self.write_copy(&temporary, &old.path, bytes);
        if result.is_err() {
            // If this fails, too, opening the log removes it.
            let _ = fs::remove_file(&temporary);
        }
        let file = result.map_err(LogError::io(&old.path))?;
        if let Some(folder) = old.path.parent() {
            sync_dir(folder)?;
        }
        Ok(Segment { path: old.path.clone(), file, origin: old.origin, first: old.first })
    }

    /// Writes bytes to a temporary file, syncs it, and gives it its name.
    fn write_copy(&mut self, temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<fs::File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(temporary)?;
        self.write_at(&file, bytes, 0)?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        Ok(file)
    }
}

/// The bytes of a segment without what is to be erased; `None` if there is nothing of it in there.
fn without(
    mut bytes: Vec<u8>,
    segment: &Segment,
    wanted: &HashSet<RecordId>,
    missing: &mut HashSet<RecordId>,
    erased: &mut Erased,
) -> Result<Option<Vec<u8>>, LogError> {
    let mut changes = Vec::new();
    for step in Walk::new(&bytes, segment.origin, segment.first) {
        let Step::Frame { offset, frame, peek } = step else { continue };
        if !peek.version.is_some_and(|id| wanted.contains(&id)) {
            continue;
        }
        let unreadable = |error: CodecError| LogError::Unreadable {
            path: segment.path.clone(),
            offset: offset as u64,
            reason: error.to_string(),
        };
        let entry = frame::entry(frame.payload).map_err(unreadable)?;
        if entry.is_erased() {
            continue;
        }
        match &entry {
            Entry::Version(version) if version.header.is_tombstone() => continue,
            Entry::Version(version) => {
                missing.remove(&version.header.id);
                erased.versions = erased.versions.saturating_add(1);
            }
            Entry::Vectors(_) => erased.vectors = erased.vectors.saturating_add(1),
        }
        let payload = entry.erased().encode()?;
        let mut fresh = Vec::with_capacity(FRAME.saturating_add(frame.payload.len()));
        frame::push(&mut fresh, &payload, frame.payload.len())?;
        changes.push((offset, fresh));
    }
    if changes.is_empty() {
        return Ok(None);
    }
    for (offset, fresh) in changes {
        // The same length as before, so that everything keeps its place.
        if let Some(place) = bytes.get_mut(offset..offset.saturating_add(fresh.len())) {
            place.copy_from_slice(&fresh);
        }
    }
    Ok(Some(bytes))
}

/// Files that were kept beside the log's own.
fn aside(dir: &Path) -> Result<Vec<PathBuf>, LogError> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).map_err(LogError::io(dir))? {
        let folder = item.map_err(LogError::io(dir))?.path();
        if !folder.is_dir() {
            continue;
        }
        for file in fs::read_dir(&folder).map_err(LogError::io(&folder))? {
            let path = file.map_err(LogError::io(&folder))?.path();
            if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains(".log.torn-"))
            {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}
