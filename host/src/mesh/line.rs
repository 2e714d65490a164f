//! One connection as its streams see it, and the streams themselves.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use crate::identity::NodeId;
use futures::task::AtomicWaker;
use libp2p::swarm::ConnectionId;
use multistream_select::NegotiationError;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    sync::Notify,
};
use tokio_util::{
    compat::{Compat, FuturesAsyncReadCompatExt},
    sync::{CancellationToken, WaitForCancellationFutureOwned},
};

use crate::mesh::{limits, roll::Role};

/// What is known of one connection by everything that runs on it.
pub(crate) struct Line {
    pub(crate) node: NodeId,
    pub(crate) id: ConnectionId,
    pub(crate) role: Role,
    /// When it began.
    pub(crate) since: Instant,
    /// Open streams, those of the pulse not counted.
    streams: AtomicUsize,
    /// When something last arrived, in milliseconds after the beginning.
    heard: AtomicU64,
    /// Ends every stream at once, whatever the transport does.
    pub(crate) cut: CancellationToken,
    /// How many attend to the node.
    attention: Arc<AtomicUsize>,
    /// Wakes the connection's task.
    pub(crate) waker: AtomicWaker,
    /// Asks for a pulse now.
    pub(crate) kick: Notify,
    /// Whether the same node has connected once more, so that this one may be of a process that is gone.
    doubted: AtomicBool,
}

impl Line {
    pub(crate) fn new(node: NodeId, id: ConnectionId, role: Role, attention: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            node,
            id,
            role,
            since: Instant::now(),
            streams: AtomicUsize::new(0),
            heard: AtomicU64::new(0),
            cut: CancellationToken::new(),
            attention,
            waker: AtomicWaker::new(),
            kick: Notify::new(),
            doubted: AtomicBool::new(false),
        })
    }

    /// Streams that are open.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Whether somebody attends to the node.
    pub(crate) fn is_attended(&self) -> bool {
        self.attention.load(Ordering::Relaxed) > 0
    }

    /// Asks for a pulse now, and for less patience with its answer.
    pub(crate) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
        self.kick.notify_one();
    }

    /// Whether it is doubted that this connection lives.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    /// It answered.
    pub(crate) fn trust(&self) {
        self.doubted.store(false, Ordering::Relaxed);
    }

    /// When something last arrived, counted from the beginning of the connection.
    pub(crate) fn heard(&self) -> Duration {
        Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    fn hear(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.fetch_max(now, Ordering::Relaxed);
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({} with {})", self.id, self.node)
    }
}

/// A stream on a connection. Counted as long as it lives, and reset when the connection is cut.
pub(crate) struct Channel {
    /// There until the stream is dropped.
    inner: Option<Compat<libp2p::Stream>>,
    line: Arc<Line>,
    counted: bool,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whether anything has come back, so that the other side has agreed to take the stream.
    agreed: bool,
    shut: bool,
}

impl Channel {
    pub(crate) fn new(stream: libp2p::Stream, line: Arc<Line>, counted: bool) -> Self {
        if counted {
            line.streams.fetch_add(1, Ordering::Relaxed);
        }
        let cut = Box::pin(line.cut.clone().cancelled_owned());
        Self { inner: Some(stream.compat()), line, counted, cut, agreed: false, shut: false }
    }

    /// The stream, unless the connection was cut.
    fn open(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut Compat<libp2p::Stream>>> {
        let cut = self.cut.as_mut().poll(cx).is_ready();
        let inner = self.inner.as_mut().filter(|_| !cut).map(Pin::new);
        inner.ok_or_else(|| io::Error::new(io::ErrorKind::ConnectionReset, "the connection was closed"))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.counted {
            self.line.streams.fetch_sub(1, Ordering::Relaxed);
        }
        // Everything was written, but dropping the stream now would take it back where the other side has not
        // agreed to it yet: wait for that.
        let unagreed = self.shut && !self.agreed && !self.line.cut.is_cancelled();
        let Some(mut stream) = self.inner.take().filter(|_| unagreed) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = tokio::time::timeout(limits::LINGER, stream.read(&mut [0; 1])).await;
            });
        }
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.open(cx)?.poll_read(cx, buf)).map_err(plain)?;
        self.agreed = true;
        if buf.filled().len() > before {
            self.line.hear();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.open(cx)?.poll_write(cx, bytes).map_err(plain)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open(cx)?.poll_flush(cx).map_err(plain)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        self.open(cx)?.poll_shutdown(cx).map_err(plain)
    }
}

/// Says plainly what a stream's first answer means when the other side does not take the protocol: streams to
/// members are used before the answer is in.
fn plain(error: io::Error) -> io::Error {
    let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<NegotiationError>());
    if matches!(refused, Some(NegotiationError::Failed)) {
        io::Error::new(io::ErrorKind::Unsupported, "the other side does not take the protocol")
    } else {
        error
    }
}
