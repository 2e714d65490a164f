//! `POST /api/embed` and the older `POST /api/embeddings`

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::super::{
    Api, ApiError, body,
    embed::Ask,
    error::Ollama,
    fields::Fields,
    guard::{self, Caller},
    label_reply,
};
use crate::{
    inference::MAX_TEXTS,
    job::{KeepAlive, Mode, Origin},
};

#[derive(Serialize)]
struct Many {
    model: String,
    embeddings: Vec<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<u64>,
}

#[derive(Serialize)]
struct One {
    embedding: Vec<f32>,
}

/// What both requests say beside their texts.
struct Head {
    model: String,
    mode: Mode,
    keep_alive: Option<KeepAlive>,
    truncate: bool,
}

impl Head {
    fn take(fields: &mut Fields, headers: &HeaderMap, caller: &Caller) -> Result<Self, ApiError> {
        let named = fields.required_string("model")?;
        let (model, mode) = guard::resolve(headers, &named, caller)?;
        let keep_alive = super::super::openai::keep_alive(fields)?;
        let truncate = fields.bool("truncate")?.unwrap_or(true);
        // Nothing in them concerns an encoder; their type is checked.
        fields.object("options")?;
        Ok(Self { model, mode, keep_alive, truncate })
    }

    /// Without texts: the model is loaded, or unloaded with a keep-alive of nothing.
    async fn load_only(&self, api: &Api) -> Result<(), ApiError> {
        if self.keep_alive == Some(KeepAlive::For(Duration::ZERO)) {
            api.desk.unload(self.model.clone()).await?;
        } else {
            api.desk.load(self.model.clone(), self.keep_alive).await?;
        }
        Ok(())
    }

    fn ask(&self, texts: Vec<String>) -> Ask {
        let Self { mode, truncate, keep_alive, .. } = *self;
        Ask { model: self.model.clone(), mode, texts, truncate, keep_alive }
    }

    fn respond(&self, api: &Api, answer: impl Serialize) -> Response {
        let mut response = Json(answer).into_response();
        let node = api.settings.node.clone();
        label_reply(&mut response, &Origin { node, mode: self.mode, job: Uuid::nil(), bill: None });
        response
    }
}

pub(super) async fn embed(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Ollama> {
    let mut fields = Fields::new(body::object(&api, request).await?);
    let head = Head::take(&mut fields, &headers, &caller)?;
    let texts = texts(fields.take("input"))?;
    let dimensions = fields.integer("dimensions", 0..=i64::from(u32::MAX))?;
    fields.log_unknown("ollama");
    let model = head.model.clone();
    if texts.is_empty() {
        head.load_only(&api).await?;
        let none = Many {
            model,
            embeddings: Vec::new(),
            total_duration: None,
            load_duration: None,
            prompt_eval_count: None,
        };
        return Ok(head.respond(&api, none));
    }
    let (mut done, time) = head.ask(texts).answer(&api, "input").await?;
    if let Some(dims) = dimensions.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0) {
        done.vectors.iter_mut().for_each(|vector| shorten(vector, dims));
    }
    let nanos = |time: Duration| Some(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let answer = Many {
        model,
        embeddings: done.vectors,
        total_duration: nanos(time),
        load_duration: nanos(done.load),
        prompt_eval_count: Some(done.tokens),
    };
    Ok(head.respond(&api, answer))
}

pub(super) async fn embeddings(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Ollama> {
    let mut fields = Fields::new(body::object(&api, request).await?);
    let head = Head::take(&mut fields, &headers, &caller)?;
    let prompt = fields.string("prompt")?.unwrap_or_default();
    fields.log_unknown("ollama");
    if prompt.is_empty() {
        head.load_only(&api).await?;
        return Ok(head.respond(&api, One { embedding: Vec::new() }));
    }
    let (done, _) = head.ask(vec![prompt]).answer(&api, "prompt").await?;
    let embedding = done.vectors.into_iter().next().unwrap_or_default();
    Ok(head.respond(&api, One { embedding }))
}

/// `input`: one text or a list. An empty text alone is none, as Ollama has it; one in a list is embedded.
fn texts(input: Option<Value>) -> Result<Vec<String>, ApiError> {
    let wrong = |reason: &str| ApiError::invalid("input", reason);
    let items = match input {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => return Ok(Vec::new()),
        Some(Value::String(text)) => return Ok(vec![text]),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(wrong("must be a text or a list of texts")),
    };
    if items.len() > MAX_TEXTS {
        return Err(wrong(&format!("at most {MAX_TEXTS} texts are possible, not {}", items.len())));
    }
    let text = |item| match item {
        Value::String(text) => Ok(text),
        _ => Err(wrong("must be a text or a list of texts")),
    };
    items.into_iter().map(text).collect()
}

/// The first `dims` numbers, again of length 1.
fn shorten(vector: &mut Vec<f32>, dims: usize) {
    if dims >= vector.len() {
        return;
    }
    vector.truncate(dims);
    let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|v| *v /= norm);
    }
}
