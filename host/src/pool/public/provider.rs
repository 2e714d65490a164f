//! Strangers as one provider of answers.
//!
//! A job goes to the best provider that will do it for what may be paid. One that refuses, fails or falls silent makes
//! room for the next; the next goes on after the tokens that are there, and the reader sees one unbroken answer. At
//! most one chunk of payment is lost with each.

mod errand;

use std::{fmt, sync::Arc};

use potluck_primitives::{Account, UnixMillis};
use tokio::time::Instant;

use super::{
    budget::Budgets,
    market::{Candidate, Chooser, Market, Wish},
    receipts::{ReceiptBook, now_ms},
    session::{Circuits, PaymentError, Purse, Timers, ask::CallError},
};
use crate::{
    dispatch::{
        health::{Blame, Health},
        provider::{BoxFuture, Offer, Provider},
    },
    job::{Job, JobError, Mode, Reply, random_seed},
};
use errand::Errand;

/// The way to a provider, as health is counted.
const PATH: &str = "public";

/// How strangers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskConfig {
    /// Providers that are tried for one job.
    pub tries: usize,
    /// Jobs that one provider is given at the same time.
    pub in_flight: u32,
    /// The clocks.
    pub timers: Timers,
}

impl Default for AskConfig {
    fn default() -> Self {
        Self { tries: 5, in_flight: 4, timers: Timers::default() }
    }
}

/// What asking takes, once the network was joined.
#[derive(Clone, Debug)]
pub struct Parts {
    /// How strangers are asked.
    pub config: AskConfig,
    /// This machine's own account.
    pub me: Account,
    /// Who offers what.
    pub market: Arc<Market>,
    /// Orders providers.
    pub chooser: Arc<dyn Chooser>,
    /// Leads to them.
    pub circuits: Arc<dyn Circuits>,
    /// Pays.
    pub purse: Arc<dyn Purse>,
    /// What may be paid.
    pub budgets: Budgets,
    /// Keeps the receipts.
    pub receipts: Arc<ReceiptBook>,
    /// What was seen of providers.
    pub health: Arc<Health>,
}

/// Joins the network when it is first needed.
pub trait Ready: Send + Sync + fmt::Debug {
    /// Whether the public pool may be asked at all.
    fn allowed(&self) -> bool;

    /// What asking takes; the first call joins the network, and waits until there are offers, for a while.
    ///
    /// # Errors
    /// [`JobError::ModeUnavailable`].
    fn parts(&self) -> BoxFuture<'_, Result<Arc<Parts>, JobError>>;
}

/// Parts that are there from the start.
#[derive(Clone, Debug)]
pub struct Given(pub Arc<Parts>);

impl Ready for Given {
    fn allowed(&self) -> bool {
        true
    }

    fn parts(&self) -> BoxFuture<'_, Result<Arc<Parts>, JobError>> {
        Box::pin(async { Ok(Arc::clone(&self.0)) })
    }
}

/// Answers jobs with the machines of strangers. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct PublicProvider {
    ready: Arc<dyn Ready>,
}

impl PublicProvider {
    /// A provider over what `ready` leads to.
    pub fn new(ready: Arc<dyn Ready>) -> Self {
        Self { ready }
    }
}

impl Provider for PublicProvider {
    fn circle(&self) -> Mode {
        Mode::Public
    }

    fn there(&self) -> bool {
        self.ready.allowed()
    }

    fn node(&self) -> &str {
        "public"
    }

    fn offers(&self) -> BoxFuture<'_, Vec<Offer>> {
        Box::pin(async {
            let Ok(parts) = self.ready.parts().await else { return Vec::new() };
            let mut all: Vec<Offer> = Vec::new();
            for listed in parts.market.offers(UnixMillis(now_ms())) {
                for model in listed.offer().models.iter() {
                    let context = u64::from(model.context);
                    match all.iter_mut().find(|offer| offer.model == model.name()) {
                        Some(offer) => offer.context = offer.context.max(context),
                        None => all.push(Offer { model: model.name().to_owned(), context }),
                    }
                }
            }
            all
        })
    }

    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>> {
        Box::pin(async move {
            let parts = self.ready.parts().await?;
            Errand::start(parts, job).await
        })
    }
}

/// Why a provider does not answer.
#[derive(Debug)]
struct Trouble {
    error: JobError,
    blame: Option<Blame>,
    /// No other provider would do better.
    last: bool,
}

impl Parts {
    /// Every provider that has a model, with what was seen of it.
    fn candidates(&self, model: &str) -> Vec<Candidate> {
        let now = Instant::now();
        let found = self.market.of(model, UnixMillis(now_ms())).into_iter();
        let seen = |(listed, model): (super::market::Listed, super::offer::ModelOffer)| {
            let seen = self.health.seen(listed.offer().provider(), model.name(), PATH, now);
            Candidate { listed, model, seen }
        };
        found.map(seen).collect()
    }

    /// The providers for a job in their order.
    fn ranked(&self, wish: &Wish<'_>, keep: impl Fn(&Candidate) -> bool) -> Vec<Candidate> {
        let all = self.candidates(&wish.job.model).into_iter();
        let free = all.filter(|candidate| {
            candidate.able(wish) && keep(candidate) && candidate.seen.there < self.config.in_flight
        });
        self.chooser.order(wish, free.collect())
    }

    /// Notes that a provider failed.
    fn note(&self, candidate: &Candidate, trouble: &Trouble) {
        let Some(blame) = trouble.blame else { return };
        let jitter = f64::from(u8::try_from(random_seed() % 256).unwrap_or(0)) / 255.0;
        let (provider, why) = (candidate.provider(), trouble.error.to_string());
        tracing::info!(%provider, model = candidate.model.name(), why, "a public provider failed");
        self.health.failed(provider, candidate.model.name(), blame, &why, jitter, Instant::now());
    }
}

fn unanswered(reason: String) -> Trouble {
    Trouble { error: JobError::Unanswered { reason }, blame: None, last: false }
}

fn away(reason: String) -> Trouble {
    Trouble { blame: Some(Blame::Machine), ..unanswered(reason) }
}

/// What a provider's own words mean for the job.
fn refused(error: JobError) -> Trouble {
    let ours = ["resume", "version", "spend", "receipt_key", "id"];
    let (blame, last) = match &error {
        JobError::Invalid { field, .. } => (None, !ours.contains(&field.as_str())),
        // It says that it was not paid. Whether that is true nobody can tell; it is not asked for a while.
        JobError::Payment { .. }
        | JobError::ModelUnusable { .. }
        | JobError::Internal { .. }
        | JobError::Unanswered { .. } => (Some(Blame::Model), false),
        _ => (None, false),
    };
    Trouble { error, blame, last }
}

fn trouble(error: CallError) -> Trouble {
    let last = |error| Trouble { error, blame: None, last: true };
    match error {
        CallError::Refused(error) => refused(error),
        CallError::TooLarge { .. } => {
            last(JobError::Invalid { field: "messages".into(), reason: error.to_string() })
        }
        CallError::Payment(PaymentError::Issuer(_)) => {
            last(JobError::Unanswered { reason: error.to_string() })
        }
        CallError::Payment(_) | CallError::Dear { .. } => {
            last(JobError::Payment { reason: error.to_string() })
        }
        CallError::Random => last(JobError::Internal { reason: error.to_string() }),
        CallError::Stuck { .. } => Trouble { blame: Some(Blame::Model), ..unanswered(error.to_string()) },
        CallError::Silent { .. } | CallError::Broken(_) | CallError::Nonsense(_) => away(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
