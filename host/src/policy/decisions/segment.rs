//! A file of records: a mark, the length and a checksum before each.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

/// How a record begins.
const MARK: [u8; 4] = *b"plkd";
/// Mark, length and checksum.
const HEAD: usize = 12;
/// Longest record, in bytes: the largest question and answer with room to spare.
const MAX_RECORD: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    len: u64,
}

impl Segment {
    /// Opens a file to write behind its last whole record, or makes it. `most` bounds what is read of it.
    pub(super) fn open(path: &Path, most: u64) -> io::Result<Self> {
        let end = scan(path, most, |_| {})?;
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        // A torn record at the end is cut off; one in the middle is passed over by whoever reads.
        file.set_len(end)?;
        Ok(Self { file, len: end })
    }

    pub(super) fn has_room(&self, payload: &[u8], most: u64) -> bool {
        let len = u64::try_from(payload.len() + HEAD).unwrap_or(u64::MAX);
        self.len == 0 || self.len.saturating_add(len) <= most
    }

    pub(super) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "the decision is too long");
        if payload.len() > MAX_RECORD {
            return Err(too_long());
        }
        let len = u32::try_from(payload.len()).map_err(|_| too_long())?;
        let mut record = Vec::with_capacity(HEAD + payload.len());
        record.extend(MARK);
        record.extend(len.to_le_bytes());
        record.extend(checksum(len, payload).to_le_bytes());
        record.extend(payload);
        self.file.write_all(&record)?;
        self.len = self.len.saturating_add(u64::try_from(record.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn checksum(len: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Shows all whole records of a file, and returns where the last of them ends. A file that is not there is empty.
pub(super) fn scan(path: &Path, most: u64, mut show: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut bytes = Vec::new();
    match File::open(path) {
        // A single record may be longer than the bound on the file.
        Ok(file) => {
            file.take(most.saturating_add(MAX_RECORD as u64 + HEAD as u64)).read_to_end(&mut bytes)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let (mut rest, mut end) = (bytes.as_slice(), 0);
    while !rest.is_empty() {
        if let Some((payload, after)) = record(rest) {
            show(payload);
            rest = after;
            end = bytes.len() - rest.len();
        } else {
            // Spoiled: the next record begins at the next mark.
            let skip = rest.windows(MARK.len()).skip(1).position(|window| window == MARK);
            let Some(skip) = skip else { break };
            rest = rest.get(skip + 1..).unwrap_or_default();
        }
    }
    Ok(u64::try_from(end).unwrap_or(0))
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&MARK)?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len);
    let size = usize::try_from(len).ok().filter(|size| *size <= MAX_RECORD)?;
    let (payload, rest) = rest.split_at_checked(size)?;
    (checksum(len, payload) == u32::from_le_bytes(*crc)).then_some((payload, rest))
}
