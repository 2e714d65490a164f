//! Time and randomness, as arguments: nothing in the pool reads a clock or draws a key by itself.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment or a duration in milliseconds; moments count from the Unix epoch.
pub type Millis = i64;

/// A second, in milliseconds.
pub const SECOND: Millis = 1_000;
/// A minute, in milliseconds.
pub const MINUTE: Millis = 60 * SECOND;
/// An hour, in milliseconds.
pub const HOUR: Millis = 60 * MINUTE;
/// A day, in milliseconds.
pub const DAY: Millis = 24 * HOUR;
/// How far the clocks of two machines may differ before something is refused for it: ten minutes.
pub const SKEW: Millis = 10 * MINUTE;

/// Tells the time.
pub trait Clock: Send + Sync + Debug {
    /// Milliseconds since the Unix epoch by this machine's clock.
    fn now(&self) -> Millis;
}

/// Gives random bytes fit for keys.
pub trait Random: Send + Sync + Debug {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// What the system says when it has no randomness.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), getrandom::Error>;
}

/// The clock of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
    }
}

/// The randomness of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), getrandom::Error> {
        getrandom::fill(bytes)
    }
}

/// `N` random bytes.
///
/// # Errors
/// As [`Random::fill`].
pub fn draw<const N: usize>(random: &dyn Random) -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    random.fill(&mut bytes)?;
    Ok(bytes)
}

/// A duration as a person says it: `3 h`, `12 min`, `40 s`. The sign is left out.
pub fn spoken(duration: Millis) -> String {
    let ms = duration.saturating_abs();
    match ms {
        _ if ms >= 2 * DAY => format!("{} days", ms / DAY),
        _ if ms >= HOUR => format!("{} h", ms / HOUR),
        _ if ms >= MINUTE => format!("{} min", ms / MINUTE),
        _ => format!("{} s", ms / SECOND),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spoken() {
        for (ms, says) in [(3 * HOUR + 5, "3 h"), (-12 * MINUTE, "12 min"), (999, "0 s"), (9 * DAY, "9 days")]
        {
            assert_eq!(spoken(ms), says);
        }
        assert!(SystemClock.now() > 1_700_000_000_000);
        assert_ne!(draw::<16>(&SystemRandom).unwrap(), [0; 16]);
    }
}
