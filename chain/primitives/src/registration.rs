//! Registrations: that a machine offers to compute. They cost no token: computing is what they are paid with.

use ed25519_dalek::SigningKey;
use parity_scale_codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{
    Account, Block, Bounded, Class, Forged, Genesis, Hash, SignatureBytes,
    crypto::{blake2_256, sign, signed_by},
};

/// Keeps a signature of a registration from being taken for one of anything else.
const DOMAIN: &[u8] = b"potluck registration 1\0";
/// Most models that a registration names.
pub const MAX_MODELS: u32 = 64;

/// What a machine offers.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Registration {
    /// Who earns.
    pub account: Account,
    /// The ed25519 public key that the machine is found by.
    pub peer: [u8; 32],
    /// What kind of machine it is, for people and for sums.
    pub hardware: Class,
    /// BLAKE3 of the names of the models it serves.
    pub models: Bounded<[u8; 32], MAX_MODELS>,
    /// A commitment to where it is reached; the address itself is told to who asks it.
    pub endpoint: Hash,
    /// Rises with each registration of the account.
    pub sequence: u64,
    /// The block it was made at.
    pub at: Block,
}

/// A registration that its account signed and worked for.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct SignedRegistration {
    /// What it says.
    pub registration: Registration,
    /// A number with which [`work_bits`] is large enough.
    pub work: u64,
    /// The account's ed25519 signature of the digest. It does not cover the work.
    pub signature: SignatureBytes,
}

impl Registration {
    /// What the account signs and works on: BLAKE2b-256 of the format's name, the chain and the registration.
    pub fn digest(&self, genesis: &Genesis) -> Hash {
        self.using_encoded(|bytes| blake2_256(&[DOMAIN, &genesis.0, bytes]))
    }
}

impl SignedRegistration {
    /// Signs `registration`. It only verifies when `key` is the account's.
    pub fn sign(registration: Registration, work: u64, genesis: &Genesis, key: &SigningKey) -> Self {
        Self::sign_with(registration, work, genesis, |digest| sign(key, digest))
    }

    /// As [`Self::sign`], for a key that lies elsewhere: `sign` is given the digest.
    pub fn sign_with(
        registration: Registration,
        work: u64,
        genesis: &Genesis,
        sign: impl FnOnce(&Hash) -> SignatureBytes,
    ) -> Self {
        let signature = sign(&registration.digest(genesis));
        Self { registration, work, signature }
    }

    /// Checks the signature; whether the work is enough is for the chain to say.
    ///
    /// # Errors
    /// [`Forged`]: it is not of the account, or for another chain.
    pub fn verify(&self, genesis: &Genesis) -> Result<(), Forged> {
        let digest = self.registration.digest(genesis);
        if signed_by(&self.registration.account, &digest, &self.signature) { Ok(()) } else { Err(Forged) }
    }

    /// How much was worked for it, in bits.
    pub fn work_bits(&self, genesis: &Genesis) -> u32 {
        work_bits(&self.registration.digest(genesis), self.work)
    }
}

/// How much work a number is for a digest: the leading zero bits of BLAKE2b-256 of both, the number as eight bytes,
/// little endian. Each bit takes twice as long to find.
pub fn work_bits(digest: &Hash, work: u64) -> u32 {
    let hash = blake2_256(&[digest, &work.to_le_bytes()]);
    let mut bits = 0_u32;
    for byte in hash {
        bits = bits.saturating_add(byte.leading_zeros());
        if byte != 0 {
            break;
        }
    }
    bits
}

/// Looks for a number of at least `bits` bits of work among the `tries` from `from` on; `None` when there is none.
pub fn find_work(digest: &Hash, bits: u32, from: u64, tries: u64) -> Option<u64> {
    (0..tries).map(|step| from.wrapping_add(step)).find(|work| work_bits(digest, *work) >= bits)
}
