//! The public network: a swarm of strangers, separate from the trusted mesh.
//!
//! [`PublicNet`] runs one actor that owns a libp2p swarm of its own key; a [`NetHandle`] opens and takes streams on
//! it, as the mesh's does. Peers are found by Kademlia and heard by gossip. Everybody may connect, so everything is
//! bounded: by peer, and by the part of the internet that a peer is in ([`Prefix`]), since keys cost nothing and
//! addresses in many places do.
//!
//! A requester binds with a key made for the occasion and nothing to listen on: it is a client of the network, and
//! no one's neighbour.
//!
//! # Limits
//!
//! | What | Limit | Beyond it |
//! |---|---|---|
//! | connections, of all / from others / with one peer | [`Limits::connections`] / [`Limits::inbound`] / [`Limits::per_peer`] | refused |
//! | connections from one prefix (/24, /48) | [`Limits::per_prefix`] | refused |
//! | handshakes at once, of all / of one IP address | [`limits::PENDING_INBOUND`] / [`limits::PENDING_PER_IP`] | refused |
//! | peers of one prefix in the routing table | [`Limits::table_per_prefix`] | left out |
//! | bytes of a message | [`MESSAGE_BYTES`] | refused |
//! | messages a peer, a prefix, a source sends | [`gossip`] | dropped; who goes on is banned for [`gossip::BAN`] |
//! | provider records, of all / of a key / a minute from one prefix | [`RECORDS`] / 20 / [`RECORDS_PER_MINUTE`] | dropped |
//! | an idle connection | [`IDLE`] | closed |
//! | remembered peers | as in the mesh's address book | the least useful are forgotten |
//!
//! [`limits::PENDING_INBOUND`]: crate::mesh::limits::PENDING_INBOUND
//! [`limits::PENDING_PER_IP`]: crate::mesh::limits::PENDING_PER_IP

mod actor;
mod brake;
pub mod gossip;
mod handle;
mod prefix;
mod rooms;
#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use libp2p::Multiaddr;
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub use handle::{Heard, NetHandle};
pub use prefix::Prefix;

use crate::{
    identity::NodeId,
    mesh::{MeshError, peer},
};
use actor::Actor;

/// The topic on which providers publish their offers.
pub const TOPIC: &str = "potluck/offers/1";
/// The most bytes of a message on it.
pub const MESSAGE_BYTES: usize = 4_096;
/// Provider records that this node keeps for others, in keys.
pub const RECORDS: usize = 8_192;
/// Provider records taken in a minute from one prefix, after a first few.
pub const RECORDS_PER_MINUTE: u32 = 60;
/// How long a provider record holds; it is published again after a third of that.
pub const RECORD_LIFE: Duration = Duration::from_secs(1_800);
/// A connection that is of no use to anybody is closed after this.
pub const IDLE: Duration = Duration::from_secs(30);
/// The longest a question to the network takes.
pub const QUERY: Duration = Duration::from_secs(20);

/// The caps of the public network on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: u32,
    /// Of these, such as others made. Fewer, so that they cannot keep this node from connecting itself.
    pub inbound: u32,
    /// Connections at once with one peer.
    pub per_peer: u32,
    /// Connections at once that others made from one [`Prefix`].
    pub per_prefix: usize,
    /// Peers of one prefix in the routing table.
    pub table_per_prefix: usize,
    /// Peers below which further ones are looked for.
    pub peers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 512, inbound: 384, per_peer: 4, per_prefix: 16, table_per_prefix: 8, peers: 6 }
    }
}

/// How a node takes part in the public network.
#[derive(Clone)]
pub struct Config {
    /// The seed of the key under which others see this node.
    pub seed: Zeroizing<[u8; 32]>,
    /// Where to listen, QUIC and TCP alike; none: others cannot connect. Port 0: any free one.
    pub listen: Vec<SocketAddr>,
    /// Further addresses to tell others, such as a forwarded port or a name.
    pub announce: Vec<Multiaddr>,
    /// Whether others can connect to what is listened on. `None`: found out by asking others to try.
    pub reachable: Option<bool>,
    /// Where the first peers are, with or without the name of the peer at the end.
    pub bootstrap: Vec<Multiaddr>,
    /// The file of remembered peers; `None`: none are remembered.
    pub book: Option<PathBuf>,
    /// The caps.
    pub limits: Limits,
}

impl Config {
    /// A node under a key that listens nowhere, knows nobody and remembers nothing.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            seed: Zeroizing::new(seed),
            listen: Vec::new(),
            announce: Vec::new(),
            reachable: None,
            bootstrap: Vec::new(),
            book: None,
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("announce", &self.announce)
            .field("reachable", &self.reachable)
            .field("bootstrap", &self.bootstrap)
            .field("book", &self.book)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Why something cannot be done on the public network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The key cannot be used.
    #[error("the key cannot be used for the public network: {0}")]
    Key(String),
    /// No address can be listened on.
    #[error(
        "the public network cannot listen on {address}: {reason}; choose another port or stop whatever has it"
    )]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// A message longer than [`MESSAGE_BYTES`].
    #[error("a message of {0} bytes, where at most {MESSAGE_BYTES} are allowed")]
    TooLong(usize),
    /// Nobody is there to hear it.
    #[error("no peer is connected that would pass it on; try again once there is one")]
    Alone,
    /// The network did not take it.
    #[error("not published: {0}")]
    Refused(String),
    /// The network has ended.
    #[error("the public network is shutting down")]
    Closed,
}

impl From<MeshError> for NetError {
    fn from(error: MeshError) -> Self {
        match error {
            MeshError::Key(reason) => Self::Key(reason),
            MeshError::Listen { address, reason } => Self::Listen { address, reason },
        }
    }
}

/// The public network, running.
#[derive(Debug)]
pub struct PublicNet {
    handle: NetHandle,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl PublicNet {
    /// Joins the network; returns once it listens.
    ///
    /// # Errors
    /// [`NetError::Key`] or [`NetError::Listen`].
    pub async fn bind(config: Config) -> Result<Self, NetError> {
        let key = peer::keypair(*config.seed).ok_or_else(|| NetError::Key("its seed is no key".into()))?;
        let stop = CancellationToken::new();
        let (mut actor, handle) = Actor::new(&key, config, stop.clone())?;
        actor.listen().await?;
        let task = Mutex::new(Some(tokio::spawn(actor.run())));
        Ok(Self { handle, stop, task })
    }

    /// This node, under the key of this network.
    pub fn me(&self) -> NodeId {
        self.handle.me()
    }

    /// A handle on the network.
    pub fn handle(&self) -> NetHandle {
        self.handle.clone()
    }

    /// Waits until the network has ended.
    pub async fn join(&self) {
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }

    /// Closes all connections and ends the network.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.join().await;
    }
}

impl Drop for PublicNet {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
