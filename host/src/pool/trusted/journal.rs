//! A file that is only appended to, synced before anything that it holds counts.
//!
//! Header: magic (8 bytes), format (u32), CRC-32 of both (u32). Record: length (u32), CRC-32 of the length and the
//! payload (u32), payload. Numbers are little-endian. A record that a crash tore off is cut, one that the disk
//! damaged is passed over; what is taken out is kept beside the file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"potluckJ";
const FORMAT: u32 = 1;
const HEADER: usize = 16;
const FRAME: usize = 8;

/// Why a file of the pool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refuses.
    #[error("{}: {source}; check the free space and the permissions of its folder", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by another potluck: stop that one first", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Of a newer program.
    #[error("{} was written by a newer potluck (format {found}): update potluck on this machine", path.display())]
    Future {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Not such a file.
    #[error("{} is not a file of potluck: move it away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// An earlier write failed and could not be taken back.
    #[error("{} is in an unknown state after a failed write: restart potluck", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
    },
}

/// The file, open and locked.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    stopped: bool,
}

/// What was found in the file.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The payloads, in order.
    pub(crate) records: Vec<Vec<u8>>,
    /// What was repaired, for people.
    pub(crate) repairs: Vec<String>,
}

impl Journal {
    /// Opens the file, creating it and its folder if need be, and reads it through.
    pub(crate) fn open(path: &Path, cap: usize) -> Result<(Self, Found), JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
        }
        let mut file = open(path).map_err(io)?;
        lock(&file, path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let mut journal = Self { path: path.to_owned(), file, length: 0, stopped: false };
        if bytes.len() < HEADER {
            // A crash while it was made: nothing had been promised yet.
            journal.start().map_err(io)?;
            return Ok((journal, Found::default()));
        }
        check_header(&bytes, path)?;
        let (found, bad, good) = scan(&bytes, cap, path);
        journal.length = good as u64;
        if !bad.is_empty() {
            keep(path, &bad).map_err(io)?;
        }
        if good < bytes.len() {
            journal.file.set_len(journal.length).and_then(|()| journal.file.sync_all()).map_err(io)?;
        }
        Ok((journal, found))
    }

    /// Appends records; when this returns they are on disk, all of them or none.
    pub(crate) fn append(&mut self, records: &[Vec<u8>]) -> Result<(), JournalError> {
        if self.stopped {
            return Err(JournalError::Stopped { path: self.path.clone() });
        }
        let bytes = frames(records).map_err(|source| self.io(source))?;
        let at = self.length;
        let written = self
            .file
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.file.write_all(&bytes))
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // What was half written must not be read back as if it had counted.
            let undone = self.file.set_len(at).and_then(|()| self.file.sync_all());
            self.stopped = undone.is_err();
            return Err(self.io(source));
        }
        self.length = at.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Replaces all records by these; after a crash either the old or the new ones are there.
    pub(crate) fn rewrite(&mut self, records: &[Vec<u8>]) -> Result<(), JournalError> {
        let fresh = self.path.with_extension("new");
        let write = || {
            let _ = fs::remove_file(&fresh);
            let mut file = open(&fresh)?;
            file.write_all(&header())?;
            let bytes = frames(records)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            Ok((file, (HEADER + bytes.len()) as u64))
        };
        let (file, length) = write().map_err(|source| self.io(source))?;
        lock(&file, &self.path)?;
        fs::rename(&fresh, &self.path)
            .and_then(|()| sync_folder(&self.path))
            .map_err(|source| self.io(source))?;
        (self.file, self.length, self.stopped) = (file, length, false);
        Ok(())
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Removes the file.
    pub(crate) fn remove(self) -> Result<(), JournalError> {
        fs::remove_file(&self.path).and_then(|()| sync_folder(&self.path)).map_err(|source| self.io(source))
    }

    fn start(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header())?;
        self.file.sync_all()?;
        self.length = HEADER as u64;
        sync_folder(&self.path)
    }

    fn io(&self, source: io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), source }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(JournalError::Io { path: path.to_owned(), source }),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn header() -> Vec<u8> {
    let mut bytes = [MAGIC.as_slice(), &FORMAT.to_le_bytes()].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn check_header(bytes: &[u8], path: &Path) -> Result<(), JournalError> {
    let foreign = || JournalError::Foreign { path: path.to_owned() };
    let (head, rest) = bytes.split_first_chunk::<12>().ok_or_else(foreign)?;
    let crc = rest.first_chunk::<4>().map(|crc| u32::from_le_bytes(*crc));
    if !head.starts_with(MAGIC) || crc != Some(crc32fast::hash(head)) {
        return Err(foreign());
    }
    match head.last_chunk::<4>().map(|format| u32::from_le_bytes(*format)) {
        Some(FORMAT) => Ok(()),
        found => Err(JournalError::Future { path: path.to_owned(), found: found.unwrap_or_default() }),
    }
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

fn frames(records: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(records.iter().map(|record| record.len() + FRAME).sum());
    for record in records {
        let length = u32::try_from(record.len()).map_err(|_| io::ErrorKind::InvalidInput)?.to_le_bytes();
        bytes.extend(length);
        bytes.extend(checksum(length, record).to_le_bytes());
        bytes.extend(record);
    }
    Ok(bytes)
}

/// A record at the start of `bytes`: whether it is intact, its payload, and what follows it.
fn record(bytes: &[u8], cap: usize) -> Option<(bool, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let size = u32::from_le_bytes(*length) as usize;
    let (payload, rest) = rest.split_at_checked(size).filter(|_| size <= cap)?;
    Some((checksum(*length, payload) == u32::from_le_bytes(*crc), payload, rest))
}

/// The intact records, the bytes that are none, and the length up to which the file is kept.
fn scan(bytes: &[u8], cap: usize, path: &Path) -> (Found, Vec<u8>, usize) {
    let (mut found, mut bad) = (Found::default(), Vec::new());
    let mut rest = bytes.get(HEADER..).unwrap_or_default();
    while !rest.is_empty() {
        match record(rest, cap) {
            Some((true, payload, after)) => {
                found.records.push(payload.to_vec());
                rest = after;
            }
            // Only a record whose length is intact leads to another one.
            Some((false, _, after)) if matches!(record(after, cap), Some((true, ..))) => {
                let gone = rest.len() - after.len();
                bad.extend(rest.get(..gone).unwrap_or_default());
                found.repairs.push(format!("{}: a damaged record was passed over", path.display()));
                rest = after;
            }
            _ => break,
        }
    }
    if !rest.is_empty() {
        bad.extend(rest);
        found.repairs.push(format!("{}: {} bytes of a torn record were cut off", path.display(), rest.len()));
    }
    (found, bad, bytes.len() - rest.len())
}

/// Keeps what is taken out of a file beside it.
fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).append(true).mode(0o600).open(path.with_extension("torn"))?;
    // Bounded: a file that tears again and again does not fill the disk.
    if file.metadata()?.len() < 1 << 20 {
        file.write_all(bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(records: &[&[u8]]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x/j.log");
        let (mut journal, found) = Journal::open(&path, 100).unwrap();
        assert!(found.records.is_empty());
        for record in records {
            journal.append(&[record.to_vec()]).unwrap();
        }
        (dir, path)
    }

    #[test]
    fn a_torn_tail_is_cut_and_kept_and_the_file_goes_on() {
        let (_dir, path) = written(&[b"one", b"two"]);
        let whole = fs::read(&path).unwrap();
        for cut in 1..11 {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (mut journal, found) = Journal::open(&path, 100).unwrap();
            assert_eq!(found.records, [b"one"]);
            assert_eq!(found.repairs.len(), usize::from(cut < 11));
            journal.append(&[b"three".to_vec()]).unwrap();
            drop(journal);
            let (_, found) = Journal::open(&path, 100).unwrap();
            assert_eq!(found.records, [b"one".to_vec(), b"three".to_vec()]);
        }
        assert!(path.with_extension("torn").exists());
    }

    #[test]
    fn a_damaged_record_costs_only_itself() {
        let (_dir, path) = written(&[b"one", b"two", b"three"]);
        let mut bytes = fs::read(&path).unwrap();
        let at = HEADER + FRAME + 3 + FRAME + 1;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (_, found) = Journal::open(&path, 100).unwrap();
        assert_eq!(found.records, [b"one".to_vec(), b"three".to_vec()]);
    }

    #[test]
    fn one_process_at_a_time_and_no_foreign_file() {
        let (_dir, path) = written(&[b"one"]);
        let (mut journal, _) = Journal::open(&path, 100).unwrap();
        assert!(matches!(Journal::open(&path, 100), Err(JournalError::InUse { .. })));
        journal.rewrite(&[b"a".to_vec(), b"b".to_vec()]).unwrap();
        assert!(matches!(Journal::open(&path, 100), Err(JournalError::InUse { .. })));
        journal.append(&[b"c".to_vec()]).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path, 100).unwrap().1.records.len(), 3);
        fs::write(&path, [7; 40]).unwrap();
        assert!(matches!(Journal::open(&path, 100), Err(JournalError::Foreign { .. })));
    }

    proptest! {
        #[test]
        fn any_damage_leaves_only_what_was_written(at in 16..200_usize, mask in 1..=255_u8) {
            let records: [&[u8]; 4] = [b"first", b"second record", b"", b"the fourth of them"];
            let (_dir, path) = written(&records);
            let mut bytes = fs::read(&path).unwrap();
            let at = at % (bytes.len() - HEADER) + HEADER;
            bytes[at] ^= mask;
            fs::write(&path, bytes).unwrap();
            let (_, found) = Journal::open(&path, 100).unwrap();
            prop_assert!(!found.records.is_empty() || at < HEADER + FRAME + 5);
            prop_assert!(found.records.iter().all(|record| records.contains(&record.as_slice())));
        }
    }
}
