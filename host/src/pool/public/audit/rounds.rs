//! A verifier's rounds: from time to time, at moments that nobody can foresee, one provider is asked and its answer
//! replayed. Those that were not audited for longest come first.

use std::{fmt, sync::Arc, time::Duration};

use potluck_primitives::UnixMillis;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    canary::{self, CanaryError, Dice},
    examine::{ExamineError, Examiner, Report},
    record::{Docket, RecordError},
};
use crate::{
    job::JobError,
    pool::public::{
        market::Candidate,
        provider::{Parts, Ready},
        receipts::now_ms,
    },
};

/// The way to a provider, as health is counted.
const PATH: &str = "public";

/// Why a round came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// The network cannot be joined.
    #[error(transparent)]
    Join(#[from] JobError),
    /// No provider offers a model that this machine has.
    #[error("nobody offers a model of which this machine has a copy")]
    Nobody,
    /// There is no answer to audit.
    #[error(transparent)]
    Canary(#[from] CanaryError),
    /// The answer cannot be examined here.
    #[error(transparent)]
    Examine(#[from] ExamineError),
    /// The audit cannot be kept.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A thread ended.
    #[error("keeping the audit broke off")]
    Broken,
}

/// What auditing takes.
pub struct Rounds {
    /// Asks strangers, as for every other request of this machine.
    pub ready: Arc<dyn Ready>,
    /// This machine's copies of models.
    pub examiner: Arc<Examiner>,
    /// Where audits are kept.
    pub docket: Arc<Docket>,
    /// Mean time between two audits.
    pub every: Duration,
}

impl fmt::Debug for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rounds").field("every", &self.every).finish_non_exhaustive()
    }
}

impl Rounds {
    /// Audits until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut dice = Dice::new();
        loop {
            let wait = pause(self.every, dice.roll());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let round = tokio::select! {
                () = stop.cancelled() => return,
                round = self.once(&mut dice) => round,
            };
            match round {
                Ok(report) => {
                    let (provider, outcome) = (report.provider(), report.outcome());
                    tracing::info!(%provider, ?outcome, tokens = report.tokens, "an answer was audited");
                }
                Err(why) => tracing::debug!(%why, "no answer was audited"),
            }
            self.examiner.tidy().await;
        }
    }

    /// One audit.
    ///
    /// # Errors
    /// [`RoundError`]
    pub async fn once(&self, dice: &mut Dice) -> Result<Report, RoundError> {
        let parts = self.ready.parts().await?;
        let (candidate, chats) = self.choose(&parts, dice).await.ok_or(RoundError::Nobody)?;
        let job = canary::job(candidate.model.name(), chats, dice);
        let transcript = canary::ask(&parts, &candidate, &job).await?;
        let report = self.examiner.examine(&transcript).await?;
        let (docket, entered) = (Arc::clone(&self.docket), report.clone());
        let enter = move || docket.enter(now_ms(), &entered, &transcript);
        tokio::task::spawn_blocking(enter).await.map_err(|_| RoundError::Broken)??;
        Ok(report)
    }

    /// Whom to audit: of the providers with a model that is here the one that waited longest, now and then another.
    async fn choose(&self, parts: &Parts, dice: &mut Dice) -> Option<(Candidate, bool)> {
        let mut all = Vec::new();
        for listed in parts.market.offers(UnixMillis(now_ms())) {
            let provider = listed.offer().provider();
            if provider.0 == parts.me {
                continue;
            }
            let last = self.docket.standing(provider).last_ms;
            let models: Vec<_> = listed.offer().models.iter().cloned().collect();
            let Some(model) = dice.pick(&models).cloned() else { continue };
            let seen = parts.health.seen(provider, model.name(), PATH, Instant::now());
            all.push((last, dice.roll(), Candidate { listed: listed.clone(), model, seen }));
        }
        all.sort_by_key(|(last, roll, _)| (*last, *roll));
        // One of four is anybody: nobody is safe because it was audited a moment ago.
        if dice.roll().is_multiple_of(4) {
            all.sort_by_key(|(_, roll, _)| *roll);
        }
        for (.., candidate) in all {
            if let Ok(chats) = self.examiner.chats(candidate.model.digest).await {
                return Some((candidate, chats));
            }
        }
        None
    }
}

/// A time around `every` that is exponentially distributed, so that the past says nothing about the next.
#[allow(clippy::cast_precision_loss, reason = "a random number")]
fn pause(every: Duration, roll: u64) -> Duration {
    let part = ((roll >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    every.mul_f64((-part.ln()).min(10.0))
}
