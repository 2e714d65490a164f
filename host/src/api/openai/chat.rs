//! `POST /v1/chat/completions`

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream::FuturesUnordered};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    super::{
        Api, ApiError, billed, body,
        error::OpenAi,
        fields::Fields,
        guard::Caller,
        label_reply,
        pump::{self, Framing, Gone, Pump},
        running::{Running, Step, whole},
        time::unix_now,
        tools::{Piece, ToolCall, ToolFilter},
    },
    FINGERPRINT, chat_logprobs, finish,
    request::{Ask, rename},
    usage,
};
use crate::job::{Input, Message, Reply, TokenLogprob, Usage};

/// Most messages of one request.
const MESSAGES: usize = 65_536;

pub(super) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, OpenAi> {
    let mut fields = Fields::new(body::object(&api, request).await?);
    let mut ask = Ask::take(&mut fields, &headers, &caller)?;
    let top = fields.integer("top_logprobs", 0..=20)?;
    ask.logprobs = match (fields.bool("logprobs")?, top) {
        (Some(true), top) => Some(top.and_then(|n| u8::try_from(n).ok()).unwrap_or(0)),
        (_, Some(_)) => return Err(ApiError::invalid("top_logprobs", "needs logprobs to be true").into()),
        _ => None,
    };
    let input = input(&mut fields)?;
    let has_tools = matches!(&input, Input::Chat { tools, .. } if !tools.is_empty());
    fields.log_unknown("openai");
    let replies = ask.submit(&api, "messages", &[input]).await?;
    let head = Head {
        id: format!("chatcmpl-{}", Uuid::now_v7().simple()),
        created: unix_now(),
        model: ask.model.clone(),
    };
    let outcome = if ask.stream {
        let waiting = replies.into_iter().map(|reply| Running::begin(&api, reply));
        match futures::future::try_join_all(waiting).await {
            Ok(running) => Ok(stream(&api, &ask, head, running, has_tools)),
            Err(error) => Err(error),
        }
    } else {
        let first = replies.first().map(Reply::origin);
        let waiting = replies.into_iter().map(|reply| whole(&api, reply));
        futures::future::try_join_all(waiting).await.map(|answers| {
            let choices: Vec<_> = answers
                .iter()
                .enumerate()
                .map(|(index, answer)| {
                    let logprobs = ask.logprobs.map(|_| chat_logprobs(&answer.logprobs));
                    let mut filter = ToolFilter::new(has_tools);
                    let mut pieces = filter.push(answer.text.clone());
                    pieces.extend(filter.finish());
                    let (message, called) = message(pieces);
                    let reason = if called { "tool_calls" } else { finish(answer.reason) };
                    json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason})
                })
                .collect();
            let all = || answers.iter().map(|answer| &answer.usage);
            let mut body = head.object("chat.completion");
            body.insert("choices".into(), choices.into());
            body.insert("usage".into(), usage(all(), all().take(1)));
            let mut response = Json(body).into_response();
            if let Some(origin) = first {
                label_reply(&mut response, &origin);
            }
            response
        })
    };
    outcome.map_err(|error| OpenAi(rename(error, "messages")))
}

/// What every chunk of an answer says.
#[derive(Clone, Debug)]
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn object(&self, kind: &str) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("id".into(), self.id.clone().into());
        map.insert("object".into(), kind.into());
        map.insert("created".into(), self.created.into());
        map.insert("model".into(), self.model.clone().into());
        map.insert("system_fingerprint".into(), FINGERPRINT.into());
        map
    }
}

fn message(pieces: Vec<Piece>) -> (Value, bool) {
    let mut text = String::new();
    let mut calls = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(part) => text.push_str(&part),
            Piece::Call(call) => calls.push(tool_call(&call)),
        }
    }
    if calls.is_empty() {
        return (json!({"role": "assistant", "content": text, "refusal": null}), false);
    }
    let content = Some(text.trim()).filter(|text| !text.is_empty());
    (json!({"role": "assistant", "content": content, "refusal": null, "tool_calls": calls}), true)
}

fn tool_call(call: &ToolCall) -> Value {
    let arguments = Value::Object(call.arguments.clone()).to_string();
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
}

fn stream(api: &Api, ask: &Ask, head: Head, running: Vec<Running>, has_tools: bool) -> Response {
    let patience = api.settings.config.http.client_timeout;
    let label = running.first().map(Running::origin);
    let origin = label.clone();
    let choice = Choice {
        api: api.clone(),
        head,
        include_usage: ask.include_usage,
        logprobs: ask.logprobs.is_some(),
        has_tools,
    };
    let mut response = pump::stream(Framing::Sse, patience, move |pump| async move {
        let mut running: FuturesUnordered<_> = running
            .into_iter()
            .enumerate()
            .map(|(index, running)| choice.drive(index, running, &pump))
            .collect();
        let mut usages = Vec::new();
        while let Some(outcome) = running.next().await {
            match outcome? {
                Some(usage) => usages.push(usage),
                // The error has been written; nothing more makes sense.
                None => return Ok(()),
            }
        }
        if choice.include_usage {
            let mut last = choice.head.object("chat.completion.chunk");
            last.insert("choices".into(), json!([]));
            last.insert("usage".into(), usage(usages.iter(), usages.iter().take(1)));
            if let Some(billed) = origin.as_ref().and_then(billed) {
                last.insert("potluck".into(), billed);
            }
            pump.send(&last.into()).await?;
        }
        pump.done().await
    });
    if let Some(origin) = label {
        label_reply(&mut response, &origin);
    }
    response
}

/// What the chunks of one choice need to know.
struct Choice {
    api: Api,
    head: Head,
    include_usage: bool,
    logprobs: bool,
    has_tools: bool,
}

impl Choice {
    /// Writes one choice to its end. `None`: it failed and the error has been written.
    async fn drive(&self, index: usize, mut running: Running, pump: &Pump) -> Result<Option<Usage>, Gone> {
        let opening = json!({"role": "assistant", "content": ""});
        pump.send(&self.chunk(index, opening, None, None)).await?;
        let mut filter = ToolFilter::new(self.has_tools);
        loop {
            match running.next(&self.api).await {
                Ok(Step::Text(text, logprobs)) => {
                    let pieces = filter.push(text);
                    self.pieces(index, pieces, &filter, &logprobs, pump).await?;
                }
                Ok(Step::Done(reason, usage)) => {
                    let pieces = filter.finish();
                    self.pieces(index, pieces, &filter, &[], pump).await?;
                    let reason = if filter.calls() > 0 { "tool_calls" } else { finish(reason) };
                    pump.send(&self.chunk(index, json!({}), None, Some(reason))).await?;
                    return Ok(Some(usage));
                }
                Err(error) => {
                    pump.send(&rename(error, "messages").openai_body()).await?;
                    return Ok(None);
                }
            }
        }
    }

    async fn pieces(
        &self,
        index: usize,
        pieces: Vec<Piece>,
        filter: &ToolFilter,
        logprobs: &[TokenLogprob],
        pump: &Pump,
    ) -> Result<(), Gone> {
        let mut logprobs = (self.logprobs && !logprobs.is_empty()).then(|| chat_logprobs(logprobs));
        let mut call = filter.calls() - pieces.iter().filter(|piece| matches!(piece, Piece::Call(_))).count();
        for piece in pieces {
            let delta = match piece {
                Piece::Text(text) => json!({"content": text}),
                Piece::Call(found) => {
                    let mut value = tool_call(&found);
                    if let Some(map) = value.as_object_mut() {
                        map.insert("index".into(), call.into());
                    }
                    call += 1;
                    json!({"tool_calls": [value]})
                }
            };
            pump.send(&self.chunk(index, delta, logprobs.take(), None)).await?;
        }
        if let Some(logprobs) = logprobs {
            pump.send(&self.chunk(index, json!({"content": ""}), Some(logprobs), None)).await?;
        }
        Ok(())
    }

    fn chunk(&self, index: usize, delta: Value, logprobs: Option<Value>, reason: Option<&str>) -> Value {
        let mut chunk = self.head.object("chat.completion.chunk");
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason});
        chunk.insert("choices".into(), json!([choice]));
        if self.include_usage {
            chunk.insert("usage".into(), Value::Null);
        }
        chunk.into()
    }
}

/// Messages, tools and template variables.
fn input(fields: &mut Fields) -> Result<Input, ApiError> {
    let given = fields.array("messages")?.unwrap_or_default();
    if given.is_empty() {
        return Err(ApiError::invalid("messages", "is required and must hold at least one message"));
    }
    if given.len() > MESSAGES {
        return Err(ApiError::invalid("messages", format!("at most {MESSAGES} are possible")));
    }
    let mut messages = Vec::with_capacity(given.len());
    for (index, value) in given.into_iter().enumerate() {
        messages.push(read_message(index, value)?);
    }
    let mut tools = fields.array("tools")?.unwrap_or_default();
    if let Some(wrong) = tools.iter().position(|tool| !tool.is_object()) {
        return Err(ApiError::invalid(format!("tools[{wrong}]"), "must be an object"));
    }
    match fields.take("tool_choice") {
        None => {}
        Some(Value::String(word)) if word == "auto" => {}
        Some(Value::String(word)) if word == "none" => tools.clear(),
        Some(_) => {
            return Err(ApiError::invalid(
                "tool_choice",
                "only auto and none are possible; the model cannot be forced",
            ));
        }
    }
    let template_vars = match fields.object("chat_template_kwargs")? {
        Some(variables) => variables.rest(),
        None => Map::new(),
    };
    Ok(Input::Chat { messages, tools, template_vars })
}

fn read_message(index: usize, value: Value) -> Result<Message, ApiError> {
    let at = |field: &str| format!("messages[{index}]{field}");
    let Value::Object(mut map) = value else {
        return Err(ApiError::invalid(at(""), "must be an object with role and content"));
    };
    let role = match map.shift_remove("role") {
        Some(Value::String(role)) if ["system", "user", "assistant", "tool"].contains(&role.as_str()) => role,
        Some(Value::String(role)) if role == "developer" => "system".into(),
        Some(Value::String(role)) if role == "function" => "tool".into(),
        _ => {
            return Err(ApiError::invalid(at(".role"), "must be system, developer, user, assistant or tool"));
        }
    };
    let content = match map.shift_remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let mut text = String::new();
            for (number, part) in parts.iter().enumerate() {
                match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
                    (Some("text"), Some(part)) => text.push_str(part),
                    _ => {
                        let reason = "only parts of type text are possible; this node's models read text";
                        return Err(ApiError::invalid(at(&format!(".content[{number}].type")), reason));
                    }
                }
            }
            text
        }
        None | Some(Value::Null) if role == "assistant" => String::new(),
        _ => return Err(ApiError::invalid(at(".content"), "must be a string or a list of text parts")),
    };
    if let Some(calls) = map.get_mut("tool_calls").and_then(Value::as_array_mut) {
        // Clients send arguments as a string of JSON; templates want the object.
        for call in calls {
            if let Some(arguments) = call.pointer_mut("/function/arguments")
                && let Some(parsed) = arguments.as_str().and_then(|text| serde_json::from_str(text).ok())
            {
                *arguments = parsed;
            }
        }
    }
    map.retain(|_, value| !value.is_null());
    Ok(Message { role, content, extra: map })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Input, ApiError> {
        match serde_json::from_str(text).unwrap() {
            Value::Object(map) => input(&mut Fields::new(map)),
            _ => panic!("not an object"),
        }
    }

    #[test]
    fn messages_come_as_text_or_parts() {
        let Input::Chat { messages, .. } = read(
            r#"{"messages":[{"role":"developer","content":"a"},
               {"role":"user","content":[{"type":"text","text":"b"},{"type":"text","text":"c"}]},
               {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]}]}"#,
        )
        .unwrap() else {
            panic!("not a chat")
        };
        assert_eq!(messages[0].role, "system");
        assert_eq!(messages[1].content, "bc");
        assert_eq!(messages[2].extra["tool_calls"][0]["function"]["arguments"]["x"], 1);
    }

    #[test]
    fn wrong_messages_are_named() {
        let param = |text: &str| read(text).unwrap_err().param.unwrap();
        assert_eq!(param(r#"{}"#), "messages");
        assert_eq!(param(r#"{"messages":[]}"#), "messages");
        assert_eq!(param(r#"{"messages":"hi"}"#), "messages");
        assert_eq!(param(r#"{"messages":[1]}"#), "messages[0]");
        assert_eq!(param(r#"{"messages":[{"role":"king","content":"x"}]}"#), "messages[0].role");
        assert_eq!(param(r#"{"messages":[{"role":"user"}]}"#), "messages[0].content");
        let image = r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}"#;
        assert_eq!(param(image), "messages[0].content[0].type");
    }
}
