//! The order in which versions arrived here: what ordinals, and with them all indexes, are numbered by.
//!
//! Entries of 24 bytes: id 16, passages u16, spans u16, checksum of these u32; a torn last entry is dropped. The
//! file can be lost: then every index is rebuilt from the log in a new order.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use super::{record::RecordId, table::Parts};

const ENTRY: usize = 24;

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct Arrivals {
    file: File,
}

impl Arrivals {
    /// Opens or makes the file and reads it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<(RecordId, Parts)>)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let known: Vec<_> = bytes.chunks_exact(ENTRY).map_while(decode).collect();
        let good = (known.len() * ENTRY) as u64;
        file.set_len(good)?;
        file.seek(SeekFrom::Start(good))?;
        Ok((Self { file }, known))
    }

    /// Appends entries; they are safe after [`Arrivals::sync`].
    pub(super) fn append(&mut self, entries: &[(RecordId, Parts)]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
        for (id, parts) in entries {
            let start = bytes.len();
            bytes.extend_from_slice(id.0.as_bytes());
            bytes.extend_from_slice(&parts.passages.to_le_bytes());
            bytes.extend_from_slice(&parts.spans.to_le_bytes());
            let sum = crc32fast::hash(bytes.get(start..).unwrap_or_default());
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        self.file.write_all(&bytes)
    }

    /// Flushes to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// A second handle, to flush from another thread.
    pub(super) fn handle(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()? })
    }
}

fn decode(entry: &[u8]) -> Option<(RecordId, Parts)> {
    let (data, sum) = entry.split_at_checked(20)?;
    if crc32fast::hash(data) != u32::from_le_bytes(sum.try_into().ok()?) {
        return None;
    }
    let (id, parts) = data.split_at_checked(16)?;
    let (passages, spans) = parts.split_at_checked(2)?;
    let id = RecordId(uuid::Uuid::from_bytes(id.try_into().ok()?));
    let passages = u16::from_le_bytes(passages.try_into().ok()?);
    let spans = u16::from_le_bytes(spans.try_into().ok()?);
    Some((id, Parts { passages, spans }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_wrong_entry_ends_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arrivals");
        let (mut file, known) = Arrivals::open(&path).unwrap();
        assert!(known.is_empty());
        let entries: Vec<_> = (0..5_u16)
            .map(|n| (RecordId(uuid::Uuid::from_u128(u128::from(n))), Parts { passages: n, spans: n + 1 }))
            .collect();
        file.append(&entries).unwrap();
        file.sync().unwrap();
        assert_eq!(Arrivals::open(&path).unwrap().1, entries);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 1);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Arrivals::open(&path).unwrap().1, entries[..4]);
        bytes[2 * ENTRY + 3] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (mut file, known) = Arrivals::open(&path).unwrap();
        assert_eq!(known, entries[..2]);
        file.append(&entries[2..]).unwrap();
        assert_eq!(Arrivals::open(&path).unwrap().1, entries);
    }
}
