//! Sets of sequences as runs: which entries of a machine are here, on the other side, or on their way.

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    decode::Error as DecodeError,
    encode::{Error as EncodeError, Write},
};

/// The most bytes a set takes on the wire: 64 KiB, about 30,000 runs.
const MAX_WIRE: usize = 64 << 10;

/// Sequences from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The first.
    pub first: u64,
    /// The last, not below the first.
    pub last: u64,
}

impl Run {
    /// The run of one sequence.
    pub const fn one(sequence: u64) -> Self {
        Self { first: sequence, last: sequence }
    }

    /// How many sequences there are.
    pub const fn len(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// Never: a run has at least one sequence.
    pub const fn is_empty(self) -> bool {
        false
    }
}

/// A set of sequences. Sequence 0 is never in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// The set of one run.
    pub fn of(run: Run) -> Self {
        let mut runs = Self::default();
        runs.insert(run);
        runs
    }

    /// Adds a run.
    pub fn insert(&mut self, run: Run) {
        if run.first == 0 || run.last < run.first {
            return;
        }
        // Everything that touches the new run becomes one with it.
        let from = self.0.partition_point(|old| old.last.saturating_add(1) < run.first);
        let upto = self.0.partition_point(|old| old.first <= run.last.saturating_add(1));
        let touched = self.0.get(from..upto).unwrap_or_default();
        let first = touched.first().map_or(run.first, |old| old.first.min(run.first));
        let last = touched.last().map_or(run.last, |old| old.last.max(run.last));
        self.0.splice(from..upto.max(from), [Run { first, last }]);
    }

    /// Adds another set.
    pub fn merge(&mut self, other: &Self) {
        other.iter().for_each(|run| self.insert(run));
    }

    /// Takes one sequence out.
    pub fn remove(&mut self, sequence: u64) {
        let place = self.0.partition_point(|run| run.last < sequence);
        let Some(run) = self.0.get(place).copied().filter(|run| run.first <= sequence) else { return };
        let before = Run { first: run.first, last: sequence.saturating_sub(1) };
        let after = Run { first: sequence.saturating_add(1), last: run.last };
        let rest = [before, after].into_iter().filter(|run| run.first <= run.last && run.first > 0);
        self.0.splice(place..=place, rest);
    }

    /// Whether a sequence is in it.
    pub fn contains(&self, sequence: u64) -> bool {
        let place = self.0.partition_point(|run| run.last < sequence);
        self.0.get(place).is_some_and(|run| run.first <= sequence)
    }

    /// The runs, in order, none touching another.
    pub fn iter(&self) -> impl Iterator<Item = Run> + '_ {
        self.0.iter().copied()
    }

    /// All sequences, in order.
    pub fn sequences(&self) -> impl Iterator<Item = u64> + '_ {
        self.iter().flat_map(|run| run.first..=run.last)
    }

    /// How many sequences there are.
    pub fn len(&self) -> u64 {
        self.iter().map(Run::len).fold(0, u64::saturating_add)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after the highest sequence; 1 without any.
    pub fn next(&self) -> u64 {
        self.0.last().map_or(1, |run| run.last.saturating_add(1))
    }

    /// The parts of `run` that are not in the set.
    pub fn lacking(&self, run: Run) -> Vec<Run> {
        let mut missing = Vec::new();
        let mut next = run.first;
        let from = self.0.partition_point(|old| old.last < run.first);
        for old in self.0.iter().skip(from).take_while(|old| old.first <= run.last) {
            if old.first > next {
                missing.push(Run { first: next, last: old.first.saturating_sub(1) });
            }
            next = old.last.saturating_add(1);
        }
        if next <= run.last {
            missing.push(Run { first: next, last: run.last });
        }
        missing
    }

    /// What of this set is not in the other.
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.iter().flat_map(|run| other.lacking(run)).collect())
    }

    /// As bytes: for each run the distance from the one before and its length, as variable-length integers. What
    /// does not fit is left out at the end, so that the other side takes it for missing and sends it once more.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut end = 0_u64;
        for run in self.iter() {
            if bytes.len() > MAX_WIRE - 20 {
                break;
            }
            put(&mut bytes, run.first.saturating_sub(end));
            put(&mut bytes, run.len().saturating_sub(1));
            end = run.last;
        }
        bytes
    }

    /// The set of these bytes; `None` unless they are in the one form that [`Runs::to_bytes`] writes.
    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut runs: Vec<Run> = Vec::new();
        let mut end = 0_u64;
        while !bytes.is_empty() {
            let distance = take(&mut bytes)?;
            // A distance of 1 would be the same run.
            if distance == 0 || (distance == 1 && !runs.is_empty()) {
                return None;
            }
            let first = end.checked_add(distance)?;
            end = first.checked_add(take(&mut bytes)?).filter(|end| *end < u64::MAX)?;
            runs.push(Run { first, last: end });
        }
        Some(Self(runs))
    }
}

impl FromIterator<Run> for Runs {
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> Self {
        let mut set = Self::default();
        runs.into_iter().for_each(|run| set.insert(run));
        set
    }
}

impl<C> Encode<C> for Runs {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.bytes(&self.to_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Runs {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let at = d.position();
        let bytes = d.bytes()?;
        let runs = Some(bytes).filter(|bytes| bytes.len() <= MAX_WIRE).and_then(Self::from_bytes);
        runs.ok_or_else(|| DecodeError::message("no set of sequences").at(at))
    }
}

/// Seven bits a byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        value |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
        if byte & 0x80 == 0 {
            // A zero at the end would be a second way to write the same number.
            return (bits > 0 || shift == 0).then_some(value);
        }
    }
    None
}
