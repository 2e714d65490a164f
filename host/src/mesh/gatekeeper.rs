//! The gatekeeper: denies every connection whose key is not on the roll, when its handshake ends and before any
//! protocol is spoken on it, and bounds the handshakes under way per IP address.
//!
//! It must be the first of the behaviours: those after it are never told of a connection it denies.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    net::IpAddr,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

use crate::mesh::{
    address, limits,
    roll::{Role, Roll},
};

/// Why a connection is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Its key is not on the roll.
    NotMember,
    /// Its address has too many handshakes under way.
    TooMany,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMember => "not a member of this pool",
            Self::TooMany => "too many connection attempts from this address",
        })
    }
}

impl std::error::Error for Denied {}

/// The behaviour.
pub(crate) struct Gatekeeper {
    roll: Roll,
    pending: HashMap<ConnectionId, Option<IpAddr>>,
    per_ip: HashMap<Option<IpAddr>, usize>,
}

impl Gatekeeper {
    pub(crate) fn new(roll: Roll) -> Self {
        Self { roll, pending: HashMap::new(), per_ip: HashMap::new() }
    }

    fn settle(&mut self, id: ConnectionId) {
        let Some(ip) = self.pending.remove(&id) else { return };
        if let Some(count) = self.per_ip.get_mut(&ip) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_ip.remove(&ip);
            }
        }
    }
}

impl NetworkBehaviour for Gatekeeper {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let ip = address::ip(remote);
        let count = self.per_ip.entry(ip).or_default();
        if *count >= limits::PENDING_PER_IP {
            return Err(ConnectionDenied::new(Denied::TooMany));
        }
        *count += 1;
        self.pending.insert(id, ip);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        match self.roll.role(&peer) {
            Some(_) => Ok(dummy::ConnectionHandler),
            None => Err(ConnectionDenied::new(Denied::NotMember)),
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        match self.roll.role(&peer) {
            Some((_, Role::Member)) => Ok(dummy::ConnectionHandler),
            _ => Err(ConnectionDenied::new(Denied::NotMember)),
        }
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => self.settle(established.connection_id),
            FromSwarm::ListenFailure(failure) => self.settle(failure.connection_id),
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
