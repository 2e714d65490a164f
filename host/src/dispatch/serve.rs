//! Jobs that members ask of this machine.
//!
//! Who asks is known from the connection; whether they may is asked of the pool, for every job. A job runs on this
//! machine and is never passed on. When the asking side goes away, is revoked, or says nothing any more, its job is
//! cancelled.

mod quota;
mod session;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{load::LoadSource, provider::SharedProvider};
use crate::{
    identity::NodeId,
    job::{JobError, Mode},
    mesh::{
        protocol::job::{Timers, receipts::Receipts},
        streams::{Inbound, Incoming},
    },
    pool::trusted::{Grants, Membership},
};
use quota::{Quota, Slot};

/// How a machine answers members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeConfig {
    /// Jobs of all members at the same time.
    pub jobs: usize,
    /// Jobs of one member at the same time.
    pub jobs_per_member: usize,
    /// Requests that arrive at the same time: each may take 16 MiB.
    pub arriving: usize,
    /// Jobs of one member per minute when its grants name no number.
    pub rate: u32,
    /// The clocks.
    pub timers: Timers,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self { jobs: 32, jobs_per_member: 8, arriving: 8, rate: 600, timers: Timers::default() }
    }
}

/// What a machine answers with, and whom it asks.
#[derive(Clone, Debug)]
pub struct Serving {
    /// What this machine calls itself.
    pub node: String,
    /// Answers jobs on this machine.
    pub provider: SharedProvider,
    /// What is loaded.
    pub load: Arc<dyn LoadSource>,
    /// Who may ask.
    pub membership: Arc<dyn Membership>,
    /// The ledger.
    pub receipts: Arc<dyn Receipts>,
}

/// What was done for members since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ServedCounters {
    /// Jobs that were answered to the end.
    pub completed: u64,
    /// Jobs that were refused.
    pub refused: u64,
    /// Jobs whose asking side went away.
    pub cancelled: u64,
    /// Jobs cancelled because the member was revoked or left.
    pub revoked: u64,
    /// Jobs that failed here.
    pub failed: u64,
    /// Streams that did not keep to the protocol.
    pub nonsense: u64,
}

#[derive(Debug, Default)]
struct Cells {
    completed: AtomicU64,
    refused: AtomicU64,
    cancelled: AtomicU64,
    revoked: AtomicU64,
    failed: AtomicU64,
    nonsense: AtomicU64,
}

struct Shared {
    config: ServeConfig,
    serving: Serving,
    quota: Arc<Quota>,
    arriving: Semaphore,
    cells: Cells,
    stop: watch::Sender<bool>,
}

/// Answers jobs of members. Cloning it is cheap.
#[derive(Clone)]
pub struct JobServer {
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
}

impl fmt::Debug for JobServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobServer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl JobServer {
    /// Starts to answer what comes in. Must be called within a tokio runtime.
    pub fn bind(config: ServeConfig, serving: Serving, incoming: Incoming) -> Self {
        let shared = Arc::new(Shared {
            config,
            serving,
            quota: Arc::new(Quota::new(config)),
            arriving: Semaphore::new(config.arriving.max(1)),
            cells: Cells::default(),
            stop: watch::channel(false).0,
        });
        let (end, ended) = watch::channel(false);
        let accepting = shared.clone();
        tokio::spawn(async move {
            accept(accepting, incoming).await;
            end.send_replace(true);
        });
        Self { shared, ended }
    }

    /// What was done since start.
    pub fn counters(&self) -> ServedCounters {
        let cells = &self.shared.cells;
        ServedCounters {
            completed: cells.completed.load(Relaxed),
            refused: cells.refused.load(Relaxed),
            cancelled: cells.cancelled.load(Relaxed),
            revoked: cells.revoked.load(Relaxed),
            failed: cells.failed.load(Relaxed),
            nonsense: cells.nonsense.load(Relaxed),
        }
    }

    /// Jobs of members that run now.
    pub fn running(&self) -> usize {
        self.shared.quota.running()
    }

    /// Takes no more jobs, tells the asking sides of running ones, and waits until all have ended.
    pub async fn shutdown(&self) {
        self.shared.stop.send_replace(true);
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

async fn accept(shared: Arc<Shared>, mut incoming: Incoming) {
    let mut stop = shared.stop.subscribe();
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
            inbound = incoming.recv() => match inbound {
                Some(inbound) => admit(&shared, inbound, &mut sessions),
                None => break,
            },
        }
    }
    // They see the stop themselves.
    while sessions.join_next().await.is_some() {}
}

/// A stream of a member gets its session; anybody else's is dropped without a word.
fn admit(shared: &Arc<Shared>, inbound: Inbound, sessions: &mut JoinSet<()>) {
    let Inbound { peer, stream } = inbound;
    if shared.serving.membership.grants(peer).is_none() {
        tracing::debug!(%peer, "a stream for jobs from no member");
        return;
    }
    // More streams than this are not even read.
    match shared.quota.open(peer) {
        Some(slot) => {
            let shared = shared.clone();
            sessions.spawn(async move { session::run(shared, peer, stream, slot).await });
        }
        None => tracing::warn!(%peer, "more streams for jobs than a member may have"),
    }
}

impl Shared {
    /// What the pool says to a job of this member.
    ///
    /// # Errors
    /// The refusal.
    fn allow(&self, peer: NodeId, model: &str) -> Result<Grants, JobError> {
        let no = |reason: &str| JobError::ModeUnavailable { mode: Mode::Trusted, reason: reason.into() };
        let membership = &self.serving.membership;
        let theirs = membership.grants(peer).ok_or_else(|| no("the asking machine is no member"))?;
        let ours = membership.grants(membership.me());
        let ours = ours.filter(|ours| ours.serve).ok_or_else(|| no("this machine serves nobody"))?;
        if !theirs.uses {
            return Err(no("the asking machine may not have its jobs answered by others"));
        }
        if !theirs.models.covers(model) || !ours.models.covers(model) {
            // The same words as for a model that is not there: what is here is nobody's business.
            return Err(JobError::ModelNotFound { model: model.into() });
        }
        self.serving.receipts.allows(peer).map_err(|reason| no(&reason))?;
        Ok(theirs)
    }
}

/// The time until a member may ask again.
fn busy(slot: &Slot, retry_after: Duration) -> JobError {
    JobError::Busy { queued: slot.running(), retry_after }
}
