//! The public pool: strangers who serve, are paid, are checked, and never learn who asked.

pub mod audit;
pub mod budget;
pub mod bulletin;
pub mod cell;
pub mod evidence;
#[cfg(test)]
pub(crate) mod fixture;
pub mod guard;
pub mod issuer;
pub mod market;
pub mod meter;
pub mod net;
pub mod offer;
pub mod provider;
pub mod purse;
pub mod receipts;
pub mod relay;
pub mod seal;
pub mod session;
#[cfg(test)]
mod tests;
pub mod till;
pub mod token;
pub mod ways;
pub mod wire;
