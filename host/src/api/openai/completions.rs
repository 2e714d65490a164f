//! `POST /v1/completions`

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
    },
    FINGERPRINT, finish,
    request::{Ask, rename},
    text_logprobs, usage,
};
use crate::job::{Input, Reply, Usage};

/// OpenAI's default of `max_tokens` here.
const MAX_TOKENS: u32 = 16;

pub(super) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, OpenAi> {
    let mut fields = Fields::new(body::object(&api, request).await?);
    let mut ask = Ask::take(&mut fields, &headers, &caller)?;
    ask.default_max_tokens(MAX_TOKENS);
    ask.logprobs = fields.integer("logprobs", 0..=5)?.and_then(|n| u8::try_from(n).ok());
    let echo = fields.bool("echo")?.unwrap_or(false);
    if let Some(best) = fields.integer("best_of", 1..=20)?
        && usize::try_from(best).is_ok_and(|best| best != ask.n)
    {
        return Err(ApiError::invalid("best_of", "must equal n; choices are not ranked here").into());
    }
    if fields.string("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::invalid(
            "suffix",
            "is not possible; models here continue text, they do not fill in",
        )
        .into());
    }
    let prompts = prompts(fields.take("prompt"))?;
    if echo && ask.logprobs.is_some() {
        return Err(ApiError::invalid("echo", "is not possible together with logprobs").into());
    }
    if echo && prompts.iter().any(|prompt| matches!(prompt, Input::Tokens(_))) {
        return Err(ApiError::invalid("echo", "is not possible for prompts of token ids").into());
    }
    fields.log_unknown("openai");
    let replies = ask.submit(&api, "prompt", &prompts).await?;
    let echoes: Vec<String> = prompts
        .iter()
        .flat_map(|prompt| {
            let text = match prompt {
                Input::Text { text, .. } if echo => text.clone(),
                _ => String::new(),
            };
            std::iter::repeat_n(text, ask.n)
        })
        .collect();
    let writer = Writer {
        api: api.clone(),
        id: format!("cmpl-{}", Uuid::now_v7().simple()),
        created: unix_now(),
        model: ask.model.clone(),
        include_usage: ask.include_usage,
        logprobs: ask.logprobs.is_some(),
        per_prompt: ask.n,
    };
    let outcome = if ask.stream {
        let waiting = replies.into_iter().map(|reply| Running::begin(&api, reply));
        futures::future::try_join_all(waiting).await.map(|running| stream(writer, running, echoes))
    } else {
        let first = replies.first().map(Reply::origin);
        let waiting = replies.into_iter().map(|reply| whole(&api, reply));
        futures::future::try_join_all(waiting).await.map(|answers| {
            let choices: Vec<_> = answers
                .iter()
                .zip(&echoes)
                .enumerate()
                .map(|(index, (answer, echo))| {
                    let logprobs = ask.logprobs.map(|_| text_logprobs(&answer.logprobs, 0));
                    let text = format!("{echo}{}", answer.text);
                    json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish(answer.reason)})
                })
                .collect();
            let all = || answers.iter().map(|answer| &answer.usage);
            let mut body = writer.object();
            body.insert("choices".into(), choices.into());
            body.insert("usage".into(), usage(all(), all().step_by(ask.n)));
            let mut response = Json(body).into_response();
            if let Some(origin) = first {
                label_reply(&mut response, &origin);
            }
            response
        })
    };
    outcome.map_err(|error| OpenAi(rename(error, "prompt")))
}

struct Writer {
    api: Api,
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
    logprobs: bool,
    per_prompt: usize,
}

fn stream(writer: Writer, running: Vec<Running>, echoes: Vec<String>) -> Response {
    let patience = writer.api.settings.config.http.client_timeout;
    let label = running.first().map(Running::origin);
    let origin = label.clone();
    let mut response = pump::stream(Framing::Sse, patience, move |pump| async move {
        let mut running: FuturesUnordered<_> = running
            .into_iter()
            .zip(echoes)
            .enumerate()
            .map(|(index, (running, echo))| writer.drive(index, running, echo, &pump))
            .collect();
        let mut usages = Vec::new();
        while let Some(outcome) = running.next().await {
            match outcome? {
                Some(found) => usages.push(found),
                None => return Ok(()),
            }
        }
        if writer.include_usage {
            usages.sort_by_key(|(index, _)| *index);
            let all = || usages.iter().map(|(_, usage)| usage);
            let mut last = writer.object();
            last.insert("choices".into(), json!([]));
            last.insert("usage".into(), usage(all(), all().step_by(writer.per_prompt)));
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

impl Writer {
    fn object(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("id".into(), self.id.clone().into());
        map.insert("object".into(), "text_completion".into());
        map.insert("created".into(), self.created.into());
        map.insert("model".into(), self.model.clone().into());
        map.insert("system_fingerprint".into(), FINGERPRINT.into());
        map
    }

    async fn drive(
        &self,
        index: usize,
        mut running: Running,
        echo: String,
        pump: &Pump,
    ) -> Result<Option<(usize, Usage)>, Gone> {
        if !echo.is_empty() {
            pump.send(&self.chunk(index, &echo, None, None)).await?;
        }
        let mut offset = 0;
        loop {
            match running.next(&self.api).await {
                Ok(Step::Text(text, logprobs)) => {
                    let found =
                        (self.logprobs && !logprobs.is_empty()).then(|| text_logprobs(&logprobs, offset));
                    offset += logprobs.iter().map(|token| token.token.chars().count()).sum::<usize>();
                    if !text.is_empty() || found.is_some() {
                        pump.send(&self.chunk(index, &text, found, None)).await?;
                    }
                }
                Ok(Step::Done(reason, usage)) => {
                    pump.send(&self.chunk(index, "", None, Some(finish(reason)))).await?;
                    return Ok(Some((index, usage)));
                }
                Err(error) => {
                    pump.send(&rename(error, "prompt").openai_body()).await?;
                    return Ok(None);
                }
            }
        }
    }

    fn chunk(&self, index: usize, text: &str, logprobs: Option<Value>, reason: Option<&str>) -> Value {
        let mut chunk = self.object();
        let choice = json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason});
        chunk.insert("choices".into(), json!([choice]));
        if self.include_usage {
            chunk.insert("usage".into(), Value::Null);
        }
        chunk.into()
    }
}

/// A string, strings, token ids, or lists of token ids.
fn prompts(value: Option<Value>) -> Result<Vec<Input>, ApiError> {
    let wrong = || ApiError::invalid("prompt", "must be a string, a list of strings, or a list of token ids");
    let items = match value {
        None => return Err(wrong()),
        Some(Value::String(text)) => return Ok(vec![Input::Text { text, special: true }]),
        Some(Value::Array(items)) if !items.is_empty() => items,
        Some(_) => return Err(wrong()),
    };
    if items.iter().all(Value::is_number) {
        return Ok(vec![tokens(&items)?]);
    }
    items
        .into_iter()
        .map(|item| match item {
            Value::String(text) => Ok(Input::Text { text, special: true }),
            Value::Array(ids) if !ids.is_empty() => tokens(&ids),
            _ => Err(wrong()),
        })
        .collect()
}

fn tokens(ids: &[Value]) -> Result<Input, ApiError> {
    let read = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids: Option<Vec<u32>> = ids.iter().map(read).collect();
    ids.map(Input::Tokens)
        .ok_or_else(|| ApiError::invalid("prompt", "token ids must be whole numbers that are not negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_come_in_four_shapes() {
        let text = |text: &str| Input::Text { text: text.into(), special: true };
        assert_eq!(prompts(Some(json!("a"))).unwrap(), [text("a")]);
        assert_eq!(prompts(Some(json!(["a", "b"]))).unwrap(), [text("a"), text("b")]);
        assert_eq!(prompts(Some(json!([1, 2]))).unwrap(), [Input::Tokens(vec![1, 2])]);
        assert_eq!(
            prompts(Some(json!([[1], [2]]))).unwrap(),
            [Input::Tokens(vec![1]), Input::Tokens(vec![2])]
        );
        for wrong in [json!([]), json!(1), json!({}), json!([-1]), json!([1.5]), json!(["a", 1]), json!([[]])]
        {
            assert_eq!(prompts(Some(wrong.clone())).unwrap_err().param.as_deref(), Some("prompt"), "{wrong}");
        }
        assert!(prompts(None).is_err());
    }
}
