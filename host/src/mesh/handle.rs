//! What the rest of the node sees of the mesh.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    identity::NodeId,
    mesh::streams::{BoxFuture, Incoming, OpenError, Stream, Streams},
};
use libp2p::Multiaddr;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::mesh::{actor::Command, door::Board, limits, probe::Attempt};

/// Who may connect, and what is known about them. The pool gives it to the mesh whenever it changes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Gate {
    /// May connect, and are dialled until they are connected.
    pub members: BTreeSet<NodeId>,
    /// Public keys of open invites: may connect, and open `/potluck/join/1` only.
    pub guests: BTreeSet<NodeId>,
    /// Members that relay for others.
    pub relays: BTreeSet<NodeId>,
    /// The key of the beacon on the local network; `None`: no beacon.
    pub discovery: Option<[u8; 32]>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("members", &self.members.len())
            .field("guests", &self.guests.len())
            .field("relays", &self.relays.len())
            .field("discovery", &self.discovery.is_some())
            .finish()
    }
}

/// How two nodes are connected, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Directly over IPv6.
    DirectV6,
    /// Directly over IPv4.
    DirectV4,
    /// Directly, through holes that both sides punched into their NATs at the same time.
    Punched,
    /// Through a relay, which sees who talks with whom and how much, and nothing else.
    Relayed,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DirectV6 => "direct (IPv6)",
            Self::DirectV4 => "direct (IPv4)",
            Self::Punched => "direct (hole punched)",
            Self::Relayed => "relayed",
        })
    }
}

/// The best connection with a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// How it goes.
    pub path: Path,
    /// Where the other end is, as this node sees it.
    pub address: Multiaddr,
    /// When the connection began.
    pub since: Instant,
    /// The last measured round trip.
    pub rtt: Option<Duration>,
}

/// What happens in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshEvent {
    /// A member answers: the first connection with it works.
    Connected {
        /// The member.
        node: NodeId,
        /// How.
        path: Path,
    },
    /// The last connection with a member ended.
    Disconnected {
        /// The member.
        node: NodeId,
    },
    /// New streams to a member go another way from now on.
    PathChanged {
        /// The member.
        node: NodeId,
        /// The new way.
        path: Path,
    },
    /// A node that somebody attends to ([`MeshHandle::attend`]) has not been heard of for a moment. It may be gone,
    /// or slow; if it is gone, `Disconnected` follows within seconds.
    Quiet {
        /// The member.
        node: NodeId,
    },
    /// This node can be dialled at an address.
    Listening {
        /// The address.
        address: Multiaddr,
    },
    /// A connection from outside was refused.
    Refused {
        /// Where it came from.
        address: Multiaddr,
        /// Why.
        reason: String,
    },
}

/// A handle on the mesh. Cheap to clone; all clones speak to the same actor.
#[derive(Clone)]
pub struct MeshHandle {
    pub(crate) me: NodeId,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) gate: watch::Sender<Gate>,
    pub(crate) events: broadcast::Sender<MeshEvent>,
    pub(crate) links: watch::Receiver<Arc<BTreeMap<NodeId, Link>>>,
    pub(crate) addresses: watch::Receiver<Arc<Vec<Multiaddr>>>,
    pub(crate) board: Arc<Board>,
}

impl MeshHandle {
    /// This node.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// Replaces who may connect. Connections and streams of whoever is no longer in it end at once.
    pub fn set_gate(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }

    /// Who may connect now.
    pub fn gate(&self) -> Gate {
        self.gate.borrow().clone()
    }

    /// What happens from now on. A listener that lags loses the oldest events.
    pub fn events(&self) -> broadcast::Receiver<MeshEvent> {
        self.events.subscribe()
    }

    /// The members that answer now, and how they are connected.
    pub fn connections(&self) -> watch::Receiver<Arc<BTreeMap<NodeId, Link>>> {
        self.links.clone()
    }

    /// Where this node can be dialled: announced, listening, confirmed and relayed addresses, each with this
    /// node's name at the end.
    pub fn addresses(&self) -> watch::Receiver<Arc<Vec<Multiaddr>>> {
        self.addresses.clone()
    }

    /// Remembers addresses of a node, to be tried; those that cannot be dialled are left out.
    pub fn learn(&self, node: NodeId, addresses: Vec<Multiaddr>) {
        if self.commands.try_send(Command::Learn { node, addresses }).is_err() {
            tracing::debug!(%node, "addresses not learnt: the mesh is busy or has ended");
        }
    }

    /// Closes all connections with a node. It is dialled again if it is a member: to keep it out, take it out of
    /// the gate.
    pub fn disconnect(&self, node: NodeId) {
        if self.commands.try_send(Command::Disconnect { node }).is_err() {
            tracing::debug!(%node, "not disconnected: the mesh is busy or has ended");
        }
    }

    /// The streams of `protocol` that others open from now on. The queue holds
    /// [`limits::INCOMING_QUEUE`]; a later call with the same protocol replaces an earlier one.
    pub fn bind(&self, protocol: &'static str) -> Incoming {
        self.board.bind(protocol)
    }

    /// Looks more closely whether a node lives, for as long as the answer is held: [`MeshEvent::Quiet`] comes
    /// within about a second of its falling silent. For whoever waits for something from it and could turn to
    /// another.
    pub fn attend(&self, node: NodeId) -> Attention {
        Attention(self.board.attend(node))
    }

    /// Tries every known address of a member, each on its own, and says what came of it. Takes up to
    /// [`limits::PROBE`].
    ///
    /// # Errors
    /// [`OpenError::Closed`] if the mesh has ended.
    pub async fn probe(&self, node: NodeId) -> Result<Vec<Attempt>, OpenError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Probe { node, reply }).await.map_err(|_| OpenError::Closed)?;
        answer.await.map_err(|_| OpenError::Closed)
    }

    async fn open_stream(&self, peer: NodeId, protocol: &'static str) -> Result<Stream, OpenError> {
        let opening = async {
            loop {
                let (reply, answer) = oneshot::channel();
                let command = Command::Open { peer, protocol, reply };
                self.commands.send(command).await.map_err(|_| OpenError::Closed)?;
                // Without an answer the connection broke just then: another one is made, or found.
                if let Ok(answer) = answer.await {
                    return answer;
                }
            }
        };
        let late = || OpenError::Unreachable { peer, reason: "no answer in time".into() };
        tokio::time::timeout(limits::OPEN_PATIENCE, opening).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Held by whoever attends to a node; see [`MeshHandle::attend`].
#[derive(Debug)]
pub struct Attention(Arc<AtomicUsize>);

impl Drop for Attention {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Streams for MeshHandle {
    fn open(&self, peer: NodeId, protocol: &'static str) -> BoxFuture<'_, Result<Stream, OpenError>> {
        Box::pin(self.open_stream(peer, protocol))
    }
}

impl fmt::Debug for MeshHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshHandle({})", self.me)
    }
}
