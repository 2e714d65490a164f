//! The decoder, token by token.

use super::{Matrix, add, dot, head_of, mean, softmax};
use crate::{
    backend::{Rope, RopeStyle},
    gguf::Gguf,
    model::{
        Architecture, DecoderConfig, ModelError,
        tensors::{TensorSource, optional_vector, vector},
    },
};

#[derive(Debug)]
struct Layer {
    attn_norm: Vec<f32>,
    q: (Matrix, Option<Vec<f32>>),
    k: (Matrix, Option<Vec<f32>>),
    v: (Matrix, Option<Vec<f32>>),
    output: (Matrix, Option<Vec<f32>>),
    head_norms: Option<(Vec<f32>, Vec<f32>)>,
    ffn_norm: Vec<f32>,
    gate: (Matrix, Option<Vec<f32>>),
    up: (Matrix, Option<Vec<f32>>),
    down: (Matrix, Option<Vec<f32>>),
    /// Keys and values of all positions so far, `kv_heads · head_dim` each.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

/// A decoder with the state of one sequence.
#[derive(Debug)]
pub struct ReferenceDecoder {
    config: DecoderConfig,
    embedding: Matrix,
    head: Option<Matrix>,
    output_norm: Vec<f32>,
    layers: Vec<Layer>,
    position: usize,
}

impl ReferenceDecoder {
    /// Decodes a model's weights.
    ///
    /// # Errors
    /// [`ModelError`] when the file does not describe a supported decoder.
    pub fn load(gguf: &Gguf) -> Result<Self, ModelError> {
        let config = DecoderConfig::from_gguf(gguf)?;
        let (width, ffn) = (config.width, config.ffn);
        let shape = &config.attention;
        let (q, kv) = (shape.q_width(), shape.kv_heads * shape.head_dim);
        let linear = |i: usize, part: &str, rows: usize, cols: usize| {
            let weight = Matrix::load(gguf, &format!("blk.{i}.{part}.weight"), rows, cols)?;
            let bias = optional_vector(gguf, &format!("blk.{i}.{part}.bias"), rows)?;
            Ok::<_, ModelError>((weight, bias))
        };
        let norm = |i: usize, part: &str, len: usize| vector(gguf, &format!("blk.{i}.{part}.weight"), len);
        let mut layers = Vec::new();
        for i in 0..config.layers {
            layers.push(Layer {
                attn_norm: norm(i, "attn_norm", width)?,
                q: linear(i, "attn_q", q, width)?,
                k: linear(i, "attn_k", kv, width)?,
                v: linear(i, "attn_v", kv, width)?,
                output: linear(i, "attn_output", width, q)?,
                head_norms: match config.architecture {
                    Architecture::Qwen3 => Some((
                        norm(i, "attn_q_norm", shape.head_dim)?,
                        norm(i, "attn_k_norm", shape.head_dim)?,
                    )),
                    _ => None,
                },
                ffn_norm: norm(i, "ffn_norm", width)?,
                gate: linear(i, "ffn_gate", ffn, width)?,
                up: linear(i, "ffn_up", ffn, width)?,
                down: linear(i, "ffn_down", width, ffn)?,
                keys: Vec::new(),
                values: Vec::new(),
            });
        }
        let head = match gguf.find("output.weight") {
            Some(_) => Some(Matrix::load(gguf, "output.weight", config.vocab, width)?),
            None => None,
        };
        Ok(Self {
            embedding: Matrix::load(gguf, "token_embd.weight", config.vocab, width)?,
            head,
            output_norm: vector(gguf, "output_norm.weight", width)?,
            layers,
            position: 0,
            config,
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.position = 0;
        for layer in &mut self.layers {
            layer.keys.clear();
            layer.values.clear();
        }
    }

    /// Appends a token and returns the logits that follow it.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the token is not in the vocabulary.
    pub fn forward(&mut self, token: u32) -> Result<Vec<f32>, ModelError> {
        let Self { config, embedding, layers, position, .. } = self;
        if token as usize >= config.vocab {
            return Err(ModelError::Batch(format!("token {token} of a vocabulary of {}", config.vocab)));
        }
        let mut x = embedding.row(token as usize).to_vec();
        for layer in layers {
            let h = rms_norm(&x, &layer.attn_norm, config.rms_eps);
            let attention = attend(config, layer, &h, *position);
            add(&mut x, &layer.output.0.times(&attention, layer.output.1.as_deref()));
            let h = rms_norm(&x, &layer.ffn_norm, config.rms_eps);
            let gate = layer.gate.0.times(&h, layer.gate.1.as_deref());
            let up = layer.up.0.times(&h, layer.up.1.as_deref());
            let hidden: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            add(&mut x, &layer.down.0.times(&hidden, layer.down.1.as_deref()));
        }
        *position += 1;
        let h = rms_norm(&x, &self.output_norm, config.rms_eps);
        Ok(self.head.as_ref().unwrap_or(embedding).times(&h, None))
    }
}

fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let scale = 1.0 / (mean(x.iter().map(|v| v * v)) + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
}

/// Attention of one new token over everything before it and itself.
fn attend(config: &DecoderConfig, layer: &mut Layer, h: &[f32], position: usize) -> Vec<f32> {
    let shape = &config.attention;
    let dim = shape.head_dim;
    let mut q = layer.q.0.times(h, layer.q.1.as_deref());
    let mut k = layer.k.0.times(h, layer.k.1.as_deref());
    let v = layer.v.0.times(h, layer.v.1.as_deref());
    if let Some((q_norm, k_norm)) = &layer.head_norms {
        for (rows, weight) in [(&mut q, q_norm), (&mut k, k_norm)] {
            for head in rows.chunks_exact_mut(dim) {
                let normed = rms_norm(head, weight, config.rms_eps);
                head.copy_from_slice(&normed);
            }
        }
    }
    for head in q.chunks_exact_mut(dim).chain(k.chunks_exact_mut(dim)) {
        rotate(head, &config.rope, position);
    }
    layer.keys.push(k);
    layer.values.push(v);
    let first = shape.window.map_or(0, |w| (position + 1).saturating_sub(w as usize));
    let per_kv = shape.heads / shape.kv_heads;
    let mut out = vec![0.0; shape.q_width()];
    for (head, (q, out)) in q.chunks_exact(dim).zip(out.chunks_exact_mut(dim)).enumerate() {
        let kv = head / per_kv;
        let mut scores: Vec<f32> =
            layer.keys.iter().skip(first).map(|k| dot(q, head_of(k, kv, dim)) * shape.scale).collect();
        softmax(&mut scores);
        for (value, score) in layer.values.iter().skip(first).zip(&scores) {
            out.iter_mut().zip(head_of(value, kv, dim)).for_each(|(o, v)| *o += score * v);
        }
    }
    out
}

fn rotate(head: &mut [f32], rope: &Rope, position: usize) {
    let pairs = rope.inv_freq.len();
    for (i, frequency) in rope.inv_freq.iter().enumerate() {
        let (a, b) = match rope.style {
            RopeStyle::Interleaved => (2 * i, 2 * i + 1),
            RopeStyle::HalfSplit => (i, i + pairs),
        };
        #[allow(clippy::cast_precision_loss, reason = "positions are below 2^24")]
        let angle = position as f32 * frequency;
        let (sin, cos) = (angle.sin() * rope.magnitude, angle.cos() * rope.magnitude);
        let (Some(&x), Some(&y)) = (head.get(a), head.get(b)) else { continue };
        if let Some(slot) = head.get_mut(a) {
            *slot = x * cos - y * sin;
        }
        if let Some(slot) = head.get_mut(b) {
            *slot = x * sin + y * cos;
        }
    }
}
