//! What was asked and answered, so that a third party can tell that it was, and replay it.
//!
//! A transcript is the provider's signed offer, the request without its payment, and the provider's signed statement of
//! what it answered. It names no person: the request has no identity, its key was made for the one job. Only requests
//! that a verifier made up become transcripts.

use minicbor::Decoder;
use parity_scale_codec::{Decode, DecodeAll, Encode};
use potluck_kernels::audit::{Answer, COMMITMENT_BYTES, Commitment, Finish, Numerics, Usage as Counted};
use potluck_primitives::{Account, Bounded, Hash, UnixMillis, blake2_256, signed_by};

use super::super::{
    offer::{SKEW, SignedOffer},
    wire::Ask,
};
use crate::{
    identity::{NodeId, Signer},
    inference::Vouched,
    job::{FinishReason, Job, Usage},
};

/// Keeps a signature of a statement from being taken for one of anything else.
const DOMAIN: &[u8] = b"potluck public answer 1\0";
/// Keeps the digest of a request apart from every other hash.
const ASK: &[u8] = b"potluck public ask 1\0";
/// Keeps the digest of a transcript apart from every other hash.
const TRANSCRIPT: &[u8] = b"potluck public transcript 1\0";
/// The version that this program writes, and the only one it reads.
pub const VERSION: u8 = 1;
/// Most tokens of an answer that a provider stands for.
pub const MAX_TOKENS: u32 = 16_384;
/// Most bytes of commitments: 258 for every 32 of those tokens.
pub const MAX_COMMITMENTS: u32 = MAX_TOKENS / 32 * 258;
/// Most bytes of an offer, as [`MAX_OFFER`](super::super::offer::MAX_OFFER).
const OFFER: u32 = 4_096;
/// Most bytes of a request that is audited.
const MAX_ASK: u32 = 32 << 10;
/// Most bytes of a transcript.
pub const MAX_TRANSCRIPT: usize = 320 << 10;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ending {
    /// The model ended it.
    #[codec(index = 0)]
    End,
    /// The request's limit was reached.
    #[codec(index = 1)]
    Limit,
    /// The requester had enough.
    #[codec(index = 2)]
    Cut,
}

impl Ending {
    /// Of an answer; `cut`: its requester wanted no more.
    pub const fn of(reason: FinishReason, cut: bool) -> Self {
        match reason {
            _ if cut => Self::Cut,
            FinishReason::Stop => Self::End,
            FinishReason::Length => Self::Limit,
        }
    }
}

/// Which request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub job: [u8; 16],
    /// The key made for its receipt.
    pub requester: [u8; 32],
    /// See [`ask_digest`].
    pub ask: Hash,
    /// When the provider began, in milliseconds since 1970.
    pub started_ms: u64,
}

/// The digest of a request, from [`Ask::bare`].
pub fn ask_digest(bare: &[u8]) -> Hash {
    blake2_256(&[ASK, bare])
}

/// What a provider says that it answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Statement {
    /// The version of this format: 1.
    pub version: u8,
    /// The provider.
    pub provider: Account,
    /// The request's name.
    pub job: [u8; 16],
    /// The key made for its receipt.
    pub requester: [u8; 32],
    /// The request's digest.
    pub ask: Hash,
    /// When the provider began.
    pub started_at: UnixMillis,
    /// The answer's tokens, without the one that ended it.
    pub tokens: Bounded<u32, MAX_TOKENS>,
    /// Why it ended.
    pub ending: Ending,
    /// Tokens of the prompt that are paid.
    pub prompt_tokens: u32,
    /// Tokens of the answer that are paid, the one that ended it included.
    pub completion_tokens: u32,
    /// Whether every bit is the same on every CPU.
    pub exact: bool,
    /// Commitments to the last hidden states, one after the other.
    pub commitments: Bounded<u8, MAX_COMMITMENTS>,
}

/// A statement with its provider's signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedStatement {
    /// What it says.
    pub statement: Statement,
    /// The provider's ed25519 signature of its digest.
    pub signature: [u8; 64],
}

impl Statement {
    /// Of an answer that was computed here. `None`: it is too long for one.
    pub fn new(
        provider: NodeId,
        asked: Asked,
        tokens: Vec<u32>,
        ending: Ending,
        usage: Usage,
        vouched: &Vouched,
    ) -> Option<Self> {
        let commitments: Vec<u8> = vouched.commitments.iter().flat_map(Commitment::to_bytes).collect();
        let exact = vouched.numerics == Numerics::Exact;
        Self::heard(provider, asked, tokens, ending, usage, (exact, &commitments))
    }

    /// Of an answer as its requester heard it.
    pub fn heard(
        provider: NodeId,
        asked: Asked,
        tokens: Vec<u32>,
        ending: Ending,
        usage: Usage,
        (exact, commitments): (bool, &[u8]),
    ) -> Option<Self> {
        Some(Self {
            version: VERSION,
            provider: provider.0,
            job: asked.job,
            requester: asked.requester,
            ask: asked.ask,
            started_at: UnixMillis(asked.started_ms),
            tokens: Bounded::new(tokens).ok()?,
            ending,
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            exact,
            commitments: Bounded::new(commitments.to_vec()).ok()?,
        })
    }

    fn digest(&self) -> Hash {
        self.using_encoded(|bytes| blake2_256(&[DOMAIN, bytes]))
    }

    /// The provider's signature.
    pub fn sign(&self, signer: &Signer) -> [u8; 64] {
        signer.sign(&self.digest()).0
    }

    /// As an audit takes it. Commitments that are none are left out: their number is wrong then.
    fn answer(&self) -> Answer {
        let (chunks, _) = self.commitments.as_chunks::<COMMITMENT_BYTES>();
        Answer {
            tokens: self.tokens.to_vec(),
            finish: match self.ending {
                Ending::End => Finish::End,
                Ending::Limit => Finish::Limit,
                Ending::Cut => Finish::Cut,
            },
            usage: Counted { prompt: self.prompt_tokens, completion: self.completion_tokens },
            numerics: if self.exact { Numerics::Exact } else { Numerics::Float },
            commitments: chunks.iter().filter_map(|bytes| Commitment::from_bytes(bytes).ok()).collect(),
        }
    }
}

impl SignedStatement {
    /// Whether the provider that it names signed it.
    pub fn verify(&self) -> bool {
        signed_by(&self.statement.provider, &self.statement.digest(), &self.signature)
    }
}

/// One answer with everything that shows what it was. Travels and is kept as SCALE.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Transcript {
    /// The offer that was read before asking, SCALE of [`SignedOffer`].
    pub offer: Bounded<u8, OFFER>,
    /// The request without payment, see [`Ask::bare`].
    pub ask: Bounded<u8, MAX_ASK>,
    /// What was answered.
    pub answer: SignedStatement,
}

/// Why something is no transcript: nothing follows from it, whoever shows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranscriptError {
    /// Too many bytes.
    #[error("a transcript of {0} bytes, where at most {MAX_TRANSCRIPT} are allowed")]
    TooLong(usize),
    /// Bytes that are none.
    #[error("bytes that are no transcript")]
    Malformed,
    /// Of another program.
    #[error("a transcript of version {0}; this program reads version {VERSION}")]
    Version(u8),
    /// The offer is not the provider's.
    #[error("its offer does not hold: {0}")]
    Offer(String),
    /// The provider did not sign the answer.
    #[error("the provider did not sign the answer")]
    Forged,
    /// Parts of different stories.
    #[error("the answer is not one to this {0}")]
    Other(&'static str),
    /// The request is none that can be replayed.
    #[error("the request cannot be replayed: {0}")]
    Request(String),
}

/// A transcript that holds together.
#[derive(Clone, Debug)]
pub struct Case {
    /// Who answered.
    pub provider: NodeId,
    /// The request's name.
    pub id: [u8; 16],
    /// BLAKE3 of the model's file, as it was offered.
    pub model: [u8; 32],
    /// The request.
    pub job: Job,
    /// The answer.
    pub answer: Answer,
    /// The transcript's digest.
    pub digest: Hash,
}

impl Transcript {
    /// A transcript of these parts, if they are not too long.
    pub fn new(offer: Vec<u8>, ask: Vec<u8>, answer: SignedStatement) -> Option<Self> {
        Some(Self { offer: Bounded::new(offer).ok()?, ask: Bounded::new(ask).ok()?, answer })
    }

    /// What names it in a verdict.
    pub fn digest(&self) -> Hash {
        self.using_encoded(|bytes| blake2_256(&[TRANSCRIPT, bytes]))
    }

    /// Reads one from anybody, and checks it.
    ///
    /// # Errors
    /// [`TranscriptError`], the first of what is wrong.
    pub fn open(bytes: &[u8]) -> Result<(Self, Case), TranscriptError> {
        if bytes.len() > MAX_TRANSCRIPT {
            return Err(TranscriptError::TooLong(bytes.len()));
        }
        let this = Self::decode_all(&mut &*bytes).map_err(|_| TranscriptError::Malformed)?;
        let case = this.check()?;
        Ok((this, case))
    }

    /// Checks that the provider signed all of it, and that its parts belong together.
    ///
    /// # Errors
    /// [`TranscriptError`], the first of what is wrong.
    pub fn check(&self) -> Result<Case, TranscriptError> {
        let statement = &self.answer.statement;
        if statement.version != VERSION {
            return Err(TranscriptError::Version(statement.version));
        }
        if !self.answer.verify() {
            return Err(TranscriptError::Forged);
        }
        if ask_digest(&self.ask) != statement.ask {
            return Err(TranscriptError::Other("request"));
        }
        let ask = request(&self.ask)?;
        if ask.job.as_slice() != statement.job || ask.receipt_key.as_slice() != statement.requester {
            return Err(TranscriptError::Other("request"));
        }
        let model = self.model(&ask.model)?;
        let (job, ..) = ask.open().map_err(|error| TranscriptError::Request(error.to_string()))?;
        Ok(Case {
            provider: NodeId(statement.provider),
            id: statement.job,
            model,
            job,
            answer: statement.answer(),
            digest: self.digest(),
        })
    }

    /// BLAKE3 of the model's file, if the provider offered it when it answered.
    fn model(&self, name: &str) -> Result<[u8; 32], TranscriptError> {
        let statement = &self.answer.statement;
        let wrong = |error: &dyn ToString| TranscriptError::Offer(error.to_string());
        let read = SignedOffer::decode_all(&mut &*self.offer).map_err(|_| TranscriptError::Malformed)?;
        let made = read.offer.issued_at;
        let offer = SignedOffer::open(&self.offer, made).map_err(|error| wrong(&error))?.offer;
        if offer.provider != statement.provider {
            return Err(TranscriptError::Other("offer"));
        }
        let skew = u64::try_from(SKEW.as_millis()).unwrap_or(u64::MAX);
        let (from, until) = (made.0.saturating_sub(skew), offer.expires_at.0.saturating_add(skew));
        if !(from..until).contains(&statement.started_at.0) {
            return Err(TranscriptError::Offer("it was made for another time".into()));
        }
        let model = offer.model(name).ok_or(TranscriptError::Other("offer"))?;
        Ok(model.digest)
    }
}

/// A request, alone and whole.
fn request(bytes: &[u8]) -> Result<Ask, TranscriptError> {
    let mut decoder = Decoder::new(bytes);
    let ask: Ask = decoder.decode().map_err(|error| TranscriptError::Request(error.to_string()))?;
    if decoder.position() == bytes.len() { Ok(ask) } else { Err(TranscriptError::Malformed) }
}
