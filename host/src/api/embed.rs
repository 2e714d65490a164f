//! What the surfaces' embeddings have in common.

use std::time::{Duration, Instant};

use super::{Api, ApiError};
use crate::{
    inference::{EmbedRequest, Embedded, Lane},
    job::{JobError, KeepAlive, Mode, Usage},
};

/// Requests of at most so many texts are somebody's question; larger ones are somebody's library.
const QUESTION: usize = 8;

/// Texts to embed, as any surface asks.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) model: String,
    pub(super) mode: Mode,
    pub(super) texts: Vec<String>,
    pub(super) truncate: bool,
    pub(super) keep_alive: Option<KeepAlive>,
}

impl Ask {
    /// Embeds, and the time that took.
    ///
    /// # Errors
    /// The node's refusal. `field` is what the surface calls the texts.
    pub(super) async fn answer(self, api: &Api, field: &str) -> Result<(Embedded, Duration), ApiError> {
        let began = Instant::now();
        let lane = if self.texts.len() <= QUESTION { Lane::Interactive } else { Lane::Background };
        let Self { model, mode, texts, truncate, keep_alive } = self;
        api.metrics.submitted(mode);
        let request = EmbedRequest { model, mode, texts, truncate, lane, keep_alive };
        let outcome = api.desk.embed(request).await;
        let time = began.elapsed();
        match outcome {
            Ok(done) => {
                api.metrics.finished(&usage(&done, time));
                Ok((done, time))
            }
            Err(error) => {
                api.metrics.refused();
                Err(explain(error, field))
            }
        }
    }
}

fn usage(done: &Embedded, time: Duration) -> Usage {
    Usage {
        prompt_tokens: u32::try_from(done.tokens).unwrap_or(u32::MAX),
        load: done.load,
        prompt: time.saturating_sub(done.load),
        total: time,
        ..Usage::default()
    }
}

/// The refusal with this surface's words for its fields.
fn explain(error: JobError, field: &str) -> ApiError {
    let long = match &error {
        JobError::ContextLengthExceeded { model, needed, available } => Some(format!(
            "{field}: a text has {needed} tokens, `{model}` takes {available}; split the text, or send \"truncate\": true to have it cut"
        )),
        _ => None,
    };
    let mut refusal = ApiError::from(error);
    if let Some(message) = long {
        refusal.message = message;
        refusal.param = Some(field.to_owned());
    }
    refusal
}
