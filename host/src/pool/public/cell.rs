//! Cells: a stream in pieces of one size, so that whoever carries it sees how many there are and nothing else.
//!
//! Every cell is [`CELL`] bytes: a kind (1 byte), the length of its data (2 bytes, big endian), the data, zeros up
//! to the end, sealed with ChaCha20-Poly1305 (RFC 8439). Each direction has a key of its own and counts its cells
//! in the nonce, which is never sent: a cell that was changed, left out, repeated or moved does not open, and ends
//! the stream with a [`CellError`]. The end of a stream is a cell too, so that it cannot be cut short unnoticed.
//!
//! Writes fill cells; [`AsyncWriteExt::flush`](tokio::io::AsyncWriteExt::flush) sends one that is not full.
//! [`paced`] sends at most one cell per tick, so that the time at which a token was computed does not show.

mod pace;
mod seal;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::{Zeroize, Zeroizing};

pub use pace::{Paced, paced};
use seal::{Half, Kind};

/// Bytes of a cell on the wire.
pub const CELL: usize = 1_024;
/// Bytes of the authenticator at the end of a cell.
const TAG: usize = 16;
/// Bytes of kind and length at its beginning.
const HEAD: usize = 3;
/// The most bytes of data in one cell.
pub const DATA: usize = CELL - TAG - HEAD;
/// The tick of a paced stream, unless it is told otherwise.
pub const TICK: Duration = Duration::from_millis(20);
/// Cells read or written at once.
const BATCH: usize = 16;

/// Why a stream of cells ended before its end. Cells count from zero in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CellError {
    /// It does not open: it was changed, repeated or moved, or one before it is missing.
    #[error(
        "cell {cell} was changed, repeated, moved or follows a missing one; whoever carries the stream tampers with it"
    )]
    Altered {
        /// Which cell was expected.
        cell: u64,
    },
    /// It opens, but is not what a cell holds: the other side breaks the protocol.
    #[error("cell {cell} is sealed correctly but holds no valid content; the other side breaks the protocol")]
    Malformed {
        /// Which cell.
        cell: u64,
    },
    /// The stream ended without its last cell.
    #[error("the stream was cut off before cell {cell}")]
    Truncated {
        /// Which cell was expected.
        cell: u64,
    },
}

impl From<CellError> for io::Error {
    fn from(error: CellError) -> Self {
        let kind = match error {
            CellError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// The reason inside an error of a stream of cells; `None` where the stream below broke.
pub fn reason(error: &io::Error) -> Option<CellError> {
    error.get_ref()?.downcast_ref().copied()
}

/// The two keys of a stream, 32 bytes each, forgotten after use.
pub struct Keys {
    /// For the cells this side sends.
    pub send: Zeroizing<[u8; 32]>,
    /// For the cells the other side sends.
    pub receive: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// What has arrived: first opened data, then cells still sealed.
struct Arrived {
    bytes: Zeroizing<Vec<u8>>,
    /// Data not yet handed out.
    plain: Range<usize>,
    /// Bytes not yet opened.
    sealed: Range<usize>,
}

/// What is to be sent: data of the cell being filled, and sealed cells not yet written.
struct Leaving {
    plain: Zeroizing<Vec<u8>>,
    sealed: Vec<u8>,
    written: usize,
    ended: bool,
}

/// A stream of cells over another stream. Dropping it drops the one below; shutting it down sends the last cell.
pub struct Cells<S> {
    inner: S,
    send: Half,
    receive: Half,
    arrived: Arrived,
    leaving: Leaving,
    failed: Option<CellError>,
    ended: bool,
}

impl<S> Cells<S> {
    /// Cells over `inner`, each direction from its first cell on. Keys must never be used for two streams.
    pub fn new(inner: S, keys: &Keys) -> Self {
        Self {
            inner,
            send: Half::new(&keys.send),
            receive: Half::new(&keys.receive),
            arrived: Arrived { bytes: Zeroizing::new(vec![0; BATCH * CELL]), plain: 0..0, sealed: 0..0 },
            leaving: Leaving {
                plain: Zeroizing::new(Vec::with_capacity(DATA)),
                sealed: Vec::with_capacity(BATCH * CELL),
                written: 0,
                ended: false,
            },
            failed: None,
            ended: false,
        }
    }

    fn fail<T>(&mut self, error: CellError) -> io::Result<T> {
        self.failed = Some(error);
        self.arrived.plain = 0..0;
        self.arrived.bytes.zeroize();
        Err(error.into())
    }

    /// Opens the next cell that has arrived whole; whether there was one.
    fn open_next(&mut self) -> io::Result<bool> {
        let at = self.arrived.sealed.start;
        if self.arrived.sealed.len() < CELL {
            return Ok(false);
        }
        let number = self.receive.next();
        let Some(cell) = self.arrived.bytes.get_mut(at..at + CELL) else { return Ok(false) };
        let (kind, length) = match self.receive.open(cell) {
            Ok(opened) => opened,
            Err(error) => return self.fail(error),
        };
        self.arrived.sealed.start = at + CELL;
        self.arrived.plain = at + HEAD..at + HEAD + length;
        match kind {
            Kind::Data if length == 0 => self.fail(CellError::Malformed { cell: number }),
            Kind::Data => Ok(true),
            Kind::End => {
                self.ended = true;
                Ok(true)
            }
        }
    }

    /// Seals what is waiting in the cell being filled.
    fn seal_waiting(&mut self, kind: Kind) -> io::Result<()> {
        self.send.seal(kind, &self.leaving.plain, &mut self.leaving.sealed)?;
        self.leaving.plain.zeroize();
        Ok(())
    }
}

impl<S: AsyncWrite + Unpin> Cells<S> {
    /// Writes what is sealed.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let leaving = &mut self.leaving;
        while let Some(rest) = leaving.sealed.get(leaving.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => leaving.written += n,
            }
        }
        leaving.sealed.clear();
        leaving.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cells<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(error) = this.failed {
            return Poll::Ready(Err(error.into()));
        }
        loop {
            let arrived = &mut this.arrived;
            if !arrived.plain.is_empty() {
                let n = arrived.plain.len().min(buf.remaining());
                let part = arrived.plain.start..arrived.plain.start + n;
                if let Some(bytes) = arrived.bytes.get_mut(part) {
                    buf.put_slice(bytes);
                    bytes.zeroize();
                }
                arrived.plain.start += n;
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            if this.open_next()? {
                continue;
            }
            let arrived = &mut this.arrived;
            let kept = arrived.sealed.len();
            arrived.bytes.copy_within(arrived.sealed.clone(), 0);
            arrived.sealed = 0..kept;
            let mut room = ReadBuf::new(arrived.bytes.get_mut(kept..).unwrap_or_default());
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut room))?;
            let read = room.filled().len();
            if read == 0 {
                let cell = this.receive.next();
                return Poll::Ready(this.fail(CellError::Truncated { cell }));
            }
            arrived.sealed.end += read;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cells<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.leaving.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.leaving.sealed.len() >= BATCH * CELL {
            ready!(this.poll_drain(cx))?;
        }
        let mut taken = 0;
        while this.leaving.sealed.len() < BATCH * CELL {
            let rest = bytes.get(taken..).unwrap_or_default();
            let n = rest.len().min(DATA - this.leaving.plain.len());
            if n == 0 {
                break;
            }
            this.leaving.plain.extend_from_slice(rest.get(..n).unwrap_or_default());
            taken += n;
            if this.leaving.plain.len() == DATA {
                this.seal_waiting(Kind::Data)?;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.leaving.plain.is_empty() {
            this.seal_waiting(Kind::Data)?;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.leaving.ended {
            this.seal_waiting(Kind::End)?;
            this.leaving.ended = true;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for Cells<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Cells");
        f.field("sent", &self.send.next()).field("received", &self.receive.next());
        f.field("failed", &self.failed).finish_non_exhaustive()
    }
}
