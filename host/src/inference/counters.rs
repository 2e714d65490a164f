//! What has been done since start.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// Counts since start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Jobs that were submitted.
    pub requests: u64,
    /// Jobs that ended with an answer.
    pub completed: u64,
    /// Jobs refused because the queue was full.
    pub busy: u64,
    /// Jobs refused for another reason before they started.
    pub refused: u64,
    /// Jobs whose caller went away.
    pub cancelled: u64,
    /// Jobs that broke off with an error after they had started.
    pub failed: u64,
    /// Prompt tokens of started jobs.
    pub prompt_tokens: u64,
    /// Prompt tokens that were found in the prefix cache.
    pub cached_tokens: u64,
    /// Tokens produced.
    pub completion_tokens: u64,
    /// Steps the engines have made.
    pub steps: u64,
    /// Sequences whose cache was taken away for another and had to be computed again.
    pub preempted: u64,
    /// Models loaded.
    pub loads: u64,
    /// Jobs being answered now.
    pub active: u64,
    /// Jobs waiting now.
    pub queued: u64,
}

/// The counters' cells, shared by all engines.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub(super) requests: AtomicU64,
    pub(super) completed: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) prompt_tokens: AtomicU64,
    pub(super) cached_tokens: AtomicU64,
    pub(super) completion_tokens: AtomicU64,
    pub(super) steps: AtomicU64,
    pub(super) preempted: AtomicU64,
    pub(super) loads: AtomicU64,
}

impl Cells {
    /// A snapshot; `active` and `queued` are left at zero.
    pub(super) fn snapshot(&self) -> Counters {
        Counters {
            requests: self.requests.load(Relaxed),
            completed: self.completed.load(Relaxed),
            busy: self.busy.load(Relaxed),
            refused: self.refused.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            failed: self.failed.load(Relaxed),
            prompt_tokens: self.prompt_tokens.load(Relaxed),
            cached_tokens: self.cached_tokens.load(Relaxed),
            completion_tokens: self.completion_tokens.load(Relaxed),
            steps: self.steps.load(Relaxed),
            preempted: self.preempted.load(Relaxed),
            loads: self.loads.load(Relaxed),
            active: 0,
            queued: 0,
        }
    }
}

/// Adds to a counter.
pub(super) fn add(cell: &AtomicU64, n: usize) {
    cell.fetch_add(n as u64, Relaxed);
}
