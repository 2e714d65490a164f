//! `/potluck/issuer/1`: one question and one answer on each stream, each a length of four bytes (big endian) and SCALE.

use parity_scale_codec::{Decode, Encode, MaxEncodedLen};
use potluck_primitives::{
    Account, Bounded, Genesis, Hash, MerkleProof, MicroCredits, SignedVoucher, UnixMillis, blake2_256,
    merkle_root,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::super::token::{BATCH, Catalogue, Denomination, Flaw, Residue, Said, Signed, Token};
use crate::mesh::frame::{self, FrameError};

/// The protocol's name.
pub const ISSUER: &str = "/potluck/issuer/1";
/// Most bytes of a question: 128 tokens and what belongs to them.
pub const MAX_QUESTION: usize = 40 << 10;
/// Most bytes of an answer: 128 proofs that a token was spent.
pub const MAX_ANSWER: usize = 64 << 10;
/// Bytes of a number that keeps two questions apart.
pub const NONCE: usize = 16;

/// Keeps the digest of tokens from being taken for another.
const TOKENS: &[u8] = b"potluck claimed tokens 1\0";
/// Keeps the digest of blind signatures from being taken for another.
const SIGNATURES: &[u8] = b"potluck blind signatures 1\0";

/// What an issuer is asked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Question {
    /// Which keys it signs with.
    #[codec(index = 0)]
    Catalogue,
    /// Blind signatures, for a voucher.
    #[codec(index = 1)]
    Buy(Signed<Purchase>),
    /// A voucher, for tokens.
    #[codec(index = 2)]
    Spend(Spend),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Its keys.
    #[codec(index = 0)]
    Catalogue(Signed<Catalogue>),
    /// What was bought; the same for the same purchase.
    #[codec(index = 1)]
    Sold(Sold),
    /// What came of each token.
    #[codec(index = 2)]
    Settled(Signed<Settled>),
    /// Nothing was done, and why.
    #[codec(index = 3)]
    Refused(Refusal),
}

/// A token to be signed blindly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub struct Blinded {
    /// With the key of which denomination.
    pub value: Denomination,
    /// What to sign.
    pub message: Residue,
}

/// An account buys tokens.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub struct Purchase {
    /// Of whom.
    pub issuer: Account,
    /// Who buys: the payer of the voucher.
    pub account: Account,
    /// Keeps it apart from other purchases.
    pub nonce: [u8; NONCE],
    /// With the keys of which epoch.
    pub epoch: u32,
    /// What it is paid from: worth, in all, what was bought before and this.
    pub voucher: SignedVoucher,
    /// What to sign.
    pub blinded: Bounded<Blinded, BATCH>,
}

impl Said for Purchase {
    const DOMAIN: &'static [u8] = b"potluck purchase 1\0";

    fn speaker(&self) -> Account {
        self.account
    }
}

impl Purchase {
    /// What it costs, in microcredits.
    pub fn price(&self) -> MicroCredits {
        MicroCredits(self.blinded.iter().map(|it| it.value.worth().0).sum())
    }
}

/// The issuer's word on what it has issued. Public: the totals of one epoch only rise, by one statement each.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub struct Issued {
    /// Who says so.
    pub issuer: Account,
    /// In which epoch.
    pub epoch: u32,
    /// Counts the statements of the epoch, from 1.
    pub sequence: u64,
    /// When.
    pub at: UnixMillis,
    /// What was issued in the epoch, this included, in microcredits.
    pub total: MicroCredits,
    /// What was issued in all epochs whose tokens can still be spent.
    pub standing: MicroCredits,
    /// Names the purchase.
    pub purchase: Hash,
    /// Names the blind signatures.
    pub signatures: Hash,
}

impl Said for Issued {
    const DOMAIN: &'static [u8] = b"potluck issued 1\0";

    fn speaker(&self) -> Account {
        self.issuer
    }
}

/// The digest of tokens, in this order.
pub fn tokens_digest(tokens: &[Token]) -> Hash {
    tokens.using_encoded(|bytes| blake2_256(&[TOKENS, bytes]))
}

/// The digest of blind signatures, in this order.
pub fn signatures_digest(signatures: &[Residue]) -> Hash {
    signatures.using_encoded(|bytes| blake2_256(&[SIGNATURES, bytes]))
}

/// Blind signatures, and the issuer's word that they count.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub struct Sold {
    /// The word.
    pub issued: Signed<Issued>,
    /// One for each blinded token, in the same order.
    pub signatures: Bounded<Residue, BATCH>,
}

/// A payee's word that it was given certain tokens and wants them paid.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub struct Claim {
    /// By whom they are to be paid.
    pub issuer: Account,
    /// Who was given them.
    pub payee: Account,
    /// Keeps it apart from other claims.
    pub nonce: [u8; NONCE],
    /// How many there are.
    pub count: u32,
    /// The Merkle root over their names.
    pub root: Hash,
    /// The digest of the tokens, signatures included: whoever claims a bad one cannot show a good one later.
    pub tokens: Hash,
}

impl Said for Claim {
    const DOMAIN: &'static [u8] = b"potluck claim 1\0";

    fn speaker(&self) -> Account {
        self.payee
    }
}

/// A claim and its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub struct Spend {
    /// The claim.
    pub claim: Signed<Claim>,
    /// The tokens.
    pub tokens: Bounded<Token, BATCH>,
}

impl Spend {
    /// The names of the tokens.
    pub fn names(&self) -> Vec<Hash> {
        self.tokens.iter().map(Token::name).collect()
    }

    /// Whether the claim is signed and of these tokens.
    pub fn is_sound(&self, genesis: &Genesis) -> bool {
        let claim = &self.claim.said;
        !self.tokens.is_empty()
            && usize::try_from(claim.count).is_ok_and(|count| count == self.tokens.len())
            && claim.root == merkle_root(&self.names())
            && claim.tokens == tokens_digest(&self.tokens)
            && self.claim.verify(genesis).is_ok()
    }
}

/// That a token was spent: the claim it was spent by, and that it was in it. Anybody can check it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub struct Proof {
    /// The earlier claim.
    pub claim: Signed<Claim>,
    /// The token's place in it.
    pub path: MerkleProof,
}

impl Proof {
    /// Whether it shows that the token of this name was claimed of this issuer by another claim than `claim`.
    pub fn holds(&self, name: &Hash, issuer: &Account, claim: &Hash, genesis: &Genesis) -> bool {
        let said = &self.claim.said;
        said.issuer == *issuer
            && said.digest(genesis) != *claim
            && self.path.leaf_count == said.count
            && self.path.verify(name, &said.root)
            && self.claim.verify(genesis).is_ok()
    }
}

/// What came of a token.
#[allow(clippy::large_enum_variant, reason = "a proof is as frequent as cheating")]
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub enum Outcome {
    /// It had not been spent.
    #[codec(index = 0)]
    Fresh,
    /// It had been spent by another claim.
    #[codec(index = 1)]
    Spent(Proof),
    /// It is no money.
    #[codec(index = 2)]
    Flawed(Flaw),
}

/// The issuer's answer to a claim.
///
/// A claim is taken whole or not at all: only if all of its tokens are fresh are they spent now, and paid by a voucher.
/// Otherwise nothing has happened, and the payee can claim the fresh ones by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen)]
pub struct Settled {
    /// Who says so.
    pub issuer: Account,
    /// The digest of the claim.
    pub claim: Hash,
    /// When.
    pub at: UnixMillis,
    /// What came of each token, in the order of the claim.
    pub outcomes: Bounded<Outcome, BATCH>,
    /// What pays the payee for these tokens and for all before them.
    pub voucher: Option<SignedVoucher>,
}

impl Said for Settled {
    const DOMAIN: &'static [u8] = b"potluck settled 1\0";

    fn speaker(&self) -> Account {
        self.issuer
    }
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, MaxEncodedLen, thiserror::Error)]
pub enum Refusal {
    /// The question cannot be understood.
    #[error("it does not understand the question: update potluck")]
    #[codec(index = 0)]
    Malformed,
    /// A signature is missing, or not of whom it should be of.
    #[error("the question is not signed by the account that it speaks for")]
    #[codec(index = 1)]
    Unsigned,
    /// It is meant for another issuer.
    #[error("the question is for another issuer")]
    #[codec(index = 2)]
    NotMine,
    /// Tokens of that epoch are not sold now.
    #[error("tokens of epoch {0} are not sold now: ask for the catalogue again")]
    #[codec(index = 3)]
    Closed(u32),
    /// The voucher does not cover it.
    #[error("the voucher does not cover it: {0} credits of it were used up before")]
    #[codec(index = 4)]
    Unpaid(MicroCredits),
    /// The voucher was not taken.
    #[error(
        "the voucher was not taken: it must be of the buyer, covered by its escrow, and last long enough"
    )]
    #[codec(index = 5)]
    Voucher,
    /// It may not issue more.
    #[error("it has issued as much as its bond allows: try another issuer, or later")]
    #[codec(index = 6)]
    Bond,
    /// It cannot now.
    #[error("it cannot do it now, try again later; what was claimed stays claimed by the one who claimed it")]
    #[codec(index = 7)]
    Later,
}

/// Writes a frame and flushes it.
///
/// # Errors
/// [`FrameError`]
pub(crate) async fn write<T: Encode, S: AsyncWrite + Unpin>(
    stream: &mut S,
    message: &T,
    cap: usize,
) -> Result<(), FrameError> {
    let payload = message.encode();
    let too_long = FrameError::TooLong { length: payload.len(), cap };
    let Some(length) = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= cap) else {
        return Err(too_long);
    };
    stream.write_all(&[&length.to_be_bytes(), payload.as_slice()].concat()).await?;
    Ok(stream.flush().await?)
}

/// Reads a frame that must be there; nothing may follow its message.
///
/// # Errors
/// [`FrameError`]
pub(crate) async fn read<T: Decode, S: AsyncRead + Unpin>(
    stream: &mut S,
    cap: usize,
) -> Result<T, FrameError> {
    let bytes = frame::read_bytes(stream, cap).await?.ok_or(FrameError::Ended)?;
    decode(&bytes)
}

/// The message that `bytes` are.
///
/// # Errors
/// [`FrameError::Malformed`]
pub(crate) fn decode<T: Decode>(mut bytes: &[u8]) -> Result<T, FrameError> {
    let message = T::decode(&mut bytes).map_err(|error| FrameError::Malformed(error.to_string()))?;
    if bytes.is_empty() { Ok(message) } else { Err(FrameError::Malformed("bytes follow the message".into())) }
}
