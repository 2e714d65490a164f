//! Verdicts: that a provider answered wrongly, signed by verifiers that were drawn for the job.

use alloc::vec::Vec;
use core::fmt;

use parity_scale_codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{
    Account, Block, Bounded, Genesis, Hash, MILLION, PolicyHash, SignatureBytes,
    crypto::{blake2_256, signed_by},
};

/// Keeps a signature of a verdict from being taken for one of anything else.
const DOMAIN: &[u8] = b"potluck verdict 1\0";
/// Most verifiers that sign one verdict.
pub const MAX_SIGNERS: u32 = 32;

/// What verifiers found.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Verdict {
    /// The job, as its receipt names it.
    pub job: [u8; 16],
    /// Who computed it.
    pub provider: Account,
    /// The hash of what shows it; the evidence itself is kept by those who signed.
    pub evidence: Hash,
    /// The slashing policy that judged it.
    pub policy: PolicyHash,
    /// What it costs, in millionths of the provider's stake: at most [`MILLION`].
    pub parts: u32,
    /// The block whose hash drew the verifiers.
    pub at: Block,
}

/// A verdict with the signatures of verifiers.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct SignedVerdict {
    /// What it says.
    pub verdict: Verdict,
    /// Who signed its digest, by strictly rising account.
    pub signatures: Bounded<(Account, SignatureBytes), MAX_SIGNERS>,
}

/// Why a verdict does not hold.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum VerdictError {
    /// It costs more than the whole stake.
    Parts,
    /// The accounts that signed do not rise strictly.
    Order,
    /// Someone signed who was not drawn.
    Stranger(Account),
    /// A signature is not of the account it is listed with.
    Forged(Account),
    /// Fewer signed than have to.
    TooFew {
        /// How many did.
        found: u32,
        /// How many have to.
        needed: u32,
    },
}

impl fmt::Display for VerdictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parts => f.write_str("a verdict of more than the whole stake"),
            Self::Order => f.write_str("a verdict whose signers do not rise strictly"),
            Self::Stranger(_) => f.write_str("a verdict signed by one who was not drawn for it"),
            Self::Forged(_) => f.write_str("a verdict with a signature that is not of whom it should be of"),
            Self::TooFew { found, needed } => write!(f, "a verdict signed by {found} of {needed}"),
        }
    }
}

impl core::error::Error for VerdictError {}

impl Verdict {
    /// What verifiers sign: BLAKE2b-256 of the format's name, the chain and the verdict.
    pub fn digest(&self, genesis: &Genesis) -> Hash {
        self.using_encoded(|bytes| blake2_256(&[DOMAIN, &genesis.0, bytes]))
    }
}

impl SignedVerdict {
    /// A verdict with these signatures, put in order.
    ///
    /// # Errors
    /// [`TooMany`](crate::TooMany): more than [`MAX_SIGNERS`].
    pub fn new(
        verdict: Verdict,
        mut signatures: Vec<(Account, SignatureBytes)>,
    ) -> Result<Self, crate::TooMany> {
        signatures.sort_unstable();
        signatures.dedup();
        Ok(Self { verdict, signatures: Bounded::new(signatures)? })
    }

    /// Checks that at least `needed` of the accounts `among` signed it, and nobody else.
    ///
    /// # Errors
    /// [`VerdictError`], the first of what is wrong.
    pub fn verify(&self, genesis: &Genesis, among: &[Account], needed: u32) -> Result<(), VerdictError> {
        if self.verdict.parts > MILLION {
            return Err(VerdictError::Parts);
        }
        let rises = |pair: &[(Account, SignatureBytes)]| matches!(pair, [a, b] if a.0 < b.0);
        if !self.signatures.windows(2).all(rises) {
            return Err(VerdictError::Order);
        }
        let found = u32::try_from(self.signatures.len()).unwrap_or(u32::MAX);
        if found < needed {
            return Err(VerdictError::TooFew { found, needed });
        }
        if let Some((stranger, _)) = self.signatures.iter().find(|(account, _)| !among.contains(account)) {
            return Err(VerdictError::Stranger(*stranger));
        }
        let digest = self.verdict.digest(genesis);
        match self.signatures.iter().find(|(account, signature)| !signed_by(account, &digest, signature)) {
            Some((account, _)) => Err(VerdictError::Forged(*account)),
            None => Ok(()),
        }
    }
}
