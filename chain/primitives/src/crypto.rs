//! The one hash and the one signature of the chain's formats.

use blake2::{Blake2b, Digest as _, digest::consts::U32};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::{Account, Hash, SignatureBytes};

/// BLAKE2b-256 of these pieces, one after another.
pub fn blake2_256(pieces: &[&[u8]]) -> Hash {
    let mut hasher = Blake2b::<U32>::new();
    for piece in pieces {
        hasher.update(piece);
    }
    hasher.finalize().into()
}

/// Whether `account` signed `message`. Strict: keys and nonces of small order are refused, and so is a signature
/// whose numbers are not the smallest they can be, so that nobody can turn one signature into another.
pub fn signed_by(account: &Account, message: &[u8], signature: &SignatureBytes) -> bool {
    VerifyingKey::from_bytes(account)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

/// Signs with a key that lies in memory.
pub(crate) fn sign(key: &SigningKey, digest: &Hash) -> SignatureBytes {
    key.sign(digest).to_bytes()
}
