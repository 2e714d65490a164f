//! Entries: what the log holds and machines exchange, as bytes.

use minicbor::data::Type;
use minicbor::decode::Decoder;

use super::super::clock::Stamp;
use super::{DraftError, NodeId, RecordId, Vectors, Version};

/// The longest entry, in bytes: 4 MiB.
pub const MAX_ENTRY: usize = 4 << 20;
/// The shortest entry, in bytes: what stands before its CBOR.
pub const MIN_ENTRY: usize = 10;
/// The format of entries that this program writes, and the newest it reads.
pub const ENTRY_FORMAT: u8 = 1;

const VERSION: u8 = 0;
const VECTORS: u8 = 1;

/// One entry of a machine's log.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A version of a record.
    Version(Box<Version>),
    /// The embedding of a version.
    Vectors(Box<Vectors>),
}

/// What the first bytes of an entry say, without reading the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// The entry's place among all entries of its machine.
    pub sequence: u64,
    /// Whether it is a version; if not, it is the embedding of one.
    pub is_version: bool,
    /// The version it is, or belongs to; `None` if that cannot be read.
    pub version: Option<RecordId>,
}

/// Why bytes are not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Fewer bytes than any entry has.
    #[error("an entry of {len} bytes is cut short: fetch it again")]
    Short {
        /// How many there are.
        len: usize,
    },
    /// More bytes than [`MAX_ENTRY`].
    #[error("an entry of {len} bytes is longer than the {MAX_ENTRY} allowed: refuse it")]
    Long {
        /// How many there are.
        len: usize,
    },
    /// A format of a newer program.
    #[error("an entry has format {found} and this program reads up to {ENTRY_FORMAT}: update potluck")]
    Format {
        /// The format found.
        found: u8,
    },
    /// A kind of entry of a newer program.
    #[error("an entry is of the unknown kind {found}: update potluck")]
    Kind {
        /// The kind found.
        found: u8,
    },
    /// The CBOR is not what it should be.
    #[error("an entry cannot be read ({reason}): fetch it again")]
    Malformed {
        /// What the decoder says.
        reason: String,
    },
    /// The same entry is written in another way than the one allowed, or has fields of a newer program.
    #[error(
        "an entry is not in its one canonical form, or has fields this program does not know: update potluck"
    )]
    NotCanonical,
    /// The sequence before the CBOR is not the signed one.
    #[error("an entry says it is number {outside} but is signed as {inside}: refuse it")]
    Sequence {
        /// The number before the CBOR.
        outside: u64,
        /// The number in the CBOR.
        inside: u64,
    },
}

/// Why an entry is not what its origin signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The signature is not one of the origin over this header.
    #[error("the signature does not belong to this entry and its origin: refuse it")]
    Signature,
    /// The text or the rows are not those that were signed.
    #[error("the content is not what was signed: refuse it")]
    Content,
    /// The length of the text is not the one that was signed.
    #[error("the text has not the length that was signed: refuse it")]
    Length,
    /// The hash for finding copies does not belong to the text.
    #[error("the hash for finding copies does not belong to the text: refuse it")]
    BodyHash,
    /// Tags or superseded versions are not sorted, or occur twice.
    #[error("tags or superseded versions are not sorted, or occur twice: refuse it")]
    Unsorted,
    /// A version supersedes itself.
    #[error("the version supersedes itself: refuse it")]
    Itself,
    /// Sequences start at 1.
    #[error("the entry has the sequence 0, and they start at 1: refuse it")]
    Sequence,
    /// A field is over its limit.
    #[error(transparent)]
    Limit(#[from] DraftError),
    /// An embedding is not well-formed.
    #[error("the embedding cannot be used: {0}")]
    Vectors(&'static str),
}

/// Why bytes are no entry that can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// They cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// They can be read, but are not what was signed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl Entry {
    /// The machine that wrote it.
    pub fn origin(&self) -> NodeId {
        match self {
            Self::Version(version) => version.header.origin,
            Self::Vectors(vectors) => vectors.origin,
        }
    }

    /// Its place among all entries of that machine, from 1.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Version(version) => version.header.sequence,
            Self::Vectors(vectors) => vectors.sequence,
        }
    }

    /// When it was written.
    pub fn stamp(&self) -> Stamp {
        match self {
            Self::Version(version) => version.header.stamp,
            Self::Vectors(vectors) => vectors.stamp,
        }
    }

    /// The version it is, or belongs to.
    pub fn version(&self) -> RecordId {
        match self {
            Self::Version(version) => version.header.id,
            Self::Vectors(vectors) => vectors.version,
        }
    }

    /// Whether its text or rows are gone. A tombstone never had any.
    pub fn is_erased(&self) -> bool {
        match self {
            Self::Version(version) => version.body.is_none(),
            Self::Vectors(vectors) => vectors.rows.is_none(),
        }
    }

    /// The entry without its text or rows; the signature still holds.
    pub fn erased(self) -> Self {
        match self {
            Self::Version(version) => Self::Version(Box::new(version.erased())),
            Self::Vectors(vectors) => Self::Vectors(Box::new(vectors.erased())),
        }
    }

    /// Whether the entry is what its origin signed, within all limits.
    ///
    /// # Errors
    /// [`VerifyError`] saying what does not hold.
    pub fn verify(&self) -> Result<(), VerifyError> {
        match self {
            Self::Version(version) => version.verify(),
            Self::Vectors(vectors) => vectors.verify(),
        }
    }

    /// The entry as bytes, the same on every machine.
    ///
    /// # Errors
    /// [`CodecError::Long`] over [`MAX_ENTRY`] bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let kind = match self {
            Self::Version(_) => VERSION,
            Self::Vectors(_) => VECTORS,
        };
        let mut bytes = vec![ENTRY_FORMAT, kind];
        bytes.extend_from_slice(&self.sequence().to_le_bytes());
        let written = match self {
            Self::Version(version) => minicbor::encode(version.as_ref(), &mut bytes),
            Self::Vectors(vectors) => minicbor::encode(vectors.as_ref(), &mut bytes),
        };
        written.map_err(|error| CodecError::Malformed { reason: error.to_string() })?;
        if bytes.len() > MAX_ENTRY { Err(CodecError::Long { len: bytes.len() }) } else { Ok(bytes) }
    }

    /// The entry of exactly these bytes. Says nothing about its signature.
    ///
    /// # Errors
    /// [`CodecError`] if they are too long, of a newer format, or not an entry in its canonical form.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (entry, used) = Self::decode_prefix(bytes)?;
        if used == bytes.len() { Ok(entry) } else { Err(CodecError::NotCanonical) }
    }

    /// The entry at the start of `bytes` and how many of them it takes.
    ///
    /// # Errors
    /// As [`Entry::decode`], but for bytes that follow.
    pub fn decode_prefix(bytes: &[u8]) -> Result<(Self, usize), CodecError> {
        let peek = Self::peek(bytes)?;
        let cbor = bytes.get(MIN_ENTRY..).unwrap_or_default();
        let mut decoder = Decoder::new(cbor);
        let malformed = |error: minicbor::decode::Error| CodecError::Malformed { reason: error.to_string() };
        let entry = if peek.is_version {
            Self::Version(Box::new(decoder.decode().map_err(malformed)?))
        } else {
            Self::Vectors(Box::new(decoder.decode().map_err(malformed)?))
        };
        if entry.sequence() != peek.sequence {
            return Err(CodecError::Sequence { outside: peek.sequence, inside: entry.sequence() });
        }
        // One entry, one encoding: whatever the decoder forgave (long integers, open arrays, fields it does
        // not know) shows here.
        let used = MIN_ENTRY.saturating_add(decoder.position());
        if bytes.get(..used) == Some(entry.encode()?.as_slice()) {
            Ok((entry, used))
        } else {
            Err(CodecError::NotCanonical)
        }
    }

    /// What the first bytes of an entry say.
    ///
    /// # Errors
    /// [`CodecError`] if the length, the format or the kind is wrong.
    pub fn peek(bytes: &[u8]) -> Result<Peek, CodecError> {
        let len = bytes.len();
        if len > MAX_ENTRY {
            return Err(CodecError::Long { len });
        }
        let Some(([format, kind, sequence @ ..], cbor)) = bytes.split_first_chunk::<MIN_ENTRY>() else {
            return Err(CodecError::Short { len });
        };
        if *format != ENTRY_FORMAT {
            return Err(CodecError::Format { found: *format });
        }
        if *kind > VECTORS {
            return Err(CodecError::Kind { found: *kind });
        }
        let is_version = *kind == VERSION;
        Ok(Peek { sequence: u64::from_le_bytes(*sequence), is_version, version: subject(cbor, is_version) })
    }
}

/// The first field of the header, which names the version.
fn subject(cbor: &[u8], is_version: bool) -> Option<RecordId> {
    let mut decoder = Decoder::new(cbor);
    decoder.array().ok()?;
    if is_version {
        decoder.array().ok()?;
    }
    if decoder.datatype().ok()? != Type::Bytes {
        return None;
    }
    decoder.decode().ok()
}
