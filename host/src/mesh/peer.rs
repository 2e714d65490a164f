//! Names: a [`NodeId`] is an ed25519 key, and libp2p's `PeerId` is another spelling of the same key.

use crate::identity::NodeId;
use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey, ed25519},
};

/// The key pair of a seed.
pub(crate) fn keypair(mut seed: [u8; 32]) -> Option<Keypair> {
    Keypair::ed25519_from_bytes(&mut seed).ok()
}

/// The node of a key pair.
pub(crate) fn node_of(key: &PublicKey) -> Option<NodeId> {
    key.clone().try_into_ed25519().ok().map(|key| NodeId(key.to_bytes()))
}

/// libp2p's name of a node; `None` if its bytes are no key.
pub(crate) fn peer_id(node: NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&node.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The node behind libp2p's name of it; `None` where the key is of another kind.
pub(crate) fn node_id(peer: &PeerId) -> Option<NodeId> {
    // Short keys stand whole inside the name.
    let hash = peer.as_ref();
    if hash.code() != 0 {
        return None;
    }
    node_of(&PublicKey::try_decode_protobuf(hash.digest()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_way_there_and_back() {
        let key = keypair([7; 32]).unwrap();
        let node = node_of(&key.public()).unwrap();
        assert_eq!(peer_id(node).unwrap(), key.public().to_peer_id());
        assert_eq!(node_id(&key.public().to_peer_id()), Some(node));
        assert_eq!(node, crate::identity::Signer::from_seed([7; 32]).node());
    }

    #[test]
    fn what_is_no_ed25519_key_has_no_node() {
        assert_eq!(node_id(&PeerId::random()), None);
    }
}
