//! Machines that share what they have.

#[cfg(feature = "public")]
pub mod public;
pub mod trusted;
