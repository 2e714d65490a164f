//! `POST /api/generate` and `POST /api/chat`

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    super::{
        Api, ApiError, body,
        error::Ollama,
        fields::Fields,
        guard::Caller,
        label_reply,
        pump::{self, Framing, Gone, Pump},
        running::{Running, Step, whole},
        tools::{Piece, ToolCall, ToolFilter},
    },
    Ask, end, merge,
};
use crate::job::{Input, Job, Message};

/// Which of the two asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Generate,
    Chat,
}

impl Shape {
    /// Text in this shape.
    fn text(self, text: &str) -> Value {
        match self {
            Self::Generate => json!({"response": text}),
            Self::Chat => json!({"message": {"role": "assistant", "content": text}}),
        }
    }

    /// Text and calls in this shape.
    fn whole(self, text: &str, calls: &[ToolCall]) -> Value {
        match self {
            Self::Chat if !calls.is_empty() => {
                let calls: Vec<_> = calls.iter().map(call).collect();
                json!({"message": {"role": "assistant", "content": text.trim(), "tool_calls": calls}})
            }
            _ => self.text(text),
        }
    }
}

fn call(call: &ToolCall) -> Value {
    json!({"function": {"name": call.name, "arguments": call.arguments}})
}

pub(super) async fn generate(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Ollama> {
    let mut fields = Fields::new(body::object(&api, request).await?);
    let ask = Ask::take(&mut fields, &headers, &caller)?;
    let prompt = fields.string("prompt")?.unwrap_or_default();
    refuse_images(&mut fields, "images")?;
    for (field, instead) in [
        ("suffix", "models here continue text, they do not fill in"),
        ("template", "the model's own template is used; send the finished prompt with raw"),
    ] {
        if fields.string(field)?.is_some_and(|text| !text.is_empty()) {
            return Err(ApiError::invalid(field, format!("is not possible; {instead}")).into());
        }
    }
    if fields.array("context")?.is_some_and(|tokens| !tokens.is_empty()) {
        return Err(
            ApiError::invalid("context", "is not possible; send the conversation to /api/chat").into()
        );
    }
    let system = fields.string("system")?.filter(|text| !text.is_empty());
    let raw = fields.bool("raw")?.unwrap_or(false);
    let thinking = template_vars(&mut fields);
    fields.log_unknown("ollama");
    if prompt.is_empty() && system.is_none() && !raw {
        return Ok(ask.load_only(&api, Shape::Generate.text("")).await?);
    }
    let input = if raw || api.desk.details(ask.model.clone()).await?.template.is_none() {
        let text = match system {
            Some(system) => format!("{system}\n{prompt}"),
            None => prompt,
        };
        Input::Text { text, special: raw }
    } else {
        let turn = |role: &str, content: String| Message { role: role.into(), content, extra: Map::new() };
        let mut messages: Vec<_> = system.map(|system| turn("system", system)).into_iter().collect();
        messages.push(turn("user", prompt));
        Input::Chat { messages, tools: Vec::new(), template_vars: thinking }
    };
    answer(&api, ask, input, Shape::Generate).await
}

pub(super) async fn chat(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Ollama> {
    let mut fields = Fields::new(body::object(&api, request).await?);
    let ask = Ask::take(&mut fields, &headers, &caller)?;
    let given = fields.array("messages")?.unwrap_or_default();
    let tools = fields.array("tools")?.unwrap_or_default();
    let template_vars = template_vars(&mut fields);
    fields.log_unknown("ollama");
    if given.is_empty() {
        return Ok(ask.load_only(&api, Shape::Chat.text("")).await?);
    }
    let mut messages = Vec::with_capacity(given.len());
    for (index, value) in given.into_iter().enumerate() {
        messages.push(read_message(index, value)?);
    }
    answer(&api, ask, Input::Chat { messages, tools, template_vars }, Shape::Chat).await
}

/// `think` as the templates of thinking models know it.
fn template_vars(fields: &mut Fields) -> Map<String, Value> {
    let mut variables = Map::new();
    if let Some(Value::Bool(think)) = fields.take("think") {
        variables.insert("enable_thinking".into(), think.into());
    }
    variables
}

fn refuse_images(fields: &mut Fields, field: &str) -> Result<(), ApiError> {
    match fields.array(field)? {
        Some(images) if !images.is_empty() => {
            Err(ApiError::invalid(fields.name(field), "is not possible; this node's models read text"))
        }
        _ => Ok(()),
    }
}

fn read_message(index: usize, value: Value) -> Result<Message, ApiError> {
    let at = |field: &str| format!("messages[{index}]{field}");
    let Value::Object(mut map) = value else {
        return Err(ApiError::invalid(at(""), "must be an object with role and content"));
    };
    let role = match map.shift_remove("role") {
        Some(Value::String(role)) if ["system", "user", "assistant", "tool"].contains(&role.as_str()) => role,
        _ => return Err(ApiError::invalid(at(".role"), "must be system, user, assistant or tool")),
    };
    let content = match map.shift_remove("content") {
        Some(Value::String(text)) => text,
        None | Some(Value::Null) => String::new(),
        Some(_) => return Err(ApiError::invalid(at(".content"), "must be a string")),
    };
    match map.shift_remove("images") {
        Some(Value::Array(images)) if !images.is_empty() => {
            return Err(ApiError::invalid(at(".images"), "is not possible; this node's models read text"));
        }
        _ => {}
    }
    map.retain(|_, value| !value.is_null());
    Ok(Message { role, content, extra: map })
}

async fn answer(api: &Api, ask: Ask, input: Input, shape: Shape) -> Result<Response, Ollama> {
    let has_tools = matches!(&input, Input::Chat { tools, .. } if !tools.is_empty());
    let job = Job {
        id: Uuid::now_v7(),
        model: ask.model.clone(),
        mode: ask.mode,
        input,
        sampling: ask.sampling.params(0),
        max_tokens: ask.max_tokens,
        stop: ask.stop.clone(),
        format: ask.format.clone(),
        logprobs: None,
        keep_alive: ask.keep_alive,
        resume: Vec::new(),
        spend: ask.spend.clone(),
    };
    let reply = api.submit(job).await?;
    let origin = reply.origin();
    let mut response = if ask.stream {
        let running = Running::begin(api, reply).await?;
        let (api, patience) = (api.clone(), api.settings.config.http.client_timeout);
        pump::stream(Framing::Ndjson, patience, move |pump| async move {
            drive(&api, &ask, shape, ToolFilter::new(has_tools), running, &pump).await
        })
    } else {
        let answer = whole(api, reply).await?;
        let mut filter = ToolFilter::new(has_tools);
        let mut pieces = filter.push(answer.text);
        pieces.extend(filter.finish());
        let (text, calls) = gather(pieces);
        let mut line = ask.head();
        merge(&mut line, shape.whole(&text, &calls));
        merge(&mut line, end(answer.reason, &answer.usage));
        Json(line).into_response()
    };
    label_reply(&mut response, &origin);
    Ok(response)
}

fn gather(pieces: Vec<Piece>) -> (String, Vec<ToolCall>) {
    let mut text = String::new();
    let mut calls = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(part) => text.push_str(&part),
            Piece::Call(call) => calls.push(call),
        }
    }
    (text, calls)
}

async fn drive(
    api: &Api,
    ask: &Ask,
    shape: Shape,
    mut filter: ToolFilter,
    mut running: Running,
    pump: &Pump,
) -> Result<(), Gone> {
    loop {
        let (pieces, last) = match running.next(api).await {
            Ok(Step::Text(text, _)) => (filter.push(text), None),
            Ok(Step::Done(reason, usage)) => (filter.finish(), Some(end(reason, &usage))),
            Err(error) => return pump.send(&ApiError::from(error).ollama_body()).await,
        };
        let (text, calls) = gather(pieces);
        if !text.is_empty() || !calls.is_empty() {
            let mut line = ask.head();
            merge(&mut line, if calls.is_empty() { shape.text(&text) } else { shape.whole(&text, &calls) });
            merge(&mut line, json!({"done": false}));
            pump.send(&line.into()).await?;
        }
        if let Some(last) = last {
            let mut line = ask.head();
            merge(&mut line, shape.text(""));
            merge(&mut line, last);
            return pump.send(&line.into()).await;
        }
    }
}
