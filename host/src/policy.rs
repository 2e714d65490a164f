//! Policies: who serves a job, what it costs and what counts as cheating, as WebAssembly components that a community
//! can exchange without trusting or recompiling a program.
//!
//! A policy imports nothing and keeps nothing between calls. What it decides depends on its arguments only, so anyone
//! who has the component and the stored question can execute a decision again and must come to the same bytes.
//!
//! [`Engine::load`] takes a component's bytes through all checks and gives a [`Policy`], which can decide; nothing in
//! between can be seen or used. [`Policies`] is the set that is active for one pool: it is exchanged as a whole while
//! calls are in flight, and knows what to do when a policy fails. [`Decisions`] keeps what was decided.

mod abi;
mod approvals;
mod cache;
mod call;
mod check;
mod component;
mod decisions;
mod engine;
mod golden;
mod hash;
mod kind;
mod load;
mod metrics;
mod native;
pub mod sample;
pub mod scaffold;
mod set;
pub mod simulate;
pub mod steady;
#[cfg(test)]
mod tests;
pub mod types;
mod warm;

pub use abi::Abi;
pub use approvals::{Approvals, Approved, BoxFuture, Components, FetchError};
pub use cache::CacheConfig;
pub use call::{
    CallError, Decided, Fault, MAX_AUDITS, MAX_CANDIDATES, MAX_NAME, MAX_PREFIX, MAX_REASON, MILLION, Reason,
    check_description, check_input, check_output,
};
pub use check::GOLDEN_SECTION;
pub use component::{CheckReport, Policy, Ranked};
pub use decisions::{Decision, Decisions, DecisionsConfig, DecisionsError, PaperError, Replay};
pub use engine::{Engine, EngineConfig, EngineError, MAX_COMPONENT};
pub use golden::{MAX_GOLDEN, MAX_VECTORS, Tried, Vector, own_vectors, vectors};
pub use hash::{HashError, PolicyHash};
pub use kind::{Kind, UnknownKind};
pub use load::LoadError;
pub use metrics::{Histogram, Meter, Reading};
pub use native::{Native, Soonest};
pub use set::{
    Active, Decider, Event, NoDecision, NothingBefore, Policies, PoliciesConfig, Routed, Standing, follow,
};
