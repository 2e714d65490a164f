//! `POST /v1/embeddings`

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::super::{
    Api, ApiError, body,
    embed::Ask,
    error::OpenAi,
    fields::Fields,
    guard::{self, Caller},
    label_reply,
};
use crate::{inference::MAX_TEXTS, job::Origin};

/// The answer. Vectors are written as they are, not by way of JSON values: there may be millions of numbers.
#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Item>,
    model: String,
    usage: Tokens,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    /// Little-endian f32.
    Base64(String),
}

#[derive(Serialize)]
struct Tokens {
    prompt_tokens: u64,
    total_tokens: u64,
}

pub(super) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, OpenAi> {
    let mut fields = Fields::new(body::object(&api, request).await?);
    let named = fields.required_string("model")?;
    let (model, mode) = guard::resolve(&headers, &named, &caller)?;
    let texts = texts(fields.take("input"))?;
    let base64 = match fields.string("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let reason = format!("must be float or base64, not {other}");
            return Err(ApiError::invalid("encoding_format", reason).into());
        }
    };
    let dimensions = fields.integer("dimensions", 1..=i64::from(u32::MAX))?;
    // OpenAI's API cuts no text unless asked to; the word is the one other servers of this API use.
    let truncate = fields.bool("truncate")?.unwrap_or(false);
    let keep_alive = super::keep_alive(&mut fields)?;
    fields.log_unknown("openai");
    let ask = Ask { model: model.clone(), mode, texts, truncate, keep_alive };
    let (done, _) = ask.answer(&api, "input").await?;
    if dimensions.is_some_and(|n| usize::try_from(n) != Ok(done.dims)) {
        let reason =
            format!("`{}` makes vectors of {} numbers and was not trained for others", model, done.dims);
        return Err(ApiError::invalid("dimensions", reason).into());
    }
    let item = |(index, vector): (usize, Vec<f32>)| {
        let embedding = if base64 { Vector::Base64(encode(&vector)) } else { Vector::Floats(vector) };
        Item { object: "embedding", index, embedding }
    };
    let usage = Tokens { prompt_tokens: done.tokens, total_tokens: done.tokens };
    let data = done.vectors.into_iter().enumerate().map(item).collect();
    let mut response = Json(List { object: "list", data, model, usage }).into_response();
    let node = api.settings.node.clone();
    label_reply(&mut response, &Origin { node, mode, job: Uuid::nil(), bill: None });
    Ok(response)
}

fn encode(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

/// `input`: one text or a list of texts, none of them empty.
fn texts(input: Option<Value>) -> Result<Vec<String>, ApiError> {
    let wrong = |reason: &str| Err(ApiError::invalid("input", reason));
    let items = match input {
        None => return wrong("is required"),
        Some(Value::Array(items)) => items,
        Some(one) => vec![one],
    };
    if items.is_empty() {
        return wrong("must hold at least one text");
    }
    // Ids mean something to one tokenizer only. Those that clients make are OpenAI's, and would be read here as
    // other words without anybody noticing.
    if matches!(items.first(), Some(Value::Number(_) | Value::Array(_))) {
        return wrong(
            "token ids mean nothing to this model's tokenizer; send text (with LangChain: check_embedding_ctx_length=False)",
        );
    }
    if items.len() > MAX_TEXTS {
        return wrong(&format!("at most {MAX_TEXTS} texts are possible, not {}", items.len()));
    }
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Value::String(text) if !text.is_empty() => texts.push(text),
            Value::String(_) => return wrong("must not hold an empty text"),
            _ => return wrong("must be a text or a list of texts"),
        }
    }
    Ok(texts)
}
