//! The op set that both backends implement, and the batch that one step of a model works on.
//!
//! Activations are f32, row-major `[tokens, width]`, and live where the backend lives. Every op is a whole
//! pass over a step's tokens, so that a GPU needs few launches and a CPU few barriers.

use crate::dtype::DType;

/// Positions in one page of the KV cache.
pub const PAGE: usize = 32;

/// Index of a page in the KV cache, shared by all layers.
pub type PageId = u32;

/// Why a backend refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The device cannot be used at all.
    #[error("no usable {backend} device: {reason}")]
    Unavailable {
        /// `cpu` or `gpu`.
        backend: &'static str,
        /// What was missing.
        reason: String,
    },
    /// A tensor does not have the shape the op needs.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The op that refused.
        op: &'static str,
        /// The shape it needs.
        expected: String,
        /// The shape it was given.
        got: String,
    },
    /// Memory for weights, cache or activations could not be had.
    #[error("{what} needs {bytes} bytes, which the {backend} device cannot give: {reason}")]
    OutOfMemory {
        /// `cpu` or `gpu`.
        backend: &'static str,
        /// What was to be allocated.
        what: String,
        /// How much of it, in bytes.
        bytes: u64,
        /// The device's own words, or the limit that was passed.
        reason: String,
    },
    /// The device failed while it worked.
    #[error("the {backend} device failed in {op}: {reason}")]
    Device {
        /// `cpu` or `gpu`.
        backend: &'static str,
        /// The op that failed.
        op: &'static str,
        /// The device's own words.
        reason: String,
    },
}

/// A matrix of weights as a file holds it: row-major, each row made of whole blocks along its columns.
#[derive(Clone, Copy, Debug)]
pub struct RawMatrix<'a> {
    /// Encoding of `data`.
    pub dtype: DType,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Exactly `rows` rows of `dtype.bytes_for(cols)` bytes.
    pub data: &'a [u8],
}

impl RawMatrix<'_> {
    /// Checks that `data` has the length that type and shape ask for.
    ///
    /// # Errors
    /// [`BackendError::Shape`] when a row is not whole blocks or the bytes do not fit.
    pub fn check(&self) -> Result<(), BackendError> {
        let bytes = self.dtype.bytes_for(self.cols).and_then(|row| row.checked_mul(self.rows));
        if bytes == Some(self.data.len()) && self.rows > 0 && self.cols > 0 {
            return Ok(());
        }
        Err(BackendError::Shape {
            op: "matrix",
            expected: format!("{} × {} of {} ({bytes:?} bytes)", self.rows, self.cols, self.dtype),
            got: format!("{} bytes", self.data.len()),
        })
    }
}

/// Which channels a rotation pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// `(2i, 2i+1)`: GGUF files of `llama` and `mistral`, whose q and k rows were permuted for it.
    Interleaved,
    /// `(i, i + dims/2)`: `qwen2`, `qwen3`.
    HalfSplit,
}

/// Rotary position embedding of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Which channels are paired.
    pub style: RopeStyle,
    /// Angle per position for each pair, `dims / 2` values; any frequency scaling is already in them.
    /// Channels past `2 * inv_freq.len()` of a head are left as they are.
    pub inv_freq: Vec<f32>,
    /// Factor on cosine and sine (1 unless a scaling method asks for another).
    pub magnitude: f32,
}

/// Shape of an attention layer.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Channels per head.
    pub head_dim: usize,
    /// Factor on the scores, `1/√head_dim` unless the model says otherwise.
    pub scale: f32,
    /// A query at position p sees keys at positions `> p - window` only. `None`: all of them.
    pub window: Option<u32>,
}

impl AttentionShape {
    /// Width of a fused `[q | k | v]` row.
    pub const fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Width of the attention output, and of the q part.
    pub const fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }
}

/// Shape of a paged KV cache, over all layers. Keys and values are kept as f16.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Decoder layers.
    pub layers: usize,
    /// Pages of [`PAGE`] positions.
    pub pages: usize,
    /// Key and value heads per layer.
    pub kv_heads: usize,
    /// Channels per head.
    pub head_dim: usize,
}

/// The tokens of one step. Tokens of one sequence are consecutive and in position order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, all sequences one after the other.
    pub tokens: Vec<u32>,
    /// Position of each token in its sequence.
    pub positions: Vec<u32>,
    /// For each token, the index of its sequence in `tables`.
    pub sequence: Vec<u32>,
    /// For each sequence, the pages that hold its positions: position p is in `tables[s][p / PAGE]`.
    pub tables: Vec<Vec<PageId>>,
    /// Indices into `tokens` whose logits are wanted, ascending.
    pub outputs: Vec<u32>,
}

/// The operations a model graph is made of. Buffers are created once for the largest step; `batch.tokens.len()`
/// of the last [`Backend::begin`] says how many rows the ops below work on, unless an op names its rows.
///
/// Work may be queued: only [`Backend::read`] has to wait for it.
pub trait Backend: Send {
    /// A packed weight matrix on the device; may be several stacked tensors.
    type Matrix: Send;
    /// A weight vector (norm weights, biases) on the device.
    type Vector: Send;
    /// An activation buffer `[tokens, width]` on the device.
    type Act: Send;
    /// A paged KV cache on the device.
    type Cache: Send;

    /// `cpu` or `gpu`, with what it runs on, for people.
    fn describe(&self) -> String;

    /// Packs matrices stacked by rows (equal `cols`) into one, e.g. q, k and v.
    ///
    /// # Errors
    /// When a shape does not fit or memory is short.
    fn matrix(&mut self, parts: &[RawMatrix<'_>]) -> Result<Self::Matrix, BackendError>;

    /// Copies a vector to the device.
    ///
    /// # Errors
    /// When memory is short.
    fn vector(&mut self, data: &[f32]) -> Result<Self::Vector, BackendError>;

    /// A buffer of `tokens` rows of `width` values.
    ///
    /// # Errors
    /// When memory is short.
    fn activation(&mut self, tokens: usize, width: usize) -> Result<Self::Act, BackendError>;

    /// A KV cache.
    ///
    /// # Errors
    /// When memory is short.
    fn cache(&mut self, shape: &CacheShape) -> Result<Self::Cache, BackendError>;

    /// Copies one page to another in all layers (copy on write of a shared prefix).
    ///
    /// # Errors
    /// When the device failed.
    fn copy_page(&mut self, cache: &mut Self::Cache, from: PageId, to: PageId) -> Result<(), BackendError>;

    /// Starts a step: makes tokens, positions and page tables known to the device.
    ///
    /// # Errors
    /// When the batch is inconsistent or the device failed.
    fn begin(&mut self, batch: &Batch) -> Result<(), BackendError>;

    /// `out[t] = table[tokens[t]]`, decoded to f32.
    ///
    /// # Errors
    /// When the device failed.
    fn embed(&mut self, table: &Self::Matrix, out: &mut Self::Act) -> Result<(), BackendError>;

    /// `out[t] += table[positions[t]]` (learned positions of encoders).
    ///
    /// # Errors
    /// When the device failed.
    fn embed_positions(&mut self, table: &Self::Matrix, out: &mut Self::Act) -> Result<(), BackendError>;

    /// `out[t] = x[t] / √(mean(x[t]²) + eps) · weight`. `rows` rows.
    ///
    /// # Errors
    /// When the device failed.
    fn rms_norm(
        &mut self,
        rows: usize,
        x: &Self::Act,
        weight: &Self::Vector,
        eps: f32,
        out: &mut Self::Act,
    ) -> Result<(), BackendError>;

    /// In place: `x[t] = (x[t] − mean) / √(var + eps) · weight + bias`.
    ///
    /// # Errors
    /// When the device failed.
    fn layer_norm(
        &mut self,
        x: &mut Self::Act,
        weight: &Self::Vector,
        bias: &Self::Vector,
        eps: f32,
    ) -> Result<(), BackendError>;

    /// `out[t] = w · x[t] (+ bias)`, or `out[t] += …` when `accumulate`. `rows` rows of x and out.
    ///
    /// # Errors
    /// When the device failed.
    fn matmul(
        &mut self,
        rows: usize,
        w: &Self::Matrix,
        x: &Self::Act,
        bias: Option<&Self::Vector>,
        accumulate: bool,
        out: &mut Self::Act,
    ) -> Result<(), BackendError>;

    /// On fused `[q | k | v]` rows: RMS-normalises each q and k head when weights are given, rotates q and k by
    /// their position, writes k and v into the cache, leaves q in place.
    ///
    /// # Errors
    /// When the device failed.
    #[allow(clippy::too_many_arguments, reason = "one fused launch per layer takes all of it")]
    fn rope_append(
        &mut self,
        layer: usize,
        shape: &AttentionShape,
        rope: &Rope,
        head_norms: Option<(&Self::Vector, &Self::Vector, f32)>,
        qkv: &mut Self::Act,
        cache: &mut Self::Cache,
    ) -> Result<(), BackendError>;

    /// Causal attention of the q part of `qkv` over the cache; `out` is `[tokens, heads · head_dim]`.
    ///
    /// # Errors
    /// When the device failed.
    fn attention(
        &mut self,
        layer: usize,
        shape: &AttentionShape,
        qkv: &Self::Act,
        cache: &Self::Cache,
        out: &mut Self::Act,
    ) -> Result<(), BackendError>;

    /// Attention of every token over all tokens of its own sequence in this batch, without a cache.
    ///
    /// # Errors
    /// When the device failed.
    fn attention_full(
        &mut self,
        shape: &AttentionShape,
        qkv: &Self::Act,
        out: &mut Self::Act,
    ) -> Result<(), BackendError>;

    /// On fused `[gate | up]` rows of width `2n`: `out[t][i] = silu(gate[t][i]) · up[t][i]`.
    ///
    /// # Errors
    /// When the device failed.
    fn swiglu(&mut self, gate_up: &Self::Act, out: &mut Self::Act) -> Result<(), BackendError>;

    /// In place, with the error function: `x·Φ(x)`.
    ///
    /// # Errors
    /// When the device failed.
    fn gelu(&mut self, x: &mut Self::Act) -> Result<(), BackendError>;

    /// `out[i] = x[batch.outputs[i]]`.
    ///
    /// # Errors
    /// When the device failed.
    fn select_outputs(&mut self, x: &Self::Act, out: &mut Self::Act) -> Result<(), BackendError>;

    /// Waits for queued work and copies the first `rows` rows of `x` into `out` (resized to fit).
    ///
    /// # Errors
    /// When the device failed.
    fn read(&mut self, rows: usize, x: &Self::Act, out: &mut Vec<f32>) -> Result<(), BackendError>;
}
