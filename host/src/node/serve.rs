//! Accepting connections, with limits that a slow or greedy client meets.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

use crate::config::HttpSection;

/// Bytes of a request's head, address included.
const HEAD: usize = 64 * 1024;
/// Headers of a request.
const HEADERS: usize = 128;
/// Time connections get to end after the jobs have.
const LINGER: Duration = Duration::from_secs(2);
/// Pause after an accept that failed, e.g. for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    connections: usize,
    head_time: Duration,
}

impl Limits {
    pub(super) fn new(http: &HttpSection) -> Self {
        Self { connections: http.max_connections, head_time: http.client_timeout }
    }
}

/// Serves until `stopped` turns true, then lets connections end.
pub(super) async fn run(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            () = stopping(&mut stopped) => break,
        };
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping(&mut stopped) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, router.clone(), limits, stopped.clone(), slot));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let ended =
        tokio::time::timeout(LINGER, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        connections.shutdown().await;
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
    slot: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stopping(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke off");
    }
    drop(slot);
}

async fn stopping(stopped: &mut watch::Receiver<bool>) {
    // The sender lives as long as the node; when it is gone, so is the node.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
