//! The brake: bounds connections by where they come from, and keeps the banned out.
//!
//! It must be the first of the behaviours: those after it are never told of a connection that it denies.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    net::IpAddr,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, behaviour::ConnectionClosed, dummy,
    },
};

use super::Prefix;
use crate::mesh::{address, limits};

/// Peers that are banned at once. When there are more, those whose ban ends first are let off.
const BANNED: usize = 1_024;

/// Why a connection is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    Banned,
    Prefix,
    Handshakes,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Banned => "banned for a while: it sent too much",
            Self::Prefix => "too many connections from its part of the network",
            Self::Handshakes => "too many connection attempts from this address",
        })
    }
}

impl std::error::Error for Denied {}

/// The behaviour.
pub(super) struct Brake {
    per_prefix: usize,
    pending: HashMap<ConnectionId, Option<IpAddr>>,
    per_ip: HashMap<Option<IpAddr>, usize>,
    /// Connections that others made.
    inbound: HashMap<ConnectionId, Prefix>,
    prefixes: HashMap<Prefix, usize>,
    banned: HashMap<PeerId, Instant>,
}

impl Brake {
    pub(super) fn new(per_prefix: usize) -> Self {
        Self {
            per_prefix,
            pending: HashMap::new(),
            per_ip: HashMap::new(),
            inbound: HashMap::new(),
            prefixes: HashMap::new(),
            banned: HashMap::new(),
        }
    }

    /// Keeps a peer out for so long. Its connections are the actor's to close.
    pub(super) fn ban(&mut self, peer: PeerId, long: Duration) {
        let now = Instant::now();
        self.banned.retain(|_, until| *until > now);
        if self.banned.len() >= BANNED {
            let first = self.banned.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer);
            first.and_then(|peer| self.banned.remove(&peer));
        }
        self.banned.insert(peer, now + long);
    }

    pub(super) fn is_banned(&self, peer: &PeerId) -> bool {
        self.banned.get(peer).is_some_and(|until| *until > Instant::now())
    }

    fn is_full(&self, prefix: Prefix) -> bool {
        self.prefixes.get(&prefix).is_some_and(|count| *count >= self.per_prefix)
    }

    /// A handshake is over.
    fn settle(&mut self, id: ConnectionId) {
        if let Some(ip) = self.pending.remove(&id) {
            give_back(&mut self.per_ip, ip);
        }
    }

    /// A connection is over.
    fn forget(&mut self, id: ConnectionId) {
        if let Some(prefix) = self.inbound.remove(&id) {
            give_back(&mut self.prefixes, prefix);
        }
    }
}

fn give_back<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl NetworkBehaviour for Brake {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        // Before the handshake, which costs this node more than whoever asks for it.
        if Prefix::at(remote).is_some_and(|prefix| self.is_full(prefix)) {
            return Err(ConnectionDenied::new(Denied::Prefix));
        }
        let ip = address::ip(remote);
        let count = self.per_ip.entry(ip).or_default();
        if *count >= limits::PENDING_PER_IP {
            return Err(ConnectionDenied::new(Denied::Handshakes));
        }
        *count += 1;
        self.pending.insert(id, ip);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.is_banned(&peer) {
            return Err(ConnectionDenied::new(Denied::Banned));
        }
        if let Some(prefix) = Prefix::at(remote) {
            // Again: several handshakes may have been under way.
            if self.is_full(prefix) {
                return Err(ConnectionDenied::new(Denied::Prefix));
            }
            *self.prefixes.entry(prefix).or_default() += 1;
            self.inbound.insert(id, prefix);
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.is_banned(&peer) {
            return Err(ConnectionDenied::new(Denied::Banned));
        }
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => self.settle(established.connection_id),
            FromSwarm::ListenFailure(failure) => {
                self.settle(failure.connection_id);
                // A later behaviour may have denied what this one admitted.
                self.forget(failure.connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => self.forget(connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
