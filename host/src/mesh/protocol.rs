//! The protocols between machines.

pub mod blob;
pub mod job;
pub mod link;
