//! What papers say.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::super::{
    clock::Millis,
    grants::{GrantError, Grants},
    names,
};
use super::{MAX_INVITE_LIFE, MAX_LIFE, MAX_REASON, MAX_USES, PaperError, Vote};
use crate::identity::{HexError, NodeId};

/// Most votes that a pool can ask for.
pub const MAX_QUORUM: u32 = 512;

/// A public key that stands for something other than a machine.
macro_rules! key_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
        )]
        #[serde(transparent)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub NodeId);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                text.parse().map(Self)
            }
        }
    };
}

key_name!(
    /// A pool: its root's public key, 32 bytes, hexadecimal as text.
    PoolId
);
key_name!(
    /// An invite: the public key that was made for it, 32 bytes, hexadecimal as text.
    InviteId
);

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Statement {
    /// There is a pool of this name.
    #[n(0)]
    Pool(#[n(0)] Pool),
    /// A machine may issue papers.
    #[n(1)]
    Delegation(#[n(0)] Delegation),
    /// Whoever holds a key may become a member.
    #[n(2)]
    Invite(#[n(0)] InviteTerms),
    /// A machine is a member.
    #[n(3)]
    Certificate(#[n(0)] Certificate),
    /// A machine or an invite counts no longer.
    #[n(4)]
    Revocation(#[n(0)] Revocation),
    /// A machine has another name.
    #[n(5)]
    Rename(#[n(0)] Rename),
    /// A member leaves.
    #[n(6)]
    Leave(#[n(0)] Leave),
    /// The key under which members find each other. Never part of a roster: it is a secret.
    #[n(7)]
    Discovery(#[n(0)] Discovery),
    /// What a member thinks of a policy.
    #[n(8)]
    Vote(#[n(0)] Vote),
}

/// What a statement is about. Papers that others depend on come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// [`Pool`].
    Pool,
    /// [`Delegation`].
    Delegation,
    /// [`Revocation`].
    Revocation,
    /// [`InviteTerms`].
    Invite,
    /// [`Certificate`].
    Certificate,
    /// [`Rename`].
    Rename,
    /// [`Leave`].
    Leave,
    /// [`Discovery`].
    Discovery,
    /// [`Vote`].
    Vote,
}

/// A pool, by its root.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Pool {
    /// Its root's public key.
    #[n(0)]
    pub pool: PoolId,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// When it was made.
    #[n(2)]
    pub created: Millis,
    /// How many members must vote for a policy; `None`: the pool's owner decides alone.
    #[n(3)]
    pub quorum: Option<u32>,
}

/// The root lets a machine issue papers, until it is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Delegation {
    /// The pool.
    #[n(0)]
    pub pool: PoolId,
    /// The machine.
    #[n(1)]
    pub node: NodeId,
    /// Since when.
    #[n(2)]
    pub issued: Millis,
}

/// The public part of an invite.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct InviteTerms {
    /// The pool.
    #[n(0)]
    pub pool: PoolId,
    /// The public key that was made for it.
    #[n(1)]
    pub invite: InviteId,
    /// What its users may do.
    #[n(2)]
    pub grants: Grants,
    /// When it was made.
    #[n(3)]
    pub issued: Millis,
    /// Until when it can be used.
    #[n(4)]
    pub expires: Millis,
    /// By how many machines.
    #[n(5)]
    pub uses: u32,
    /// The name proposed for the machine that uses it.
    #[n(6)]
    pub hint: Option<String>,
}

/// A machine is a member.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Certificate {
    /// The pool.
    #[n(0)]
    pub pool: PoolId,
    /// The machine.
    #[n(1)]
    pub node: NodeId,
    /// Its name when this was issued.
    #[n(2)]
    pub name: String,
    /// What it may do.
    #[n(3)]
    pub grants: Grants,
    /// When it became a member; kept when the certificate is renewed.
    #[n(4)]
    pub joined: Millis,
    /// When this certificate was issued.
    #[n(5)]
    pub issued: Millis,
    /// Until when it holds.
    #[n(6)]
    pub expires: Millis,
    /// Counts the certificates of the machine; the highest holds.
    #[n(7)]
    pub serial: u64,
    /// The invite that it came with; the founder has none.
    #[n(8)]
    pub invite: Option<InviteId>,
}

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Target {
    /// A machine, for good.
    #[n(0)]
    Node(#[n(0)] NodeId),
    /// An invite; who joined with it stays.
    #[n(1)]
    Invite(#[n(0)] InviteId),
}

/// Something counts no longer, for good.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Revocation {
    /// The pool.
    #[n(0)]
    pub pool: PoolId,
    /// What is revoked.
    #[n(1)]
    pub target: Target,
    /// Why, at most [`MAX_REASON`] bytes; may be empty.
    #[n(2)]
    pub reason: String,
    /// When.
    #[n(3)]
    pub at: Millis,
}

/// A machine has another name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Rename {
    /// The pool.
    #[n(0)]
    pub pool: PoolId,
    /// The machine.
    #[n(1)]
    pub node: NodeId,
    /// Its name from now on.
    #[n(2)]
    pub name: String,
    /// Since when.
    #[n(3)]
    pub at: Millis,
}

/// A member leaves.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Leave {
    /// The pool.
    #[n(0)]
    pub pool: PoolId,
    /// The machine.
    #[n(1)]
    pub node: NodeId,
    /// When.
    #[n(2)]
    pub at: Millis,
}

/// The secret under which members find each other on a local network.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Discovery {
    /// The pool.
    #[n(0)]
    pub pool: PoolId,
    /// Counts the keys; the highest holds.
    #[n(1)]
    pub epoch: u64,
    /// The key.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// Since when.
    #[n(3)]
    pub at: Millis,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("pool", &self.pool)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pool => "pool",
            Self::Delegation => "delegation",
            Self::Revocation => "revocation",
            Self::Invite => "invite",
            Self::Certificate => "certificate",
            Self::Rename => "rename",
            Self::Leave => "leave",
            Self::Discovery => "discovery",
            Self::Vote => "vote",
        })
    }
}

impl Statement {
    /// What it is about.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pool(_) => Kind::Pool,
            Self::Delegation(_) => Kind::Delegation,
            Self::Invite(_) => Kind::Invite,
            Self::Certificate(_) => Kind::Certificate,
            Self::Revocation(_) => Kind::Revocation,
            Self::Rename(_) => Kind::Rename,
            Self::Leave(_) => Kind::Leave,
            Self::Discovery(_) => Kind::Discovery,
            Self::Vote(_) => Kind::Vote,
        }
    }

    /// The pool it belongs to.
    pub fn pool(&self) -> PoolId {
        match self {
            Self::Pool(it) => it.pool,
            Self::Delegation(it) => it.pool,
            Self::Invite(it) => it.pool,
            Self::Certificate(it) => it.pool,
            Self::Revocation(it) => it.pool,
            Self::Rename(it) => it.pool,
            Self::Leave(it) => it.pool,
            Self::Discovery(it) => it.pool,
            Self::Vote(it) => it.pool,
        }
    }

    /// When it was made, by its author's clock.
    pub fn at(&self) -> Millis {
        match self {
            Self::Pool(it) => it.created,
            Self::Delegation(it) => it.issued,
            Self::Invite(it) => it.issued,
            Self::Certificate(it) => it.issued,
            Self::Revocation(it) => it.at,
            Self::Rename(it) => it.at,
            Self::Leave(it) => it.at,
            Self::Discovery(it) => it.at,
            Self::Vote(it) => it.at,
        }
    }

    /// Checks what can be checked without knowing anything else.
    pub(super) fn check(&self) -> Result<(), PaperError> {
        if self.at() < 0 {
            return Err(PaperError::Field { field: "time", reason: "lies before 1970".into() });
        }
        match self {
            Self::Pool(it) if it.quorum.is_some_and(|quorum| quorum == 0 || quorum > MAX_QUORUM) => {
                let reason = format!("is not within 1 and {MAX_QUORUM}");
                Err(PaperError::Field { field: "quorum", reason })
            }
            Self::Pool(it) => named(&it.name),
            Self::Delegation(_) | Self::Leave(_) | Self::Discovery(_) => Ok(()),
            Self::Invite(it) => it.check(),
            Self::Certificate(it) => it.check(),
            Self::Rename(it) => named(&it.name),
            Self::Revocation(it) => printable("reason", &it.reason, MAX_REASON),
            Self::Vote(it) => it.check(),
        }
    }
}

impl InviteTerms {
    fn check(&self) -> Result<(), PaperError> {
        self.grants.check()?;
        self.hint.as_deref().map_or(Ok(()), named)?;
        if self.uses == 0 || self.uses > MAX_USES {
            return Err(PaperError::Field {
                field: "uses",
                reason: format!("is not within 1 and {MAX_USES}"),
            });
        }
        life(self.issued, self.expires, MAX_INVITE_LIFE)
    }
}

impl Certificate {
    fn check(&self) -> Result<(), PaperError> {
        self.grants.check()?;
        named(&self.name)?;
        if self.joined < 0 || self.joined > self.issued {
            return Err(PaperError::Field { field: "joined", reason: "lies after the issue".into() });
        }
        life(self.issued, self.expires, MAX_LIFE)
    }
}

fn life(issued: Millis, expires: Millis, most: Millis) -> Result<(), PaperError> {
    match expires.checked_sub(issued) {
        Some(life) if life > 0 && life <= most => Ok(()),
        _ => Err(PaperError::Field { field: "expires", reason: "makes its life too long, or none".into() }),
    }
}

/// Whether a text for people is short enough and can be shown.
pub(super) fn printable(field: &'static str, text: &str, most: usize) -> Result<(), PaperError> {
    let reason = match text {
        _ if text.len() > most => format!("is longer than {most} bytes"),
        _ if text.chars().any(names::unprintable) => "cannot be printed".into(),
        _ => return Ok(()),
    };
    Err(PaperError::Field { field, reason })
}

fn named(name: &str) -> Result<(), PaperError> {
    match names::clean(name) {
        Ok(cleaned) if cleaned == name => Ok(()),
        Ok(_) => Err(PaperError::Field { field: "name", reason: "is not written the one way".into() }),
        Err(error) => Err(PaperError::Field { field: "name", reason: error.reason.into() }),
    }
}

impl From<GrantError> for PaperError {
    fn from(error: GrantError) -> Self {
        Self::Field { field: error.field, reason: error.reason }
    }
}
