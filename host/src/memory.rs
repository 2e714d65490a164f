//! What the owner's agents remember: typed records in an append-only log, found again by meaning and by words.
//!
//! The log is the truth and every index can be rebuilt from it. [`Memory`] is the handle all surfaces hold; one
//! writer owns the log, groups what arrives together into one flush, and acknowledges after it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::identity::Signer;

mod arrivals;
mod digest;
mod engine;
mod feed;
mod handle;
mod keeper;
mod marks;
mod recall;
mod reindex;
mod replica;
mod show;
mod spans;
mod table;
mod vocabulary;
mod writer;

pub mod clock;
pub mod embed;
pub mod foreign;
pub mod keyword;
pub mod lexicon;
pub mod log;
pub mod merge;
pub mod passages;
pub mod record;
pub mod redact;
pub mod request;
pub mod sync;
pub mod text;
pub mod vectors;

pub use embed::{Embedder, Lane};
pub use log::{Report, Verifying};
pub use record::{Draft, Kind, Millis, RecordId};
pub use request::{
    Briefing, Change, Explain, Filter, ForgetRequest, Forgotten, Found, ImportError, Imported, Item,
    ItemState, RecallRequest, Recalled, Remembered, Stats,
};

/// Why the memory refuses or fails. Every message says what happened, why, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A field has a value that cannot be taken.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// Why, and what is allowed.
        reason: String,
    },
    /// No such record.
    #[error("there is no memory with the id {id}; `potluck memory search` finds ids")]
    NotFound {
        /// The id asked for.
        id: RecordId,
    },
    /// The disk is full.
    #[error("the memory could not be written: {reason}; nothing was lost, free some space and try again")]
    Full {
        /// The system's words.
        reason: String,
    },
    /// Too much waits to be written.
    #[error("the memory is busy with earlier writes; try again in a moment")]
    Busy,
    /// The node is ending.
    #[error("the memory is closed because the node is shutting down")]
    Closed,
    /// The log refused or failed.
    #[error(transparent)]
    Log(#[from] log::LogError),
    /// A draft cannot be taken.
    #[error(transparent)]
    Draft(#[from] record::DraftError),
    /// The text index failed.
    #[error(transparent)]
    Keyword(#[from] keyword::KeywordError),
    /// Another program holds the memory's folder.
    #[error("the memory in {path} is held by another node; stop it, or give this one another --home")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The log or an index failed.
    #[error("the memory failed: {reason}")]
    Failed {
        /// What and why.
        reason: String,
    },
}

impl From<vectors::Error> for MemoryError {
    fn from(error: vectors::Error) -> Self {
        Self::Failed { reason: error.to_string() }
    }
}

impl From<lexicon::SegmentError> for MemoryError {
    fn from(error: lexicon::SegmentError) -> Self {
        Self::Failed { reason: error.to_string() }
    }
}

impl MemoryError {
    /// Whether another process has the memory open.
    pub const fn in_use(&self) -> bool {
        matches!(self, Self::InUse { .. })
    }

    fn io(path: &Path, error: &io::Error) -> Self {
        let reason = format!("{}: {error}", path.display());
        if error.kind() == io::ErrorKind::StorageFull {
            Self::Full { reason }
        } else {
            Self::Failed { reason }
        }
    }

    /// The same refusal for each of several that waited for one write.
    fn from_log(error: &log::LogError) -> Self {
        match error {
            log::LogError::Full { .. } => Self::Full { reason: error.to_string() },
            _ => Self::Failed { reason: error.to_string() },
        }
    }
}

/// The handle to the memory of this node. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Memory {
    inner: Arc<handle::Inner>,
}

impl Memory {
    /// Opens the memory in a folder, which is made when it is missing, and starts its threads. What is written here
    /// is signed with `signer`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`MemoryError::InUse`] when another process has it open, [`MemoryError::Log`] for a log of a newer version,
    /// and failures of the disk.
    pub async fn open(
        folder: PathBuf,
        signer: Signer,
        embedder: Arc<dyn Embedder>,
    ) -> Result<Self, MemoryError> {
        handle::Inner::open(folder, signer, embedder).await.map(|inner| Self { inner: Arc::new(inner) })
    }

    /// Finishes what is being written and brings the indexes to disk.
    pub async fn close(&self) {
        self.inner.close().await;
    }

    /// Writes a record; returns once it is on disk and recall finds it.
    ///
    /// # Errors
    /// [`MemoryError::Invalid`], [`MemoryError::Full`], [`MemoryError::Busy`], [`MemoryError::Closed`].
    pub async fn remember(&self, draft: Draft) -> Result<Remembered, MemoryError> {
        self.inner.remember(draft).await
    }

    /// Writes many records with few flushes: one result per draft, in order. At most 1,024 at once.
    ///
    /// # Errors
    /// As [`Memory::remember`] when nothing could be written; what is wrong with one draft is its own result.
    pub async fn remember_all(
        &self,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Result<Remembered, MemoryError>>, MemoryError> {
        self.inner.remember_all(drafts).await
    }

    /// Takes lines of our own export back, ids, times, origins, signatures and vectors included: one result per
    /// line (true: added, false: already there), in order. At most 1,024 at once.
    ///
    /// # Errors
    /// As [`Memory::remember_all`].
    pub async fn restore(&self, lines: Vec<Value>) -> Result<Vec<Result<bool, MemoryError>>, MemoryError> {
        self.inner.restore(lines).await
    }

    /// Answers a question.
    ///
    /// # Errors
    /// [`MemoryError::Invalid`], [`MemoryError::Closed`].
    pub async fn recall(&self, request: RecallRequest) -> Result<Recalled, MemoryError> {
        self.inner.recall(request).await
    }

    /// One version, with all versions of the same memory when `history` is set.
    ///
    /// # Errors
    /// [`MemoryError::NotFound`].
    pub async fn get(&self, id: RecordId, history: bool) -> Result<Found, MemoryError> {
        self.inner.get(id, history).await
    }

    /// Writes a version that replaces `id`.
    ///
    /// # Errors
    /// [`MemoryError::NotFound`] and as [`Memory::remember`].
    pub async fn update(&self, id: RecordId, change: Change) -> Result<Remembered, MemoryError> {
        self.inner.update(id, change).await
    }

    /// Forgets records, or says which would be forgotten.
    ///
    /// # Errors
    /// [`MemoryError::NotFound`], [`MemoryError::Invalid`] for an empty description, and as [`Memory::remember`].
    pub async fn forget(&self, request: ForgetRequest) -> Result<Forgotten, MemoryError> {
        self.inner.forget(request).await
    }

    /// The latest living records, newest first.
    ///
    /// # Errors
    /// [`MemoryError::Closed`].
    pub async fn recent(&self, filter: Filter, limit: usize) -> Result<Vec<Item>, MemoryError> {
        self.inner.recent(filter, limit).await
    }

    /// What an agent should know at the start of work on a project, within a token budget.
    ///
    /// # Errors
    /// [`MemoryError::Closed`].
    pub async fn context(
        &self,
        project: Option<String>,
        budget_tokens: usize,
    ) -> Result<Briefing, MemoryError> {
        self.inner.context(project, budget_tokens).await
    }

    /// Counts and sizes.
    ///
    /// # Errors
    /// [`MemoryError::Closed`].
    pub async fn stats(&self) -> Result<Stats, MemoryError> {
        self.inner.stats().await
    }

    /// Every version with its provenance, oldest first, as the objects [`Memory::restore`] reads; with `vectors`,
    /// their embeddings too. Secrets are looked for again.
    pub fn export(&self, filter: Filter, vectors: bool) -> mpsc::Receiver<Result<Value, MemoryError>> {
        self.inner.export(filter, vectors)
    }

    /// Rebuilds every index from the log; the receiver gets (records done, records in all) as it goes and closes
    /// at the end.
    pub fn reindex(&self) -> mpsc::Receiver<Result<(u64, u64), MemoryError>> {
        self.inner.reindex()
    }

    /// Checks every byte and every signature of the log; the receiver gets how far it is, and the report at the end.
    pub fn verify(&self) -> mpsc::Receiver<Result<Verifying, MemoryError>> {
        self.inner.verify()
    }
}

impl Memory {
    /// The memory as replication sees it. The first call reads the log through once.
    ///
    /// # Errors
    /// [`MemoryError::Log`] when the log cannot be read.
    pub async fn replica(&self) -> Result<Arc<dyn sync::Replica>, MemoryError> {
        replica::Shared::of(Arc::clone(&self.inner))
            .await
            .map(|shared| Arc::new(shared) as Arc<dyn sync::Replica>)
    }
}

#[cfg(test)]
mod tests;
