//! Files that travel between members: models, and components of policies.
//!
//! * [`source`]: what this machine has to offer.
//! * [`trees`]: the block hashes of files, computed once, in the background, and remembered.
//! * [`serve`]: gives members what they may copy, a little at a time, and less while there are jobs.
//! * [`fetch`]: copies a file from several members at once, checks every block, and goes on where it stopped.
//!
//! `docs/src/protocol/blobs.md` has the messages, the caps, and what a hostile member can and cannot do.

pub mod fetch;
pub mod serve;
pub mod source;
#[cfg(test)]
mod tests;
pub mod trees;

pub use crate::mesh::protocol::blob::{
    PROTOCOL, Timers,
    wire::{BlobId, Item, Kind},
};
use crate::pool::trusted::Grants;

/// Whether this machine has something better to do than to copy files.
pub trait Occupied: Send + Sync + std::fmt::Debug {
    /// Whether somebody waits for an answer that is computed here.
    fn occupied(&self) -> bool;
}

/// Whether a machine with the grants `to` may copy a file from one with the grants `from`. Both sides ask: one so as
/// not to give, the other so as not to take a file from a machine that may not answer for it.
pub(crate) fn may(from: &Grants, to: &Grants, kind: Kind, name: &str) -> bool {
    match kind {
        Kind::Model => from.serve && to.fetches(name) && from.models.covers(name),
        // Every member needs the components that the pool decides with, whatever else it may do.
        Kind::Policy => true,
    }
}
