//! Model graphs over the op set: decoders of the llama family and BERT encoders.
//!
//! Everything a file says is checked here before anything is allocated: counts against the caps of
//! [`config`], tensors against the shapes that the counts ask for.

pub mod config;
pub mod decoder;
pub mod encoder;
pub mod tensors;

pub use config::{Architecture, DecoderConfig};
pub use decoder::{Decoder, LoadOptions};
pub use encoder::{Encoder, EncoderConfig, EncoderFormat, Pooling};

use crate::{backend::BackendError, gguf::GgufError, safetensors::SafetensorsError};

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file's metadata could not be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The safetensors file or its companion files could not be read.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// The device refused or failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// An architecture without an implementation.
    #[error("architecture `{found}` is not supported here; supported: {supported}")]
    Architecture {
        /// What the file says.
        found: String,
        /// What there is.
        supported: &'static str,
    },
    /// A feature of the model that this crate does not implement; ignoring it would give wrong answers.
    #[error("the model uses {what}, which is not supported")]
    Unsupported {
        /// The feature, with its key.
        what: String,
    },
    /// A number in the metadata makes no sense or passes its cap.
    #[error("{what} is {value}: {reason}")]
    Config {
        /// The number, by key where it has one.
        what: String,
        /// What it is.
        value: String,
        /// What it must be.
        reason: String,
    },
    /// A tensor the architecture needs is missing.
    #[error("tensor `{0}` is missing")]
    MissingTensor(String),
    /// A tensor's shape contradicts the metadata.
    #[error("tensor `{name}` has shape {got:?}, {expected:?} is needed")]
    TensorShape {
        /// The tensor.
        name: String,
        /// Row-major shape that is needed.
        expected: Vec<usize>,
        /// Row-major shape that it has.
        got: Vec<usize>,
    },
    /// A step asks for more than was allocated, or contradicts itself.
    #[error("bad batch: {0}")]
    Batch(String),
}

impl ModelError {
    pub(crate) fn config(what: impl Into<String>, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::Config { what: what.into(), value: value.to_string(), reason: reason.into() }
    }
}
