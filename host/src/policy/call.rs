//! One call of a policy: its bounds, its errors, and what it cost.

mod bounds;
mod error;

use std::time::Duration;

pub use bounds::{
    Fault, MAX_AUDITS, MAX_CANDIDATES, MAX_NAME, MAX_PREFIX, MAX_REASON, MILLION, check_description,
    check_input, check_output,
};
pub(crate) use bounds::{check_job_and_candidates, check_ranking, check_refusal};
pub use error::{CallError, Reason};

use super::types::Output;

/// A decision, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The decision, or the policy's refusal in words. Within all bounds.
    pub output: Output,
    /// Fuel used, about one unit for one WebAssembly instruction. The same on every machine with this version of the
    /// engine; another version may count differently.
    pub fuel: u64,
    /// How long it took, with making and dropping the instance.
    pub took: Duration,
}
