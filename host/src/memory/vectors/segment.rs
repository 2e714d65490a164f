//! Segment files: sealed vectors, mapped into memory.
//!
//! A header of 256 bytes, then the sections, each beginning at a multiple of 64 bytes: the mean (f32 per
//! dimension), the units (u32, ascending), the scales (f32), the rows' checksums (u32), the codes (groups of
//! eight, see the scan kernel) and the rows (one signed byte per dimension). All numbers are little-endian.
//! The checksum of a row also covers its unit and scale.

use std::ops::Range;
use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;

use potluck_kernels::mapped::MappedFile;
use potluck_kernels::scan::{GROUP, group_bytes};

use super::Shape;
use super::error::Error;
use super::manifest::Entry;

const MAGIC: [u8; 8] = *b"PLVECSEG";
const VERSION: u32 = 1;
const ALIGN: usize = 64;

/// Bytes of a header, the checksum of the others in the last four.
pub(super) const HEADER: usize = 256;

/// Sections that are checked as a whole when a segment is opened: all but the rows.
pub(super) const CHECKED: usize = 5;

/// Where the segment `id` lies.
pub(super) fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.segment"))
}

/// The number of the segment that a file of this name would be.
pub(super) fn id(path: &Path) -> Option<u64> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".segment")?;
    (stem.len() == 16).then(|| u64::from_str_radix(stem, 16).ok()).flatten()
}

/// Where the sections of a segment are, in bytes from the start of the file.
#[derive(Debug)]
pub(super) struct Layout {
    /// Mean, units, scales, sums and codes.
    pub(super) checked: [Range<usize>; CHECKED],
    pub(super) rows: Range<usize>,
}

impl Layout {
    /// `None` when the sizes do not fit this machine.
    pub(super) fn new(dims: usize, count: u32) -> Option<Self> {
        let count = usize::try_from(count).ok()?;
        let mut end = HEADER;
        let mut section = |bytes: Option<usize>| {
            let start = end.checked_next_multiple_of(ALIGN)?;
            end = start.checked_add(bytes?)?;
            Some(start..end)
        };
        let mean = section(dims.checked_mul(4))?;
        let mut numbers = || section(count.checked_mul(4));
        let (units, scales, sums) = (numbers()?, numbers()?, numbers()?);
        let codes = section(count.div_ceil(GROUP).checked_mul(group_bytes(dims)))?;
        let rows = section(count.checked_mul(dims))?;
        Some(Self { checked: [mean, units, scales, sums, codes], rows })
    }
}

/// What a segment says about itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) shape: Shape,
    pub(super) id: u64,
    pub(super) count: u32,
    pub(super) first: u32,
    pub(super) last: u32,
    /// What one sign of a code stands for.
    pub(super) reach: f32,
    /// Checksums of the checked sections.
    pub(super) sums: [u32; CHECKED],
}

impl Header {
    /// The header's bytes and their checksum.
    pub(super) fn encode(&self) -> (Vec<u8>, u32) {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.shape.dims as u32).to_le_bytes());
        bytes.extend(self.shape.model);
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(self.first.to_le_bytes());
        bytes.extend(self.last.to_le_bytes());
        bytes.extend(self.reach.to_le_bytes());
        self.sums.iter().for_each(|sum| bytes.extend(sum.to_le_bytes()));
        bytes.resize(HEADER - 4, 0);
        let sum = crc32fast::hash(&bytes);
        bytes.extend(sum.to_le_bytes());
        (bytes, sum)
    }

    /// Reads a header and its checksum.
    fn decode(file: &[u8]) -> Result<(Self, u32), &'static str> {
        let header = file.get(..HEADER).ok_or("it is too short")?;
        let (fields, sum) = header.split_last_chunk().ok_or("it is too short")?;
        let sum = u32::from_le_bytes(*sum);
        if crc32fast::hash(fields) != sum {
            return Err("its header does not match the checksum");
        }
        let mut fields = Fields(fields);
        if fields.take() != Some(MAGIC) || fields.u32() != Some(VERSION) {
            return Err("it is no segment of this version");
        }
        Self::fields(&mut fields).map(|header| (header, sum)).ok_or("its header is too short")
    }

    fn fields(fields: &mut Fields<'_>) -> Option<Self> {
        let shape = Shape { dims: fields.u32()? as usize, model: fields.take()? };
        let (id, count, first, last) = (fields.u64()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let reach = f32::from_bits(fields.u32()?);
        let mut sums = [0; CHECKED];
        for sum in &mut sums {
            *sum = fields.u32()?;
        }
        Some(Self { shape, id, count, first, last, reach, sums })
    }
}

/// Little-endian fields, read one after another.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }
}

/// The checksum of a row.
pub(super) fn row_sum(unit: u32, scale: f32, row: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&unit.to_le_bytes());
    hasher.update(&scale.to_le_bytes());
    hasher.update(row);
    hasher.finalize()
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    file: PathBuf,
    map: MappedFile,
    layout: Layout,
    header: Header,
    /// Checksum of the header, which the manifest repeats.
    sum: u32,
    mean: Vec<f32>,
}

impl Segment {
    /// Opens the segment that `entry` names and checks all of it but the rows.
    pub(super) fn open(path: &Path, shape: Shape, entry: &Entry) -> Result<Self, Error> {
        let segment = Self::open_any(path, shape)?;
        let header = &segment.header;
        let named = (entry.id, entry.count, entry.first, entry.last, entry.sum);
        if (header.id, header.count, header.first, header.last, segment.sum) != named {
            return Err(Error::Segment { path: path.to_owned(), what: "it is not the one in the manifest" });
        }
        Ok(segment)
    }

    /// Opens a segment whatever the manifest says.
    pub(super) fn open_any(path: &Path, shape: Shape) -> Result<Self, Error> {
        let damaged = |what| Error::Segment { path: path.to_owned(), what };
        let map = MappedFile::open(path).map_err(|source| Error::io(path, source))?;
        let (header, sum) = Header::decode(&map).map_err(damaged)?;
        if header.shape != shape {
            let (found, expected) = (header.shape.dims, shape.dims);
            return Err(Error::Model { path: path.to_owned(), found, expected });
        }
        let layout =
            Layout::new(shape.dims, header.count).ok_or_else(|| damaged("its sizes are too large"))?;
        if map.len() != layout.rows.end {
            return Err(damaged("it has the wrong length"));
        }
        for (section, sum) in layout.checked.iter().zip(header.sums) {
            if map.get(section.clone()).map(crc32fast::hash) != Some(sum) {
                return Err(damaged("a section does not match its checksum"));
            }
        }
        let mut segment = Self { file: path.to_owned(), map, layout, header, sum, mean: Vec::new() };
        segment.mean = segment.numbers(0).iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let ends = (segment.units().next(), segment.units().next_back());
        if ends != (Some(segment.header.first), Some(segment.header.last))
            || !segment.units().is_sorted_by(|a, b| a < b)
        {
            return Err(damaged("its units are out of order"));
        }
        Ok(segment)
    }

    fn section(&self, section: &Range<usize>) -> &[u8] {
        self.map.get(section.clone()).unwrap_or_default()
    }

    /// The four-byte values of a checked section.
    fn numbers(&self, section: usize) -> &[[u8; 4]] {
        let range = self.layout.checked.get(section);
        range.map(|range| self.section(range).as_chunks().0).unwrap_or_default()
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    pub(super) fn count(&self) -> u32 {
        self.header.count
    }

    /// The segment as a manifest names it, with nothing removed.
    pub(super) fn entry(&self) -> Entry {
        let Header { id, count, first, last, .. } = self.header;
        Entry { id, count, first, last, sum: self.sum, dead: RoaringBitmap::new() }
    }

    pub(super) fn mean(&self) -> &[f32] {
        &self.mean
    }

    pub(super) fn reach(&self) -> f32 {
        self.header.reach
    }

    pub(super) fn units(&self) -> impl DoubleEndedIterator<Item = u32> {
        self.numbers(1).iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    pub(super) fn unit(&self, position: u32) -> Option<u32> {
        self.numbers(1).get(position as usize).map(|bytes| u32::from_le_bytes(*bytes))
    }

    pub(super) fn scale(&self, position: u32) -> Option<f32> {
        self.numbers(2).get(position as usize).map(|bytes| f32::from_le_bytes(*bytes))
    }

    pub(super) fn codes(&self) -> &[u8] {
        self.layout.checked.last().map(|range| self.section(range)).unwrap_or_default()
    }

    pub(super) fn rows(&self) -> &[u8] {
        self.section(&self.layout.rows)
    }

    /// Where the vector of `unit` is.
    pub(super) fn position(&self, unit: u32) -> Option<u32> {
        let Header { count, first, last, .. } = self.header;
        if !(first..=last).contains(&unit) {
            return None;
        }
        if last - first == count - 1 {
            return Some(unit - first);
        }
        let found = self.numbers(1).binary_search_by_key(&unit, |bytes| u32::from_le_bytes(*bytes));
        found.ok().map(|position| position as u32)
    }

    pub(super) fn row(&self, position: u32) -> Option<&[u8]> {
        let dims = self.header.shape.dims;
        let start = position as usize * dims;
        self.rows().get(start..start + dims)
    }

    /// The row and its scale, if they match the checksum.
    pub(super) fn checked_row(&self, position: u32) -> Option<(&[u8], f32)> {
        let (row, scale) = (self.row(position)?, self.scale(position)?);
        let sum = u32::from_le_bytes(*self.numbers(3).get(position as usize)?);
        (row_sum(self.unit(position)?, scale, row) == sum).then_some((row, scale))
    }

    /// Units whose rows do not match their checksums; all, when another section changed since it was opened.
    pub(super) fn damaged_rows(&self) -> RoaringBitmap {
        let mut sections = self.layout.checked.iter().zip(self.header.sums);
        if sections.any(|(section, sum)| crc32fast::hash(self.section(section)) != sum) {
            return (self.header.first..=self.header.last).collect();
        }
        let positions = (0..self.header.count).zip(self.units());
        positions
            .filter(|(position, _)| self.checked_row(*position).is_none())
            .map(|(_, unit)| unit)
            .collect()
    }
}
