//! How a node speaks to the chain of the public pool.
//!
//! [`client`] puts the parts together: a connection that comes back by itself, the [`signer`] that owns the account and
//! makes transactions of what the [`outbox`] keeps, and the [`watch`]er that tells what became final. [`query`] asks
//! a block what accounts have and what is approved.

pub mod call;
pub mod client;
pub mod journal;
pub mod key;
pub mod link;
pub mod outbox;
#[cfg(feature = "proxy")]
pub mod proxy;
pub mod query;
mod rpc;
#[rustfmt::skip]
pub mod runtime;
pub mod signer;
pub mod spec;
pub mod watch;

pub use call::{Call, CallId, Conviction, Proposal};
pub use client::{Answer, Client, ClientError, ClientHandle, Live, Settings};
pub use key::Key;
