//! The Potluck node.

pub mod dispatch;
pub mod inference;
pub mod job;
