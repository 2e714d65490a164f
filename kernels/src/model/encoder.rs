//! The BERT encoder graph: sentences in, unit vectors out.

mod config;

pub(crate) use config::Part;
pub use config::{EncoderConfig, EncoderFormat, Pooling};

use super::{
    ModelError,
    decoder::Progress,
    tensors::{TensorSource, matrix, vector},
};
use crate::{
    backend::{Backend, Batch, RawMatrix},
    dtype::DType,
    quant::{self, QuantError},
};

struct Layer<B: Backend> {
    qkv: B::Matrix,
    qkv_bias: B::Vector,
    output: B::Matrix,
    output_bias: B::Vector,
    attention_norm: (B::Vector, B::Vector),
    up: B::Matrix,
    up_bias: B::Vector,
    down: B::Matrix,
    down_bias: B::Vector,
    output_norm: (B::Vector, B::Vector),
}

/// An encoder on a device.
pub struct Encoder<B: Backend> {
    backend: B,
    config: EncoderConfig,
    max_batch_tokens: usize,
    tokens: B::Matrix,
    /// Positions with the embedding of token type 0 added: there is only one type in an embedding's input.
    positions: B::Matrix,
    norm: (B::Vector, B::Vector),
    layers: Vec<Layer<B>>,
    x: B::Act,
    qkv: B::Act,
    attention: B::Act,
    hidden: B::Act,
    read: Vec<f32>,
}

impl<B: Backend> std::fmt::Debug for Encoder<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("backend", &self.backend.describe())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Fetches tensors by their part in the graph.
struct Loader<'a, B: Backend> {
    source: &'a dyn TensorSource,
    format: &'a EncoderFormat,
    backend: B,
    /// The type that f32 matrices are stored as.
    single: DType,
}

/// The rows of an f32 matrix stored as another type; `None` when the matrix is to stay as it is.
fn recode(raw: &RawMatrix<'_>, dtype: DType) -> Result<Option<Vec<u8>>, ModelError> {
    if raw.dtype != DType::F32 || dtype == DType::F32 || !raw.cols.is_multiple_of(dtype.block()) {
        return Ok(None);
    }
    let wrong = |e: QuantError| ModelError::Unsupported { what: format!("f32 weights as {dtype}: {e}") };
    let mut row = vec![0.0; raw.cols];
    let mut out = Vec::with_capacity(dtype.bytes_for(raw.rows * raw.cols).unwrap_or(0));
    for stored in raw.data.chunks_exact(4 * raw.cols) {
        quant::dequantize_row(DType::F32, stored, &mut row).map_err(wrong)?;
        quant::quantize_row(dtype, &row, &mut out).map_err(wrong)?;
    }
    Ok(Some(out))
}

impl<B: Backend> Loader<'_, B> {
    fn matrix(&mut self, parts: &[Part], rows: usize, cols: usize) -> Result<B::Matrix, ModelError> {
        let names: Vec<_> = parts.iter().map(|&p| self.format.weight(p)).collect();
        let raw =
            names.iter().map(|name| matrix(self.source, name, rows, cols)).collect::<Result<Vec<_>, _>>()?;
        let stored = raw.iter().map(|raw| recode(raw, self.single)).collect::<Result<Vec<_>, _>>()?;
        let recoded = raw.iter().zip(&stored).map(|(raw, stored)| match stored {
            Some(data) => RawMatrix { dtype: self.single, data, ..*raw },
            None => *raw,
        });
        Ok(self.backend.matrix(&recoded.collect::<Vec<_>>())?)
    }

    fn biases(&mut self, parts: &[Part], len: usize) -> Result<B::Vector, ModelError> {
        let mut all = Vec::new();
        for &part in parts {
            all.extend(vector(self.source, &self.format.bias(part), len)?);
        }
        Ok(self.backend.vector(&all)?)
    }

    fn norm(&mut self, part: Part, len: usize) -> Result<(B::Vector, B::Vector), ModelError> {
        let weight = vector(self.source, &self.format.weight(part), len)?;
        Ok((self.backend.vector(&weight)?, self.biases(&[part], len)?))
    }

    fn layer(&mut self, config: &EncoderConfig, i: usize) -> Result<Layer<B>, ModelError> {
        let (width, ffn) = (config.width, config.ffn);
        let qkv = [Part::Query(i), Part::Key(i), Part::Value(i)];
        Ok(Layer {
            qkv: self.matrix(&qkv, width, width)?,
            qkv_bias: self.biases(&qkv, width)?,
            output: self.matrix(&[Part::Output(i)], width, width)?,
            output_bias: self.biases(&[Part::Output(i)], width)?,
            attention_norm: self.norm(Part::AttentionNorm(i), width)?,
            up: self.matrix(&[Part::Up(i)], ffn, width)?,
            up_bias: self.biases(&[Part::Up(i)], ffn)?,
            down: self.matrix(&[Part::Down(i)], width, ffn)?,
            down_bias: self.biases(&[Part::Down(i)], width)?,
            output_norm: self.norm(Part::OutputNorm(i), width)?,
        })
    }
}

/// The position table with the row of token type 0 added to each of its rows.
pub(crate) fn positions_with_type(
    source: &dyn TensorSource,
    format: &EncoderFormat,
    config: &EncoderConfig,
) -> Result<Vec<f32>, ModelError> {
    let decode = |part: Part, rows: usize| -> Result<Vec<f32>, ModelError> {
        let raw = matrix(source, &format.weight(part), rows, config.width)?;
        let mut out = vec![0.0; rows * config.width];
        super::tensors::decode(&format.weight(part), raw.dtype, raw.data, &mut out)?;
        Ok(out)
    };
    let mut table = decode(Part::Positions, config.positions)?;
    if config.types > 0 {
        let types = decode(Part::Types, config.types)?;
        for row in table.chunks_exact_mut(config.width) {
            row.iter_mut().zip(&types).for_each(|(x, t)| *x += t);
        }
    }
    Ok(table)
}

impl<B: Backend> Encoder<B> {
    /// Packs an encoder's weights onto a device and allocates activations for `max_batch_tokens` tokens, which is
    /// also the longest input when it is less than the model's positions.
    ///
    /// # Errors
    /// [`ModelError`] when a tensor is missing or misshapen, or memory is short.
    pub fn load(
        source: &dyn TensorSource,
        format: &EncoderFormat,
        config: EncoderConfig,
        backend: B,
        max_batch_tokens: usize,
        progress: Progress<'_>,
    ) -> Result<Self, ModelError> {
        Self::load_as(DType::F32, source, format, config, backend, max_batch_tokens, progress)
    }

    /// As [`Encoder::load`], with matrices that the file has as f32 stored as `single`: `F16` halves memory and
    /// costs nothing that a cosine shows, `Q8_0` computes in whole numbers.
    ///
    /// # Errors
    /// As [`Encoder::load`].
    pub fn load_as(
        single: DType,
        source: &dyn TensorSource,
        format: &EncoderFormat,
        config: EncoderConfig,
        backend: B,
        max_batch_tokens: usize,
        progress: Progress<'_>,
    ) -> Result<Self, ModelError> {
        if max_batch_tokens == 0 || max_batch_tokens > 1 << 16 {
            return Err(ModelError::config("max_batch_tokens", max_batch_tokens, "it must be 1 to 65536"));
        }
        let mut loader = Loader { source, format, backend, single };
        let width = config.width;
        let tokens = loader.matrix(&[Part::Tokens], config.vocab, width)?;
        let table = positions_with_type(source, format, &config)?;
        let bytes: &[u8] = bytemuck::cast_slice(&table);
        let raw = RawMatrix { dtype: DType::F32, rows: config.positions, cols: width, data: bytes };
        let positions = loader.backend.matrix(&[raw])?;
        let norm = loader.norm(Part::Norm, width)?;
        let mut layers = Vec::with_capacity(config.layers);
        for i in 0..config.layers {
            layers.push(loader.layer(&config, i)?);
            progress(i as u64 + 1, config.layers as u64);
        }
        let mut backend = loader.backend;
        let x = backend.activation(max_batch_tokens, width)?;
        let qkv = backend.activation(max_batch_tokens, 3 * width)?;
        let attention = backend.activation(max_batch_tokens, width)?;
        let hidden = backend.activation(max_batch_tokens, config.ffn)?;
        Ok(Self {
            backend,
            config,
            max_batch_tokens,
            tokens,
            positions,
            norm,
            layers,
            x,
            qkv,
            attention,
            hidden,
            read: Vec::new(),
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Longest input, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.config.positions.min(self.max_batch_tokens)
    }

    /// Unit vectors of `width` values, one per input. Inputs are token ids with the special tokens in place.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when an input is empty, too long or has an unknown token: nothing is cut silently.
    pub fn embed(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError> {
        let limit = self.max_tokens();
        for (i, input) in inputs.iter().enumerate() {
            if input.is_empty() || input.len() > limit {
                return Err(ModelError::Batch(format!(
                    "input {i} has {} tokens, 1 to {limit} fit",
                    input.len()
                )));
            }
            if let Some(token) = input.iter().find(|&&t| t as usize >= self.config.vocab) {
                return Err(ModelError::Batch(format!(
                    "token {token} of a vocabulary of {}",
                    self.config.vocab
                )));
            }
        }
        let mut out = Vec::with_capacity(inputs.len());
        let mut rest = inputs;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |input: &&Vec<u32>| {
                tokens += input.len();
                tokens <= self.max_batch_tokens
            };
            let count = rest.iter().take_while(fits).count();
            let (group, after) = rest.split_at(count);
            self.embed_group(group, &mut out)?;
            rest = after;
        }
        Ok(out)
    }

    /// Embeds inputs that fit one step together.
    fn embed_group(&mut self, inputs: &[Vec<u32>], out: &mut Vec<Vec<f32>>) -> Result<(), ModelError> {
        let mut batch = Batch { tables: vec![Vec::new(); inputs.len()], ..Batch::default() };
        for (sequence, input) in (0u32..).zip(inputs) {
            batch.tokens.extend(input);
            batch.positions.extend((0u32..).take(input.len()));
            batch.sequence.extend(std::iter::repeat_n(sequence, input.len()));
        }
        self.forward(&batch)?;
        let width = self.config.width;
        let mut rest = self.read.as_slice();
        for input in inputs {
            let Some((states, after)) = rest.split_at_checked(input.len() * width) else { break };
            out.push(pool(states, width, self.config.pooling));
            rest = after;
        }
        Ok(())
    }

    /// Leaves the hidden states of the batch's tokens in `self.read`.
    fn forward(&mut self, batch: &Batch) -> Result<(), ModelError> {
        let Self { backend, config, x, qkv, attention, hidden, .. } = self;
        let rows = batch.tokens.len();
        let (shape, eps) = (&config.attention, config.eps);
        backend.begin(batch)?;
        backend.embed(&self.tokens, x)?;
        backend.embed_positions(&self.positions, x)?;
        backend.layer_norm(x, &self.norm.0, &self.norm.1, eps)?;
        for layer in &self.layers {
            backend.matmul(rows, &layer.qkv, x, Some(&layer.qkv_bias), false, qkv)?;
            backend.attention_full(shape, qkv, attention)?;
            backend.matmul(rows, &layer.output, attention, Some(&layer.output_bias), true, x)?;
            backend.layer_norm(x, &layer.attention_norm.0, &layer.attention_norm.1, eps)?;
            backend.matmul(rows, &layer.up, x, Some(&layer.up_bias), false, hidden)?;
            backend.gelu(hidden)?;
            backend.matmul(rows, &layer.down, hidden, Some(&layer.down_bias), true, x)?;
            backend.layer_norm(x, &layer.output_norm.0, &layer.output_norm.1, eps)?;
        }
        Ok(backend.read(rows, x, &mut self.read)?)
    }
}

/// One unit vector from the hidden states `[tokens, width]` of one input.
pub(crate) fn pool(states: &[f32], width: usize, pooling: Pooling) -> Vec<f32> {
    let mut out = vec![0.0f32; width];
    match pooling {
        Pooling::Cls => out.iter_mut().zip(states).for_each(|(o, s)| *o = *s),
        // The length of the sum does not matter: it is normalised below.
        Pooling::Mean => {
            for row in states.chunks_exact(width) {
                out.iter_mut().zip(row).for_each(|(o, s)| *o += s);
            }
        }
    }
    let norm = out.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
    if norm > 0.0 {
        #[allow(clippy::cast_possible_truncation, reason = "the result is f32")]
        out.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    }
    out
}
