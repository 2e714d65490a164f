//! How both ends of a job come to sign one receipt.
//!
//! At the end of a job the provider sends an [`Offer`]: the receipt with its signature. The requester compares it
//! with what it saw itself, and answers with its own signature over the same bytes, or not at all. What is not
//! signed by both is not counted by either.

use minicbor::{Decode, Encode};
use parity_scale_codec::{Decode as _, Encode as _};
use potluck_primitives::{MAX_RECEIPT, Party, Receipt, ReceiptError, Signed};

use super::super::clock::{Millis, SKEW};
use crate::identity::{NodeId, Signature, Signer};

/// A receipt that the provider signed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Offer {
    /// The receipt, SCALE.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub receipt: Vec<u8>,
    /// The provider's signature.
    #[n(1)]
    pub by_provider: Signature,
}

/// Why a receipt is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a receipt, or not signed.
    #[error("the receipt cannot be read or is not signed: {0}")]
    Bad(String),
    /// It is about something else.
    #[error("the receipt is about another {0} than this job's")]
    Other(String),
    /// Tokens that did not come.
    #[error("the receipt says {said} tokens, where {counted} were counted")]
    Tokens {
        /// In the receipt.
        said: u32,
        /// By the requester.
        counted: u32,
    },
    /// Time that did not pass.
    #[error("the receipt says {said} µs of work, where the job took {seen} µs altogether")]
    Compute {
        /// In the receipt, in microseconds.
        said: u64,
        /// By the requester, in microseconds.
        seen: u64,
    },
    /// The clocks differ.
    #[error("the receipt's times are not those of the job: set the clock of the machine that is wrong")]
    Clock,
}

/// What the requester saw of a job itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The job.
    pub job: [u8; 16],
    /// Who was asked.
    pub provider: NodeId,
    /// The pool's root key.
    pub pool: NodeId,
    /// BLAKE3 of the model's name.
    pub model: [u8; 32],
    /// Tokens of the prompt by its own count, if it can count them.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the answer that arrived.
    pub completion_tokens: u32,
    /// When it sent the job, in milliseconds since the Unix epoch.
    pub sent_at: Millis,
    /// When the answer was complete, in milliseconds since the Unix epoch.
    pub ended_at: Millis,
}

/// The provider's half.
///
/// # Errors
/// [`ReceiptError`] for a receipt that cannot be, or that is not of this machine.
pub fn offer(receipt: &Receipt, signer: &Signer) -> Result<Offer, ReceiptError> {
    receipt.check()?;
    if receipt.provider != signer.node().0 {
        return Err(ReceiptError::Forged(Party::Provider));
    }
    Ok(Offer { receipt: receipt.encode(), by_provider: signer.sign(&receipt.signed_bytes()) })
}

/// The requester's half: signs what agrees with what it saw.
///
/// # Errors
/// [`Refusal`], to be sent back.
pub fn consider(offer: &Offer, seen: &Seen, signer: &Signer) -> Result<Signed, Refusal> {
    let mut rest = offer.receipt.as_slice();
    let receipt =
        Receipt::decode(&mut rest).ok().filter(|_| rest.is_empty() && offer.receipt.len() <= MAX_RECEIPT);
    let receipt = receipt.ok_or_else(|| Refusal::Bad(ReceiptError::Malformed.to_string()))?;
    receipt.check().map_err(|error| Refusal::Bad(error.to_string()))?;
    let same = [
        ("job", receipt.job == seen.job),
        ("provider", receipt.provider == seen.provider.0),
        ("requester", receipt.requester == signer.node().0),
        ("pool", receipt.pool == seen.pool.0),
        ("model", receipt.model == seen.model),
    ];
    if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
        return Err(Refusal::Other((*what).to_owned()));
    }
    if !receipt.signed_by(Party::Provider, &offer.by_provider.0) {
        return Err(Refusal::Bad(ReceiptError::Forged(Party::Provider).to_string()));
    }
    plausible(&receipt, seen)?;
    let by_requester = signer.sign(&receipt.signed_bytes()).0;
    Ok(Signed { receipt, by_provider: offer.by_provider.0, by_requester })
}

/// Whether the numbers can be. Tokens that end a text, or that a template adds, are counted differently here and
/// there: a little more than was seen is let pass.
fn plausible(receipt: &Receipt, seen: &Seen) -> Result<(), Refusal> {
    let tokens = |said: u32, counted: u32, slack: u32| {
        let most = counted.saturating_add(counted / 20).saturating_add(slack);
        if said > most { Err(Refusal::Tokens { said, counted }) } else { Ok(()) }
    };
    tokens(receipt.completion_tokens.0, seen.completion_tokens, 4)?;
    if let Some(counted) = seen.prompt_tokens {
        tokens(receipt.prompt_tokens.0, counted, 64)?;
    }
    let took = seen.ended_at.saturating_sub(seen.sent_at).max(0).unsigned_abs();
    // A clock ticks in milliseconds, and the last of the work may come after the last token.
    let longest = took.saturating_add(250).saturating_mul(1_000);
    let span = receipt.ended_at.0.saturating_sub(receipt.started_at.0);
    if receipt.compute.0 > longest || span > took.saturating_add(1_000) {
        return Err(Refusal::Compute { said: receipt.compute.0, seen: took.saturating_mul(1_000) });
    }
    let ended = Millis::try_from(receipt.ended_at.0).unwrap_or(Millis::MAX);
    let apart = ended.saturating_sub(seen.ended_at).saturating_abs();
    if apart > SKEW { Err(Refusal::Clock) } else { Ok(()) }
}
