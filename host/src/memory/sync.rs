//! The memory of several machines as one: every entry reaches every machine that may read it, and stays signed by the
//! machine that wrote it.
//!
//! Between two machines there is one long-lived stream. Both say which entries they have, send what the other lacks, and
//! from then on every new entry as soon as it is durable. Nothing is agreed on and nothing is decided: the state of the
//! memory is the union of all entries, so order and repetition do not matter. `docs/src/protocol/memory.md` has the messages, the caps,
//! and what a hostile member can and cannot do.
//!
//! [`Sync::bind`] starts it, [`Sync::join`] waits for its end, [`Sync::shutdown`] ends it.

mod audit;
pub mod catalogue;
mod intake;
pub mod judge;
mod link;
pub mod message;
mod outbox;
mod peers;
pub mod replica;
pub mod runs;
pub mod scope;
mod session;
pub mod status;
#[cfg(test)]
pub(super) mod tests;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};

pub use catalogue::Catalogue;
pub use intake::Offence;
pub use message::PROTOCOL;
pub use replica::{Candidate, Hold, Raw, Refusal, Replica, ReplicaError, Verdict};
pub use runs::{Run, Runs};
pub use scope::{Admitted, Author, Authors, Grants, Membership, MemoryGrant, Reach, Scope};
pub use status::{Fork, HeldStatus, PeerState, PeerStatus, Status};

use self::{intake::Intake, session::Common, status::Board};
use crate::mesh::streams::{Incoming, Streams};

/// Times and sizes. The defaults are for real networks; tests use shorter ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How often both sides of a stream say what they have.
    pub repair: Duration,
    /// How often they compare sums of all they have.
    pub audit: Duration,
    /// How long a greeting may take.
    pub greeting: Duration,
    /// How long a frame may take, and how long a stream may be silent; longer than `repair`.
    pub idle: Duration,
    /// Bytes of entries on their way to a peer that it has not dealt with.
    pub window: usize,
    /// Least time between two acknowledgements.
    pub ack_pause: Duration,
    /// How often what has to wait is tried again.
    pub retry: Duration,
    /// The first pause after a stream ended or could not be opened; it doubles each time.
    pub backoff: Duration,
    /// The longest pause.
    pub backoff_most: Duration,
    /// The first pause after a peer broke the rules; it doubles each time.
    pub penalty: Duration,
    /// The longest such pause.
    pub penalty_most: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            repair: Duration::from_secs(30),
            audit: Duration::from_secs(3_600),
            greeting: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            window: 8 << 20,
            ack_pause: Duration::from_millis(5),
            retry: Duration::from_secs(1),
            backoff: Duration::from_millis(250),
            backoff_most: Duration::from_secs(30),
            penalty: Duration::from_secs(30),
            penalty_most: Duration::from_secs(600),
        }
    }
}

/// What replication works with.
#[derive(Debug)]
pub struct Parts {
    /// Opens streams.
    pub streams: Arc<dyn Streams>,
    /// Streams of [`PROTOCOL`] that others opened.
    pub incoming: Incoming,
    /// Who is a member now.
    pub membership: Arc<dyn Membership>,
    /// Who may have written what.
    pub authors: Arc<dyn Authors>,
    /// The memory.
    pub replica: Arc<dyn Replica>,
}

/// Replication at work.
#[derive(Debug)]
pub struct Sync {
    handle: SyncHandle,
    task: JoinHandle<()>,
}

/// A handle to replication. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct SyncHandle {
    common: Arc<Common>,
}

impl Sync {
    /// Starts to replicate with every member that has rights to the memory. Must be called within a tokio runtime.
    pub fn bind(parts: Parts, options: Options) -> Self {
        let Parts { streams, incoming, membership, authors, replica } = parts;
        let board = Arc::new(Board::new(replica.node()));
        let intake = Arc::new(Intake::new(Arc::clone(&replica), authors, Arc::clone(&board)));
        let common = Arc::new(Common {
            replica,
            membership,
            intake,
            board,
            options,
            near: watch::Sender::default(),
            audits: watch::Sender::default(),
            changes: watch::Sender::default(),
            stop: watch::Sender::default(),
        });
        let task = tokio::spawn(peers::Peers::new(Arc::clone(&common), streams).run(incoming));
        Self { handle: SyncHandle { common }, task }
    }

    /// A handle to it.
    pub fn handle(&self) -> SyncHandle {
        self.handle.clone()
    }

    /// Waits until it has ended.
    pub async fn join(&mut self) {
        let _ = (&mut self.task).await;
    }

    /// Says goodbye to all peers and ends.
    pub async fn shutdown(mut self) {
        self.handle.common.stop.send_replace(true);
        self.join().await;
    }
}

impl SyncHandle {
    /// How replication stands.
    pub fn status(&self) -> Status {
        let (peers, forks) = self.common.board.read();
        let held = self.common.intake.held();
        let (node, conflicts) = (self.common.replica.node(), self.common.replica.conflicts());
        Status { node, peers, conflicts, held, forks }
    }

    /// Has all peers compare all they have with ours; what comes of it shows in [`SyncHandle::status`].
    pub fn audit(&self) {
        self.common.audits.send_modify(|count| *count += 1);
    }
}
