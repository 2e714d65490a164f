//! OpenAI's surface: `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/models`.
//!
//! Fields that OpenAI does not know are ignored, as its clients expect; wrong types and ranges of those it
//! does know are refused with the field's name.

use axum::{
    Extension, Json, Router,
    extract::{Path, State},
    http::HeaderMap,
    routing::get,
};
use serde_json::{Value, json};

use super::{
    Api,
    error::OpenAi,
    guard::{self, Caller},
    on_post,
};
use crate::{
    inference::ModelEntry,
    job::{FinishReason, Mode, TokenLogprob, Usage},
};

mod chat;
mod completions;
mod embeddings;
mod request;

pub(super) use request::keep_alive;

/// The program's version, as clients that compare seeds want to see it.
pub(crate) const FINGERPRINT: &str = concat!("potluck-", env!("CARGO_PKG_VERSION"));

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/chat/completions", on_post(chat::create))
        .route("/v1/completions", on_post(completions::create))
        .route("/v1/embeddings", on_post(embeddings::create))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
}

/// What can be asked for: this machine's models and, in mode trusted, the pool's. A caller that may use the pool but
/// asks in another mode sees the pool's further models under names that say so.
async fn models(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Json<Value>, OpenAi> {
    let (_, mode) = guard::resolve(&headers, "", &caller)?;
    let own = api.desk.models().await;
    let mut data: Vec<_> = own.iter().map(describe).collect();
    if caller.modes.contains(&Mode::Trusted) {
        let others = api.desk.offers(Mode::Trusted).await;
        for offer in others.into_iter().filter(|offer| own.iter().all(|model| model.name != offer.model)) {
            let id = if mode == Mode::Local { format!("{}@trusted", offer.model) } else { offer.model };
            data.push(json!({"id": id, "object": "model", "created": 0, "owned_by": "pool"}));
        }
    }
    // Strangers' models are listed for whoever asks for them: only then does the node look for any.
    if mode == Mode::Public {
        for offer in api.desk.offers(Mode::Public).await {
            if data.iter().all(|known| known.get("id") != Some(&json!(offer.model))) {
                let id = offer.model;
                data.push(json!({"id": id, "object": "model", "created": 0, "owned_by": "public"}));
            }
        }
    }
    Ok(Json(json!({"object": "list", "data": data})))
}

async fn model(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, OpenAi> {
    let details = api.desk.details(id).await?;
    Ok(Json(describe(&details.entry)))
}

fn describe(entry: &ModelEntry) -> Value {
    json!({"id": entry.name, "object": "model", "created": entry.modified, "owned_by": "potluck"})
}

/// OpenAI's `usage` over all choices. `prompts` holds the usage of one choice of each prompt.
fn usage<'a>(all: impl Iterator<Item = &'a Usage>, prompts: impl Iterator<Item = &'a Usage>) -> Value {
    let completion: u64 = all.map(|usage| u64::from(usage.completion_tokens)).sum();
    let (prompt, cached) = prompts.fold((0, 0), |(prompt, cached), usage| {
        (prompt + u64::from(usage.prompt_tokens), cached + u64::from(usage.cached_tokens))
    });
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    })
}

const fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// Log-probabilities as chat completions write them.
fn chat_logprobs(tokens: &[TokenLogprob]) -> Value {
    let content: Vec<_> = tokens
        .iter()
        .map(|token| {
            let top: Vec<_> = token
                .top
                .iter()
                .map(|(text, bytes, logprob)| json!({"token": text, "logprob": number(*logprob), "bytes": bytes}))
                .collect();
            json!({"token": token.token, "logprob": number(token.logprob), "bytes": token.bytes, "top_logprobs": top})
        })
        .collect();
    json!({"content": content, "refusal": null})
}

/// Log-probabilities as completions write them; `offset` is where the first token begins, in characters.
fn text_logprobs(tokens: &[TokenLogprob], mut offset: usize) -> Value {
    let mut texts = Vec::new();
    let mut probabilities = Vec::new();
    let mut tops = Vec::new();
    let mut offsets = Vec::new();
    for token in tokens {
        texts.push(token.token.clone());
        probabilities.push(number(token.logprob));
        let top: serde_json::Map<String, Value> =
            token.top.iter().map(|(text, _, logprob)| (text.clone(), number(*logprob))).collect();
        tops.push(top);
        offsets.push(offset);
        offset += token.token.chars().count();
    }
    json!({"tokens": texts, "token_logprobs": probabilities, "top_logprobs": tops, "text_offset": offsets})
}

/// A log-probability as JSON can say it: `-inf` has no number, OpenAI writes -9999.
fn number(logprob: f32) -> Value {
    let value = if logprob.is_finite() { logprob } else { -9999.0 };
    json!(value)
}
