//! `/potluck/blob/1`: files that members copy from each other.
//!
//! The asking side says which list or which file it wants, and then which blocks of it; the answering side says what
//! it has, and sends them. A file is named by what is in it, and every block of a model is checked by itself before it
//! is kept, so it does not matter who sent it. Whoever works on an answer pings; dropping the stream ends everything.

pub mod tree;
pub mod wire;

use std::time::Duration;

/// The protocol's name.
pub const PROTOCOL: &str = "/potluck/blob/1";

/// The clocks of a stream. One value for both sides; the defaults belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Who works on an answer says so this often.
    pub heartbeat: Duration,
    /// The other side counts as gone when it said nothing for this long, and owes something.
    pub silence: Duration,
    /// Time for a whole block to arrive: slower sources are dropped.
    pub block: Duration,
    /// Time for the other side to take what is written to it.
    pub stall: Duration,
    /// The asking side may ask nothing for this long.
    pub idle: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            silence: Duration::from_secs(10),
            block: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            idle: Duration::from_secs(30),
        }
    }
}
