//! The Potluck node.

pub mod api;
pub mod cli;
pub mod config;
pub mod dispatch;
pub mod inference;
pub mod job;
pub mod node;
