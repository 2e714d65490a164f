//! Scenarios over real processes: one module per story, one binary so that linking is paid once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a panic is how it reports"
)]

mod bad_input;
mod bad_requests;
mod caches;
mod chain;
mod chain_chaos;
mod chain_trusted;
mod chain_vouchers;
mod common;
mod copies;
mod embed;
mod first_start;
mod fuzz;
mod golden;
mod guide;
mod importer;
mod isolation;
mod load;
mod mcp;
mod memory_api;
mod memory_kill;
mod netlab;
mod netlab_link;
mod netlab_nat;
mod policy;
mod policy_tutorial;
mod pool;
mod pool_net;
mod pool_trouble;
mod public;
mod public_chaos;
mod public_contributor;
mod public_verdict;
mod pull;
mod recall;
mod sdk;
