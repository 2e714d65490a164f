//! The decoder graph: weights on a device, a paged KV cache, and one step over a batch.

use std::collections::HashSet;

use super::{
    Architecture, ModelError,
    config::DecoderConfig,
    tensors::{TensorSource, matrix, optional_vector, vector},
};
use crate::{
    backend::{Backend, Batch, PAGE, PageId},
    gguf::Gguf,
};

/// How much to allocate for a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Most tokens in one step.
    pub max_batch_tokens: usize,
    /// Most rows of logits in one step.
    pub max_outputs: usize,
    /// Pages of the KV cache.
    pub cache_pages: usize,
}

/// Called while loading with bytes of weights packed and bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

struct Layer<B: Backend> {
    attn_norm: B::Vector,
    qkv: B::Matrix,
    qkv_bias: Option<B::Vector>,
    head_norms: Option<(B::Vector, B::Vector)>,
    output: B::Matrix,
    output_bias: Option<B::Vector>,
    ffn_norm: B::Vector,
    gate_up: B::Matrix,
    gate_up_bias: Option<B::Vector>,
    down: B::Matrix,
    down_bias: Option<B::Vector>,
}

/// Activation buffers, allocated once for the largest step.
struct Buffers<B: Backend> {
    /// Residual stream.
    x: B::Act,
    /// Normalised input of the matrices.
    h: B::Act,
    qkv: B::Act,
    attention: B::Act,
    gate_up: B::Act,
    hidden: B::Act,
    /// Rows of `x` whose logits are wanted.
    selected: B::Act,
    /// The same rows of `attention`.
    selected_attention: B::Act,
    logits: B::Act,
}

/// A decoder on a device.
pub struct Decoder<B: Backend> {
    backend: B,
    config: DecoderConfig,
    options: LoadOptions,
    embedding: B::Matrix,
    /// `None`: the embedding serves as output matrix too.
    head: Option<B::Matrix>,
    output_norm: B::Vector,
    layers: Vec<Layer<B>>,
    cache: B::Cache,
    buffers: Buffers<B>,
    logits: Vec<f32>,
    /// Rows of last hidden states that the last step left in `buffers.h`.
    outputs: usize,
    hidden: Vec<f32>,
}

impl<B: Backend> std::fmt::Debug for Decoder<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("backend", &self.backend.describe())
            .field("config", &self.config)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Bytes of the weights as the file holds them; a device's packed form is within about a tenth of it.
pub fn weights_bytes(gguf: &Gguf) -> u64 {
    gguf.tensors().iter().map(|t| t.len as u64).sum()
}

/// Bytes of the activation buffers for these options.
pub fn activation_bytes(config: &DecoderConfig, options: &LoadOptions) -> u64 {
    let attention = &config.attention;
    let token = 2 * config.width + attention.qkv_width() + attention.q_width() + 3 * config.ffn;
    let output = config.width + attention.q_width() + config.vocab;
    let values = (token as u64).saturating_mul(options.max_batch_tokens as u64);
    values.saturating_add((output as u64).saturating_mul(options.max_outputs as u64)).saturating_mul(4)
}

/// The model's matrices while they are packed, with progress and a list of what was used.
struct Loader<'a, B: Backend> {
    gguf: &'a Gguf,
    backend: B,
    used: HashSet<String>,
    done: u64,
    total: u64,
    progress: Progress<'a>,
}

impl<B: Backend> Loader<'_, B> {
    /// Packs matrices of `cols` columns, given as (name, rows), into one.
    fn matrix(&mut self, parts: &[(&str, usize)], cols: usize) -> Result<B::Matrix, ModelError> {
        let raw = parts
            .iter()
            .map(|&(name, rows)| matrix(self.gguf, name, rows, cols))
            .collect::<Result<Vec<_>, _>>()?;
        let packed = self.backend.matrix(&raw)?;
        self.done += raw.iter().map(|m| m.data.len() as u64).sum::<u64>();
        self.used.extend(parts.iter().map(|(name, _)| (*name).to_owned()));
        (self.progress)(self.done.min(self.total), self.total);
        Ok(packed)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<B::Vector, ModelError> {
        let data = vector(self.gguf, name, len)?;
        self.used.insert(name.to_owned());
        Ok(self.backend.vector(&data)?)
    }

    /// One vector for stacked matrices: zeros where a part has no bias, `None` when no part has one.
    fn bias(&mut self, parts: &[(&str, usize)]) -> Result<Option<B::Vector>, ModelError> {
        let mut all = Vec::new();
        let mut any = false;
        for &(name, len) in parts {
            match optional_vector(self.gguf, name, len)? {
                Some(part) => {
                    any = true;
                    self.used.insert(name.to_owned());
                    all.extend(part);
                }
                None => all.resize(all.len() + len, 0.0),
            }
        }
        if any { Ok(Some(self.backend.vector(&all)?)) } else { Ok(None) }
    }

    fn layer(&mut self, config: &DecoderConfig, index: usize) -> Result<Layer<B>, ModelError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let shape = &config.attention;
        let (width, ffn) = (config.width, config.ffn);
        let (q, kv) = (shape.q_width(), shape.kv_heads * shape.head_dim);
        let head_norms = match config.architecture {
            Architecture::Qwen3 => Some((
                self.vector(&name("attn_q_norm.weight"), shape.head_dim)?,
                self.vector(&name("attn_k_norm.weight"), shape.head_dim)?,
            )),
            _ => None,
        };
        let layer = Layer {
            attn_norm: self.vector(&name("attn_norm.weight"), width)?,
            qkv: self.matrix(
                &[(&name("attn_q.weight"), q), (&name("attn_k.weight"), kv), (&name("attn_v.weight"), kv)],
                width,
            )?,
            qkv_bias: self.bias(&[
                (&name("attn_q.bias"), q),
                (&name("attn_k.bias"), kv),
                (&name("attn_v.bias"), kv),
            ])?,
            head_norms,
            output: self.matrix(&[(&name("attn_output.weight"), width)], q)?,
            output_bias: self.bias(&[(&name("attn_output.bias"), width)])?,
            ffn_norm: self.vector(&name("ffn_norm.weight"), width)?,
            gate_up: self.matrix(&[(&name("ffn_gate.weight"), ffn), (&name("ffn_up.weight"), ffn)], width)?,
            gate_up_bias: self.bias(&[(&name("ffn_gate.bias"), ffn), (&name("ffn_up.bias"), ffn)])?,
            down: self.matrix(&[(&name("ffn_down.weight"), width)], ffn)?,
            down_bias: self.bias(&[(&name("ffn_down.bias"), width)])?,
        };
        // What is packed need not stay resident: the peak is the packed model, not twice the model.
        self.gguf.release_pages();
        Ok(layer)
    }

    /// A tensor that no part of the graph asked for means a model this graph does not describe.
    fn refuse_unused(&self) -> Result<(), ModelError> {
        let unused = self.gguf.tensors().iter().find(|t| {
            let ignorable = t.name == "rope_freqs.weight" || t.name.ends_with("attn_rot_embd");
            !ignorable && !self.used.contains(&t.name)
        });
        match unused {
            None => Ok(()),
            Some(tensor) => Err(ModelError::Unsupported { what: format!("a tensor `{}`", tensor.name) }),
        }
    }
}

impl<B: Backend> Decoder<B> {
    /// Packs a model's weights onto a device and allocates cache and activations.
    ///
    /// # Errors
    /// [`ModelError`] when the file does not describe a supported model or memory is short.
    pub fn load(
        gguf: &Gguf,
        backend: B,
        options: LoadOptions,
        progress: Progress<'_>,
    ) -> Result<Self, ModelError> {
        let config = DecoderConfig::from_gguf(gguf)?;
        check_options(&options)?;
        let (width, vocab) = (config.width, config.vocab);
        let mut loader =
            Loader { gguf, backend, used: HashSet::new(), done: 0, total: weights_bytes(gguf), progress };
        // Shapes are checked before a large allocation can follow from them.
        matrix(gguf, "token_embd.weight", vocab, width)?;
        let embedding = loader.matrix(&[("token_embd.weight", vocab)], width)?;
        let head = match gguf.find("output.weight") {
            Some(_) => Some(loader.matrix(&[("output.weight", vocab)], width)?),
            None => None,
        };
        let output_norm = loader.vector("output_norm.weight", width)?;
        let layers =
            (0..config.layers).map(|i| loader.layer(&config, i)).collect::<Result<Vec<_>, ModelError>>()?;
        loader.refuse_unused()?;
        (loader.progress)(loader.total, loader.total);
        gguf.release_pages();
        let mut backend = loader.backend;
        let cache = backend.cache(&config.cache_shape(options.cache_pages))?;
        let buffers = allocate(&mut backend, &config, &options)?;
        Ok(Self {
            backend,
            config,
            options,
            embedding,
            head,
            output_norm,
            layers,
            cache,
            buffers,
            logits: Vec::new(),
            outputs: 0,
            hidden: Vec::new(),
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// What was allocated.
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Copies one page of the cache to another in all layers.
    ///
    /// # Errors
    /// [`ModelError`] when a page does not exist or the device failed.
    pub fn copy_page(&mut self, from: PageId, to: PageId) -> Result<(), ModelError> {
        for page in [from, to] {
            if page as usize >= self.options.cache_pages {
                return Err(ModelError::Batch(format!("page {page} of {}", self.options.cache_pages)));
            }
        }
        Ok(self.backend.copy_page(&mut self.cache, from, to)?)
    }

    /// Runs one step: appends the batch's tokens to the cache and returns the logits of `batch.outputs`, row by
    /// row, `vocab` values each.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the batch contradicts itself or passes what was allocated (the cache is then
    /// untouched), [`ModelError::Backend`] when the device failed.
    pub fn forward(&mut self, batch: &Batch) -> Result<&[f32], ModelError> {
        check_batch(batch, self.config.vocab, &self.options)?;
        self.outputs = 0;
        let Self { backend, config, embedding, head, layers, cache, buffers: b, .. } = self;
        let (tokens, outputs) = (batch.tokens.len(), batch.outputs.len());
        let shape = &config.attention;
        backend.begin(batch)?;
        backend.embed(embedding, &mut b.x)?;
        // Past the last layer's attention only the rows with wanted logits matter.
        let narrow = outputs < tokens;
        let last = layers.len() - 1;
        for (index, layer) in layers.iter().enumerate() {
            backend.rms_norm(tokens, &b.x, &layer.attn_norm, config.rms_eps, &mut b.h)?;
            backend.matmul(tokens, &layer.qkv, &b.h, layer.qkv_bias.as_ref(), false, &mut b.qkv)?;
            let norms = layer.head_norms.as_ref().map(|(q, k)| (q, k, config.rms_eps));
            backend.rope_append(index, shape, &config.rope, norms, &mut b.qkv, cache)?;
            if index == last && outputs == 0 {
                break;
            }
            backend.attention(index, shape, &b.qkv, cache, &mut b.attention)?;
            let narrow = narrow && index == last;
            let rows = if narrow { outputs } else { tokens };
            let (x, attention) = if narrow {
                backend.select_outputs(&b.x, &mut b.selected)?;
                backend.select_outputs(&b.attention, &mut b.selected_attention)?;
                (&mut b.selected, &b.selected_attention)
            } else {
                (&mut b.x, &b.attention)
            };
            backend.matmul(rows, &layer.output, attention, layer.output_bias.as_ref(), true, x)?;
            backend.rms_norm(rows, x, &layer.ffn_norm, config.rms_eps, &mut b.h)?;
            backend.matmul(rows, &layer.gate_up, &b.h, layer.gate_up_bias.as_ref(), false, &mut b.gate_up)?;
            backend.swiglu(&b.gate_up, &mut b.hidden)?;
            backend.matmul(rows, &layer.down, &b.hidden, layer.down_bias.as_ref(), true, x)?;
        }
        self.logits.clear();
        if outputs > 0 {
            let x = if narrow { &b.selected } else { &b.x };
            backend.rms_norm(outputs, x, &self.output_norm, config.rms_eps, &mut b.h)?;
            let head = head.as_ref().unwrap_or(embedding);
            backend.matmul(outputs, head, &b.h, None, false, &mut b.logits)?;
            backend.read(outputs, &b.logits, &mut self.logits)?;
        }
        self.outputs = outputs;
        Ok(&self.logits)
    }

    /// The last hidden states, after the last norm, of the outputs of the last [`Decoder::forward`], row by row,
    /// `width` values each. They are on the device anyway: who does not ask pays nothing.
    ///
    /// # Errors
    /// [`ModelError::Backend`] when the device failed.
    pub fn hidden(&mut self) -> Result<&[f32], ModelError> {
        self.hidden.clear();
        if self.outputs > 0 {
            self.backend.read(self.outputs, &self.buffers.h, &mut self.hidden)?;
        }
        Ok(&self.hidden)
    }
}

fn allocate<B: Backend>(
    backend: &mut B,
    config: &DecoderConfig,
    options: &LoadOptions,
) -> Result<Buffers<B>, ModelError> {
    let (tokens, outputs) = (options.max_batch_tokens, options.max_outputs);
    let shape = &config.attention;
    Ok(Buffers {
        x: backend.activation(tokens, config.width)?,
        h: backend.activation(tokens, config.width)?,
        qkv: backend.activation(tokens, shape.qkv_width())?,
        attention: backend.activation(tokens, shape.q_width())?,
        gate_up: backend.activation(tokens, 2 * config.ffn)?,
        hidden: backend.activation(tokens, config.ffn)?,
        selected: backend.activation(outputs, config.width)?,
        selected_attention: backend.activation(outputs, shape.q_width())?,
        logits: backend.activation(outputs, config.vocab)?,
    })
}

fn check_options(options: &LoadOptions) -> Result<(), ModelError> {
    let LoadOptions { max_batch_tokens, max_outputs, cache_pages } = *options;
    if max_batch_tokens == 0 || max_batch_tokens > 1 << 16 {
        return Err(ModelError::config("max_batch_tokens", max_batch_tokens, "it must be 1 to 65536"));
    }
    if max_outputs == 0 || max_outputs > max_batch_tokens {
        return Err(ModelError::config("max_outputs", max_outputs, "it must be 1 to max_batch_tokens"));
    }
    if cache_pages == 0 || cache_pages > 1 << 24 {
        return Err(ModelError::config("cache_pages", cache_pages, "it must be 1 to 2^24"));
    }
    Ok(())
}

/// Refuses a batch that a backend could not run: what they get is consistent.
fn check_batch(batch: &Batch, vocab: usize, options: &LoadOptions) -> Result<(), ModelError> {
    let bad = |reason: String| Err(ModelError::Batch(reason));
    let tokens = batch.tokens.len();
    if tokens == 0 || tokens > options.max_batch_tokens {
        return bad(format!("{tokens} tokens, 1 to {} fit", options.max_batch_tokens));
    }
    if batch.positions.len() != tokens || batch.sequence.len() != tokens {
        let (p, s) = (batch.positions.len(), batch.sequence.len());
        return bad(format!("{tokens} tokens but {p} positions and {s} sequence numbers"));
    }
    if let Some(token) = batch.tokens.iter().find(|&&t| t as usize >= vocab) {
        return bad(format!("token {token} of a vocabulary of {vocab}"));
    }
    if batch.outputs.len() > options.max_outputs {
        return bad(format!("{} outputs, {} fit", batch.outputs.len(), options.max_outputs));
    }
    let ascending = batch.outputs.is_sorted_by(|a, b| a < b);
    if !ascending || batch.outputs.last().is_some_and(|&o| o as usize >= tokens) {
        return bad("outputs must be ascending indices of tokens".into());
    }
    let mut seen = vec![false; batch.tables.len()];
    let mut previous: Option<(u32, u32)> = None;
    for (&sequence, &position) in batch.sequence.iter().zip(&batch.positions) {
        match previous {
            Some((s, p)) if s == sequence => {
                if p.checked_add(1) != Some(position) {
                    return bad(format!("sequence {sequence} goes from position {p} to {position}"));
                }
            }
            _ => match seen.get_mut(sequence as usize) {
                Some(seen) if !*seen => *seen = true,
                Some(_) => return bad(format!("the tokens of sequence {sequence} are not together")),
                None => return bad(format!("sequence {sequence} of {}", batch.tables.len())),
            },
        }
        previous = Some((sequence, position));
    }
    // The pages from the first to the last position of each sequence: attention reads all of them.
    for (&sequence, &position) in batch.sequence.iter().zip(&batch.positions) {
        let Some(table) = batch.tables.get(sequence as usize) else { continue };
        if position as usize / PAGE >= table.len() {
            return bad(format!("position {position} of sequence {sequence} has no page"));
        }
    }
    if let Some(page) = batch.tables.iter().flatten().find(|&&p| p as usize >= options.cache_pages) {
        return bad(format!("page {page} of {}", options.cache_pages));
    }
    Ok(())
}
