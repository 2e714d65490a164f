//! The bytes of a segment: a header of 64 bytes, then frames.
//!
//! Header: magic (8), format (u32), first sequence (u64), origin (32), zeros (8), CRC-32 of all that (u32).
//! Frame: length of the payload (u32), CRC-32 of that length and the payload (u32), payload. All numbers are
//! little-endian. The payload is an entry; zeros may follow one whose text was erased, so that every frame
//! keeps its place for good.

use super::super::record::{CodecError, Entry, MAX_ENTRY, MIN_ENTRY, NodeId, Peek};

/// The format of segments that this program writes, and the newest it reads.
pub(super) const SEGMENT_FORMAT: u32 = 1;
/// The length of a segment's header, in bytes.
pub(super) const HEADER: usize = 64;
/// The bytes of a frame before its payload.
pub(super) const FRAME: usize = 8;

const MAGIC: &[u8; 8] = b"potlucK\n";

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// Intact, of this format.
    Valid { origin: NodeId, first: u64 },
    /// Intact, of a newer format.
    Future { found: u32 },
    /// Unreadable.
    Damaged,
}

/// The header of a segment.
pub(super) fn header(origin: NodeId, first: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&SEGMENT_FORMAT.to_le_bytes());
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&origin.0);
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Reads the header at the start of a segment.
pub(super) fn read_header(bytes: &[u8]) -> Header {
    let read = || {
        let (fields, rest) = bytes.split_first_chunk::<60>()?;
        let (crc, _) = rest.split_first_chunk::<4>()?;
        let (magic, fields) = fields.split_first_chunk::<8>()?;
        let (format, fields) = fields.split_first_chunk::<4>()?;
        let (first, fields) = fields.split_first_chunk::<8>()?;
        let (origin, _) = fields.split_first_chunk::<32>()?;
        let whole = bytes.get(..60)?;
        if magic != MAGIC || crc32fast::hash(whole) != u32::from_le_bytes(*crc) {
            return None;
        }
        let found = u32::from_le_bytes(*format);
        if found != SEGMENT_FORMAT {
            return Some(Header::Future { found });
        }
        Some(Header::Valid { origin: NodeId(*origin), first: u64::from_le_bytes(*first) })
    };
    read().unwrap_or(Header::Damaged)
}

/// The checksum of a frame.
fn checksum(len: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Appends the frame of `payload`, with zeros up to `padded` bytes.
pub(super) fn push(out: &mut Vec<u8>, payload: &[u8], padded: usize) -> Result<u32, CodecError> {
    let whole = payload.len().max(padded);
    let len = u32::try_from(whole).map_err(|_| CodecError::Long { len: whole })?;
    let start = out.len();
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out.resize(start.saturating_add(FRAME).saturating_add(whole), 0);
    let crc = checksum(len, out.get(start.saturating_add(FRAME)..).unwrap_or_default());
    if let Some(place) = out.get_mut(start.saturating_add(4)..start.saturating_add(FRAME)) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    Ok(len)
}

/// A frame whose checksum is right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    /// The entry, and zeros behind it if it was erased.
    pub(super) payload: &'a [u8],
    /// Where the next frame starts.
    pub(super) end: usize,
}

/// Where the frame at `offset` ends, if its length is plausible and it lies within `bytes`.
pub(super) fn extent(bytes: &[u8], offset: usize) -> Option<usize> {
    let (len, _) = bytes.get(offset..)?.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    if !(MIN_ENTRY..=MAX_ENTRY).contains(&len) {
        return None;
    }
    Some(offset.saturating_add(FRAME).saturating_add(len)).filter(|end| *end <= bytes.len())
}

/// The frame at `offset`, if it is whole.
pub(super) fn frame(bytes: &[u8], offset: usize) -> Option<Frame<'_>> {
    let end = extent(bytes, offset)?;
    let (len, rest) = bytes.get(offset..end)?.split_first_chunk::<4>()?;
    let (crc, payload) = rest.split_first_chunk::<4>()?;
    let right = checksum(u32::from_le_bytes(*len), payload) == u32::from_le_bytes(*crc);
    right.then_some(Frame { payload, end })
}

/// The entry of a payload: zeros may follow it only if its text was erased.
pub(super) fn entry(payload: &[u8]) -> Result<Entry, CodecError> {
    let (entry, used) = Entry::decode_prefix(payload)?;
    let rest = payload.get(used..).unwrap_or_default();
    let padding = entry.is_erased() && rest.iter().all(|byte| *byte == 0);
    if rest.is_empty() || padding { Ok(entry) } else { Err(CodecError::NotCanonical) }
}

/// What a walk over a segment comes across.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// A frame with its offset and what its entry's first bytes say.
    Frame { offset: usize, frame: Frame<'a>, peek: Peek },
    /// A stretch that cannot be read, followed by an entry of this sequence; `None` up to the end of the
    /// file.
    Unreadable { offset: usize, end: usize, next: Option<u64> },
    /// An entry of a newer program.
    Future { found: u8 },
}

/// Walks over the frames of a segment in order, over unreadable stretches, too.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    origin: NodeId,
    offset: usize,
    /// The sequence of the last frame, or the one before the segment's first.
    last: u64,
}

impl<'a> Walk<'a> {
    /// A walk over `bytes` (a whole segment) of `origin`, whose first entry has the sequence `first`.
    pub(super) const fn new(bytes: &'a [u8], origin: NodeId, first: u64) -> Self {
        Self { bytes, origin, offset: HEADER, last: first.saturating_sub(1) }
    }

    /// The frame at `offset` if it is whole and its sequence lies after the last.
    fn valid(&self, offset: usize) -> Option<(Frame<'a>, Result<Peek, u8>)> {
        let frame = frame(self.bytes, offset)?;
        match Entry::peek(frame.payload) {
            Ok(peek) if peek.sequence > self.last => Some((frame, Ok(peek))),
            Err(CodecError::Format { found }) => Some((frame, Err(found))),
            Err(CodecError::Kind { .. }) => Some((frame, Err(u8::MAX))),
            _ => None,
        }
    }

    /// Whether a frame found behind a damaged stretch is really one: it might be a piece of some text. Its
    /// entry must be signed, and its sequence one that the stretch can account for.
    fn trusted(&self, offset: usize) -> Option<u64> {
        let payload_at = offset.checked_add(FRAME)?;
        let (head, _) = self.bytes.get(payload_at..)?.split_first_chunk::<MIN_ENTRY>()?;
        let peek = Entry::peek(head).ok()?;
        let room = offset.saturating_sub(self.offset) / (FRAME + MIN_ENTRY);
        let most = self.last.saturating_add(1).saturating_add(u64::try_from(room).ok()?);
        if peek.sequence <= self.last || peek.sequence > most {
            return None;
        }
        let entry = entry(frame(self.bytes, offset)?.payload).ok()?;
        (entry.origin() == self.origin && entry.verify().is_ok()).then_some(peek.sequence)
    }

    /// The next readable frame behind the unreadable one at `self.offset`, with its sequence.
    fn resync(&self) -> Option<(usize, u64)> {
        // The length may be right although the rest is not: then the next frame is where it says.
        let stated = extent(self.bytes, self.offset).filter(|end| *end > self.offset);
        let near = stated.and_then(|at| Some((at, self.trusted(at)?)));
        near.or_else(|| {
            (self.offset.saturating_add(1)..self.bytes.len()).find_map(|at| Some((at, self.trusted(at)?)))
        })
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let offset = self.offset;
        if offset >= self.bytes.len() {
            return None;
        }
        match self.valid(offset) {
            Some((frame, Ok(peek))) => {
                self.offset = frame.end;
                self.last = peek.sequence;
                Some(Step::Frame { offset, frame, peek })
            }
            Some((frame, Err(found))) => {
                self.offset = frame.end;
                Some(Step::Future { found })
            }
            None => {
                let next = self.resync();
                self.offset = next.map_or(self.bytes.len(), |(at, _)| at);
                Some(Step::Unreadable { offset, end: self.offset, next: next.map(|(_, sequence)| sequence) })
            }
        }
    }
}
