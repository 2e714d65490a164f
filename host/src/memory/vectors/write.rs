//! Writing segments.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use potluck_kernels::scan::GROUP;

use super::Part;
use super::Shape;
use super::codec::{Encoder, Rotation};
use super::error::Error;
use super::files;
use super::segment::{self, CHECKED, HEADER, Header, Layout, Segment};
use super::tail::Tail;

/// How many rows the mean of a segment is taken from.
const SAMPLE: usize = 50_000;

/// Where vectors of a new segment come from.
#[derive(Debug)]
pub(super) enum Source {
    Part(Part),
    Tail(Arc<Tail>),
}

impl Source {
    fn row(&self, position: u32) -> Option<(&[u8], f32)> {
        match self {
            Self::Part(part) => Some((part.segment.row(position)?, part.segment.scale(position)?)),
            Self::Tail(tail) => Some((tail.row(position)?, tail.scale(position)?)),
        }
    }
}

/// A vector of a new segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    pub(super) unit: u32,
    pub(super) source: u32,
    pub(super) position: u32,
    /// Checksum of the row, as the source had it.
    pub(super) sum: u32,
}

/// Writes the picked vectors, ascending by unit and at least one, to the segment `id` and opens it.
pub(super) fn write(
    dir: &Path,
    id: u64,
    shape: Shape,
    rotation: &Rotation,
    sources: &[Source],
    picks: &[Pick],
) -> Result<Segment, Error> {
    let path = segment::path(dir, id);
    let invalid = |what| Error::io(&path, io::Error::new(io::ErrorKind::InvalidInput, what));
    let count = u32::try_from(picks.len()).map_err(|_| invalid("more vectors than a segment can have"))?;
    let layout =
        Layout::new(shape.dims, count).ok_or_else(|| invalid("larger than this machine's memory"))?;
    let (Some(first), Some(last)) = (picks.first(), picks.last()) else { return Err(invalid("no vectors")) };
    let header =
        Header { shape, id, count, first: first.unit, last: last.unit, reach: 0.0, sums: [0; CHECKED] };
    let writing = Writing { sources, picks, mean: mean(shape.dims, sources, picks), rotation };
    files::write_atomically(&path, |file| writing.fill(file, &layout, header))?;
    Segment::open_any(&path, shape)
}

/// The mean of an even sample of the vectors.
fn mean(dims: usize, sources: &[Source], picks: &[Pick]) -> Vec<f32> {
    let mut sums = vec![0.0f64; dims];
    let mut taken = 0u32;
    for pick in picks.iter().step_by(picks.len().div_ceil(SAMPLE).max(1)) {
        if let Some((row, scale)) = row_of(sources, pick) {
            taken += 1;
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, &b)| *sum += f64::from(f32::from(b.cast_signed()) * scale));
        }
    }
    sums.iter().map(|sum| (sum / f64::from(taken.max(1))) as f32).collect()
}

fn row_of<'a>(sources: &'a [Source], pick: &Pick) -> Option<(&'a [u8], f32)> {
    sources.get(pick.source as usize)?.row(pick.position)
}

/// What a new segment is made of.
#[derive(Debug)]
struct Writing<'a> {
    sources: &'a [Source],
    picks: &'a [Pick],
    mean: Vec<f32>,
    rotation: &'a Rotation,
}

impl Writing<'_> {
    fn fill(&self, file: &mut BufWriter<File>, layout: &Layout, mut header: Header) -> io::Result<()> {
        let mut out = Sections { file, at: 0, hasher: crc32fast::Hasher::new() };
        // The header comes last, because it has the other sections' checksums.
        out.write(&[0; HEADER])?;
        let [mean, units, scales, sums, codes] = &layout.checked;
        header.sums = [
            out.section(mean.start, self.mean.iter().map(|value| value.to_le_bytes()))?,
            out.section(units.start, self.picks.iter().map(|pick| pick.unit.to_le_bytes()))?,
            out.section(scales.start, self.picks.iter().map(|pick| self.scale(pick).to_le_bytes()))?,
            out.section(sums.start, self.picks.iter().map(|pick| pick.sum.to_le_bytes()))?,
            self.codes(&mut out, codes.start, &mut header.reach)?,
        ];
        files::step()?;
        out.start(layout.rows.start)?;
        for pick in self.picks {
            let (row, _) = row_of(self.sources, pick).ok_or_else(gone)?;
            out.write(row)?;
        }
        files::step()?;
        let file = out.file;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header.encode().0)
    }

    fn scale(&self, pick: &Pick) -> f32 {
        row_of(self.sources, pick).map_or(0.0, |(_, scale)| scale)
    }

    /// Writes the codes, and says what one of their signs stands for.
    fn codes(&self, out: &mut Sections<'_>, start: usize, reach: &mut f32) -> io::Result<u32> {
        out.start(start)?;
        let mut encoder = Encoder::new(self.rotation, &self.mean);
        let mut codes: [Vec<u64>; GROUP] = Default::default();
        for group in self.picks.chunks(GROUP) {
            codes.iter_mut().for_each(|code| code.fill(0));
            for (pick, code) in group.iter().zip(&mut codes) {
                let (row, scale) = row_of(self.sources, pick).ok_or_else(gone)?;
                encoder.encode(row, scale, code);
            }
            for word in 0..self.mean.len() / 64 {
                for code in &codes {
                    out.write(&code.get(word).copied().unwrap_or(0).to_le_bytes())?;
                }
            }
        }
        *reach = encoder.reach();
        Ok(out.sum())
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a row of a source is out of reach")
}

/// A file that is written section by section.
#[derive(Debug)]
struct Sections<'a> {
    file: &'a mut BufWriter<File>,
    at: usize,
    hasher: crc32fast::Hasher,
}

impl Sections<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len();
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    /// Fills up to `start`, where a section begins.
    fn start(&mut self, start: usize) -> io::Result<()> {
        let gap = vec![0; start.saturating_sub(self.at)];
        self.write(&gap)?;
        self.hasher = crc32fast::Hasher::new();
        Ok(())
    }

    /// The checksum of what was written since the section began.
    fn sum(&mut self) -> u32 {
        std::mem::take(&mut self.hasher).finalize()
    }

    /// Writes a section of four-byte values and returns its checksum.
    fn section(&mut self, start: usize, values: impl Iterator<Item = [u8; 4]>) -> io::Result<u32> {
        self.start(start)?;
        for value in values {
            self.write(&value)?;
        }
        Ok(self.sum())
    }
}
