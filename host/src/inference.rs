//! Models on this machine: where they are, which are loaded, and who gets the next step.
//!
//! [`Inference`] is the handle everything else holds. It owns the model store (files), a loader, and one
//! scheduler thread per loaded model (continuous batching over the kernels' engine).

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

/// Where a model's file came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Compiled into the program.
    BuiltIn,
    /// Pulled into the node's own store.
    Store,
    /// A path given with `--model`.
    Path,
    /// Ollama's model folder.
    Ollama,
    /// The Hugging Face hub cache.
    HuggingFace,
    /// LM Studio's model folder.
    LmStudio,
    /// llama.cpp's download cache.
    LlamaCpp,
}

/// A model that can be run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelEntry {
    /// The name to ask for, e.g. `guide` or `USER/REPO:Q4_K_M`.
    pub name: String,
    /// Where the file came from.
    pub origin: Origin,
    /// The file; `None` for the built-in model.
    pub path: Option<PathBuf>,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file as 64 hex digits, where it is known without reading the whole file.
    pub digest: Option<String>,
    /// Seconds since 1970.
    pub modified: u64,
}

/// What a model's file says about itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelDetails {
    /// The listing's entry.
    #[serde(flatten)]
    pub entry: ModelEntry,
    /// `general.architecture`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// The commonest type among matrices, e.g. `Q4_K`.
    pub quantization: String,
    /// Trained context in tokens.
    pub context: u64,
    /// Embedding width.
    pub embedding: u64,
    /// `completion`, `embedding`, `tools`.
    pub capabilities: Vec<String>,
    /// The chat template, if any.
    pub template: Option<String>,
    /// `general.license`, if any.
    pub license: Option<String>,
    /// Scalar metadata of the file (long arrays left out).
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// A model in memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadedModel {
    /// The listing's entry.
    #[serde(flatten)]
    pub entry: ModelEntry,
    /// What it runs on, in words.
    pub device: String,
    /// Bytes of weights in memory.
    pub weights_bytes: u64,
    /// Bytes of KV cache.
    pub cache_bytes: u64,
    /// Context per request, in tokens.
    pub context: u64,
    /// Requests being answered.
    pub active: usize,
    /// Requests waiting.
    pub queued: usize,
    /// Time until it is unloaded; `None`: never.
    pub expires_in: Option<Duration>,
}

/// One step of a pull.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum PullProgress {
    /// Asking the hub which file and which digest.
    Resolving {
        /// What was asked for.
        reference: String,
    },
    /// Bytes are coming in.
    Downloading {
        /// The file's name.
        file: String,
        /// SHA-256 it must have, if the hub said so.
        digest: Option<String>,
        /// Bytes so far.
        completed: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The digest is being checked.
    Verifying {
        /// The file's name.
        file: String,
    },
    /// Done; the model can be run under this name.
    Success {
        /// The name.
        name: String,
    },
}
