//! Vouchers: what a payer owes a payee on one lane, all in all. A later voucher replaces the earlier ones of its
//! lane, so that only the last has to be redeemed, and redeeming one twice pays once.

use alloc::vec::Vec;
use core::fmt;

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use parity_scale_codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{
    Account, Block, Genesis, Hash, MicroCredits, Pool, SignatureBytes,
    crypto::{blake2_256, sign, signed_by},
};

/// Keeps a signature of a voucher from being taken for one of anything else.
const DOMAIN: &[u8] = b"potluck voucher 1\0";
/// Keeps a settler's promise from being taken for a signature of anything else.
const PROMISE: &[u8] = b"potluck acknowledgement 1\0";

/// What a settler signs to promise that its batch counts the voucher with this digest: BLAKE2b-256 of the format's
/// name, the chain and the digest.
pub fn acknowledgement(digest: &Hash, genesis: &Genesis) -> Hash {
    blake2_256(&[PROMISE, &genesis.0, digest])
}

/// A payer's word to a payee.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Voucher {
    /// Which way its lane is paid. [`PUBLIC_POOL`](crate::PUBLIC_POOL), all zeros: the payee redeems it by itself. A
    /// settler's account: that settler's batches count it, and `lane` is the epoch whose batch does.
    pub pool: Pool,
    /// Who pays.
    pub payer: Account,
    /// Who is paid.
    pub payee: Account,
    /// Which of the lanes between the two: each counts by itself. In the public pool any number, with a settler the
    /// epoch.
    pub lane: u32,
    /// Rises with each voucher of the lane.
    pub nonce: u64,
    /// What the lane is worth since its beginning; never falls.
    pub cumulative: MicroCredits,
    /// The last block in which it can be redeemed.
    pub expires: Block,
    /// [`receipts_root`](crate::receipts_root) of the receipts it pays for.
    pub receipts_root: Hash,
}

/// A voucher that its payer signed.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct SignedVoucher {
    /// What it says.
    pub voucher: Voucher,
    /// The payer's ed25519 signature of its digest.
    pub signature: SignatureBytes,
}

/// A signature is not of whom it should be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

impl fmt::Display for Forged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a signature that is not of whom it should be of")
    }
}

impl core::error::Error for Forged {}

impl Voucher {
    /// What the payer signs: BLAKE2b-256 of the format's name, the chain and the voucher.
    pub fn digest(&self, genesis: &Genesis) -> Hash {
        self.using_encoded(|bytes| blake2_256(&[DOMAIN, &genesis.0, bytes]))
    }
}

impl SignedVoucher {
    /// Signs `voucher`. It only verifies when `key` is the payer's.
    pub fn sign(voucher: Voucher, genesis: &Genesis, key: &SigningKey) -> Self {
        Self::sign_with(voucher, genesis, |digest| sign(key, digest))
    }

    /// As [`Self::sign`], for a key that lies elsewhere: `sign` is given the digest.
    pub fn sign_with(
        voucher: Voucher,
        genesis: &Genesis,
        sign: impl FnOnce(&Hash) -> SignatureBytes,
    ) -> Self {
        let signature = sign(&voucher.digest(genesis));
        Self { voucher, signature }
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`Forged`]: it is not of the payer, or for another chain.
    pub fn verify(&self, genesis: &Genesis) -> Result<(), Forged> {
        let digest = self.voucher.digest(genesis);
        if signed_by(&self.voucher.payer, &digest, &self.signature) { Ok(()) } else { Err(Forged) }
    }
}

/// Checks many signatures: accepts exactly what [`SignedVoucher::verify`] accepts, and is quicker where vouchers of
/// one payer lie side by side.
///
/// Each is checked by itself. Checking a random combination of all of them takes less, but lets a signature pass
/// every other time whose nonce carries a point of small order. A payer could make such ones on purpose: its payee
/// would take them for good, and the chain would refuse them.
///
/// # Errors
/// The indexes of those that are not of their payers, rising.
pub fn verify_batch(vouchers: &[SignedVoucher], genesis: &Genesis) -> Result<(), Vec<usize>> {
    // A payer's vouchers mostly lie side by side: its key is unpacked once.
    let mut last: Option<(Account, Option<VerifyingKey>)> = None;
    let mut bad = Vec::new();
    for (index, signed) in vouchers.iter().enumerate() {
        let payer = signed.voucher.payer;
        let key = match &last {
            Some((of, key)) if *of == payer => *key,
            _ => VerifyingKey::from_bytes(&payer).ok(),
        };
        last = Some((payer, key));
        let digest = signed.voucher.digest(genesis);
        let signature = Signature::from_bytes(&signed.signature);
        if key.is_none_or(|key| key.verify_strict(&digest, &signature).is_err()) {
            bad.push(index);
        }
    }
    if bad.is_empty() { Ok(()) } else { Err(bad) }
}
