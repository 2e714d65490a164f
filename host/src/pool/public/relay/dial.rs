//! One circuit as the requester sees it.

use std::{
    collections::VecDeque,
    fmt, io,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::watch,
    time::timeout,
};

use super::{
    RELAY, TOLLS,
    frame::{CONTROL, Control, DATA, FRAME, Reason, TOLL_BYTES},
};
use crate::{
    identity::NodeId,
    mesh::streams::{OpenError, Stream, Streams},
    pool::public::cell::CELL,
};

/// The longest a relay may take to open a circuit: it asks the provider, and the issuer of the toll.
const PATIENCE: Duration = Duration::from_secs(25);
/// Frames read or written at once.
const BATCH: usize = 16;
/// Frames read ahead while a writer waits for its toll to be taken and nobody reads.
const AHEAD: usize = 256;

/// Why there is no circuit, or no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// The relay cannot be reached.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The connection with the relay broke.
    #[error("the connection with the relay broke: {0}")]
    Broken(String),
    /// The relay refused the circuit, or closed it.
    #[error("{0}")]
    Closed(#[from] Reason),
    /// The relay said something that does not belong there.
    #[error("the relay broke its protocol; choose another")]
    Malformed,
    /// The relay did not answer.
    #[error("the relay did not answer within {} s; choose another", PATIENCE.as_secs())]
    Late,
    /// A toll too long for a frame, or too many at once.
    #[error("a toll has at most {TOLL_BYTES} bytes, and at most {TOLLS} may be under way")]
    Toll,
}

impl RelayError {
    /// The reason inside an error of a circuit's stream, also below a stream of cells.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<RelayError> for io::Error {
    fn from(error: RelayError) -> Self {
        Self::new(io::ErrorKind::ConnectionAborted, error)
    }
}

/// A circuit: the stream to seal and use, and what is paid for it.
pub struct Circuit {
    /// Carries whole cells, so only what [`seal::open`](crate::pool::public::seal::open) makes of it is of use. Tolls
    /// and their answers travel while it is read or written.
    pub stream: Stream,
    /// What is paid for.
    pub account: Account,
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit").field("account", &self.account).finish_non_exhaustive()
    }
}

/// What is paid for on a circuit. All clones are one.
#[derive(Clone)]
pub struct Account(Arc<Shared>);

struct Shared {
    left: watch::Sender<u64>,
    tolls: Mutex<VecDeque<Vec<u8>>>,
    /// Whoever reads sends the tolls too.
    reader: AtomicWaker,
    /// Whoever writes waits here for a toll to be taken.
    writer: AtomicWaker,
}

impl Account {
    fn new(cells: u64) -> Self {
        Self(Arc::new(Shared {
            left: watch::Sender::new(cells),
            tolls: Mutex::default(),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        }))
    }

    /// Cells left, both ways together. With none left nothing is written until a further toll is taken, and the
    /// relay closes the circuit if none comes.
    pub fn left(&self) -> watch::Receiver<u64> {
        self.0.left.subscribe()
    }

    /// Sends a further toll. What comes of it shows in [`Account::left`], or ends the stream.
    ///
    /// # Errors
    /// [`RelayError::Toll`].
    pub fn pay(&self, toll: Vec<u8>) -> Result<(), RelayError> {
        let mut tolls = self.0.tolls.lock().unwrap_or_else(PoisonError::into_inner);
        if toll.len() > TOLL_BYTES || tolls.len() >= TOLLS {
            return Err(RelayError::Toll);
        }
        tolls.push_back(toll);
        self.0.reader.wake();
        self.0.writer.wake();
        Ok(())
    }

    fn spend(&self) {
        self.0.left.send_modify(|left| *left = left.saturating_sub(1));
    }

    fn paid(&self, cells: u64) {
        self.0.left.send_modify(|left| *left = left.saturating_add(cells));
        self.0.writer.wake();
    }

    fn is_empty(&self) -> bool {
        *self.0.left.borrow() == 0
    }

    fn next_toll(&self) -> Option<Vec<u8>> {
        self.0.tolls.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({} cells)", *self.0.left.borrow())
    }
}

/// Opens a circuit with `provider` through `relay`, paid with a first toll.
///
/// # Errors
/// Any [`RelayError`].
pub async fn dial(
    streams: &dyn Streams,
    relay: NodeId,
    provider: NodeId,
    toll: Vec<u8>,
) -> Result<Circuit, RelayError> {
    if toll.len() > TOLL_BYTES {
        return Err(RelayError::Toll);
    }
    let asking = async {
        let mut stream = streams.open(relay, RELAY).await?;
        let mut frame = Vec::with_capacity(FRAME);
        Control::Open { provider, toll }.frame(&mut frame).map_err(broken)?;
        stream.write_all(&frame).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        stream.read_exact(&mut frame).await.map_err(broken)?;
        Ok::<_, RelayError>((stream, frame))
    };
    let (stream, frame) = timeout(PATIENCE, asking).await.map_err(|_| RelayError::Late)??;
    let control = frame.split_first().filter(|(kind, _)| **kind == CONTROL);
    match control.and_then(|(_, rest)| Control::parse(rest)) {
        Some(Control::Opened { cells }) => {
            let account = Account::new(cells);
            let stream = Box::new(Carried::new(stream, account.clone()));
            Ok(Circuit { stream, account })
        }
        Some(Control::Closed { reason }) => Err(reason.into()),
        _ => Err(RelayError::Malformed),
    }
}

fn broken(error: io::Error) -> RelayError {
    RelayError::Broken(error.to_string())
}

/// Cells in frames.
struct Carried {
    inner: Stream,
    account: Account,
    arrived: Vec<u8>,
    /// The rest of a cell not yet handed out.
    cell: Range<usize>,
    /// Bytes not yet looked at.
    frames: Range<usize>,
    /// The frame being filled.
    filling: Vec<u8>,
    /// Whole frames to be written.
    out: Vec<u8>,
    written: usize,
    /// Whether a toll is among them that must not wait for a flush.
    urgent: bool,
    /// Whoever waits to write, in case a reader writes instead, and the other way round.
    writer: Option<Waker>,
    reader: Option<Waker>,
    failed: Option<RelayError>,
    /// Whether the relay has sent its last frame, and whether this side has.
    ended: bool,
    finished: bool,
}

impl Carried {
    fn new(inner: Stream, account: Account) -> Self {
        Self {
            inner,
            account,
            arrived: vec![0; BATCH * FRAME],
            cell: 0..0,
            frames: 0..0,
            filling: Vec::with_capacity(FRAME),
            out: Vec::with_capacity(BATCH * FRAME),
            written: 0,
            urgent: false,
            writer: None,
            reader: None,
            failed: None,
            ended: false,
            finished: false,
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(toll) = self.account.next_toll().filter(|_| !self.finished) {
            Control::Toll { toll }.frame(&mut self.out)?;
            self.urgent = true;
        }
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.urgent = false;
        Poll::Ready(Ok(()))
    }

    /// Sends tolls while somebody reads. A writer that waits is woken then: the stream below knows only of the last
    /// one that tried.
    fn send_tolls(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.account.0.reader.register(cx.waker());
        let waiting = !self.account.0.tolls.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if !waiting && !self.urgent {
            return Ok(());
        }
        if let Poll::Ready(sent) = self.poll_send(cx) {
            sent?;
            if let Some(writer) = self.writer.take() {
                writer.wake();
            }
        }
        Ok(())
    }

    /// Takes bytes to be sent, up to where they fill what is paid for or a batch.
    fn take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while self.out.len() < BATCH * FRAME {
            let rest = bytes.get(taken..).unwrap_or_default();
            let n = rest.len().min(CELL - self.filling.len());
            if n == 0 {
                break;
            }
            if self.filling.len() + n == CELL {
                self.account.0.writer.register(cx.waker());
                if self.account.is_empty() {
                    break;
                }
                self.account.spend();
            }
            self.filling.extend_from_slice(rest.get(..n).unwrap_or_default());
            taken += n;
            if self.filling.len() == CELL {
                self.out.push(DATA);
                self.out.append(&mut self.filling);
            }
        }
        taken
    }

    /// Reads what is there, behind what is not yet looked at.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = ReadBuf::new(self.arrived.get_mut(self.frames.end..).unwrap_or_default());
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut room))?;
        match room.filled().len() {
            0 if self.frames.len().is_multiple_of(FRAME) => self.ended = true,
            0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            n => self.frames.end += n,
        }
        Poll::Ready(Ok(()))
    }

    /// Sends tolls and looks for their answers, for a writer that has none left and may be the only one that polls.
    fn await_toll(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let sent = self.poll_send(cx);
        loop {
            self.look_for_answers()?;
            if self.frames.end + FRAME > self.arrived.len() && self.arrived.len() < AHEAD * FRAME {
                self.arrived.resize(AHEAD * FRAME, 0);
            }
            let full = self.frames.end >= self.arrived.len();
            if full || self.ended || !self.account.is_empty() {
                break;
            }
            match self.poll_fill(cx) {
                Poll::Ready(filled) => filled?,
                Poll::Pending => break,
            }
        }
        // The stream below wakes only the last one that asked: a reader must ask again.
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        match sent {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }

    /// Takes the answers to tolls out of what is not yet looked at.
    fn look_for_answers(&mut self) -> io::Result<()> {
        let unseen = self.arrived.get_mut(self.frames.clone()).unwrap_or_default();
        for frame in unseen.chunks_exact_mut(FRAME) {
            let control = frame.split_first().filter(|(kind, _)| **kind == CONTROL);
            match control.and_then(|(_, rest)| Control::parse(rest)) {
                Some(Control::Paid { cells }) => self.account.paid(cells),
                Some(Control::Closed { reason }) => return Err(RelayError::from(reason).into()),
                _ => continue,
            }
            // Whoever reads comes across it once more.
            let mut seen = Vec::with_capacity(FRAME);
            Control::Paid { cells: 0 }.frame(&mut seen)?;
            frame.copy_from_slice(&seen);
        }
        Ok(())
    }

    /// Looks at the next whole frame; whether there was one.
    fn next_frame(&mut self) -> Result<bool, RelayError> {
        let at = self.frames.start;
        if self.frames.len() < FRAME {
            return Ok(false);
        }
        let frame = self.arrived.get(at..at + FRAME).and_then(<[u8]>::split_first);
        let (kind, rest) = frame.ok_or(RelayError::Malformed)?;
        self.frames.start = at + FRAME;
        match *kind {
            DATA => {
                self.cell = at + 1..at + FRAME;
                self.account.spend();
            }
            CONTROL => match Control::parse(rest) {
                Some(Control::Paid { cells }) => self.account.paid(cells),
                Some(Control::Closed { reason }) => return Err(reason.into()),
                _ => return Err(RelayError::Malformed),
            },
            _ => return Err(RelayError::Malformed),
        }
        Ok(true)
    }
}

impl AsyncRead for Carried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.cell.is_empty() {
                let n = this.cell.len().min(buf.remaining());
                buf.put_slice(this.arrived.get(this.cell.start..this.cell.start + n).unwrap_or_default());
                this.cell.start += n;
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = &this.failed {
                return Poll::Ready(Err(error.clone().into()));
            }
            match this.next_frame() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    this.failed = Some(error);
                    continue;
                }
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            // What the relay said last is of more use than that it no longer listens.
            let sent = this.send_tolls(cx);
            let kept = this.frames.len();
            this.arrived.copy_within(this.frames.clone(), 0);
            this.frames = 0..kept;
            match this.poll_fill(cx) {
                Poll::Ready(filled) => filled?,
                Poll::Pending => {
                    sent?;
                    this.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }
}

impl AsyncWrite for Carried {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(error) = &this.failed {
            return Poll::Ready(Err(error.clone().into()));
        }
        if this.out.len() >= BATCH * FRAME {
            this.writer = Some(cx.waker().clone());
            ready!(this.poll_drain(cx))?;
        }
        loop {
            let taken = this.take(cx, bytes);
            if taken > 0 || bytes.is_empty() {
                return Poll::Ready(Ok(taken));
            }
            // Nothing more is paid for.
            this.await_toll(cx)?;
            if this.account.is_empty() {
                return Poll::Pending;
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer = Some(cx.waker().clone());
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.writer = Some(cx.waker().clone());
        // A toll must not follow the last frame.
        while let Some(toll) = this.account.next_toll().filter(|_| !this.finished) {
            Control::Toll { toll }.frame(&mut this.out)?;
        }
        if !this.finished {
            Control::Finished.frame(&mut this.out)?;
            this.finished = true;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
