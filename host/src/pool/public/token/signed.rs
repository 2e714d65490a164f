//! What somebody said and signed, for one chain.

use parity_scale_codec::{Decode, Encode, MaxEncodedLen};
use potluck_primitives::{Account, Forged, Genesis, Hash, SignatureBytes, blake2_256, signed_by};

use crate::identity::Signer;

/// Something that an account can say.
pub trait Said: Encode {
    /// Keeps a signature of it from being taken for one of anything else.
    const DOMAIN: &'static [u8];

    /// Who says it.
    fn speaker(&self) -> Account;

    /// What is signed: BLAKE2b-256 of the format's name, the chain and what is said.
    fn digest(&self, genesis: &Genesis) -> Hash {
        self.using_encoded(|bytes| blake2_256(&[Self::DOMAIN, &genesis.0, bytes]))
    }
}

/// Something said, with its speaker's ed25519 signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub struct Signed<T> {
    /// What is said.
    pub said: T,
    /// The signature of its digest.
    pub signature: SignatureBytes,
}

impl<T: Said> Signed<T> {
    /// Signs; it verifies when the key is the speaker's.
    pub fn new(said: T, genesis: &Genesis, signer: &Signer) -> Self {
        let signature = signer.sign(&said.digest(genesis)).0;
        Self { said, signature }
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`Forged`]
    pub fn verify(&self, genesis: &Genesis) -> Result<(), Forged> {
        let good = signed_by(&self.said.speaker(), &self.said.digest(genesis), &self.signature);
        if good { Ok(()) } else { Err(Forged) }
    }

    /// Names what is said.
    pub fn digest(&self, genesis: &Genesis) -> Hash {
        self.said.digest(genesis)
    }
}
