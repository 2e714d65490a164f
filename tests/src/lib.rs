//! What the scenarios share: real node processes, a development chain, a plain HTTP client, a hostile hub, tiny model files, networks,
//! and measurements that a scenario does in short and `pool_bench` in full.
//!
//! Nothing of the product is replaced here. A [`node::Node`] is the `potluck` program as a user starts it,
//! with a home of its own; everything is asked of it from outside. When something is not as it should be the
//! helpers panic with the node's own words, because their only callers are tests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a panic is how it reports"
)]

pub mod chain;
pub mod data;
pub mod fuzz;
pub mod gguf;
pub mod http;
pub mod hub;
pub mod load;
pub mod measure;
pub mod member;
pub mod netlab;
pub mod node;
pub mod process;
pub mod public;
pub mod python;
pub mod random;
pub mod skew;
