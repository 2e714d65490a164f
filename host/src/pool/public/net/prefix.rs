//! The part of the internet that an address is in.

use std::{fmt, net::IpAddr};

use libp2p::Multiaddr;

use crate::mesh::address;

/// A /24 of IPv4 or a /48 of IPv6: about what one owner gets at once, so that keys in many of them are dear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// The first three bytes.
    V4([u8; 3]),
    /// The first three groups.
    V6([u16; 3]),
}

impl Prefix {
    /// The prefix of an IP address. One of IPv4 inside IPv6 is one of IPv4.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, ..] = ip.segments();
                Self::V6([a, b, c])
            }
        }
    }

    /// The prefix of an address that begins with an IP address.
    pub fn at(address: &Multiaddr) -> Option<Self> {
        address::ip(address).map(Self::of)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4([a, b, c]) => write!(f, "{a}.{b}.{c}.0/24"),
            Self::V6([a, b, c]) => write!(f, "{a:x}:{b:x}:{c:x}::/48"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_prefix_and_others_do_not() {
        let of = |text: &str| Prefix::of(text.parse().unwrap());
        assert_eq!(of("10.1.2.3"), of("10.1.2.255"));
        assert_eq!(of("10.1.2.3"), of("::ffff:10.1.2.9"));
        assert_ne!(of("10.1.2.3"), of("10.1.3.3"));
        assert_eq!(of("2001:db8:1::1"), of("2001:db8:1:ffff::9"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
        assert_eq!(of("10.1.2.3").to_string(), "10.1.2.0/24");
        assert_eq!(of("2001:db8:1::1").to_string(), "2001:db8:1::/48");
    }
}
