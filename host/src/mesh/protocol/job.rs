//! `/potluck/job/1`: one job, streamed from the machine that answers it to the machine that asks.
//!
//! The asking side sends the job and then pings; the answering side sends `Accepted` or `Failed`, text as it comes,
//! `Done`, and its half of a receipt, which the asking side signs and sends back. Whoever has nothing to say pings,
//! so that silence means that the other side is gone even where its connection looks alive. Dropping the stream
//! cancels the job.

pub mod call;
pub mod convert;
pub mod receipts;
pub mod wire;

use std::time::Duration;

/// The protocol's name.
pub const PROTOCOL: &str = "/potluck/job/1";

/// The clocks of a job. One value for each side; the defaults belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// The answering side says something at least this often.
    pub heartbeat: Duration,
    /// The answering side counts as gone when it said nothing for this long.
    pub deadline: Duration,
    /// Time for its first word, on top of a new stream's round trips.
    pub first: Duration,
    /// An answer without an event for this long is given up, however often the other side says that it is there.
    pub stuck: Duration,
    /// The asking side says something at least this often.
    pub asker_heartbeat: Duration,
    /// The asking side counts as gone when it said nothing for this long.
    pub asker_deadline: Duration,
    /// Time for a request to arrive as a whole.
    pub request: Duration,
    /// Time for the other side to take what is written to it.
    pub stall: Duration,
    /// Time for the other half of a receipt.
    pub receipt: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            deadline: Duration::from_millis(700),
            first: Duration::from_secs(2),
            stuck: Duration::from_secs(300),
            asker_heartbeat: Duration::from_secs(2),
            asker_deadline: Duration::from_secs(10),
            request: Duration::from_secs(30),
            stall: Duration::from_secs(300),
            receipt: Duration::from_secs(3),
        }
    }
}

#[cfg(test)]
mod tests;
