//! Streams between machines, as the rest of the node sees them.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_util::sync::DropGuard;

use crate::identity::NodeId;

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Both directions of a stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A stream with one other machine: encrypted, ordered, with flow control. Dropping it resets it; shutting its
/// writing half down says that no more will come.
pub type Stream = Box<dyn Duplex>;

/// A stream that another machine opened.
pub struct Inbound {
    /// Who opened it: the key that its connection was authenticated with.
    pub peer: NodeId,
    /// The stream.
    pub stream: Stream,
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Streams of one protocol that others opened. A full queue refuses further ones.
pub type Incoming = mpsc::Receiver<Inbound>;

/// Why no stream could be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no connection, and none could be made.
    #[error("{peer} cannot be reached: {reason}")]
    Unreachable {
        /// The machine.
        peer: NodeId,
        /// What was tried and what came of it.
        reason: String,
    },
    /// The other side does not speak the protocol, or not with us.
    #[error("{peer} does not take {protocol}")]
    Refused {
        /// The machine.
        peer: NodeId,
        /// The protocol.
        protocol: &'static str,
    },
    /// The mesh has ended.
    #[error("the mesh is shutting down")]
    Closed,
}

/// Opens streams with other machines.
pub trait Streams: Send + Sync + fmt::Debug {
    /// A stream of a protocol; connects first where there is no connection.
    ///
    /// # Errors
    /// Any [`OpenError`].
    fn open(&self, peer: NodeId, protocol: &'static str) -> BoxFuture<'_, Result<Stream, OpenError>>;
}

/// A stream, and what ends with it.
struct Guarded {
    stream: Stream,
    _guard: DropGuard,
}

/// A stream that cancels something when it is dropped.
pub(crate) fn guarded(stream: Stream, guard: DropGuard) -> Stream {
    Box::new(Guarded { stream, _guard: guard })
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
