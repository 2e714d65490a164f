//! Relays: reservations at members that relay, so that others can reach this node through them.

use std::time::Instant;

use crate::identity::NodeId;
use libp2p::{Multiaddr, core::transport::ListenerId, relay};

use super::{Actor, jitter};
use crate::mesh::{address, limits, peer, roll::Role};

/// A reservation, wanted or held.
#[derive(Debug)]
pub(crate) struct Reservation {
    /// The listener that stands for it, as long as it is asked for or held.
    listener: Option<ListenerId>,
    held: bool,
    failures: u32,
    next: Instant,
}

impl Actor {
    /// Asks for reservations that are missing. They cost little, so they are held unless this node is known to be
    /// publicly reachable; one that is being asked for is never withdrawn.
    pub(super) fn look_after_relays(&mut self, now: Instant) {
        if self.told.is_public() {
            return;
        }
        let relays: Vec<_> = self.gate.relays.iter().copied().filter(|relay| *relay != self.me).collect();
        let mut have =
            self.reservations.values().filter(|reservation| reservation.listener.is_some()).count();
        for relay in relays {
            if have >= limits::RESERVATIONS {
                return;
            }
            let due =
                self.reservations.get(&relay).is_none_or(|had| had.listener.is_none() && had.next <= now);
            if due && self.reserve(relay, now) {
                have += 1;
            }
        }
    }

    /// Asks one relay for a reservation; returns whether it could be asked.
    fn reserve(&mut self, relay: NodeId, now: Instant) -> bool {
        let Some(connection) = self.direct(relay) else { return false };
        let (mut at, peer) = (connection.address.clone(), connection.peer);
        if !connection.dialled {
            // Where it came from need not be where it listens.
            at = self.book.addresses(relay).into_iter().next().unwrap_or(at);
        }
        let at = address::named(&at, peer);
        let listener = self.swarm.listen_on(at.with(libp2p::core::multiaddr::Protocol::P2pCircuit));
        let listener = listener.inspect_err(|error| tracing::debug!(%relay, %error, "no reservation")).ok();
        let failures = self.reservations.get(&relay).map_or(0, |had| had.failures);
        let next = now + limits::BACKOFF_RELAY;
        self.reservations.insert(relay, Reservation { listener, held: false, failures, next });
        listener.is_some()
    }

    pub(super) fn listener_closed(&mut self, id: ListenerId, reason: Option<String>) {
        let lost = self.reservations.iter_mut().find(|(_, had)| had.listener == Some(id));
        let Some((relay, had)) = lost else {
            tracing::debug!(?reason, "a listener has ended");
            return;
        };
        tracing::debug!(%relay, ?reason, held = had.held, "reservation lost");
        had.failures = if had.held { 0 } else { had.failures.saturating_add(1) };
        let pause = limits::BACKOFF_FIRST.saturating_mul(1 << had.failures.min(8)).min(limits::BACKOFF_RELAY);
        (had.listener, had.held) = (None, false);
        had.next = Instant::now() + pause / 2 + jitter(pause / 2);
        self.tell();
    }

    /// The addresses of this node through the relays at which it holds a reservation, by every address at which
    /// they may be dialled: the one this node uses itself may mean nothing elsewhere.
    pub(super) fn relayed_addresses(&self) -> Vec<Multiaddr> {
        let me = *self.swarm.local_peer_id();
        let held = self.reservations.iter().filter(|(_, had)| had.held);
        let ways =
            held.filter_map(|(relay, _)| Some((self.peers.get(relay)?.peer_id, self.book.addresses(*relay))));
        ways.flat_map(|(relay, at)| at.into_iter().map(move |at| address::circuit(&at, relay, me))).collect()
    }

    pub(super) fn on_relay_client(&mut self, event: relay::client::Event) {
        if let relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal, .. } = event {
            let Some(relay) = peer::node_id(&relay_peer_id) else { return };
            tracing::debug!(%relay, renewal, "reservation held");
            if let Some(had) = self.reservations.get_mut(&relay) {
                (had.held, had.failures) = (true, 0);
            }
            if !renewal {
                self.tell();
                self.hurry();
            }
        }
    }

    /// Guests may be taken to whoever invited them, and are not reached through relays themselves.
    pub(super) fn on_relay(&mut self, event: relay::Event) {
        tracing::debug!(?event, "relay");
        if let relay::Event::ReservationReqAccepted { src_peer_id, .. } = event
            && matches!(self.roll.role(&src_peer_id), Some((_, Role::Guest)))
        {
            self.close_all(|connection| connection.peer == src_peer_id);
        }
    }
}
