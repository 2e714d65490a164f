//! The roll: who may connect, and as what. The gate writes it; everything that meets a connection reads it.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::identity::NodeId;
use libp2p::PeerId;

use crate::mesh::{handle::Gate, peer};

/// As what a peer is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// May open every protocol; the pool decides what it may do with them.
    Member,
    /// Holds the key of an open invite: may ask to join, nothing else.
    Guest,
}

/// Who may connect now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roll(Arc<RwLock<HashMap<PeerId, (NodeId, Role)>>>);

impl Roll {
    /// As what `peer` may connect; `None`: not at all.
    pub(crate) fn role(&self, peer: &PeerId) -> Option<(NodeId, Role)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(peer).copied()
    }

    /// Replaces the roll. A node that is a member and a guest is a member.
    pub(crate) fn set(&self, gate: &Gate, me: NodeId) {
        let guests = gate.guests.iter().map(|node| (*node, Role::Guest));
        let members = gate.members.iter().map(|node| (*node, Role::Member));
        let roll = guests
            .chain(members)
            .filter(|(node, _)| *node != me)
            .filter_map(|(node, role)| Some((peer::peer_id(node)?, (node, role))))
            .collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = roll;
    }
}
