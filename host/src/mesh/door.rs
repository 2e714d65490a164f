//! The door: the behaviour through which streams are opened and taken. It lets the actor choose on which of
//! several connections a stream is opened, offers guests nothing but the protocol for joining, and counts.

mod handler;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::{
    identity::NodeId,
    mesh::streams::{Inbound, Incoming, OpenError, Stream},
};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionClosed,
    },
};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use handler::{BROKE, Handler};

use crate::mesh::{
    limits,
    line::Line,
    roll::{Role, Roll},
};

/// The protocol a guest may open.
pub(crate) const JOIN: &str = "/potluck/join/1";
/// The protocol by which both sides find out whether the connection lives.
pub(crate) const PULSE: &str = "/potluck/pulse/1";

/// Who takes the streams of which protocol.
#[derive(Default)]
pub(crate) struct Board {
    takers: Mutex<HashMap<&'static str, mpsc::Sender<Inbound>>>,
    /// The connections, whose tasks must look again when a protocol is added.
    lines: Mutex<Vec<Weak<Line>>>,
    /// How many attend to each node.
    attention: Mutex<HashMap<NodeId, Weak<AtomicUsize>>>,
    /// Counts the times that a protocol was added.
    version: watch::Sender<u64>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, mpsc::Sender<Inbound>>> {
        self.takers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bind(&self, protocol: &'static str) -> Incoming {
        let (sender, incoming) = mpsc::channel(limits::INCOMING_QUEUE);
        self.lock().insert(protocol, sender);
        for line in self.lines().iter().filter_map(Weak::upgrade) {
            line.waker.wake();
        }
        self.version.send_modify(|version| *version += 1);
        incoming
    }

    /// How many attend to a node.
    fn attention(&self, node: NodeId) -> Arc<AtomicUsize> {
        let mut all = self.attention.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, count| count.strong_count() > 0);
        if let Some(count) = all.get(&node).and_then(Weak::upgrade) {
            return count;
        }
        let count = Arc::default();
        all.insert(node, Arc::downgrade(&count));
        count
    }

    /// One more attends to a node, from now on.
    pub(crate) fn attend(&self, node: NodeId) -> Arc<AtomicUsize> {
        let count = self.attention(node);
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            for line in self.lines().iter().filter_map(Weak::upgrade).filter(|line| line.node == node) {
                line.kick.notify_one();
            }
        }
        count
    }

    /// Changes when a protocol is added.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The protocols that members are offered.
    pub(crate) fn protocols(&self) -> Vec<String> {
        self.offered(Role::Member).iter().map(ToString::to_string).collect()
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Weak<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &Arc<Line>) {
        let mut lines = self.lines();
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(line));
    }

    /// The protocols offered to a peer.
    fn offered(&self, role: Role) -> Vec<StreamProtocol> {
        let mut board = self.lock();
        board.retain(|_, sender| !sender.is_closed());
        let names = board.keys().copied().filter(|name| role != Role::Guest || *name == JOIN);
        names.map(StreamProtocol::new).collect()
    }

    /// Hands a stream to whoever takes its protocol; drops it where the queue is full or nobody does.
    fn deliver(&self, protocol: &str, peer: NodeId, stream: Stream) {
        let sender = self.lock().get(protocol).cloned();
        let delivered = sender.is_some_and(|sender| sender.try_send(Inbound { peer, stream }).is_ok());
        if !delivered {
            tracing::warn!(%peer, protocol, "stream dropped: nobody takes it, or its queue is full");
        }
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

/// A stream that somebody waits for.
pub(crate) struct Wanted {
    pub(crate) node: NodeId,
    pub(crate) protocol: &'static str,
    pub(crate) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wanted({} of {})", self.protocol, self.node)
    }
}

impl Wanted {
    pub(crate) fn unreachable(self, reason: impl Into<String>) {
        let error = OpenError::Unreachable { peer: self.node, reason: reason.into() };
        let _ = self.reply.send(Err(error));
    }
}

/// The behaviour.
pub(crate) struct Door {
    board: Arc<Board>,
    roll: Roll,
    lines: HashMap<ConnectionId, Arc<Line>>,
    queue: VecDeque<ToSwarm<(), Wanted>>,
    waker: Option<Waker>,
}

impl Door {
    pub(crate) fn new(board: Arc<Board>, roll: Roll) -> Self {
        Self { board, roll, lines: HashMap::new(), queue: VecDeque::new(), waker: None }
    }

    /// What is known of a connection.
    pub(crate) fn line(&self, id: ConnectionId) -> Option<&Arc<Line>> {
        self.lines.get(&id)
    }

    /// Opens a stream on one connection.
    pub(crate) fn open(&mut self, peer_id: PeerId, id: ConnectionId, wanted: Wanted) {
        if !self.lines.contains_key(&id) {
            return wanted.unreachable("the connection has just ended");
        }
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(id),
            event: wanted,
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Ends every stream on a connection now. The connection itself is closed by the swarm.
    pub(crate) fn cut(&self, id: ConnectionId) {
        if let Some(line) = self.lines.get(&id) {
            line.cut.cancel();
        }
    }

    fn admit(&mut self, id: ConnectionId, peer: &PeerId) -> Result<Handler, ConnectionDenied> {
        let (node, role) = self.roll.role(peer).ok_or_else(|| ConnectionDenied::new("not a member"))?;
        let line = Line::new(node, id, role, self.board.attention(node));
        self.lines.insert(id, Arc::clone(&line));
        self.board.add(&line);
        Ok(Handler::new(line, Arc::clone(&self.board)))
    }
}

impl NetworkBehaviour for Door {
    type ConnectionHandler = Handler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(id, &peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(id, &peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let gone = match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => connection_id,
            // A later behaviour may have denied what this one admitted.
            FromSwarm::ListenFailure(failure) => failure.connection_id,
            FromSwarm::DialFailure(failure) => failure.connection_id,
            _ => return,
        };
        if let Some(line) = self.lines.remove(&gone) {
            line.cut.cancel();
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.queue.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
