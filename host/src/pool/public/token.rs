//! Spend tokens: money that nobody can follow.
//!
//! An issuer signs a token without seeing it (RFC 9474, RSABSSA-SHA384-PSS-Randomized, 2048 bits). Anybody can check
//! the signature, and nobody, the issuer included, can tell for whom it was made. There is one key for each epoch and
//! each denomination, so that what a token is worth and how long it holds is said by the key that signed it; all keys
//! are named in the issuer's [`Catalogue`], the same one for everybody.
//!
//! The randomizer that the RFC puts before the message is the token's serial; the message itself says for which
//! chain, issuer, epoch and denomination it is.

use std::fmt;

use blind_rsa_signatures::{
    BlindMessage, BlindSignature, BlindingResult, DefaultRng, MessageRandomizer, PSS, Randomized, Secret,
    Sha384, Signature,
    reexports::{crypto_bigint::BoxedUint, rsa},
};
use parity_scale_codec::{Decode, Encode, MaxEncodedLen};
use potluck_primitives::{Account, Genesis, Hash, MicroCredits, blake2_256};
use zeroize::Zeroize;

mod catalogue;
mod signed;
#[cfg(test)]
mod tests;

pub use catalogue::{Catalogue, Epoch, Flaw, MAX_EPOCHS, Mint, Schedule};
pub use signed::{Said, Signed};

/// Bytes of a modulus, of a signature, and of everything that is calculated modulo it.
pub const MODULUS: usize = 256;
/// Bits of a modulus.
const BITS: u32 = 2_048;
/// The public exponent of every key.
const EXPONENT: u32 = 65_537;
/// Most tokens in one message.
pub const BATCH: u32 = 128;
/// Keeps a token's signature from being good for anything else.
const DOMAIN: &[u8] = b"potluck token 1\0";
/// Keeps a token's name from being taken for another hash.
const NAME: &[u8] = b"potluck token name 1\0";

pub(crate) type RsaPublic = blind_rsa_signatures::PublicKey<Sha384, PSS, Randomized>;
pub(crate) type RsaSecret = blind_rsa_signatures::SecretKey<Sha384, PSS, Randomized>;
/// A number modulo a key, big endian.
pub type Residue = [u8; MODULUS];

/// What a token is worth. Few and coarse, so that many tokens look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, MaxEncodedLen)]
pub enum Denomination {
    /// 100 µcr.
    #[codec(index = 0)]
    Hundred,
    /// 1,000 µcr.
    #[codec(index = 1)]
    Thousand,
    /// 10,000 µcr.
    #[codec(index = 2)]
    TenThousand,
}

impl Denomination {
    /// All of them, the smallest first; each divides the next.
    pub const ALL: [Self; 3] = [Self::Hundred, Self::Thousand, Self::TenThousand];
    /// The smallest.
    pub const UNIT: MicroCredits = Self::Hundred.worth();

    /// What it is worth, in microcredits.
    pub const fn worth(self) -> MicroCredits {
        match self {
            Self::Hundred => MicroCredits(100),
            Self::Thousand => MicroCredits(1_000),
            Self::TenThousand => MicroCredits(10_000),
        }
    }
}

/// Money: who has its bytes can spend it, once.
#[derive(Clone, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub struct Token {
    /// In which epoch it was bought.
    pub epoch: u32,
    /// What it is worth.
    pub value: Denomination,
    /// Its number, chosen by its buyer at random.
    pub serial: [u8; 32],
    /// The issuer's RSA signature.
    pub signature: Residue,
}

/// Shown without what makes it money.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("epoch", &self.epoch)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

impl Token {
    /// Bytes of an encoded token.
    pub const BYTES: usize = 4 + 1 + 32 + MODULUS;

    /// Names it: BLAKE2b-256 of all but the signature.
    pub fn name(&self) -> Hash {
        (self.epoch, self.value, self.serial).using_encoded(|bytes| blake2_256(&[NAME, bytes]))
    }

    /// What several are worth together, in microcredits.
    pub fn worth(tokens: &[Self]) -> MicroCredits {
        // At most 2^64 tokens of 10,000: no overflow.
        MicroCredits(tokens.iter().map(|token| token.value.worth().0).sum())
    }
}

/// Why something is no key or no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// A number that is no RSA modulus of 2048 bits.
    #[error("a key that is no RSA modulus of {BITS} bits")]
    Key,
    /// A signature that the key did not make.
    #[error("a token that its issuer did not sign")]
    Forged,
    /// A catalogue that says what cannot be.
    #[error("a catalogue of keys that cannot be: {0}")]
    Catalogue(&'static str),
    /// A catalogue that its issuer did not sign.
    #[error("a catalogue that its issuer did not sign for this chain")]
    NotSigned,
}

/// The public key of one denomination in one epoch.
#[derive(Clone, Debug)]
pub struct MintKey {
    key: RsaPublic,
    epoch: u32,
    value: Denomination,
    context: Vec<u8>,
}

impl MintKey {
    /// The key with this modulus.
    ///
    /// # Errors
    /// [`TokenError::Key`]
    pub fn new(
        modulus: &Residue,
        genesis: &Genesis,
        issuer: &Account,
        epoch: u32,
        value: Denomination,
    ) -> Result<Self, TokenError> {
        let n = BoxedUint::from_be_slice(modulus, BITS).map_err(|_| TokenError::Key)?;
        let odd = modulus.last().is_some_and(|byte| byte & 1 == 1);
        let full = modulus.first().is_some_and(|byte| byte & 0x80 != 0);
        if !odd || !full {
            return Err(TokenError::Key);
        }
        let key = rsa::RsaPublicKey::new(n, BoxedUint::from(EXPONENT)).map_err(|_| TokenError::Key)?;
        let context = [DOMAIN, &genesis.0, issuer, &(epoch, value).encode()].concat();
        Ok(Self { key: RsaPublic::new(key), epoch, value, context })
    }

    /// Makes a token up and hides it: what the issuer is given to sign, and what the buyer alone may know.
    ///
    /// # Errors
    /// [`TokenError::Key`] for a modulus with a small factor.
    pub fn blind(&self) -> Result<(Residue, Blinding), TokenError> {
        let made = self.key.blind(&mut DefaultRng, &self.context).map_err(|_| TokenError::Key)?;
        let serial = made.msg_randomizer.ok_or(TokenError::Key)?.0;
        let residue = |bytes: &[u8]| Residue::try_from(bytes).map_err(|_| TokenError::Key);
        let (message, secret) = (residue(&made.blind_message.0)?, residue(&made.secret.0)?);
        Ok((message, Blinding { value: self.value, serial, secret }))
    }

    /// The token of a blind signature, checked.
    ///
    /// # Errors
    /// [`TokenError::Forged`]: the issuer signed something else.
    pub fn finish(&self, blinding: &Blinding, signed: &Residue) -> Result<Token, TokenError> {
        let made = BlindingResult {
            // Only the secret is needed to take the blinding off.
            blind_message: BlindMessage(Vec::new()),
            secret: Secret(blinding.secret.to_vec()),
            msg_randomizer: Some(MessageRandomizer(blinding.serial)),
        };
        let signature = self
            .key
            .finalize(&BlindSignature(signed.to_vec()), &made, &self.context)
            .map_err(|_| TokenError::Forged)?;
        let signature = Residue::try_from(signature.0).map_err(|_| TokenError::Forged)?;
        Ok(Token { epoch: self.epoch, value: self.value, serial: blinding.serial, signature })
    }

    /// Checks a token of this key.
    ///
    /// # Errors
    /// [`TokenError::Forged`]
    pub fn verify(&self, token: &Token) -> Result<(), TokenError> {
        if (token.epoch, token.value) != (self.epoch, self.value) {
            return Err(TokenError::Forged);
        }
        let signature = Signature(token.signature.to_vec());
        let serial = Some(MessageRandomizer(token.serial));
        self.key.verify(&signature, serial, &self.context).map_err(|_| TokenError::Forged)
    }

    /// Whether `signed` is the answer to the blinded `message`: what a buyer shows when it is not.
    pub fn answers(&self, message: &Residue, signed: &Residue) -> bool {
        let number = |bytes: &Residue| BoxedUint::from_be_slice(bytes, BITS).ok();
        let (Some(message), Some(signed)) = (number(message), number(signed)) else { return false };
        let key: &rsa::RsaPublicKey = self.key.as_ref();
        let modulus: &BoxedUint = rsa::traits::PublicKeyParts::n(key).as_ref();
        if signed >= *modulus {
            return false;
        }
        rsa::hazmat::rsa_encrypt(key, &signed).is_ok_and(|opened| opened == message)
    }
}

/// A token that is not signed yet: the buyer's secret.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Blinding {
    /// What it will be worth.
    pub value: Denomination,
    serial: [u8; 32],
    secret: Residue,
}

impl fmt::Debug for Blinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blinding").field("value", &self.value).finish_non_exhaustive()
    }
}

impl Drop for Blinding {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.serial.zeroize();
    }
}
