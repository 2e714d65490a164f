//! How well and how fast the memory recalls: data sets put into a real node over HTTP, questions asked of it.
//!
//! A suite reads a data set ([`layout`]) into haystacks of sessions and questions, puts each haystack into a
//! project of its own, waits until everything is embedded, asks ([`suite`]), and counts ([`metrics`], [`scope`],
//! [`report`]). Nothing that gives an answer away enters the node: a session's id stays here, the record carries a
//! random label instead, and sessions are put in in an order shuffled by the seed.

pub mod bootstrap;
pub mod cli;
pub mod client;
pub mod copies;
pub mod date;
pub mod layout;
pub mod metrics;
pub mod need;
pub mod node;
pub mod random;
pub mod report;
pub mod scope;
pub mod speed;
pub mod store;
pub mod suite;
pub mod texts;
