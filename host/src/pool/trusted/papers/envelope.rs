//! The envelope of a statement: who signed which bytes.

use minicbor::{Decode, Encode};

use super::super::clock::{Millis, spoken};
use super::{Kind, MAX_PAPER, PoolId, Statement};
use crate::{
    identity::{Digest, NodeId, Signature, Signer},
    mesh::frame,
};

/// Keeps a signature of a paper from being taken for one of anything else.
const DOMAIN: &[u8] = b"potluck pool paper 1\0";
/// The version of statements that this program writes, and the newest it reads.
const VERSION: u8 = 1;
/// What the envelope adds to a statement, in bytes, at most.
const ENVELOPE: usize = 112;

/// A signed statement as it travels and as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Sealed {
    /// Who signed.
    #[n(0)]
    pub author: NodeId,
    /// The signature.
    #[n(1)]
    pub signature: Signature,
    /// What was signed: a version byte, then CBOR.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub statement: Vec<u8>,
}

/// A paper whose signature and fields were found good. Whether its author may say so is for the roster to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paper {
    sealed: Sealed,
    digest: Digest,
    statement: Statement,
}

/// Why a paper is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaperError {
    /// Too many bytes.
    #[error("a paper of {length} bytes, where at most {MAX_PAPER} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Not a paper.
    #[error("bytes that are no paper: {0}")]
    Malformed(String),
    /// Of a newer program.
    #[error("a paper of version {found}, which this program does not know: update potluck on this machine")]
    Version {
        /// The version.
        found: u8,
    },
    /// Of another pool.
    #[error("a paper of another pool ({found})")]
    OtherPool {
        /// The pool that it names.
        found: PoolId,
    },
    /// The signature is not its author's.
    #[error("a forged paper: {author} did not sign it")]
    Forged {
        /// Who should have signed it.
        author: NodeId,
    },
    /// Its author may not say so.
    #[error("a {kind} by {author}, who may not issue it in this pool")]
    Unauthorised {
        /// What it is.
        kind: Kind,
        /// Who signed it.
        author: NodeId,
    },
    /// A field has a value that it cannot have.
    #[error("a paper whose {field} {reason}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Made in the future.
    #[error(
        "a {kind} dated {} in the future: the clock of this machine or of {author} is wrong; set it (for instance \
         with NTP)",
        spoken(*ahead)
    )]
    Early {
        /// What it is.
        kind: Kind,
        /// Who signed it.
        author: NodeId,
        /// How far it lies ahead, in milliseconds.
        ahead: Millis,
    },
    /// So long expired that it counts for nothing.
    #[error("a {kind} that expired {} ago", spoken(*since))]
    Expired {
        /// What it is.
        kind: Kind,
        /// How long ago, in milliseconds.
        since: Millis,
    },
    /// There is no room for more.
    #[error("this pool has as many papers of the kind {kind} as it can hold ({most})")]
    Full {
        /// What it is.
        kind: Kind,
        /// The most.
        most: usize,
    },
}

impl Paper {
    /// Signs `statement`.
    ///
    /// # Errors
    /// [`PaperError::Field`] or [`PaperError::TooLong`] for a statement that others would refuse.
    pub fn sign(statement: Statement, signer: &Signer) -> Result<Self, PaperError> {
        statement.check()?;
        let mut bytes = vec![VERSION];
        minicbor::encode(&statement, &mut bytes).map_err(|error| PaperError::Malformed(error.to_string()))?;
        capped(&bytes)?;
        let author = signer.node();
        let signature = signer.sign(&signed(author, &bytes));
        let sealed = Sealed { author, signature, statement: bytes };
        Ok(Self { digest: digest(&sealed), sealed, statement })
    }

    /// Reads what another machine signed, for the pool `pool`.
    ///
    /// # Errors
    /// [`PaperError`] of the first thing found wrong; the signature is checked last, being the most costly.
    pub fn open(sealed: Sealed, pool: PoolId) -> Result<Self, PaperError> {
        capped(&sealed.statement)?;
        let (version, body) =
            sealed.statement.split_first().ok_or(PaperError::Malformed("no bytes".into()))?;
        if *version != VERSION {
            return Err(PaperError::Version { found: *version });
        }
        let statement: Statement =
            frame::decode(body).map_err(|error| PaperError::Malformed(error.to_string()))?;
        if statement.pool() != pool {
            return Err(PaperError::OtherPool { found: statement.pool() });
        }
        statement.check()?;
        if !sealed.author.signed(&signed(sealed.author, &sealed.statement), sealed.signature) {
            return Err(PaperError::Forged { author: sealed.author });
        }
        Ok(Self { digest: digest(&sealed), sealed, statement })
    }

    /// What names it: the hash of its author and its statement.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Who signed it.
    pub fn author(&self) -> NodeId {
        self.sealed.author
    }

    /// What it says.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The bytes as they were signed.
    pub fn sealed(&self) -> &Sealed {
        &self.sealed
    }
}

fn capped(statement: &[u8]) -> Result<(), PaperError> {
    let length = statement.len().saturating_add(ENVELOPE);
    if length > MAX_PAPER { Err(PaperError::TooLong { length }) } else { Ok(()) }
}

/// The bytes under a signature.
fn signed(author: NodeId, statement: &[u8]) -> Vec<u8> {
    [DOMAIN, &author.0, statement].concat()
}

/// Leaves the signature out: a signer can make many for one statement, and they all say the same.
fn digest(sealed: &Sealed) -> Digest {
    Digest::of(&signed(sealed.author, &sealed.statement))
}
