//! Machines that share what they have.

pub mod trusted;
