//! The relay: carries cells between a requester and a provider that must not know each other.
//!
//! A requester opens a stream of [`RELAY`] and sends frames of [`frame::FRAME`] bytes: one byte that says for whom
//! the rest is, then [`CELL`](super::cell::CELL) bytes. The first frame names the provider and pays a toll; the
//! relay opens a stream of [`SEALED`](super::seal::SEALED) with the provider and copies whole cells both ways. It sees
//! who asks and who answers, how many cells go when, and nothing of what is in them.
//!
//! # Limits
//!
//! | What | Limit | Beyond it |
//! |---|---|---|
//! | circuits, of all / of one peer | [`Limits::circuits`] / [`Limits::per_peer`] | refused: [`Reason::Full`], [`Reason::Busy`] |
//! | first frame, and the stream with the provider | [`Limits::opening`] | closed, refused: [`Reason::Unreachable`] |
//! | cells of a circuit | what its tolls pay for, [`CREDIT`] more upward | stopped; after [`Limits::unpaid`] closed: [`Reason::Unpaid`] |
//! | cells a second, of all / of one circuit | [`Limits::rate`] / [`Limits::circuit_rate`] | wait |
//! | silence on a circuit | [`Limits::idle`] | closed: [`Reason::Idle`] |
//! | bytes of a toll, tolls under way | [`frame::TOLL_BYTES`], [`TOLLS`] | closed: [`Reason::Malformed`] |

mod dial;
mod frame;
mod pump;
#[cfg(test)]
mod tests;
mod toll;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub use dial::{Account, Circuit, RelayError, dial};
pub use frame::{FRAME, Reason, TOLL_BYTES};
pub use toll::{Budget, Gratis, Tolls};

use crate::{
    identity::NodeId,
    mesh::streams::{Inbound, Incoming, Streams},
};
use toll::Bucket;

/// The protocol between a requester and a relay.
pub const RELAY: &str = "/potluck/relay/1";
/// The cells that one token pays for, unless a relay says otherwise: 4 MiB.
pub const TOKEN_CELLS: u64 = 4_096;
/// Cells that a requester may send beyond what it paid for: those under way while a toll is.
pub const CREDIT: u64 = 256;
/// Tolls of one circuit that may be under way at once.
pub const TOLLS: usize = 4;

/// The caps of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Circuits at once.
    pub circuits: usize,
    /// Circuits at once of one requester.
    pub per_peer: usize,
    /// The longest the first frame, the stream with the provider and the toll may take, each.
    pub opening: Duration,
    /// How long a circuit whose toll is used up waits for the next.
    pub unpaid: Duration,
    /// How long a circuit may be silent.
    pub idle: Duration,
    /// Cells a second through this relay.
    pub rate: u32,
    /// Cells a second through one circuit.
    pub circuit_rate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            circuits: 256,
            per_peer: 8,
            opening: Duration::from_secs(10),
            unpaid: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            // 16 MiB and 4 MiB a second.
            rate: 16_384,
            circuit_rate: 4_096,
        }
    }
}

/// What a relay has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Circuits that stand now.
    pub open: u64,
    /// Circuits opened.
    pub opened: u64,
    /// Circuits refused.
    pub refused: u64,
    /// Circuits closed because their toll was used up.
    pub unpaid: u64,
    /// Cells carried, both ways together.
    pub cells: u64,
}

/// What all circuits of a relay share.
struct Room {
    streams: Arc<dyn Streams>,
    tolls: Arc<dyn Tolls>,
    limits: Limits,
    bucket: Bucket,
    open: Mutex<HashMap<NodeId, usize>>,
    opened: AtomicU64,
    refused: AtomicU64,
    unpaid: AtomicU64,
    cells: AtomicU64,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more circuit of `peer`.
    fn admit(self: &Arc<Self>, peer: NodeId) -> Result<Place, Reason> {
        let mut open = self.lock();
        if open.values().sum::<usize>() >= self.limits.circuits {
            return Err(Reason::Full);
        }
        let count = open.entry(peer).or_default();
        if *count >= self.limits.per_peer {
            return Err(Reason::Busy);
        }
        *count += 1;
        Ok(Place { room: Arc::clone(self), peer })
    }
}

/// A place among the circuits, given back when dropped.
struct Place {
    room: Arc<Room>,
    peer: NodeId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.room.lock();
        if let Some(count) = open.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// A running relay.
pub struct Relay {
    room: Arc<Room>,
    stop: CancellationToken,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Relay {
    /// Relays for whoever opens a stream of [`RELAY`], which `incoming` must be of; `streams` opens those with
    /// providers.
    pub fn bind(
        streams: Arc<dyn Streams>,
        incoming: Incoming,
        tolls: Arc<dyn Tolls>,
        limits: Limits,
    ) -> Self {
        let room = Arc::new(Room {
            streams,
            tolls,
            bucket: Bucket::new(limits.rate),
            limits,
            open: Mutex::default(),
            opened: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unpaid: AtomicU64::new(0),
            cells: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(Arc::clone(&room), incoming, stop.clone()));
        Self { room, stop, task: tokio::sync::Mutex::new(Some(task)) }
    }

    /// What it has done.
    pub fn counters(&self) -> Counters {
        let open = self.room.lock().values().sum::<usize>();
        Counters {
            open: u64::try_from(open).unwrap_or(u64::MAX),
            opened: self.room.opened.load(Ordering::Relaxed),
            refused: self.room.refused.load(Ordering::Relaxed),
            unpaid: self.room.unpaid.load(Ordering::Relaxed),
            cells: self.room.cells.load(Ordering::Relaxed),
        }
    }

    /// Waits until the relay has ended.
    pub async fn join(&self) {
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }

    /// Closes all circuits and ends the relay.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.join().await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

/// Takes circuits until it is stopped, or nobody can open any more.
async fn run(room: Arc<Room>, mut incoming: Incoming, stop: CancellationToken) {
    let mut circuits = JoinSet::new();
    loop {
        let Inbound { peer, stream } = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = circuits.join_next(), if !circuits.is_empty() => continue,
            inbound = incoming.recv() => match inbound {
                Some(inbound) => inbound,
                None => break,
            },
        };
        // Those not admitted are there only until they have heard so.
        if circuits.len() >= room.limits.circuits.saturating_mul(2) {
            room.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        circuits.spawn(pump::serve(Arc::clone(&room), peer, stream));
    }
    circuits.shutdown().await;
}
