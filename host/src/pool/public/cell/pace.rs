//! Pacing: at most one cell per tick, on a grid that begins with the stream.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
        duplex, split,
    },
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use zeroize::Zeroizing;

use super::{Cells, DATA};

/// Bytes that may wait for their tick; whoever writes more waits.
const WAITING: usize = 16 * DATA;

/// A stream of cells whose sending side is paced. What is written leaves by itself, with the next tick: a flush
/// waits for nothing. Shutting down waits until the last cell has left; dropping drops what waits.
pub struct Paced<S> {
    read: ReadHalf<Cells<S>>,
    write: DuplexStream,
    sender: JoinHandle<io::Result<()>>,
    /// What became of the sender, once it is known.
    sent: Option<Result<(), io::ErrorKind>>,
}

/// Paces what is sent over `cells`: at most one cell per `tick`. Needs a running tokio runtime.
pub fn paced<S>(cells: Cells<S>, tick: Duration) -> Paced<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (read, out) = split(cells);
    let (write, waiting) = duplex(WAITING);
    let sender = tokio::spawn(send(waiting, out, tick.max(Duration::from_millis(1))));
    Paced { read, write, sender, sent: None }
}

async fn send<S>(mut waiting: DuplexStream, mut out: WriteHalf<Cells<S>>, tick: Duration) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let began = Instant::now();
    let mut data = Zeroizing::new(vec![0; DATA]);
    let mut next: u32 = 1;
    loop {
        let first = waiting.read(&mut data).await?;
        let now = began.elapsed().as_nanos().div_ceil(tick.as_nanos());
        next = next.max(u32::try_from(now).unwrap_or(u32::MAX));
        sleep_until(began + tick * next).await;
        next = next.saturating_add(1);
        if first == 0 {
            return out.shutdown().await;
        }
        let mut have = first;
        // Whatever was written until the tick goes with it, as far as the cell holds it.
        while let Some(room) = data.get_mut(have..).filter(|room| !room.is_empty()) {
            match waiting.read(room).now_or_never() {
                Some(Ok(n)) if n > 0 => have += n,
                _ => break,
            }
        }
        out.write_all(data.get(..have).unwrap_or_default()).await?;
        out.flush().await?;
    }
}

impl<S> Paced<S> {
    /// What became of the sender.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sent.is_none() {
            let sent = ready!(self.sender.poll_unpin(cx)).unwrap_or(Err(io::ErrorKind::Other.into()));
            self.sent = Some(sent.map_err(|error| error.kind()));
        }
        Poll::Ready(self.sent.unwrap_or(Ok(())).map_err(io::Error::from))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.write).poll_write(cx, bytes)) {
            Ok(n) => Poll::Ready(Ok(n)),
            // The sender has ended, and says why.
            Err(error) => {
                ready!(self.poll_sent(cx))?;
                Poll::Ready(Err(error))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.write).poll_shutdown(cx))?;
        self.poll_sent(cx)
    }
}

impl<S> Drop for Paced<S> {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

impl<S> fmt::Debug for Paced<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced").field("sent", &self.sent).finish_non_exhaustive()
    }
}
