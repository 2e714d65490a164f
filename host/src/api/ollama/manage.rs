//! Listing, showing, pulling and deleting models, as Ollama's clients know it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    super::{
        Api, ApiError,
        error::Ollama,
        guard::{self, Caller},
        pump::{self, Framing, Gone},
        time::rfc3339,
    },
    named,
    summary::summary,
};
use crate::inference::{ModelEntry, PullError, PullProgress};

/// The version of Ollama whose protocol is spoken; clients compare it with what they need.
const OLLAMA: &str = "0.12.0";

pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": OLLAMA, "potluck": env!("CARGO_PKG_VERSION")}))
}

pub(super) async fn tags(State(api): State<Api>) -> Json<Value> {
    let mut models = Vec::new();
    for entry in api.desk.models().await {
        models.push(describe(&api, &entry).await);
    }
    Json(json!({"models": models}))
}

/// One model of a listing.
async fn describe(api: &Api, entry: &ModelEntry) -> Value {
    json!({
        "name": entry.name,
        "model": entry.name,
        "modified_at": rfc3339(Duration::from_secs(entry.modified)),
        "size": entry.size,
        "digest": entry.digest.clone().unwrap_or_default(),
        "details": api.summaries.of(api.desk.as_ref(), entry).await,
    })
}

pub(super) async fn show(State(api): State<Api>, request: Request) -> Result<Json<Value>, Ollama> {
    let (name, _) = named(&api, request).await?;
    let details = api.desk.details(name).await?;
    Ok(Json(json!({
        "modelfile": format!("FROM {}\n", details.entry.name),
        "parameters": "",
        "template": details.template.clone().unwrap_or_default(),
        "license": details.license.clone().unwrap_or_default(),
        "modified_at": rfc3339(Duration::from_secs(details.entry.modified)),
        "details": summary(Some(&details)),
        "model_info": details.metadata,
        "capabilities": details.capabilities,
    })))
}

pub(super) async fn ps(State(api): State<Api>) -> Json<Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Ollama's way of saying never.
    let never = Duration::from_secs(100 * 365 * 86_400);
    let mut models = Vec::new();
    for loaded in api.desk.loaded().await {
        let on_gpu = !loaded.device.to_ascii_lowercase().starts_with("cpu");
        let bytes = loaded.weights_bytes + loaded.cache_bytes;
        let mut line = describe(&api, &loaded.entry).await;
        if let Some(map) = line.as_object_mut() {
            map.insert("size".into(), bytes.into());
            map.insert("size_vram".into(), (if on_gpu { bytes } else { 0 }).into());
            map.insert("context_length".into(), loaded.context.into());
            map.insert("expires_at".into(), rfc3339(now + loaded.expires_in.unwrap_or(never)).into());
        }
        models.push(line);
    }
    Json(json!({"models": models}))
}

pub(super) async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<StatusCode, Ollama> {
    guard::admin_only(&caller)?;
    let (name, _) = named(&api, request).await?;
    api.desk.remove(name).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn pull(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Ollama> {
    guard::admin_only(&caller)?;
    let (name, mut fields) = named(&api, request).await?;
    let streamed = fields.bool("stream")?.unwrap_or(true);
    fields.log_unknown("ollama");
    let mut progress = api.desk.pull(&name);
    let first = progress.recv().await.unwrap_or(Err(PullError::Stopped))?;
    if !streamed {
        let mut step = first;
        while !matches!(step, PullProgress::Success { .. }) {
            step = progress.recv().await.unwrap_or(Err(PullError::Stopped))?;
        }
        return Ok(Json(json!({"status": "success"})).into_response());
    }
    let patience = api.settings.config.http.client_timeout;
    Ok(pump::stream(Framing::Ndjson, patience, move |pump| async move {
        let mut step = Ok(first);
        loop {
            let (lines, last) = match step {
                Ok(step) => (status(&step), matches!(step, PullProgress::Success { .. })),
                Err(error) => (vec![ApiError::from(error).ollama_body()], true),
            };
            for line in lines {
                pump.send(&line).await?;
            }
            if last {
                return Ok::<(), Gone>(());
            }
            step = progress.recv().await.unwrap_or(Err(PullError::Stopped));
        }
    }))
}

/// A step in the words of Ollama's clients.
fn status(step: &PullProgress) -> Vec<Value> {
    match step {
        PullProgress::Resolving { .. } | PullProgress::Identifying { .. } => {
            vec![json!({"status": "pulling manifest"})]
        }
        PullProgress::Downloading { file, digest, completed, total } => {
            let what = digest.as_deref().map_or(file.as_str(), |digest| digest.get(..12).unwrap_or(digest));
            let mut line =
                json!({"status": format!("pulling {what}"), "total": total, "completed": completed});
            // Clients key their progress bars by digest.
            let key = digest.as_ref().map_or_else(|| file.clone(), |digest| format!("sha256:{digest}"));
            if let Some(map) = line.as_object_mut() {
                map.insert("digest".into(), key.into());
            }
            vec![line]
        }
        PullProgress::Verifying { .. } => vec![json!({"status": "verifying sha256 digest"})],
        PullProgress::Success { .. } => {
            vec![json!({"status": "writing manifest"}), json!({"status": "success"})]
        }
    }
}
