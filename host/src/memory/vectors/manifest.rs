//! The manifest: which segments count, what was removed from them, and what is lost.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;

use super::Shape;
use super::error::Error;
use super::files;
use super::segment::Fields;

const MAGIC: [u8; 8] = *b"PLVECMAN";
const VERSION: u32 = 1;

/// Where the manifest of a store lies.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("manifest")
}

/// A segment that counts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) count: u32,
    pub(super) first: u32,
    pub(super) last: u32,
    /// Checksum of the segment's header.
    pub(super) sum: u32,
    /// Units that were removed from it.
    pub(super) dead: RoaringBitmap,
}

/// What a store is, in one file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Manifest {
    pub(super) mark: u64,
    pub(super) next_id: u64,
    pub(super) lost: RoaringBitmap,
    pub(super) entries: Vec<Entry>,
}

impl Manifest {
    /// Reads the manifest of the store in `dir`; an empty one where there is no store yet.
    pub(super) fn read(dir: &Path, shape: Shape) -> Result<Self, Error> {
        let path = path(dir);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if files::any_segment(dir)? {
                    Err(Error::NoManifest { path })
                } else {
                    Ok(Self::default())
                };
            }
            Err(source) => return Err(Error::io(&path, source)),
        };
        let damaged = |what| Error::Manifest { path: path.clone(), what };
        let (fields, sum) = bytes.split_last_chunk().ok_or_else(|| damaged("it is too short"))?;
        if crc32fast::hash(fields) != u32::from_le_bytes(*sum) {
            return Err(damaged("it does not match its checksum"));
        }
        let mut fields = Fields(fields);
        if fields.take() != Some(MAGIC) || fields.u32() != Some(VERSION) {
            return Err(damaged("it is no manifest of this version"));
        }
        let found = Self::shape(&mut fields).ok_or_else(|| damaged("it is too short"))?;
        if found != shape {
            return Err(Error::Model { path: path.clone(), found: found.dims, expected: shape.dims });
        }
        Self::fields(&mut fields).ok_or_else(|| damaged("its fields do not add up"))
    }

    fn shape(fields: &mut Fields<'_>) -> Option<Shape> {
        Some(Shape { dims: fields.u32()? as usize, model: fields.take()? })
    }

    fn fields(fields: &mut Fields<'_>) -> Option<Self> {
        let (mark, next_id) = (fields.u64()?, fields.u64()?);
        let lost = bitmap(fields)?;
        let mut entries = Vec::new();
        for _ in 0..fields.u32()? {
            let id = fields.u64()?;
            let (count, first, last, sum) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
            entries.push(Entry { id, count, first, last, sum, dead: bitmap(fields)? });
        }
        Some(Self { mark, next_id, lost, entries })
    }

    /// Replaces the manifest of the store in `dir`.
    pub(super) fn write(&self, dir: &Path, shape: Shape) -> Result<(), Error> {
        let path = path(dir);
        let bytes = self.encode(shape).map_err(|source| Error::io(&path, source))?;
        files::write_atomically(&path, |file| file.write_all(&bytes))
    }

    fn encode(&self, shape: Shape) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((shape.dims as u32).to_le_bytes());
        bytes.extend(shape.model);
        bytes.extend(self.mark.to_le_bytes());
        bytes.extend(self.next_id.to_le_bytes());
        put_bitmap(&mut bytes, &self.lost)?;
        bytes.extend((self.entries.len() as u32).to_le_bytes());
        for entry in &self.entries {
            bytes.extend(entry.id.to_le_bytes());
            for value in [entry.count, entry.first, entry.last, entry.sum] {
                bytes.extend(value.to_le_bytes());
            }
            put_bitmap(&mut bytes, &entry.dead)?;
        }
        let sum = crc32fast::hash(&bytes);
        bytes.extend(sum.to_le_bytes());
        Ok(bytes)
    }
}

fn put_bitmap(bytes: &mut Vec<u8>, bitmap: &RoaringBitmap) -> io::Result<()> {
    bytes.extend((bitmap.serialized_size() as u32).to_le_bytes());
    bitmap.serialize_into(bytes)
}

fn bitmap(fields: &mut Fields<'_>) -> Option<RoaringBitmap> {
    let len = fields.u32()?;
    RoaringBitmap::deserialize_from(fields.bytes(len as usize)?).ok()
}
