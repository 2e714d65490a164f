//! Load reports: what the members' machines have, and how busy they are.
//!
//! Every machine that may serve pushes a signed report to each member that may use it, over one long stream:
//! `/potluck/load/1`. A report is short-lived, and its age is counted by the receiver's own clock from its arrival,
//! so clocks that differ by hours do no harm. What a report says is a claim: [`super::health`] knows what was seen.

mod exchange;
mod report;

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

pub use exchange::{Exchange, ExchangeConfig};
pub use report::{MAX_REPORT, ModelLoad, Report, ReportError, SignedReport};

use super::provider::BoxFuture;
use crate::identity::NodeId;

/// The protocol's name.
pub const PROTOCOL: &str = "/potluck/load/1";

/// How long a report holds when its sender claims that it holds longer.
pub const MAX_VALID: Duration = Duration::from_secs(10);

/// What this machine has to offer. The node's engines stand behind it.
pub trait LoadSource: Send + Sync + Debug {
    /// Every model that can be asked for, and how busy each is now. Called often: it must be cheap.
    fn now(&self) -> BoxFuture<'_, Vec<ModelLoad>>;
}

/// The last report of each member.
#[derive(Debug, Default)]
pub struct LoadTable {
    rows: Mutex<HashMap<NodeId, Row>>,
}

#[derive(Debug)]
struct Row {
    report: Arc<Report>,
    arrived: Instant,
    until: Instant,
}

impl LoadTable {
    fn rows(&self) -> MutexGuard<'_, HashMap<NodeId, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a report that was checked. It holds from now on for as long as it says, at most [`MAX_VALID`].
    pub fn put(&self, peer: NodeId, report: Report, now: Instant) {
        let valid = Duration::from_millis(report.valid_ms.into()).min(MAX_VALID);
        self.rows().insert(peer, Row { report: Arc::new(report), arrived: now, until: now + valid });
    }

    /// Forgets a machine.
    pub fn forget(&self, peer: NodeId) {
        self.rows().remove(&peer);
    }

    /// The report of a machine that still holds, and its age.
    pub fn get(&self, peer: NodeId, now: Instant) -> Option<(Arc<Report>, Duration)> {
        let rows = self.rows();
        let row = rows.get(&peer).filter(|row| now < row.until)?;
        Some((row.report.clone(), now.saturating_duration_since(row.arrived)))
    }
}

#[cfg(test)]
mod tests;
