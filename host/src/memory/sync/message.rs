//! The messages of `/potluck/memory/1`.

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    bytes::ByteVec,
    decode::Error as DecodeError,
    encode::{Error as EncodeError, Write},
};

use super::super::record::{MAX_ENTRY, NodeId};
use super::{
    catalogue::{MAX_ORIGINS, Sum},
    runs::{Run, Runs},
};

/// The protocol.
pub const PROTOCOL: &str = "/potluck/memory/1";
/// The version in the greeting.
pub const VERSION: u16 = 1;
/// The longest frame, in bytes: one entry of the longest kind and what is around it.
pub const MAX_FRAME: usize = MAX_ENTRY + (64 << 10);
/// The longest greeting, in bytes.
pub const MAX_HELLO: usize = 1 << 10;
/// Bytes of entries from which on a frame is full: 1 MiB. A longer entry travels alone.
pub const FULL_FRAME: usize = 1 << 20;
/// The most entries in a frame.
pub const MAX_ENTRIES: usize = 2_048;
/// The most rows of a frame that lists machines or ranges.
pub const MAX_ROWS: usize = 2 * MAX_ORIGINS;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// The first, from both sides.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// What the sender has.
    #[n(1)]
    Have(#[n(0)] Have),
    /// Entries that the other side lacks.
    #[n(2)]
    Ops(#[n(0)] Ops),
    /// What has become durable.
    #[n(3)]
    Ack(#[n(0)] Ack),
    /// With whom the sender has a stream like this one.
    #[n(4)]
    Near(#[n(0)] Near),
    /// Sums to compare.
    #[n(5)]
    Audit(#[n(0)] Audit),
    /// The last.
    #[n(6)]
    Bye(#[n(0)] Bye),
}

/// The greeting.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// The version of the protocol that the sender speaks.
    #[n(0)]
    pub version: u16,
    /// Its wall clock, in milliseconds since the Unix epoch.
    #[n(1)]
    pub wall_ms: i64,
}

/// What the sender has, or does not want: the other side sends the rest of what it has and the sender may read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Have {
    /// Sequences by the machine that wrote them. Machines that are not named have none.
    #[n(0)]
    #[cbor(with = "rows")]
    pub rows: Vec<HaveRow>,
    /// Whether a further frame belongs to it.
    #[n(1)]
    pub more: bool,
}

/// Sequences of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct HaveRow {
    /// The machine.
    #[n(0)]
    pub origin: NodeId,
    /// The sequences.
    #[n(1)]
    pub runs: Runs,
}

/// Entries as they lie in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Ops {
    /// The number of the frame among those of this kind on this stream, from 1.
    #[n(0)]
    pub number: u64,
    /// At most [`MAX_ENTRIES`].
    #[n(1)]
    #[cbor(with = "entries")]
    pub entries: Vec<ByteVec>,
}

/// What has become durable at the sender, from whomever it came, and which frame it has dealt with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// The number of the last [`Ops`] frame that was dealt with.
    #[n(0)]
    pub number: u64,
    /// What is newly durable.
    #[n(1)]
    #[cbor(with = "rows")]
    pub rows: Vec<HaveRow>,
}

/// With whom the sender replicates at this moment: their own entries need not go through us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Near {
    /// The machines.
    #[n(0)]
    #[cbor(with = "rows")]
    pub nodes: Vec<NodeId>,
}

/// Sums over ranges, as the sender has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Audit {
    /// The ranges.
    #[n(0)]
    #[cbor(with = "rows")]
    pub rows: Vec<AuditRow>,
}

/// A range and its sum.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct AuditRow {
    /// The machine that wrote the entries.
    #[n(0)]
    pub origin: NodeId,
    /// The first sequence.
    #[n(1)]
    pub first: u64,
    /// The last sequence.
    #[n(2)]
    pub last: u64,
    /// Only entries of this project count; `None`: all entries.
    #[n(3)]
    pub project: Option<String>,
    /// How many entries there are.
    #[n(4)]
    pub count: u64,
    /// The exclusive or of their fingerprints.
    #[n(5)]
    pub print: u64,
}

impl AuditRow {
    /// A row of a sum.
    pub fn new(origin: NodeId, run: Run, project: Option<String>, sum: Sum) -> Self {
        Self { origin, first: run.first, last: run.last, project, count: sum.count, print: sum.print }
    }

    /// The sum.
    pub const fn sum(&self) -> Sum {
        Sum { count: self.count, print: self.print }
    }
}

/// Why the sender ends the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Bye {
    /// In words, at most 256 bytes.
    #[n(0)]
    pub reason: String,
}

impl Have {
    /// The frames that say what is here.
    pub fn frames(held: impl IntoIterator<Item = (NodeId, Runs)>) -> Vec<Self> {
        let mut frames = vec![Self::default()];
        let mut size = 0_usize;
        for (origin, runs) in held.into_iter().take(MAX_ORIGINS) {
            let row = HaveRow { origin, runs };
            let length = minicbor::to_vec(&row).map_or(0, |bytes| bytes.len());
            size = size.saturating_add(length);
            if size > FULL_FRAME {
                size = length;
                if let Some(last) = frames.last_mut() {
                    last.more = true;
                }
                frames.push(Self::default());
            }
            if let Some(last) = frames.last_mut() {
                last.rows.push(row);
            }
        }
        frames
    }
}

/// Lists with a cap, so that a short frame cannot ask for much memory.
fn list<'b, C, T: Decode<'b, C>>(
    d: &mut Decoder<'b>,
    ctx: &mut C,
    most: usize,
) -> Result<Vec<T>, DecodeError> {
    let at = d.position();
    let len = d.array()?.and_then(|len| usize::try_from(len).ok()).filter(|len| *len <= most);
    let len =
        len.ok_or_else(|| DecodeError::message("a list that is too long, or of no stated length").at(at))?;
    (0..len).map(|_| T::decode(d, ctx)).collect()
}

mod rows {
    use super::*;

    pub(super) fn encode<C, T: Encode<C>, W: Write>(
        rows: &[T],
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.array(rows.len() as u64)?;
        rows.iter().try_for_each(|row| row.encode(e, ctx))
    }

    pub(super) fn decode<'b, C, T: Decode<'b, C>>(
        d: &mut Decoder<'b>,
        ctx: &mut C,
    ) -> Result<Vec<T>, DecodeError> {
        list(d, ctx, MAX_ROWS)
    }
}

mod entries {
    use super::*;

    pub(super) fn encode<C, W: Write>(
        entries: &[ByteVec],
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        super::rows::encode(entries, e, ctx)
    }

    pub(super) fn decode<'b, C>(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Vec<ByteVec>, DecodeError> {
        list(d, ctx, MAX_ENTRIES)
    }
}
