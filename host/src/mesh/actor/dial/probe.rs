//! Probes: every address of a member dialled on its own, to say which work and why the others do not.

use std::time::{Duration, Instant};

use crate::identity::NodeId;
use libp2p::{
    Multiaddr,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::sync::oneshot;

use crate::mesh::{
    actor::Actor,
    address, limits, peer,
    probe::{Attempt, Outcome, explain},
};

/// A probe under way.
pub(crate) struct Probe {
    reply: oneshot::Sender<Vec<Attempt>>,
    began: Instant,
    slots: Vec<Slot>,
}

/// One of its addresses.
struct Slot {
    address: Multiaddr,
    id: ConnectionId,
    done: Option<(Outcome, Duration)>,
}

impl Actor {
    pub(in crate::mesh::actor) fn probe(&mut self, node: NodeId, reply: oneshot::Sender<Vec<Attempt>>) {
        let mut addresses = self.book.addresses(node);
        addresses.extend(self.circuits(node));
        addresses.truncate(limits::DIAL_ADDRESSES);
        let began = Instant::now();
        let mut slots = Vec::new();
        for address in addresses {
            let Some(peer_id) = peer::peer_id(node) else { continue };
            let options = DialOpts::peer_id(peer_id).condition(PeerCondition::Always);
            // Over TCP the usual port would clash with the connection that may stand between the same ends.
            let options = if address::is_tcp(&address) && !address::is_relayed(&address) {
                options.allocate_new_port()
            } else {
                options
            };
            let options = options.addresses(vec![address.clone()]).build();
            let id = options.connection_id();
            let failed = self.swarm.dial(options).err();
            let done = failed.map(|error| (first(&error, &address), began.elapsed()));
            slots.push(Slot { address, id, done });
        }
        self.probes.push(Probe { reply, began, slots });
        self.look_after_probes(began);
    }

    fn slot(&mut self, id: ConnectionId) -> Option<(&mut Slot, Instant)> {
        self.probes.iter_mut().find_map(|probe| {
            let began = probe.began;
            probe.slots.iter_mut().find(|slot| slot.id == id && slot.done.is_none()).map(|slot| (slot, began))
        })
    }

    pub(in crate::mesh::actor) fn is_probe(&self, id: ConnectionId) -> bool {
        self.probes.iter().any(|probe| probe.slots.iter().any(|slot| slot.id == id))
    }

    fn settle(&mut self, id: ConnectionId, outcome: Outcome) -> bool {
        let Some((slot, began)) = self.slot(id) else { return false };
        slot.done = Some((outcome, began.elapsed()));
        true
    }

    pub(in crate::mesh::actor) fn probe_failed(&mut self, id: ConnectionId, error: &DialError) -> bool {
        let Some((slot, _)) = self.slot(id) else { return false };
        let outcome = first(error, &slot.address);
        self.settle(id, outcome)
    }

    /// The other side has answered on a probing connection.
    pub(in crate::mesh::actor) fn probe_proved(&mut self, id: ConnectionId) {
        self.settle(id, Outcome::Connected);
    }

    pub(in crate::mesh::actor) fn probe_closed(&mut self, id: ConnectionId) {
        self.settle(id, Outcome::NotMember);
    }

    pub(in crate::mesh::actor) fn look_after_probes(&mut self, now: Instant) {
        let over = |probe: &Probe| {
            now.saturating_duration_since(probe.began) >= limits::PROBE
                || probe.slots.iter().all(|slot| slot.done.is_some())
        };
        for probe in self.probes.extract_if(.., |probe| over(probe)).collect::<Vec<_>>() {
            self.answer(probe);
        }
    }

    /// Tells what came of a probe, and closes its connections, except where there is no other.
    fn answer(&mut self, probe: Probe) {
        let mut attempts = Vec::new();
        for slot in probe.slots {
            let (outcome, took) = slot.done.unwrap_or((Outcome::TimedOut, limits::PROBE));
            attempts.push(Attempt { address: slot.address, outcome, took });
            let Some(connection) = self.connections.get_mut(&slot.id) else { continue };
            connection.probing = false;
            let node = connection.node;
            if self.best(node).is_some_and(|(best, _)| best != slot.id) {
                self.close(slot.id);
            }
        }
        let _ = probe.reply.send(attempts);
    }
}

fn first(error: &DialError, address: &Multiaddr) -> Outcome {
    let mut outcomes = explain(error, std::slice::from_ref(address)).into_iter();
    outcomes.next().map_or(Outcome::Other(error.to_string()), |(_, outcome)| outcome)
}
