//! The actor that owns the public swarm. Everything that changes does so here, on one task.

mod dial;
mod hear;
mod listen;
mod query;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, identify,
    identity::Keypair,
    kad,
    swarm::{ConnectionId, SwarmEvent},
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::{AbortHandle, JoinHandle},
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Heard, NetError, NetHandle, Prefix, RECORDS_PER_MINUTE,
    gossip::{Accounts, Rate, Sieve},
    rooms::{self, KAD, Rooms, RoomsEvent},
};
use crate::{
    identity::NodeId,
    mesh::{
        address,
        book::{self, Book},
        door::{Board, PULSE, Wanted},
        limits, peer,
        pulse::{self, Beat},
        streams::{OpenError, Stream},
    },
};
use dial::Pause;
use query::Query;

/// What handles ask of the actor.
pub(super) enum Command {
    Open {
        peer: NodeId,
        protocol: &'static str,
        reply: oneshot::Sender<Result<Stream, OpenError>>,
    },
    Learn {
        node: NodeId,
        addresses: Vec<Multiaddr>,
    },
    Publish {
        data: Vec<u8>,
        reply: oneshot::Sender<Result<(), NetError>>,
    },
    Provide {
        key: [u8; 32],
        reply: oneshot::Sender<Result<(), NetError>>,
    },
    Withdraw {
        key: [u8; 32],
    },
    Providers {
        key: [u8; 32],
        reply: oneshot::Sender<Vec<NodeId>>,
    },
    #[cfg(test)]
    Table {
        reply: oneshot::Sender<Vec<NodeId>>,
    },
}

/// A connection.
struct Connection {
    node: NodeId,
    peer: PeerId,
    /// Where the other end is.
    address: Multiaddr,
    /// Whether this node made it.
    dialled: bool,
    since: Instant,
    /// The pulse on it, where it is to be kept.
    pulse: Option<AbortHandle>,
}

/// The actor.
pub(super) struct Actor {
    me: NodeId,
    config: Config,
    swarm: Swarm<Rooms>,
    commands: mpsc::Receiver<Command>,
    beats: (mpsc::Sender<Beat>, mpsc::Receiver<Beat>),
    heard: broadcast::Sender<Heard>,
    peers: watch::Sender<Arc<BTreeSet<NodeId>>>,
    addresses: watch::Sender<Arc<[Multiaddr]>>,
    kept: watch::Receiver<Arc<BTreeSet<NodeId>>>,
    listening: BTreeSet<Multiaddr>,
    book: Book,
    book_at: Option<Instant>,
    writing: Option<JoinHandle<()>>,
    connections: HashMap<ConnectionId, Connection>,
    /// Streams that wait for a connection.
    waiting: HashMap<NodeId, Vec<Wanted>>,
    /// Nodes whose addresses the network was asked for on behalf of those who wait.
    sought: HashSet<NodeId>,
    queries: HashMap<kad::QueryId, Query>,
    pauses: HashMap<NodeId, Pause>,
    /// The pause between looks for further peers.
    look: Pause,
    sieve: Sieve,
    records: Accounts<Prefix>,
    banned: Vec<PeerId>,
    stop: CancellationToken,
}

impl Actor {
    pub(super) fn new(
        key: &Keypair,
        config: Config,
        stop: CancellationToken,
    ) -> Result<(Self, NetHandle), NetError> {
        let me = peer::node_of(&key.public()).ok_or_else(|| NetError::Key("it is not ed25519".into()))?;
        let board = Arc::new(Board::default());
        let swarm = rooms::swarm(key, &config, Arc::clone(&board))?;
        tokio::spawn(pulse::serve(board.bind(PULSE)));
        let (sender, commands) = mpsc::channel(limits::COMMANDS);
        let (heard, _) = broadcast::channel(1_024);
        let (peers, peers_seen) = watch::channel(Arc::default());
        let (addresses, addresses_seen) = watch::channel(Arc::from([]));
        let (keep, kept) = watch::channel(Arc::default());
        let handle = NetHandle {
            me,
            commands: sender,
            heard: heard.clone(),
            peers: peers_seen,
            addresses: addresses_seen,
            kept: keep,
            board,
        };
        let each = Duration::from_secs(60) / RECORDS_PER_MINUTE;
        let actor = Self {
            me,
            swarm,
            commands,
            beats: mpsc::channel(limits::COMMANDS),
            heard,
            peers,
            addresses,
            kept,
            listening: BTreeSet::new(),
            book: Book::open(config.book.clone()),
            book_at: None,
            writing: None,
            connections: HashMap::new(),
            waiting: HashMap::new(),
            sought: HashSet::new(),
            queries: HashMap::new(),
            pauses: HashMap::new(),
            look: Pause::default(),
            sieve: Sieve::new(),
            records: Accounts::new(Rate { burst: 2 * RECORDS_PER_MINUTE, each }),
            banned: Vec::new(),
            stop,
            config,
        };
        Ok((actor, handle))
    }

    /// Runs until it is stopped.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(limits::TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_swarm(event),
                Some(command) = self.commands.recv() => self.on_command(command),
                Ok(()) = self.kept.changed() => self.on_kept(),
                Some(beat) = self.beats.1.recv() => self.on_beat(beat),
                _ = tick.tick() => self.on_tick(),
            }
        }
        self.end().await;
    }

    /// Closes everything, giving the other sides a moment to hear of it.
    async fn end(mut self) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            self.close(id);
        }
        let hear = async {
            while !self.connections.is_empty() {
                let event = self.swarm.select_next_some().await;
                if let SwarmEvent::ConnectionClosed { connection_id, .. } = event {
                    self.connections.remove(&connection_id);
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(500), hear).await;
        if let Some(writing) = self.writing.take() {
            let _ = writing.await;
        }
        if let Some((path, bytes)) = self.book.take_changes() {
            write_book(&path, &bytes);
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Open { peer, protocol, reply } => self.open(Wanted { node: peer, protocol, reply }),
            Command::Learn { node, addresses } => self.learn(node, &addresses),
            Command::Publish { data, reply } => {
                let _ = reply.send(self.publish(data));
            }
            Command::Provide { key, reply } => self.provide(key, reply),
            Command::Withdraw { key } => self.withdraw(key),
            Command::Providers { key, reply } => self.providers(key, reply),
            #[cfg(test)]
            Command::Table { reply } => {
                let _ = reply.send(self.table());
            }
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        self.look_after_kept(now);
        self.look_for_peers(now);
        self.let_off();
        if self.book_at.is_some_and(|at| at <= now)
            && self.writing.as_ref().is_none_or(JoinHandle::is_finished)
        {
            self.book_at = None;
            let changes = self.book.take_changes();
            self.writing =
                changes.map(|(path, bytes)| tokio::task::spawn_blocking(move || write_book(&path, &bytes)));
        }
    }

    fn on_swarm(&mut self, event: SwarmEvent<RoomsEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, .. } => self.closed(connection_id),
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer_id), error, .. } => {
                self.dial_failed(&peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "inbound connection failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => self.listening(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.not_listening(&address),
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => self.tell(),
            SwarmEvent::Behaviour(RoomsEvent::Identify(identify::Event::Received {
                connection_id,
                info,
                ..
            })) => self.identified(connection_id, info),
            SwarmEvent::Behaviour(RoomsEvent::Kad(event)) => self.on_kad(event),
            SwarmEvent::Behaviour(RoomsEvent::Gossip(event)) => self.on_gossip(event),
            _ => {}
        }
    }

    /// What a peer says of itself. An address is believed only in the part of the network where the peer was seen:
    /// otherwise it could fill tables with peers that seem to be everywhere, or send everybody to a third one.
    fn identified(&mut self, id: ConnectionId, info: identify::Info) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (node, peer, seen) = (connection.node, connection.peer, Prefix::at(&connection.address));
        let own = connection.dialled.then(|| connection.address.clone());
        let believed = |at: &Multiaddr| Prefix::at(at) == seen && address::is_dialable(&address::bare(at));
        let told = info.listen_addrs.into_iter().filter(believed).take(limits::BOOK_ADDRESSES);
        let addresses: Vec<_> = own.into_iter().chain(told).collect();
        self.learn(node, &addresses);
        if info.protocols.contains(&KAD) {
            self.take_into_table(peer, &addresses);
        }
    }

    fn learn(&mut self, node: NodeId, addresses: &[Multiaddr]) {
        if node == self.me {
            return;
        }
        let now = unix_ms();
        for address in addresses.iter().take(limits::BOOK_ADDRESSES) {
            if self.book.learn(node, address, now) {
                self.note_book();
            }
        }
    }

    fn note_book(&mut self) {
        self.book_at.get_or_insert_with(|| Instant::now() + limits::BOOK_DELAY);
    }

    /// Closes a connection, and its streams now.
    fn close(&mut self, id: ConnectionId) {
        self.swarm.behaviour().door.cut(id);
        self.swarm.close_connection(id);
    }

    fn tell_peers(&self) {
        let connected: BTreeSet<_> = self.connections.values().map(|connection| connection.node).collect();
        self.peers.send_if_modified(|peers| {
            let changed = **peers != connected;
            if changed {
                *peers = Arc::new(connected);
            }
            changed
        });
    }
}

fn write_book(path: &std::path::Path, bytes: &[u8]) {
    if let Err(error) = book::write(path, bytes) {
        tracing::warn!(path = %path.display(), %error, "remembered peers not written");
    }
}

/// Now, in milliseconds since 1970.
fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
