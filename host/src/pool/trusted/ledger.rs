//! The ledger: who gave and took how much, as both ends of every job signed it.
//!
//! It holds this machine's own receipts and nobody else's; there is no balance and nothing to pay. A receipt counts
//! once: jobs of the last eight days are remembered by name, older receipts are refused. Sums are by member, model
//! and month (UTC).

mod countersign;
mod limits;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use countersign::{Offer, Refusal, Seen, consider, offer};
pub use limits::{LimitReached, Limits};
use parity_scale_codec::Encode;
use potluck_primitives::{MAX_RECEIPT, ReceiptError, Signed};
use serde::{Deserialize, Serialize};

use super::{
    clock::{DAY, Millis, SKEW},
    journal::{Journal, JournalError},
};
use crate::identity::NodeId;

/// How old a receipt may be: a week.
const RECENT: Millis = 7 * DAY;

/// Which way the work went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// This machine computed for the other.
    Given,
    /// The other computed for this machine.
    Taken,
}

/// A sum of receipts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How many.
    pub jobs: u64,
    /// Computing time, in microseconds.
    pub compute_micros: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
}

/// A line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The month, as in `2026-11`, UTC.
    pub month: String,
    /// The other machine.
    pub node: NodeId,
    /// Which way the work went.
    pub direction: Direction,
    /// The class of the model.
    pub model: String,
    /// How much.
    #[serde(flatten)]
    pub sum: Sum,
}

/// Why a receipt is not written down.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It is not one.
    #[error("refused {0}")]
    Receipt(#[from] ReceiptError),
    /// It is of others.
    #[error("a receipt of a job between other machines")]
    NotOurs,
    /// Too old, or in the future.
    #[error(
        "a receipt of a job that ended at another time than now ({ended} ms): check the clocks of both machines"
    )]
    Time {
        /// When the job ended, in milliseconds since the Unix epoch.
        ended: u64,
    },
    /// The file.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The writing task was stopped.
    #[error("the ledger is shutting down")]
    Closed,
}

/// The receipts of this machine, on disk, and their sums.
#[derive(Debug)]
pub struct Ledger {
    me: NodeId,
    inner: Mutex<Inner>,
    repairs: Vec<String>,
}

#[derive(Debug)]
struct Inner {
    /// `None` once the ledger is closed.
    journal: Option<Journal>,
    limits: Limits,
    sums: BTreeMap<(Month, NodeId, Direction, String), Sum>,
    /// Computing time given, in microseconds.
    given: BTreeMap<(NodeId, Month), u64>,
    /// Jobs that were counted lately, and when they ended.
    counted: BTreeMap<([u8; 32], [u8; 16]), Millis>,
    /// The latest end of a job.
    newest: Millis,
}

/// A month: the year times twelve, and the month from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Month(i64);

impl Ledger {
    /// Opens the file at `path`, creating it if need be, and sums up what is in it. Waits for the disk.
    ///
    /// # Errors
    /// [`LedgerError::Journal`].
    pub fn open(path: &Path, me: NodeId, limits: Limits, now: Millis) -> Result<Self, LedgerError> {
        let (journal, found) = Journal::open(path, MAX_RECEIPT)?;
        let mut inner = Inner {
            journal: Some(journal),
            limits,
            sums: BTreeMap::new(),
            given: BTreeMap::new(),
            counted: BTreeMap::new(),
            newest: 0,
        };
        let mut repairs = found.repairs;
        for record in &found.records {
            // Verified when it was written down, and checksummed since.
            match parity_scale_codec::Decode::decode(&mut record.as_slice()) {
                Ok(signed) => inner.count(&signed, me),
                Err(_) => {
                    repairs.push("the ledger holds a record that is no receipt; it was passed over".into())
                }
            }
        }
        inner.forget(now);
        Ok(Self { me, inner: Mutex::new(inner), repairs })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was repaired when it was opened.
    pub fn repairs(&self) -> &[String] {
        &self.repairs
    }

    /// Writes a receipt down; it is on disk when this returns. `false` if it was there already. Waits for the
    /// disk: see [`record`](Self::record).
    ///
    /// # Errors
    /// Any [`LedgerError`].
    pub fn record_now(&self, signed: &Signed, now: Millis) -> Result<bool, LedgerError> {
        signed.verify()?;
        let receipt = &signed.receipt;
        if ![receipt.provider, receipt.requester].contains(&self.me.0) {
            return Err(LedgerError::NotOurs);
        }
        let ended = millis(receipt.ended_at.0);
        let mut inner = self.lock();
        // A clock that is set back does not make old receipts new.
        if ended > now.saturating_add(SKEW) || ended < now.max(inner.newest).saturating_sub(RECENT) {
            return Err(LedgerError::Time { ended: receipt.ended_at.0 });
        }
        if inner.counted.contains_key(&(receipt.provider, receipt.job)) {
            return Ok(false);
        }
        let journal = inner.journal.as_mut().ok_or(LedgerError::Closed)?;
        journal.append(&[signed.encode()])?;
        inner.count(signed, self.me);
        inner.forget(now);
        Ok(true)
    }

    /// As [`record_now`](Self::record_now), without making other tasks wait.
    ///
    /// # Errors
    /// Any [`LedgerError`].
    pub async fn record(self: &Arc<Self>, signed: Signed, now: Millis) -> Result<bool, LedgerError> {
        let ledger = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || ledger.record_now(&signed, now)).await;
        written.map_err(|_| LedgerError::Closed)?
    }

    /// Lets go of the file. What is asked from memory is still answered.
    pub fn close(&self) {
        self.lock().journal = None;
    }

    /// All sums, the latest month first.
    pub fn rows(&self) -> Vec<LedgerRow> {
        let inner = self.lock();
        let rows = inner.sums.iter().rev().map(|((month, node, direction, model), sum)| LedgerRow {
            month: month.text(),
            node: *node,
            direction: *direction,
            model: model.clone(),
            sum: *sum,
        });
        rows.collect()
    }

    /// Sets how much members may take from this machine.
    pub fn set_limits(&self, limits: Limits) {
        self.lock().limits = limits;
    }

    /// Whether this machine still computes for `node` this month.
    ///
    /// # Errors
    /// [`LimitReached`].
    pub fn allows(&self, node: NodeId, now: Millis) -> Result<(), LimitReached> {
        let inner = self.lock();
        let month = Month::of(now);
        let used = inner.given.get(&(node, month)).copied().unwrap_or(0);
        match inner.limits.of(node) {
            Some(limit) if used >= limit => {
                Err(LimitReached { node, month: month.text(), used_micros: used, limit_micros: limit })
            }
            _ => Ok(()),
        }
    }
}

impl Inner {
    fn count(&mut self, signed: &Signed, me: NodeId) {
        let receipt = &signed.receipt;
        let (node, direction) = if receipt.provider == me.0 {
            (NodeId(receipt.requester), Direction::Given)
        } else {
            (NodeId(receipt.provider), Direction::Taken)
        };
        let ended = millis(receipt.ended_at.0);
        let month = Month::of(ended);
        let sum = self.sums.entry((month, node, direction, receipt.class.text())).or_default();
        sum.jobs = sum.jobs.saturating_add(1);
        sum.compute_micros = sum.compute_micros.saturating_add(receipt.compute.0);
        sum.prompt_tokens = sum.prompt_tokens.saturating_add(u64::from(receipt.prompt_tokens.0));
        sum.completion_tokens = sum.completion_tokens.saturating_add(u64::from(receipt.completion_tokens.0));
        if direction == Direction::Given {
            let given = self.given.entry((node, month)).or_default();
            *given = given.saturating_add(receipt.compute.0);
        }
        self.counted.insert((receipt.provider, receipt.job), ended);
        self.newest = self.newest.max(ended);
    }

    /// Forgets the names of jobs whose receipts would be refused for their age.
    fn forget(&mut self, now: Millis) {
        let horizon = now.max(self.newest).saturating_sub(RECENT + DAY);
        self.counted.retain(|_, ended| *ended >= horizon);
    }
}

impl Month {
    /// The month of a moment, UTC. After the civil calendar: years begin in March, so that leap days come last.
    pub(crate) fn of(ms: Millis) -> Self {
        let days = ms.div_euclid(DAY) + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        Self((era * 400 + year) * 12 + month + 2)
    }

    fn text(self) -> String {
        format!("{:04}-{:02}", self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }
}

fn millis(ms: u64) -> Millis {
    Millis::try_from(ms).unwrap_or(Millis::MAX)
}
