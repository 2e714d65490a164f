//! Frames between a requester and a relay: one size, two kinds.

use std::io;

use minicbor::{Decode, Encode};

use crate::{identity::NodeId, mesh::frame as cbor, pool::public::cell::CELL};

/// Bytes of a frame: what it is, then a cell or a padded message.
pub const FRAME: usize = 1 + CELL;
/// The most bytes of a toll.
pub const TOLL_BYTES: usize = 900;
/// The most bytes of what a relay says about a toll it does not take.
const TEXT_BYTES: usize = 200;

/// A frame whose rest is a cell, which the relay passes on.
pub(super) const DATA: u8 = 0;
/// A frame whose rest is a message between requester and relay.
pub(super) const CONTROL: u8 = 1;

/// Why a relay refuses or closes a circuit.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Reason {
    /// It carries as many circuits as it may.
    #[n(0)]
    #[error("the relay is full; choose another")]
    Full,
    /// It carries as many circuits of this requester as it may.
    #[n(1)]
    #[error("the relay carries as many circuits of this requester as it may; wait, or choose another")]
    Busy,
    /// It cannot reach the provider.
    #[n(2)]
    #[error("the relay cannot reach the provider; choose another relay or provider")]
    Unreachable,
    /// It does not take the toll.
    #[n(3)]
    #[error("the relay does not take the toll: {0}")]
    Toll(#[n(0)] String),
    /// The toll is used up and no other came in time.
    #[n(4)]
    #[error("the toll is used up and no other came in time")]
    Unpaid,
    /// Nothing went either way for too long.
    #[n(5)]
    #[error("the circuit was silent for too long")]
    Idle,
    /// A frame that does not belong there.
    #[n(6)]
    #[error("a frame broke the protocol of the relay")]
    Malformed,
    /// The provider ended the stream, or the connection with it broke.
    #[n(7)]
    #[error("the provider is gone")]
    Gone,
}

impl Reason {
    /// A toll that is not taken, with what is said about it cut to a size that fits.
    pub(super) fn toll(mut text: String) -> Self {
        text.truncate(text.floor_char_boundary(TEXT_BYTES));
        Self::Toll(text)
    }
}

/// A message between requester and relay.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Control {
    /// Requester: a circuit with this provider.
    #[n(0)]
    Open {
        #[n(0)]
        provider: NodeId,
        #[cbor(n(1), with = "minicbor::bytes")]
        toll: Vec<u8>,
    },
    /// Relay: it stands, and so many cells are paid for.
    #[n(1)]
    Opened {
        #[n(0)]
        cells: u64,
    },
    /// Requester: a further toll.
    #[n(2)]
    Toll {
        #[cbor(n(0), with = "minicbor::bytes")]
        toll: Vec<u8>,
    },
    /// Relay: so many more cells are paid for.
    #[n(3)]
    Paid {
        #[n(0)]
        cells: u64,
    },
    /// Relay: refused, or at its end.
    #[n(4)]
    Closed {
        #[n(0)]
        reason: Reason,
    },
    /// Requester: no more cells will come. Without it the end of the stream means that the requester is gone.
    #[n(5)]
    Finished,
}

impl Control {
    /// The frame of this message, appended to `out`.
    pub(super) fn frame(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let bytes = minicbor::to_vec(self).map_err(io::Error::other)?;
        let length = u16::try_from(bytes.len()).ok().filter(|_| bytes.len() + 3 <= FRAME);
        let length = length.ok_or_else(|| io::Error::other("a message longer than a frame"))?;
        let at = out.len();
        out.push(CONTROL);
        out.extend(length.to_be_bytes());
        out.extend(bytes);
        out.resize(at + FRAME, 0);
        Ok(())
    }

    /// The message in what follows the first byte of a frame; `None` where there is none.
    pub(super) fn parse(rest: &[u8]) -> Option<Self> {
        let ([high, low], rest) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (message, padding) = rest.split_at_checked(length)?;
        let sane = padding.iter().all(|byte| *byte == 0);
        let control = cbor::decode(message).ok().filter(|_| sane)?;
        match &control {
            Self::Open { toll, .. } | Self::Toll { toll } if toll.len() > TOLL_BYTES => None,
            Self::Closed { reason: Reason::Toll(text) } if text.len() > TEXT_BYTES => None,
            _ => Some(control),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> Vec<Control> {
        let toll = vec![9; TOLL_BYTES];
        vec![
            Control::Open { provider: NodeId([7; 32]), toll: toll.clone() },
            Control::Opened { cells: u64::MAX },
            Control::Toll { toll },
            Control::Paid { cells: 0 },
            Control::Closed { reason: Reason::toll("é".repeat(500)) },
            Control::Closed { reason: Reason::Gone },
            Control::Finished,
        ]
    }

    #[test]
    fn every_message_is_one_frame_and_comes_back() {
        for control in all() {
            let mut frame = Vec::new();
            control.frame(&mut frame).unwrap();
            assert_eq!((frame.len(), frame[0]), (FRAME, CONTROL));
            assert_eq!(Control::parse(&frame[1..]), Some(control));
            *frame.last_mut().unwrap() = 1;
            assert_eq!(Control::parse(&frame[1..]), None, "padding is zeros");
        }
    }

    #[test]
    fn a_toll_that_is_too_long_is_refused() {
        let mut frame = Vec::new();
        Control::Toll { toll: vec![0; TOLL_BYTES + 1] }.frame(&mut frame).unwrap();
        assert_eq!(Control::parse(&frame[1..]), None);
        assert!(Control::Toll { toll: vec![0; CELL] }.frame(&mut frame).is_err());
    }

    proptest! {
        #[test]
        fn noise_is_refused_without_a_panic(noise in prop::collection::vec(any::<u8>(), 0..CELL + 4)) {
            let _ = Control::parse(&noise);
        }
    }
}
