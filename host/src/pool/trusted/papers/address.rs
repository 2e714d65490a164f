//! Addresses in an invite: as text for everybody else, in few bytes where every character counts.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::identity::NodeId;

/// Most addresses in an invite.
pub const MAX_ADDRESSES: usize = 8;
/// Longest address, in bytes.
const MAX_ADDRESS: usize = 255;

/// Where a machine can be dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The machine.
    pub node: NodeId,
    /// Its addresses, as multiaddr text, the best first.
    pub addresses: Vec<String>,
}

/// Protocols that take no value, by code.
const BARE: [(u8, &str); 4] = [(5, "quic-v1"), (6, "p2p-circuit"), (11, "ws"), (12, "quic")];
/// Protocols that take a value of their own form, by code.
const VALUED: [(u8, &str); 7] =
    [(1, "ip4"), (2, "ip6"), (3, "tcp"), (4, "udp"), (7, "p2p"), (8, "dns"), (9, "dns4")];
/// An address whose form is not known: its text.
const TEXT: u8 = 0;

/// An address in few bytes; text that has no shorter form stays text. `None` if it is too long.
pub(super) fn shrink(address: &str) -> Option<Vec<u8>> {
    if address.len() > MAX_ADDRESS {
        return None;
    }
    let short = compress(address).filter(|bytes| grow(bytes).as_deref() == Some(address));
    Some(short.unwrap_or_else(|| [&[TEXT], address.as_bytes()].concat()))
}

/// The text of an address in few bytes.
pub(super) fn grow(bytes: &[u8]) -> Option<String> {
    if let Some((&TEXT, text)) = bytes.split_first() {
        let text = std::str::from_utf8(text).ok()?;
        return (text.len() <= MAX_ADDRESS && text.chars().all(|c| c.is_ascii_graphic()))
            .then(|| text.to_owned());
    }
    let mut rest = bytes;
    let mut text = String::new();
    while let Some((code, tail)) = rest.split_first() {
        rest = tail;
        if let Some((_, word)) = BARE.iter().find(|(known, _)| known == code) {
            text.push('/');
            text.push_str(word);
            continue;
        }
        let (_, word) = VALUED.iter().find(|(known, _)| known == code)?;
        let (value, tail) = value(word, rest)?;
        rest = tail;
        text.push_str(&format!("/{word}/{value}"));
    }
    (!text.is_empty() && text.len() <= MAX_ADDRESS).then_some(text)
}

fn compress(address: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut words = address.strip_prefix('/')?.split('/');
    while let Some(word) = words.next() {
        if let Some((code, _)) = BARE.iter().find(|(_, known)| *known == word) {
            bytes.push(*code);
            continue;
        }
        let (code, _) = VALUED.iter().find(|(_, known)| *known == word)?;
        bytes.push(*code);
        let value = words.next()?;
        match word {
            "ip4" => bytes.extend(value.parse::<Ipv4Addr>().ok()?.octets()),
            "ip6" => bytes.extend(value.parse::<Ipv6Addr>().ok()?.octets()),
            "tcp" | "udp" => bytes.extend(value.parse::<u16>().ok()?.to_be_bytes()),
            _ => {
                bytes.push(u8::try_from(value.len()).ok()?);
                bytes.extend(value.as_bytes());
            }
        }
    }
    Some(bytes)
}

/// The value at the start of `bytes`, and what follows it.
fn value<'b>(word: &str, bytes: &'b [u8]) -> Option<(String, &'b [u8])> {
    match word {
        "ip4" => bytes.split_first_chunk::<4>().map(|(it, rest)| (Ipv4Addr::from(*it).to_string(), rest)),
        "ip6" => bytes.split_first_chunk::<16>().map(|(it, rest)| (Ipv6Addr::from(*it).to_string(), rest)),
        "tcp" | "udp" => {
            bytes.split_first_chunk::<2>().map(|(it, rest)| (u16::from_be_bytes(*it).to_string(), rest))
        }
        _ => {
            let (length, rest) = bytes.split_first()?;
            let (text, rest) = rest.split_at_checked(usize::from(*length))?;
            let text = std::str::from_utf8(text).ok()?;
            text.chars().all(|c| c.is_ascii_graphic() && c != '/').then(|| (text.to_owned(), rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for (address, most) in [
            ("/ip4/192.168.1.23/udp/40123/quic-v1", 9),
            ("/ip6/2001:db8::1/tcp/443", 20),
            ("/dns4/home.example.org/udp/1/quic-v1/p2p/12D3KooW/p2p-circuit", 40),
            ("/ip4/010.1.1.1/tcp/1", 21),
            ("/memory/77", 11),
            ("odd", 4),
        ] {
            let bytes = shrink(address).unwrap();
            assert!(bytes.len() <= most, "{address}: {}", bytes.len());
            assert_eq!(grow(&bytes).as_deref(), Some(address));
        }
        assert_eq!(shrink(&"/".repeat(256)), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_address_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(text) = grow(&bytes) {
                prop_assert_eq!(grow(&shrink(&text).unwrap()), Some(text));
            }
        }
    }
}
