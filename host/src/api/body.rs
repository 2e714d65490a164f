//! Reading a request's body within its limits of size and time.

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    http::{StatusCode, header},
};
use futures::StreamExt;
use serde_json::Value;

use super::{Api, ApiError};
use crate::config::value::format_duration;

/// Bytes of an oversized body that are read and thrown away so that the client sees the refusal.
const DRAIN_BYTES: u64 = 256 << 20;
/// Longest time spent on that.
const DRAIN_TIME: Duration = Duration::from_secs(20);

/// The body as a JSON object.
///
/// # Errors
/// 413 when it is too large, 408 when it comes too slowly, 400 when it is not a JSON object. `serde_json`
/// bounds the depth (128) and refuses numbers that no `f64` holds.
pub(crate) async fn object(api: &Api, request: Request) -> Result<serde_json::Map<String, Value>, ApiError> {
    object_within(api, request, api.settings.config.http.body_limit).await
}

/// The body as a JSON object of at most `limit` bytes, or of `http.body_limit` where that is less.
///
/// # Errors
/// As [`object`].
pub(crate) async fn object_within(
    api: &Api,
    request: Request,
    limit: usize,
) -> Result<serde_json::Map<String, Value>, ApiError> {
    let bytes = read(api, request, limit.min(api.settings.config.http.body_limit)).await?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ApiError::new(StatusCode::BAD_REQUEST, "the body must be a JSON object")),
        Err(error) => {
            Err(ApiError::new(StatusCode::BAD_REQUEST, format!("the body is not valid JSON: {error}")))
        }
    }
}

pub(super) async fn read(api: &Api, request: Request, limit: usize) -> Result<Vec<u8>, ApiError> {
    let http = &api.settings.config.http;
    let (parts, body) = request.into_parts();
    let announced = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {limit} bytes; send less"),
        )
        .code("request_too_large")
    };
    if announced.is_some_and(|length| length > limit as u64) {
        if !parts.headers.contains_key(header::EXPECT) {
            drain(body).await;
        }
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(limit as u64) as usize);
    let mut chunks = body.into_data_stream();
    let deadline = tokio::time::Instant::now() + http.client_timeout;
    loop {
        let next = tokio::time::timeout_at(deadline, chunks.next()).await.map_err(|_| {
            let limit = format_duration(http.client_timeout);
            ApiError::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {limit}"))
                .code("request_timeout")
        })?;
        match next {
            None => return Ok(bytes),
            Some(Ok(chunk)) if bytes.len().saturating_add(chunk.len()) <= limit => {
                bytes.extend_from_slice(&chunk)
            }
            Some(Ok(_)) => {
                drain(Body::from_stream(chunks)).await;
                return Err(too_large());
            }
            Some(Err(error)) => {
                return Err(ApiError::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")));
            }
        }
    }
}

/// Reads on without keeping anything, so that a client in the middle of sending can read the answer.
pub(super) async fn drain(body: Body) {
    let mut chunks = body.into_data_stream();
    let work = async {
        let mut seen = 0u64;
        while let Some(Ok(chunk)) = chunks.next().await {
            seen = seen.saturating_add(chunk.len() as u64);
            if seen > DRAIN_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, work).await;
}
