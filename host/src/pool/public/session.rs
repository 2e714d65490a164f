//! One job between a requester and a provider, inside a sealed stream: asked, paid chunk by chunk, answered, receipted.
//!
//! The requester sends [`Ask`](super::wire::Ask) with a first payment and goes on paying a little ahead; the provider
//! says how many tokens the prompt has, sends text as far as it is paid, `Done`, and its half of a receipt. Whoever
//! has nothing to say pings. Dropping the stream cancels the job.

pub mod ask;
mod coins;
pub mod serve;
#[cfg(test)]
mod tests;

use std::{
    fmt::Debug,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use potluck_primitives::MicroCredits;

pub use coins::{Coins, Counter};

use super::offer::Offer;
use crate::mesh::streams::{BoxFuture, Stream};

/// The clocks of a public job. A relay and padding lie between the two sides, so they are slower than a pool's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Either side says something at least this often.
    pub heartbeat: Duration,
    /// A side that said nothing for this long is gone.
    pub deadline: Duration,
    /// Time for the provider's first word.
    pub first: Duration,
    /// An answer without an event for this long is given up, however often the provider says that it is there.
    pub stuck: Duration,
    /// Time for a request to arrive as a whole.
    pub request: Duration,
    /// How long a provider waits for the next payment.
    pub payment: Duration,
    /// Time for the other side to take what is written to it.
    pub stall: Duration,
    /// Time for the other half of a receipt.
    pub receipt: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(500),
            deadline: Duration::from_secs(4),
            first: Duration::from_secs(10),
            stuck: Duration::from_secs(300),
            request: Duration::from_secs(30),
            payment: Duration::from_secs(15),
            stall: Duration::from_secs(60),
            receipt: Duration::from_secs(5),
        }
    }
}

/// Why nothing could be paid or taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaymentError {
    /// A token that is none, of another issuer, or of an epoch that is over.
    #[error("a payment is refused: {0}")]
    Invalid(String),
    /// There is not enough, and no more can be bought.
    #[error("there are not enough credits for this: {0}")]
    Empty(String),
    /// The issuer does not answer.
    #[error("the issuer of the tokens cannot be asked: {0}")]
    Issuer(String),
}

/// The requester's spend tokens.
pub trait Purse: Send + Sync + Debug {
    /// Tokens worth exactly `amount`, a whole number of units. They count as spent from now on.
    ///
    /// # Errors
    /// [`PaymentError::Empty`] or [`PaymentError::Issuer`].
    fn take(&self, amount: MicroCredits) -> BoxFuture<'_, Result<Vec<Vec<u8>>, PaymentError>>;
}

/// Where a provider takes tokens in.
pub trait Till: Send + Sync + Debug {
    /// What tokens are worth by their signatures; whether they are fresh only the issuer knows.
    ///
    /// # Errors
    /// [`PaymentError::Invalid`]: one of them is worth nothing.
    fn verify(&self, tokens: &[Vec<u8>]) -> Result<MicroCredits, PaymentError>;

    /// Turns tokens into the issuer's voucher: what was fresh of them.
    ///
    /// # Errors
    /// [`PaymentError`].
    fn deposit(&self, tokens: Vec<Vec<u8>>) -> BoxFuture<'_, Result<MicroCredits, PaymentError>>;
}

/// Why there is no way to a provider.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unreached {
    /// The way cannot be paid.
    #[error(transparent)]
    Payment(#[from] PaymentError),
    /// Nobody leads there.
    #[error("{0}")]
    Away(String),
}

/// Leads to providers without showing them who comes.
pub trait Circuits: Send + Sync + Debug {
    /// A sealed stream with the provider, by way of a relay of another operator. What the relay is paid, also later,
    /// is counted in `spent`, in micro-credits.
    ///
    /// # Errors
    /// [`Unreached`]
    fn dial<'a>(
        &'a self,
        offer: &'a Offer,
        spent: Arc<AtomicU64>,
    ) -> BoxFuture<'a, Result<Stream, Unreached>>;
}
