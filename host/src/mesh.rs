//! The mesh: one encrypted network of the machines of a pool.
//!
//! [`Mesh`] runs one actor that owns a libp2p swarm; a [`MeshHandle`] opens and takes streams on it. The pool says
//! who may connect with a [`Gate`], and the mesh keeps every member connected by the best path there is: directly
//! over IPv6, directly over IPv4, through holes punched into NATs, or relayed by a member. It knows nothing of
//! what the streams carry.
//!
//! Who is not in the gate is dropped when the handshake ends, before any protocol is spoken. Whoever holds the key
//! of an open invite (a guest, see [`knock`]) may open one protocol and be relayed, and nothing else.
//!
//! # Limits
//!
//! | What | Limit | Beyond it |
//! |---|---|---|
//! | handshake | [`limits::HANDSHAKE`] | dropped |
//! | inbound handshakes at once, of all / of one IP address | [`limits::PENDING_INBOUND`] / [`limits::PENDING_PER_IP`] | refused |
//! | connections, of all / with one peer | [`limits::CONNECTIONS`] / [`limits::CONNECTIONS_PER_PEER`] | refused |
//! | streams open on a connection | [`limits::STREAMS_PER_CONNECTION`] | refused |
//! | streams being opened on a connection | [`limits::OPENING_PER_CONNECTION`] | refused |
//! | inbound streams choosing their protocol, for how long | [`limits::NEGOTIATING_PER_CONNECTION`], [`limits::NEGOTIATION`] | left waiting, dropped |
//! | inbound streams of a protocol nobody has taken yet | [`limits::INCOMING_QUEUE`] | dropped |
//! | bytes under way, of a QUIC stream / connection | [`limits::QUIC_STREAM_WINDOW`] / [`limits::QUIC_CONNECTION_WINDOW`] | the sender waits |
//! | callers that wait for a member, for how long | [`limits::WAITERS_PER_PEER`], [`limits::OPEN_PATIENCE`] | refused |
//! | silence on a connection after a question | [`limits::PULSE_PATIENCE`] or [`limits::PULSE_RTTS`] round trips | closed |
//! | the same beside a newer connection | [`limits::DOUBT`] and [`limits::QUIET_RTTS`] round trips | closed |
//! | a guest's connection without streams | [`limits::GUEST_IDLE`] | closed |
//! | members dialled at once, addresses of one | [`limits::DIALLING`], [`limits::DIAL_ADDRESSES`] | later, not at all |
//! | pause between dials of a member / a relay | [`limits::BACKOFF_FIRST`] to [`limits::BACKOFF_LAST`] / [`limits::BACKOFF_RELAY`] | |
//! | relaying: life and bytes of a circuit | [`limits::CIRCUIT_DURATION`], [`limits::CIRCUIT_BYTES`] | closed |
//! | relaying: circuits of all / of one, reservations | [`limits::CIRCUITS`] / [`limits::CIRCUITS_PER_PEER`], [`limits::RESERVATIONS_GRANTED`] | refused |
//! | address book: addresses of a node, nodes, bytes | [`limits::BOOK_ADDRESSES`], [`limits::BOOK_NODES`], [`limits::BOOK_BYTES`] | the least useful are forgotten |
//! | beacon: bytes, addresses, packets opened a second | [`limits::BEACON_BYTES`], [`limits::BEACON_ADDRESSES`], [`limits::BEACONS_PER_SECOND`] | dropped unread |
//! | beacon: clock difference | [`limits::BEACON_SKEW`] | remembered, nothing is hurried |
//! | hello: bytes | [`limits::HELLO_BYTES`] | dropped |
//! | commands and events waiting | [`limits::COMMANDS`], [`limits::EVENTS`] | the caller waits; the oldest events are lost |

pub mod frame;
pub mod limits;
pub mod protocol;
pub mod streams;

mod actor;
pub(crate) mod address;
mod beacon;
pub(crate) mod behaviour;
pub(crate) mod book;
pub(crate) mod door;
mod gatekeeper;
mod handle;
mod hello;
mod knock;
pub(crate) mod line;
mod members;
pub(crate) mod peer;
mod probe;
pub(crate) mod pulse;
pub(crate) mod roll;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::PathBuf};

use crate::identity::NodeId;
use libp2p::Multiaddr;
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use actor::Actor;
pub use handle::{Attention, Gate, Link, MeshEvent, MeshHandle, Path};
pub use knock::knock;
pub use probe::{Attempt, Outcome};

/// The port the mesh listens on, TCP and UDP, unless it is told otherwise.
pub const PORT: u16 = 7686;
/// The UDP port of the beacons, unless it is told otherwise.
pub const BEACON_PORT: u16 = 7687;

/// How a node takes part in the mesh.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen, QUIC and TCP alike. Port 0: any free one, the same for all.
    pub listen: Vec<SocketAddr>,
    /// Further addresses to tell members, such as a forwarded port or a name. With any, this node counts as
    /// publicly reachable.
    pub announce: Vec<Multiaddr>,
    /// Whether to relay for members that cannot reach each other.
    pub relay: bool,
    /// Whether to send and hear beacons on the local network.
    pub lan: bool,
    /// Whether beacons go over the loopback interface too, for several nodes on one machine.
    pub loopback: bool,
    /// The UDP port of the beacons.
    pub beacon_port: u16,
    /// Whether to punch holes into NATs.
    pub punch: bool,
    /// Whether to listen for QUIC.
    pub quic: bool,
    /// Whether to listen for TCP.
    pub tcp: bool,
    /// The file of the address book; `None`: nothing is remembered.
    pub book: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![
                SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), PORT),
                SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), PORT),
            ],
            announce: Vec::new(),
            relay: false,
            lan: true,
            loopback: false,
            beacon_port: BEACON_PORT,
            punch: true,
            quic: true,
            tcp: true,
            book: None,
        }
    }
}

/// Why the mesh does not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The key cannot be used.
    #[error("the key of this machine cannot be used for the mesh: {0}")]
    Key(String),
    /// No address can be listened on.
    #[error("the mesh cannot listen on {address}: {reason}; choose another port or stop whatever has it")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        reason: String,
    },
}

/// The running mesh.
#[derive(Debug)]
pub struct Mesh {
    handle: MeshHandle,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Mesh {
    /// Starts the mesh under the key of `seed`; returns once it listens. Nobody can connect until
    /// [`MeshHandle::set_gate`].
    ///
    /// # Errors
    /// Any [`MeshError`].
    pub async fn bind(config: Config, seed: [u8; 32]) -> Result<Self, MeshError> {
        let key = peer::keypair(seed).ok_or_else(|| MeshError::Key("its seed is no key".into()))?;
        let stop = CancellationToken::new();
        let (mut actor, handle) = Actor::new(&key, config, stop.clone())?;
        actor.listen().await?;
        let task = Mutex::new(Some(tokio::spawn(actor.run())));
        Ok(Self { handle, stop, task })
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.handle.me
    }

    /// A handle on the mesh.
    pub fn handle(&self) -> MeshHandle {
        self.handle.clone()
    }

    /// Waits until the mesh has ended.
    pub async fn join(&self) {
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }

    /// Closes all connections and ends the mesh.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.join().await;
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
