//! One error of the surfaces, written in the shape each surface's clients read.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{
    inference::{PullError, StoreError},
    job::JobError,
    memory::{MemoryError, log::LogError, record::DraftError},
};

/// A refusal or failure, before it has a surface's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// What happened and what to do next.
    pub message: String,
    /// A stable word for programs.
    pub code: Option<&'static str>,
    /// The field at fault.
    pub param: Option<String>,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error with a status and a message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: None, param: None, retry_after: None }
    }

    /// A field has a wrong value.
    pub fn invalid(param: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        let param = param.into();
        let mut error = Self::new(StatusCode::BAD_REQUEST, format!("{param}: {reason}"));
        error.param = Some(param);
        error
    }

    /// With a code.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// OpenAI's word for the kind of error.
    pub fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            503 => "service_unavailable",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// The body OpenAI's clients read.
    pub fn openai_body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind(), "param": self.param, "code": self.code}})
    }

    /// The body Ollama's clients read.
    pub fn ollama_body(&self) -> Value {
        json!({"error": self.message})
    }

    /// A response in OpenAI's shape.
    pub fn openai(self) -> Response {
        let body = self.openai_body();
        self.with(body)
    }

    /// A response in Ollama's shape.
    pub fn ollama(self) -> Response {
        let body = self.ollama_body();
        self.with(body)
    }

    /// A response in the shape of the surface that owns `path`.
    pub fn respond(self, path: &str) -> Response {
        if path.starts_with("/api/") { self.ollama() } else { self.openai() }
    }

    fn with(self, body: Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        let message = error.to_string();
        let (status, code) = match &error {
            JobError::ModelNotFound { .. } | JobError::EmbedderMissing { .. } => {
                (StatusCode::NOT_FOUND, Some("model_not_found"))
            }
            JobError::ModelUnusable { .. } => (StatusCode::UNPROCESSABLE_ENTITY, Some("model_unusable")),
            JobError::ContextLengthExceeded { .. } => {
                (StatusCode::BAD_REQUEST, Some("context_length_exceeded"))
            }
            JobError::Invalid { .. } => (StatusCode::BAD_REQUEST, None),
            JobError::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, Some("rate_limit_exceeded")),
            JobError::ModeUnavailable { .. } => (StatusCode::FORBIDDEN, Some("mode_unavailable")),
            JobError::Payment { .. } => (StatusCode::PAYMENT_REQUIRED, Some("payment_required")),
            JobError::Cancelled => (StatusCode::REQUEST_TIMEOUT, Some("cancelled")),
            JobError::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, Some("shutting_down")),
            JobError::Unanswered { .. } => (StatusCode::BAD_GATEWAY, Some("unanswered")),
            JobError::Internal { .. } => (StatusCode::INTERNAL_SERVER_ERROR, Some("internal_error")),
        };
        let (param, retry_after) = match error {
            JobError::ModelNotFound { .. } | JobError::EmbedderMissing { .. } => {
                (Some("model".to_owned()), None)
            }
            JobError::ContextLengthExceeded { .. } => (Some("messages".to_owned()), None),
            JobError::Invalid { field, .. } => (Some(field), None),
            JobError::Busy { retry_after, .. } => (None, Some(retry_after.as_secs().max(1))),
            _ => (None, None),
        };
        Self { status, message, code, param, retry_after }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (status, code) = match &error {
            StoreError::NotFound { .. } => (StatusCode::NOT_FOUND, "model_not_found"),
            StoreError::Ambiguous { .. } => (StatusCode::BAD_REQUEST, "model_ambiguous"),
            StoreError::NotOurs { .. } => (StatusCode::FORBIDDEN, "model_not_ours"),
            StoreError::Unreadable { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "model_unusable"),
            StoreError::Io { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "io_error"),
        };
        let mut refusal = Self::new(status, error.to_string()).code(code);
        refusal.param = Some("model".into());
        refusal
    }
}

impl From<PullError> for ApiError {
    fn from(error: PullError) -> Self {
        let (status, code) = match error {
            PullError::Store(error) => return error.into(),
            PullError::Reference(_) => (StatusCode::BAD_REQUEST, "bad_reference"),
            PullError::Offline => (StatusCode::FORBIDDEN, "offline"),
            PullError::Forbidden { .. } => (StatusCode::FORBIDDEN, "hub_forbidden"),
            PullError::NotFound { .. } | PullError::NoSuchFile { .. } => {
                (StatusCode::NOT_FOUND, "not_on_hub")
            }
            PullError::NoPool => (StatusCode::NOT_FOUND, "no_pool"),
            PullError::NotGranted => (StatusCode::FORBIDDEN, "not_granted"),
            PullError::NoMember { .. } => (StatusCode::NOT_FOUND, "member_not_found"),
            PullError::NotInPool { .. } => (StatusCode::NOT_FOUND, "not_in_pool"),
            PullError::Differs { .. } => (StatusCode::CONFLICT, "files_differ"),
            PullError::Taken { .. } => (StatusCode::CONFLICT, "name_taken"),
            PullError::DiskFull { .. } => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            _ => (StatusCode::BAD_GATEWAY, "pull_failed"),
        };
        Self::new(status, error.to_string()).code(code)
    }
}

impl From<MemoryError> for ApiError {
    fn from(error: MemoryError) -> Self {
        let message = error.to_string();
        let (status, code) = match &error {
            MemoryError::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_value"),
            MemoryError::Draft(DraftError::Long { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, "memory_too_long"),
            MemoryError::Draft(_) => (StatusCode::BAD_REQUEST, "invalid_value"),
            MemoryError::Log(LogError::Full { .. }) => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            MemoryError::Log(_) | MemoryError::Keyword(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "memory_failed")
            }
            MemoryError::NotFound { .. } => (StatusCode::NOT_FOUND, "memory_not_found"),
            MemoryError::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            MemoryError::Busy => (StatusCode::TOO_MANY_REQUESTS, "memory_busy"),
            MemoryError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
            MemoryError::InUse { .. } => (StatusCode::SERVICE_UNAVAILABLE, "memory_in_use"),
            MemoryError::Failed { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "memory_failed"),
        };
        let mut refusal = Self::new(status, message).code(code);
        refusal.param = match error {
            MemoryError::Invalid { field, .. } => Some(field.to_owned()),
            MemoryError::Draft(error) => Some(error.field().to_owned()),
            MemoryError::NotFound { .. } => Some("id".to_owned()),
            _ => None,
        };
        refusal.retry_after = (status == StatusCode::TOO_MANY_REQUESTS).then_some(1);
        refusal
    }
}

/// An error that becomes a response in OpenAI's shape.
#[derive(Debug)]
pub struct OpenAi(pub ApiError);

impl IntoResponse for OpenAi {
    fn into_response(self) -> Response {
        self.0.openai()
    }
}

impl<E: Into<ApiError>> From<E> for OpenAi {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// An error that becomes a response in Ollama's shape.
#[derive(Debug)]
pub struct Ollama(pub ApiError);

impl IntoResponse for Ollama {
    fn into_response(self) -> Response {
        self.0.ollama()
    }
}

impl<E: Into<ApiError>> From<E> for Ollama {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}
