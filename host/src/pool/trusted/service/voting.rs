//! What members decide about policies.

use serde::Serialize;

use super::super::{
    clock::Millis,
    papers::{Motion, Paper, Statement, Vote},
    roster::Ballot,
};
use super::{PoolError, actor::Actor};
use crate::identity::{Digest, NodeId};

/// A member, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Voter {
    /// The machine; the pool's root where its owner decides.
    pub id: NodeId,
    /// Its name.
    pub name: String,
}

/// A motion about a policy and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BallotRow {
    /// What names the motion.
    pub id: Digest,
    /// The motion.
    #[serde(skip)]
    pub motion: Motion,
    /// Who is for it, the earliest vote first.
    pub yes: Vec<Voter>,
    /// Who is against it.
    pub no: Vec<Voter>,
    /// How many must be for it.
    pub needed: u32,
    /// When the first vote was cast, in milliseconds since the Unix epoch.
    pub proposed: Millis,
    /// What was said about it.
    pub note: String,
    /// Whether enough are for it.
    pub approved: bool,
}

impl Actor {
    /// The motions of the pool, the newest activation first.
    pub(super) fn ballots(&self) -> Result<Vec<BallotRow>, PoolError> {
        let view = &self.home.as_ref().ok_or(PoolError::NoPool)?.view;
        let name = |node: &NodeId| Voter { id: *node, name: view.name_of(*node) };
        let row = |ballot: &Ballot| BallotRow {
            id: ballot.motion.id(),
            motion: ballot.motion,
            yes: ballot.yes.iter().map(name).collect(),
            no: ballot.no.iter().map(name).collect(),
            needed: view.quorum.unwrap_or(1),
            proposed: ballot.proposed,
            note: ballot.note.clone(),
            approved: ballot.approved,
        };
        Ok(view.ballots.iter().map(row).collect())
    }

    /// Votes as this machine, or as the pool's owner where the owner decides. On disk, and on its way to the other
    /// members, when this returns.
    pub(super) async fn vote(
        &mut self,
        motion: Motion,
        yes: bool,
        note: String,
    ) -> Result<BallotRow, PoolError> {
        let (now, me) = (self.now(), self.me());
        let home = self.home.as_mut().ok_or(PoolError::NoPool)?;
        if home.view.revoked.contains_key(&me) {
            return Err(PoolError::Revoked { reason: None });
        }
        let signer = match (home.view.quorum, &home.root) {
            (Some(_), _) => &self.signer,
            (None, Some(root)) => &root.signer,
            (None, None) => return Err(PoolError::NotOwner),
        };
        let author = signer.node();
        // Later than an earlier vote of the same author, whatever the clock did since.
        let earlier = home.roster.papers().filter_map(|paper| match paper.statement() {
            Statement::Vote(it) if it.motion == motion && paper.author() == author => {
                Some(it.at.saturating_add(1))
            }
            _ => None,
        });
        let at = earlier.max().unwrap_or(now).max(now);
        let vote = Vote { pool: home.roster.pool(), motion, yes, at, note };
        let paper = Paper::sign(Statement::Vote(vote), signer)?;
        let (fresh, refused) = home.record(vec![paper], None, now).await?;
        refused.into_iter().next().map_or(Ok(()), Err)?;
        self.push(&fresh, None);
        self.settle().await;
        let id = motion.id();
        let row = self.ballots()?.into_iter().find(|row| row.id == id);
        row.ok_or_else(|| PoolError::Unknown { what: "motion", wanted: id.to_string() })
    }
}
