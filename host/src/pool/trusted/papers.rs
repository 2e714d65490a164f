//! Papers: the signed statements that a pool consists of.
//!
//! A paper is a statement (a version byte, then CBOR), its author's key and the author's ed25519 signature over
//! a context string, the author and the exact bytes of the statement. Those bytes are kept and passed on as they
//! are: nothing is ever encoded again. Every statement names its pool, so that it means nothing in another one.
//!
//! The pool's root key signs who may issue papers (at most one step: root, issuer). Issuers sign invites,
//! certificates of membership and revocations; a member signs only that it leaves, its own name,
//! and its votes about policies.

mod address;
mod envelope;
mod export;
mod invite;
mod pack;
mod qr;
mod statement;
#[cfg(test)]
mod tests;
mod text;
mod vote;

pub use address::{MAX_ADDRESSES, Route};
pub use envelope::{Paper, PaperError, Sealed};
pub use export::{ExportError, Hardness, RootKey};
pub use invite::{Invite, InviteError, MAX_INVITE_TEXT};
pub use qr::{QrError, qr};
pub use statement::{
    Certificate, Delegation, Discovery, InviteId, InviteTerms, Kind, Leave, MAX_QUORUM, Pool, PoolId, Rename,
    Revocation, Statement, Target,
};
pub use vote::{Motion, Vote};

use super::clock::{DAY, Millis};

/// Most bytes of a paper, signature and key included.
pub const MAX_PAPER: usize = 2_048;
/// Longest reason of a revocation, in bytes.
pub const MAX_REASON: usize = 256;
/// Longest life of a certificate: 60 days.
pub const MAX_LIFE: Millis = 60 * DAY;
/// Longest life of an invite: a year.
pub const MAX_INVITE_LIFE: Millis = 366 * DAY;
/// Most uses of an invite.
pub const MAX_USES: u32 = 512;
