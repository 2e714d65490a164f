//! What a member may read and write: projects, from the grants of its certificate.

use std::{collections::BTreeSet, fmt};

use super::super::record::{Millis, NodeId};
pub use crate::pool::trusted::{Admitted, Grants, Membership, MemoryGrant, Scope};

/// Who wrote: what a machine may write, or might while it was a member.
pub trait Authors: Send + Sync + fmt::Debug {
    /// `None` for a machine that never was a member.
    fn author(&self, origin: NodeId) -> Option<Author>;
}

/// The rights of a machine as an author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// What it may write, or might.
    pub writes: Reach,
    /// Until when its entries count, by their own stamps, once it is not a member any more.
    pub until: Option<Millis>,
}

/// Projects that somebody may read, or write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All, and what is in none.
    All,
    /// Those named.
    Projects(BTreeSet<String>),
}

impl Default for Reach {
    fn default() -> Self {
        Self::Projects(BTreeSet::new())
    }
}

impl Reach {
    /// What these grants let one read.
    pub fn reads(grants: &[MemoryGrant]) -> Self {
        Self::of(grants.iter().filter(|grant| grant.read))
    }

    /// What these grants let one write.
    pub fn writes(grants: &[MemoryGrant]) -> Self {
        Self::of(grants.iter().filter(|grant| grant.write))
    }

    fn of<'a>(grants: impl Iterator<Item = &'a MemoryGrant>) -> Self {
        let projects: Option<BTreeSet<String>> = grants.map(|grant| grant.project.clone()).collect();
        projects.map_or(Self::All, Self::Projects)
    }

    /// Whether a project is within it; `None` is what is in no project.
    pub fn covers(&self, project: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Projects(names) => project.is_some_and(|name| names.contains(name)),
        }
    }

    /// Whether it is nothing at all.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Projects(names) if names.is_empty())
    }

    /// What is within both.
    pub fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, reach) | (reach, Self::All) => reach.clone(),
            (Self::Projects(a), Self::Projects(b)) => Self::Projects(a.intersection(b).cloned().collect()),
        }
    }
}
