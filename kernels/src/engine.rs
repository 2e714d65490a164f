//! What a host holds: a model on whichever device, behind one object-safe trait.

pub mod kv;
mod load;

pub use load::{EncoderSource, estimate, load_decoder, load_encoder, load_encoder_as};

use crate::{
    backend::{Backend, Batch, PageId},
    model::{Decoder, DecoderConfig, Encoder, EncoderConfig, ModelError, decoder},
};

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model's file or a step was refused, or the device failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An option makes no sense for this model.
    #[error("{name} is {value}: {reason}")]
    Option {
        /// The option.
        name: &'static str,
        /// What was asked for.
        value: usize,
        /// What it must be.
        reason: String,
    },
    /// The model does not fit this machine's memory.
    #[error(
        "the model needs {} MiB ({} MiB weights, {} MiB cache), {} MiB are available; \
         use a smaller model, a shorter context or fewer parallel sequences",
        needed.total() >> 20, needed.weights >> 20, needed.cache >> 20, available >> 20
    )]
    Memory {
        /// What it would take.
        needed: Memory,
        /// What the system says is available, in bytes.
        available: u64,
    },
    /// A GPU was asked for and this program was built without one.
    #[error("this build has no GPU support (feature `gpu`)")]
    NoGpuSupport,
}

impl From<crate::backend::BackendError> for EngineError {
    fn from(error: crate::backend::BackendError) -> Self {
        Self::Model(ModelError::Backend(error))
    }
}

/// Which device to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// A real GPU when there is one and the model fits it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU; an error when there is none.
    Gpu,
}

/// How a model is to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Which device.
    pub device: Device,
    /// CPU threads; `None`: as many as the machine has cores for this process.
    pub threads: Option<usize>,
    /// Longest sequence, in positions; 0: as long as the model was trained for.
    pub context: usize,
    /// Sequences that can have that length at the same time.
    pub parallel: usize,
    /// Most tokens in one step (decoders) or one pass (encoders).
    pub max_batch_tokens: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { device: Device::Auto, threads: None, context: 4096, parallel: 4, max_batch_tokens: 512 }
    }
}

/// Bytes that a model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights, as the file stores them; packed they are within about a tenth of it.
    pub weights: u64,
    /// KV cache.
    pub cache: u64,
    /// Activation buffers.
    pub activations: u64,
}

impl Memory {
    /// All of it.
    pub const fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.activations)
    }
}

/// A decoder on some device.
pub trait Generator: Send {
    /// The model's shape.
    fn config(&self) -> &DecoderConfig;

    /// The device, for people.
    fn describe(&self) -> String;

    /// Pages of the KV cache; keep the books with a [`kv::PagePool`] of this size.
    fn pages(&self) -> usize;

    /// Most tokens in one step.
    fn max_batch_tokens(&self) -> usize;

    /// Most rows of logits in one step.
    fn max_outputs(&self) -> usize;

    /// Runs one step and returns the logits of `batch.outputs`, `vocab` values each.
    ///
    /// # Errors
    /// [`EngineError`] when the batch is inconsistent (nothing was changed) or the device failed.
    fn forward(&mut self, batch: &Batch) -> Result<&[f32], EngineError>;

    /// The last hidden states, after the last norm, of the outputs of the last [`Generator::forward`], as many values
    /// each as the model is wide. Costs nothing when it is not called.
    ///
    /// # Errors
    /// [`EngineError`] when the device failed.
    fn hidden(&mut self) -> Result<&[f32], EngineError>;

    /// Copies one page of the cache to another in all layers.
    ///
    /// # Errors
    /// [`EngineError`] when a page does not exist or the device failed.
    fn copy_page(&mut self, from: PageId, to: PageId) -> Result<(), EngineError>;

    /// What the model takes.
    fn memory(&self) -> Memory;
}

/// A decoder that the caller has loaded onto a backend of its own choice; `weights` are its bytes in the file.
pub fn generator<B>(decoder: Decoder<B>, weights: u64) -> Box<dyn Generator>
where
    B: Backend + 'static,
{
    Box::new(Loaded { decoder, weights })
}

/// An encoder on some device.
pub trait Embedder: Send {
    /// The model's shape.
    fn config(&self) -> &EncoderConfig;

    /// The device, for people.
    fn describe(&self) -> String;

    /// Longest input, in tokens.
    fn max_tokens(&self) -> usize;

    /// Unit vectors, one per input of token ids with the special tokens in place.
    ///
    /// # Errors
    /// [`EngineError`] when an input is empty, too long or has unknown tokens, or the device failed.
    fn embed(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, EngineError>;
}

/// A decoder with what is known of its size.
struct Loaded<B: Backend> {
    decoder: Decoder<B>,
    weights: u64,
}

impl<B: Backend> Generator for Loaded<B> {
    fn config(&self) -> &DecoderConfig {
        self.decoder.config()
    }

    fn describe(&self) -> String {
        self.decoder.backend().describe()
    }

    fn pages(&self) -> usize {
        self.decoder.options().cache_pages
    }

    fn max_batch_tokens(&self) -> usize {
        self.decoder.options().max_batch_tokens
    }

    fn max_outputs(&self) -> usize {
        self.decoder.options().max_outputs
    }

    fn forward(&mut self, batch: &Batch) -> Result<&[f32], EngineError> {
        Ok(self.decoder.forward(batch)?)
    }

    fn hidden(&mut self) -> Result<&[f32], EngineError> {
        Ok(self.decoder.hidden()?)
    }

    fn copy_page(&mut self, from: PageId, to: PageId) -> Result<(), EngineError> {
        Ok(self.decoder.copy_page(from, to)?)
    }

    fn memory(&self) -> Memory {
        let (config, options) = (self.decoder.config(), self.decoder.options());
        Memory {
            weights: self.weights,
            cache: config.cache_bytes(options.cache_pages),
            activations: decoder::activation_bytes(config, options),
        }
    }
}

impl<B: Backend> Embedder for Encoder<B> {
    fn config(&self) -> &EncoderConfig {
        Self::config(self)
    }

    fn describe(&self) -> String {
        self.backend().describe()
    }

    fn max_tokens(&self) -> usize {
        Self::max_tokens(self)
    }

    fn embed(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, EngineError> {
        Ok(Self::embed(self, inputs)?)
    }
}
