//! Files that members copy from this machine.
//!
//! Who asks is known from the connection; whether they may is asked of the pool, for every block. Copies are the least
//! important thing a node does: so many streams and no more, and as long as an answer is being computed here, so many
//! bytes a second for all of them together.

mod pace;
mod quota;
mod session;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::Serialize;
use tokio::{sync::watch, task::JoinSet};

use super::{BlobId, Kind, Occupied, Timers, may, source::BlobSource};
use crate::{
    identity::NodeId,
    mesh::streams::{Inbound, Incoming},
    pool::trusted::Membership,
};
use pace::Pace;
use quota::Quota;

/// How much copying a machine allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeConfig {
    /// Streams of all members at the same time. Each may hold two blocks of a megabyte.
    pub streams: usize,
    /// Streams of one member at the same time.
    pub streams_per_member: usize,
    /// Bytes a second for all members together; `None`: as fast as it goes.
    pub rate: Option<u64>,
    /// Bytes a second for all members together while an answer is being computed here.
    pub rate_occupied: u64,
    /// The clocks.
    pub timers: Timers,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            streams: 16,
            streams_per_member: 4,
            rate: None,
            rate_occupied: 16 << 20,
            timers: Timers::default(),
        }
    }
}

/// What is copied from, and whom the server asks.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The files, the first source that has one first.
    pub sources: Vec<Arc<dyn BlobSource>>,
    /// Who may ask.
    pub membership: Arc<dyn Membership>,
    /// Whether there is something better to do.
    pub occupied: Arc<dyn Occupied>,
}

/// What was given to members since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlobCounters {
    /// Blocks that were sent.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Questions that were refused.
    pub refused: u64,
    /// Streams that ended because the member was revoked or left.
    pub revoked: u64,
    /// Streams that did not keep to the protocol.
    pub nonsense: u64,
}

#[derive(Debug, Default)]
struct Cells {
    blocks: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    revoked: AtomicU64,
    nonsense: AtomicU64,
}

struct Shared {
    config: ServeConfig,
    serving: Serving,
    quota: Arc<Quota>,
    pace: Pace,
    cells: Cells,
    stop: watch::Sender<bool>,
}

/// Gives members what they may copy. Cloning it is cheap.
#[derive(Clone)]
pub struct BlobServer {
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
}

impl fmt::Debug for BlobServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobServer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl BlobServer {
    /// Starts to answer what comes in. Must be called within a tokio runtime.
    pub fn bind(config: ServeConfig, serving: Serving, incoming: Incoming) -> Self {
        let pace = Pace::new(config.rate, config.rate_occupied, Arc::clone(&serving.occupied));
        let shared = Arc::new(Shared {
            config,
            serving,
            quota: Arc::new(Quota::new(config)),
            pace,
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
    pub fn counters(&self) -> BlobCounters {
        let cells = &self.shared.cells;
        BlobCounters {
            blocks: cells.blocks.load(Relaxed),
            bytes: cells.bytes.load(Relaxed),
            refused: cells.refused.load(Relaxed),
            revoked: cells.revoked.load(Relaxed),
            nonsense: cells.nonsense.load(Relaxed),
        }
    }

    /// Streams that are open now.
    pub fn streams(&self) -> usize {
        self.shared.quota.open()
    }

    /// Ends all streams, telling the asking sides, and takes no more.
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
        tracing::debug!(%peer, "a stream for files from no member");
        return;
    }
    match shared.quota.enter(peer) {
        Some(slot) => {
            let shared = shared.clone();
            sessions.spawn(async move { session::run(shared, peer, stream, slot).await });
        }
        None => tracing::debug!(%peer, "more streams for files than can even be refused"),
    }
}

impl Shared {
    /// Whether a member may copy a file now.
    fn allows(&self, peer: NodeId, kind: Kind, name: &str) -> bool {
        let membership = &self.serving.membership;
        match (membership.grants(membership.me()), membership.grants(peer)) {
            (Some(ours), Some(theirs)) => may(&ours, &theirs, kind, name),
            _ => false,
        }
    }

    /// Whether a member may copy anything of a kind at all.
    fn grants_any(&self, peer: NodeId, kind: Kind) -> bool {
        if kind == Kind::Policy {
            return self.allows(peer, kind, "");
        }
        let membership = &self.serving.membership;
        let ours = membership.grants(membership.me()).is_some_and(|ours| ours.serve);
        ours && membership.grants(peer).is_some_and(|theirs| theirs.fetch.is_some())
    }

    /// The file that a member means by its id: one that it may copy, under whatever name.
    async fn named(&self, peer: NodeId, kind: Kind, id: BlobId) -> Option<super::Item> {
        for source in &self.serving.sources {
            let items = source.list(kind).await;
            let item =
                items.into_iter().find(|item| item.id == Some(id) && self.allows(peer, kind, &item.name));
            if item.is_some() {
                return item;
            }
        }
        None
    }
}
