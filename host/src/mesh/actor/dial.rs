//! Dialling: every member is dialled until it is connected, directly first and then through relays; streams wait
//! for it; and addresses can be probed one by one.

mod probe;

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::identity::NodeId;
use libp2p::{
    Multiaddr, PeerId,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{Actor, jitter};
use crate::mesh::{
    address,
    door::Wanted,
    handle::Path,
    limits,
    probe::{Outcome, explain},
};
pub(super) use probe::Probe;

/// A relay that was dialled in vain at most so often is waited for.
const PROMISING: u32 = 3;

/// A member, as far as reaching it goes.
pub(super) struct Peer {
    pub(super) peer_id: PeerId,
    /// How it is shown to be connected.
    pub(super) shown: Option<Path>,
    /// Dials in a row that came to nothing.
    failures: u32,
    /// Not dialled before this.
    next: Instant,
    /// The dial that is under way.
    attempt: Option<Attempt>,
    /// What the last dial came to, address by address.
    outcomes: Vec<(Multiaddr, Outcome)>,
    waiters: Vec<Wanted>,
    /// When a relayed path is next tried to be made direct.
    upgrade: Option<Instant>,
    upgrades: u32,
    /// What it speaks, once it has said so.
    pub(super) protocols: Option<HashSet<String>>,
}

/// A dial under way: QUIC first, TCP and relays a moment later.
struct Attempt {
    began: Instant,
    dialling: HashMap<ConnectionId, Vec<Multiaddr>>,
    /// When and where TCP is tried.
    tcp_at: Option<(Instant, Vec<Multiaddr>)>,
    /// When relays are tried; `None`: they have been, or there are none.
    relays_at: Option<Instant>,
    /// How long a relay that is itself being dialled is waited for.
    relays_until: Option<Instant>,
}

impl Peer {
    pub(super) fn new(peer_id: PeerId) -> Self {
        Self {
            peer_id,
            shown: None,
            failures: 0,
            next: Instant::now(),
            attempt: None,
            outcomes: Vec::new(),
            waiters: Vec::new(),
            upgrade: None,
            upgrades: 0,
            protocols: None,
        }
    }

    /// Whether it has said that it does not take a protocol.
    pub(super) fn refuses(&self, protocol: &str) -> bool {
        self.protocols.as_ref().is_some_and(|names| !names.contains(protocol))
    }

    /// Fails everybody who waits, saying what was tried.
    fn give_up(&mut self) {
        let tried: Vec<_> = self.outcomes.iter().map(|(at, outcome)| format!("{at}: {outcome}")).collect();
        let reason = if tried.is_empty() {
            "no address of it is known, and no relay has it; it may be offline".to_owned()
        } else {
            tried.join("; ")
        };
        for wanted in self.waiters.drain(..) {
            wanted.unreachable(reason.clone());
        }
    }
}

impl Actor {
    pub(super) fn open(&mut self, wanted: Wanted) {
        let node = wanted.node;
        let Err(wanted) = self.open_on_best(wanted) else { return };
        let Some(peer) = self.peers.get_mut(&node) else {
            return wanted.unreachable("it is not a member of this pool, or no longer");
        };
        peer.waiters.retain(|waiter| !waiter.reply.is_closed());
        if peer.waiters.len() >= limits::WAITERS_PER_PEER {
            return wanted.unreachable("too many callers wait for it");
        }
        peer.waiters.push(wanted);
        // Somebody wants it now: the pause after a failure does not hold.
        if peer.attempt.is_none() && !self.is_connected(node) {
            self.begin(node);
        }
    }

    pub(super) fn serve_waiters(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        for wanted in std::mem::take(&mut peer.waiters) {
            if let Err(wanted) = self.open_on_best(wanted) {
                wanted.unreachable("the connection has just ended");
            }
        }
    }

    /// Removes a node that is no longer a member.
    pub(super) fn forget(&mut self, node: NodeId) {
        if let Some(mut peer) = self.peers.remove(&node) {
            peer.outcomes.clear();
            for wanted in peer.waiters.drain(..) {
                wanted.unreachable("it is no longer a member of this pool");
            }
            if peer.shown.is_some() {
                let _ = self.events.send(crate::mesh::handle::MeshEvent::Disconnected { node });
            }
        }
        self.publish_links();
    }

    pub(super) fn look_after_dials(&mut self, now: Instant) {
        let under_way: Vec<_> =
            self.peers.iter().filter(|(_, peer)| peer.attempt.is_some()).map(|(node, _)| *node).collect();
        let room = limits::DIALLING.saturating_sub(under_way.len());
        for node in under_way {
            self.go_on(node, now);
        }
        let due = self
            .peers
            .iter()
            .filter(|(node, peer)| peer.attempt.is_none() && peer.next <= now && !self.is_connected(**node));
        for node in due.map(|(node, _)| *node).take(room).collect::<Vec<_>>() {
            self.begin(node);
        }
        let upgrades = self.peers.iter().filter(|(_, peer)| peer.upgrade.is_some_and(|at| at <= now));
        for node in upgrades.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.upgrade(node, now);
        }
    }

    /// Begins to dial a member.
    fn begin(&mut self, node: NodeId) {
        let now = Instant::now();
        let direct = self.book.addresses(node);
        let has_relays = self.gate.relays.iter().any(|relay| *relay != node && *relay != self.me);
        let (tcp, quic): (Vec<_>, Vec<_>) = direct.iter().cloned().partition(address::is_tcp);
        let tcp_delay = if quic.is_empty() { Duration::ZERO } else { limits::TCP_DELAY };
        let delay = if direct.is_empty() { Duration::ZERO } else { limits::RELAY_DELAY };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.outcomes.clear();
        peer.attempt = Some(Attempt {
            began: now,
            dialling: HashMap::new(),
            tcp_at: (!tcp.is_empty()).then(|| (now + tcp_delay, tcp)),
            relays_at: has_relays.then(|| now + delay),
            relays_until: Some(now + limits::RELAY_WAIT),
        });
        self.dial(node, quic);
        self.go_on(node, now);
    }

    /// Dials some addresses of a member at once; the swarm gives QUIC and IPv6 a start.
    fn dial(&mut self, node: NodeId, mut addresses: Vec<Multiaddr>) {
        // An address that this machine has too leads to this machine.
        addresses.retain(|address| !self.told.listening.contains(address));
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if addresses.is_empty() {
            return;
        }
        let options = DialOpts::peer_id(peer.peer_id)
            .condition(PeerCondition::Always)
            .addresses(addresses.clone())
            .build();
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                if let Some(attempt) = &mut peer.attempt {
                    attempt.dialling.insert(id, addresses);
                }
            }
            Err(error) => peer.outcomes.extend(explain(&error, &addresses)),
        }
    }

    /// Turns to relays when it is time, and ends a dial that has come to nothing.
    fn go_on(&mut self, node: NodeId, now: Instant) {
        let connected = self.is_connected(node);
        let Some(attempt) = self.peers.get_mut(&node).and_then(|peer| peer.attempt.as_mut()) else { return };
        if connected {
            (attempt.tcp_at, attempt.relays_at) = (None, None);
        }
        let tcp = attempt.tcp_at.take_if(|(at, _)| *at <= now);
        self.dial(node, tcp.map(|(_, addresses)| addresses).unwrap_or_default());
        self.go_on_by_relay(node, now);
        self.end_if_done(node, connected);
    }

    fn go_on_by_relay(&mut self, node: NodeId, now: Instant) {
        let Some(attempt) = self.peers.get_mut(&node).and_then(|peer| peer.attempt.as_mut()) else { return };
        if attempt.relays_at.is_some_and(|at| at <= now) {
            let patient = attempt.relays_until.is_some_and(|until| now < until);
            let circuits = self.circuits(node);
            if !circuits.is_empty() || !patient || !self.awaits_relay(node) {
                if let Some(attempt) = self.peers.get_mut(&node).and_then(|peer| peer.attempt.as_mut()) {
                    attempt.relays_at = None;
                }
                self.dial(node, circuits);
            }
        }
    }

    fn end_if_done(&mut self, node: NodeId, connected: bool) {
        let is_relay = self.gate.relays.contains(&node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let done = |attempt: &Attempt| {
            attempt.dialling.is_empty() && attempt.tcp_at.is_none() && attempt.relays_at.is_none()
        };
        if !peer.attempt.as_ref().is_some_and(done) {
            return;
        }
        let missing = peer.outcomes.iter().any(|(_, outcome)| *outcome == Outcome::NotAtRelay);
        let again = Instant::now() + limits::RELAY_AGAIN;
        if let Some(attempt) =
            peer.attempt.as_mut().filter(|_| missing && !connected && !peer.waiters.is_empty())
            && again < attempt.began + limits::RELAY_PATIENCE
        {
            peer.outcomes.retain(|(_, outcome)| *outcome != Outcome::NotAtRelay);
            attempt.relays_at = Some(again);
            return;
        }
        peer.attempt = None;
        if !connected {
            peer.failures = peer.failures.saturating_add(1);
            peer.next = Instant::now() + backoff(peer.failures, is_relay);
            peer.give_up();
        }
    }

    pub(super) fn dial_succeeded(&mut self, node: NodeId, id: ConnectionId) {
        if let Some(attempt) = self.peers.get_mut(&node).and_then(|peer| peer.attempt.as_mut()) {
            attempt.dialling.remove(&id);
        }
        self.go_on(node, Instant::now());
    }

    pub(super) fn dial_failed(&mut self, id: ConnectionId, error: &DialError) {
        if self.probe_failed(id, error) {
            return;
        }
        let dialling =
            |peer: &Peer| peer.attempt.as_ref().is_some_and(|attempt| attempt.dialling.contains_key(&id));
        let Some((node, peer)) = self.peers.iter_mut().find(|(_, peer)| dialling(peer)) else { return };
        let node = *node;
        if let Some(addresses) = peer.attempt.as_mut().and_then(|attempt| attempt.dialling.remove(&id)) {
            peer.outcomes.extend(explain(error, &addresses));
            self.dial_rest(node, addresses, error);
        }
        tracing::debug!(%node, %error, "dial failed");
        self.go_on(node, Instant::now());
    }

    /// The first address to answer ends a dial, even if somebody else answers there: the others get another.
    fn dial_rest(&mut self, node: NodeId, mut addresses: Vec<Multiaddr>, error: &DialError) {
        let (DialError::WrongPeerId { address: wrong, .. } | DialError::LocalPeerId { address: wrong }) =
            error
        else {
            return;
        };
        let wrong = address::bare(wrong);
        addresses.retain(|address| address::bare(address) != wrong);
        self.book.forget(node, &wrong);
        self.note_book();
        self.dial(node, addresses);
    }

    /// The member has answered on a connection.
    pub(super) fn peer_up(&mut self, node: NodeId, direct: bool, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.failures = 0;
        peer.outcomes.clear();
        if direct {
            (peer.upgrade, peer.upgrades) = (None, 0);
        } else if peer.upgrade.is_none() {
            peer.upgrade = Some(now + limits::UPGRADE_FIRST + jitter(limits::UPGRADE_FIRST / 2));
        }
        if direct && self.gate.relays.contains(&node) {
            // Others may be reached through it, and it can be asked for a reservation.
            self.hurry();
        }
    }

    /// The last connection with a member has ended.
    pub(super) fn peer_down(&mut self, node: NodeId, address: Multiaddr, worked: bool) {
        let is_relay = self.gate.relays.contains(&node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        (peer.upgrade, peer.protocols) = (None, None);
        if worked {
            peer.next = Instant::now() + jitter(limits::BACKOFF_FIRST);
        } else {
            peer.failures = peer.failures.saturating_add(1);
            peer.next = Instant::now() + backoff(peer.failures, is_relay);
            peer.outcomes.push((address, Outcome::NotMember));
            if peer.attempt.is_none() {
                peer.give_up();
            }
        }
    }

    /// Something has changed that may make members reachable: none of them waits any longer.
    pub(super) fn hurry(&mut self) {
        for peer in self.peers.values_mut() {
            peer.failures = 0;
            peer.next = peer.next.min(Instant::now() + jitter(limits::BACKOFF_FIRST / 2));
        }
    }

    /// A member is known to be there: it is dialled after a moment.
    pub(super) fn dial_soon(&mut self, node: NodeId, delay: Duration) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.failures = 0;
            peer.next = peer.next.min(Instant::now() + delay);
        }
    }

    /// New addresses of a node have become known: they are tried soon, even while it is connected by a relay.
    pub(super) fn new_addresses(&mut self, node: NodeId) {
        if !self.is_connected(node) && self.dial_fresh(node) {
            return;
        }
        let relayed = self.best(node).is_some_and(|(_, best)| best.path == Path::Relayed);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let soon = Instant::now() + jitter(limits::BACKOFF_FIRST / 2);
        if relayed {
            peer.upgrade = peer.upgrade.map(|at| at.min(soon + limits::RELAY_DELAY));
        } else {
            peer.next = peer.next.min(soon);
        }
    }

    /// Dials what is known now and was not when the dial that is under way began, which may be waiting for a relay.
    /// Gives whether one is under way.
    fn dial_fresh(&mut self, node: NodeId) -> bool {
        let mut addresses = self.book.addresses(node);
        let Some(attempt) = self.peers.get(&node).and_then(|peer| peer.attempt.as_ref()) else {
            return false;
        };
        let later = attempt.tcp_at.iter().flat_map(|(_, addresses)| addresses);
        let known: HashSet<&Multiaddr> = attempt.dialling.values().flatten().chain(later).collect();
        addresses.retain(|address| !known.contains(address));
        self.dial(node, addresses);
        true
    }

    /// Tries to make a relayed path direct: dials the direct addresses, and opens a new relayed connection on
    /// which holes are punched anew, since that happens only when one begins.
    fn upgrade(&mut self, node: NodeId, now: Instant) {
        let Some((_, best)) = self.best(node) else { return };
        let relayed = best.path == Path::Relayed;
        let direct = self.book.addresses(node);
        let circuits = if self.config.punch { self.circuits(node) } else { Vec::new() };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if !relayed {
            peer.upgrade = None;
            return;
        }
        peer.upgrades = peer.upgrades.saturating_add(1);
        let pause = doubled(limits::UPGRADE_FIRST, peer.upgrades).min(limits::UPGRADE_LAST);
        peer.upgrade = Some(now + pause + jitter(pause / 2));
        self.dial(node, direct);
        self.dial(node, circuits.into_iter().take(1).collect());
    }

    /// Addresses of a node through the relays that are connected.
    pub(super) fn circuits(&self, node: NodeId) -> Vec<Multiaddr> {
        let Some(peer) = self.peers.get(&node) else { return Vec::new() };
        let relays = self.gate.relays.iter().filter(|relay| **relay != node && **relay != self.me);
        let through = relays.filter_map(|relay| {
            let connection = self.direct(*relay)?;
            Some(address::circuit(&connection.address, connection.peer, peer.peer_id))
        });
        through.take(limits::RESERVATIONS + 1).collect()
    }

    /// Whether a relay other than `node` is likely to be connected soon: it is connected and being set up, or it
    /// has not been dialled in vain for long.
    fn awaits_relay(&self, node: NodeId) -> bool {
        let others = self.gate.relays.iter().filter(|relay| **relay != node);
        let mut states = others.filter_map(|relay| self.peers.get(relay).map(|peer| (relay, peer)));
        states.any(|(relay, peer)| peer.failures <= PROMISING || self.is_connected(*relay))
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.saturating_sub(1).min(16))
}

/// The pause after so many failures in a row: doubled each time, the last quarter of it random.
fn backoff(failures: u32, relay: bool) -> Duration {
    let last = if relay { limits::BACKOFF_RELAY } else { limits::BACKOFF_LAST };
    let pause = doubled(limits::BACKOFF_FIRST, failures).min(last);
    pause.mul_f64(0.75) + jitter(pause / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_up_to_its_cap() {
        assert!(backoff(1, false) <= limits::BACKOFF_FIRST);
        assert!(backoff(1, false) >= limits::BACKOFF_FIRST / 2);
        for failures in [20, 1_000, u32::MAX] {
            assert!(backoff(failures, false) <= limits::BACKOFF_LAST);
            assert!(backoff(failures, false) > limits::BACKOFF_LAST / 2);
            assert!(backoff(failures, true) <= limits::BACKOFF_RELAY);
        }
    }
}
