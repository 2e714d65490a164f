//! Messages: published, judged, passed on.

use std::time::Instant;

use libp2p::{
    PeerId,
    gossipsub::{self, IdentTopic, MessageAcceptance, PublishError},
};

use super::Actor;
use crate::{
    identity::NodeId,
    mesh::peer,
    pool::public::net::{Heard, NetError, Prefix, TOPIC, gossip},
};

impl Actor {
    pub(super) fn publish(&mut self, data: Vec<u8>) -> Result<(), NetError> {
        match self.swarm.behaviour_mut().gossip.publish(IdentTopic::new(TOPIC), data) {
            Ok(_) | Err(PublishError::Duplicate) => Ok(()),
            Err(PublishError::NoPeersSubscribedToTopic) => Err(NetError::Alone),
            Err(error) => Err(NetError::Refused(error.to_string())),
        }
    }

    pub(super) fn on_gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message { propagation_source, message_id, message } = event else { return };
        let source = message.source.as_ref().and_then(peer::node_id);
        let verdict = match (peer::node_id(&propagation_source), source) {
            (Some(from), Some(source)) => self.judge(from, source, message.data.len()),
            _ => gossip::Verdict::Drop,
        };
        let acceptance = match verdict {
            gossip::Verdict::Take => MessageAcceptance::Accept,
            gossip::Verdict::Drop | gossip::Verdict::Ban => MessageAcceptance::Ignore,
        };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
        match (verdict, source) {
            (gossip::Verdict::Take, Some(source)) => {
                // Without a listener nobody wants to know.
                let _ = self.heard.send(Heard { source, data: message.data.into() });
            }
            (gossip::Verdict::Ban, _) => self.ban(propagation_source),
            _ => {}
        }
    }

    fn judge(&mut self, from: NodeId, source: NodeId, bytes: usize) -> gossip::Verdict {
        let place = self.connections.values().find(|connection| connection.node == from);
        let prefix = place.and_then(|connection| Prefix::at(&connection.address));
        self.sieve.judge((from, prefix), source, bytes, Instant::now())
    }

    /// Keeps a peer that floods out for a while.
    fn ban(&mut self, peer: PeerId) {
        tracing::warn!(%peer, "peer banned for a while: it floods the network");
        let rooms = self.swarm.behaviour_mut();
        rooms.brake.ban(peer, gossip::BAN);
        rooms.gossip.blacklist_peer(&peer);
        rooms.kad.remove_peer(&peer);
        if !self.banned.contains(&peer) {
            self.banned.push(peer);
        }
        let its: Vec<_> =
            self.connections.iter().filter(|(_, it)| it.peer == peer).map(|(id, _)| *id).collect();
        for id in its {
            self.close(id);
        }
    }

    /// Lets those off whose ban is over.
    pub(super) fn let_off(&mut self) {
        let rooms = self.swarm.behaviour_mut();
        self.banned.retain(|peer| {
            let banned = rooms.brake.is_banned(peer);
            if !banned {
                rooms.gossip.remove_blacklisted_peer(peer);
            }
            banned
        });
    }
}
