//! How much members may take from this machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::identity::NodeId;

/// Most computing time given per month, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// To each member that is not named; `None` sets no limit.
    pub everyone: Option<u64>,
    /// To these; `None` sets no limit.
    pub members: BTreeMap<NodeId, Option<u64>>,
}

/// A member took as much as it may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} was given {} of {} computing time in {month}: its owner may raise the limit, or wait for the next month",
    node.short(),
    hours(*used_micros),
    hours(*limit_micros)
)]
pub struct LimitReached {
    /// The member.
    pub node: NodeId,
    /// The month, as in `2026-11`, UTC.
    pub month: String,
    /// What it was given, in microseconds.
    pub used_micros: u64,
    /// What it may be given, in microseconds.
    pub limit_micros: u64,
}

impl Limits {
    /// A limit in hours, as microseconds.
    pub fn hours(hours: u32) -> u64 {
        u64::from(hours) * 3_600_000_000
    }

    pub(super) fn of(&self, node: NodeId) -> Option<u64> {
        self.members.get(&node).copied().unwrap_or(self.everyone)
    }
}

fn hours(micros: u64) -> String {
    let minutes = micros / 60_000_000;
    format!("{}:{:02} h", minutes / 60, minutes % 60)
}
