//! The protocols between machines.

pub mod job;
pub mod link;
