//! What shows later that an answer came from a model: commitments to the hidden states that its tokens were drawn from.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use potluck_kernels::audit::{Commitment, CommitmentError, Committer, Numerics};

/// What was committed to.
#[derive(Clone, Debug, PartialEq)]
pub struct Vouched {
    /// The arithmetic that the answer was computed with.
    pub numerics: Numerics,
    /// One for every 32 tokens.
    pub commitments: Vec<Commitment>,
}

/// Where the commitments of an answer are put when it is complete.
#[derive(Clone, Debug, Default)]
pub struct Vouch(Arc<OnceLock<Vouched>>);

impl Vouch {
    /// The commitments, once the answer is complete; none for an answer that failed.
    pub fn get(&self) -> Option<&Vouched> {
        self.0.get()
    }
}

/// Collects the hidden states of one answer.
pub(super) struct Vouching {
    vouch: Vouch,
    exact: bool,
    committer: Option<Result<Committer, CommitmentError>>,
    /// The state that the next token will be drawn from once its grammar is ready.
    waiting: Option<Vec<f32>>,
}

impl fmt::Debug for Vouching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vouching").finish_non_exhaustive()
    }
}

impl Vouching {
    pub(super) const fn new(vouch: Vouch) -> Self {
        Self { vouch, exact: true, committer: None, waiting: None }
    }

    /// Takes the state behind a row of logits: of a token that was drawn from it, or one that waits to be.
    pub(super) fn take(&mut self, row: &[f32], exact: bool, drawn: bool) {
        self.exact &= exact;
        self.waiting = Some(row.to_vec());
        self.drawn(drawn);
    }

    /// The token that was waited for is drawn, if it is. The one that ends an answer is none.
    pub(super) fn drawn(&mut self, drawn: bool) {
        if !drawn {
            return;
        }
        let Some(row) = self.waiting.take() else { return };
        let committer = self.committer.get_or_insert_with(|| Ok(Committer::new(row.len())));
        if let Ok(working) = committer
            && let Err(error) = working.push(&row)
        {
            *committer = Err(error);
        }
    }

    /// The answer is complete.
    pub(super) fn finish(self) {
        let done = self.committer.unwrap_or_else(|| Ok(Committer::new(1))).and_then(Committer::finish);
        match done {
            Ok(commitments) => {
                let numerics = if self.exact { Numerics::Exact } else { Numerics::Float };
                let _ = self.vouch.0.set(Vouched { numerics, commitments });
            }
            Err(error) => tracing::warn!(%error, "an answer is not vouched for"),
        }
    }
}
