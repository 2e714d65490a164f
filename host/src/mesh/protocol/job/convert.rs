//! Between the node's own words for jobs and those on the wire.

use std::time::Duration;

use minicbor::bytes::ByteVec;
use potluck_kernels::sample::SamplingParams;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::wire;
use crate::job::{
    Event, FinishReason, Format, Input, Job, JobError, KeepAlive, Message, Mode, Spend, TokenLogprob, Usage,
};

/// Text in one frame of an answer, in bytes.
const TEXT_CHUNK: usize = 64 << 10;
/// Log-probabilities in one frame of an answer, in bytes as estimated.
const LOGPROB_CHUNK: usize = 96 << 10;
/// Most bytes of the words of a failure.
const MAX_WORDS: usize = 2048;

/// A job's name, as long as a path may be.
const MAX_NAME: usize = 1024;

/// Why a request on the wire is no job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct NoJob {
    /// The field at fault.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

fn no_job(field: &'static str, reason: impl ToString) -> NoJob {
    NoJob { field, reason: reason.to_string() }
}

impl From<NoJob> for JobError {
    fn from(error: NoJob) -> Self {
        Self::Invalid { field: error.field.into(), reason: error.reason }
    }
}

fn json(value: &impl serde::Serialize) -> ByteVec {
    // Only maps with keys that are no strings cannot be written, and there are none.
    serde_json::to_vec(value).unwrap_or_default().into()
}

fn object(map: &Map<String, Value>) -> ByteVec {
    if map.is_empty() { ByteVec::from(Vec::new()) } else { json(map) }
}

/// The job as it is asked for.
pub fn ask(job: &Job, probe: bool) -> wire::Ask {
    let input = match &job.input {
        Input::Chat { messages, tools, template_vars } => wire::Input::Chat {
            messages: messages.iter().map(message).collect(),
            tools: tools.iter().map(json).collect(),
            vars: object(template_vars),
        },
        Input::Text { text, special } => wire::Input::Text { text: text.clone(), special: *special },
        Input::Tokens(ids) => wire::Input::Tokens { ids: ids.clone() },
    };
    let format = match &job.format {
        Format::Text => wire::Format::Text,
        Format::JsonObject => wire::Format::JsonObject,
        Format::JsonSchema(schema) => wire::Format::JsonSchema { schema: json(schema) },
    };
    wire::Ask {
        id: job.id.as_bytes().to_vec().into(),
        model: job.model.clone(),
        input,
        sampling: sampling(&job.sampling),
        max_tokens: job.max_tokens,
        stop: job.stop.clone(),
        format,
        logprobs: job.logprobs,
        keep_alive_ms: job.keep_alive.map(|keep| match keep {
            KeepAlive::Forever => -1,
            KeepAlive::For(time) => i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
        }),
        resume: job.resume.clone(),
        probe,
    }
}

fn message(message: &Message) -> wire::Message {
    wire::Message {
        role: message.role.clone(),
        content: message.content.clone(),
        extra: object(&message.extra),
    }
}

fn sampling(params: &SamplingParams) -> wire::Sampling {
    wire::Sampling {
        temperature: params.temperature,
        top_k: params.top_k,
        top_p: params.top_p,
        min_p: params.min_p,
        repeat_penalty: params.repeat_penalty,
        repeat_last_n: params.repeat_last_n,
        presence_penalty: params.presence_penalty,
        frequency_penalty: params.frequency_penalty,
        logit_bias: params.logit_bias.clone(),
        seed: params.seed,
        top_logprobs: u32::try_from(params.top_logprobs).unwrap_or(u32::MAX),
    }
}

/// The job that was asked for. It runs on this machine, so its mode is [`Mode::Local`].
///
/// # Errors
/// [`NoJob`] when JSON in it is none, or is too much.
pub fn job(ask: wire::Ask) -> Result<Job, NoJob> {
    let mut left = wire::MAX_JSON;
    let id: [u8; 16] = ask.id.as_slice().try_into().map_err(|_| no_job("id", "it must have 16 bytes"))?;
    if ask.model.is_empty() || ask.model.len() > MAX_NAME {
        return Err(no_job("model", format!("its name must have 1 to {MAX_NAME} bytes")));
    }
    let input = match ask.input {
        wire::Input::Chat { messages, tools, vars } => Input::Chat {
            messages: messages
                .into_iter()
                .map(|m| {
                    let extra = map("messages", &m.extra, &mut left)?;
                    Ok(Message { role: m.role, content: m.content, extra })
                })
                .collect::<Result<_, _>>()?,
            tools: tools.iter().map(|tool| parse("tools", tool, &mut left)).collect::<Result<_, _>>()?,
            template_vars: map("template_vars", &vars, &mut left)?,
        },
        wire::Input::Text { text, special } => Input::Text { text, special },
        wire::Input::Tokens { ids } => Input::Tokens(ids),
    };
    let format = match ask.format {
        wire::Format::Text => Format::Text,
        wire::Format::JsonObject => Format::JsonObject,
        wire::Format::JsonSchema { schema } => {
            Format::JsonSchema(parse("response_format", &schema, &mut left)?)
        }
    };
    Ok(Job {
        id: Uuid::from_bytes(id),
        model: ask.model,
        mode: Mode::Local,
        input,
        sampling: params(ask.sampling),
        max_tokens: ask.max_tokens,
        stop: ask.stop,
        format,
        logprobs: ask.logprobs,
        keep_alive: ask.keep_alive_ms.map(|ms| match u64::try_from(ms) {
            Ok(ms) => KeepAlive::For(Duration::from_millis(ms)),
            Err(_) => KeepAlive::Forever,
        }),
        resume: ask.resume,
        spend: Spend::default(),
    })
}

fn params(sampling: wire::Sampling) -> SamplingParams {
    SamplingParams {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        repeat_penalty: sampling.repeat_penalty,
        repeat_last_n: sampling.repeat_last_n,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        logit_bias: sampling.logit_bias,
        seed: sampling.seed,
        top_logprobs: sampling.top_logprobs as usize,
    }
}

fn parse(field: &'static str, bytes: &ByteVec, left: &mut usize) -> Result<Value, NoJob> {
    let enough = left.checked_sub(bytes.len());
    *left = enough.ok_or_else(|| no_job(field, "more than 4 MiB of JSON in a request"))?;
    serde_json::from_slice(bytes).map_err(|error| no_job(field, error))
}

fn map(field: &'static str, bytes: &ByteVec, left: &mut usize) -> Result<Map<String, Value>, NoJob> {
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    match parse(field, bytes, left)? {
        Value::Object(map) => Ok(map),
        _ => Err(no_job(field, "it must be a JSON object")),
    }
}

/// An event as messages, each of which fits a frame.
pub fn event(event: Event) -> Vec<wire::ToAsker> {
    match event {
        Event::Done { reason, usage } => {
            let reason = match reason {
                FinishReason::Stop => wire::Reason::Stop,
                FinishReason::Length => wire::Reason::Length,
            };
            vec![wire::ToAsker::Done { reason, usage: usage_out(&usage) }]
        }
        Event::Text { text, logprobs, tokens } => {
            let mut texts = pieces(&text).into_iter();
            let mut logs = groups(logprobs, tokens).into_iter();
            let mut all = Vec::new();
            loop {
                let (text, group) = (texts.next(), logs.next());
                if text.is_none() && group.is_none() {
                    return all;
                }
                let (logprobs, tokens) = group.unwrap_or_default();
                all.push(wire::ToAsker::Text { text: text.unwrap_or_default().to_owned(), logprobs, tokens });
            }
        }
    }
}

/// Text in pieces, at the bounds of characters.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(TEXT_CHUNK);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Tokens in groups, each with the log-probabilities that belong to it.
fn groups(logprobs: Vec<TokenLogprob>, tokens: Vec<u32>) -> Vec<(Vec<wire::Logprob>, Vec<u32>)> {
    let paired = logprobs.len() == tokens.len();
    let mut groups = Vec::new();
    if !paired || logprobs.is_empty() {
        let most = LOGPROB_CHUNK / 8;
        groups.extend(tokens.chunks(most).map(|ids| (Vec::new(), ids.to_vec())));
    }
    let mut ids = tokens.into_iter().filter(|_| paired);
    let mut size = LOGPROB_CHUNK;
    for logprob in logprobs {
        let own = 32
            + logprob.bytes.len() * 2
            + logprob.top.iter().map(|(_, bytes, _)| 24 + bytes.len() * 2).sum::<usize>();
        if size + own > LOGPROB_CHUNK {
            groups.push((Vec::new(), Vec::new()));
            size = 0;
        }
        size += own;
        if let Some((logs, tokens)) = groups.last_mut() {
            logs.push(logprob_out(logprob));
            tokens.extend(ids.next());
        }
    }
    groups
}

fn logprob_out(logprob: TokenLogprob) -> wire::Logprob {
    let top = logprob.top.into_iter().map(|(text, bytes, logprob)| {
        let text = own_text(text, &bytes);
        wire::Top { text, bytes: bytes.into(), logprob }
    });
    wire::Logprob {
        text: own_text(logprob.token, &logprob.bytes),
        bytes: logprob.bytes.into(),
        logprob: logprob.logprob,
        top: top.collect(),
    }
}

/// A token's text where its bytes do not say it.
fn own_text(text: String, bytes: &[u8]) -> Option<String> {
    (text != String::from_utf8_lossy(bytes)).then_some(text)
}

fn text_of(text: Option<String>, bytes: &[u8]) -> String {
    text.unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned())
}

/// The log-probability that was sent.
pub fn logprob(logprob: wire::Logprob) -> TokenLogprob {
    let top = logprob.top.into_iter().map(|top| {
        let bytes: Vec<u8> = top.bytes.into();
        (text_of(top.text, &bytes), bytes, top.logprob)
    });
    let bytes: Vec<u8> = logprob.bytes.into();
    TokenLogprob { token: text_of(logprob.text, &bytes), bytes, logprob: logprob.logprob, top: top.collect() }
}

fn usage_out(usage: &Usage) -> wire::Usage {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    wire::Usage {
        prompt_tokens: usage.prompt_tokens,
        cached_tokens: usage.cached_tokens,
        completion_tokens: usage.completion_tokens,
        load_us: micros(usage.load),
        prompt_us: micros(usage.prompt),
        decode_us: micros(usage.decode),
        total_us: micros(usage.total),
    }
}

/// The usage that was sent.
pub fn usage(usage: wire::Usage) -> Usage {
    Usage {
        prompt_tokens: usage.prompt_tokens,
        cached_tokens: usage.cached_tokens,
        completion_tokens: usage.completion_tokens,
        load: Duration::from_micros(usage.load_us),
        prompt: Duration::from_micros(usage.prompt_us),
        decode: Duration::from_micros(usage.decode_us),
        total: Duration::from_micros(usage.total_us),
    }
}

/// The reason that was sent.
pub fn reason(reason: wire::Reason) -> FinishReason {
    match reason {
        wire::Reason::Stop => FinishReason::Stop,
        wire::Reason::Length => FinishReason::Length,
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_WORDS);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// A failure as it is sent.
pub fn failure(error: &JobError) -> wire::Failure {
    let message = cut(&error.to_string());
    let of = |code| wire::Failure { code, message: message.clone(), ..wire::Failure::default() };
    let named = |code, what: &str, reason: Option<&str>| wire::Failure {
        what: Some(cut(what)),
        reason: reason.map(cut),
        ..of(code)
    };
    match error {
        JobError::ModelNotFound { model } => named(1, model, None),
        JobError::EmbedderMissing { model } => named(2, model, None),
        JobError::ModelUnusable { model, reason } => named(3, model, Some(reason)),
        JobError::ContextLengthExceeded { model, needed, available } => {
            wire::Failure { needed: Some(*needed), available: Some(*available), ..named(4, model, None) }
        }
        JobError::Invalid { field, reason } => named(5, field, Some(reason)),
        JobError::Busy { queued, retry_after } => wire::Failure {
            needed: Some(*queued as u64),
            available: u64::try_from(retry_after.as_millis()).ok(),
            ..of(6)
        },
        JobError::ModeUnavailable { mode, reason } => named(7, mode.as_str(), Some(reason)),
        JobError::Payment { reason } => wire::Failure { reason: Some(cut(reason)), ..of(11) },
        JobError::Cancelled => of(8),
        JobError::ShuttingDown => of(9),
        JobError::Internal { reason } | JobError::Unanswered { reason } => {
            wire::Failure { reason: Some(cut(reason)), ..of(10) }
        }
    }
}

/// The failure that was sent.
pub fn error(failure: wire::Failure) -> JobError {
    let message = cut(&failure.message);
    let what = cut(&failure.what.unwrap_or_default());
    let reason = failure.reason.map_or_else(|| message.clone(), |reason| cut(&reason));
    let (needed, available) = (failure.needed.unwrap_or(0), failure.available.unwrap_or(0));
    match failure.code {
        1 => JobError::ModelNotFound { model: what },
        2 => JobError::EmbedderMissing { model: what },
        3 => JobError::ModelUnusable { model: what, reason },
        4 => JobError::ContextLengthExceeded { model: what, needed, available },
        5 => JobError::Invalid { field: what, reason },
        6 => JobError::Busy {
            queued: usize::try_from(needed).unwrap_or(usize::MAX),
            // A peer does not say when somebody tries again a year from now.
            retry_after: Duration::from_millis(available.min(600_000)),
        },
        7 => JobError::ModeUnavailable { mode: what.parse().unwrap_or(Mode::Trusted), reason },
        11 => JobError::Payment { reason },
        8 => JobError::Cancelled,
        9 => JobError::ShuttingDown,
        _ => JobError::Internal { reason },
    }
}
