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
    /// A stranger on a network that everybody may join: may open every protocol, and is disconnected when idle.
    Stranger,
}

/// Who may connect now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roll {
    listed: Arc<RwLock<HashMap<PeerId, (NodeId, Role)>>>,
    /// Whether whoever is not listed is a stranger rather than nobody.
    open: bool,
}

impl Roll {
    /// Everybody may connect.
    #[cfg(feature = "public")]
    pub(crate) fn everybody() -> Self {
        Self { listed: Arc::default(), open: true }
    }

    /// As what `peer` may connect; `None`: not at all.
    pub(crate) fn role(&self, peer: &PeerId) -> Option<(NodeId, Role)> {
        let listed = self.listed.read().unwrap_or_else(PoisonError::into_inner).get(peer).copied();
        if listed.is_some() || !self.open {
            return listed;
        }
        Some((peer::node_id(peer)?, Role::Stranger))
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
        *self.listed.write().unwrap_or_else(PoisonError::into_inner) = roll;
    }
}
