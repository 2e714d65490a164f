//! What the nodes and the chain share: formats that need neither a system nor the rest of this program.
//!
//! Nothing here uses more than `core`, `alloc`, SCALE and ed25519. Integers carry their unit in their type; time is
//! an argument. A trusted pool writes the same receipts as a public one and settles them nowhere.

#![no_std]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")
)]

extern crate alloc;

mod receipt;
#[cfg(test)]
mod tests;

pub use receipt::{
    Class, MAX_CLASS, MAX_JOB, MAX_RECEIPT, Micros, Party, Receipt, ReceiptError, Signed, Tokens, UnixMillis,
};
