//! What others are told about where this node is.
//!
//! Members hear every address that might work and try them all, so an address need not be proved to be told; but
//! nothing that means something on this machine only goes out, unless there is nothing else.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::identity::NodeId;
use libp2p::{Multiaddr, swarm::ConnectionId};

use super::Actor;
use tokio::sync::oneshot;

use crate::mesh::{
    address,
    door::Wanted,
    hello::{self, HELLO, Hello},
    roll::Role,
};

/// Addresses told at once. libp2p keeps 20, and relayed ones come on top.
const TOLD: usize = 16;
/// Addresses as seen by others that are told at once.
const OBSERVED: usize = 4;

/// The addresses of this node.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Where its sockets listen.
    pub(super) listening: BTreeSet<Multiaddr>,
    announced: BTreeSet<Multiaddr>,
    /// Where others see it, by the connection on which they do.
    observed: HashMap<ConnectionId, (NodeId, Multiaddr)>,
    /// Whether an address of its own was reached from outside.
    confirmed: bool,
    /// What the swarm was last given.
    given: BTreeSet<Multiaddr>,
}

impl Told {
    pub(super) fn announce(&mut self, address: Multiaddr) {
        self.announced.insert(address::bare(&address));
    }

    pub(super) fn forget_observed(&mut self) {
        self.observed.clear();
        self.confirmed = false;
    }

    /// Addresses that several members see, or the only one that sees any: a NAT that shows each of them another
    /// is no use to anybody else.
    fn mapped(&self) -> Vec<Multiaddr> {
        let mut seen: HashMap<&Multiaddr, HashSet<NodeId>> = HashMap::new();
        for (node, address) in self.observed.values() {
            seen.entry(address).or_default().insert(*node);
        }
        let witnesses: HashSet<_> = self.observed.values().map(|(node, _)| *node).collect();
        let mut mapped: Vec<_> =
            seen.into_iter().filter(|(_, by)| by.len() > 1 || witnesses.len() == 1).collect();
        mapped.sort_by_key(|(address, by)| (std::cmp::Reverse(by.len()), (*address).clone()));
        mapped.into_iter().map(|(address, _)| address.clone()).take(OBSERVED).collect()
    }

    fn wanted(&self, local_only: bool) -> BTreeSet<Multiaddr> {
        let tellable = self.listening.iter().filter(|at| address::is_tellable(at));
        let (local, wide): (Vec<_>, Vec<_>) = tellable.cloned().partition(address::is_loopback);
        let listening = if local_only { local } else { wide };
        let all = self.announced.iter().cloned().chain(self.mapped()).chain(listening);
        let mut wanted = BTreeSet::new();
        for address in all {
            if wanted.len() < TOLD {
                wanted.insert(address);
            }
        }
        wanted
    }

    /// Somebody reached this node at an address by dialling it anew.
    pub(super) fn confirm(&mut self, address: &Multiaddr) {
        let address = address::bare(address);
        if address::is_global(&address) && self.listening.contains(&address) {
            self.confirmed = true;
        }
    }

    /// Whether this node needs no relay to be reached: its owner says so, or somebody reached it at an address of
    /// its own that is valid everywhere. An address that a NAT lends does not count: it may be lent to one peer
    /// only, or taken back.
    pub(super) fn is_public(&self) -> bool {
        self.confirmed || !self.announced.is_empty()
    }
}

impl Actor {
    /// A member sees this node at an address.
    pub(super) fn observed(&mut self, id: ConnectionId, seen: Multiaddr) {
        let Some(connection) = self.connections.get(&id) else { return };
        let seen = address::bare(&seen);
        if connection.line.role != Role::Member || !address::is_dialable(&seen) {
            return;
        }
        let node = connection.node;
        self.candidate(&seen);
        self.told.observed.insert(id, (node, seen));
        self.tell();
    }

    /// Holes are punched towards the addresses at which this node is seen from outside; whether one can be reached
    /// is asked of those that are valid everywhere.
    ///
    /// An address of a local network is left out: the other side may have the same one, or know somebody else
    /// there, and a punch that ends at the wrong machine ends all that are tried with it. Direct dials try those.
    fn candidate(&mut self, address: &Multiaddr) {
        let global = address::is_global(address);
        let rooms = self.swarm.behaviour_mut();
        if global {
            rooms.reach.candidate(address);
        }
        let mapped = !self.told.listening.contains(address) && !address::is_loopback(address);
        let trying = self.config.loopback && address::is_loopback(address);
        if let Some(punch) = rooms.punch.as_mut().filter(|_| global || mapped || trying) {
            punch.candidate(address);
        }
    }

    pub(super) fn unobserved(&mut self, id: ConnectionId) {
        if self.told.observed.remove(&id).is_some() {
            self.tell();
        }
    }

    /// Gives the swarm, and everybody who watches, the addresses of this node as they are now.
    pub(super) fn tell(&mut self) {
        let local_only = self.config.listen.iter().all(|at| at.ip().is_loopback());
        let wanted = self.told.wanted(local_only);
        let given = std::mem::replace(&mut self.told.given, wanted.clone());
        for address in given.difference(&wanted) {
            self.swarm.remove_external_address(address);
        }
        for address in wanted.difference(&given) {
            self.swarm.add_external_address(address.clone());
        }
        let me = *self.swarm.local_peer_id();
        let mut all: Vec<_> = self.swarm.external_addresses().map(|at| address::named(at, me)).collect();
        all.extend(self.relayed_addresses());
        all.sort();
        all.dedup();
        address::order(&mut all);
        let changed = self.addresses.send_if_modified(|shown| {
            let changed = **shown != all;
            *shown = std::sync::Arc::new(all);
            changed
        });
        if changed {
            self.greet();
        }
    }

    /// Tells every connected member what has changed.
    pub(super) fn greet(&mut self) {
        let hello = Hello { addresses: self.addresses.borrow().to_vec(), protocols: self.board.protocols() };
        let members: Vec<_> =
            self.peers.iter().filter(|(_, peer)| peer.shown.is_some()).map(|(node, _)| *node).collect();
        for node in members {
            let (reply, opened) = oneshot::channel();
            if self.open_on_best(Wanted { node, protocol: HELLO, reply }).is_ok() {
                tokio::spawn(hello::say(opened, hello.clone()));
            }
        }
    }
}
