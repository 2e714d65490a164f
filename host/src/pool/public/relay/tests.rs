//! A relay over pipes, for its rules; over real swarms, for what a requester, a relay and a provider see of each
//! other.

mod crooked;
mod measure;
mod rules;
mod swarms;

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex},
    sync::mpsc,
};

use super::*;
use crate::{
    identity::Signer,
    mesh::streams::{BoxFuture, OpenError, Stream},
    pool::public::{
        cell::CELL,
        seal::{self, SEALED, SealingKey, SealingKeys},
    },
};

/// Answers every sealed stream with what comes in.
fn echo(mut incoming: Incoming, keys: Arc<SealingKeys>) {
    tokio::spawn(async move {
        while let Some(Inbound { stream, .. }) = incoming.recv().await {
            let keys = Arc::clone(&keys);
            tokio::spawn(async move {
                let Ok(stream) = seal::accept(stream, &keys, None).await else { return };
                let (mut from, mut to) = tokio::io::split(stream);
                let mut bytes = vec![0; 64 << 10];
                while let Ok(n @ 1..) = from.read(&mut bytes).await {
                    if to.write_all(&bytes[..n]).await.is_err() || to.flush().await.is_err() {
                        return;
                    }
                }
                let _ = to.shutdown().await;
            });
        }
    });
}

fn node(n: u8) -> NodeId {
    Signer::from_seed([n; 32]).node()
}

fn sealing(provider: NodeId) -> (Arc<SealingKeys>, SealingKey) {
    let keys = SealingKeys::new(provider, Duration::ZERO).unwrap();
    let key = keys.current(Duration::ZERO).unwrap();
    (Arc::new(keys), key)
}

/// What passed a place, each way.
#[derive(Clone, Debug, Default)]
struct Seen {
    read: Arc<Mutex<Vec<u8>>>,
    written: Arc<Mutex<Vec<u8>>>,
}

/// A stream that is listened to.
struct Tapped(Stream, Seen);

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        self.1.read.lock().unwrap().extend(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.0).poll_write(cx, bytes))?;
        self.1.written.lock().unwrap().extend(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The same streams, listened to.
fn tap(mut incoming: Incoming, seen: Seen) -> Incoming {
    let (sender, tapped) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(Inbound { peer, stream }) = incoming.recv().await {
            let stream = Box::new(Tapped(stream, seen.clone()));
            if sender.send(Inbound { peer, stream }).await.is_err() {
                return;
            }
        }
    });
    tapped
}
