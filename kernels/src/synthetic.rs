//! Small random models in the true tensor layout of each architecture, for tests and benches.
//!
//! Values come from a counter-based generator, so that a specification and a seed give the same file anywhere.
//! Weights are scaled so that activations and attention scores stay in the range of trained models. Layouts
//! follow llama.cpp's `gguf-py/gguf/constants.py`.

mod metadata;
mod requantize;

pub use requantize::requantize;

use crate::{
    dtype::DType,
    gguf::GgufWriter,
    model::Architecture,
    quant::{self, QuantError},
};

/// Large matrices are made of this many values, quantised once and drawn from in random order.
const POOL: usize = 1 << 18;

/// What kind of model to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A decoder of this family.
    Decoder(Architecture),
    /// A BERT encoder.
    Bert,
}

/// A model to make.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Decoder family or encoder.
    pub kind: Kind,
    /// Channels of the residual stream.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels per head.
    pub head_dim: usize,
    /// Channels of the feed-forward layer.
    pub ffn: usize,
    /// Tokens in the vocabulary, at least 512.
    pub vocab: usize,
    /// Positions.
    pub context: usize,
    /// Sliding window (written for `mistral` and `llama`).
    pub window: Option<u32>,
    /// Whether to write Llama 3's `rope_freqs.weight`.
    pub rope_freqs: bool,
    /// Whether the embedding is the output matrix too.
    pub tied: bool,
    /// Seed of all values.
    pub seed: u64,
}

impl Spec {
    /// A model of about two million parameters that has every feature of its family: `llama` frequency factors,
    /// `mistral` a window, `qwen2` biases and a tied embedding, `qwen3` head norms and wide heads.
    pub fn small(kind: Kind) -> Self {
        let base = Self {
            kind,
            width: 256,
            layers: 3,
            heads: 8,
            kv_heads: 4,
            head_dim: 32,
            ffn: 512,
            vocab: 512,
            context: 1024,
            window: None,
            rope_freqs: false,
            tied: false,
            seed: 1,
        };
        match kind {
            Kind::Decoder(Architecture::Llama) => Self { rope_freqs: true, ..base },
            Kind::Decoder(Architecture::Mistral) => Self { window: Some(100), kv_heads: 2, ..base },
            Kind::Decoder(Architecture::Qwen2) => Self { tied: true, kv_heads: 2, ..base },
            Kind::Decoder(Architecture::Qwen3) => Self { head_dim: 64, ..base },
            Kind::Bert => Self { kv_heads: 8, context: 512, ..base },
        }
    }

    /// A size by name: `small`, `0.5b` (Qwen2.5-0.5B's shape), `1b` (Llama-3.2-1B's), `1.1b` (TinyLlama's, with
    /// 32,000 tokens).
    pub fn preset(kind: Kind, size: &str) -> Option<Self> {
        let small = Self::small(kind);
        let base = Self { head_dim: 64, context: 8192, window: None, rope_freqs: false, tied: true, ..small };
        let (width, layers, heads, kv_heads, ffn, vocab) = match size {
            "small" => return Some(Self::small(kind)),
            "0.5b" => (896, 24, 14, 2, 4864, 151_936),
            "1b" => (2048, 16, 32, 8, 8192, 128_256),
            "1.1b" => (2048, 22, 32, 4, 5632, 32_000),
            _ => return None,
        };
        let kv_heads = if kind == Kind::Bert { heads } else { kv_heads };
        let tied = size != "1.1b";
        Some(Self { width, layers, heads, kv_heads, ffn, vocab, tied, ..base })
    }

    /// The whole model, with 2-D weights stored as `dtype` where their rows are whole blocks of it (otherwise as
    /// the 32-block type that llama.cpp falls back to).
    ///
    /// # Errors
    /// [`QuantError`] when a row cannot be encoded.
    pub fn build(&self, dtype: DType) -> Result<GgufWriter, QuantError> {
        let mut out = Builder { writer: GgufWriter::new(self.metadata(dtype)), dtype, seed: self.seed };
        match self.kind {
            Kind::Decoder(architecture) => self.decoder(&mut out, architecture)?,
            Kind::Bert => self.bert(&mut out)?,
        }
        Ok(out.writer)
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// [`QuantError`] when a row cannot be encoded.
    pub fn bytes(&self, dtype: DType) -> Result<Vec<u8>, QuantError> {
        let mut bytes = Vec::new();
        // Writing to a vector cannot fail.
        let _ = self.build(dtype)?.write(&mut bytes);
        Ok(bytes)
    }

    fn decoder(&self, out: &mut Builder, architecture: Architecture) -> Result<(), QuantError> {
        let (width, ffn) = (self.width, self.ffn);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let residual = self.residual();
        out.matrix("token_embd.weight", self.vocab, width, 1.0)?;
        if !self.tied {
            out.matrix("output.weight", self.vocab, width, unit(width))?;
        }
        out.norm("output_norm.weight", width)?;
        if self.rope_freqs {
            out.floats("rope_freqs.weight", &self.frequency_factors())?;
        }
        for i in 0..self.layers {
            let name = |part: &str| format!("blk.{i}.{part}.weight");
            out.norm(&name("attn_norm"), width)?;
            out.matrix(&name("attn_q"), q, width, unit(width))?;
            out.matrix(&name("attn_k"), kv, width, unit(width))?;
            out.matrix(&name("attn_v"), kv, width, unit(width))?;
            out.matrix(&name("attn_output"), width, q, unit(q) * residual)?;
            out.norm(&name("ffn_norm"), width)?;
            out.matrix(&name("ffn_gate"), ffn, width, unit(width))?;
            out.matrix(&name("ffn_up"), ffn, width, unit(width))?;
            out.matrix(&name("ffn_down"), width, ffn, unit(ffn) * residual)?;
            match architecture {
                Architecture::Qwen2 => {
                    for (part, len) in [("attn_q", q), ("attn_k", kv), ("attn_v", kv)] {
                        out.bias(&format!("blk.{i}.{part}.bias"), len)?;
                    }
                }
                Architecture::Qwen3 => {
                    out.norm(&name("attn_q_norm"), self.head_dim)?;
                    out.norm(&name("attn_k_norm"), self.head_dim)?;
                }
                Architecture::Llama | Architecture::Mistral => {}
            }
        }
        Ok(())
    }

    fn bert(&self, out: &mut Builder) -> Result<(), QuantError> {
        let (width, ffn) = (self.width, self.ffn);
        out.matrix("token_embd.weight", self.vocab, width, 1.0)?;
        out.plain("position_embd.weight", self.context, width, 0.1)?;
        out.plain("token_types.weight", 2, width, 0.1)?;
        out.norm("token_embd_norm.weight", width)?;
        out.bias("token_embd_norm.bias", width)?;
        for i in 0..self.layers {
            for (part, rows, cols) in [
                ("attn_q", width, width),
                ("attn_k", width, width),
                ("attn_v", width, width),
                ("attn_output", width, width),
                ("ffn_up", ffn, width),
                ("ffn_down", width, ffn),
            ] {
                out.matrix(&format!("blk.{i}.{part}.weight"), rows, cols, unit(cols))?;
                out.bias(&format!("blk.{i}.{part}.bias"), rows)?;
            }
            for part in ["attn_output_norm", "layer_output_norm"] {
                out.norm(&format!("blk.{i}.{part}.weight"), width)?;
                out.bias(&format!("blk.{i}.{part}.bias"), width)?;
            }
        }
        Ok(())
    }

    /// Factor on the matrices that write to the residual stream: as in GPT-2's initialisation, all layers together
    /// add about as much as the embedding brought.
    #[allow(clippy::cast_precision_loss, reason = "at most 512 layers")]
    fn residual(&self) -> f32 {
        1.0 / (2.0 * self.layers as f32).sqrt()
    }

    /// Llama 3's factors (`rope_type` `llama3`: factor 8, low 1, high 4) for an original context a quarter of
    /// this one's. Source: `transformers/modeling_rope_utils.py`, `_compute_llama3_parameters`.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small numbers")]
    fn frequency_factors(&self) -> Vec<f32> {
        let (factor, low, high) = (8.0f64, 1.0f64, 4.0f64);
        let original = self.context as f64 / 4.0;
        let pairs = self.head_dim / 2;
        let factors = (0..pairs).map(|i| {
            let frequency = ROPE_BASE.powf(-(i as f64) / pairs as f64);
            let wavelength = 2.0 * std::f64::consts::PI / frequency;
            if wavelength < original / high {
                1.0
            } else if wavelength > original / low {
                factor
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        });
        factors.map(|f| f as f32).collect()
    }
}

/// Base of the rotary frequencies in generated models.
const ROPE_BASE: f64 = 10_000.0;

/// Standard deviation that keeps unit inputs at unit outputs.
#[allow(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
fn unit(cols: usize) -> f32 {
    1.0 / (cols as f32).sqrt()
}

/// The type that stands in for `dtype` when rows are not whole blocks of it, as in llama.cpp's quantiser.
fn fallback(dtype: DType, cols: usize) -> DType {
    let smaller = match dtype {
        _ if cols.is_multiple_of(dtype.block()) => return dtype,
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        DType::Q6_K => DType::Q8_0,
        _ => DType::F16,
    };
    if cols.is_multiple_of(smaller.block()) { smaller } else { DType::F16 }
}

struct Builder {
    writer: GgufWriter,
    dtype: DType,
    seed: u64,
}

impl Builder {
    fn matrix(&mut self, name: &str, rows: usize, cols: usize, deviation: f32) -> Result<(), QuantError> {
        self.random(name, rows, cols, deviation, fallback(self.dtype, cols))
    }

    /// A table that no quantiser touches.
    fn plain(&mut self, name: &str, rows: usize, cols: usize, deviation: f32) -> Result<(), QuantError> {
        self.random(name, rows, cols, deviation, DType::F32)
    }

    fn random(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
        deviation: f32,
        dtype: DType,
    ) -> Result<(), QuantError> {
        let random = Random::new(self.seed, name);
        let elements = rows * cols;
        let mut data = Vec::with_capacity(dtype.bytes_for(elements).unwrap_or(0));
        let values: Vec<f32> = (0..elements.min(POOL) as u64).map(|i| random.normal(i) * deviation).collect();
        if elements <= POOL {
            quant::quantize_row(dtype, &values, &mut data)?;
        } else {
            let mut pool = Vec::new();
            quant::quantize_row(dtype, &values, &mut pool)?;
            let block = dtype.block_bytes();
            let blocks = (POOL / dtype.block()) as u64;
            for i in 0..(elements / dtype.block()) as u64 {
                let at = usize::try_from(random.bits(i ^ (1 << 40)) % blocks).unwrap_or(0) * block;
                data.extend_from_slice(pool.get(at..at + block).unwrap_or_default());
            }
        }
        self.writer.tensor(name, &[cols, rows], dtype, data);
        Ok(())
    }

    fn norm(&mut self, name: &str, len: usize) -> Result<(), QuantError> {
        let random = Random::new(self.seed, name);
        self.floats(name, &(0..len as u64).map(|i| 1.0 + 0.1 * random.normal(i)).collect::<Vec<_>>())
    }

    fn bias(&mut self, name: &str, len: usize) -> Result<(), QuantError> {
        let random = Random::new(self.seed, name);
        self.floats(name, &(0..len as u64).map(|i| 0.2 * random.normal(i)).collect::<Vec<_>>())
    }

    fn floats(&mut self, name: &str, values: &[f32]) -> Result<(), QuantError> {
        let mut data = Vec::new();
        quant::quantize_row(DType::F32, values, &mut data)?;
        self.writer.tensor(name, &[values.len()], DType::F32, data);
        Ok(())
    }
}

/// Values by index from a seed and a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let fold = |state: u64, byte: u8| mix(state ^ u64::from(byte));
        Self(name.bytes().fold(mix(seed), fold))
    }

    pub(crate) fn bits(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Mean 0 and deviation 1: the sum of four uniform values, which needs no function that differs by platform.
    fn normal(self, index: u64) -> f32 {
        let bits = self.bits(index);
        let parts = [bits, bits >> 16, bits >> 32, bits >> 48].map(|b| (b & 0xffff) as f32 / 65_536.0);
        (parts.iter().sum::<f32>() - 2.0) * 3.0f32.sqrt()
    }
}

/// The finaliser of SplitMix64.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
