//! The last things that went wrong, named for the owner.

use std::collections::VecDeque;

use serde::Serialize;

use super::super::clock::Millis;
use crate::identity::NodeId;

/// How many are remembered.
pub const PROBLEMS: usize = 64;

/// Something that was refused or went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// When it happened last, in milliseconds since the Unix epoch.
    pub at: Millis,
    /// The machine that it came from.
    pub node: Option<NodeId>,
    /// What happened and what to do.
    pub what: String,
    /// How often.
    pub count: u32,
}

/// The last problems.
#[derive(Debug, Default)]
pub(super) struct Problems(VecDeque<Problem>);

impl Problems {
    /// Remembers a problem, and logs it the first time.
    pub(super) fn note(&mut self, at: Millis, node: Option<NodeId>, what: String) {
        let known = self.0.iter().position(|held| held.node == node && held.what == what);
        let count = known.and_then(|index| self.0.remove(index)).map_or(0, |held| held.count);
        if count == 0 {
            match node {
                Some(node) => tracing::warn!(node = %node.short(), "pool: {what}"),
                None => tracing::warn!("pool: {what}"),
            }
        }
        self.0.push_back(Problem { at, node, what, count: count.saturating_add(1) });
        if self.0.len() > PROBLEMS {
            self.0.pop_front();
        }
    }

    /// The newest first.
    pub(super) fn list(&self) -> Vec<Problem> {
        self.0.iter().rev().cloned().collect()
    }
}
