//! Shape and tensor names of BERT encoders in both file formats.

use std::path::Path;

use serde_json::Value as Json;

use crate::{
    backend::AttentionShape,
    gguf::{Gguf, Metadata},
    model::{
        ModelError,
        config::{MAX_FFN, MAX_HEAD_DIM, MAX_HEADS, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH},
        tensors::TensorSource,
    },
    safetensors::{Safetensors, SafetensorsError},
};

/// Longest input an encoder may be made for, in positions.
const MAX_POSITIONS: usize = 1 << 16;
/// Largest companion JSON file, in bytes.
const MAX_JSON: u64 = 1 << 20;

/// How the states of an input's tokens become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over all tokens (MiniLM).
    Mean,
    /// The state of the first token (bge).
    Cls,
}

/// An encoder's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Layers.
    pub layers: usize,
    /// Channels of the residual stream and of the result.
    pub width: usize,
    /// Channels of the feed-forward layer.
    pub ffn: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Longest input, in tokens.
    pub positions: usize,
    /// Rows of the token type table (0: none).
    pub types: usize,
    /// Attention of every layer.
    pub attention: AttentionShape,
    /// Epsilon of the layer norms.
    pub eps: f32,
    /// From token states to one vector.
    pub pooling: Pooling,
}

/// The numbers as either format gives them, before they are checked.
struct Numbers {
    layers: u64,
    width: u64,
    ffn: u64,
    heads: u64,
    positions: u64,
    vocab: u64,
    types: u64,
    eps: f32,
    pooling: Pooling,
}

impl Numbers {
    fn check(&self) -> Result<EncoderConfig, ModelError> {
        let count = |what: &str, value: u64, limit: usize| match usize::try_from(value) {
            Ok(n) if (1..=limit).contains(&n) => Ok(n),
            _ => Err(ModelError::config(what, value, format!("it must be from 1 to {limit}"))),
        };
        let width = count("encoder width", self.width, MAX_WIDTH)?;
        let heads = count("encoder heads", self.heads, MAX_HEADS)?;
        let head_dim = width / heads;
        if !width.is_multiple_of(heads) || head_dim > MAX_HEAD_DIM {
            let reason = format!("it must divide the width {width} into at most {MAX_HEAD_DIM} channels");
            return Err(ModelError::config("encoder heads", heads, reason));
        }
        if !(self.eps > 0.0 && self.eps < 1.0) {
            return Err(ModelError::config("layer norm epsilon", self.eps, "it must be between 0 and 1"));
        }
        #[allow(clippy::cast_precision_loss, reason = "head_dim is at most 1024")]
        let scale = 1.0 / (head_dim as f32).sqrt();
        Ok(EncoderConfig {
            layers: count("encoder layers", self.layers, MAX_LAYERS)?,
            width,
            ffn: count("encoder feed-forward width", self.ffn, MAX_FFN)?,
            vocab: count("encoder vocabulary", self.vocab, MAX_VOCAB)?,
            positions: count("encoder positions", self.positions, MAX_POSITIONS)?,
            types: if self.types == 0 { 0 } else { count("encoder token types", self.types, 1 << 10)? },
            attention: AttentionShape { heads, kv_heads: heads, head_dim, scale, window: None },
            eps: self.eps,
            pooling: self.pooling,
        })
    }
}

impl EncoderConfig {
    /// Reads and checks the metadata of a GGUF file with architecture `bert`.
    ///
    /// # Errors
    /// [`ModelError`] for another architecture, a missing or senseless number, or another pooling.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let m = gguf.metadata();
        let found = m.str("general.architecture")?;
        if found != "bert" {
            return Err(ModelError::Architecture { found: found.to_owned(), supported: "bert" });
        }
        let pooling = match m.optional("bert.pooling_type", Metadata::u32)? {
            None | Some(1) => Pooling::Mean,
            Some(2) => Pooling::Cls,
            Some(other) => {
                return Err(ModelError::Unsupported { what: format!("`bert.pooling_type` = {other}") });
            }
        };
        let rows = |name: &str| gguf.find(name).and_then(|t| t.shape.first().copied()).unwrap_or(0) as u64;
        let tokens = m.optional("tokenizer.ggml.tokens", |m, k| m.strings(k).map(<[_]>::len))?;
        Numbers {
            layers: m.u64("bert.block_count")?,
            width: m.u64("bert.embedding_length")?,
            ffn: m.u64("bert.feed_forward_length")?,
            heads: m.u64("bert.attention.head_count")?,
            positions: m.u64("bert.context_length")?,
            vocab: tokens.map_or_else(|| rows("token_embd.weight"), |n| n as u64),
            types: rows("token_types.weight"),
            eps: m.f32("bert.attention.layer_norm_epsilon")?,
            pooling,
        }
        .check()
    }

    /// Reads `config.json` (and `1_Pooling/config.json` when it is there) of a sentence-transformers folder.
    /// Without the latter, models of the bge family take the first token and others the mean.
    ///
    /// # Errors
    /// [`ModelError`] when a file is missing or malformed or asks for something that is not implemented.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let json = read_json(&path)?;
        let missing = |key: &str| SafetensorsError::Json {
            path: path.display().to_string(),
            reason: format!("`{key}` is missing or not a whole number from 0"),
        };
        let number = |key: &str| json.get(key).and_then(Json::as_u64).ok_or_else(|| missing(key));
        let text = |key: &str| json.get(key).and_then(Json::as_str);
        match text("model_type") {
            Some("bert") => {}
            other => {
                let found = other.unwrap_or("none").to_owned();
                return Err(ModelError::Architecture { found, supported: "bert" });
            }
        }
        for (key, expected) in [("hidden_act", "gelu"), ("position_embedding_type", "absolute")] {
            if let Some(other) = text(key).filter(|&v| v != expected) {
                return Err(ModelError::Unsupported { what: format!("`{key}` = {other}") });
            }
        }
        let bge = text("_name_or_path").is_some_and(|n| n.to_ascii_lowercase().contains("bge"));
        #[allow(clippy::cast_possible_truncation, reason = "f32 is what models use")]
        let eps = json.get("layer_norm_eps").and_then(Json::as_f64).unwrap_or(1e-12) as f32;
        Numbers {
            layers: number("num_hidden_layers")?,
            width: number("hidden_size")?,
            ffn: number("intermediate_size")?,
            heads: number("num_attention_heads")?,
            positions: number("max_position_embeddings")?,
            vocab: number("vocab_size")?,
            types: number("type_vocab_size")?,
            eps,
            pooling: folder_pooling(folder, bge)?,
        }
        .check()
    }
}

fn folder_pooling(folder: &Path, bge: bool) -> Result<Pooling, ModelError> {
    let path = folder.join("1_Pooling/config.json");
    if !path.exists() {
        return Ok(if bge { Pooling::Cls } else { Pooling::Mean });
    }
    let json = read_json(&path)?;
    let on = |key: &str| json.get(key).and_then(Json::as_bool).unwrap_or(false);
    match (on("pooling_mode_mean_tokens"), on("pooling_mode_cls_token")) {
        (true, false) => Ok(Pooling::Mean),
        (false, true) => Ok(Pooling::Cls),
        _ => Err(ModelError::Unsupported {
            what: format!("the pooling of {}: neither just the mean nor just CLS", path.display()),
        }),
    }
}

fn read_json(path: &Path) -> Result<Json, SafetensorsError> {
    let shown = || path.display().to_string();
    let io = |source| SafetensorsError::Io { path: shown(), source };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > MAX_JSON {
        let reason = format!("it has {size} bytes, more than the {MAX_JSON} allowed");
        return Err(SafetensorsError::Json { path: shown(), reason });
    }
    let text = std::fs::read(path).map_err(io)?;
    serde_json::from_slice(&text).map_err(|e| SafetensorsError::Json { path: shown(), reason: e.to_string() })
}

/// A tensor's part in the graph; the number is the layer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Tokens,
    Types,
    Positions,
    Norm,
    Query(usize),
    Key(usize),
    Value(usize),
    Output(usize),
    AttentionNorm(usize),
    Up(usize),
    Down(usize),
    OutputNorm(usize),
}

/// How a file names its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncoderFormat {
    /// GGUF names.
    Gguf,
    /// Names of the `transformers` class `BertModel` behind a prefix (`bert.` or nothing).
    Bert {
        /// What stands before `embeddings` and `encoder`.
        prefix: &'static str,
    },
}

impl EncoderFormat {
    /// The naming of a safetensors file.
    pub fn of(file: &Safetensors) -> Self {
        let prefixed = file.find("bert.embeddings.word_embeddings.weight").is_some();
        Self::Bert { prefix: if prefixed { "bert." } else { "" } }
    }

    pub(crate) fn weight(&self, part: Part) -> String {
        format!("{}.weight", self.name(part))
    }

    pub(crate) fn bias(&self, part: Part) -> String {
        format!("{}.bias", self.name(part))
    }

    fn name(&self, part: Part) -> String {
        match self {
            Self::Gguf => match part {
                Part::Tokens => "token_embd".into(),
                Part::Types => "token_types".into(),
                Part::Positions => "position_embd".into(),
                Part::Norm => "token_embd_norm".into(),
                Part::Query(i) => format!("blk.{i}.attn_q"),
                Part::Key(i) => format!("blk.{i}.attn_k"),
                Part::Value(i) => format!("blk.{i}.attn_v"),
                Part::Output(i) => format!("blk.{i}.attn_output"),
                Part::AttentionNorm(i) => format!("blk.{i}.attn_output_norm"),
                Part::Up(i) => format!("blk.{i}.ffn_up"),
                Part::Down(i) => format!("blk.{i}.ffn_down"),
                Part::OutputNorm(i) => format!("blk.{i}.layer_output_norm"),
            },
            Self::Bert { prefix } => {
                let layer = |i: usize, rest: &str| format!("{prefix}encoder.layer.{i}.{rest}");
                match part {
                    Part::Tokens => format!("{prefix}embeddings.word_embeddings"),
                    Part::Types => format!("{prefix}embeddings.token_type_embeddings"),
                    Part::Positions => format!("{prefix}embeddings.position_embeddings"),
                    Part::Norm => format!("{prefix}embeddings.LayerNorm"),
                    Part::Query(i) => layer(i, "attention.self.query"),
                    Part::Key(i) => layer(i, "attention.self.key"),
                    Part::Value(i) => layer(i, "attention.self.value"),
                    Part::Output(i) => layer(i, "attention.output.dense"),
                    Part::AttentionNorm(i) => layer(i, "attention.output.LayerNorm"),
                    Part::Up(i) => layer(i, "intermediate.dense"),
                    Part::Down(i) => layer(i, "output.dense"),
                    Part::OutputNorm(i) => layer(i, "output.LayerNorm"),
                }
            }
        }
    }
}
