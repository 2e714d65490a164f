//! How well an audit tells honest answers from others, on real kernels.
//!
//! A [`subject`] is a model that a pool serves. Honest providers answer with it under every arithmetic there is: threads,
//! instruction sets, batch sizes, a GPU. Each [`attack`] answers the same prompts in some cheaper or false way. A
//! verifier replays all of them and [`report`] says which limits tell them apart, and where none do. Everything but the
//! times follows from the seed.

pub mod attack;
pub mod cli;
pub mod cost;
pub mod measure;
pub mod plots;
pub mod report;
pub mod roc;
pub mod serve;
pub mod subject;

#[cfg(test)]
mod tests;
