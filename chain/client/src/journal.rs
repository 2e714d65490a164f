//! A file that is only appended to, synced before anything that it holds counts.
//!
//! Header: magic (8 bytes) and format (u32). Record: length (u32), check of the length (4 bytes), check of the payload
//! (8 bytes), payload. Numbers are little-endian, checks the first bytes of BLAKE2b-256 over the record's offset and
//! what is checked, so that neither a record nor a part of one is taken for another. What a crash tore off at the end
//! is cut. Damage anywhere else is an error: what such a file holds is money, and nothing of it is passed over.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use potluck_primitives::blake2_256;

const MAGIC: &[u8; 8] = b"potluckM";
const FORMAT: u32 = 1;
const HEADER: usize = 12;
const FRAME: usize = 16;
/// Longest payload, in bytes.
pub const MAX_RECORD: usize = 64 << 10;
/// Largest file that is read, in bytes; far beyond what compaction lets one grow to.
pub const MAX_FILE: u64 = 256 << 20;

/// Why a durable file cannot be used.
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
    /// Not such a file, or one of a newer program.
    #[error("{} is not a file of this potluck: update potluck, or move the file away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Damaged where no crash could have damaged it.
    #[error(
        "{} is damaged at byte {at}: restore it from a backup; moving it away loses what was under way",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// A record or the file would be too long.
    #[error("{} cannot hold {bytes} bytes more", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// How long the record is.
        bytes: usize,
    },
    /// An earlier write failed and could not be taken back.
    #[error("{} is in an unknown state after a failed write: restart potluck", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
    },
}

/// The file, open and locked for this process.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    stopped: bool,
}

impl Journal {
    /// Opens the file, creating it and its folder if need be, and gives the payloads that it holds, in order.
    ///
    /// # Errors
    /// Any [`JournalError`] but [`JournalError::TooLong`].
    pub fn open(path: &Path) -> Result<(Self, Vec<Vec<u8>>), JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
        }
        let mut file = open(path).map_err(io)?;
        lock(&file, path)?;
        if file.metadata().map_err(io)?.len() > MAX_FILE {
            return Err(JournalError::Damaged { path: path.to_owned(), at: MAX_FILE });
        }
        let mut bytes = Vec::new();
        (&mut file).take(MAX_FILE).read_to_end(&mut bytes).map_err(io)?;
        let mut journal = Self { path: path.to_owned(), file, length: 0, stopped: false };
        if bytes.len() < HEADER {
            // A crash while it was made: nothing had been promised yet.
            if !header().starts_with(&bytes) && bytes.iter().any(|byte| *byte != 0) {
                return Err(JournalError::Foreign { path: path.to_owned() });
            }
            journal.start().map_err(io)?;
            return Ok((journal, Vec::new()));
        }
        if !bytes.starts_with(&header()) {
            return Err(JournalError::Foreign { path: path.to_owned() });
        }
        let (records, good) =
            scan(&bytes).map_err(|at| JournalError::Damaged { path: path.to_owned(), at: at as u64 })?;
        journal.length = good as u64;
        if good < bytes.len() {
            fault::step().map_err(io)?;
            journal.file.set_len(journal.length).and_then(|()| journal.file.sync_all()).map_err(io)?;
        }
        Ok((journal, records))
    }

    /// Appends a record; when this returns it is on disk.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::TooLong`], [`JournalError::Stopped`]; the record is then not there.
    pub fn append(&mut self, payload: &[u8]) -> Result<(), JournalError> {
        if self.stopped {
            return Err(JournalError::Stopped { path: self.path.clone() });
        }
        let at = self.length;
        let bytes = frame(payload, at).ok_or_else(|| self.too_long(payload.len()))?;
        let length = at.saturating_add(bytes.len() as u64);
        if length > MAX_FILE {
            return Err(self.too_long(payload.len()));
        }
        // Whatever goes wrong from here on, the file's end is unknown until it has been taken back.
        self.stopped = true;
        let written = fault::step()
            .and_then(|()| self.file.seek(SeekFrom::Start(at)))
            .and_then(|_| fault::write(&mut self.file, &bytes))
            .and_then(|()| fault::step())
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            let undone =
                fault::step().and_then(|()| self.file.set_len(at)).and_then(|()| self.file.sync_all());
            self.stopped = undone.is_err();
            return Err(self.io(source));
        }
        (self.length, self.stopped) = (length, false);
        Ok(())
    }

    /// Replaces all records by these; after a crash either the old or the new ones are there.
    ///
    /// # Errors
    /// [`JournalError::Io`] and [`JournalError::TooLong`]; the old ones are then still there.
    pub fn rewrite<'a>(&mut self, records: impl IntoIterator<Item = &'a [u8]>) -> Result<(), JournalError> {
        let mut bytes = header();
        for record in records {
            let framed = frame(record, bytes.len() as u64).ok_or_else(|| self.too_long(record.len()))?;
            bytes.extend(framed);
        }
        let fresh = self.path.with_extension("new");
        let write = || {
            let _ = fs::remove_file(&fresh);
            fault::step()?;
            let mut file = open(&fresh)?;
            fault::write(&mut file, &bytes)?;
            fault::step()?;
            file.sync_all()?;
            Ok(file)
        };
        let file = write().map_err(|source| self.io(source))?;
        lock(&file, &self.path)?;
        fault::step()
            .and_then(|()| fs::rename(&fresh, &self.path))
            .and_then(|()| fault::step())
            .and_then(|()| sync_folder(&self.path))
            .map_err(|source| {
                // Which of both files has the name is not known now.
                self.stopped = true;
                self.io(source)
            })?;
        (self.file, self.length, self.stopped) = (file, bytes.len() as u64, false);
        Ok(())
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.length
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn start(&mut self) -> io::Result<()> {
        fault::step()?;
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        fault::write(&mut self.file, &header())?;
        self.file.sync_all()?;
        self.length = HEADER as u64;
        sync_folder(&self.path)
    }

    fn io(&self, source: io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), source }
    }

    fn too_long(&self, bytes: usize) -> JournalError {
        JournalError::TooLong { path: self.path.clone(), bytes }
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
    [MAGIC.as_slice(), &FORMAT.to_le_bytes()].concat()
}

fn check<const N: usize>(at: u64, bytes: &[u8]) -> [u8; N] {
    let hash = blake2_256(&[&at.to_le_bytes(), bytes]);
    hash.first_chunk::<N>().copied().unwrap_or([0; N])
}

fn frame(payload: &[u8], at: u64) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_RECORD)?.to_le_bytes();
    let mut bytes = Vec::with_capacity(FRAME + payload.len());
    bytes.extend(length);
    bytes.extend(check::<4>(at, &length));
    bytes.extend(check::<8>(at, payload));
    bytes.extend(payload);
    Some(bytes)
}

/// The payloads and where the last whole one ends; the error says where it is damaged.
fn scan(bytes: &[u8]) -> Result<(Vec<Vec<u8>>, usize), usize> {
    let mut records = Vec::new();
    let mut at = HEADER;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match whole(rest, at) {
            Some(payload) => {
                records.push(payload.to_vec());
                at += FRAME + payload.len();
            }
            None if is_torn(rest, at) => break,
            None => return Err(at),
        }
    }
    Ok((records, at))
}

/// The payload of the record that begins here, if a whole one does.
fn whole(rest: &[u8], at: usize) -> Option<&[u8]> {
    let (head, after) = rest.split_first_chunk::<FRAME>()?;
    let (length, sums) = head.split_first_chunk::<4>()?;
    let (first, second) = sums.split_first_chunk::<4>()?;
    if check::<4>(at as u64, length) != *first {
        return None;
    }
    let payload = after.get(..u32::from_le_bytes(*length) as usize)?;
    (check::<8>(at as u64, payload) == *second).then_some(payload)
}

/// Whether this may be what a crash left of the last record: not longer than one, and none behind it. Its blocks
/// may have reached the disk in any order, and the file may be longer than what was written.
fn is_torn(rest: &[u8], at: usize) -> bool {
    let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let behind = |offset: usize| rest.get(offset..).and_then(|rest| whole(rest, at + offset)).is_some();
    used <= FRAME + MAX_RECORD && !(1..used).any(behind)
}

/// Where tests may end the world.
#[cfg(not(any(test, feature = "proxy")))]
mod fault {
    use std::{fs::File, io, io::Write};

    #[expect(clippy::unnecessary_wraps, reason = "fails in tests")]
    pub(super) fn step() -> io::Result<()> {
        Ok(())
    }

    pub(super) fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }
}

/// Lets tests end the world at any file operation of this thread.
#[cfg(any(test, feature = "proxy"))]
#[allow(clippy::module_name_repetitions, reason = "the same names as where nothing fails")]
pub mod fault {
    use std::{cell::Cell, fs::File, io, io::Write};

    thread_local!(static LEFT: Cell<Option<u32>> = const { Cell::new(None) });

    /// Lets `steps` operations of this thread succeed and all later ones fail; `None` lets all succeed.
    pub fn after(steps: Option<u32>) {
        LEFT.set(steps);
    }

    pub(super) fn step() -> io::Result<()> {
        match LEFT.get() {
            Some(0) => Err(io::Error::other("crashed")),
            left => {
                LEFT.set(left.map(|n| n - 1));
                Ok(())
            }
        }
    }

    /// Writes; at the end of the world only half of it.
    pub(super) fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
        match step() {
            Ok(()) => file.write_all(bytes),
            Err(error) => {
                let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
                file.write_all(half)?;
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("folder/a.journal")
    }

    fn read(path: &Path) -> Vec<Vec<u8>> {
        Journal::open(path).unwrap().1
    }

    #[test]
    fn records_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, found) = Journal::open(&path(&dir)).unwrap();
        assert!(found.is_empty());
        for record in [&b"one"[..], b"", b"three"] {
            journal.append(record).unwrap();
        }
        assert!(matches!(Journal::open(&path(&dir)), Err(JournalError::InUse { .. })));
        drop(journal);
        assert_eq!(read(&path(&dir)), [&b"one"[..], b"", b"three"]);
        let (mut journal, _) = Journal::open(&path(&dir)).unwrap();
        journal.rewrite([&b"new"[..]]).unwrap();
        journal.append(b"after").unwrap();
        drop(journal);
        assert_eq!(read(&path(&dir)), [b"new".to_vec(), b"after".to_vec()]);
    }

    #[test]
    fn a_crash_anywhere_leaves_what_had_been_promised() {
        for steps in 0..40 {
            let dir = tempfile::tempdir().unwrap();
            fault::after(Some(steps));
            let mut promised = 0_u32;
            let mut tried = 0_u32;
            let _: Result<(), JournalError> = (|| {
                let (mut journal, _) = Journal::open(&path(&dir))?;
                for n in 0..8_u32 {
                    tried = n + 1;
                    journal.append(&n.to_le_bytes())?;
                    promised = n + 1;
                    if n == 4 {
                        let all: Vec<_> = (0..=n).map(|n| n.to_le_bytes()).collect();
                        journal.rewrite(all.iter().map(|n| &n[..]))?;
                    }
                }
                Ok(())
            })();
            fault::after(None);
            let found = read(&path(&dir));
            let numbers: Vec<_> =
                found.iter().map(|record| u32::from_le_bytes(record[..].try_into().unwrap())).collect();
            assert_eq!(numbers, (0..numbers.len() as u32).collect::<Vec<_>>(), "after {steps} steps");
            assert!((promised..=tried).contains(&(numbers.len() as u32)), "after {steps} steps");
        }
    }

    #[test]
    fn damage_in_the_middle_is_no_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(&path(&dir)).unwrap();
        let first = journal.size() as usize;
        journal.append(b"owed").unwrap();
        let second = journal.size() as usize;
        journal.append(b"paid").unwrap();
        drop(journal);
        let whole = fs::read(path(&dir)).unwrap();
        for at in first..second {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(path(&dir), bytes).unwrap();
            assert!(matches!(Journal::open(&path(&dir)), Err(JournalError::Damaged { .. })), "byte {at}");
        }
        for cut in second..whole.len() {
            fs::write(path(&dir), &whole[..cut]).unwrap();
            assert_eq!(read(&path(&dir)), [b"owed"], "cut at {cut}");
        }
        fs::write(path(&dir), [&whole[..], &[0; 4096]].concat()).unwrap();
        assert_eq!(read(&path(&dir)).len(), 2, "zeros behind the end");
        fs::write(path(&dir), b"something else entirely").unwrap();
        assert!(matches!(Journal::open(&path(&dir)), Err(JournalError::Foreign { .. })));
    }

    #[test]
    fn a_record_that_is_too_long_is_refused_and_the_file_stays_good() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(&path(&dir)).unwrap();
        assert!(matches!(journal.append(&vec![0; MAX_RECORD + 1]), Err(JournalError::TooLong { .. })));
        journal.append(&vec![7; MAX_RECORD]).unwrap();
        drop(journal);
        assert_eq!(read(&path(&dir)), [vec![7; MAX_RECORD]]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(path(&dir).parent().unwrap()).unwrap();
            fs::write(path(&dir), [header(), tail].concat()).unwrap();
            if let Ok((_, records)) = Journal::open(&path(&dir)) {
                prop_assert!(records.is_empty(), "random bytes are no record");
            }
        }
    }
}
