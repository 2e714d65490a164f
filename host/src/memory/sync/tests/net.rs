//! Streams in memory: links that delay and break.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    sync::mpsc,
    time::Instant,
};

use crate::{
    identity::NodeId,
    mesh::streams::{BoxFuture, Inbound, Incoming, OpenError, Stream, Streams},
};

#[derive(Debug, Default)]
struct Inner {
    queues: BTreeMap<NodeId, mpsc::Sender<Inbound>>,
    /// Pairs that do not reach each other.
    cut: Vec<(NodeId, NodeId)>,
    pumps: Vec<(NodeId, NodeId, Vec<tokio::task::AbortHandle>)>,
    delay: Duration,
    opened: u64,
}

/// All links.
#[derive(Clone, Debug, Default)]
pub(in crate::memory) struct Net(Arc<Mutex<Inner>>);

/// The net as one machine sees it.
#[derive(Debug)]
pub(in crate::memory) struct Side {
    net: Net,
    me: NodeId,
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    if a < b { (a, b) } else { (b, a) }
}

impl Net {
    pub(in crate::memory) fn delay(&self, delay: Duration) {
        self.0.lock().unwrap().delay = delay;
    }

    pub(in crate::memory) fn join(&self, me: NodeId) -> (Arc<dyn Streams>, Incoming) {
        let (send, receive) = mpsc::channel(16);
        self.0.lock().unwrap().queues.insert(me, send);
        (Arc::new(Side { net: self.clone(), me }), receive)
    }

    pub(in crate::memory) fn opened(&self) -> u64 {
        self.0.lock().unwrap().opened
    }

    pub(in crate::memory) fn cut(&self, a: NodeId, b: NodeId) {
        let mut inner = self.0.lock().unwrap();
        inner.cut.push(pair(a, b));
        inner.pumps.retain(|(x, y, pumps)| {
            let keep = pair(*x, *y) != pair(a, b);
            if !keep {
                pumps.iter().for_each(tokio::task::AbortHandle::abort);
            }
            keep
        });
    }

    pub(in crate::memory) fn heal(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    /// A stream to a machine, as if `from` had opened it.
    pub(in crate::memory) fn open(&self, from: NodeId, to: NodeId) -> Result<Stream, OpenError> {
        let unreachable = || OpenError::Unreachable { peer: to, reason: "cut".into() };
        let mut inner = self.0.lock().unwrap();
        if inner.cut.contains(&pair(from, to)) {
            return Err(unreachable());
        }
        let queue = inner.queues.get(&to).cloned().ok_or_else(unreachable)?;
        let (near, middle) = duplex(256 << 10);
        let (other, far) = duplex(256 << 10);
        let (near_read, near_write) = split(middle);
        let (far_read, far_write) = split(other);
        let delay = inner.delay;
        let there = tokio::spawn(pump(near_read, far_write, delay)).abort_handle();
        let back = tokio::spawn(pump(far_read, near_write, delay)).abort_handle();
        inner.pumps.push((from, to, vec![there, back]));
        inner.opened += 1;
        queue.try_send(Inbound { peer: from, stream: Box::new(far) }).map_err(|_| unreachable())?;
        Ok(Box::new(near))
    }
}

async fn pump(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
    delay: Duration,
) {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(4_096);
    let reading = async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if send.send((Instant::now() + delay, buffer[..n].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((at, bytes)) = receive.recv().await {
            if !delay.is_zero() {
                tokio::time::sleep_until(at).await;
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

impl Streams for Side {
    fn open(&self, peer: NodeId, _: &'static str) -> BoxFuture<'_, Result<Stream, OpenError>> {
        Box::pin(async move { self.net.open(self.me, peer) })
    }
}
