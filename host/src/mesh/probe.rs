//! What came of dialling an address, in words.

use std::{error::Error, fmt, io, time::Duration};

use crate::identity::NodeId;
use libp2p::{
    Multiaddr, TransportError,
    swarm::{ConnectionDenied, DialError},
};

use crate::mesh::{gatekeeper::Denied, peer};

/// One address that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The address.
    pub address: Multiaddr,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// What came of dialling an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node answers there.
    Connected,
    /// The machine is there, but nothing listens on the port.
    Refused,
    /// Nothing came back: the machine is off, or something on the way drops the packets.
    TimedOut,
    /// The network says that there is no way there.
    NoRoute,
    /// Another node answers there.
    WrongKey(Option<NodeId>),
    /// The node hung up when the handshake was over: it does not know this node as a member (yet, or any longer).
    NotMember,
    /// This node does not count that one as a member.
    NotOurMember,
    /// The relay on the way does not have the node.
    NotAtRelay,
    /// The address is of a kind this node does not speak.
    Unsupported,
    /// Something else.
    Other(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Refused => f.write_str("refused: the machine is there, but no node listens on that port"),
            Self::TimedOut => f.write_str(
                "timed out: the machine is off, or a firewall or NAT on the way drops the packets",
            ),
            Self::NoRoute => f.write_str("no route: this machine's network does not lead there"),
            Self::WrongKey(Some(node)) => {
                write!(f, "another machine answers there: wrong key ({})", node.short())
            }
            Self::WrongKey(None) => f.write_str("another machine answers there: wrong key"),
            Self::NotMember => f.write_str("not a member there: it hung up after the handshake"),
            Self::NotOurMember => f.write_str("not a member here: this node would not let it in"),
            Self::NotAtRelay => f.write_str("the relay does not have it: it is offline or uses other relays"),
            Self::Unsupported => f.write_str("an address of a kind this node does not speak"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// What a failed dial means for each of its addresses.
pub(crate) fn explain(error: &DialError, dialled: &[Multiaddr]) -> Vec<(Multiaddr, Outcome)> {
    let all = |outcome: Outcome| dialled.iter().map(|address| (address.clone(), outcome.clone())).collect();
    match error {
        DialError::Transport(errors) => {
            errors.iter().map(|(address, error)| (address.clone(), transport(error))).collect()
        }
        DialError::WrongPeerId { obtained, address } => {
            vec![(address.clone(), Outcome::WrongKey(peer::node_id(obtained)))]
        }
        DialError::Denied { cause } => all(denied(cause)),
        DialError::LocalPeerId { .. } => all(Outcome::Other("this machine itself answers there".into())),
        DialError::NoAddresses => Vec::new(),
        DialError::Aborted => all(Outcome::Other("given up".into())),
        DialError::DialPeerConditionFalse(_) => all(Outcome::Other("already connected".into())),
    }
}

fn denied(cause: &ConnectionDenied) -> Outcome {
    match cause.downcast_ref::<Denied>() {
        Some(Denied::NotMember) => Outcome::NotOurMember,
        _ => Outcome::Other(format!("refused here: {cause}")),
    }
}

fn transport(error: &TransportError<io::Error>) -> Outcome {
    match error {
        TransportError::MultiaddrNotSupported(_) => Outcome::Unsupported,
        TransportError::Other(error) => cause(error),
    }
}

/// Looks through the layers of an error for one that says something.
fn cause(error: &(dyn Error + 'static)) -> Outcome {
    let mut text = String::new();
    let mut layer = Some(error);
    while let Some(error) = layer {
        if let Some(outcome) = error.downcast_ref::<io::Error>().and_then(known) {
            return outcome;
        }
        text = error.to_string();
        if let Some(outcome) = worded(&text) {
            return outcome;
        }
        // An `io::Error` around another error skips that error when asked for its source.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        layer = inner.map_or_else(|| error.source(), |inner| Some(inner as &(dyn Error + 'static)));
    }
    Outcome::Other(text)
}

fn known(error: &io::Error) -> Option<Outcome> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(Outcome::Refused),
        io::ErrorKind::TimedOut => Some(Outcome::TimedOut),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Some(Outcome::NoRoute),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => Some(Outcome::Other(
            "something answers there and hangs up: no node, or one that is overloaded".into(),
        )),
        _ => None,
    }
}

fn worded(text: &str) -> Option<Outcome> {
    let text = text.to_lowercase();
    let says = |what: &str| text.contains(what);
    if says("timed out") || says("timeout") {
        Some(Outcome::TimedOut)
    } else if says("no reservation") || says("noreservation") {
        Some(Outcome::NotAtRelay)
    } else if says("refused") {
        Some(Outcome::Refused)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_errors_are_looked_through() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let wrapped = io::Error::other(io::Error::other(refused));
        assert_eq!(cause(&wrapped), Outcome::Refused);
        let slow = io::Error::other("Handshake with the remote timed out.");
        assert_eq!(cause(&slow), Outcome::TimedOut);
        assert_eq!(cause(&io::Error::other("strange")), Outcome::Other("strange".into()));
    }
}
