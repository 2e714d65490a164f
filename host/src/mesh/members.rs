//! A behaviour for members only: on the connection of a guest it does not exist.

use std::{
    collections::HashMap,
    task::{Context, Poll},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NewExternalAddrCandidate, NotifyHandler,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};

use crate::mesh::roll::{Role, Roll};

/// Wraps a behaviour so that it meets members only.
pub(crate) struct Members<B> {
    pub(crate) inner: B,
    roll: Roll,
    /// Connections that the inner behaviour was not told of.
    hidden: HashMap<ConnectionId, PeerId>,
    /// Whether it hears only of candidates for addresses of this node that the actor gives it.
    own_candidates: bool,
}

impl<B> Members<B> {
    pub(crate) fn new(inner: B, roll: Roll) -> Self {
        Self { inner, roll, hidden: HashMap::new(), own_candidates: false }
    }

    /// The same, for a behaviour that hears of candidates from [`Members::candidate`] only.
    ///
    /// What the identify protocol takes for candidates is of no use: behind a NAT that changes ports it puts the
    /// port listened on in the place of the one seen from outside, so that hole punching would aim beside the
    /// hole; on a relayed connection it takes an empty address for one; and addresses that members are told are
    /// left out.
    pub(crate) fn with_own_candidates(inner: B, roll: Roll) -> Self {
        Self { own_candidates: true, ..Self::new(inner, roll) }
    }

    fn hides(&mut self, id: ConnectionId, peer: PeerId) -> bool {
        let hide = !matches!(self.roll.role(&peer), Some((_, Role::Member)));
        if hide {
            self.hidden.insert(id, peer);
        }
        hide
    }

    fn is_hidden(&self, peer: PeerId, handler: &NotifyHandler) -> bool {
        match handler {
            NotifyHandler::One(id) => self.hidden.contains_key(id),
            NotifyHandler::Any => self.hidden.values().any(|hidden| *hidden == peer),
        }
    }
}

impl<B: NetworkBehaviour> Members<B> {
    /// Tells the behaviour an address at which this node may be reachable.
    pub(crate) fn candidate(&mut self, addr: &Multiaddr) {
        self.inner.on_swarm_event(FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr }));
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Members<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.hides(id, peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_inbound_connection(id, peer, local, remote).map(Either::Left)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.hides(id, peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_outbound_connection(id, peer, address, role, port).map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if self.own_candidates && matches!(event, FromSwarm::NewExternalAddrCandidate(_)) {
            return;
        }
        let hidden = match &event {
            FromSwarm::ConnectionEstablished(event) => self.hidden.contains_key(&event.connection_id),
            FromSwarm::AddressChange(event) => self.hidden.contains_key(&event.connection_id),
            FromSwarm::ConnectionClosed(event) => self.hidden.remove(&event.connection_id).is_some(),
            FromSwarm::ListenFailure(event) => {
                self.hidden.remove(&event.connection_id);
                false
            }
            FromSwarm::DialFailure(event) => {
                self.hidden.remove(&event.connection_id);
                false
            }
            _ => false,
        };
        if !hidden {
            self.inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, id, event),
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, .. })
                    if self.is_hidden(peer_id, &handler) => {}
                Poll::Ready(event) => return Poll::Ready(event.map_in(Either::Left)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
