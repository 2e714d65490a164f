//! Whether an answer came from the model, prompt and sampler that were asked for.
//!
//! A provider's answer is run again in one teacher-forced pass: prompt and claimed tokens go in, logits and last hidden
//! states come out, at the price of a prefill. Three questions are asked of it:
//!
//! * **Accounts**: does the answer contradict itself (counts, lengths, tokens past an end)? No model is needed.
//! * **Forced**: the sampler's noise is a function of (seed, position, token), so at each position the verifier knows
//!   which token it would have drawn, and by how many logits that token leads the claimed one. The mean of these
//!   margins, clipped, is near 0 for the same model and grows with everything that changes the distribution or the
//!   draw (Token-DiFR, see [`crate::sample::Sampler::margin`]).
//! * **Activations**: for every 32 tokens the provider has committed to its largest hidden values ([`Commitment`],
//!   TOPLOC). Its tokens may have been drafted by a small model; its hidden states then come from somewhere else.
//!
//! On this crate's CPU backend all of it is the same to the last bit on any number of threads, any instruction set and
//! any batching, and all numbers that become evidence are integers: verifiers there agree exactly, and an honest
//! answer from there has margins of exactly 0 ([`Numerics::Exact`]). The same pass by [`referee`] settles a dispute.
//! A GPU sums in another order and keeps activations as floats: its honest answers have small margins, for which
//! [`Limits::FLOAT`] leaves room.
//!
//! Who accuses whom how often is for [`Sprt`] to weigh.

mod activations;
mod field;
mod replay;
mod score;
mod sprt;
mod transcript;

pub use activations::{
    COMMITMENT_BYTES, Commitment, CommitmentError, Committer, GROUP, Match, POINTS, commit,
};
pub use replay::{Auditor, Replay, Room, referee};
pub use score::{Activations, Limits, MICRO, OUTSIDE, Outcome, Score, Trace, Verdict};
pub use sprt::{Decision, Sprt, SprtError};
pub use transcript::{Answer, Fault, Finish, Numerics, Request, Usage, faults};

use crate::{engine::EngineError, sample::SamplingError};

/// Why an audit cannot be made. It says nothing about the provider: what the provider did wrong is a [`Fault`] or
/// a [`Score`].
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The verifier's own request makes no sense to its own model.
    #[error("the request cannot be replayed: {0}")]
    Request(String),
    /// The answer does not fit the room that the verifier gave to the audit.
    #[error("{positions} positions do not fit {room}; give the audit more pages of the cache")]
    Room {
        /// Positions of prompt and answer.
        positions: usize,
        /// Positions that fit.
        room: usize,
    },
    /// The verifier's sampler refused.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The verifier's model failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The verifier's hidden states are not finite.
    #[error("the verifier's own hidden states cannot be compared: {0}")]
    Hidden(#[from] CommitmentError),
    /// A step was answered with something else than was asked for.
    #[error("a step gave {got} values, {expected} were expected")]
    Step {
        /// Values given.
        got: usize,
        /// Values that the step has.
        expected: usize,
    },
}
