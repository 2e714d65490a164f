//! Which papers replace which.

use super::super::{
    clock::Millis,
    papers::{Kind, Paper, PoolId, Statement, Target},
};
use crate::identity::{Digest, NodeId};

const NOBODY: NodeId = NodeId([0; 32]);
const LAST: NodeId = NodeId([255; 32]);

/// What a paper is about, and who says so: of the papers in one slot, one stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    kind: Kind,
    subject: NodeId,
    second: NodeId,
    author: NodeId,
}

impl Slot {
    pub(super) fn of(paper: &Paper) -> Self {
        let (subject, second) = match paper.statement() {
            Statement::Pool(it) => (it.pool.0, NOBODY),
            Statement::Delegation(it) => (it.node, NOBODY),
            Statement::Invite(it) => (it.invite.0, NOBODY),
            Statement::Certificate(it) => (it.node, it.invite.map_or(NOBODY, |invite| invite.0)),
            Statement::Revocation(it) => match it.target {
                Target::Node(node) => (node, NOBODY),
                Target::Invite(invite) => (invite.0, LAST),
            },
            Statement::Rename(it) => (it.node, NOBODY),
            Statement::Leave(it) => (it.node, NOBODY),
            Statement::Discovery(it) => (it.pool.0, NOBODY),
            Statement::Vote(it) => (it.motion.subject(), NOBODY),
        };
        Self { kind: paper.statement().kind(), subject, second, author: paper.author() }
    }

    /// Where the root's delegation of `node` lies.
    pub(super) fn delegation(pool: PoolId, node: NodeId) -> Self {
        Self { kind: Kind::Delegation, subject: node, second: NOBODY, author: pool.0 }
    }

    /// The first and the last slot that a certificate of `node` can lie in.
    pub(super) fn certificates(node: NodeId) -> (Self, Self) {
        let slot = |edge| Self { kind: Kind::Certificate, subject: node, second: edge, author: edge };
        (slot(NOBODY), slot(LAST))
    }
}

/// The order of papers in one slot.
pub(super) fn rank(paper: &Paper) -> (u64, Millis, Digest) {
    let serial = match paper.statement() {
        Statement::Certificate(it) => it.serial,
        Statement::Discovery(it) => it.epoch,
        _ => 0,
    };
    (serial, paper.statement().at(), paper.digest())
}
