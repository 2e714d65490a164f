//! The roster: the papers of a pool, and what follows from them.
//!
//! The set is a lattice. A paper has a slot (what it is about, and who signed it) and a rank; of two papers in one
//! slot the higher rank stays. Merging two sets in any order, any number of times, gives the same set. Because the
//! author is part of the slot, nobody's paper can push out another's: what an issuer signed before it was revoked
//! does no lasting harm. Papers so long expired that they decide nothing any more are dropped, and refused when
//! they come again.
//!
//! [`View`] is a function of the set and the time alone: machines with the same papers agree on who is a member,
//! under which name, and which of too many users of an invite loses.

mod admit;
mod slot;
#[cfg(test)]
mod tests;
mod view;
mod votes;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use admit::clocks;
pub use admit::{Admission, JoinRefusal};
use slot::Slot;
pub use view::{Member, OpenInvite, Standing, View};
pub use votes::Ballot;

use super::{
    clock::{DAY, Millis, SKEW},
    papers::{Kind, MAX_LIFE, Paper, PaperError, PoolId, Sealed, Statement},
};
use crate::identity::{Digest, NodeId};

/// Most members at a time.
pub const MAX_MEMBERS: usize = 512;
/// Most papers of a kind.
pub const MAX_KIND: usize = 2_048;
/// How long an expired certificate can still be renewed without a new invite: 90 days.
pub const LAPSE: Millis = 90 * DAY;
/// How long an expired invite is kept: longer than anything that came of it can be renewed.
const INVITE_KEPT: Millis = LAPSE + MAX_LIFE + 30 * DAY;

/// The papers of one pool.
#[derive(Clone, Debug)]
pub struct Roster {
    pool: PoolId,
    papers: BTreeMap<Slot, Paper>,
    counts: BTreeMap<Kind, usize>,
}

impl Roster {
    /// No papers.
    pub fn new(pool: PoolId) -> Self {
        Self { pool, papers: BTreeMap::new(), counts: BTreeMap::new() }
    }

    /// The pool.
    pub fn pool(&self) -> PoolId {
        self.pool
    }

    /// How many papers there are.
    pub fn len(&self) -> usize {
        self.papers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.papers.is_empty()
    }

    /// The papers; those that others depend on come first.
    pub fn papers(&self) -> impl Iterator<Item = &Paper> {
        self.papers.values()
    }

    /// What names the papers, sorted.
    pub fn digests(&self) -> BTreeSet<Digest> {
        self.papers.values().map(Paper::digest).collect()
    }

    /// What names the whole set: equal on two machines if their papers are.
    pub fn digest(&self) -> Digest {
        let mut bytes = b"potluck roster 1\0".to_vec();
        bytes.extend(self.digests().iter().flat_map(|digest| digest.0));
        Digest::of(&bytes)
    }

    /// Papers that are not among `known`; those that others depend on come first.
    pub fn lacking(&self, known: &BTreeSet<Digest>) -> Vec<Sealed> {
        let lacking = self.papers.values().filter(|paper| !known.contains(&paper.digest()));
        lacking.map(|paper| paper.sealed().clone()).collect()
    }

    /// Reads and takes in a paper of another machine. `Ok(None)` if it is known, or outranked by what is.
    ///
    /// # Errors
    /// [`PaperError`] when it is not one of this pool, or says what its author may not say.
    pub fn receive(&mut self, sealed: Sealed, now: Millis) -> Result<Option<Paper>, PaperError> {
        let paper = Paper::open(sealed, self.pool)?;
        Ok(self.insert(paper.clone(), now)?.then_some(paper))
    }

    /// Takes in a paper. `false` if it is known, or outranked by what is.
    ///
    /// # Errors
    /// [`PaperError`] when its author may not say so, its time is wrong, or there is no room.
    pub fn insert(&mut self, paper: Paper, now: Millis) -> Result<bool, PaperError> {
        self.check(&paper, now)?;
        let slot = Slot::of(&paper);
        match self.papers.get(&slot) {
            Some(held) if slot::rank(held) >= slot::rank(&paper) => return Ok(false),
            Some(_) => {}
            None => {
                let kind = paper.statement().kind();
                let count = self.counts.entry(kind).or_default();
                if *count >= MAX_KIND {
                    return Err(PaperError::Full { kind, most: MAX_KIND });
                }
                *count += 1;
            }
        }
        self.papers.insert(slot, paper);
        Ok(true)
    }

    /// Takes in all of another set's papers, and says what was refused.
    pub fn merge(&mut self, other: &Self, now: Millis) -> Vec<PaperError> {
        let inserted = other.papers.values().map(|paper| self.insert(paper.clone(), now));
        inserted.filter_map(Result::err).collect()
    }

    /// Whether a paper could be taken in.
    fn check(&self, paper: &Paper, now: Millis) -> Result<(), PaperError> {
        let (kind, author) = (paper.statement().kind(), paper.author());
        if !self.may_say(paper) {
            return Err(PaperError::Unauthorised { kind, author });
        }
        let ahead = paper.statement().at().saturating_sub(now);
        if ahead > SKEW {
            return Err(PaperError::Early { kind, author, ahead });
        }
        match dead_since(paper.statement(), now) {
            Some(since) => Err(PaperError::Expired { kind, since }),
            None => Ok(()),
        }
    }

    /// Whether the author of a paper may say what it says. Once true it stays so: what a revoked issuer signed is
    /// left out by the view, not here, so that the order in which papers arrive does not matter.
    fn may_say(&self, paper: &Paper) -> bool {
        let (author, root) = (paper.author(), self.pool.0);
        match paper.statement() {
            Statement::Pool(_) | Statement::Delegation(_) => author == root,
            Statement::Invite(it) if it.grants.admin => author == root,
            Statement::Invite(_) | Statement::Certificate(_) | Statement::Revocation(_) => {
                self.issued(author)
            }
            Statement::Rename(it) => (author == it.node || self.issued(author)) && self.certified(it.node),
            Statement::Leave(it) => author == it.node && self.certified(author),
            Statement::Vote(_) => author == root || self.certified(author),
            Statement::Discovery(_) => false,
        }
    }

    /// Whether `node` is the root, or was ever let issue papers.
    pub(super) fn issued(&self, node: NodeId) -> bool {
        node == self.pool.0 || self.papers.contains_key(&Slot::delegation(self.pool, node))
    }

    /// Whether `node` has a certificate, of whatever worth.
    fn certified(&self, node: NodeId) -> bool {
        let (from, to) = Slot::certificates(node);
        self.papers.range(from..=to).next().is_some()
    }

    /// Drops papers that decide nothing any more. Says how many.
    pub fn prune(&mut self, now: Millis) -> usize {
        let before = self.papers.len();
        self.papers.retain(|_, paper| dead_since(paper.statement(), now).is_none());
        // Second, because what a member said of itself goes with its certificates.
        let certified: BTreeSet<NodeId> = self
            .papers
            .values()
            .filter_map(|paper| match paper.statement() {
                Statement::Certificate(it) => Some(it.node),
                _ => None,
            })
            .collect();
        let root = self.pool.0;
        self.papers.retain(|_, paper| match paper.statement() {
            Statement::Leave(it) => certified.contains(&it.node),
            Statement::Rename(it) => certified.contains(&it.node),
            Statement::Vote(_) => paper.author() == root || certified.contains(&paper.author()),
            _ => true,
        });
        self.counts.clear();
        for paper in self.papers.values() {
            *self.counts.entry(paper.statement().kind()).or_default() += 1;
        }
        before.saturating_sub(self.papers.len())
    }
}

/// How long ago a statement ceased to decide anything, if it has.
fn dead_since(statement: &Statement, now: Millis) -> Option<Millis> {
    let end = match statement {
        Statement::Certificate(it) => it.expires.saturating_add(LAPSE),
        Statement::Invite(it) => it.expires.saturating_add(INVITE_KEPT),
        _ => return None,
    };
    (end < now).then(|| now.saturating_sub(end))
}
