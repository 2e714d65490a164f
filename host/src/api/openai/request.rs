//! What chat completions and completions have in common: reading the request, submitting its jobs.

use axum::http::HeaderMap;
use serde_json::Value;
use uuid::Uuid;

use crate::api::{
    Api, ApiError,
    fields::Fields,
    guard::{self, Caller},
    sampling::Sampling,
};
use crate::job::{Format, Input, Job, JobError, KeepAlive, Mode, Reply, Spend};

/// Most choices of one request.
const CHOICES: i64 = 8;
/// Most stop sequences.
const STOPS: usize = 4;
/// Most jobs one request may become.
const JOBS: usize = 64;

/// A request, but for what it asks to continue.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) model: String,
    pub(super) mode: Mode,
    pub(super) n: usize,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) logprobs: Option<u8>,
    sampling: Sampling,
    max_tokens: Option<u32>,
    stop: Vec<String>,
    format: Format,
    keep_alive: Option<KeepAlive>,
    spend: Spend,
}

impl Ask {
    pub(super) fn take(fields: &mut Fields, headers: &HeaderMap, caller: &Caller) -> Result<Self, ApiError> {
        let model = fields.required_string("model")?;
        let (model, mode) = guard::resolve(headers, &model, caller)?;
        let mut sampling = Sampling::take(fields)?;
        sampling.take_bias(fields)?;
        let most = i64::from(u32::MAX);
        let max_tokens = fields.integer("max_tokens", 1..=most)?;
        let max_tokens = fields.integer("max_completion_tokens", 1..=most)?.or(max_tokens);
        let stream = fields.bool("stream")?.unwrap_or(false);
        let include_usage = match fields.object("stream_options")? {
            Some(mut options) => options.bool("include_usage")?.unwrap_or(false),
            None => false,
        };
        let keep_alive = keep_alive(fields)?;
        Ok(Self {
            model,
            mode,
            n: fields.integer("n", 1..=CHOICES)?.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            stream,
            include_usage,
            logprobs: None,
            sampling,
            max_tokens: max_tokens.and_then(|n| u32::try_from(n).ok()),
            stop: fields.strings("stop", STOPS)?,
            format: format(fields)?,
            keep_alive,
            spend: guard::spend(headers, caller)?,
        })
    }

    pub(super) fn default_max_tokens(&mut self, tokens: u32) {
        self.max_tokens.get_or_insert(tokens);
    }

    /// Submits every choice of every input, in order. `field` is what the surface calls the input.
    pub(super) async fn submit(
        &self,
        api: &Api,
        field: &str,
        inputs: &[Input],
    ) -> Result<Vec<Reply>, ApiError> {
        if inputs.len().saturating_mul(self.n) > JOBS {
            return Err(ApiError::invalid(
                "prompt",
                format!("at most {JOBS} prompts times choices are possible"),
            ));
        }
        let mut replies = Vec::new();
        for input in inputs {
            for choice in 0..self.n {
                let job = Job {
                    id: Uuid::now_v7(),
                    model: self.model.clone(),
                    mode: self.mode,
                    input: input.clone(),
                    sampling: self.sampling.params(choice as u64),
                    max_tokens: self.max_tokens,
                    stop: self.stop.clone(),
                    format: self.format.clone(),
                    logprobs: self.logprobs,
                    keep_alive: self.keep_alive,
                    resume: Vec::new(),
                    spend: self.spend.clone(),
                };
                replies.push(api.submit(job).await.map_err(|error| rename(error, field))?);
            }
        }
        Ok(replies)
    }
}

/// `keep_alive`, an extension that Ollama's clients know: seconds, or a duration in words.
pub(in crate::api) fn keep_alive(fields: &mut Fields) -> Result<Option<KeepAlive>, ApiError> {
    let text = match fields.take("keep_alive") {
        None => return Ok(None),
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        Some(other) => {
            return Err(ApiError::invalid(
                "keep_alive",
                format!("must be seconds or a duration like 5m, not {other}"),
            ));
        }
    };
    crate::config::value::parse_keep_alive(&text)
        .map(Some)
        .map_err(|reason| ApiError::invalid("keep_alive", reason))
}

fn format(fields: &mut Fields) -> Result<Format, ApiError> {
    let Some(mut wanted) = fields.object("response_format")? else { return Ok(Format::Text) };
    match wanted.required_string("type")?.as_str() {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::JsonObject),
        "json_schema" => {
            let param = wanted.name("json_schema.schema");
            let missing = || ApiError::invalid(&param, "is required and must be an object");
            let mut schema = wanted.object("json_schema")?.ok_or_else(missing)?;
            match schema.take("schema") {
                Some(schema @ Value::Object(_)) => Ok(Format::JsonSchema(schema)),
                _ => Err(missing()),
            }
        }
        other => Err(ApiError::invalid(
            "response_format.type",
            format!("must be text, json_object or json_schema, not {other}"),
        )),
    }
}

/// Names the fields at fault as this surface calls them.
pub(super) fn rename(error: JobError, input: &str) -> ApiError {
    let mut error = ApiError::from(error);
    if error.code == Some("context_length_exceeded") {
        error.param = Some(input.to_owned());
    }
    error
}
