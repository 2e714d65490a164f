//! Addresses: which kinds there are, which are told to whom, and in which order they are dialled.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use libp2p::{Multiaddr, PeerId, core::multiaddr::Protocol};

use crate::mesh::{handle::Path, limits};

/// The IP address that an address begins with.
pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// Whether the address leads through a relay.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Whether the address is one of this machine only.
pub(crate) fn is_loopback(address: &Multiaddr) -> bool {
    ip(address).is_some_and(|ip| ip.is_loopback())
}

/// Whether the address is spoken over TCP.
pub(crate) fn is_tcp(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::Tcp(_)))
}

/// Whether others may be told the address: not one that means something on this machine or this cable only.
pub(crate) fn is_tellable(address: &Multiaddr) -> bool {
    match ip(address) {
        Some(IpAddr::V4(ip)) => !(ip.is_unspecified() || ip.is_link_local() || ip.is_multicast()),
        Some(IpAddr::V6(ip)) => !(ip.is_unspecified() || is_link_local(ip) || ip.is_multicast()),
        None => true,
    }
}

/// Whether the address is valid everywhere, not only on some local network.
pub(crate) fn is_global(address: &Multiaddr) -> bool {
    match ip(address) {
        Some(IpAddr::V4(ip)) => {
            let [first, second, ..] = ip.octets();
            let shared = first == 100 && second & 0xc0 == 64;
            let local = ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared;
            !(local || first == 0 || first >= 224)
        }
        Some(IpAddr::V6(ip)) => ip.segments().first().is_some_and(|first| first & 0xe000 == 0x2000),
        None => false,
    }
}

fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80)
}

/// How an address leads to its node, apart from hole punching, which an address does not show.
pub(crate) fn path(address: &Multiaddr) -> Path {
    match ip(address) {
        _ if is_relayed(address) => Path::Relayed,
        Some(IpAddr::V6(_)) => Path::DirectV6,
        _ => Path::DirectV4,
    }
}

/// The address without the name of its node at the end.
pub(crate) fn bare(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

/// The address with the name of its node at the end.
pub(crate) fn named(address: &Multiaddr, peer: PeerId) -> Multiaddr {
    bare(address).with(Protocol::P2p(peer))
}

/// The address of `peer` through a relay.
pub(crate) fn circuit(relay_at: &Multiaddr, relay: PeerId, peer: PeerId) -> Multiaddr {
    named(relay_at, relay).with(Protocol::P2pCircuit).with(Protocol::P2p(peer))
}

/// Whether an address from outside is worth remembering: a direct one that the transports can dial, of sane size.
pub(crate) fn is_dialable(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let host = match parts.next() {
        Some(Protocol::Ip4(ip)) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        Some(Protocol::Ip6(ip)) => !ip.is_unspecified() && !ip.is_multicast() && !is_link_local(ip),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => !name.is_empty(),
        _ => false,
    };
    let transport = match (parts.next(), parts.next()) {
        (Some(Protocol::Tcp(port)), None | Some(Protocol::P2p(_))) => port != 0,
        (Some(Protocol::Udp(port)), Some(Protocol::QuicV1)) => port != 0,
        _ => false,
    };
    host && transport && !is_relayed(address) && address.len() <= limits::ADDRESS_BYTES
}

/// The addresses at which a listening socket of the mesh is asked for.
pub(crate) fn listen(at: SocketAddr, quic: bool) -> Multiaddr {
    let address = Multiaddr::empty().with(at.ip().into());
    if quic {
        address.with(Protocol::Udp(at.port())).with(Protocol::QuicV1)
    } else {
        address.with(Protocol::Tcp(at.port()))
    }
}

/// Orders addresses as they should be dialled: IPv6 first, then IPv4, then relays; QUIC before TCP.
pub(crate) fn order(addresses: &mut [Multiaddr]) {
    addresses.sort_by_key(|address| (path(address), is_tcp(address)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_direct_addresses_of_known_transports_are_remembered() {
        for good in [
            "/ip4/10.0.0.1/tcp/7686",
            "/ip4/10.0.0.1/udp/7686/quic-v1",
            "/ip6/2001:db8::1/udp/7686/quic-v1",
            "/dns4/home.example/tcp/7686",
        ] {
            assert!(is_dialable(&at(good)), "{good}");
        }
        for bad in [
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/10.0.0.1/tcp/0",
            "/ip4/10.0.0.1",
            "/ip4/10.0.0.1/udp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip4/224.0.0.1/udp/1/quic-v1",
            "/memory/1",
            "/ip4/10.0.0.1/tcp/1/ws",
        ] {
            assert!(!is_dialable(&at(bad)), "{bad}");
        }
        let relayed = circuit(&at("/ip4/1.2.3.4/tcp/1"), PeerId::random(), PeerId::random());
        assert!(!is_dialable(&relayed));
    }

    #[test]
    fn ipv6_comes_first_and_quic_before_tcp() {
        let mut addresses = [
            circuit(&at("/ip4/1.2.3.4/tcp/1"), PeerId::random(), PeerId::random()),
            at("/ip4/1.2.3.4/tcp/1"),
            at("/ip4/1.2.3.4/udp/1/quic-v1"),
            at("/ip6/::1/tcp/1"),
        ];
        order(&mut addresses);
        assert_eq!(addresses[0], at("/ip6/::1/tcp/1"));
        assert_eq!(addresses[1], at("/ip4/1.2.3.4/udp/1/quic-v1"));
        assert!(is_relayed(&addresses[3]));
    }
}
