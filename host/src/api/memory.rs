//! The memory over HTTP: `/potluck/v1/memory/*`, for the node's commands, consoles and other programs.
//!
//! Every field that is not known is refused by name: what a surface silently ignores is not remembered.

use axum::{
    Extension, Json, Router,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use super::{
    Api, ApiError, body,
    error::OpenAi,
    fields::Fields,
    guard::{self, Caller},
    on_post,
    pump::{self, Framing, Gone},
};
use crate::memory::{ForgetRequest, Memory, MemoryError, RecordId, Verifying};

pub mod formats;
mod import;
pub mod parse;
mod query;
pub mod split;

use query::Query;

/// Most bytes in the body of a request about one record: its text, as JSON may write it.
const ONE_BODY: usize = 8 << 20;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/potluck/v1/memory", on_post(remember))
        .route("/potluck/v1/memory/import", on_post(import::import))
        .route("/potluck/v1/memory/recall", on_post(recall))
        .route("/potluck/v1/memory/forget", on_post(forget))
        .route("/potluck/v1/memory/reindex", on_post(reindex))
        .route("/potluck/v1/memory/verify", on_post(verify))
        .route("/potluck/v1/memory/recent", get(recent))
        .route("/potluck/v1/memory/context", get(context))
        .route("/potluck/v1/memory/export", get(export))
        .route("/potluck/v1/memory/stats", get(stats))
        .route("/potluck/v1/memory/{id}", get(one).patch(update).delete(delete))
}

impl Api {
    /// The memory, for a caller that may use it.
    ///
    /// # Errors
    /// 403 for one that may not, 503 when this node keeps none.
    pub(super) fn memory_for(&self, caller: &Caller) -> Result<&Memory, ApiError> {
        guard::memory_only(caller)?;
        self.desk.memory().ok_or_else(|| {
            let message = "this node keeps no memory: it could not be opened, or the node runs for one command \
                           only; see the node's log, or start one with `potluck up`";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).code("memory_unavailable")
        })
    }
}

/// Reads an id out of an address.
fn id_of(text: &str) -> Result<RecordId, ApiError> {
    parse::id("id", text)
}

fn answer<T: Serialize>(value: &T) -> Result<Json<Value>, OpenAi> {
    serde_json::to_value(value).map(Json).map_err(|error| {
        OpenAi(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the answer cannot be written: {error}"),
        ))
    })
}

async fn fields(api: &Api, request: Request) -> Result<Fields, ApiError> {
    Ok(Fields::new(body::object_within(api, request, ONE_BODY).await?))
}

async fn remember(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, OpenAi> {
    let memory = api.memory_for(&caller)?;
    let mut fields = fields(&api, request).await?;
    let draft = parse::draft(&mut fields)?;
    fields.finish()?;
    answer(&memory.remember(draft).await?)
}

async fn recall(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, OpenAi> {
    let memory = api.memory_for(&caller)?;
    let mut fields = fields(&api, request).await?;
    let question = parse::recall(&mut fields)?;
    fields.finish()?;
    answer(&memory.recall(question).await?)
}

async fn one(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, OpenAi> {
    let memory = api.memory_for(&caller)?;
    let mut query = Query::of(request.uri())?;
    let history = query.flag("history")?;
    query.finish()?;
    answer(&memory.get(id_of(&id)?, history).await?)
}

async fn update(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, OpenAi> {
    let memory = api.memory_for(&caller)?;
    let id = id_of(&id)?;
    let mut fields = fields(&api, request).await?;
    let change = parse::change(&mut fields)?;
    fields.finish()?;
    answer(&memory.update(id, change).await?)
}

async fn forget(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, OpenAi> {
    let memory = api.memory_for(&caller)?;
    let mut fields = fields(&api, request).await?;
    let what = parse::forget(&mut fields)?;
    fields.finish()?;
    answer(&memory.forget(what).await?)
}

/// `DELETE /potluck/v1/memory/{id}`: says what would go, like every forgetting, until `?confirm=true`.
async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, OpenAi> {
    let memory = api.memory_for(&caller)?;
    let ids = vec![id_of(&id)?];
    let mut query = Query::of(request.uri())?;
    let (hard, confirm) = (query.flag("hard")?, query.flag("confirm")?);
    let reason = query.string("reason")?;
    query.finish()?;
    answer(&memory.forget(ForgetRequest { ids, filter: None, reason, hard, confirm }).await?)
}

async fn recent(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, OpenAi> {
    let memory = api.memory_for(&caller)?;
    let mut query = Query::of(request.uri())?;
    let filter = query.filter()?;
    let limit = query.limit()?;
    query.finish()?;
    answer(&json!({"items": memory.recent(filter, limit).await?}))
}

async fn context(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, OpenAi> {
    let memory = api.memory_for(&caller)?;
    let mut query = Query::of(request.uri())?;
    let project = query.string("project")?;
    let budget = query.integer("budget_tokens", parse::BUDGET)?.unwrap_or(parse::DEFAULT_BUDGET);
    query.finish()?;
    answer(&memory.context(project, budget).await?)
}

async fn stats(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, OpenAi> {
    let memory = api.memory_for(&caller)?;
    Query::of(request.uri())?.finish()?;
    answer(&memory.stats().await?)
}

/// `GET /potluck/v1/memory/export`: JSON Lines, one version each, oldest first.
///
/// A line with `error` at the end says that the export broke off.
async fn export(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, OpenAi> {
    let memory = api.memory_for(&caller)?;
    let mut query = Query::of(request.uri())?;
    let filter = query.filter()?;
    let vectors = query.flag("vectors")?;
    query.finish()?;
    steps(&api, memory.export(filter, vectors), None, |line| line).await
}

/// Lines of JSON as they come, and one at the end. The first step decides the status: work that fails at once is no
/// answer of 200; a failure later is the last line.
async fn steps<T: Send + 'static>(
    api: &Api,
    mut steps: Receiver<Result<T, MemoryError>>,
    end: Option<Value>,
    line: fn(T) -> Value,
) -> Result<Response, OpenAi> {
    let mut next = steps.recv().await.transpose()?;
    let patience = api.settings.config.http.client_timeout;
    Ok(pump::stream(Framing::Ndjson, patience, move |pump| async move {
        while let Some(step) = next {
            pump.send(&line(step)).await?;
            next = match steps.recv().await.transpose() {
                Ok(step) => step,
                Err(error) => return pump.send(&ApiError::from(error).openai_body()).await,
            };
        }
        match end {
            Some(end) => pump.send(&end).await,
            None => Ok::<(), Gone>(()),
        }
    })
    .into_response())
}

/// `POST /potluck/v1/memory/reindex`: lines of `{"done", "total"}`, and `{"status": "success"}` at the end.
async fn reindex(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, OpenAi> {
    let memory = api.memory_for(&caller)?;
    Query::of(request.uri())?.finish()?;
    let end = json!({"status": "success"});
    steps(
        &api,
        memory.reindex(),
        Some(end),
        |(done, total)| json!({"status": "indexing", "done": done, "total": total}),
    )
    .await
}

/// `POST /potluck/v1/memory/verify`: lines of `{"done", "total"}` in files of the log, and the report at the end.
async fn verify(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, OpenAi> {
    let memory = api.memory_for(&caller)?;
    Query::of(request.uri())?.finish()?;
    steps(&api, memory.verify(), None, |step| match step {
        Verifying::Files(done, total) => json!({"status": "reading", "done": done, "total": total}),
        Verifying::Done(report) => {
            json!({"status": "done", "clean": report.is_clean(), "report": report})
        }
    })
    .await
}

/// A failure of one object within many, in the words that its own request would have got.
pub(super) fn words(error: MemoryError) -> String {
    ApiError::from(error).message
}

#[cfg(test)]
mod tests;
