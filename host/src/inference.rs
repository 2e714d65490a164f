//! Models on this machine: where they are, which are loaded, and who gets the next step.
//!
//! [`Inference`] is the handle everything else holds. It owns the model store (files), a loader, and one
//! scheduler thread per loaded model (continuous batching over the kernels' engine).

mod builtin;
mod caches;
mod counters;
mod details;
mod embed;
mod engine;
mod grammar;
mod handle;
mod keeper;
mod lease;
mod prepare;
mod pull;
mod quant;
mod reference;
mod runner;
mod scheduler;
mod shelf;
mod store;
mod template;
mod verify;
mod vouch;

pub use counters::Counters;
pub use embed::{EmbedRequest, Embedded, EmbedderInfo, Lane, MAX_TEXT_BYTES, MAX_TEXTS};
pub use pull::PullError;
pub use reference::{PullReference, ReferenceError};
pub use store::StoreError;
pub use template::TemplateError;
pub use verify::{CopyError, ModelCopy};
pub use vouch::{Vouch, Vouched};

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{
    blob::{Occupied, fetch::Fetcher, source::BlobSource},
    job::{Job, JobError, KeepAlive, Mode, Reply},
};

/// Which backend models run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The GPU when the program was built with it and one is usable, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU; a model cannot be loaded when there is none.
    Gpu,
}

/// How the node runs models.
#[derive(Clone, Debug, PartialEq)]
pub struct InferenceConfig {
    /// The node's folder; models are kept in `models/` under it.
    pub home: PathBuf,
    /// Names or paths of model files given at start. A path can be asked for by its file stem or as it was given.
    pub models: Vec<String>,
    /// Which backend.
    pub device: Device,
    /// Threads of the CPU backend; `None`: one per core.
    pub threads: Option<usize>,
    /// Context per request in tokens; `None`: the model's own, bounded so that the cache fits the memory budget.
    pub context: Option<u32>,
    /// Requests per model that are answered at the same time.
    pub parallel: usize,
    /// Requests per model that may wait beyond those; more are refused with [`JobError::Busy`].
    pub max_queue: usize,
    /// How long an unused model stays loaded when a job does not say.
    pub keep_alive: KeepAlive,
    /// Most models in memory at the same time.
    pub max_loaded: usize,
    /// Bytes that models and their caches may take; `None`: 80 % of the machine's memory.
    pub memory_budget: Option<u64>,
    /// Whether models in the caches of Ollama, Hugging Face, LM Studio and llama.cpp are offered.
    pub caches: bool,
    /// Whether pulling is refused.
    pub offline: bool,
    /// The node's name, for [`Reply::node`].
    pub node: String,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self {
            home: PathBuf::from("."),
            models: Vec::new(),
            device: Device::Auto,
            threads: None,
            context: None,
            parallel: 16,
            max_queue: 512,
            keep_alive: KeepAlive::For(Duration::from_secs(300)),
            max_loaded: 3,
            memory_budget: None,
            caches: true,
            offline: false,
            node: "local".into(),
        }
    }
}

/// Events of a pull that may wait for a slow reader; older download steps are dropped then, never the end.
pub const PULL_BUFFER: usize = 16;

/// The handle to the models of this machine. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Inference {
    inner: Arc<handle::Inner>,
}

impl Inference {
    /// Opens the store and starts the keeper that unloads what is no longer used. Must be called within a tokio
    /// runtime. No model is loaded yet.
    ///
    /// # Errors
    /// [`StoreError`] when the store's folder cannot be made or a path in `models` is not a readable file.
    pub async fn bind(config: InferenceConfig) -> Result<Self, StoreError> {
        handle::Inner::bind(config).await.map(|inner| Self { inner })
    }

    /// Starts a job: loads the model if need be, renders and counts the prompt, and queues it. Returns once the
    /// job has its place; what goes wrong later comes through the reply. Dropping the reply cancels the job.
    ///
    /// # Errors
    /// Every refusal that [`JobError`] names.
    pub async fn submit(&self, job: Job) -> Result<Reply, JobError> {
        self.inner.submit(job, None).await
    }

    /// As [`Inference::submit`]; the reply's [`Reply::vouch`] has commitments to the hidden states that the answer was
    /// drawn from, once the answer is complete.
    ///
    /// # Errors
    /// As [`Inference::submit`].
    pub async fn submit_vouched(&self, job: Job) -> Result<Reply, JobError> {
        self.inner.submit(job, Some(Vouch::default())).await
    }

    /// This machine's own copy of the model whose file has this BLAKE3, to audit answers with: on the CPU, beside
    /// everything else that runs. `None`: there is no such file here, or it is being hashed.
    ///
    /// # Errors
    /// [`CopyError`] when the file is there and cannot be used.
    pub async fn copy(&self, digest: [u8; 32]) -> Result<Option<ModelCopy>, CopyError> {
        self.inner.copy(digest).await
    }

    /// How many tokens the job's prompt has, template and special tokens included. Loads the model if need be.
    ///
    /// # Errors
    /// As [`Inference::submit`], except that the length is not checked against the context.
    pub async fn count(&self, job: Job) -> Result<u64, JobError> {
        self.inner.count(job).await
    }

    /// Unit vectors of texts, one per text. A text longer than the model takes is cut. Dropping the future cancels
    /// what has not been embedded yet.
    ///
    /// # Errors
    /// [`JobError::EmbedderMissing`] when `model` means the embedder and it is not installed, and every refusal of
    /// [`Inference::embed_request`].
    pub async fn embed(&self, model: &str, texts: Vec<String>, lane: Lane) -> Result<Embedded, JobError> {
        let model = model.to_owned();
        let request =
            EmbedRequest { model, mode: Mode::Local, texts, truncate: true, lane, keep_alive: None };
        self.embed_request(request).await
    }

    /// As [`Inference::embed`], with every choice that a caller has.
    ///
    /// # Errors
    /// [`JobError::ModelNotFound`], [`JobError::EmbedderMissing`], [`JobError::ModelUnusable`];
    /// [`JobError::Invalid`] for a model that is no encoder, no texts, or more than [`MAX_TEXTS`] or
    /// [`MAX_TEXT_BYTES`]; [`JobError::ContextLengthExceeded`] for a text that is too long and must not be cut;
    /// [`JobError::Busy`] when too many texts wait; [`JobError::ShuttingDown`].
    pub async fn embed_request(&self, request: EmbedRequest) -> Result<Embedded, JobError> {
        self.inner.embed(request).await
    }

    /// The installed embedder, if there is one. Cheap: reads one small file.
    pub fn embedder(&self) -> Option<EmbedderInfo> {
        self.inner.embedder()
    }

    /// Every model that can be asked for, by name.
    pub async fn models(&self) -> Vec<ModelEntry> {
        self.inner.models().await
    }

    /// The entry that a name means. Matching is forgiving: case, `:latest`, and any unique part at the start or
    /// end of a name (a repository without its user, a name without its quantisation).
    ///
    /// # Errors
    /// [`StoreError::NotFound`] and [`StoreError::Ambiguous`].
    pub async fn resolve(&self, name: &str) -> Result<ModelEntry, StoreError> {
        self.inner.resolve(name).await
    }

    /// What a model's file says about itself; does not load it.
    ///
    /// # Errors
    /// As [`Inference::resolve`], and [`StoreError::Unreadable`].
    pub async fn show(&self, name: &str) -> Result<ModelDetails, StoreError> {
        self.inner.show(name).await
    }

    /// The models in memory.
    pub fn loaded(&self) -> Vec<LoadedModel> {
        self.inner.loaded()
    }

    /// Loads a model, or only renews its keep-alive when it is loaded. Returns the time it took.
    ///
    /// # Errors
    /// [`JobError::ModelNotFound`], [`JobError::ModelUnusable`], [`JobError::Busy`], [`JobError::ShuttingDown`].
    pub async fn load(&self, name: &str, keep_alive: Option<KeepAlive>) -> Result<Duration, JobError> {
        self.inner.load(name, keep_alive).await
    }

    /// Unloads a model as soon as its running jobs are done; false when it was not loaded.
    ///
    /// # Errors
    /// [`JobError::ModelNotFound`] and [`JobError::Invalid`] for an ambiguous name.
    pub async fn unload(&self, name: &str) -> Result<bool, JobError> {
        self.inner.unload(name).await
    }

    /// Deletes a pulled model from the node's own store, unloading it first. Files of other programs are never
    /// touched.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::NotOurs`], [`StoreError::Io`].
    pub async fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.inner.remove(name).await
    }

    /// Pulls a model: `hf.co/USER/REPO[:QUANT]` or an https address of a .gguf file. The last item is
    /// [`PullProgress::Success`] or an error; dropping the receiver stops the pull, which can be resumed later.
    pub fn pull(&self, reference: &str) -> mpsc::Receiver<Result<PullProgress, PullError>> {
        self.inner.pull(reference)
    }

    /// Copies a model from members of the pool: `from` is a member, or `pool` for all that have it. Otherwise as
    /// [`Inference::pull`].
    pub fn pull_from(
        &self,
        fetcher: Fetcher,
        name: &str,
        from: &str,
    ) -> mpsc::Receiver<Result<PullProgress, PullError>> {
        self.inner.pull_from(fetcher, name, from)
    }

    /// The models of this machine, for members that copy them.
    pub fn blobs(&self) -> Arc<dyn BlobSource> {
        self.inner.blobs()
    }

    /// Whether somebody waits for an answer that is computed here.
    pub fn occupied(&self) -> Arc<dyn Occupied> {
        self.inner.occupied()
    }

    /// What has been done since start, for metrics.
    pub fn counters(&self) -> Counters {
        self.inner.counters()
    }

    /// Takes no more jobs, lets running ones finish for `grace`, then ends the rest with
    /// [`JobError::ShuttingDown`], unloads everything and returns when the engine threads have ended.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.shutdown(grace).await;
    }
}

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

impl ModelEntry {
    /// Whether this is the installed embedder: it makes vectors and writes no text.
    pub fn is_embedder(&self) -> bool {
        embed::is_embedder(self)
    }
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
    /// A member reads its file to find out what is in it.
    Identifying {
        /// The member.
        member: String,
        /// Bytes so far.
        completed: u64,
        /// Bytes in all.
        total: u64,
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

#[cfg(test)]
mod tests;
