//! The actor that owns the swarm. Everything that changes does so here, on one task.

mod dial;
mod links;
mod listen;
mod relays;
mod told;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    identity::NodeId,
    mesh::streams::{OpenError, Stream},
};
use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, identify,
    identity::Keypair,
    swarm::{ConnectionId, ListenError, SwarmEvent},
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::mesh::{
    Config, MeshError, address,
    beacon::{Lighthouse, Sighting},
    behaviour::{self, Rooms, RoomsEvent},
    book::{self, Book},
    door::{Board, PULSE, Wanted},
    handle::{Gate, Link, MeshEvent, MeshHandle},
    hello::{self, HELLO, Hello},
    limits, peer,
    probe::Attempt,
    pulse::{self, Beat},
    roll::Roll,
};
use dial::{Peer, Probe};
use links::Connection;
use relays::Reservation;
use told::Told;

/// What handles ask of the actor.
pub(crate) enum Command {
    Open { peer: NodeId, protocol: &'static str, reply: oneshot::Sender<Result<Stream, OpenError>> },
    Learn { node: NodeId, addresses: Vec<Multiaddr> },
    Disconnect { node: NodeId },
    Probe { node: NodeId, reply: oneshot::Sender<Vec<Attempt>> },
}

/// The actor.
pub(crate) struct Actor {
    me: NodeId,
    config: Config,
    swarm: Swarm<Rooms>,
    roll: Roll,
    gate: Gate,
    gates: watch::Receiver<Gate>,
    commands: mpsc::Receiver<Command>,
    beats: (mpsc::Sender<Beat>, mpsc::Receiver<Beat>),
    sightings: mpsc::Receiver<Sighting>,
    hellos: mpsc::Receiver<(NodeId, Hello)>,
    board: Arc<Board>,
    bound: watch::Receiver<u64>,
    events: broadcast::Sender<MeshEvent>,
    links: watch::Sender<Arc<BTreeMap<NodeId, Link>>>,
    addresses: watch::Sender<Arc<Vec<Multiaddr>>>,
    book: Book,
    book_at: Option<Instant>,
    writing: Option<JoinHandle<()>>,
    connections: HashMap<ConnectionId, Connection>,
    peers: HashMap<NodeId, Peer>,
    probes: Vec<Probe>,
    reservations: HashMap<NodeId, Reservation>,
    told: Told,
    stop: CancellationToken,
}

impl Actor {
    pub(crate) fn new(
        key: &Keypair,
        config: Config,
        stop: CancellationToken,
    ) -> Result<(Self, MeshHandle), MeshError> {
        let me = peer::node_of(&key.public()).ok_or_else(|| MeshError::Key("it is not ed25519".into()))?;
        let (board, roll) = (Arc::new(Board::default()), Roll::default());
        let swarm = behaviour::swarm(key, &config, Arc::clone(&board), roll.clone())?;
        tokio::spawn(pulse::serve(board.bind(PULSE)));
        let (heard, hellos) = mpsc::channel(limits::COMMANDS);
        tokio::spawn(hello::serve(board.bind(HELLO), heard));
        let (sender, commands) = mpsc::channel(limits::COMMANDS);
        let (gate, gates) = watch::channel(Gate::default());
        let (events, _) = broadcast::channel(limits::EVENTS);
        let (links, links_seen) = watch::channel(Arc::default());
        let (addresses, addresses_seen) = watch::channel(Arc::default());
        let (seen, sightings) = mpsc::channel(limits::COMMANDS);
        if config.lan {
            let on = (config.beacon_port, config.loopback);
            let lighthouse = Lighthouse::new(me, on, gates.clone(), addresses_seen.clone(), seen);
            tokio::spawn(lighthouse.run(stop.clone()));
        }
        let handle = MeshHandle {
            me,
            commands: sender,
            gate,
            events: events.clone(),
            links: links_seen,
            addresses: addresses_seen,
            board: Arc::clone(&board),
        };
        let actor = Self {
            me,
            swarm,
            roll,
            gate: Gate::default(),
            gates,
            commands,
            beats: mpsc::channel(limits::COMMANDS),
            sightings,
            hellos,
            bound: board.version(),
            board: Arc::clone(&board),
            events,
            links,
            addresses,
            book: Book::open(config.book.clone()),
            book_at: None,
            writing: None,
            connections: HashMap::new(),
            peers: HashMap::new(),
            probes: Vec::new(),
            reservations: HashMap::new(),
            told: Told::default(),
            stop,
            config,
        };
        Ok((actor, handle))
    }

    /// Runs until it is stopped.
    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(limits::TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_swarm(event),
                Some(command) = self.commands.recv() => self.on_command(command),
                Ok(()) = self.gates.changed() => self.on_gate(),
                Some(beat) = self.beats.1.recv() => self.on_beat(beat),
                Some(sighting) = self.sightings.recv() => self.on_sighting(sighting),
                Some((node, hello)) = self.hellos.recv() => self.greeted(node, hello),
                Ok(()) = self.bound.changed() => self.greet(),
                _ = tick.tick() => self.on_tick(),
            }
        }
        self.end().await;
    }

    /// Closes everything, giving the other sides a moment to hear of it.
    async fn end(mut self) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
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
        if let Some(write) = self.changed_book() {
            write();
        }
    }

    fn on_command(&mut self, command: Command) {
        // Whoever sets the gate and then asks for a stream means the new gate.
        if self.gates.has_changed().unwrap_or(false) {
            self.on_gate();
        }
        match command {
            Command::Open { peer, protocol, reply } => self.open(Wanted { node: peer, protocol, reply }),
            Command::Learn { node, addresses } => self.learn(node, &addresses),
            Command::Disconnect { node } => self.close_all(|connection| connection.node == node),
            Command::Probe { node, reply } => self.probe(node, reply),
        }
    }

    /// Takes over a new gate: whoever lost its place, or came in as something else, is cut off now.
    fn on_gate(&mut self) {
        let gate = self.gates.borrow_and_update().clone();
        self.roll.set(&gate, self.me);
        let roll = self.roll.clone();
        self.close_all(|connection| {
            roll.role(&connection.peer) != Some((connection.node, connection.line.role))
        });
        let gone: Vec<_> = self.peers.keys().filter(|node| !gate.members.contains(node)).copied().collect();
        for node in gone {
            self.forget(node);
        }
        for node in gate.members.iter().filter(|node| **node != self.me) {
            if let Some(peer_id) = peer::peer_id(*node) {
                self.peers.entry(*node).or_insert_with(|| Peer::new(peer_id));
            }
        }
        self.reservations.retain(|node, _| gate.relays.contains(node));
        self.gate = gate;
        self.on_tick();
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        self.trim(now);
        self.look_after_relays(now);
        self.look_after_dials(now);
        self.look_after_probes(now);
        if self.book_at.is_some_and(|at| at <= now) {
            self.write_book();
        }
    }

    fn on_swarm(&mut self, event: SwarmEvent<RoomsEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, .. } => self.closed(connection_id),
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.dial_failed(connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.refused(send_back_addr, &error);
            }
            SwarmEvent::NewListenAddr { address, .. } => self.listening(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.not_listening(&address),
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                self.listener_closed(listener_id, reason.err().map(|error| error.to_string()));
            }
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => self.tell(),
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: RoomsEvent) {
        match event {
            RoomsEvent::Identify(identify::Event::Received { connection_id, info, .. }) => {
                self.identified(connection_id, info);
            }
            RoomsEvent::RelayClient(event) => self.on_relay_client(event),
            RoomsEvent::Relay(event) => self.on_relay(event),
            RoomsEvent::Punch(event) => self.on_punch(event),
            RoomsEvent::Reach(event) => {
                tracing::debug!(address = %event.tested_addr, reached = event.result.is_ok(), "reachability");
                if event.result.is_ok() {
                    self.told.confirm(&event.tested_addr);
                }
            }
            _ => {}
        }
    }

    fn refused(&self, from: Multiaddr, error: &ListenError) {
        tracing::debug!(%from, %error, "inbound connection failed");
        if let ListenError::Denied { cause } = error {
            let event = MeshEvent::Refused { address: from, reason: cause_of(cause) };
            let _ = self.events.send(event);
        }
    }

    /// What a member says of itself, and of where it sees this node.
    fn identified(&mut self, id: ConnectionId, info: identify::Info) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let node = connection.node;
        let local = connection.is_local();
        let seen = connection.shows_own_port().then_some(info.observed_addr);
        let protocols = info.protocols.iter().map(ToString::to_string).collect();
        self.greeted(node, Hello { addresses: info.listen_addrs, protocols });
        if let Some(seen) = seen.filter(|at| local || !address::is_loopback(at)) {
            self.observed(id, seen);
        }
        self.proved(id);
    }

    /// A member says where it can be dialled now, and what it speaks.
    fn greeted(&mut self, node: NodeId, hello: Hello) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.protocols = Some(hello.protocols.into_iter().collect());
        // An address of the peer's own machine means something only to who is on that machine too.
        let local =
            self.connections.values().any(|connection| connection.node == node && connection.is_local());
        let sane = |at: &Multiaddr| local || !address::is_loopback(at);
        let addresses: Vec<_> = hello.addresses.into_iter().filter(sane).collect();
        self.learn(node, &addresses);
    }

    fn learn(&mut self, node: NodeId, addresses: &[Multiaddr]) {
        if node == self.me {
            return;
        }
        let now = unix_ms();
        let first = self.book.addresses(node).is_empty();
        let mut fresh = false;
        for address in addresses.iter().take(2 * limits::BOOK_ADDRESSES) {
            fresh |= self.book.learn(node, address, now);
        }
        if fresh {
            self.note_book();
            // A machine killed a moment after it joined must find its way back.
            if first {
                self.write_book();
            }
            self.new_addresses(node);
        }
    }

    /// A beacon of a member: its addresses are tried, soon if it is not connected. The node with the smaller
    /// name dials first, so that two that hear each other do not dial at once.
    fn on_sighting(&mut self, sighting: Sighting) {
        let Sighting { node, mut addresses, fresh } = sighting;
        if !self.gate.members.contains(&node) {
            return;
        }
        addresses.retain(|address| self.config.loopback || !address::is_loopback(address));
        self.learn(node, &addresses);
        if fresh && !self.is_connected(node) {
            let delay = if self.me < node { Duration::ZERO } else { limits::BACKOFF_FIRST };
            self.dial_soon(node, delay);
        }
    }

    fn note_book(&mut self) {
        self.book_at.get_or_insert_with(|| Instant::now() + limits::BOOK_DELAY);
    }

    /// Writes the address book in the background; later, while it is still being written.
    fn write_book(&mut self) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            self.book_at = Some(Instant::now());
            return;
        }
        self.book_at = None;
        self.writing = self.changed_book().map(tokio::task::spawn_blocking);
    }

    /// What writes the address book, if anything in it changed.
    fn changed_book(&mut self) -> Option<impl FnOnce() + Send + use<>> {
        let (path, bytes) = self.book.take_changes()?;
        Some(move || {
            if let Err(error) = book::write(&path, &bytes) {
                tracing::warn!(path = %path.display(), %error, "address book not written");
            }
        })
    }
}

fn cause_of(cause: &libp2p::swarm::ConnectionDenied) -> String {
    std::error::Error::source(cause).map_or_else(|| cause.to_string(), ToString::to_string)
}

/// Now, in milliseconds since 1970.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A random part of `most`, so that machines do not do things at the same moment.
pub(crate) fn jitter(most: Duration) -> Duration {
    let part = getrandom::u32().unwrap_or(u32::MAX / 2);
    most.mul_f64(f64::from(part) / f64::from(u32::MAX))
}

/// The innermost reason of an error: the layers around it name parts of libp2p.
fn plain_reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}
