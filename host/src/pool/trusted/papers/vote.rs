//! Votes about policies: which component decides for a pool, and since when.

use minicbor::{Decode, Encode};

use super::{super::clock::Millis, MAX_REASON, PaperError, PoolId, statement::printable};
use crate::identity::{Digest, NodeId};

/// What is voted on: that one component decides over one kind of question from a moment on. Nobody owns a motion:
/// who votes for it proposes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Motion {
    /// The kind of policy, as [`policy::Kind`](crate::policy::Kind) counts. A number that this program does not know
    /// is kept and passed on, and decides nothing here.
    #[n(0)]
    pub kind: u8,
    /// BLAKE2b-256 of the component's bytes; all zero: the rule that is built in.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub component: [u8; 32],
    /// From when on, in milliseconds since the Unix epoch.
    #[n(2)]
    pub from: Millis,
}

impl Motion {
    /// What names it.
    pub fn id(&self) -> Digest {
        let mut bytes = b"potluck motion 1\0".to_vec();
        bytes.push(self.kind);
        bytes.extend(self.component);
        bytes.extend(self.from.to_be_bytes());
        Digest::of(&bytes)
    }

    /// Where its votes lie.
    pub(in super::super) fn subject(&self) -> NodeId {
        NodeId(self.id().0)
    }
}

/// What a member, or the pool's root, thinks of a motion. The last vote of an author counts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Vote {
    /// The pool.
    #[n(0)]
    pub pool: PoolId,
    /// What is voted on.
    #[n(1)]
    pub motion: Motion,
    /// Whether it should be so.
    #[n(2)]
    pub yes: bool,
    /// When, by its author's clock.
    #[n(3)]
    pub at: Millis,
    /// A few words for the others, at most [`MAX_REASON`] bytes; may be empty.
    #[n(4)]
    pub note: String,
}

impl Vote {
    pub(super) fn check(&self) -> Result<(), PaperError> {
        if self.motion.from < 0 {
            return Err(PaperError::Field { field: "activation", reason: "lies before 1970".into() });
        }
        printable("note", &self.note, MAX_REASON)
    }
}
