//! GGUF v2 and v3 files: reading (memory-mapped, nothing trusted) and writing.
//!
//! Every length, offset, count and string is checked against the file's size and the caps below before it is
//! used, so a hostile file costs at most its own size in memory and ends in a [`GgufError`].
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod cursor;
mod value;
mod writer;

pub use value::{Array, Metadata, Value};
pub use writer::GgufWriter;

use std::{collections::HashMap, path::Path};

use crate::{
    backend::RawMatrix,
    dtype::DType,
    mapped::{Bytes, MappedFile},
};
use cursor::Cursor;

/// Most metadata entries a file may have.
pub const MAX_KEYS: u64 = 65_536;
/// Most tensors a file may have.
pub const MAX_TENSORS: u64 = 65_536;
/// Longest key or tensor name, in bytes.
pub const MAX_NAME: u64 = 4_096;
/// Longest string value, in bytes (chat templates are the longest in practice).
pub const MAX_STRING: u64 = 16 << 20;
/// Most elements in a metadata array (the largest vocabularies have about 300,000 tokens and merges).
pub const MAX_ARRAY: u64 = 4 << 20;
/// Most dimensions of a tensor.
pub const MAX_DIMS: u32 = 4;

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file could not be opened or mapped.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it starts with {found:02x?} instead of \"GGUF\"")]
    Magic {
        /// What was there.
        found: [u8; 4],
    },
    /// A version this reader does not know, or a big-endian file.
    #[error("GGUF version {0} is not supported (2 and 3, little-endian, are)")]
    Version(u32),
    /// The file ends in the middle of something.
    #[error("truncated file: {what} at byte {offset} needs {needed} bytes, {available} are left")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where.
        offset: u64,
        /// Bytes it needs.
        needed: u64,
        /// Bytes that are there.
        available: u64,
    },
    /// A count or a length passes its cap.
    #[error("{what} is {value}, more than the {limit} allowed")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// The file's number.
        value: u64,
        /// The cap.
        limit: u64,
    },
    /// A key or tensor name appears twice.
    #[error("{what} `{name}` appears twice")]
    Duplicate {
        /// `key` or `tensor`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Bytes that must be UTF-8 are not.
    #[error("{what} at byte {offset} is not valid UTF-8")]
    Utf8 {
        /// What was being read.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// A value type number that GGUF does not define, or arrays nested in arrays.
    #[error("key `{key}` has value type {id}, which is not supported")]
    ValueType {
        /// The key.
        key: String,
        /// The type number.
        id: u32,
    },
    /// A tensor encoding this crate does not implement.
    #[error(
        "tensor `{tensor}` is stored as {name} (type {id}), which is not supported; supported: {supported}"
    )]
    TensorType {
        /// The tensor.
        tensor: String,
        /// The type number.
        id: u32,
        /// The field's name for it.
        name: &'static str,
        /// The types that can be read.
        supported: String,
    },
    /// A tensor's shape or place in the file makes no sense.
    #[error("tensor `{tensor}`: {reason}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key that the caller needs is missing.
    #[error("the file has no key `{0}`, which is needed")]
    Missing(String),
    /// A key has another type or range than the caller needs.
    #[error("key `{key}`: expected {expected}, got {got}")]
    Type {
        /// The key.
        key: String,
        /// What is needed.
        expected: &'static str,
        /// What is there.
        got: String,
    },
}

/// One tensor's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// Dimensions as in the file: the first runs fastest, so a matrix is `[cols, rows]`.
    pub dims: Vec<usize>,
    /// Encoding.
    pub dtype: DType,
    /// Byte offset from the start of the file.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

/// An opened GGUF file.
#[derive(Debug)]
pub struct Gguf {
    bytes: Bytes,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl Gguf {
    /// Maps and checks a file.
    ///
    /// # Errors
    /// [`GgufError`] when it cannot be read or is malformed in any way.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let io = |source| GgufError::Io { path: path.display().to_string(), source };
        Self::parse(Bytes::Mapped(MappedFile::open(path).map_err(io)?))
    }

    /// Checks a file that is in memory already.
    ///
    /// # Errors
    /// [`GgufError`] when it is malformed in any way.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, GgufError> {
        Self::parse(Bytes::Owned(bytes))
    }

    /// The key-value section.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The record of a tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).and_then(|&i| self.tensors.get(i))
    }

    /// The bytes of a tensor.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        // In range for every record of this file: `parse` checked it. Another file's record gives nothing.
        self.bytes.get(tensor.offset..tensor.offset + tensor.len).unwrap_or_default()
    }

    /// A tensor as a matrix `[rows, cols]`; a vector counts as one row.
    ///
    /// # Errors
    /// [`GgufError::Missing`] or [`GgufError::Tensor`] when it has more than two dimensions.
    pub fn matrix(&self, name: &str) -> Result<RawMatrix<'_>, GgufError> {
        let info = self.tensor(name).ok_or_else(|| GgufError::Missing(name.to_owned()))?;
        let (cols, rows) = match *info.dims.as_slice() {
            [cols] => (cols, 1),
            [cols, rows] => (cols, rows),
            _ => {
                let reason = format!("a matrix is needed, it has dimensions {:?}", info.dims);
                return Err(GgufError::Tensor { tensor: name.to_owned(), reason });
            }
        };
        Ok(RawMatrix { dtype: info.dtype, rows, cols, data: self.data(info) })
    }

    /// Size of the file in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the file is empty (never, once parsed).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells the system that the mapped pages are not needed for now, so that they do not count as resident.
    pub fn release_pages(&self) {
        if let Bytes::Mapped(map) = &self.bytes
            && let Err(error) = map.release_pages()
        {
            tracing::debug!(%error, "cannot release mapped pages");
        }
    }

    fn parse(bytes: Bytes) -> Result<Self, GgufError> {
        let mut at = Cursor::new(&bytes);
        let found: [u8; 4] = at.array("magic")?;
        if &found != b"GGUF" {
            return Err(GgufError::Magic { found });
        }
        let version = at.u32("version")?;
        if !matches!(version, 2 | 3) {
            return Err(GgufError::Version(version));
        }
        let tensor_count = at.count("tensor count", MAX_TENSORS)?;
        let key_count = at.count("key count", MAX_KEYS)?;
        let metadata = Metadata::read(&mut at, key_count)?;
        let (tensors, by_name) = read_tensors(&mut at, tensor_count, &metadata)?;
        Ok(Self { bytes, metadata, tensors, by_name })
    }
}

/// Reads the tensor records and resolves their offsets against the aligned start of the data.
fn read_tensors(
    at: &mut Cursor<'_>,
    count: u64,
    metadata: &Metadata,
) -> Result<(Vec<TensorInfo>, HashMap<String, usize>), GgufError> {
    let alignment = alignment(metadata)?;
    // A record takes at least 24 bytes, so the file's size bounds the allocation.
    at.need("tensor records", count.saturating_mul(24))?;
    let mut tensors = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    let mut by_name = HashMap::new();
    for index in 0..count {
        let info = read_record(at)?;
        if by_name.insert(info.name.clone(), usize::try_from(index).unwrap_or(usize::MAX)).is_some() {
            return Err(GgufError::Duplicate { what: "tensor", name: info.name });
        }
        tensors.push(info);
    }
    let start = at.position().next_multiple_of(alignment);
    let total = at.total();
    for info in &mut tensors {
        place(info, start, alignment, total)?;
    }
    Ok((tensors, by_name))
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(_) => metadata.u64("general.alignment")?,
    };
    if alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment) {
        return Ok(alignment);
    }
    Err(GgufError::Type {
        key: "general.alignment".into(),
        expected: "a power of two from 8 to 1 MiB",
        got: alignment.to_string(),
    })
}

/// Reads one record; `offset` is still relative to the data section.
fn read_record(at: &mut Cursor<'_>) -> Result<TensorInfo, GgufError> {
    let name = at.string("tensor name", MAX_NAME)?;
    let bad = |reason: String| GgufError::Tensor { tensor: name.clone(), reason };
    let n = at.u32("tensor dimensions")?;
    if n == 0 || n > MAX_DIMS {
        return Err(bad(format!("it has {n} dimensions, 1 to {MAX_DIMS} are allowed")));
    }
    let mut dims = Vec::new();
    let mut elements = 1usize;
    for _ in 0..n {
        let dim = at.u64("tensor dimension")?;
        let dim = usize::try_from(dim).ok().filter(|&d| d > 0);
        let dim = dim.ok_or_else(|| bad("a dimension is zero or does not fit the address space".into()))?;
        elements = elements.checked_mul(dim).ok_or_else(|| bad("its number of elements overflows".into()))?;
        dims.push(dim);
    }
    let id = at.u32("tensor type")?;
    let dtype = DType::from_gguf(id).ok_or_else(|| GgufError::TensorType {
        tensor: name.clone(),
        id,
        name: unsupported_name(id),
        supported: DType::ALL.map(DType::name).join(" "),
    })?;
    let cols = dims.first().copied().unwrap_or(0);
    if !cols.is_multiple_of(dtype.block()) {
        return Err(bad(format!(
            "rows of {cols} elements are not whole blocks of {} ({dtype})",
            dtype.block()
        )));
    }
    let len = dtype.bytes_for(elements).ok_or_else(|| bad("its size in bytes overflows".into()))?;
    let offset = at.u64("tensor offset")?;
    let offset =
        usize::try_from(offset).map_err(|_| bad("its offset does not fit the address space".into()))?;
    Ok(TensorInfo { name, dims, dtype, offset, len })
}

/// Turns a relative offset into an absolute one and checks that the tensor lies inside the file.
fn place(info: &mut TensorInfo, start: u64, alignment: u64, total: u64) -> Result<(), GgufError> {
    let bad = |reason: String| GgufError::Tensor { tensor: info.name.clone(), reason };
    let relative = info.offset as u64;
    if !relative.is_multiple_of(alignment) {
        return Err(bad(format!("its offset {relative} is not a multiple of the alignment {alignment}")));
    }
    let offset = start.checked_add(relative);
    let end = offset.and_then(|o| o.checked_add(info.len as u64));
    match (offset, end) {
        (Some(offset), Some(end)) if end <= total => {
            info.offset = usize::try_from(offset).map_err(|_| bad("its offset is too large".into()))?;
            Ok(())
        }
        _ => Err(bad(format!("it needs {} bytes at {relative} but the file ends before", info.len))),
    }
}

/// Names of the tensor types that exist in the field but not here, so that a refusal can say which it was.
fn unsupported_name(id: u32) -> &'static str {
    match id {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => "an unknown type",
    }
}
