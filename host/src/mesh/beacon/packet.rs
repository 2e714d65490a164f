//! A beacon as bytes: a random nonce, then the sealed message, padded so that its length says little.

use crate::identity::NodeId;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use libp2p::Multiaddr;
use minicbor::{Decode, Encode, bytes::ByteVec};

use crate::mesh::{address, limits};

/// Bytes of the nonce.
pub(super) const NONCE: usize = 24;
/// What the seal adds at the end.
const TAG: usize = 16;
/// Messages are padded to a multiple of this.
const BLOCK: usize = 128;
/// Bound into the seal, so that a packet of another kind or version never opens.
const CONTEXT: &[u8] = b"potluck beacon 1";

/// What a beacon says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beacon {
    pub(crate) node: NodeId,
    pub(crate) addresses: Vec<Multiaddr>,
    /// Milliseconds since 1970.
    pub(crate) time: i64,
    /// Whether it asks others to send theirs soon.
    pub(crate) asks: bool,
}

#[derive(Encode, Decode)]
struct Message {
    #[n(0)]
    node: NodeId,
    #[n(1)]
    addresses: Vec<ByteVec>,
    #[n(2)]
    time: i64,
    #[n(3)]
    asks: bool,
}

/// Seals a beacon; leaves out addresses that do not fit. `nonce` must be random and never used again.
pub(super) fn seal(key: &[u8; 32], beacon: &Beacon, nonce: [u8; NONCE]) -> Option<Vec<u8>> {
    let mut addresses: Vec<_> =
        beacon.addresses.iter().map(|address| ByteVec::from(address.to_vec())).collect();
    loop {
        let message = Message { node: beacon.node, addresses, time: beacon.time, asks: beacon.asks };
        let bytes = minicbor::to_vec(&message).ok()?;
        let mut plain = u16::try_from(bytes.len()).ok()?.to_be_bytes().to_vec();
        plain.extend(bytes);
        plain.resize(plain.len().next_multiple_of(BLOCK), 0);
        if NONCE + plain.len() + TAG <= limits::BEACON_BYTES {
            let payload = Payload { msg: &plain, aad: CONTEXT };
            let sealed = XChaCha20Poly1305::new(key.into()).encrypt(&XNonce::from(nonce), payload).ok()?;
            return Some([nonce.as_slice(), &sealed].concat());
        }
        addresses = message.addresses;
        addresses.pop()?;
    }
}

/// Opens a packet; `None` for everything that was not sealed under the key or says nothing sensible.
pub(super) fn open(key: &[u8; 32], packet: &[u8]) -> Option<Beacon> {
    if packet.len() > limits::BEACON_BYTES {
        return None;
    }
    let (nonce, sealed) = packet.split_first_chunk::<NONCE>()?;
    let payload = Payload { msg: sealed, aad: CONTEXT };
    let plain = XChaCha20Poly1305::new(key.into()).decrypt(&XNonce::from(*nonce), payload).ok()?;
    let (length, rest) = plain.split_first_chunk::<2>()?;
    let bytes = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    let message: Message = minicbor::decode(bytes).ok()?;
    let addresses = message.addresses.into_iter().take(limits::BEACON_ADDRESSES);
    let addresses = addresses.filter_map(|bytes| Multiaddr::try_from(Vec::from(bytes)).ok());
    let addresses = addresses.filter(address::is_dialable).collect();
    Some(Beacon { node: message.node, addresses, time: message.time, asks: message.asks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beacon(addresses: usize) -> Beacon {
        let at = |n: usize| format!("/ip6/2001:db8::{n:x}/udp/7686/quic-v1").parse().unwrap();
        let addresses = (1..=addresses).map(at).collect();
        Beacon { node: NodeId([3; 32]), addresses, time: 1_000_000, asks: true }
    }

    #[test]
    fn only_the_key_opens_it() {
        let packet = seal(&[1; 32], &beacon(3), [9; NONCE]).unwrap();
        assert_eq!(open(&[1; 32], &packet), Some(beacon(3)));
        assert_eq!(open(&[2; 32], &packet), None);
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            assert_eq!(open(&[1; 32], &changed), None, "byte {at}");
        }
        for length in 0..packet.len() {
            assert_eq!(open(&[1; 32], &packet[..length]), None);
        }
    }

    #[test]
    fn sizes_say_little_and_have_a_cap() {
        let size = |n| seal(&[1; 32], &beacon(n), [9; NONCE]).unwrap().len();
        assert_eq!(size(0), size(2));
        for n in [1, 20, 100] {
            assert!(size(n) <= limits::BEACON_BYTES);
        }
        let opened = open(&[1; 32], &seal(&[1; 32], &beacon(100), [9; NONCE]).unwrap()).unwrap();
        assert_eq!(opened.addresses.len(), limits::BEACON_ADDRESSES);
        assert_eq!(open(&[1; 32], &vec![0; limits::BEACON_BYTES + 1]), None);
    }
}
