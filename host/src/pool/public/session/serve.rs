//! Jobs that strangers ask of this machine.
//!
//! Who asks is not known and not asked. What is known is the relay, the price, and what the contributor allows:
//! [`guard`](crate::pool::public::guard) says whether a job may run at all, and ends it when the owner needs the
//! machine. A job runs on this machine's own engine and is never passed on. Nothing of what is asked or answered is
//! logged or written down.

mod job;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use potluck_primitives::MicroCredits;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{Till, Timers};
use crate::{
    dispatch::provider::BoxFuture,
    identity::Signer,
    job::{Job, JobError, Reply},
    mesh::streams::{Inbound, Incoming, Stream},
    pool::public::{guard::Guard, meter::Rates, receipts::ReceiptBook},
};

/// Requests that arrive at the same time: each may take 4 MiB.
const ARRIVING: usize = 8;

/// What computes.
pub trait Engine: Send + Sync + fmt::Debug {
    /// How many tokens the job's prompt has.
    ///
    /// # Errors
    /// A refusal.
    fn count(&self, job: Job) -> BoxFuture<'_, Result<u64, JobError>>;

    /// Starts a job.
    ///
    /// # Errors
    /// A refusal; what goes wrong later comes through the reply.
    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>>;
}

/// What is for sale.
pub trait Goods: Send + Sync + fmt::Debug {
    /// What a model was offered for, of the offers that still hold: the least dear that `limit` covers. `None`: the
    /// model is not offered, or not for so little.
    fn rates(&self, model: &str, limit: Rates) -> Option<Rates>;
}

/// Takes the seal off a stream that a relay opened.
pub trait Unseal: Send + Sync + fmt::Debug {
    /// The stream inside.
    ///
    /// # Errors
    /// In words.
    fn unseal(&self, stream: Stream) -> BoxFuture<'_, Result<Stream, String>>;
}

/// What a machine serves strangers with.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Signs receipts.
    pub signer: Signer,
    /// Computes.
    pub engine: Arc<dyn Engine>,
    /// What is for sale.
    pub goods: Arc<dyn Goods>,
    /// Takes the payments.
    pub till: Arc<dyn Till>,
    /// What the contributor allows.
    pub guard: Guard,
    /// Keeps the receipts.
    pub receipts: Arc<ReceiptBook>,
    /// Takes seals off.
    pub seals: Arc<dyn Unseal>,
}

/// What was done for strangers since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Jobs that were answered to the end.
    pub completed: u64,
    /// Jobs that were refused.
    pub refused: u64,
    /// Jobs whose requester went away.
    pub cancelled: u64,
    /// Jobs ended because they were not paid.
    pub unpaid: u64,
    /// Jobs ended because the owner needs the machine.
    pub yielded: u64,
    /// Jobs that failed here.
    pub failed: u64,
    /// Streams that did not keep to the protocol.
    pub nonsense: u64,
    /// Micro-credits that the issuer confirmed.
    pub earned: u64,
}

#[derive(Debug, Default)]
struct Cells {
    completed: AtomicU64,
    refused: AtomicU64,
    cancelled: AtomicU64,
    unpaid: AtomicU64,
    yielded: AtomicU64,
    failed: AtomicU64,
    nonsense: AtomicU64,
    earned: AtomicU64,
}

struct Shared {
    serving: Serving,
    timers: Timers,
    arriving: Semaphore,
    cells: Cells,
    stop: watch::Sender<bool>,
}

/// Answers jobs of strangers. Cloning it is cheap.
#[derive(Clone)]
pub struct PublicServer {
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
}

impl fmt::Debug for PublicServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicServer").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl PublicServer {
    /// Starts to answer what comes in. Must be called within a tokio runtime.
    pub fn bind(timers: Timers, serving: Serving, incoming: Incoming) -> Self {
        let shared = Arc::new(Shared {
            serving,
            timers,
            arriving: Semaphore::new(ARRIVING),
            cells: Cells::default(),
            stop: watch::channel(false).0,
        });
        let (end, ended) = watch::channel(false);
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            accept(accepting, incoming).await;
            end.send_replace(true);
        });
        Self { shared, ended }
    }

    /// What was done since start.
    pub fn counters(&self) -> Counters {
        let cells = &self.shared.cells;
        Counters {
            completed: cells.completed.load(Relaxed),
            refused: cells.refused.load(Relaxed),
            cancelled: cells.cancelled.load(Relaxed),
            unpaid: cells.unpaid.load(Relaxed),
            yielded: cells.yielded.load(Relaxed),
            failed: cells.failed.load(Relaxed),
            nonsense: cells.nonsense.load(Relaxed),
            earned: cells.earned.load(Relaxed),
        }
    }

    /// Takes no more jobs, tells the requesters of running ones, and waits until all have ended.
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

/// A stream gets its session, unless there are too many: more are not even read.
fn admit(shared: &Arc<Shared>, inbound: Inbound, sessions: &mut JoinSet<()>) {
    let Inbound { peer, stream } = inbound;
    let Some(place) = shared.serving.guard.enter(peer) else {
        tracing::debug!(relay = %peer, "a stream for a public job finds no place");
        return;
    };
    let shared = Arc::clone(shared);
    sessions.spawn(async move { job::run(shared, stream, place).await });
}

impl Shared {
    fn earned(&self, amount: MicroCredits) {
        self.cells.earned.fetch_add(u64::try_from(amount.0).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Engine for crate::inference::Inference {
    fn count(&self, job: Job) -> BoxFuture<'_, Result<u64, JobError>> {
        Box::pin(Self::count(self, job))
    }

    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>> {
        Box::pin(Self::submit_vouched(self, job))
    }
}
