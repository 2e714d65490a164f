//! Running answers, with what a surface wants to know before it commits itself to a status.

use std::time::Duration;

use super::Api;
use crate::job::{Answer, Event, FinishReason, JobError, Origin, Reply, TokenLogprob, Usage};

/// Longest wait for the first event before a stream begins; errors that come later are sent in the stream.
const FIRST: Duration = Duration::from_secs(10);

/// A submitted job whose first event may have come already.
#[derive(Debug)]
pub(crate) struct Running {
    first: Option<Event>,
    reply: Reply,
}

/// One step of an answer, for surfaces that stream.
#[derive(Debug)]
pub(crate) enum Step {
    Text(String, Vec<TokenLogprob>),
    Done(FinishReason, Usage),
}

impl Running {
    /// Waits for a running answer's first event, but not for ever.
    ///
    /// # Errors
    /// The job's, when that is what came first.
    pub(crate) async fn begin(api: &Api, mut reply: Reply) -> Result<Self, JobError> {
        match tokio::time::timeout(FIRST, reply.next()).await {
            Err(_) => Ok(Self { first: None, reply }),
            Ok(Some(Ok(event))) => Ok(Self { first: Some(event), reply }),
            Ok(Some(Err(error))) => {
                api.metrics.failed();
                Err(error)
            }
            Ok(None) => {
                api.metrics.failed();
                Err(broke_off())
            }
        }
    }

    pub(crate) fn origin(&self) -> Origin {
        self.reply.origin()
    }

    /// The next step. After `Done` or an error nothing follows.
    pub(crate) async fn next(&mut self, api: &Api) -> Result<Step, JobError> {
        let event = match self.first.take() {
            Some(event) => Ok(event),
            None => self.reply.next().await.unwrap_or_else(|| Err(broke_off())),
        };
        match event {
            Ok(Event::Text { text, logprobs, .. }) => Ok(Step::Text(text, logprobs)),
            Ok(Event::Done { reason, usage }) => {
                api.metrics.finished(&usage);
                Ok(Step::Done(reason, usage))
            }
            Err(error) => {
                api.metrics.failed();
                Err(error)
            }
        }
    }
}

/// Waits for a whole answer.
///
/// # Errors
/// The job's.
pub(crate) async fn whole(api: &Api, reply: Reply) -> Result<Answer, JobError> {
    let outcome = reply.collect().await;
    match &outcome {
        Ok(answer) => api.metrics.finished(&answer.usage),
        Err(_) => api.metrics.failed(),
    }
    outcome
}

fn broke_off() -> JobError {
    JobError::Internal { reason: "the answer broke off without saying why".into() }
}
