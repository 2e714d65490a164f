//! Postings in a file: sorted term hashes, where each term's postings start, and three columns of postings.
//!
//! ```text
//! magic 8 | units u64 | tokens u64 | terms u64 | postings u64 | crc32 of the rest u64
//! hashes u64 × terms | starts u64 × (terms + 1) | units u32 × postings | counts u8 × postings | lengths u8 × postings
//! ```
//! Little-endian throughout. The file is written once, flushed, and renamed into place.

use std::{
    fs::File,
    io::{self, BufWriter, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use potluck_kernels::mapped::MappedFile;

use super::{List, Postings, Tail};
use crate::{atomic, memory::text::Term};

const MAGIC: &[u8; 8] = b"PTLKLEX1";
const HEADER: usize = 48;

/// Why a file of postings cannot be used; it is then rebuilt from the log.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The file system failed.
    #[error("postings in {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content makes no sense.
    #[error("postings in {path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A file of postings, mapped.
#[derive(Debug)]
pub struct Segment {
    map: MappedFile,
    units: u32,
    tokens: u64,
    hashes: Range<usize>,
    starts: Range<usize>,
    columns: [Range<usize>; 3],
}

impl Segment {
    /// Maps a file and checks it whole: its checksum, and that every offset lies within.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn open(path: &Path) -> Result<Self, SegmentError> {
        let io = |source| SegmentError::Io { path: path.to_owned(), source };
        let damaged = |reason| SegmentError::Damaged { path: path.to_owned(), reason };
        let map = MappedFile::open(path).map_err(io)?;
        let bytes: &[u8] = &map;
        let (header, rest) = bytes.split_at_checked(HEADER).ok_or_else(|| damaged("it is too short"))?;
        let word = |at: usize| -> u64 {
            header.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        if !header.starts_with(MAGIC) {
            return Err(damaged("it is no file of postings of this version"));
        }
        if u64::from(crc32fast::hash(rest)) != word(40) {
            return Err(damaged("its checksum is wrong"));
        }
        let size = |at| usize::try_from(word(at)).ok().filter(|size| *size <= bytes.len());
        let (Some(terms), Some(postings)) = (size(24), size(32)) else {
            return Err(damaged("its sizes are wrong"));
        };
        let hashes = HEADER..HEADER + terms * 8;
        let starts = hashes.end..hashes.end + (terms + 1) * 8;
        let units = starts.end..starts.end + postings * 4;
        let counts = units.end..units.end + postings;
        let lengths = counts.end..counts.end + postings;
        if lengths.end != bytes.len() {
            return Err(damaged("its size is wrong"));
        }
        let total = u32::try_from(word(8)).map_err(|_| damaged("it has too many units"))?;
        let tokens = word(16);
        Ok(Self { map, units: total, tokens, hashes, starts, columns: [units, counts, lengths] })
    }

    /// Units in it.
    pub const fn units(&self) -> u32 {
        self.units
    }

    /// Terms of all its units, repetitions counted.
    pub const fn tokens(&self) -> u64 {
        self.tokens
    }

    fn words(&self, range: &Range<usize>) -> &[u64] {
        // The map starts at a page and every column of words at a multiple of eight.
        self.map.get(range.clone()).and_then(|bytes| bytemuck::try_cast_slice(bytes).ok()).unwrap_or_default()
    }

    /// The postings of a term; empty when there are none.
    pub fn get(&self, term: Term) -> Postings<'_> {
        self.words(&self.hashes).binary_search(&term).map_or_else(|_| Postings::default(), |at| self.at(at))
    }

    fn at(&self, index: usize) -> Postings<'_> {
        let starts = self.words(&self.starts);
        let bounds = (starts.get(index), starts.get(index + 1));
        let (Some(from), Some(to)) = bounds else { return Postings::default() };
        let (from, to) = (*from as usize, *to as usize);
        let [units, counts, lengths] = &self.columns;
        let column = |range: &Range<usize>, width: usize| -> &[u8] {
            self.map.get(range.start + from * width..range.start + to * width).unwrap_or_default()
        };
        Postings {
            units: bytemuck::try_cast_slice(column(units, 4)).unwrap_or_default(),
            counts: column(counts, 1),
            lengths: column(lengths, 1),
        }
    }
}

/// One term's postings in the old segment and in the tail; together the new ones.
struct Pair<'a> {
    old: Postings<'a>,
    new: Option<&'a List>,
}

impl Pair<'_> {
    fn len(&self) -> usize {
        self.old.units.len() + self.new.map_or(0, |list| list.units.len())
    }
}

/// Writes `base` and `tail` together; `added` are the tail's terms, sorted.
pub(super) fn write(
    path: &Path,
    base: Option<&Segment>,
    tail: &Tail,
    added: &[Term],
) -> Result<Segment, SegmentError> {
    let io = |source| SegmentError::Io { path: path.to_owned(), source };
    let known = base.map_or(&[][..], |base| base.words(&base.hashes));
    let terms = union(known, added);
    let pairs: Vec<Pair<'_>> = terms
        .iter()
        .map(|term| Pair {
            old: base.map_or_else(Postings::default, |base| base.get(*term)),
            new: tail.lists.get(term),
        })
        .collect();
    let units = base.map_or(0, Segment::units) + tail.units;
    let tokens = base.map_or(0, Segment::tokens) + tail.tokens;
    let postings: usize = pairs.iter().map(Pair::len).sum();
    let counts = [u64::from(units), tokens, terms.len() as u64, postings as u64];
    atomic::write(path, |file| fill(file, counts, &terms, &pairs)).map_err(io)?;
    Segment::open(path)
}

/// Writes all columns, then the header with their checksum in front.
fn fill(file: &mut BufWriter<File>, counts: [u64; 4], terms: &[Term], pairs: &[Pair<'_>]) -> io::Result<()> {
    file.write_all(&[0; HEADER])?;
    let mut out = Checked { to: file, crc: crc32fast::Hasher::new() };
    out.put(bytemuck::cast_slice(terms))?;
    let mut start = 0_u64;
    out.put(&start.to_le_bytes())?;
    for pair in pairs {
        start += pair.len() as u64;
        out.put(&start.to_le_bytes())?;
    }
    for pair in pairs {
        out.put(bytemuck::cast_slice(pair.old.units))?;
        out.put(bytemuck::cast_slice(pair.new.map_or(&[][..], |list| &list.units)))?;
    }
    for pair in pairs {
        out.put(pair.old.counts)?;
        out.put(pair.new.map_or(&[][..], |list| &list.counts))?;
    }
    for pair in pairs {
        out.put(pair.old.lengths)?;
        out.put(pair.new.map_or(&[][..], |list| &list.lengths))?;
    }
    let crc = u64::from(out.crc.finalize());
    file.seek(SeekFrom::Start(0))?;
    file.write_all(MAGIC)?;
    counts.into_iter().chain([crc]).try_for_each(|word| file.write_all(&word.to_le_bytes()))
}

struct Checked<'a> {
    to: &'a mut BufWriter<File>,
    crc: crc32fast::Hasher,
}

impl Checked<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.to.write_all(bytes)
    }
}

/// The union of two sorted lists.
fn union(a: &[Term], b: &[Term]) -> Vec<Term> {
    let mut all = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let next = match (a.peek(), b.peek()) {
            (None, None) => return all,
            (Some(x), Some(y)) if x == y => {
                b.next();
                a.next()
            }
            (Some(x), Some(y)) if x > y => b.next(),
            (Some(_), _) => a.next(),
            (None, Some(_)) => b.next(),
        };
        all.extend(next);
    }
}
