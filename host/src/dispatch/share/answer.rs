//! A shared server's stream as the events of an answer.

use std::collections::BTreeMap;

use reqwest::Response;
use serde_json::{Value, json};
use tokio::{sync::mpsc::Sender, time::Instant};

use super::{is_too_long, plain_error, sse};
use crate::job::{Event, FinishReason, Job, JobError, TokenLogprob, Usage};

/// Most tool calls of an answer.
const MAX_CALLS: u64 = 128;
/// Longest tool calls of an answer together, in bytes.
const MAX_CALL_BYTES: usize = 1 << 20;

/// Passes the answer on until it is complete.
///
/// # Errors
/// [`JobError`] when the server fails or breaks off.
pub(super) async fn pass(
    mut response: Response,
    job: &Job,
    began: Instant,
    events: &Sender<Result<Event, JobError>>,
) -> Result<(), JobError> {
    let broke =
        |reason: String| JobError::Internal { reason: format!("the shared server broke off: {reason}") };
    let mut lines = sse::Events::default();
    let mut answer = Answer::new(began);
    while let Some(bytes) = response.chunk().await.map_err(|error| broke(plain_error(&error)))? {
        for data in lines.push(&bytes).map_err(|error| broke(error.to_string()))? {
            if data.trim_ascii() == b"[DONE]" {
                return answer.end(events).await.ok_or_else(|| broke("it gave no reason".into()));
            }
            let chunk: Value = serde_json::from_slice(&data).map_err(|error| broke(error.to_string()))?;
            if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
                return Err(failed(error, &job.model));
            }
            if let Some(event) = answer.take(&chunk).map_err(broke)? {
                // Nobody listens any more: the caller sees that itself.
                let _ = events.send(Ok(event)).await;
            }
        }
    }
    // Some servers leave the last word out.
    answer.end(events).await.ok_or_else(|| broke("the connection ended before the answer did".into()))
}

fn failed(error: &Value, model: &str) -> JobError {
    let words = error.get("message").or(Some(error)).and_then(Value::as_str).unwrap_or_default();
    let words: String = words.chars().take(500).collect();
    if is_too_long(error, &words) {
        return too_long(model.to_owned(), error, &words);
    }
    JobError::Internal { reason: format!("the shared server failed: {words}") }
}

/// How much does not fit into how much, as far as the server says it.
pub(super) fn too_long(model: String, error: &Value, words: &str) -> JobError {
    let field = |name: &str| error.get(name).and_then(Value::as_u64);
    let mut numbers: Vec<u64> =
        words.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    numbers.sort_unstable();
    let said = (numbers.pop(), numbers.pop());
    let (needed, available) = match (field("n_prompt_tokens"), field("n_ctx"), said) {
        (Some(needed), Some(available), _) => (needed, available),
        (_, _, (Some(needed), Some(available))) => (needed, available),
        (_, _, (Some(available), None)) => (available.saturating_add(1), available),
        _ => (1, 0),
    };
    JobError::ContextLengthExceeded { model, needed, available }
}

/// What has come so far.
#[derive(Debug)]
struct Answer {
    began: Instant,
    first: Option<Instant>,
    reason: Option<FinishReason>,
    usage: Option<Usage>,
    pieces: u32,
    thinking: bool,
    calls: BTreeMap<u64, Call>,
    call_bytes: usize,
}

#[derive(Debug, Default)]
struct Call {
    name: String,
    arguments: String,
}

impl Answer {
    fn new(began: Instant) -> Self {
        Self {
            began,
            first: None,
            reason: None,
            usage: None,
            pieces: 0,
            thinking: false,
            calls: BTreeMap::new(),
            call_bytes: 0,
        }
    }

    /// Takes a chunk; the event it makes, if any.
    fn take(&mut self, chunk: &Value) -> Result<Option<Event>, String> {
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            self.usage = Some(read_usage(usage));
        }
        let Some(choice) = chunk.pointer("/choices/0") else { return Ok(None) };
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            let length = matches!(reason, "length" | "max_tokens");
            self.reason = Some(if length { FinishReason::Length } else { FinishReason::Stop });
        }
        let delta = choice.get("delta").unwrap_or(choice);
        let said = |field: &str| delta.get(field).and_then(Value::as_str).unwrap_or_default();
        self.calls(delta)?;
        let thought =
            if said("reasoning_content").is_empty() { said("reasoning") } else { said("reasoning_content") };
        let text = if said("content").is_empty() { said("text") } else { said("content") };
        let text = self.with_thought(thought, text);
        let logprobs = choice.get("logprobs").map(read_logprobs).unwrap_or_default();
        if text.is_empty() && logprobs.is_empty() {
            return Ok(None);
        }
        self.first.get_or_insert_with(Instant::now);
        self.pieces = self.pieces.saturating_add(1);
        Ok(Some(Event::Text { text, logprobs, tokens: Vec::new() }))
    }

    /// What models think comes in the text, between the words that they use themselves.
    fn with_thought(&mut self, thought: &str, text: &str) -> String {
        let mut all = String::new();
        if !thought.is_empty() {
            if !std::mem::replace(&mut self.thinking, true) {
                all.push_str("<think>\n");
            }
            all.push_str(thought);
        }
        if !text.is_empty() {
            if std::mem::take(&mut self.thinking) {
                all.push_str("\n</think>\n\n");
            }
            all.push_str(text);
        }
        all
    }

    /// Collects the parts of tool calls.
    fn calls(&mut self, delta: &Value) -> Result<(), String> {
        for part in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            let index = part.get("index").and_then(Value::as_u64).unwrap_or(0);
            let said = |path: &str| part.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let (name, arguments) = (said("/function/name"), said("/function/arguments"));
            self.call_bytes += name.len() + arguments.len();
            if index >= MAX_CALLS || self.call_bytes > MAX_CALL_BYTES {
                return Err("more tool calls than an answer may have".into());
            }
            let call = self.calls.entry(index).or_default();
            call.name.push_str(name);
            call.arguments.push_str(arguments);
        }
        Ok(())
    }

    /// The calls as models write them, where our own surfaces find them.
    fn written_calls(&mut self) -> Option<Event> {
        let mut text = String::new();
        for call in std::mem::take(&mut self.calls).into_values() {
            let arguments = serde_json::from_str(&call.arguments).unwrap_or(json!({}));
            let call = json!({"name": call.name, "arguments": arguments});
            text.push_str(&format!("<tool_call>{call}</tool_call>"));
        }
        (!text.is_empty()).then_some(Event::Text { text, logprobs: Vec::new(), tokens: Vec::new() })
    }

    /// Says the end; `None` when there was none.
    async fn end(mut self, events: &Sender<Result<Event, JobError>>) -> Option<()> {
        let reason = self.reason?;
        if let Some(calls) = self.written_calls() {
            let _ = events.send(Ok(calls)).await;
        }
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        let counted = Usage { completion_tokens: self.pieces, ..Usage::default() };
        let usage = Usage {
            prompt: first.saturating_duration_since(self.began),
            decode: now.saturating_duration_since(first),
            total: now.saturating_duration_since(self.began),
            ..self.usage.unwrap_or(counted)
        };
        let _ = events.send(Ok(Event::Done { reason, usage })).await;
        Some(())
    }
}

fn read_usage(usage: &Value) -> Usage {
    let count = |path: &str| {
        let count = usage.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    Usage {
        prompt_tokens: count("/prompt_tokens"),
        cached_tokens: count("/prompt_tokens_details/cached_tokens"),
        completion_tokens: count("/completion_tokens"),
        ..Usage::default()
    }
}

/// Log-probabilities in either of the two shapes.
fn read_logprobs(logprobs: &Value) -> Vec<TokenLogprob> {
    if let Some(content) = logprobs.get("content").and_then(Value::as_array) {
        return content.iter().map(chat_logprob).collect();
    }
    let list = |field: &str| logprobs.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let (chances, tops) = (list("token_logprobs"), list("top_logprobs"));
    let one = |(at, token): (usize, &Value)| {
        let token = token.as_str().unwrap_or_default();
        let top = tops.get(at).and_then(Value::as_object).into_iter().flatten();
        let mut top: Vec<_> = top
            .map(|(text, chance)| (text.clone(), text.clone().into_bytes(), number(Some(chance))))
            .collect();
        top.sort_by(|a, b| b.2.total_cmp(&a.2));
        TokenLogprob { token: token.into(), bytes: token.into(), logprob: number(chances.get(at)), top }
    };
    list("tokens").iter().enumerate().map(one).collect()
}

fn chat_logprob(entry: &Value) -> TokenLogprob {
    let read = |entry: &Value| {
        let token = entry.get("token").and_then(Value::as_str).unwrap_or_default().to_owned();
        let bytes = entry.get("bytes").and_then(Value::as_array).map(|bytes| {
            bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect::<Vec<u8>>()
        });
        let bytes = bytes.unwrap_or_else(|| token.clone().into_bytes());
        (token, bytes, number(entry.get("logprob")))
    };
    let (token, bytes, logprob) = read(entry);
    let top = entry.get("top_logprobs").and_then(Value::as_array).into_iter().flatten().map(read);
    TokenLogprob { token, bytes, logprob, top: top.collect() }
}

#[allow(clippy::cast_possible_truncation, reason = "a logarithm of a probability")]
fn number(value: Option<&Value>) -> f32 {
    value.and_then(Value::as_f64).unwrap_or(-9999.0) as f32
}
