//! Streamed bodies: lines that a task writes into a bounded channel, and that a client reads.
//!
//! The task ends, and with it the answer it drives, when the client is gone or takes nothing for longer
//! than the configured time.

use std::{convert::Infallible, future::Future, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

/// Lines that may wait for a slow client.
const WAITING: usize = 16;

/// The client is gone, or too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// How a value becomes bytes of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `data: …` and an empty line.
    Sse,
    /// One line.
    Ndjson,
}

/// Where the task writes.
#[derive(Clone, Debug)]
pub struct Pump {
    sender: mpsc::Sender<Result<Bytes, Infallible>>,
    framing: Framing,
    patience: Duration,
}

impl Pump {
    /// Writes one value.
    ///
    /// # Errors
    /// [`Gone`]
    pub async fn send(&self, value: &Value) -> Result<(), Gone> {
        self.write(match self.framing {
            Framing::Sse => format!("data: {value}\n\n"),
            Framing::Ndjson => format!("{value}\n"),
        })
        .await
    }

    /// Writes OpenAI's end mark.
    ///
    /// # Errors
    /// [`Gone`]
    pub async fn done(&self) -> Result<(), Gone> {
        self.write("data: [DONE]\n\n".into()).await
    }

    async fn write(&self, text: String) -> Result<(), Gone> {
        self.sender.send_timeout(Ok(Bytes::from(text)), self.patience).await.map_err(|_| Gone)
    }

    /// Waits until the client is gone.
    pub async fn gone(&self) {
        self.sender.closed().await;
    }
}

/// A response whose body `work` writes. When the client goes away `work` is dropped.
pub fn stream<W, F>(framing: Framing, patience: Duration, work: W) -> Response
where
    W: FnOnce(Pump) -> F,
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(WAITING);
    let pump = Pump { sender, framing, patience };
    let watch = pump.clone();
    let work = work(pump);
    tokio::spawn(async move {
        tokio::select! {
            () = watch.gone() => tracing::debug!("the client went away"),
            outcome = work => if outcome.is_err() {
                tracing::debug!("the client went away or took nothing for too long");
            },
        }
    });
    let body = Body::from_stream(futures::stream::poll_fn(move |context| receiver.poll_recv(context)));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let kind = match framing {
        Framing::Sse => "text/event-stream; charset=utf-8",
        Framing::Ndjson => "application/x-ndjson",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
