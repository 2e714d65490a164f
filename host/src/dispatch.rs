//! Who answers a job: mode guard → candidates → provider, and the next one when the first fails before it has
//! said anything.

pub mod canary;
#[cfg(test)]
pub(crate) mod fixture;
pub mod health;
pub mod load;
pub mod local;
pub mod pool;
pub mod provider;
pub mod serve;
pub mod several;
pub mod share;

use std::sync::Arc;

use crate::job::{Job, JobError, Mode, Reply};
use provider::{Offer, SharedProvider};

/// Chooses providers for jobs. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    providers: Arc<Vec<SharedProvider>>,
}

impl Dispatcher {
    /// A dispatcher over these providers, best first.
    pub fn new(providers: Vec<SharedProvider>) -> Self {
        Self { providers: Arc::new(providers) }
    }

    /// Starts a job with the first provider that the job's mode allows and that takes it. A provider that is
    /// busy, stopping, broken or without the model is passed over; a refusal that every provider would repeat is
    /// returned at once.
    ///
    /// # Errors
    /// [`JobError::ModeUnavailable`], or the refusal of the provider that came closest.
    pub async fn submit(&self, job: Job) -> Result<Reply, JobError> {
        let candidates = self.candidates(job.mode)?;
        let mut refusal = JobError::ModelNotFound { model: job.model.clone() };
        for provider in candidates {
            match provider.submit(job.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(error) if elsewhere(&error) => {
                    tracing::debug!(node = provider.node(), %error, "trying the next provider");
                    // "Not here" says less than any other reason.
                    let says_more = !matches!(error, JobError::ModelNotFound { .. });
                    if says_more || matches!(refusal, JobError::ModelNotFound { .. }) {
                        refusal = error;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }

    /// Whether jobs of a mode have anywhere to run.
    ///
    /// # Errors
    /// [`JobError::ModeUnavailable`].
    pub fn admits(&self, mode: Mode) -> Result<(), JobError> {
        self.candidates(mode).map(drop)
    }

    /// Models that can be asked for in a mode, each once.
    ///
    /// # Errors
    /// [`JobError::ModeUnavailable`].
    pub async fn offers(&self, mode: Mode) -> Result<Vec<Offer>, JobError> {
        let mut all: Vec<Offer> = Vec::new();
        for provider in self.candidates(mode)? {
            for offer in provider.offers().await {
                if !all.iter().any(|o| o.model == offer.model) {
                    all.push(offer);
                }
            }
        }
        Ok(all)
    }

    /// The mode guard: providers whose circle lies within the mode. A mode whose own circle has no provider is
    /// refused, so that a caller never believes to be in a pool that is not there.
    fn candidates(&self, mode: Mode) -> Result<Vec<&SharedProvider>, JobError> {
        if !self.providers.iter().any(|p| p.circle() == mode && p.there()) {
            let reason = match mode {
                Mode::Local => "this node runs no models itself",
                Mode::Trusted => {
                    "this machine is in no trusted pool; found one with `potluck pool create NAME`, or join one with `potluck join INVITE`"
                }
                Mode::Public => {
                    "this node knows no node of the public pool; set public.bootstrap in its configuration"
                }
            };
            return Err(JobError::ModeUnavailable { mode, reason: reason.into() });
        }
        Ok(self.providers.iter().filter(|p| p.circle() <= mode && p.there()).collect())
    }
}

/// Whether another provider may do better.
fn elsewhere(error: &JobError) -> bool {
    match error {
        JobError::ModelNotFound { .. }
        | JobError::EmbedderMissing { .. }
        | JobError::ModelUnusable { .. }
        | JobError::Busy { .. }
        | JobError::ShuttingDown
        | JobError::ContextLengthExceeded { .. }
        | JobError::Unanswered { .. }
        | JobError::Internal { .. } => true,
        JobError::Invalid { .. }
        | JobError::ModeUnavailable { .. }
        | JobError::Payment { .. }
        | JobError::Cancelled => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{
        dispatch::provider::{BoxFuture, Provider},
        job::{Format, Input},
    };

    #[derive(Debug)]
    struct Fake(Mode, Option<JobError>, AtomicUsize);

    impl Provider for Fake {
        fn circle(&self) -> Mode {
            self.0
        }
        fn node(&self) -> &str {
            "fake"
        }
        fn offers(&self) -> BoxFuture<'_, Vec<Offer>> {
            Box::pin(async { vec![Offer { model: "m".into(), context: 1 }] })
        }
        fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>> {
            self.2.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                match &self.1 {
                    Some(error) => Err(error.clone()),
                    None => Ok(Reply::channel(format!("{:?}", self.0), job.mode).1),
                }
            })
        }
    }

    fn job(mode: Mode) -> Job {
        Job {
            id: uuid::Uuid::nil(),
            model: "m".into(),
            mode,
            input: Input::Tokens(vec![1]),
            sampling: Default::default(),
            max_tokens: None,
            stop: Vec::new(),
            format: Format::Text,
            logprobs: None,
            keep_alive: None,
            resume: Vec::new(),
            spend: Default::default(),
        }
    }

    #[tokio::test]
    async fn a_job_never_leaves_its_circle_and_fails_over_within_it() {
        let busy = JobError::Busy { queued: 1, retry_after: std::time::Duration::ZERO };
        let local = Arc::new(Fake(Mode::Local, Some(busy.clone()), AtomicUsize::new(0)));
        let trusted = Arc::new(Fake(Mode::Trusted, None, AtomicUsize::new(0)));
        let both = Dispatcher::new(vec![local.clone(), trusted.clone()]);
        assert_eq!(both.submit(job(Mode::Local)).await.unwrap_err(), busy);
        assert_eq!(trusted.2.load(Ordering::Relaxed), 0, "a local job reached a trusted provider");
        assert_eq!(both.submit(job(Mode::Trusted)).await.unwrap().node, "Trusted");
        assert_eq!(both.offers(Mode::Trusted).await.unwrap().len(), 1);
        for mode in [Mode::Trusted, Mode::Public] {
            let refused = Dispatcher::new(vec![local.clone()]).submit(job(mode)).await.unwrap_err();
            assert!(matches!(refused, JobError::ModeUnavailable { .. }), "{refused:?}");
        }
        let broken = JobError::Invalid { field: "f".into(), reason: "r".into() };
        let strict = Arc::new(Fake(Mode::Local, Some(broken.clone()), AtomicUsize::new(0)));
        let refused =
            Dispatcher::new(vec![strict, trusted.clone()]).submit(job(Mode::Trusted)).await.unwrap_err();
        assert_eq!(refused, broken);
    }
}
