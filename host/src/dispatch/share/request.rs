//! A job in OpenAI's words.

use serde_json::{Map, Value, json};

use super::unable;
use crate::job::{Format, Input, Job, JobError, Message};

/// The path under `/v1/` and the body.
///
/// # Errors
/// [`JobError::Invalid`] for what that API cannot carry.
pub(super) fn of(job: &Job, model: &str) -> Result<(&'static str, Value), JobError> {
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| drop(body.insert(key.into(), value));
    put("model", model.into());
    put("stream", true.into());
    put("stream_options", json!({"include_usage": true}));
    let sampling = &job.sampling;
    put("temperature", float(sampling.temperature));
    put("top_p", float(sampling.top_p));
    // Most servers take a signed number.
    put("seed", (sampling.seed >> 1).into());
    put("presence_penalty", float(sampling.presence_penalty));
    put("frequency_penalty", float(sampling.frequency_penalty));
    // Extensions of many servers; sent only where they change something.
    if sampling.top_k > 0 {
        put("top_k", sampling.top_k.into());
    }
    if sampling.min_p > 0.0 {
        put("min_p", float(sampling.min_p));
    }
    if sampling.repeat_penalty != 1.0 {
        put("repeat_penalty", float(sampling.repeat_penalty));
    }
    if !sampling.logit_bias.is_empty() {
        let bias = sampling.logit_bias.iter().map(|(id, bias)| (id.to_string(), float(*bias)));
        put("logit_bias", Value::Object(bias.collect()));
    }
    if let Some(most) = job.max_tokens {
        put("max_tokens", most.into());
    }
    if !job.stop.is_empty() {
        put("stop", job.stop.clone().into());
    }
    match &job.format {
        Format::Text => {}
        Format::JsonObject => put("response_format", json!({"type": "json_object"})),
        Format::JsonSchema(schema) => {
            let named = json!({"name": "answer", "strict": true, "schema": schema});
            put("response_format", json!({"type": "json_schema", "json_schema": named}));
        }
    }
    match &job.input {
        Input::Chat { messages, tools, template_vars } => {
            put("messages", messages.iter().map(message).collect());
            if !tools.is_empty() {
                put("tools", tools.clone().into());
            }
            if !template_vars.is_empty() {
                put("chat_template_kwargs", template_vars.clone().into());
            }
            if let Some(top) = job.logprobs {
                put("logprobs", true.into());
                put("top_logprobs", top.into());
            }
            Ok(("chat/completions", body.into()))
        }
        Input::Text { text, .. } => {
            put("prompt", text.clone().into());
            if let Some(top) = job.logprobs {
                put("logprobs", top.into());
            }
            Ok(("completions", body.into()))
        }
        Input::Tokens(_) => Err(unable(
            "share",
            "the shared server is not asked with token ids: they mean something to one tokenizer only",
        )),
    }
}

/// A number as it was meant: 0.7, not 0.699999988079071.
fn float(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}

fn message(message: &Message) -> Value {
    let mut map = Map::new();
    map.insert("role".into(), message.role.clone().into());
    map.insert("content".into(), message.content.clone().into());
    for (key, value) in &message.extra {
        let mut value = value.clone();
        // Templates take arguments as an object, the API as a string of JSON.
        if key == "tool_calls"
            && let Some(calls) = value.as_array_mut()
        {
            for call in calls {
                if let Some(arguments) = call.pointer_mut("/function/arguments")
                    && !arguments.is_string()
                {
                    *arguments = arguments.to_string().into();
                }
            }
        }
        map.insert(key.clone(), value);
    }
    map.into()
}
