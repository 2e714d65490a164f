//! What can answer a job.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::job::{Job, JobError, Mode, Reply};

/// A future that providers return, boxed so that the trait can be an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A model that a provider offers.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Offer {
    /// The name to ask for.
    pub model: String,
    /// Longest context it takes, in tokens; 0 while it is not known.
    pub context: u64,
}

/// Something that answers jobs: the local engine, a trusted peer, a public peer.
pub trait Provider: Send + Sync + std::fmt::Debug {
    /// The circle this provider belongs to; a job whose mode is narrower is never given to it.
    fn circle(&self) -> Mode;

    /// Whether its circle is there at all: a pool that this machine is in.
    fn there(&self) -> bool {
        true
    }

    /// The node that answers, for `x-potluck-node`.
    fn node(&self) -> &str;

    /// What can be asked of it.
    fn offers(&self) -> BoxFuture<'_, Vec<Offer>>;

    /// Starts a job.
    ///
    /// # Errors
    /// A typed refusal; what goes wrong later comes through the reply.
    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>>;
}

/// A shared provider.
pub type SharedProvider = Arc<dyn Provider>;
