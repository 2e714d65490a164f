//! Which policies a pool has approved.

use std::{cmp::Reverse, collections::BTreeMap};

use super::super::{
    clock::Millis,
    papers::{Motion, Vote},
};
use crate::identity::NodeId;

/// A motion and its votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// What is voted on.
    pub motion: Motion,
    /// Who is for it, the earliest vote first; the pool's root where its owner decides.
    pub yes: Vec<NodeId>,
    /// Who is against it.
    pub no: Vec<NodeId>,
    /// When the first vote was cast, in milliseconds since the Unix epoch.
    pub proposed: Millis,
    /// The words of the first vote that has any.
    pub note: String,
    /// Whether enough are for it.
    pub approved: bool,
}

/// Counts the votes that `counts` lets through; motions without any are left out. The newest activation comes first.
pub(super) fn count(
    votes: &[(&Vote, NodeId)],
    quorum: Option<u32>,
    counts: impl Fn(&Vote, NodeId) -> bool,
) -> Vec<Ballot> {
    let mut motions: BTreeMap<Motion, Vec<(&Vote, NodeId)>> = BTreeMap::new();
    for (vote, author) in votes {
        if counts(vote, *author) {
            motions.entry(vote.motion).or_default().push((vote, *author));
        }
    }
    let needed = usize::try_from(quorum.unwrap_or(1)).unwrap_or(usize::MAX);
    let mut ballots: Vec<Ballot> =
        motions.into_iter().map(|(motion, votes)| ballot(motion, votes, needed)).collect();
    ballots.sort_by_key(|ballot| Reverse((ballot.motion.from, ballot.motion)));
    ballots
}

fn ballot(motion: Motion, mut votes: Vec<(&Vote, NodeId)>, needed: usize) -> Ballot {
    votes.sort_by_key(|(vote, author)| (vote.at, *author));
    let side = |yes: bool| votes.iter().filter(move |(vote, _)| vote.yes == yes).map(|(_, author)| *author);
    let (yes, no): (Vec<NodeId>, Vec<NodeId>) = (side(true).collect(), side(false).collect());
    let note = votes.iter().map(|(vote, _)| &vote.note).find(|note| !note.is_empty());
    Ballot {
        motion,
        approved: yes.len() >= needed,
        proposed: votes.first().map_or(0, |(vote, _)| vote.at),
        note: note.cloned().unwrap_or_default(),
        yes,
        no,
    }
}
