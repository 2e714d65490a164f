//! What the rest of the public pool sees of the network.

use std::{collections::BTreeSet, fmt, sync::Arc};

use libp2p::Multiaddr;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::{MESSAGE_BYTES, NetError, actor::Command};
use crate::{
    identity::NodeId,
    mesh::{
        door::Board,
        limits,
        streams::{BoxFuture, Incoming, OpenError, Stream, Streams},
    },
};

/// A message that somebody published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Whose key signed it.
    pub source: NodeId,
    /// What it says, at most [`MESSAGE_BYTES`].
    pub data: Arc<[u8]>,
}

/// A handle on the public network. Cheap to clone; all clones speak to the same actor.
#[derive(Clone)]
pub struct NetHandle {
    pub(super) me: NodeId,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) heard: broadcast::Sender<Heard>,
    pub(super) peers: watch::Receiver<Arc<BTreeSet<NodeId>>>,
    pub(super) addresses: watch::Receiver<Arc<[Multiaddr]>>,
    pub(super) kept: watch::Sender<Arc<BTreeSet<NodeId>>>,
    pub(super) board: Arc<Board>,
}

impl NetHandle {
    /// This node, under the key of this network.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The peers that are connected now.
    pub fn peers(&self) -> watch::Receiver<Arc<BTreeSet<NodeId>>> {
        self.peers.clone()
    }

    /// Where this node can be dialled, as far as it knows, each with its name at the end.
    pub fn addresses(&self) -> watch::Receiver<Arc<[Multiaddr]>> {
        self.addresses.clone()
    }

    /// The streams of `protocol` that others open from now on. The queue holds [`limits::INCOMING_QUEUE`]; a later
    /// call with the same protocol replaces an earlier one.
    pub fn bind(&self, protocol: &'static str) -> Incoming {
        self.board.bind(protocol)
    }

    /// Remembers addresses of a node; those that cannot be dialled are left out.
    pub fn learn(&self, node: NodeId, addresses: Vec<Multiaddr>) {
        if self.commands.try_send(Command::Learn { node, addresses }).is_err() {
            tracing::debug!(%node, "addresses not learnt: the public network is busy or has ended");
        }
    }

    /// Stays connected with these nodes, dialling them again whenever the connection breaks: a provider with the
    /// relays that its offer names, so that it needs no address of its own. Replaces those of before.
    pub fn keep(&self, nodes: BTreeSet<NodeId>) {
        self.kept.send_replace(Arc::new(nodes));
    }

    /// Says something to everybody who listens, signed with this node's key.
    ///
    /// # Errors
    /// [`NetError::TooLong`], [`NetError::Alone`], [`NetError::Refused`] or [`NetError::Closed`].
    pub async fn publish(&self, data: Vec<u8>) -> Result<(), NetError> {
        if data.len() > MESSAGE_BYTES {
            return Err(NetError::TooLong(data.len()));
        }
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Publish { data, reply }, answer).await?
    }

    /// What others publish from now on. A listener that lags loses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<Heard> {
        self.heard.subscribe()
    }

    /// Makes this node findable under a key, until [`NetHandle::withdraw`].
    ///
    /// # Errors
    /// [`NetError::Refused`] or [`NetError::Closed`].
    pub async fn provide(&self, key: [u8; 32]) -> Result<(), NetError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Provide { key, reply }, answer).await?
    }

    /// Stops publishing a key. What others know of it lasts up to [`super::RECORD_LIFE`].
    pub fn withdraw(&self, key: [u8; 32]) {
        let _ = self.commands.try_send(Command::Withdraw { key });
    }

    /// Asks the network who can be found under a key. Takes up to [`super::QUERY`].
    ///
    /// # Errors
    /// [`NetError::Closed`].
    pub async fn providers(&self, key: [u8; 32]) -> Result<Vec<NodeId>, NetError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Providers { key, reply }, answer).await
    }

    /// Who is in the routing table.
    #[cfg(test)]
    pub(super) async fn table(&self) -> Vec<NodeId> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Table { reply }, answer).await.unwrap_or_default()
    }

    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, NetError> {
        self.commands.send(command).await.map_err(|_| NetError::Closed)?;
        answer.await.map_err(|_| NetError::Closed)
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

impl Streams for NetHandle {
    fn open(&self, peer: NodeId, protocol: &'static str) -> BoxFuture<'_, Result<Stream, OpenError>> {
        Box::pin(self.open_stream(peer, protocol))
    }
}

impl fmt::Debug for NetHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetHandle({})", self.me)
    }
}
