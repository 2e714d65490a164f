//! `/potluck/v1/public`: this machine in the public pool.

use axum::{
    Extension, Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Api, ApiError,
    error::OpenAi,
    guard::{self, Caller},
    on_post,
};
use crate::node::public::{Public, PublicError};

/// Receipts in an answer where no number is asked for.
const RECEIPTS: usize = 50;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/potluck/v1/public", get(status))
        .route("/potluck/v1/public/on", on_post(on))
        .route("/potluck/v1/public/off", on_post(off))
        .route("/potluck/v1/public/earnings", get(earnings))
        .route("/potluck/v1/public/receipts", get(receipts))
}

impl Api {
    /// The public pool, for a caller that may administer the node.
    fn public_for(&self, caller: &Caller) -> Result<&Public, ApiError> {
        guard::admin_only(caller)?;
        self.desk.public().ok_or_else(|| {
            let message =
                "this node runs for one command only and is in no public pool; start one with `potluck up`";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).code("public_unavailable")
        })
    }
}

type Answer = Result<Json<Value>, OpenAi>;

async fn status(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.public_for(&caller)?.status().await))
}

async fn on(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.public_for(&caller)?.switch(true).await?))
}

async fn off(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.public_for(&caller)?.switch(false).await?))
}

async fn earnings(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Answer {
    Ok(Json(api.public_for(&caller)?.earnings()))
}

#[derive(Deserialize)]
struct Which {
    last: Option<usize>,
}

async fn receipts(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(which): Query<Which>,
) -> Answer {
    Ok(Json(api.public_for(&caller)?.receipts(which.last.unwrap_or(RECEIPTS))))
}

impl From<PublicError> for ApiError {
    fn from(error: PublicError) -> Self {
        let (status, code) = match &error {
            PublicError::Files { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "io_error"),
            PublicError::Issues => (StatusCode::CONFLICT, "issuer_cannot_serve"),
            PublicError::Words(_) | PublicError::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_value"),
        };
        Self::new(status, error.to_string()).code(code)
    }
}
