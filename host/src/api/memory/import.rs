//! `POST /potluck/v1/memory/import`: objects read as they come, written in batches, never the whole body held.

use std::time::{Duration, Instant};

use axum::{
    Extension, Json,
    body::BodyDataStream,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use serde_json::{Value, json};

use super::{
    super::{
        Api, ApiError, body,
        error::OpenAi,
        guard::Caller,
        pump::{self, Framing, Gone, Pump},
    },
    formats::{self, Format, MAX_OBJECT, Object},
    query::Query,
    split::{Piece, Splitter},
    words,
};
use crate::{
    config::value::format_duration,
    memory::{Draft, ImportError, Imported, Memory, MemoryError, Remembered, redact::Redaction},
};

/// Records written together.
const BATCH: usize = 512;
/// Bytes of them.
const BATCH_BYTES: usize = 16 << 20;
/// Refusals that are told one by one.
const ERRORS: usize = 100;
/// How often a busy memory is asked again, and how long apart.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);
/// Time between two lines of progress.
const EVERY: Duration = Duration::from_millis(500);

/// Answers the counts, or with `Accept: application/x-ndjson` lines of progress with the counts in the last.
pub(super) async fn import(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, OpenAi> {
    let memory = api.memory_for(&caller)?.clone();
    let mut query = Query::of(request.uri())?;
    let format = query.string("format")?.map(|text| text.parse()).transpose();
    let format: Format = format.map_err(|error| ApiError::invalid("format", error))?.unwrap_or_default();
    query.finish()?;
    let lines = wants_lines(request.headers());
    let patience = api.settings.config.http.client_timeout;
    let import = Import::new(memory, format);
    let body = request.into_body().into_data_stream();
    if !lines {
        let done = import.run(body, patience, None).await?;
        return Ok(Json(json!(done)).into_response());
    }
    Ok(pump::stream(Framing::Ndjson, patience, move |pump| async move {
        let line = match import.run(body, patience, Some(&pump)).await {
            Ok(done) => with_status("success", &done),
            Err(error) => error.openai_body(),
        };
        pump.send(&line).await
    }))
}

fn wants_lines(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("application/x-ndjson"))
}

fn with_status(status: &str, done: &Imported) -> Value {
    let mut line = json!({"status": status});
    if let (Some(line), Value::Object(counts)) = (line.as_object_mut(), json!(done)) {
        line.extend(counts);
    }
    line
}

struct Import {
    memory: Memory,
    format: Format,
    drafts: Vec<(u64, Draft)>,
    own: Vec<(u64, Value)>,
    bytes: usize,
    done: Imported,
}

impl Import {
    fn new(memory: Memory, format: Format) -> Self {
        Self { memory, format, drafts: Vec::new(), own: Vec::new(), bytes: 0, done: Imported::default() }
    }

    /// Reads the body to its end.
    async fn run(
        mut self,
        mut body: BodyDataStream,
        patience: Duration,
        pump: Option<&Pump>,
    ) -> Result<Imported, ApiError> {
        let mut splitter = Splitter::new(MAX_OBJECT);
        let mut told = Instant::now();
        loop {
            let chunk =
                tokio::time::timeout(patience, body.next()).await.map_err(|_| self.too_slow(patience))?;
            let over = chunk.is_none();
            match chunk {
                None => splitter.end(),
                Some(Ok(bytes)) => splitter.feed(&bytes),
                Some(Err(error)) => return Err(self.broke_off(&error)),
            }
            while let Some(piece) = splitter.next() {
                if let Err(error) = self.take(piece).await {
                    body::drain(axum::body::Body::from_stream(body)).await;
                    return Err(self.failed(error));
                }
            }
            if over {
                let rest = self.flush().await;
                return rest.map_err(|error| self.failed(error)).map(|()| self.done);
            }
            if let Some(pump) = pump.filter(|_| told.elapsed() >= EVERY) {
                told = Instant::now();
                self.tell(pump).await.map_err(|Gone| {
                    ApiError::new(StatusCode::REQUEST_TIMEOUT, "the client went away").code("client_gone")
                })?;
            }
        }
    }

    async fn tell(&self, pump: &Pump) -> Result<(), Gone> {
        let done = &self.done;
        let counts = json!({"status": "importing", "read": done.read, "added": done.added,
            "duplicates": done.duplicates, "refused": done.refused});
        pump.send(&counts).await
    }

    async fn take(&mut self, piece: Piece) -> Result<(), MemoryError> {
        self.done.read += 1;
        let object = match piece.bytes {
            Ok(bytes) => {
                self.bytes += bytes.len();
                formats::read(&bytes, self.format)
            }
            Err(reason) => Err(reason.to_owned()),
        };
        match object {
            Err(reason) => self.refuse(piece.line, reason),
            Ok(Object::Own(value)) => {
                // A line may depend on one before it, so that the order is kept.
                if !self.drafts.is_empty() {
                    self.flush().await?;
                }
                self.own.push((piece.line, value));
            }
            Ok(Object::Drafts(drafts)) => {
                if !self.own.is_empty() {
                    self.flush().await?;
                }
                for draft in drafts {
                    self.drafts.push((piece.line, draft));
                    if self.drafts.len() >= BATCH {
                        self.flush().await?;
                    }
                }
            }
        }
        if self.own.len() >= BATCH || self.bytes >= BATCH_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), MemoryError> {
        self.bytes = 0;
        let (lines, drafts): (Vec<_>, Vec<_>) = std::mem::take(&mut self.drafts).into_iter().unzip();
        if !drafts.is_empty() {
            let memory = &self.memory;
            let outcome = patiently(|| memory.remember_all(drafts.clone())).await?;
            for (line, result) in lines.into_iter().zip(outcome) {
                match result {
                    Ok(written) => self.count(&written),
                    Err(error) => self.refuse(line, words(error)),
                }
            }
        }
        let (lines, own): (Vec<_>, Vec<_>) = std::mem::take(&mut self.own).into_iter().unzip();
        if !own.is_empty() {
            let memory = &self.memory;
            let outcome = patiently(|| memory.restore(own.clone())).await?;
            for (line, result) in lines.into_iter().zip(outcome) {
                match result {
                    Ok(true) => self.done.added += 1,
                    Ok(false) => self.done.duplicates += 1,
                    Err(error) => self.refuse(line, words(error)),
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, written: &Remembered) {
        if written.duplicate_of.is_some() {
            self.done.duplicates += 1;
        } else {
            self.done.added += 1;
        }
        for redaction in &written.redactions {
            match self.done.redactions.iter_mut().find(|known| known.kind == redaction.kind) {
                Some(known) => known.count += redaction.count,
                None => self.done.redactions.push(Redaction::clone(redaction)),
            }
        }
    }

    fn refuse(&mut self, line: u64, reason: String) {
        self.done.refused += 1;
        if self.done.errors.len() < ERRORS {
            self.done.errors.push(ImportError { line, reason });
        }
    }

    /// An import that breaks off says what it has done: sending it again is safe, what is there is not written
    /// twice.
    fn failed(&self, error: MemoryError) -> ApiError {
        self.after(ApiError::from(error))
    }

    fn after(&self, mut error: ApiError) -> ApiError {
        let done = &self.done;
        error.message = format!(
            "{}; before that {} of {} objects were written; importing again is safe, nothing is written twice",
            error.message, done.added, done.read
        );
        error
    }

    fn too_slow(&self, patience: Duration) -> ApiError {
        let message = format!("nothing of the import came for {}", format_duration(patience));
        self.after(ApiError::new(StatusCode::REQUEST_TIMEOUT, message).code("request_timeout"))
    }

    fn broke_off(&self, error: &axum::Error) -> ApiError {
        self.after(ApiError::new(StatusCode::BAD_REQUEST, format!("the import broke off: {error}")))
    }
}

/// Asks again while the memory is busy: an import gives way to whoever writes one record.
async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, MemoryError>
where
    F: Future<Output = Result<T, MemoryError>>,
{
    for _ in 1..TRIES {
        match ask().await {
            Err(MemoryError::Busy) => tokio::time::sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
    ask().await
}
