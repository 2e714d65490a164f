//! Policies: `/potluck/v1/policies*`, for the node's own commands.

use axum::{
    Extension, Json, Router,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Api, ApiError, body,
    error::OpenAi,
    fields::Fields,
    guard::{self, Caller},
    on_post,
};
use crate::{
    node::pool::policies::{PolicyError, PolicyRoom, Vote, describe},
    policy::{Decision, Kind, MAX_COMPONENT},
};

/// Longest decision that is read, in bytes.
const MAX_PAPER: usize = 4 << 20;
/// Decisions that are listed at most.
const MOST: usize = 1_000;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/potluck/v1/policies", get(list).post(add))
        .route("/potluck/v1/policies/vote", on_post(vote))
        .route("/potluck/v1/policies/rollback", on_post(rollback))
        .route("/potluck/v1/policies/explain", on_post(replay))
        .route("/potluck/v1/policies/decisions", get(decisions))
        .route("/potluck/v1/policies/decisions/{job}", get(explain))
        .route("/potluck/v1/policies/components/{hash}", get(show))
}

impl Api {
    fn policies_for(&self, caller: &Caller) -> Result<&PolicyRoom, ApiError> {
        guard::admin_only(caller)?;
        self.desk.pool().map(crate::node::pool::Pool::policies).ok_or_else(|| {
            let message =
                "this node runs for one command only and has no policies; start one with `potluck up`";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).code("policies_unavailable")
        })
    }
}

type Answer = Result<Json<Value>, OpenAi>;

async fn list(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.policies_for(&caller)?.list().await?))
}

/// The body is the component.
async fn add(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let room = api.policies_for(&caller)?;
    let bytes = body::read(&api, request, MAX_COMPONENT).await?;
    Ok(Json(describe(&*room.add(bytes).await?)))
}

async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(hash): Path<String>,
) -> Answer {
    Ok(Json(api.policies_for(&caller)?.show(&hash).await?))
}

fn kind_of(fields: &mut Fields) -> Result<Option<Kind>, ApiError> {
    let word = fields.string("kind")?;
    word.map(|word| word.parse()).transpose().map_err(|error| ApiError::invalid("kind", error))
}

async fn vote(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let room = api.policies_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let vote = Vote {
        kind: kind_of(&mut fields)?,
        component: fields.string("component")?,
        from: fields.integer("from_ms", 0..=i64::MAX)?,
        yes: fields.bool("yes")?.unwrap_or(true),
        note: fields.string("note")?.unwrap_or_default(),
    };
    fields.finish()?;
    if vote.component.is_none() && vote.kind.is_none() {
        let reason = "name a component, or the kind that is to be decided by the built-in rule";
        return Err(ApiError::invalid("component", reason).into());
    }
    Ok(Json(room.vote(vote).await?))
}

async fn rollback(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let room = api.policies_for(&caller)?;
    let mut fields = Fields::new(body::object(&api, request).await?);
    let kind = kind_of(&mut fields)?;
    let here = fields.bool("here")?.unwrap_or_default();
    fields.finish()?;
    let kind = kind.ok_or_else(|| ApiError::invalid("kind", "is missing: routing, pricing or slashing"))?;
    if here {
        return Ok(Json(json!({"kind": kind, "hash": room.rollback(kind)?})));
    }
    Ok(Json(room.back(kind).await?))
}

#[derive(Deserialize)]
struct Most {
    limit: Option<usize>,
}

async fn decisions(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(most): Query<Most>,
) -> Answer {
    Ok(Json(api.policies_for(&caller)?.latest(most.limit.unwrap_or(20).min(MOST)).await?))
}

async fn explain(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(job): Path<String>,
) -> Answer {
    let room = api.policies_for(&caller)?;
    let job = job.parse::<Uuid>().map_err(|error| ApiError::invalid("job", error))?;
    Ok(Json(room.explain(job).await?))
}

/// The body is a decision as `explain` gives it under `paper`, of this machine or of another.
async fn replay(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Answer {
    let room = api.policies_for(&caller)?;
    let bytes = body::read(&api, request, MAX_PAPER).await?;
    let text = String::from_utf8(bytes).map_err(|error| ApiError::invalid("body", error))?;
    let decision = Decision::import(&text).map_err(PolicyError::from)?;
    Ok(Json(room.replay(&decision).await?))
}

impl From<PolicyError> for ApiError {
    fn from(error: PolicyError) -> Self {
        let error = match error {
            PolicyError::Pool(error) => return error.into(),
            other => other,
        };
        let (status, code) = match &error {
            PolicyError::Pool(_) => (StatusCode::INTERNAL_SERVER_ERROR, "pool_failed"),
            PolicyError::Load(_) => (StatusCode::UNPROCESSABLE_ENTITY, "policy_unusable"),
            PolicyError::Paper(_) => (StatusCode::BAD_REQUEST, "invalid_value"),
            PolicyError::Nothing(_) => (StatusCode::CONFLICT, "nothing_before"),
            PolicyError::Fetch { .. } => (StatusCode::NOT_FOUND, "component_not_found"),
            PolicyError::Unknown(_) => (StatusCode::NOT_FOUND, "policy_not_found"),
            PolicyError::Ambiguous(_) => (StatusCode::CONFLICT, "ambiguous"),
            PolicyError::NoDecision(_) => (StatusCode::NOT_FOUND, "decision_not_found"),
            PolicyError::Engine(_) | PolicyError::Decisions(_) | PolicyError::Disk { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "policy_failed")
            }
        };
        Self::new(status, error.to_string()).code(code)
    }
}
