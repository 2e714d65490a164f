//! Receipts: what a job took, signed by both ends of it.

use alloc::{string::String, vec::Vec};
use core::fmt;

use ed25519_dalek::{Signature, VerifyingKey};
use parity_scale_codec::{Compact, Decode, DecodeWithMemTracking, Encode, Error, Input, MaxEncodedLen};
use scale_info::TypeInfo;

/// Keeps a signature of a receipt from being taken for one of anything else.
const DOMAIN: &[u8] = b"potluck receipt 1\0";
/// The version that this program writes, and the newest it reads.
const VERSION: u8 = 1;
/// Longest class of a model, in bytes.
pub const MAX_CLASS: usize = 64;
/// Longest job that a receipt can be for: a day.
pub const MAX_JOB: UnixMillis = UnixMillis(24 * 60 * 60 * 1_000);
/// Most bytes of a receipt with both signatures.
pub const MAX_RECEIPT: usize = 512;

/// Computing time, in microseconds.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub struct Micros(pub u64);

/// Milliseconds since the Unix epoch.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub struct UnixMillis(pub u64);

/// Tokens.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub struct Tokens(pub u32);

/// What kind of model it was, for people and for sums: printable ASCII, at most [`MAX_CLASS`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, TypeInfo)]
pub struct Class(Vec<u8>);

/// What a job took. Nothing of what was asked or answered: even a hash of a short prompt can be guessed.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Receipt {
    /// The version of this format: 1.
    pub version: u8,
    /// Names the job; a provider counts each once.
    pub job: [u8; 16],
    /// The ed25519 public key of the machine that computed.
    pub provider: [u8; 32],
    /// The ed25519 public key of the machine that asked.
    pub requester: [u8; 32],
    /// The root key of the pool that both are members of.
    pub pool: [u8; 32],
    /// BLAKE3 of the model's name.
    pub model: [u8; 32],
    /// What kind of model it was.
    pub class: Class,
    /// Tokens of the prompt.
    pub prompt_tokens: Tokens,
    /// Tokens of the answer.
    pub completion_tokens: Tokens,
    /// How long the provider was busy with it.
    pub compute: Micros,
    /// When the provider began.
    pub started_at: UnixMillis,
    /// When the provider ended.
    pub ended_at: UnixMillis,
}

/// A receipt that both ends signed.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Signed {
    /// What it says.
    pub receipt: Receipt,
    /// The provider's ed25519 signature.
    pub by_provider: [u8; 64],
    /// The requester's ed25519 signature.
    pub by_requester: [u8; 64],
}

/// One end of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// Who computed.
    Provider,
    /// Who asked.
    Requester,
}

/// Why something is no receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptError {
    /// Bytes that are none.
    Malformed,
    /// Of a newer program.
    Version(u8),
    /// Both ends are one machine.
    OneParty,
    /// It ended before it began, took longer than [`MAX_JOB`], or computed longer than that.
    Times,
    /// A signature is not of the party that it should be of.
    Forged(Party),
}

impl fmt::Display for ReceiptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("bytes that are no receipt"),
            Self::Version(found) => write!(f, "a receipt of version {found}: update potluck on this machine"),
            Self::OneParty => f.write_str("a receipt of a machine with itself"),
            Self::Times => f.write_str("a receipt whose times cannot be"),
            Self::Forged(Party::Provider) => f.write_str("a receipt that its provider did not sign"),
            Self::Forged(Party::Requester) => f.write_str("a receipt that its requester did not sign"),
        }
    }
}

impl core::error::Error for ReceiptError {}

impl Class {
    /// A class of this text; what is not printable ASCII becomes `?`, what is too long is cut.
    pub fn new(text: &str) -> Self {
        let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        let bytes = text.chars().map(printable).take(MAX_CLASS);
        Self(bytes.filter_map(|c| u8::try_from(c).ok()).collect())
    }

    /// Its text.
    pub fn text(&self) -> String {
        self.0.iter().map(|byte| char::from(*byte)).collect()
    }
}

impl Decode for Class {
    fn decode<I: Input>(input: &mut I) -> Result<Self, Error> {
        let length = Compact::<u32>::decode(input)?.0 as usize;
        if length > MAX_CLASS {
            return Err("the class is too long".into());
        }
        input.on_before_alloc_mem(length)?;
        let mut bytes = alloc::vec![0; length];
        input.read(&mut bytes)?;
        let printable = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        if printable { Ok(Self(bytes)) } else { Err("the class is not printable".into()) }
    }
}

impl DecodeWithMemTracking for Class {}

impl MaxEncodedLen for Class {
    fn max_encoded_len() -> usize {
        // A length of up to 64 is written in two bytes at most.
        MAX_CLASS.saturating_add(2)
    }
}

impl Receipt {
    /// The version of receipts made now.
    pub const VERSION: u8 = VERSION;

    /// The bytes that both ends sign.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = DOMAIN.to_vec();
        self.encode_to(&mut bytes);
        bytes
    }

    /// Checks what can be checked without knowing the job.
    ///
    /// # Errors
    /// [`ReceiptError`], never [`ReceiptError::Forged`].
    pub fn check(&self) -> Result<(), ReceiptError> {
        if self.version != VERSION {
            return Err(ReceiptError::Version(self.version));
        }
        if self.provider == self.requester {
            return Err(ReceiptError::OneParty);
        }
        let took = self.ended_at.0.checked_sub(self.started_at.0);
        // Several processors may be busy at once, but not all day long.
        let longest = MAX_JOB.0.saturating_mul(1_000);
        match took {
            Some(took) if took <= MAX_JOB.0 && self.compute.0 <= longest => Ok(()),
            _ => Err(ReceiptError::Times),
        }
    }

    /// Whether `signature` is of that party.
    pub fn signed_by(&self, party: Party, signature: &[u8; 64]) -> bool {
        let key = match party {
            Party::Provider => &self.provider,
            Party::Requester => &self.requester,
        };
        let signature = Signature::from_bytes(signature);
        VerifyingKey::from_bytes(key)
            .is_ok_and(|key| key.verify_strict(&self.signed_bytes(), &signature).is_ok())
    }
}

impl Signed {
    /// Reads and verifies a receipt.
    ///
    /// # Errors
    /// Any [`ReceiptError`].
    pub fn open(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > MAX_RECEIPT {
            return Err(ReceiptError::Malformed);
        }
        let mut rest = bytes;
        let signed = Self::decode(&mut rest).map_err(|_| ReceiptError::Malformed)?;
        if !rest.is_empty() {
            return Err(ReceiptError::Malformed);
        }
        signed.verify()?;
        Ok(signed)
    }

    /// Checks the receipt and both signatures.
    ///
    /// # Errors
    /// Any [`ReceiptError`].
    pub fn verify(&self) -> Result<(), ReceiptError> {
        self.receipt.check()?;
        for (party, signature) in
            [(Party::Provider, &self.by_provider), (Party::Requester, &self.by_requester)]
        {
            if !self.receipt.signed_by(party, signature) {
                return Err(ReceiptError::Forged(party));
            }
        }
        Ok(())
    }
}
