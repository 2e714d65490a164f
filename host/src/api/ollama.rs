//! Ollama's surface: `/api/generate`, `/api/chat`, `/api/embed`, and the management of models.

use axum::{
    Json, Router,
    extract::Request,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Map, Value, json};

use super::{
    Api, ApiError, body,
    error::Ollama,
    fields::Fields,
    guard::{self, Caller},
    on_post,
    sampling::Sampling,
    time::rfc3339_now,
};
use crate::job::{FinishReason, Format, KeepAlive, Mode, Spend, Usage};

mod answer;
mod embed;
mod manage;
mod summary;

pub(crate) use summary::Summaries;

/// Most stop sequences.
const STOPS: usize = 16;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/generate", on_post(answer::generate))
        .route("/api/chat", on_post(answer::chat))
        .route("/api/tags", get(manage::tags))
        .route("/api/show", on_post(manage::show))
        .route("/api/ps", get(manage::ps))
        .route("/api/version", get(manage::version))
        .route("/api/pull", on_post(manage::pull))
        .route("/api/delete", axum::routing::delete(manage::delete).post(manage::delete))
        .route("/api/embed", on_post(embed::embed))
        .route("/api/embeddings", on_post(embed::embeddings))
        .route("/api/create", post(not_offered))
        .route("/api/copy", post(not_offered))
        .route("/api/push", post(not_offered))
}

async fn not_offered(request: Request) -> Ollama {
    let message = format!("this node does not offer {}; see / for what it does", request.uri().path());
    Ollama(ApiError::new(StatusCode::NOT_IMPLEMENTED, message))
}

/// What generate and chat have in common.
#[derive(Debug)]
struct Ask {
    model: String,
    mode: Mode,
    stream: bool,
    format: Format,
    keep_alive: Option<KeepAlive>,
    sampling: Sampling,
    max_tokens: Option<u32>,
    stop: Vec<String>,
    spend: Spend,
}

impl Ask {
    fn take(fields: &mut Fields, headers: &HeaderMap, caller: &Caller) -> Result<Self, ApiError> {
        let model = fields.required_string("model")?;
        let (model, mode) = guard::resolve(headers, &model, caller)?;
        let stream = fields.bool("stream")?.unwrap_or(true);
        let keep_alive = super::openai::keep_alive(fields)?;
        let format = match fields.take("format") {
            None => Format::Text,
            Some(Value::String(word)) if word.is_empty() => Format::Text,
            Some(Value::String(word)) if word == "json" => Format::JsonObject,
            Some(schema @ Value::Object(_)) => Format::JsonSchema(schema),
            Some(other) => {
                return Err(ApiError::invalid(
                    "format",
                    format!("must be \"json\" or a JSON schema, not {other}"),
                ));
            }
        };
        let mut options = match fields.object("options")? {
            Some(options) => options,
            None => Fields::new(Map::new()),
        };
        let mut sampling = Sampling::take(&mut options)?;
        // Ollama's defaults, which its users expect behind its API.
        sampling.temperature.get_or_insert(0.8);
        sampling.top_k.get_or_insert(40);
        sampling.top_p.get_or_insert(0.9);
        sampling.repeat_penalty.get_or_insert(1.1);
        let max_tokens = match options.integer("num_predict", -2..=i64::from(u32::MAX))? {
            Some(0) => {
                return Err(ApiError::invalid(
                    "options.num_predict",
                    "must be -1 (no limit), -2 (to the context's end) or at least 1",
                ));
            }
            number => number.and_then(|n| u32::try_from(n).ok()),
        };
        // A request never gets less context than the model has, and one that does not fit is refused with
        // both numbers, so there is nothing for num_ctx to change; its type is checked.
        options.integer("num_ctx", 1..=i64::from(u32::MAX))?;
        let stop = options.strings("stop", STOPS)?;
        options.log_unknown("ollama");
        let spend = guard::spend(headers, caller)?;
        Ok(Self { model, mode, stream, format, keep_alive, sampling, max_tokens, stop, spend })
    }

    /// An answer without a job: a model was loaded or unloaded.
    async fn load_only(&self, api: &Api, text: Value) -> Result<Response, ApiError> {
        let reason = if self.keep_alive == Some(KeepAlive::For(std::time::Duration::ZERO)) {
            api.desk.unload(self.model.clone()).await?;
            "unload"
        } else {
            api.desk.load(self.model.clone(), self.keep_alive).await?;
            "load"
        };
        let mut line = self.head();
        merge(&mut line, text);
        merge(&mut line, json!({"done": true, "done_reason": reason}));
        Ok(Json(line).into_response())
    }

    fn head(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("model".into(), self.model.clone().into());
        map.insert("created_at".into(), rfc3339_now().into());
        map
    }
}

fn merge(into: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        into.extend(more);
    }
}

/// The numbers of a last line; durations in nanoseconds.
fn end(reason: FinishReason, usage: &Usage) -> Value {
    let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let reason = match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    };
    json!({
        "done": true,
        "done_reason": reason,
        "total_duration": nanos(usage.total),
        "load_duration": nanos(usage.load),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": nanos(usage.prompt),
        "eval_count": usage.completion_tokens,
        "eval_duration": nanos(usage.decode),
    })
}

/// The model a management request names: `model`, or `name` as older clients say.
async fn named(api: &Api, request: Request) -> Result<(String, Fields), ApiError> {
    let mut fields = Fields::new(body::object(api, request).await?);
    let name = match fields.string("model")? {
        Some(model) if !model.is_empty() => model,
        _ => match fields.string("name")? {
            Some(name) if !name.is_empty() => name,
            _ => return Err(ApiError::invalid("model", "is required")),
        },
    };
    Ok((name, fields))
}
