//! What the signer asks of a chain, so that it can be tried on one that exists only in memory.

use std::{future::Future, sync::Arc};

use potluck_primitives::MicroCredits;

use crate::{call::Call, outbox::Attempt};

pub mod node;

/// A block that is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub number: u32,
    /// Its hash.
    pub hash: [u8; 32],
}

/// A final block, as far as the outbox needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its hash.
    pub hash: [u8; 32],
    /// The hashes of its transactions, in order.
    pub transactions: Vec<[u8; 32]>,
}

/// What a transaction in a final block did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What it was to do.
    Done {
        /// What it paid out, where it paid.
        paid: Option<MicroCredits>,
        /// What was wrong with parts of it.
        notes: Vec<String>,
    },
    /// Nothing; the runtime says why.
    Failed(String),
}

/// Why a chain cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nobody answers, or not in time.
    #[error("the chain's node does not answer ({0}); it is tried again")]
    Unreachable(String),
    /// It answers what cannot be.
    #[error(
        "the chain's node gives an answer that makes no sense ({0}); use another node if it goes on doing so"
    )]
    Nonsense(String),
    /// It serves another chain.
    #[error("the node serves the chain {found}, not {expected}: set chain.endpoint to a node of that chain")]
    OtherChain {
        /// The chain that everything here is for.
        expected: String,
        /// The node's.
        found: String,
    },
    /// Its runtime is not the one that this program was made for.
    #[error("the chain's runtime does not know {0} as this potluck does: update potluck on this machine")]
    OtherRuntime(String),
}

/// Why a node did not take a transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It has it already.
    #[error("the node has it already")]
    Known,
    /// The account's nonce is further.
    #[error("the account has done something since: the number of this transaction is used")]
    Stale,
    /// The account's nonce is not so far yet.
    #[error("earlier transactions of the account are missing")]
    Future,
    /// Its era is over, or it was signed for another version of the runtime: only another one can be included.
    #[error("the transaction is too old")]
    Outdated,
    /// It says nothing of use: whether it has it is not known.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// What it asks would not be valid now, for a reason that may pass.
    #[error("{0}")]
    Invalid(String),
}

/// A chain.
pub trait Link: Send + Sync + 'static {
    /// The last block that is final.
    fn head(&self) -> impl Future<Output = Result<Head, LinkError>> + Send;

    /// The hash of the final block of that number; `None` where the chain is not so long.
    fn hash_of(&self, number: u32) -> impl Future<Output = Result<Option<[u8; 32]>, LinkError>> + Send;

    /// The final block of that number; `None` where the node does not have it (any more).
    fn body(&self, number: u32) -> impl Future<Output = Result<Option<Arc<Body>>, LinkError>> + Send;

    /// What the transaction at `index` of that block did.
    fn effect(
        &self,
        block: [u8; 32],
        index: usize,
        call: &Call,
    ) -> impl Future<Output = Result<Effect, LinkError>> + Send;

    /// The account's nonce at that block.
    fn nonce_at(&self, head: Head) -> impl Future<Output = Result<u64, LinkError>> + Send;

    /// The account's next nonce, transactions that wait in the node included.
    fn next_nonce(&self) -> impl Future<Output = Result<u64, LinkError>> + Send;

    /// Makes the transaction of a call; signs it where it is to be signed.
    fn make(
        &self,
        call: &Call,
        nonce: u64,
        birth: Head,
    ) -> impl Future<Output = Result<Attempt, LinkError>> + Send;

    /// Gives a transaction to the node.
    fn submit(&self, bytes: &[u8]) -> impl Future<Output = Result<(), SubmitError>> + Send;

    /// Whether the chain at that block already has what an unsigned call asks for.
    fn is_done(&self, call: &Call, head: Head) -> impl Future<Output = Result<bool, LinkError>> + Send;
}
