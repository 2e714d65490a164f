//! What the measuring programs of this crate share.

pub mod audit;
pub mod incentives;
pub mod memory;
