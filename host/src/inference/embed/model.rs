//! Encoders and their tokenizers: from files to memory.

use std::path::Path;

use potluck_kernels::{
    dtype::DType,
    engine::{self, Embedder, EncoderSource, EngineOptions},
    gguf::Gguf,
    model::EncoderConfig,
    tokenizer::{EncodeOptions, Tokenizer, TokenizerError},
};

use super::minilm;
use crate::{
    inference::{Device, ModelDetails, ModelEntry, details},
    job::JobError,
};

/// Most tokens in one pass.
pub(super) const MAX_BATCH: usize = 1024;
/// How f32 weights are kept: half the memory, and vectors that are the same to six digits of their cosine. (`Q8_0` is
/// two to three times as fast, but its vectors are 0.9991 of the way there.)
const STORED: DType = DType::F16;
/// Largest tokenizer file, in bytes.
const MAX_TOKENIZER: u64 = 16 << 20;
/// Start and end tokens are added; texts are data, so that special tokens in them are not parsed.
const OPTIONS: EncodeOptions = EncodeOptions { add_special: true, parse_special: false };

/// What is needed of a model before its encoder runs.
#[derive(Debug)]
pub(super) struct Frontend {
    name: String,
    tokenizer: Tokenizer,
    /// Longest input in tokens, start and end included.
    limit: usize,
    pub(super) dims: usize,
}

impl Frontend {
    /// Token ids of texts, and how many texts were cut.
    ///
    /// # Errors
    /// [`JobError::ContextLengthExceeded`] for a text that is too long, unless texts are cut.
    pub(super) fn encode(
        &self,
        texts: &[String],
        truncate: bool,
    ) -> Result<(Vec<Vec<u32>>, usize), JobError> {
        let mut cut = 0;
        let mut inputs = Vec::with_capacity(texts.len());
        for text in texts {
            let (ids, shortened) =
                self.tokenizer.encode_cut(text, OPTIONS, self.limit).map_err(|e| self.refuse(&e))?;
            if shortened && !truncate {
                // Counted again in full, within reason, so that the refusal can say how much too long it is.
                let most = self.limit.saturating_mul(64);
                let needed = match self.tokenizer.encode_limited(text, OPTIONS, most) {
                    Ok(ids) => ids.len(),
                    Err(_) => most,
                } as u64;
                let (model, available) = (self.name.clone(), self.limit as u64);
                return Err(JobError::ContextLengthExceeded { model, needed, available });
            }
            cut += usize::from(shortened);
            inputs.push(ids);
        }
        Ok((inputs, cut))
    }

    fn refuse(&self, error: &TokenizerError) -> JobError {
        JobError::Invalid { field: "input".into(), reason: error.to_string() }
    }
}

/// An encoder in memory.
pub(super) struct Encoder {
    pub(super) embedder: Box<dyn Embedder>,
    /// Bytes.
    pub(super) weights: u64,
    /// Longest input in tokens.
    pub(super) context: usize,
}

impl Encoder {
    pub(super) fn embed(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, String> {
        self.embedder.embed(inputs).map_err(|e| e.to_string())
    }

    pub(super) fn describe(&self) -> String {
        self.embedder.describe()
    }
}

/// Brings encoders into memory. Tests put their own in place of [`Files`].
pub(super) trait Opener: Send + Sync + std::fmt::Debug {
    /// Tokenizer and limits.
    ///
    /// # Errors
    /// [`JobError::Invalid`] for a model that is no encoder, [`JobError::ModelUnusable`].
    fn frontend(&self, entry: &ModelEntry) -> Result<Frontend, JobError>;

    /// The encoder; takes a while.
    ///
    /// # Errors
    /// As above.
    fn encoder(&self, entry: &ModelEntry) -> Result<Encoder, JobError>;
}

/// Opens the installed embedder, and GGUF files of the kind BERT.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) device: Device,
    pub(super) threads: Option<usize>,
}

/// Where a model's parts are.
enum Place<'a> {
    Folder(&'a Path),
    Gguf(Box<Gguf>),
}

fn place(entry: &ModelEntry) -> Result<Place<'_>, JobError> {
    if let Some(folder) = folder(entry) {
        return Ok(Place::Folder(folder));
    }
    let gguf = crate::inference::engine::open(entry).map_err(|reason| unusable(entry, reason))?;
    if gguf.metadata().str("general.architecture").ok() != Some("bert") {
        let reason = format!(
            "`{}` writes text, it makes no vectors; ask for `{}` (get it with `potluck pull {}`)",
            entry.name,
            minilm::NAME,
            minilm::NAME
        );
        return Err(JobError::Invalid { field: "model".into(), reason });
    }
    Ok(Place::Gguf(Box::new(gguf)))
}

/// The folder of a model that is not a GGUF file.
fn folder(entry: &ModelEntry) -> Option<&Path> {
    let path = entry.path.as_deref()?;
    (path.extension()? == "safetensors").then(|| path.parent()).flatten()
}

/// Whether an entry is an installed embedder, by its file's name.
pub(in crate::inference) fn is_embedder(entry: &ModelEntry) -> bool {
    folder(entry).is_some()
}

fn unusable(entry: &ModelEntry, reason: impl std::fmt::Display) -> JobError {
    JobError::ModelUnusable { model: entry.name.clone(), reason: reason.to_string() }
}

impl Opener for Files {
    fn frontend(&self, entry: &ModelEntry) -> Result<Frontend, JobError> {
        let bad = |e: &dyn std::fmt::Display| unusable(entry, e);
        let (tokenizer, config, limit) = match place(entry)? {
            Place::Folder(folder) => {
                let path = folder.join("tokenizer.json");
                let size = std::fs::metadata(&path).map_err(|e| bad(&e))?.len();
                if size > MAX_TOKENIZER {
                    return Err(bad(&format!("tokenizer.json has {size} bytes")));
                }
                let json = std::fs::read(&path).map_err(|e| bad(&e))?;
                let tokenizer = Tokenizer::from_json(&json).map_err(|e| bad(&e))?;
                let config = EncoderConfig::from_folder(folder).map_err(|e| bad(&e))?;
                // The file's own settings (cut at 128, padded to 128) are those of its training.
                (tokenizer, config, minilm::TOKENS)
            }
            Place::Gguf(gguf) => {
                let tokenizer = Tokenizer::from_metadata(gguf.metadata()).map_err(|e| bad(&e))?;
                let config = EncoderConfig::from_gguf(&gguf).map_err(|e| bad(&e))?;
                (tokenizer, config, usize::MAX)
            }
        };
        if tokenizer.vocab_size() > config.vocab {
            return Err(bad(&"its tokenizer has tokens that its weights do not"));
        }
        let limit = limit.min(config.positions);
        Ok(Frontend { name: entry.name.clone(), tokenizer, limit, dims: config.width })
    }

    fn encoder(&self, entry: &ModelEntry) -> Result<Encoder, JobError> {
        let place = place(entry)?;
        let source = match &place {
            Place::Folder(folder) => EncoderSource::Folder(folder),
            Place::Gguf(gguf) => EncoderSource::Gguf(gguf),
        };
        let options = EngineOptions {
            device: match self.device {
                Device::Auto => engine::Device::Auto,
                Device::Cpu => engine::Device::Cpu,
                Device::Gpu => engine::Device::Gpu,
            },
            threads: self.threads,
            max_batch_tokens: MAX_BATCH,
            ..EngineOptions::default()
        };
        let loaded = engine::load_encoder_as(STORED, source, &options, &mut |_, _| {});
        let embedder = loaded.map_err(|e| unusable(entry, e))?;
        let limit = if matches!(place, Place::Folder(_)) { minilm::TOKENS } else { usize::MAX };
        let context = embedder.max_tokens().min(limit);
        let weights = if is_embedder(entry) { entry.size / 2 } else { entry.size };
        Ok(Encoder { embedder, weights, context })
    }
}

/// What the installed embedder's files say about it.
///
/// # Errors
/// In words, when they cannot be read.
pub(in crate::inference) fn describe(entry: ModelEntry) -> Result<ModelDetails, String> {
    let folder = folder(&entry).ok_or("it is not an embedder")?;
    let config = EncoderConfig::from_folder(folder).map_err(|e| e.to_string())?;
    let EncoderConfig { layers, width, ffn, vocab, positions, types, .. } = config;
    // Weights and biases of the tables, of each layer's six matrices, and of the norms.
    let tables = (vocab + positions + types + 2) * width;
    let layer = 4 * (width + 1) * width + (width + 1) * ffn + (ffn + 1) * width + 4 * width;
    Ok(ModelDetails {
        architecture: "bert".into(),
        parameters: (tables + layers * layer) as u64,
        quantization: "F32".into(),
        context: minilm::TOKENS.min(positions) as u64,
        embedding: width as u64,
        capabilities: vec![details::EMBEDDING.into()],
        template: None,
        license: Some("Apache-2.0".into()),
        metadata: serde_json::Map::new(),
        entry,
    })
}
