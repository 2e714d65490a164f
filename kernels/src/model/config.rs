//! What a decoder's metadata says about its shape, validated.

use super::{
    ModelError,
    tensors::{TensorSource, vector},
};
use crate::{
    backend::{AttentionShape, CacheShape, PAGE, Rope, RopeStyle},
    gguf::{Gguf, Metadata, Value},
    sample::math::power,
};

/// Most layers a model may have.
pub const MAX_LAYERS: usize = 512;
/// Widest embedding, in channels.
pub const MAX_WIDTH: usize = 1 << 16;
/// Most attention heads in a layer.
pub const MAX_HEADS: usize = 1 << 10;
/// Most channels in a head.
pub const MAX_HEAD_DIM: usize = 1 << 10;
/// Widest feed-forward layer, in channels.
pub const MAX_FFN: usize = 1 << 19;
/// Most tokens in a vocabulary.
pub const MAX_VOCAB: usize = 1 << 21;
/// Longest context, in positions.
pub const MAX_CONTEXT: usize = 1 << 24;

/// A decoder family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 1 to 3 and everything that calls itself so.
    Llama,
    /// Mistral: Llama with a sliding window in its first version.
    Mistral,
    /// Qwen 2 and 2.5: biases on q, k and v, half-split rotation.
    Qwen2,
    /// Qwen 3: normalised q and k heads, half-split rotation.
    Qwen3,
}

impl Architecture {
    /// Every supported family.
    pub const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// The name in `general.architecture`, which is also the prefix of its keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// Which channels its rotation pairs in GGUF files.
    pub const fn rope_style(self) -> RopeStyle {
        match self {
            Self::Llama | Self::Mistral => RopeStyle::Interleaved,
            Self::Qwen2 | Self::Qwen3 => RopeStyle::HalfSplit,
        }
    }
}

/// A decoder's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// The family.
    pub architecture: Architecture,
    /// `general.name`, when the file has one.
    pub name: Option<String>,
    /// Layers.
    pub layers: usize,
    /// Channels of the residual stream.
    pub width: usize,
    /// Channels of the feed-forward layer.
    pub ffn: usize,
    /// Tokens in the vocabulary, which is the width of the logits.
    pub vocab: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    /// Attention of every layer.
    pub attention: AttentionShape,
    /// Rotary embedding of every layer.
    pub rope: Rope,
    /// Epsilon of the RMS norms.
    pub rms_eps: f32,
}

impl DecoderConfig {
    /// Reads and checks the metadata. Frequency factors that a file keeps in the tensor `rope_freqs.weight` are
    /// not in metadata: [`DecoderConfig::from_gguf`] applies them too.
    ///
    /// # Errors
    /// [`ModelError`] for an unknown architecture, a missing or senseless number, or a feature that is not
    /// implemented.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, ModelError> {
        let found = metadata.str("general.architecture")?;
        let architecture = Architecture::ALL.into_iter().find(|a| a.name() == found);
        let architecture = architecture.ok_or_else(|| ModelError::Architecture {
            found: found.to_owned(),
            supported: "llama, mistral, qwen2, qwen3",
        })?;
        let keys = Keys { metadata, prefix: architecture.name() };
        refuse_unknown_features(&keys)?;
        let layers = keys.number("block_count", MAX_LAYERS)?;
        let width = keys.number("embedding_length", MAX_WIDTH)?;
        let ffn = keys.number("feed_forward_length", MAX_FFN)?;
        let context = keys.number("context_length", MAX_CONTEXT)?;
        let attention = attention(&keys, architecture, width, context)?;
        let rms_eps = keys.metadata.f32(&keys.key("attention.layer_norm_rms_epsilon"))?;
        if !(rms_eps > 0.0 && rms_eps < 1.0) {
            let key = keys.key("attention.layer_norm_rms_epsilon");
            return Err(ModelError::config(key, rms_eps, "it must be between 0 and 1"));
        }
        let rope = rope(&keys, architecture, attention.head_dim)?;
        let name = metadata.optional("general.name", |m, k| m.str(k).map(str::to_owned))?;
        let vocab = vocab(&keys)?;
        Ok(Self { architecture, name, layers, width, ffn, vocab, context, attention, rope, rms_eps })
    }

    /// As [`DecoderConfig::from_metadata`], with Llama 3's frequency factors from `rope_freqs.weight`.
    ///
    /// # Errors
    /// As there, and when the factors do not fit.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let mut config = Self::from_metadata(gguf.metadata())?;
        let name = "rope_freqs.weight";
        if gguf.find(name).is_some() {
            let factors = vector(gguf, name, config.rope.inv_freq.len())?;
            for (frequency, factor) in config.rope.inv_freq.iter_mut().zip(&factors) {
                if !(factor.is_finite() && *factor > 0.0) {
                    return Err(ModelError::config(name, factor, "factors must be positive"));
                }
                *frequency /= factor;
            }
        }
        Ok(config)
    }

    /// Bytes of the KV cache that this many pages of [`PAGE`] positions take (f16 keys and values).
    pub fn cache_bytes(&self, pages: usize) -> u64 {
        let per_position = 2 * self.attention.kv_heads * self.attention.head_dim * 2 * self.layers;
        (per_position as u64).saturating_mul(PAGE as u64).saturating_mul(pages as u64)
    }

    /// The cache of this model with so many pages.
    pub fn cache_shape(&self, pages: usize) -> CacheShape {
        CacheShape {
            layers: self.layers,
            pages,
            kv_heads: self.attention.kv_heads,
            head_dim: self.attention.head_dim,
        }
    }
}

/// Metadata under one architecture's prefix.
struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'static str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// A count from 1 to `limit`.
    fn number(&self, name: &str, limit: usize) -> Result<usize, ModelError> {
        let key = self.key(name);
        let value = self.metadata.u64(&key)?;
        match usize::try_from(value) {
            Ok(n) if (1..=limit).contains(&n) => Ok(n),
            _ => Err(ModelError::config(key, value, format!("it must be from 1 to {limit}"))),
        }
    }

    fn optional_number(&self, name: &str, limit: usize) -> Result<Option<usize>, ModelError> {
        if self.metadata.get(&self.key(name)).is_none() {
            Ok(None)
        } else {
            self.number(name, limit).map(Some)
        }
    }

    /// A finite, positive number.
    fn positive(&self, name: &str) -> Result<Option<f32>, ModelError> {
        let key = self.key(name);
        let value = self.metadata.optional(&key, Metadata::f32)?;
        match value {
            Some(v) if !(v > 0.0 && v.is_finite()) => {
                Err(ModelError::config(key, v, "it must be a positive number"))
            }
            other => Ok(other),
        }
    }
}

/// Features that change the graph and have no implementation: refused by name, never ignored.
fn refuse_unknown_features(keys: &Keys<'_>) -> Result<(), ModelError> {
    // (key, value that means "not used")
    let neutral = [
        ("expert_count", 0.0),
        ("attention.clamp_kqv", 0.0),
        ("attention.max_alibi_bias", 0.0),
        ("attn_logit_softcapping", 0.0),
        ("final_logit_softcapping", 0.0),
        ("logit_scale", 1.0),
        ("residual_scale", 1.0),
        ("embedding_scale", 1.0),
        ("rope.scaling.attn_factor", 1.0),
    ];
    for (name, off) in neutral {
        let key = keys.key(name);
        let value = keys.metadata.optional(&key, Metadata::f32)?;
        if let Some(value) = value.filter(|v| *v != off) {
            return Err(ModelError::Unsupported { what: format!("`{key}` = {value}") });
        }
    }
    let key = keys.key("attention.causal");
    if keys.metadata.get(&key) == Some(&Value::Bool(false)) {
        return Err(ModelError::Unsupported { what: format!("`{key}` = false") });
    }
    Ok(())
}

fn attention(
    keys: &Keys<'_>,
    architecture: Architecture,
    width: usize,
    context: usize,
) -> Result<AttentionShape, ModelError> {
    let heads = keys.number("attention.head_count", MAX_HEADS)?;
    let kv_heads = keys.optional_number("attention.head_count_kv", MAX_HEADS)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let reason = format!("it must divide the {heads} query heads");
        return Err(ModelError::config(keys.key("attention.head_count_kv"), kv_heads, reason));
    }
    let head_dim = match keys.optional_number("attention.key_length", MAX_HEAD_DIM)? {
        Some(dim) => dim,
        None if width.is_multiple_of(heads) => width / heads,
        None => {
            let reason = format!("it must divide the width {width}");
            return Err(ModelError::config(keys.key("attention.head_count"), heads, reason));
        }
    };
    if head_dim > MAX_HEAD_DIM || !head_dim.is_multiple_of(2) {
        let reason = format!("it must be even and at most {MAX_HEAD_DIM}");
        return Err(ModelError::config("channels per head", head_dim, reason));
    }
    if let Some(value) = keys.optional_number("attention.value_length", MAX_HEAD_DIM)?
        && value != head_dim
    {
        let what = format!("`{}` = {value} unlike the keys' {head_dim}", keys.key("attention.value_length"));
        return Err(ModelError::Unsupported { what });
    }
    #[allow(clippy::cast_precision_loss, reason = "head_dim is at most 1024")]
    let scale = match keys.positive("attention.scale")? {
        Some(scale) => scale,
        None => 1.0 / (head_dim as f32).sqrt(),
    };
    let window = window(keys, architecture, context)?;
    Ok(AttentionShape { heads, kv_heads, head_dim, scale, window })
}

fn window(keys: &Keys<'_>, architecture: Architecture, context: usize) -> Result<Option<u32>, ModelError> {
    let key = keys.key("attention.sliding_window");
    let window = keys.metadata.optional(&key, Metadata::u32)?.filter(|&w| w > 0 && (w as usize) < context);
    match architecture {
        Architecture::Llama | Architecture::Mistral => Ok(window),
        // Qwen's windows cover only some of the layers.
        Architecture::Qwen2 | Architecture::Qwen3 => match window {
            None => Ok(None),
            Some(w) => Err(ModelError::Unsupported { what: format!("`{key}` = {w} in some layers only") }),
        },
    }
}

fn rope(keys: &Keys<'_>, architecture: Architecture, head_dim: usize) -> Result<Rope, ModelError> {
    let dims = keys.optional_number("rope.dimension_count", head_dim)?.unwrap_or(head_dim);
    if !dims.is_multiple_of(2) {
        return Err(ModelError::config(keys.key("rope.dimension_count"), dims, "it must be even"));
    }
    let base = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
    let factor = scaling_factor(keys)?;
    // The angles are exact to f32 only when the power is taken in f64, and the same everywhere only when it is our own.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "dims is small; f32 is the target"
    )]
    let inv_freq = (0..dims / 2)
        .map(|i| (power(f64::from(base), -2.0 * i as f64 / dims as f64) / f64::from(factor)) as f32)
        .collect();
    Ok(Rope { style: architecture.rope_style(), inv_freq, magnitude: 1.0 })
}

/// By how much positions are squeezed (1: not at all).
fn scaling_factor(keys: &Keys<'_>) -> Result<f32, ModelError> {
    let key = keys.key("rope.scaling.type");
    let kind = keys.metadata.optional(&key, |m, k| m.str(k).map(str::to_owned))?;
    let factor = match keys.positive("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.positive("rope.scale_linear")?,
    };
    match kind.as_deref() {
        // llama.cpp's default type is linear when only a factor is given.
        None | Some("linear") => Ok(factor.unwrap_or(1.0)),
        Some("none") => Ok(1.0),
        Some(other) => Err(ModelError::Unsupported { what: format!("RoPE scaling `{key}` = {other}") }),
    }
}

/// The size of the vocabulary: of the tokenizer when the file has one, as that is what the rows are made for.
fn vocab(keys: &Keys<'_>) -> Result<usize, ModelError> {
    let tokens = "tokenizer.ggml.tokens";
    let vocab = match keys.metadata.optional(tokens, |m, k| m.strings(k).map(<[_]>::len))? {
        Some(len) => len,
        None => keys.number("vocab_size", MAX_VOCAB)?,
    };
    if (1..=MAX_VOCAB).contains(&vocab) {
        return Ok(vocab);
    }
    Err(ModelError::config("vocabulary", vocab, format!("it must have 1 to {MAX_VOCAB} tokens")))
}
