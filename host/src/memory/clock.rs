//! The hybrid logical clock that orders versions of all machines.
//!
//! A [`Stamp`] is wall time and a counter in one integer: it follows the wall clock as long as that moves,
//! never goes back when the wall clock does, and always lies after every stamp that was seen. A machine whose
//! clock runs ahead would drag all others with it, so a remote stamp too far ahead is refused. Time is an
//! argument everywhere: nothing here reads a clock.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How far, in milliseconds, a remote stamp may lie ahead of this machine's wall clock: one minute.
pub const MAX_DRIFT: i64 = 60_000;

/// The bits of a stamp that count events within one millisecond.
const COUNTER_BITS: u32 = 16;
/// The largest wall time a stamp can carry, in milliseconds since the Unix epoch: the year 10889.
const MAX_WALL: u64 = (1 << (64 - COUNTER_BITS)) - 1;

/// A moment of the hybrid logical clock: 48 bits of milliseconds since the Unix epoch, then a 16-bit counter.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode,
)]
#[cbor(transparent)]
pub struct Stamp(#[n(0)] u64);

impl Stamp {
    /// The stamp before all others.
    pub const ZERO: Self = Self(0);

    /// A stamp of its 64 bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// A stamp of a wall time in milliseconds since the Unix epoch, held between 1970 and 10889, and a
    /// counter.
    pub fn new(wall_ms: i64, counter: u16) -> Self {
        let wall = u64::try_from(wall_ms).unwrap_or(0).min(MAX_WALL);
        Self((wall << COUNTER_BITS) | u64::from(counter))
    }

    /// The 64 bits: their order is the order of stamps.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The wall time, in milliseconds since the Unix epoch.
    pub const fn wall_ms(self) -> i64 {
        // 48 bits always fit.
        (self.0 >> COUNTER_BITS) as i64
    }

    /// The counter within the millisecond.
    pub const fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The next stamp: the counter overflows into the milliseconds. The last of all stays what it is.
    const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall_ms(), self.counter())
    }
}

impl FromStr for Stamp {
    type Err = ClockError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (wall, counter) = text.split_once('.')?;
            let wall = wall.parse::<u64>().ok().filter(|wall| *wall <= MAX_WALL)?;
            Some(Self((wall << COUNTER_BITS) | u64::from(counter.parse::<u16>().ok()?)))
        };
        parse().ok_or_else(|| ClockError::Unreadable(text.chars().take(64).collect()))
    }
}

/// As text, `milliseconds.counter`: a number of JSON cannot carry 64 bits everywhere.
impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a stamp is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// A remote stamp lies further ahead of the wall clock than [`MAX_DRIFT`].
    #[error(
        "the stamp {remote} lies {} ms ahead of this machine's clock ({wall_ms} ms), more than {MAX_DRIFT} ms: \
         one of the two clocks is wrong; set both by network time, then synchronise again",
        remote.wall_ms().saturating_sub(*wall_ms)
    )]
    Drift {
        /// The stamp that was refused.
        remote: Stamp,
        /// This machine's wall clock, in milliseconds since the Unix epoch.
        wall_ms: i64,
    },
    /// A text is not a stamp.
    #[error("{0:?} is no stamp: write milliseconds, a full stop and a counter, as in 1755172800000.3")]
    Unreadable(String),
}

/// The clock of one machine: hands out stamps, each later than all it gave out or saw before.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// A clock that goes on after `last`, the latest stamp found in the log, whatever the wall clock says.
    pub const fn starting_at(last: Stamp) -> Self {
        Self { last }
    }

    /// The latest stamp given out or seen.
    pub const fn last(&self) -> Stamp {
        self.last
    }

    /// A stamp for a new event at `wall_ms` (milliseconds since the Unix epoch), later than every one before.
    pub fn now(&mut self, wall_ms: i64) -> Stamp {
        self.last = Stamp::new(wall_ms, 0).max(self.last.next());
        self.last
    }

    /// Takes note of a stamp of another machine and returns one after it, at `wall_ms` (milliseconds since
    /// the Unix epoch).
    ///
    /// # Errors
    /// [`ClockError::Drift`] if the stamp lies more than [`MAX_DRIFT`] ahead; the clock stays as it was.
    pub fn observe(&mut self, remote: Stamp, wall_ms: i64) -> Result<Stamp, ClockError> {
        if remote.wall_ms() > wall_ms.saturating_add(MAX_DRIFT) {
            return Err(ClockError::Drift { remote, wall_ms });
        }
        self.last = self.last.max(remote);
        Ok(self.now(wall_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_clock_follows_the_wall_clock_and_counts_within_a_millisecond() {
        let mut clock = Clock::default();
        assert_eq!(clock.now(1000), Stamp::new(1000, 0));
        assert_eq!(clock.now(1000), Stamp::new(1000, 1));
        assert_eq!(clock.now(999), Stamp::new(1000, 2), "never back");
        assert_eq!(clock.now(1001), Stamp::new(1001, 0));
        assert_eq!(clock.now(-5), Stamp::new(1001, 1), "before 1970 counts as 1970");
    }

    #[test]
    fn a_full_counter_moves_the_milliseconds_on() {
        let mut clock = Clock::starting_at(Stamp::new(1000, u16::MAX));
        assert_eq!(clock.now(1000), Stamp::new(1001, 0));
    }

    #[test]
    fn a_restart_goes_on_after_the_last_stamp() {
        let mut clock = Clock::starting_at(Stamp::new(5000, 7));
        assert!(clock.now(10) > Stamp::new(5000, 7));
    }

    #[test]
    fn a_stamp_far_ahead_is_refused_and_leaves_the_clock_alone() {
        let mut clock = Clock::starting_at(Stamp::new(5000, 0));
        let remote = Stamp::new(5000 + MAX_DRIFT + 1, 0);
        assert_eq!(clock.observe(remote, 5000), Err(ClockError::Drift { remote, wall_ms: 5000 }));
        assert_eq!(clock.last(), Stamp::new(5000, 0));
        assert!(
            clock.observe(Stamp::new(5000 + MAX_DRIFT, 9), 5000).unwrap() > Stamp::new(5000 + MAX_DRIFT, 9)
        );
    }

    #[test]
    fn a_stamp_is_text_in_json() {
        let stamp = Stamp::new(1_755_172_800_000, 3);
        let json = serde_json::to_string(&stamp).unwrap();
        assert_eq!(json, "\"1755172800000.3\"");
        assert_eq!(serde_json::from_str::<Stamp>(&json).unwrap(), stamp);
        assert!(serde_json::from_str::<Stamp>("\"1755172800000\"").is_err());
    }

    proptest! {
        #[test]
        fn stamps_only_grow(
            start: u64,
            steps in prop::collection::vec((any::<bool>(), 0i64..1 << 40, any::<u64>()), 1..50),
        ) {
            let mut clock = Clock::starting_at(Stamp::from_bits(start >> 1));
            for (local, wall, bits) in steps {
                let before = clock.last();
                if local {
                    prop_assert!(clock.now(wall) > before);
                } else if let Ok(stamp) = clock.observe(Stamp::from_bits(bits), wall) {
                    prop_assert!(stamp > before && stamp > Stamp::from_bits(bits));
                } else {
                    prop_assert_eq!(clock.last(), before);
                }
            }
        }

        #[test]
        fn a_stamp_survives_its_text(bits: u64) {
            let stamp = Stamp::from_bits(bits);
            prop_assert_eq!(stamp.to_string().parse::<Stamp>().unwrap(), stamp);
        }
    }
}
