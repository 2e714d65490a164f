//! Connections: made when a stream wants one, kept where they are to be, and looked for while there are few.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, multiaddr::Protocol},
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::sync::oneshot;

use super::{Actor, Connection, unix_ms};
use crate::{
    identity::NodeId,
    mesh::{
        address,
        door::{PULSE, Wanted},
        limits, peer,
        pulse::{self, Beat},
    },
};

/// Remembered peers that are dialled at once when peers are few.
const REMEMBERED: usize = 8;
/// The first and the longest pause between tries.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);

/// When to try again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pause {
    failures: u32,
    next: Option<Instant>,
}

impl Pause {
    fn is_over(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// One more try is made; the next one after a pause twice as long, and a random part more.
    fn begin(&mut self, now: Instant) {
        let pause = (FIRST * 2_u32.saturating_pow(self.failures.min(8))).min(LAST);
        let part = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
        self.next = Some(now + pause + (pause / 4).mul_f64(part));
        self.failures = self.failures.saturating_add(1);
    }
}

impl Actor {
    /// The newest connection with a node.
    fn with(&self, node: NodeId) -> Option<(ConnectionId, &Connection)> {
        let with = self.connections.iter().filter(|(_, connection)| connection.node == node);
        with.max_by_key(|(_, connection)| connection.since).map(|(id, connection)| (*id, connection))
    }

    pub(super) fn open(&mut self, wanted: Wanted) {
        let node = wanted.node;
        if node == self.me {
            return wanted.unreachable("it is this node itself");
        }
        if let Some((id, peer)) = self.with(node).map(|(id, connection)| (id, connection.peer)) {
            return self.swarm.behaviour_mut().door.open(peer, id, wanted);
        }
        let waiting = self.waiting.entry(node).or_default();
        waiting.retain(|wanted| !wanted.reply.is_closed());
        if waiting.len() >= limits::WAITERS_PER_PEER {
            return wanted.unreachable("too many callers wait for it");
        }
        waiting.push(wanted);
        self.reach(node);
    }

    /// Dials a node where it is known to be, or asks the network where that is.
    fn reach(&mut self, node: NodeId) {
        let Some(peer_id) = peer::peer_id(node) else {
            return self.give_up(node, "its name is no key");
        };
        let mut addresses = self.book.addresses(node);
        addresses.retain(|address| !self.listening.contains(address));
        let options = DialOpts::peer_id(peer_id)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .build();
        match self.swarm.dial(options) {
            // Under way already.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(DialError::NoAddresses) => self.seek_or_give_up(node, "no address of it is known"),
            Err(error) => self.seek_or_give_up(node, &error.to_string()),
        }
    }

    /// Asks the network where a node is, once for all who wait for it.
    fn seek_or_give_up(&mut self, node: NodeId, reason: &str) {
        if !self.seek(node) {
            self.give_up(node, reason);
        }
    }

    /// The network has said all it knows of where a node is.
    pub(super) fn sought(&mut self, node: NodeId, addresses: &[Multiaddr]) {
        if addresses.is_empty() {
            return self.give_up(node, "no address of it is known, and the network knows none");
        }
        self.learn(node, addresses);
        self.reach(node);
    }

    fn give_up(&mut self, node: NodeId, reason: &str) {
        self.sought.remove(&node);
        for wanted in self.waiting.remove(&node).unwrap_or_default() {
            wanted.unreachable(reason);
        }
    }

    pub(super) fn dial_failed(&mut self, peer_id: &PeerId, error: &DialError) {
        let Some(node) = peer::node_id(peer_id) else { return };
        if let DialError::WrongPeerId { address, .. } = error {
            self.book.forget(node, address);
        }
        if self.with(node).is_none() {
            self.seek_or_give_up(node, &error.to_string());
        }
    }

    pub(super) fn established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(node) = peer::node_id(&peer) else { return };
        let (address, dialled) = (address::bare(endpoint.get_remote_address()), endpoint.is_dialer());
        tracing::debug!(%node, %address, dialled, "connected");
        if dialled {
            self.book.worked(node, &address, unix_ms());
            self.note_book();
        }
        let since = Instant::now();
        self.connections.insert(id, Connection { node, peer, address, dialled, since, pulse: None });
        self.sought.remove(&node);
        for wanted in self.waiting.remove(&node).unwrap_or_default() {
            self.swarm.behaviour_mut().door.open(peer, id, wanted);
        }
        if self.kept.borrow().contains(&node) {
            self.pauses.remove(&node);
            self.start_pulse(id);
        }
        self.tell_peers();
    }

    pub(super) fn closed(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        tracing::debug!(node = %connection.node, address = %connection.address, "connection closed");
        if let Some(pulse) = connection.pulse {
            pulse.abort();
        }
        self.tell_peers();
    }

    /// Asks on a connection whether it lives, which keeps it from being closed as idle on either side.
    fn start_pulse(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.pulse.is_none())
        else {
            return;
        };
        let Some(line) = self.swarm.behaviour().door.line(id).cloned() else { return };
        let (reply, opened) = oneshot::channel();
        let wanted = Wanted { node: connection.node, protocol: PULSE, reply };
        self.swarm.behaviour_mut().door.open(connection.peer, id, wanted);
        let asking = pulse::run(Arc::clone(&line), opened, limits::PULSE_IDLE, self.beats.0.clone());
        connection.pulse = Some(tokio::spawn(asking).abort_handle());
    }

    pub(super) fn on_beat(&mut self, beat: Beat) {
        if let Beat::Dead(id) = beat {
            self.close(id);
        }
    }

    /// Others are to be kept now.
    pub(super) fn on_kept(&mut self) {
        let kept = Arc::clone(&self.kept.borrow_and_update());
        self.pauses.retain(|node, _| kept.contains(node));
        for connection in self.connections.values_mut().filter(|it| !kept.contains(&it.node)) {
            if let Some(pulse) = connection.pulse.take() {
                pulse.abort();
            }
        }
        for node in kept.iter() {
            if let Some((id, _)) = self.with(*node) {
                self.start_pulse(id);
            }
        }
        self.look_after_kept(Instant::now());
    }

    pub(super) fn look_after_kept(&mut self, now: Instant) {
        let kept = Arc::clone(&self.kept.borrow());
        let me = self.me;
        for node in kept.iter().filter(|node| **node != me) {
            let due = self.pauses.entry(*node).or_default().is_over(now);
            if due && self.with(*node).is_none() {
                self.pauses.entry(*node).or_default().begin(now);
                self.reach(*node);
            }
        }
    }

    /// Turns to the first peers and to remembered ones while few are connected.
    pub(super) fn look_for_peers(&mut self, now: Instant) {
        let few = self.peers.borrow().len() < self.config.limits.peers;
        if !few {
            self.look = Pause::default();
            return;
        }
        if !self.look.is_over(now) {
            return;
        }
        self.look.begin(now);
        for address in self.config.bootstrap.clone() {
            self.dial_first(address);
        }
        for node in self.book.best(REMEMBERED) {
            if node != self.me && self.with(node).is_none() {
                self.reach(node);
            }
        }
        // Fails while nobody is known.
        let _ = self.swarm.behaviour_mut().kad.bootstrap();
    }

    fn dial_first(&mut self, address: Multiaddr) {
        if self.listening.contains(&address::bare(&address)) {
            return;
        }
        let named = address.iter().last();
        if let Some(Protocol::P2p(peer_id)) = named {
            let Some(node) = peer::node_id(&peer_id).filter(|node| *node != self.me) else { return };
            self.learn(node, std::slice::from_ref(&address));
            if self.with(node).is_none() {
                self.reach(node);
            }
        } else if !self.connections.values().any(|connection| connection.address == address)
            && let Err(error) = self.swarm.dial(DialOpts::unknown_peer_id().address(address).build())
        {
            tracing::debug!(%error, "first peer not dialled");
        }
    }
}
