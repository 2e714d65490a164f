//! The product's own calls on the real runtime: from receipts to balances, from a wrong batch to a lost bond, from a
//! verdict to a slash, from a vote to a policy.
//!
//! Each test has a chain of its own, in a chopsticks that it starts from the folder that `POTLUCK_CHOPSTICKS` names
//! (`tests/run` installs one); without it nothing is tested here. What the chain has in the end is compared with a
//! model, to the micro-credit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

mod batches;
mod books;
mod chain;
mod forgeries;
mod model;
mod policies;
mod settle;
mod verdicts;
