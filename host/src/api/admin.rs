//! The node's own surface: `/potluck/v1/*` for its commands, and `/readyz`.

use axum::{
    Extension, Json, Router,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use serde_json::{Value, json};

use super::{
    Api, ApiError, body,
    error::OpenAi,
    fields::Fields,
    guard::{self, Caller},
    on_post,
    pump::{self, Framing, Gone},
    time::unix_now,
};
use crate::inference::{ModelEntry, PullError, PullProgress};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/potluck/v1/status", get(status))
        .route("/potluck/v1/models", get(models))
        .route("/potluck/v1/models/load", on_post(load))
        .route("/potluck/v1/models/unload", on_post(unload))
        .route("/potluck/v1/models/{*name}", delete(remove).get(details))
        .route("/potluck/v1/pull", on_post(pull))
}

/// `GET /readyz`
pub(super) async fn ready(State(api): State<Api>) -> Response {
    if api.desk.ready() {
        return "ready\n".into_response();
    }
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the node is shutting down").code("shutting_down").openai()
}

async fn status(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Result<Json<Value>, OpenAi> {
    guard::admin_only(&caller)?;
    let loaded = api.desk.loaded().await;
    let config = &api.settings.config;
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": api.settings.node,
        "pid": std::process::id(),
        "url": format!("http://{}", api.settings.address),
        "home": config.home,
        "ready": api.desk.ready(),
        "uptime_seconds": unix_now().saturating_sub(api.settings.since),
        "mode": config.mode,
        "offline": config.offline,
        "parallel": config.inference.parallel,
        "max_queue": config.inference.max_queue,
        "active": loaded.iter().map(|model| model.active).sum::<usize>(),
        "queued": loaded.iter().map(|model| model.queued).sum::<usize>(),
        "models": loaded,
    })))
}

async fn models(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Result<Json<Value>, OpenAi> {
    guard::admin_only(&caller)?;
    let models: Vec<_> = api.desk.models().await.iter().map(listed).collect();
    Ok(Json(json!({"models": models})))
}

/// A line of the listing: what is known without opening the file.
fn listed(entry: &ModelEntry) -> Value {
    let mut line = serde_json::to_value(entry).unwrap_or_default();
    if let Some(map) = line.as_object_mut() {
        let kind = if entry.is_embedder() { "embedding" } else { "text" };
        map.insert("kind".into(), kind.into());
    }
    line
}

async fn details(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, OpenAi> {
    guard::admin_only(&caller)?;
    Ok(Json(api.desk.details(name).await?).into_response())
}

async fn load(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, OpenAi> {
    guard::admin_only(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let model = fields.required_string("model")?;
    let keep_alive = super::openai::keep_alive(&mut fields)?;
    api.desk.load(model.clone(), keep_alive).await?;
    Ok(Json(json!({"model": model, "loaded": true})))
}

async fn unload(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, OpenAi> {
    guard::admin_only(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let model = fields.required_string("model")?;
    let was_loaded = api.desk.unload(model.clone()).await?;
    Ok(Json(json!({"model": model, "was_loaded": was_loaded})))
}

async fn remove(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, OpenAi> {
    guard::admin_only(&caller)?;
    api.desk.remove(name.clone()).await?;
    Ok(Json(json!({"model": name, "removed": true})))
}

async fn pull(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, OpenAi> {
    guard::admin_only(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let reference = fields.required_string("model")?;
    let from = fields.string("from")?;
    let mut progress = match from {
        Some(from) => api.desk.pull_from(&reference, &from),
        None => api.desk.pull(&reference),
    };
    let first = progress.recv().await.unwrap_or(Err(PullError::Stopped))?;
    let patience = api.settings.config.http.client_timeout;
    Ok(pump::stream(Framing::Ndjson, patience, move |pump| async move {
        let mut step = Ok(first);
        loop {
            let (line, last) = match step {
                Ok(step) => (describe(&step), matches!(step, PullProgress::Success { .. })),
                Err(error) => (ApiError::from(error).openai_body(), true),
            };
            pump.send(&line).await?;
            if last {
                return Ok::<(), Gone>(());
            }
            step = progress.recv().await.unwrap_or(Err(PullError::Stopped));
        }
    }))
}

fn describe(step: &PullProgress) -> Value {
    serde_json::to_value(step).unwrap_or_else(|_| json!({"status": "unknown"}))
}
