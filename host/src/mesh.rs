//! The mesh: encrypted streams between machines that know each other.
//!
//! It carries typed messages and holds no rule of the pool's: who may connect, and who may open what, is told to it.

pub mod frame;
pub mod streams;
