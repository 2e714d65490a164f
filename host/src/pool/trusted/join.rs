//! `/potluck/join/1`: how a machine with an invite becomes a member.
//!
//! ```text
//! joiner                                  issuer
//!   Hello {pool, invite, nonce, now}  →
//!                                     ←   Challenge {nonce, issuer, now}
//!   Proof {node, name, signatures}    →     checks the invite, writes the certificate down
//!                                     ←   Admitted {discovery}, Papers…, End
//! ```
//!
//! Instead of any of its messages the issuer may send `Refused`. The joiner dials under the key of the invite and
//! proves the key of its machine inside: with a signature over both nonces, the pool, the invite, its name and both
//! keys, made with both keys. It believes nothing but what the pool's root, named in the invite, signed.

mod issuer;
mod joiner;
mod rate;
#[cfg(test)]
mod tests;

use std::time::Duration;

use minicbor::{Decode, Encode};

pub use issuer::{Answer, Applicant, Ended, answer, hear};
pub use joiner::{Ask, JoinError, Joined, request};
pub use rate::Bucket;

use super::{
    clock::Millis,
    papers::{InviteId, PoolId, Sealed},
    roster::JoinRefusal,
};
use crate::identity::{Digest, NodeId, Signature};

/// The protocol's name.
pub const JOIN: &str = "/potluck/join/1";
/// Most bytes of a message to the issuer.
pub const MAX_ASK: usize = 1_024;
/// Most bytes of a message to the joiner: a page of papers.
pub const MAX_ANSWER: usize = 160 << 10;
/// How long either side takes part in it at all.
pub const JOIN_TIME: Duration = Duration::from_secs(15);
/// Papers in one message.
pub(crate) const PAGE: usize = 64;
/// Most papers that a joiner takes.
const MAX_PAPERS: usize = 16_384;

/// What the joiner says.
#[derive(Debug, Clone, Encode, Decode)]
enum ToIssuer {
    /// Which invite it holds.
    #[n(0)]
    Hello {
        #[n(0)]
        pool: PoolId,
        #[n(1)]
        invite: InviteId,
        #[cbor(n(2), with = "minicbor::bytes")]
        nonce: [u8; 32],
        #[n(3)]
        now: Millis,
    },
    /// Who it is.
    #[n(1)]
    Proof {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        name: String,
        /// With the machine's key.
        #[n(2)]
        by_node: Signature,
        /// With the invite's key.
        #[n(3)]
        by_invite: Signature,
    },
}

/// What the issuer says.
#[derive(Debug, Clone, Encode, Decode)]
enum ToJoiner {
    /// What is to be signed.
    #[n(0)]
    Challenge {
        #[cbor(n(0), with = "minicbor::bytes")]
        nonce: [u8; 32],
        #[n(1)]
        issuer: NodeId,
        #[n(2)]
        now: Millis,
    },
    /// It is a member; the papers follow.
    #[n(1)]
    Admitted {
        #[n(0)]
        discovery: Option<Sealed>,
    },
    /// Some papers.
    #[n(2)]
    Papers(#[n(0)] Vec<Sealed>),
    /// That was all.
    #[n(3)]
    End,
    /// It is not admitted.
    #[n(4)]
    Refused(#[n(0)] JoinRefusal),
}

/// What both sides know before the proof.
struct Transcript<'t> {
    pool: PoolId,
    invite: InviteId,
    joiner_nonce: [u8; 32],
    issuer_nonce: [u8; 32],
    issuer: NodeId,
    node: NodeId,
    name: &'t str,
}

impl Transcript<'_> {
    /// The bytes that the joiner signs.
    fn bytes(&self) -> Vec<u8> {
        [
            b"potluck join 1\0".as_slice(),
            &self.pool.0.0,
            &self.invite.0.0,
            &self.joiner_nonce,
            &self.issuer_nonce,
            &self.issuer.0,
            &self.node.0,
            &Digest::of(self.name.as_bytes()).0,
        ]
        .concat()
    }
}
