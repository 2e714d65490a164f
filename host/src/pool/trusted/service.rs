//! The trusted pool of this machine: one actor owns its papers, its conversations with other members and its root
//! key; everybody else has a [`PoolHandle`].
//!
//! A machine is in one pool at most. What it is told by others reaches the disk before anybody acts on it or hears
//! of it. Who is not admitted, that is, did not bring its papers up to date with this machine over the connection
//! that it has now, has no grants at all.

mod actor;
mod door;
mod error;
mod founding;
mod handle;
mod home;
mod issue;
mod outputs;
mod problems;
mod seen;
mod settle;
mod show;
mod talk;
mod talks;
#[cfg(test)]
mod tests;
mod voting;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

pub use error::PoolError;
pub use handle::PoolHandle;
pub use issue::{InviteOptions, Invited, Revoked};
pub use outputs::{Admitted, Membership};
pub use problems::{PROBLEMS, Problem};
pub use show::{MemberDetail, MemberRow, PoolStatus, Role, Status};
pub use voting::{BallotRow, Voter};

use super::{
    clock::{Clock, DAY, Millis, Random},
    ledger::{Ledger, Limits},
    papers::Hardness,
};
use crate::{
    identity::{NodeId, Signer},
    mesh::streams::{Incoming, Streams},
};

/// How the pool is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of its files.
    pub folder: PathBuf,
    /// How this machine is called where nobody says otherwise.
    pub name: String,
    /// How long a certificate that this machine issues holds, in milliseconds: 14 days. Held between an hour and
    /// 60 days.
    pub life: Millis,
    /// How often time is looked at: 5 s.
    pub tick: Duration,
    /// What it costs to try a passphrase of an exported root key.
    pub hardness: Hardness,
    /// How much the members may have computed here.
    pub limits: Limits,
}

impl Settings {
    /// The settings that suit everybody.
    pub fn new(folder: PathBuf, name: String) -> Self {
        Self {
            folder,
            name,
            life: 14 * DAY,
            tick: Duration::from_secs(5),
            hardness: Hardness::default(),
            limits: Limits::default(),
        }
    }
}

/// What the pool is given.
#[derive(Debug)]
pub struct Parts {
    /// The key of this machine.
    pub signer: Signer,
    /// Opens streams with other machines.
    pub streams: Arc<dyn Streams>,
    /// Streams of [`JOIN`](super::join::JOIN) that others opened.
    pub joins: Incoming,
    /// Streams of [`ROSTER`](super::exchange::ROSTER) that others opened.
    pub rosters: Incoming,
    /// Connections that come and go.
    pub events: mpsc::Receiver<PeerEvent>,
    /// Where this machine can be dialled, as multiaddr text, the best first.
    pub addresses: watch::Receiver<Arc<Vec<String>>>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness for keys.
    pub random: Arc<dyn Random>,
}

/// What happens to connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// There is a connection where there was none.
    Connected {
        /// With whom.
        node: NodeId,
        /// Which way it takes, for people.
        path: String,
    },
    /// The connection takes another way.
    PathChanged {
        /// With whom.
        node: NodeId,
        /// Which way it takes now.
        path: String,
    },
    /// The last connection ended.
    Disconnected {
        /// With whom.
        node: NodeId,
    },
}

/// Which machines may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GateView {
    /// The pool that this machine is in.
    pub pool: Option<NodeId>,
    /// They may open every protocol; each protocol asks the pool what they may do.
    pub members: BTreeSet<NodeId>,
    /// Keys of invites that are open, or ended within the last week: they may open [`JOIN`](super::join::JOIN) and nothing else.
    pub guests: BTreeSet<NodeId>,
    /// Those of the members that may carry the traffic of others.
    pub relays: BTreeSet<NodeId>,
    /// The key under which members find each other.
    pub discovery: Option<[u8; 32]>,
}

/// The pool of this machine.
#[derive(Debug)]
pub struct TrustedPool {
    handle: PoolHandle,
    task: JoinHandle<()>,
}

impl TrustedPool {
    /// Reads what is on disk and begins. Binds no port: streams come through `parts`.
    ///
    /// # Errors
    /// [`PoolError`] when a file of the pool cannot be used, or the name of this machine.
    pub async fn bind(settings: Settings, parts: Parts) -> Result<Self, PoolError> {
        let (handle, actor) = actor::Actor::open(settings, parts).await?;
        Ok(Self { handle, task: tokio::spawn(actor) })
    }

    /// What everybody else uses.
    pub fn handle(&self) -> PoolHandle {
        self.handle.clone()
    }

    /// Waits until it has ended.
    pub async fn join(self) {
        let _ = self.task.await;
    }

    /// Tells the members that this machine stops, and ends.
    pub async fn shutdown(self) {
        self.handle.stop().await;
        self.join().await;
    }
}

impl Ledger {
    /// Where the ledger of a pool lies.
    fn path(folder: &std::path::Path) -> PathBuf {
        folder.join("ledger.log")
    }
}
