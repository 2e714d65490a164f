//! The credits of a public pool, played by agents: who earns, who is caught, and what the pool's rules cost.
//!
//! [`world`] is the whole pool, day by day, with a ledger that is checked every day. [`career`] asks narrower questions
//! of one provider at a time, so that a simulated number stands beside each closed formula of the book. Everything
//! follows from the seed: no clock, no hash maps in an order of their own, no logarithm of the platform.

pub mod agent;
pub mod career;
pub mod chart;
pub mod cli;
pub mod ledger;
pub mod lot;
pub mod money;
pub mod plots;
pub mod report;
pub mod settings;
pub mod sprt;
pub mod world;

#[cfg(test)]
mod tests;
