//! Pulling models.

use super::{ReferenceError, StoreError};

/// Why a pull failed. What was downloaded so far is kept unless its bytes are wrong, and the pull resumes there.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PullError {
    /// The reference has no known shape.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Pulling is switched off.
    #[error("this node is offline (POTLUCK_OFFLINE, HF_HUB_OFFLINE or `offline` in the configuration); nothing is pulled")]
    Offline,
    /// The hub wants a token, or the token may not read this repository.
    #[error("{host} refuses access to {what} ({status}); set HF_TOKEN to a token that may read it, and accept the model's terms on its page")]
    Forbidden {
        /// The server.
        host: String,
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
    },
    /// No such repository or file.
    #[error("{host} has no {what}")]
    NotFound {
        /// The server.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The repository has no such quantisation.
    #[error("{repo} has no file for `{asked}`; it has: {}", available.join(", "))]
    NoSuchFile {
        /// The repository.
        repo: String,
        /// What was asked for.
        asked: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The model is in several files.
    #[error("{file} is one of {parts} parts; split models are not supported: merge them with `llama-gguf-split --merge` and give the file with --model")]
    Split {
        /// The file.
        file: String,
        /// Number of parts.
        parts: u32,
    },
    /// The server cannot be reached or breaks off again and again.
    #[error("{url}: {reason}; {completed} bytes are kept, run the pull again to go on from there")]
    Network {
        /// The address.
        url: String,
        /// What went wrong last.
        reason: String,
        /// Bytes that are on disk.
        completed: u64,
    },
    /// The server contradicts itself.
    #[error("{url} answered what it must not: {reason}")]
    Protocol {
        /// The address.
        url: String,
        /// What was wrong.
        reason: String,
    },
    /// The bytes are not those the hub promised.
    #[error("{file} has SHA-256 {got}, but {expected} was promised; the bytes were thrown away")]
    Digest {
        /// The file.
        file: String,
        /// Promised.
        expected: String,
        /// Computed.
        got: String,
    },
    /// The bytes are no model this node can read.
    #[error("{file} is not a usable GGUF file: {reason}")]
    NotAModel {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// The disk is too small.
    #[error("{needed} bytes are needed in {path}, {available} are free")]
    DiskFull {
        /// The folder.
        path: String,
        /// Bytes still to come.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// The file system refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller went away or the node is stopping.
    #[error("the pull was stopped; run it again to go on")]
    Stopped,
}
