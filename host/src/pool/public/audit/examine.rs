//! Replays what others answered on this machine's own copies of the models.

use std::sync::Arc;

use parity_scale_codec::{Decode, Encode};
use potluck_kernels::audit::{Limits, Outcome as Found, Score, Verdict};
use potluck_primitives::Hash;
use tokio::time::{Duration, Instant};

use super::transcript::{Case, Transcript, TranscriptError};
use crate::{
    identity::NodeId,
    inference::{CopyError, Inference, ModelCopy},
    policy::types::{Method, Outcome},
};

/// Copies that are kept in memory at the same time.
const COPIES: usize = 2;
/// How long a copy is kept after its last use.
const KEEP: Duration = Duration::from_secs(300);
/// One, in millionths.
const ONE: u64 = 1_000_000;

/// Why an answer is not examined. It says nothing about who gave it.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// It is no transcript.
    #[error(transparent)]
    Transcript(#[from] TranscriptError),
    /// This machine does not have the model.
    #[error("this machine has no copy of the model that was offered, or has not hashed it yet")]
    NoCopy,
    /// The replay failed here.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// What one question of an audit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Answered {
    /// The question.
    pub method: Method,
    /// The answer.
    pub outcome: Outcome,
    /// How far off, in millionths of what is allowed: 1,000,000 is just at it.
    pub distance: u64,
}

/// What an audit found, in integers: every machine's CPU finds the same.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Report {
    /// Who answered.
    pub provider: [u8; 32],
    /// The request's name.
    pub job: [u8; 16],
    /// The transcript's digest.
    pub transcript: Hash,
    /// Tokens that were replayed.
    pub tokens: u32,
    /// Of these, the ones that the verifier would not have drawn.
    pub differing: u32,
    /// Accounts, tokens, hidden states.
    pub answers: [Answered; 3],
}

impl Report {
    /// What an audit came to.
    fn new(case: &Case, score: &Score, verdict: &Verdict) -> Self {
        let limits = Limits::of(case.answer.numerics);
        let outcome = |found: Found| match found {
            Found::Passed => Outcome::Passed,
            Found::Failed => Outcome::Failed,
            Found::Unclear => Outcome::Unclear,
        };
        let faults = u64::try_from(score.faults.len()).unwrap_or(u64::MAX);
        let allowed = limits.mean.saturating_mul(score.positions.into()).saturating_add(limits.once);
        let end = score.end.map_or(0, |end| share(end, limits.end));
        let hidden = score.activations.map_or(0, |found| {
            let (off, most) =
                (128_u32.saturating_sub(found.agreement), 128_u32.saturating_sub(limits.agreement));
            let mantissa = share(found.mantissa.into(), limits.mantissa.into());
            share(off.into(), most.into()).max(mantissa)
        });
        let answered = |method, found, distance| Answered { method, outcome: outcome(found), distance };
        Self {
            provider: case.provider.0,
            job: case.id,
            transcript: case.digest,
            tokens: score.positions,
            differing: score.differing,
            answers: [
                answered(Method::Accounts, verdict.accounts, faults.saturating_mul(2 * ONE)),
                answered(Method::Forced, verdict.forced, share(score.margins, allowed).max(end)),
                answered(Method::Activations, verdict.activations, hidden),
            ],
        }
    }

    /// Who answered.
    pub const fn provider(&self) -> NodeId {
        NodeId(self.provider)
    }

    /// What all questions come to: failed if one is, passed if its tokens are.
    pub fn outcome(&self) -> Outcome {
        let any = |outcome| self.answers.iter().any(|answer| answer.outcome == outcome);
        let forced = self.answers.iter().find(|answer| answer.method == Method::Forced);
        match forced {
            _ if any(Outcome::Failed) => Outcome::Failed,
            Some(forced) if forced.outcome == Outcome::Passed => Outcome::Passed,
            _ => Outcome::Unclear,
        }
    }
}

/// `value` in millionths of what is allowed; where nothing is, anything is beyond it.
fn share(value: i64, allowed: i64) -> u64 {
    let value = u64::try_from(value).unwrap_or(0);
    match u64::try_from(allowed) {
        Ok(allowed) if allowed > 0 => {
            u64::try_from(u128::from(value) * u128::from(ONE) / u128::from(allowed)).unwrap_or(u64::MAX)
        }
        _ if value > 0 => ONE.saturating_add(value),
        _ => 0,
    }
}

/// A copy in memory, and when it was used last.
type Held = ([u8; 32], Arc<ModelCopy>, Instant);

/// Examines answers. Copies of models are loaded when they are needed, apart from those that answer jobs.
#[derive(Debug)]
pub struct Examiner {
    inference: Inference,
    copies: tokio::sync::Mutex<Vec<Held>>,
}

impl Examiner {
    /// An examiner with the models of this machine.
    pub fn new(inference: Inference) -> Self {
        Self { inference, copies: tokio::sync::Mutex::default() }
    }

    /// Checks a transcript, replays its answer, and says what was found.
    ///
    /// # Errors
    /// [`ExamineError`]
    pub async fn examine(&self, transcript: &Transcript) -> Result<Report, ExamineError> {
        let case = transcript.check()?;
        let copy = self.copy(case.model).await?;
        let (score, verdict) = copy.examine(case.job.clone(), case.answer.clone()).await?;
        Ok(Report::new(&case, &score, &verdict))
    }

    /// Whether a model takes turns of a conversation.
    ///
    /// # Errors
    /// [`ExamineError`] when there is no copy of it here.
    pub async fn chats(&self, digest: [u8; 32]) -> Result<bool, ExamineError> {
        Ok(self.copy(digest).await?.chats())
    }

    /// Gives back the memory of copies that were not used for a while.
    pub async fn tidy(&self) {
        let now = Instant::now();
        self.copies.lock().await.retain(|(.., used)| now.duration_since(*used) < KEEP);
    }

    async fn copy(&self, digest: [u8; 32]) -> Result<Arc<ModelCopy>, ExamineError> {
        // One is loaded at a time: whoever comes second finds it.
        let mut copies = self.copies.lock().await;
        if let Some((_, copy, used)) = copies.iter_mut().find(|(held, ..)| *held == digest) {
            *used = Instant::now();
            return Ok(Arc::clone(copy));
        }
        let copy = Arc::new(self.inference.copy(digest).await?.ok_or(ExamineError::NoCopy)?);
        if copies.len() >= COPIES
            && let Some(oldest) =
                copies.iter().enumerate().min_by_key(|(_, (.., used))| *used).map(|(at, _)| at)
        {
            copies.swap_remove(oldest);
        }
        copies.push((digest, Arc::clone(&copy), Instant::now()));
        Ok(copy)
    }
}
