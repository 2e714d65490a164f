//! Receipts: what both ends of a job sign. What is in them is the ledger's business; here they are bytes.

use std::{fmt::Debug, time::Duration};

use uuid::Uuid;

use crate::identity::NodeId;

/// What was done for a job by the machine that answered it. The part of an answer that another machine made before
/// is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The job.
    pub job: Uuid,
    /// The model, by the name that was asked for.
    pub model: String,
    /// Tokens of the prompt, and of the answer those that came with it.
    pub prompt_tokens: u32,
    /// Prompt tokens that cost nothing because they were known.
    pub cached_tokens: u32,
    /// Tokens produced.
    pub completion_tokens: u32,
    /// Time the engine took. As the asking side counts it: from acceptance to the end.
    pub compute: Duration,
}

/// Why a receipt is not signed or not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receipt for {job} is refused: {reason}")]
pub struct ReceiptError {
    /// The job.
    pub job: Uuid,
    /// Why.
    pub reason: String,
}

/// The ledger's side of a job.
pub trait Receipts: Send + Sync + Debug {
    /// The answering side's half, at most [`super::wire::MAX_RECEIPT`] bytes; `None`: there is none.
    fn issue(&self, peer: NodeId, served: &Served) -> Option<Vec<u8>>;

    /// The whole, once the asking side has compared the half with what it counted itself.
    ///
    /// # Errors
    /// [`ReceiptError`]: it is not signed. The answer stays valid.
    fn countersign(&self, peer: NodeId, half: &[u8], counted: &Served) -> Result<Vec<u8>, ReceiptError>;

    /// Whether a member may be given more.
    ///
    /// # Errors
    /// Why not, in words for it.
    fn allows(&self, peer: NodeId) -> Result<(), String> {
        let _ = peer;
        Ok(())
    }

    /// The answering side takes the whole.
    ///
    /// # Errors
    /// [`ReceiptError`].
    fn settle(&self, peer: NodeId, whole: &[u8]) -> Result<(), ReceiptError>;
}

/// No ledger.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReceipts;

impl Receipts for NoReceipts {
    fn issue(&self, _: NodeId, _: &Served) -> Option<Vec<u8>> {
        None
    }

    fn countersign(&self, _: NodeId, _: &[u8], counted: &Served) -> Result<Vec<u8>, ReceiptError> {
        Err(ReceiptError { job: counted.job, reason: "this machine keeps no ledger".into() })
    }

    fn settle(&self, _: NodeId, _: &[u8]) -> Result<(), ReceiptError> {
        Ok(())
    }
}
