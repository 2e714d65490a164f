//! Verifiers that check each other: protocol `/potluck/verify/1`.
//!
//! Who accuses a provider sends the charge to the verifiers that the chain drew for its first answer. Each examines all
//! answers on its own copy of the model, asks the policy, and signs the verdict that it comes to itself; what it was
//! told of the verdict does not matter. On CPUs all come to the same verdict, to the last bit, so their signatures fit.
//! The accuser puts enough of them together and submits the verdict.
//!
//! A verifier that signs without looking is found by charges that are wrong, which an accuser makes from answers of its
//! own machine ([`honeypot`]): only who did not examine them signs.

use std::{fmt, sync::Arc, time::Duration};

use minicbor::{Decode, Encode, bytes::ByteVec};
use parity_scale_codec::{DecodeAll, Encode as _};
use potluck_primitives::{Account, Genesis, SignedVerdict, Verdict, VerdictError, signed_by};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    charge::{Charge, ChargeError, Drawn, Judge, MAX_CHARGE},
    examine::Examiner,
    record::Docket,
};
use crate::{
    identity::{NodeId, Signer},
    mesh::{
        frame::{self, FrameError},
        streams::{BoxFuture, Inbound, Incoming, OpenError, Stream, Streams},
    },
};

/// The protocol.
pub const PROTOCOL: &str = "/potluck/verify/1";
/// Longest frame with a charge, in bytes.
const MAX_REQUEST: usize = MAX_CHARGE + 1_024;
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 4_096;
/// Charges that are examined at the same time.
const AT_ONCE: usize = 1;
/// Charges that wait.
const WAITING: usize = 8;
/// Time for a charge to arrive.
const ARRIVAL: Duration = Duration::from_secs(60);
/// Time for a verifier to come to its verdict.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// A charge that is to be examined.
#[derive(Encode, Decode)]
struct Review {
    /// SCALE of a [`Charge`].
    #[n(0)]
    charge: ByteVec,
    /// The block that drew the verifiers.
    #[n(1)]
    at: u32,
}

/// What a verifier says to a charge.
#[derive(Encode, Decode)]
enum Word {
    /// It signs the verdict that it came to.
    #[n(0)]
    Signed {
        /// SCALE of the verdict.
        #[n(0)]
        verdict: ByteVec,
        /// Its signature of the verdict's digest.
        #[n(1)]
        signature: ByteVec,
    },
    /// It does not sign.
    #[n(1)]
    Refused {
        /// Why.
        #[n(0)]
        reason: String,
    },
}

/// What the chain says about verdicts.
pub trait Court: Send + Sync + fmt::Debug {
    /// The chain.
    fn genesis(&self) -> Genesis;

    /// Who judges a job of a provider by this block; `None`: the block is too old or still to come.
    ///
    /// # Errors
    /// In words.
    fn drawn(
        &self,
        provider: Account,
        job: [u8; 16],
        at: u32,
    ) -> BoxFuture<'_, Result<Option<Drawn>, String>>;
}

/// Why there is no verdict that the chain takes.
#[derive(Debug, thiserror::Error)]
pub enum NoVerdict {
    /// The charge does not convince this machine itself.
    #[error(transparent)]
    Charge(#[from] ChargeError),
    /// The chain cannot be asked.
    #[error("the chain cannot be asked: {0}")]
    Court(String),
    /// Nobody is drawn by this block.
    #[error("block {0} draws no verifiers")]
    Nobody(u32),
    /// Too few agree.
    #[error("the verdict does not hold: {0}")]
    Verdict(#[from] VerdictError),
}

/// Why a verifier's word is not there.
#[derive(Debug, thiserror::Error)]
pub enum NoWord {
    /// It cannot be reached.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream broke.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It took too long.
    #[error("it took more than {} s", PATIENCE.as_secs())]
    Slow,
    /// It does not sign.
    #[error("it does not sign: {0}")]
    Refused(String),
    /// What it signed is another verdict, or not signed by it.
    #[error("it signs another verdict, or not with its key")]
    Other,
}

/// What judging takes.
#[derive(Clone, Debug)]
pub struct Bench {
    /// This machine's key, which is its account.
    pub signer: Signer,
    /// Its copies of models.
    pub examiner: Arc<Examiner>,
    /// The approved slashing policy.
    pub judge: Arc<dyn Judge>,
    /// The chain.
    pub court: Arc<dyn Court>,
}

impl Bench {
    /// The verdict that this machine signs on a charge, if it was drawn for it and finds it true.
    ///
    /// # Errors
    /// In words.
    async fn review(&self, charge: &[u8], at: u32) -> Result<(Verdict, [u8; 64]), String> {
        let words = |error: ChargeError| error.to_string();
        let charge = Charge::open(charge).map_err(words)?;
        let drawn = self.court.drawn(charge.provider, charge.job(), at).await?;
        let drawn = drawn.ok_or("that block draws no verifiers")?;
        // Examining costs as much as answering: only who was drawn does it.
        if !drawn.verifiers.contains(&self.signer.node().0) {
            return Err("this machine is not drawn for it".into());
        }
        let verdict = charge.judge(&self.examiner, self.judge.as_ref(), &drawn).await.map_err(words)?;
        let signature = self.signer.sign(&verdict.digest(&self.court.genesis())).0;
        Ok((verdict, signature))
    }
}

/// Examines charges of others until it is stopped.
/// What a verifier of this machine's kind signs ends its own test of the same provider: nobody is judged twice for one
/// stretch of time.
pub async fn serve(bench: Bench, docket: Arc<Docket>, mut incoming: Incoming, stop: CancellationToken) {
    let (places, mut sessions) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
            inbound = incoming.recv() => match inbound {
                Some(inbound) if sessions.len() < WAITING => {
                    sessions.spawn(answer(bench.clone(), Arc::clone(&docket), inbound, Arc::clone(&places)));
                }
                Some(inbound) => tracing::debug!(peer = %inbound.peer, "too many charges wait"),
                None => break,
            },
        }
    }
    sessions.shutdown().await;
}

async fn answer(bench: Bench, docket: Arc<Docket>, inbound: Inbound, places: Arc<Semaphore>) {
    let Inbound { peer, mut stream } = inbound;
    let Ok(Ok(review)) = timeout(ARRIVAL, frame::expect::<Review, _>(&mut stream, MAX_REQUEST)).await else {
        tracing::debug!(%peer, "a charge did not arrive");
        return;
    };
    let Ok(_place) = places.acquire().await else { return };
    let word = match bench.review(&review.charge, review.at).await {
        Ok((verdict, signature)) => {
            let provider = NodeId(verdict.provider);
            let closed = tokio::task::spawn_blocking(move || docket.close(provider)).await;
            if let Ok(Err(error)) = closed {
                tracing::warn!(%error, "the record of audits is not written");
            }
            Word::Signed { verdict: verdict.encode().into(), signature: signature.to_vec().into() }
        }
        Err(reason) => {
            tracing::info!(%peer, reason, "a charge is not signed");
            let end = reason.floor_char_boundary(1_024);
            Word::Refused { reason: reason.get(..end).unwrap_or_default().to_owned() }
        }
    };
    let _ = timeout(ARRIVAL, frame::write(&mut stream, &word, MAX_ANSWER)).await;
}

/// The verdict that a verifier signs on a charge.
async fn word(
    streams: &dyn Streams,
    verifier: NodeId,
    charge: &Charge,
    at: u32,
    genesis: &Genesis,
) -> Result<(Verdict, [u8; 64]), NoWord> {
    let mut stream: Stream = streams.open(verifier, PROTOCOL).await?;
    let review = Review { charge: charge.encode().into(), at };
    let talk = async {
        frame::write(&mut stream, &review, MAX_REQUEST).await?;
        frame::expect::<Word, _>(&mut stream, MAX_ANSWER).await
    };
    match timeout(PATIENCE, talk).await.map_err(|_| NoWord::Slow)?? {
        Word::Refused { reason } => Err(NoWord::Refused(reason)),
        Word::Signed { verdict, signature } => {
            let verdict = Verdict::decode_all(&mut verdict.as_slice()).map_err(|_| NoWord::Other)?;
            let signature: [u8; 64] = signature.as_slice().try_into().map_err(|_| NoWord::Other)?;
            let signed = signed_by(&verifier.0, &verdict.digest(genesis), &signature);
            if signed { Ok((verdict, signature)) } else { Err(NoWord::Other) }
        }
    }
}

/// Asks a verifier to sign exactly this verdict on a charge.
///
/// # Errors
/// [`NoWord`]
pub async fn ask(
    streams: &dyn Streams,
    verifier: NodeId,
    charge: &Charge,
    verdict: &Verdict,
    genesis: &Genesis,
) -> Result<[u8; 64], NoWord> {
    let (theirs, signature) = word(streams, verifier, charge, verdict.at.0, genesis).await?;
    if theirs == *verdict { Ok(signature) } else { Err(NoWord::Other) }
}

/// Brings a charge before the verifiers that block `at` draws, and gives the verdict as the chain takes it.
///
/// # Errors
/// [`NoVerdict`]
pub async fn accuse(
    bench: &Bench,
    streams: &Arc<dyn Streams>,
    charge: &Charge,
    at: u32,
) -> Result<SignedVerdict, NoVerdict> {
    let drawn = bench.court.drawn(charge.provider, charge.job(), at).await.map_err(NoVerdict::Court)?;
    let drawn = drawn.ok_or(NoVerdict::Nobody(at))?;
    let verdict = charge.judge(&bench.examiner, bench.judge.as_ref(), &drawn).await?;
    let genesis = bench.court.genesis();
    let mut asking = JoinSet::new();
    let mut signatures = Vec::new();
    for &account in &drawn.verifiers {
        if account == bench.signer.node().0 {
            signatures.push((account, bench.signer.sign(&verdict.digest(&genesis)).0));
            continue;
        }
        let (streams, charge, verdict) = (Arc::clone(streams), charge.clone(), verdict.clone());
        asking.spawn(async move {
            (account, ask(streams.as_ref(), NodeId(account), &charge, &verdict, &genesis).await)
        });
    }
    while let Some(Ok((account, word))) = asking.join_next().await {
        match word {
            Ok(signature) => signatures.push((account, signature)),
            Err(why) => tracing::info!(verifier = %NodeId(account), %why, "a verifier does not sign"),
        }
    }
    let few = |found: usize| VerdictError::TooFew {
        found: u32::try_from(found).unwrap_or(u32::MAX),
        needed: drawn.quorum,
    };
    let found = signatures.len();
    let signed = SignedVerdict::new(verdict, signatures).map_err(|_| few(found))?;
    signed.verify(&genesis, &drawn.verifiers, drawn.quorum)?;
    Ok(signed)
}

/// Sends a verifier a charge that is wrong: answers of this machine itself, all of them as they should be. Who signs any
/// verdict on it has not looked, and the signature shows it. It harms nobody: the accused is this machine.
///
/// # Errors
/// [`NoWord`] when nothing can be said about the verifier; [`NoWord::Refused`] is what those say that have looked.
pub async fn honeypot(
    streams: &dyn Streams,
    verifier: NodeId,
    charge: &Charge,
    at: u32,
    genesis: &Genesis,
) -> Result<SignedVerdict, NoWord> {
    let (verdict, signature) = word(streams, verifier, charge, at, genesis).await?;
    let about = verdict.provider == charge.provider && verdict.evidence == charge.digest();
    let signed = about.then(|| SignedVerdict::new(verdict, vec![(verifier.0, signature)]).ok()).flatten();
    signed.ok_or(NoWord::Other)
}
