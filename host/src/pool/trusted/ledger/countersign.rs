//! How both ends of a job come to sign one receipt.
//!
//! At the end of a job the provider sends an [`Offer`]: the receipt with its signature. The requester compares it
//! with what it saw itself, and answers with a [`Verdict`]: its own signature over the same bytes, or why not. What
//! is not signed by both is not counted by either.

use std::time::Duration;

use minicbor::{Decode, Encode};
use parity_scale_codec::{Decode as _, Encode as _};

use super::super::{
    clock::{Millis, SKEW},
    primitives::{MAX_RECEIPT, Party, Receipt, ReceiptError, Signed},
};
use crate::{
    identity::{NodeId, Signature, Signer},
    mesh::frame::{self, FrameError},
    mesh::streams::Duplex,
};

/// Most bytes of a message.
pub const MAX_SETTLE: usize = 1_024;
/// How long either side waits for the other.
pub const SETTLE_TIME: Duration = Duration::from_secs(10);

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

/// What the requester says to that.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Verdict {
    /// Its signature.
    #[n(0)]
    Signed(#[n(0)] Signature),
    /// It does not sign.
    #[n(1)]
    Refused(#[n(0)] Refusal),
}

/// Why a receipt is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Encode, Decode)]
pub enum Refusal {
    /// Not a receipt, or not signed.
    #[error("the receipt cannot be read or is not signed: {0}")]
    #[n(0)]
    Bad(#[n(0)] String),
    /// It is about something else.
    #[error("the receipt is about another {0} than this job's")]
    #[n(1)]
    Other(#[n(0)] String),
    /// Tokens that did not come.
    #[error("the receipt says {said} tokens, where {counted} were counted")]
    #[n(2)]
    Tokens {
        /// In the receipt.
        #[n(0)]
        said: u32,
        /// By the requester.
        #[n(1)]
        counted: u32,
    },
    /// Time that did not pass.
    #[error("the receipt says {said} µs of work, where the job took {seen} µs altogether")]
    #[n(3)]
    Compute {
        /// In the receipt, in microseconds.
        #[n(0)]
        said: u64,
        /// By the requester, in microseconds.
        #[n(1)]
        seen: u64,
    },
    /// The clocks differ.
    #[error("the receipt's times are not those of the job: set the clock of the machine that is wrong")]
    #[n(4)]
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

/// Why no receipt came about.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The other side does not sign, or this side did not.
    #[error("no receipt: {0}")]
    Refused(#[from] Refusal),
    /// The receipt itself is wrong.
    #[error("no receipt: {0}")]
    Receipt(#[from] ReceiptError),
    /// The stream broke.
    #[error("no receipt: {0}")]
    Broken(#[from] FrameError),
    /// Nothing came.
    #[error("no receipt: the other machine did not answer in time")]
    Timeout,
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

/// The provider's end: the receipt with both signatures, if the requester signed.
///
/// # Errors
/// [`SettleError`].
pub fn conclude(receipt: Receipt, offer: &Offer, verdict: Verdict) -> Result<Signed, SettleError> {
    match verdict {
        Verdict::Signed(by_requester) => {
            let signed = Signed { receipt, by_provider: offer.by_provider.0, by_requester: by_requester.0 };
            signed.verify()?;
            Ok(signed)
        }
        Verdict::Refused(refusal) => Err(refusal.into()),
    }
}

/// The provider's side over a stream: offers `receipt` and waits for the verdict.
///
/// # Errors
/// Any [`SettleError`].
pub async fn present<S: Duplex + ?Sized>(
    mut stream: &mut S,
    receipt: Receipt,
    signer: &Signer,
) -> Result<Signed, SettleError> {
    let offer = offer(&receipt, signer)?;
    let talk = async {
        frame::write(&mut stream, &offer, MAX_SETTLE).await?;
        frame::expect(&mut stream, MAX_SETTLE).await
    };
    let verdict = tokio::time::timeout(SETTLE_TIME, talk).await.map_err(|_| SettleError::Timeout)??;
    conclude(receipt, &offer, verdict)
}

/// The requester's side over a stream: waits for the offer and answers it.
///
/// # Errors
/// Any [`SettleError`]; the provider was told of a refusal.
pub async fn receive<S: Duplex + ?Sized>(
    mut stream: &mut S,
    seen: &Seen,
    signer: &Signer,
) -> Result<Signed, SettleError> {
    let talk = async {
        let offer: Offer = frame::expect(&mut stream, MAX_SETTLE).await?;
        let outcome = consider(&offer, seen, signer);
        let verdict = match &outcome {
            Ok(signed) => Verdict::Signed(Signature(signed.by_requester)),
            Err(refusal) => Verdict::Refused(refusal.clone()),
        };
        frame::write(&mut stream, &verdict, MAX_SETTLE).await?;
        Ok::<_, SettleError>(outcome?)
    };
    tokio::time::timeout(SETTLE_TIME, talk).await.map_err(|_| SettleError::Timeout)?
}
