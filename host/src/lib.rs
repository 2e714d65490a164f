//! The Potluck node.

pub mod allowance;
pub mod api;
mod atomic;
pub mod blob;
pub mod cli;
pub mod config;
pub mod dispatch;
pub mod identity;
pub mod inference;
pub mod job;
pub mod memory;
pub mod mesh;
pub mod node;
pub mod policy;
pub mod pool;
#[cfg(feature = "public")]
pub mod settlement;

/// Counts what a thread holds where its input decides how much that is.
#[global_allocator]
static ALLOCATOR: allowance::Accounted = allowance::Accounted;
