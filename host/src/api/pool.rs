//! The trusted pool: `/potluck/v1/pool/*`, for the node's own commands.

use axum::{
    Extension, Json, Router,
    extract::{Path, Request, State},
    http::StatusCode,
    routing::get,
};
use serde_json::{Value, json};

use super::{
    Api, ApiError, body,
    error::OpenAi,
    fields::Fields,
    guard::{self, Caller},
    on_post,
};
use crate::{
    node::pool::Pool,
    pool::trusted::{
        Grants,
        ledger::Limits,
        papers::MAX_QUORUM,
        service::{InviteOptions, PoolError},
    },
};

/// Longest that an invite can be used, in seconds: 90 days.
const LONGEST: i64 = 90 * 24 * 3_600;
/// Most machines that one invite can be for.
const MOST: i64 = 512;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/potluck/v1/pool", get(status).post(create))
        .route("/potluck/v1/pool/invites", on_post(invite))
        .route("/potluck/v1/pool/join", on_post(join))
        .route("/potluck/v1/pool/members", get(members))
        .route("/potluck/v1/pool/members/{member}", get(member))
        .route("/potluck/v1/pool/revoke", on_post(revoke))
        .route("/potluck/v1/pool/rename", on_post(rename))
        .route("/potluck/v1/pool/leave", on_post(leave))
        .route("/potluck/v1/pool/ledger", get(ledger))
        .route("/potluck/v1/pool/limit", on_post(limit))
        .route("/potluck/v1/pool/share", get(shared).post(share))
        .route("/potluck/v1/pool/unshare", on_post(unshare))
        .route("/potluck/v1/pool/key/export", on_post(export_key))
        .route("/potluck/v1/pool/key/import", on_post(import_key))
        .route("/potluck/v1/pool/diagnose", on_post(diagnose))
}

impl Api {
    /// The pool, for a caller that may administer the node.
    fn pool_for(&self, caller: &Caller) -> Result<&Pool, ApiError> {
        guard::admin_only(caller)?;
        self.desk.pool().ok_or_else(|| {
            let message =
                "this node runs for one command only and is in no pool; start one with `potluck up`";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).code("pool_unavailable")
        })
    }
}

type Answer = Result<Json<Value>, OpenAi>;

async fn status(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.pool_for(&caller)?.status().await?))
}

async fn create(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let pool = api.pool_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let name = fields.required_string("name")?;
    let own = fields.string("as")?;
    let quorum =
        fields.integer("quorum", 1..=i64::from(MAX_QUORUM))?.and_then(|quorum| quorum.try_into().ok());
    fields.finish()?;
    let made = pool.create(&name, quorum).await?;
    if let Some(own) = own {
        pool.papers().rename(None, own).await?;
    }
    Ok(Json(made))
}

async fn invite(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let pool = api.pool_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let mut options = InviteOptions { hint: fields.string("name")?, ..InviteOptions::default() };
    if let Some(seconds) = fields.integer("expires_in", 60..=LONGEST)? {
        options.life = seconds * 1_000;
    }
    if let Some(uses) = fields.integer("uses", 1..=MOST)? {
        options.uses = u32::try_from(uses).unwrap_or(1);
    }
    if let Some(grants) = fields.take("grants") {
        options.grants = grants_of(grants)?;
    }
    fields.finish()?;
    Ok(Json(pool.invite(options).await?))
}

fn grants_of(value: Value) -> Result<Grants, ApiError> {
    serde_json::from_value(value).map_err(|error| ApiError::invalid("grants", error))
}

async fn join(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let pool = api.pool_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let invite = fields.required_string("invite")?;
    let name = fields.string("name")?;
    fields.finish()?;
    Ok(Json(pool.join(&invite, name.as_deref()).await?))
}

async fn members(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.pool_for(&caller)?.members().await?))
}

async fn member(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(wanted): Path<String>,
) -> Answer {
    answer(api.pool_for(&caller)?.papers().show(wanted).await?)
}

async fn revoke(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let pool = api.pool_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let wanted = fields.required_string("id")?;
    let reason = fields.string("reason")?.unwrap_or_default();
    fields.finish()?;
    answer(pool.papers().revoke(wanted, reason).await?)
}

async fn rename(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let pool = api.pool_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let (wanted, name) = (fields.string("id")?, fields.required_string("name")?);
    fields.finish()?;
    Ok(Json(json!({"name": pool.papers().rename(wanted, name).await?})))
}

async fn leave(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let pool = api.pool_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let force = fields.bool("force")?.unwrap_or_default();
    fields.finish()?;
    let name = pool.leave(force).await?;
    Ok(Json(json!({"name": name})))
}

async fn ledger(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.pool_for(&caller)?.ledger().await?))
}

async fn limit(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let pool = api.pool_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let wanted = fields.required_string("id")?;
    let hours = fields.integer("hours", 0..=100_000)?.and_then(|hours| u32::try_from(hours).ok());
    fields.finish()?;
    let node = pool.find(&wanted).await?;
    pool.limit(node, hours.filter(|hours| *hours > 0).map(Limits::hours))?;
    Ok(Json(json!({"id": node, "hours": hours})))
}

async fn share(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let pool = api.pool_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let (url, key) = (fields.required_string("url")?, fields.string("key")?);
    let slots = fields.integer("slots", 1..=1_024)?.and_then(|slots| usize::try_from(slots).ok());
    fields.finish()?;
    let shared = pool.share(url, key, slots.unwrap_or(4)).await;
    Ok(Json(shared.map_err(|reason| ApiError::invalid("url", reason))?))
}

async fn shared(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.pool_for(&caller)?.shared().await))
}

async fn unshare(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let pool = api.pool_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let url = fields.required_string("url")?;
    fields.finish()?;
    if !pool.unshare(&url)? {
        let reason = format!("`{url}` is not shared: see `potluck share`");
        return Err(ApiError::invalid("url", reason).into());
    }
    Ok(Json(json!({"url": url})))
}

async fn export_key(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    let pool = api.pool_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let passphrase = fields.required_string("passphrase")?;
    fields.finish()?;
    Ok(Json(json!({"key": pool.papers().export_root(passphrase).await?})))
}

async fn import_key(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    let pool = api.pool_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let (key, passphrase) = (fields.required_string("key")?, fields.required_string("passphrase")?);
    fields.finish()?;
    Ok(Json(json!({"id": pool.papers().import_root(key, passphrase).await?})))
}

async fn diagnose(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let pool = api.pool_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let (wanted, model) = (fields.required_string("id")?, fields.string("model")?);
    fields.finish()?;
    Ok(Json(pool.diagnose(&wanted, model.as_deref()).await?))
}

fn answer(value: impl serde::Serialize) -> Answer {
    let written = serde_json::to_value(value);
    Ok(Json(written.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?))
}

impl From<PoolError> for ApiError {
    fn from(error: PoolError) -> Self {
        let (status, code) = match &error {
            PoolError::NoPool => (StatusCode::NOT_FOUND, "no_pool"),
            PoolError::AlreadyIn { .. } => (StatusCode::CONFLICT, "already_in_a_pool"),
            PoolError::NotAdmin { .. } | PoolError::NotOwner | PoolError::Revoked { .. } => {
                (StatusCode::FORBIDDEN, "not_allowed")
            }
            PoolError::Unknown { .. } => (StatusCode::NOT_FOUND, "member_not_found"),
            PoolError::Ambiguous { .. } => (StatusCode::CONFLICT, "ambiguous"),
            PoolError::NameTaken { .. } => (StatusCode::CONFLICT, "name_taken"),
            PoolError::LastAdmin => (StatusCode::CONFLICT, "last_admin"),
            PoolError::Join(_) => (StatusCode::FORBIDDEN, "join_refused"),
            PoolError::Open(_) | PoolError::Unreachable { .. } => (StatusCode::BAD_GATEWAY, "unreachable"),
            PoolError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
            PoolError::Oneself
            | PoolError::Name(_)
            | PoolError::Grant(_)
            | PoolError::Paper(_)
            | PoolError::Invite(_)
            | PoolError::Export(_) => (StatusCode::BAD_REQUEST, "invalid_value"),
            PoolError::Journal(_)
            | PoolError::Ledger(_)
            | PoolError::Key(_)
            | PoolError::File { .. }
            | PoolError::Memory(_)
            | PoolError::Policies(_)
            | PoolError::Random(_) => (StatusCode::INTERNAL_SERVER_ERROR, "pool_failed"),
        };
        Self::new(status, error.to_string()).code(code)
    }
}
