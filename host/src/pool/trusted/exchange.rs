//! `/potluck/roster/1`: how two members bring each other up to date, and stay so.
//!
//! One stream for as long as the two are connected. Both say `Hello` with the digest of their papers. If the
//! digests differ, both send `Have` (the names of all their papers), answer the other's with the papers that it
//! lacks, and `Done`. Who has taken in all that the other has, and still finds both to be members, says `Ready`;
//! once both have, they are admitted to each other, and everything else may be asked. New papers are pushed at
//! once; `State` repeats the digest every half minute and begins again with `Have` where they differ.

use std::time::Duration;

use minicbor::{Decode, Encode};

use super::{
    clock::Millis,
    papers::{PoolId, Sealed},
};
use crate::identity::Digest;

/// The protocol's name.
pub const ROSTER: &str = "/potluck/roster/1";
/// Most bytes of a message.
pub const MAX_MESSAGE: usize = 160 << 10;
/// Papers in one message.
pub const PAGE: usize = super::join::PAGE;
/// Names of papers in one message.
pub const HAVE: usize = 2_048;
/// Most names that a side may list.
pub const MAX_HAVE: usize = 16_384;
/// How long a side waits for the other's `Hello`.
pub const GREETING: Duration = Duration::from_secs(10);
/// How often the digest is repeated.
pub const REPEAT: Duration = Duration::from_secs(30);
/// After how long without a message the other side counts as gone.
pub const SILENCE: Duration = Duration::from_secs(75);
/// How long the other side may take to read a message.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Papers found wrong after which the other side is left alone for a while.
pub const MAX_WRONG: u32 = 16;

/// What members say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// The first message of each side.
    #[n(0)]
    Hello {
        /// The pool.
        #[n(0)]
        pool: PoolId,
        /// Names this run of the machine's program.
        #[cbor(n(1), with = "minicbor::bytes")]
        boot: [u8; 16],
        /// The sender's clock.
        #[n(2)]
        now: Millis,
        /// Names the set of its papers.
        #[n(3)]
        digest: Digest,
    },
    /// Repeated every [`REPEAT`].
    #[n(1)]
    State {
        /// The sender's clock.
        #[n(0)]
        now: Millis,
        /// Names the set of its papers.
        #[n(1)]
        digest: Digest,
    },
    /// Names of the sender's papers.
    #[n(2)]
    Have {
        /// At most [`HAVE`] of them.
        #[n(0)]
        digests: Vec<Digest>,
        /// Whether these are the last.
        #[n(1)]
        last: bool,
    },
    /// Papers that the receiver lacks; at most [`PAGE`].
    #[n(3)]
    Papers(#[n(0)] Vec<Sealed>),
    /// All that the receiver lacked was sent.
    #[n(4)]
    Done,
    /// The sender has all of the receiver's papers and admits it.
    #[n(5)]
    Ready,
    /// The key under which members find each other. Only between machines that are admitted.
    #[n(6)]
    Key(#[n(0)] Sealed),
    /// The stream ends, and why.
    #[n(7)]
    Bye(#[n(0)] Bye),
}

/// Why a side ends the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Bye {
    /// The receiver is not a member.
    #[error("this machine is not a member there")]
    #[n(0)]
    NotMember,
    /// The receiver was thrown out.
    #[error("this machine was revoked")]
    #[n(1)]
    Revoked,
    /// The receiver is in another pool.
    #[error("this machine is in another pool")]
    #[n(2)]
    OtherPool,
    /// Another machine uses the receiver's key.
    #[error(
        "another machine uses this machine's key: leave the pool on one of them, delete its node key, and let it join anew"
    )]
    #[n(3)]
    Copied,
    /// The receiver sends too much, or what it should not.
    #[error("this machine sends what it should not: update potluck")]
    #[n(4)]
    Unruly,
    /// The sender leaves the pool or stops.
    #[error("the other machine leaves")]
    #[n(5)]
    Leaving,
}
