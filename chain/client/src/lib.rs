//! How a node speaks to the chain of the public pool.
//!
//! [`signer`] owns the account and makes transactions of what the [`outbox`] keeps.

pub mod call;
pub mod journal;
pub mod link;
pub mod outbox;
pub mod signer;
