//! safetensors files, memory-mapped: encoders are published in this format.
//!
//! The offsets, shapes and lengths are checked by the `safetensors` crate; this module adds a cap on the header
//! and refuses element types that the kernels do not take.
//! Format: <https://github.com/huggingface/safetensors#format>.

use std::{collections::HashMap, ops::Range, path::Path};

use safetensors::Dtype;

use crate::{
    dtype::DType,
    mapped::{Bytes, MappedFile},
    model::tensors::{RawTensor, TensorSource},
};

/// Longest header, in bytes. The largest published encoders have about 100 KB.
pub const MAX_HEADER: u64 = 16 << 20;
/// Most dimensions of a tensor.
pub const MAX_DIMS: usize = 8;

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// The file could not be opened or mapped.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The header passes its cap.
    #[error("the safetensors header takes {bytes} bytes, more than the {MAX_HEADER} allowed")]
    HeaderTooLarge {
        /// Its length by its own account.
        bytes: u64,
    },
    /// The header or the layout is malformed.
    #[error("malformed safetensors file: {0}")]
    Malformed(String),
    /// A companion file (`config.json`) is missing something or malformed.
    #[error("{path}: {reason}")]
    Json {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Debug)]
struct Entry {
    /// `None`: a type that the kernels do not take (position ids are I64, for example).
    dtype: Option<DType>,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// An opened safetensors file.
#[derive(Debug)]
pub struct Safetensors {
    bytes: Bytes,
    tensors: HashMap<String, Entry>,
}

impl Safetensors {
    /// Maps and checks a file.
    ///
    /// # Errors
    /// [`SafetensorsError`] when it cannot be read or is malformed.
    pub fn open(path: &Path) -> Result<Self, SafetensorsError> {
        let io = |source| SafetensorsError::Io { path: path.display().to_string(), source };
        Self::parse(Bytes::Mapped(MappedFile::open(path).map_err(io)?))
    }

    /// Checks a file that is in memory already.
    ///
    /// # Errors
    /// [`SafetensorsError`] when it is malformed.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, SafetensorsError> {
        Self::parse(Bytes::Owned(bytes))
    }

    /// Names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    fn parse(bytes: Bytes) -> Result<Self, SafetensorsError> {
        let slice = &bytes;
        let header = slice.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
        if header > MAX_HEADER {
            return Err(SafetensorsError::HeaderTooLarge { bytes: header });
        }
        let malformed = |e: safetensors::SafeTensorError| SafetensorsError::Malformed(e.to_string());
        let (len, metadata) = safetensors::SafeTensors::read_metadata(slice).map_err(malformed)?;
        let base = 8 + len;
        let mut tensors = HashMap::new();
        for (name, info) in metadata.tensors() {
            if info.shape.len() > MAX_DIMS {
                let reason = format!("tensor `{name}` has {} dimensions", info.shape.len());
                return Err(SafetensorsError::Malformed(reason));
            }
            let dtype = match info.dtype {
                Dtype::F32 => Some(DType::F32),
                Dtype::F16 => Some(DType::F16),
                Dtype::BF16 => Some(DType::BF16),
                _ => None,
            };
            // `read_metadata` has checked that the offsets lie inside the file.
            let (start, end) = info.data_offsets;
            let entry = Entry { dtype, shape: info.shape.clone(), range: base + start..base + end };
            tensors.insert(name, entry);
        }
        Ok(Self { bytes, tensors })
    }
}

impl TensorSource for Safetensors {
    fn find(&self, name: &str) -> Option<RawTensor<'_>> {
        let entry = self.tensors.get(name)?;
        let data = self.bytes.get(entry.range.clone())?;
        Some(RawTensor { dtype: entry.dtype?, shape: entry.shape.clone(), data })
    }
}
