//! Where it comes from which policies may decide, and where their components come from.

use std::{fmt::Debug, future::Future, pin::Pin, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Kind, PolicyHash};

/// A future that these traits return, boxed so that they can be objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A policy may decide from a moment on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Approved {
    /// What it decides.
    pub kind: Kind,
    /// Which policy.
    pub hash: PolicyHash,
    /// From when on, in milliseconds since 1970.
    pub from_ms: u64,
    /// Who says so, in words for people.
    pub by: String,
}

/// Who may say which policies decide: a pool's owner, its members, or the chain.
pub trait Approvals: Send + Sync + Debug {
    /// All that is approved, now and in future. Of one kind, the one with the latest moment that has come decides.
    fn watch(&self) -> watch::Receiver<Arc<Vec<Approved>>>;
}

/// Why a component is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Nobody has it.
    #[error("nobody who can be reached has the component; copy it into the folder of policies")]
    Missing,
    /// Someone gave other bytes.
    #[error(
        "the bytes that came are those of {0}, another component; copy the right one into the folder of policies"
    )]
    Other(PolicyHash),
    /// It could not be read.
    #[error("the component could not be read: {0}")]
    Failed(String),
}

/// Where components come from: a folder on disk, then other members. What comes is checked against its hash.
pub trait Components: Send + Sync + Debug {
    /// The bytes of a component, at most [`super::MAX_COMPONENT`].
    fn fetch(&self, hash: PolicyHash) -> BoxFuture<'_, Result<Vec<u8>, FetchError>>;
}
