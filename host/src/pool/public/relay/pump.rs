//! One circuit as the relay sees it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    CREDIT, Place, Room, TOLLS,
    frame::{CONTROL, Control, DATA, FRAME, Reason},
    toll::{Bucket, Budget, Meter},
};
use crate::{
    identity::NodeId,
    mesh::streams::Stream,
    pool::public::{cell::CELL, seal::SEALED},
};

/// Frames read at once.
const BATCH: usize = 16;
/// The longest a requester is given to hear why its circuit ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves one stream of a requester until it ends.
pub(super) async fn serve(room: Arc<Room>, peer: NodeId, stream: Stream) {
    let (reader, writer) = split(stream);
    let mut back = Outlet::new(writer);
    let ended = match open(&room, peer, reader, &mut back).await {
        Ok(opened) => {
            room.opened.fetch_add(1, Ordering::Relaxed);
            let ended = opened.run(&room, &mut back).await;
            if ended == Err(Reason::Unpaid) {
                room.unpaid.fetch_add(1, Ordering::Relaxed);
            }
            ended
        }
        Err(reason) => {
            room.refused.fetch_add(1, Ordering::Relaxed);
            Err(reason)
        }
    };
    if let Err(reason) = ended {
        tracing::debug!(%peer, %reason, "circuit ended");
        let _ = timeout(FAREWELL, back.close(&Control::Closed { reason })).await;
    }
}

/// A circuit that stands.
struct Opened {
    reader: ReadHalf<Stream>,
    onward: Stream,
    meter: Meter,
    _place: Place,
}

async fn open(
    room: &Arc<Room>,
    peer: NodeId,
    mut reader: ReadHalf<Stream>,
    back: &mut Outlet,
) -> Result<Opened, Reason> {
    let patience = room.limits.opening;
    let mut frame = [0; FRAME];
    let read = timeout(patience, reader.read_exact(&mut frame)).await;
    read.map_err(|_| Reason::Idle)?.map_err(|_| Reason::Malformed)?;
    let control = frame.split_first().filter(|(kind, _)| **kind == CONTROL);
    let Some(Control::Open { provider, toll }) = control.and_then(|(_, rest)| Control::parse(rest)) else {
        return Err(Reason::Malformed);
    };
    let place = room.admit(peer)?;
    let onward = timeout(patience, room.streams.open(provider, SEALED)).await;
    let onward = onward.map_err(|_| Reason::Unreachable)?.map_err(|_| Reason::Unreachable)?;
    // Only now: nobody pays for a provider that is not there.
    let budget = timeout(patience, room.tolls.take(&toll)).await;
    let budget = budget.unwrap_or_else(|_| Err("it could not be checked in time".into()));
    let cells = budget.map_err(Reason::toll)?.cells;
    back.push(&Control::Opened { cells }).and(back.drain().await).map_err(|_| Reason::Gone)?;
    Ok(Opened { reader, onward, meter: Meter::new(cells), _place: place })
}

/// What both directions of a circuit share.
struct Shared<'a> {
    room: &'a Room,
    meter: &'a Meter,
    bucket: Bucket,
    began: Instant,
    /// When something last went either way, in milliseconds after the beginning.
    moved: AtomicU64,
}

impl Shared<'_> {
    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits until some of so many cells are paid for, and takes those. Cancel-safe.
    async fn paid(&self, cells: usize, credit: u64) -> Result<u64, Reason> {
        let cells = u64::try_from(cells).unwrap_or(u64::MAX);
        self.meter.spend(cells, credit, self.room.limits.unpaid).await
    }

    /// Waits until so many cells may pass.
    async fn pass(&self, cells: u64) -> usize {
        let few = u32::try_from(cells).unwrap_or(u32::MAX);
        self.bucket.take(few).await;
        self.room.bucket.take(few).await;
        self.room.cells.fetch_add(cells, Ordering::Relaxed);
        usize::try_from(cells).unwrap_or(usize::MAX)
    }

    fn touch(&self) {
        self.moved.store(self.elapsed(), Ordering::Relaxed);
    }

    async fn silence(&self) -> Reason {
        let idle = u64::try_from(self.room.limits.idle.as_millis()).unwrap_or(u64::MAX);
        loop {
            let since = self.elapsed().saturating_sub(self.moved.load(Ordering::Relaxed));
            if since >= idle {
                return Reason::Idle;
            }
            sleep(Duration::from_millis(idle - since)).await;
        }
    }
}

impl Opened {
    async fn run(self, room: &Room, back: &mut Outlet) -> Result<(), Reason> {
        let Self { reader, onward, meter, _place } = self;
        let (onward_reader, onward_writer) = split(onward);
        let bucket = Bucket::new(room.limits.circuit_rate);
        let shared = Shared { room, meter: &meter, bucket, began: Instant::now(), moved: AtomicU64::new(0) };
        let (paying, tolls) = mpsc::channel(TOLLS);
        let (answers, answered) = mpsc::channel(TOLLS);
        let copying = async {
            tokio::try_join!(
                up(&shared, reader, Outlet::new(onward_writer), paying),
                down(&shared, onward_reader, back, answered),
                take(&shared, tolls, answers),
            )
        };
        tokio::select! {
            copied = copying => copied.map(|_| ()),
            reason = shared.silence() => Err(reason),
        }
    }
}

/// Requester to provider; tolls go aside.
///
/// A requester that is gone must be noticed by the provider whatever it does just then, so its stream is dropped
/// with the circuit. One that has finished is not shut down towards the provider: the last cell says that inside the
/// seal, and a TCP connection's streams no longer tell a writer of their end once they are half closed.
async fn up(
    shared: &Shared<'_>,
    mut from: ReadHalf<Stream>,
    mut to: Outlet,
    paying: mpsc::Sender<Vec<u8>>,
) -> Result<(), Reason> {
    let (mut frames, mut finished) = (Pieces::<FRAME>::new(), false);
    while frames.fill(&mut from).await.map_err(|_| Reason::Gone)? {
        shared.touch();
        let mut cells = 0;
        while let Some((kind, rest)) = frames.next().and_then(|frame| frame.split_first()) {
            match *kind {
                _ if finished => return Err(Reason::Malformed),
                DATA => {
                    to.pending.extend_from_slice(rest);
                    cells += 1;
                }
                CONTROL => match Control::parse(rest) {
                    Some(Control::Toll { toll }) => {
                        paying.try_send(toll).map_err(|_| Reason::Malformed)?;
                    }
                    Some(Control::Finished) => finished = true,
                    _ => return Err(Reason::Malformed),
                },
                _ => return Err(Reason::Malformed),
            }
        }
        while cells > 0 {
            let paid = shared.paid(cells, CREDIT).await?;
            cells = cells.saturating_sub(shared.pass(paid).await);
        }
        to.drain().await.map_err(|_| Reason::Gone)?;
    }
    if finished { Ok(()) } else { Err(Reason::Gone) }
}

/// Provider to requester, and what the relay itself has to say.
async fn down(
    shared: &Shared<'_>,
    mut from: ReadHalf<Stream>,
    to: &mut Outlet,
    mut answers: mpsc::Receiver<Control>,
) -> Result<(), Reason> {
    let mut cells = Pieces::<CELL>::new();
    loop {
        tokio::select! {
            biased;
            Some(answer) = answers.recv() => to.push(&answer).map_err(|_| Reason::Gone)?,
            paid = shared.paid(cells.whole(), 0), if cells.whole() > 0 => {
                for _ in 0..shared.pass(paid?).await {
                    let Some(cell) = cells.next() else { break };
                    to.pending.push(DATA);
                    to.pending.extend_from_slice(cell);
                }
            }
            more = cells.fill(&mut from), if cells.whole() == 0 => {
                if !more.map_err(|_| Reason::Gone)? {
                    break;
                }
                shared.touch();
            }
        }
        to.drain().await.map_err(|_| Reason::Gone)?;
    }
    // Answers to tolls may still be under way, but there is nothing left to pay for.
    to.writer.shutdown().await.map_err(|_| Reason::Gone)
}

/// Takes tolls while the cells go on.
async fn take(
    shared: &Shared<'_>,
    mut tolls: mpsc::Receiver<Vec<u8>>,
    answers: mpsc::Sender<Control>,
) -> Result<(), Reason> {
    while let Some(toll) = tolls.recv().await {
        let Budget { cells } = shared.room.tolls.take(&toll).await.map_err(Reason::toll)?;
        shared.meter.add(cells);
        shared.touch();
        // Without a listener the other direction has ended.
        let _ = answers.send(Control::Paid { cells }).await;
    }
    Ok(())
}

/// Pieces of `N` bytes out of a stream. Filling is cancel-safe.
struct Pieces<const N: usize> {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl<const N: usize> Pieces<N> {
    fn new() -> Self {
        Self { bytes: vec![0; BATCH * N], start: 0, end: 0 }
    }

    /// How many whole pieces are there.
    fn whole(&self) -> usize {
        (self.end - self.start) / N
    }

    /// The next whole piece.
    fn next(&mut self) -> Option<&[u8]> {
        let end = self.start + N;
        if end > self.end {
            return None;
        }
        let piece = self.bytes.get(self.start..end);
        self.start = end;
        piece
    }

    /// Reads what is there; `false` at the end of the stream, which must be the end of a piece. All whole pieces
    /// must have been taken.
    async fn fill(&mut self, from: &mut ReadHalf<Stream>) -> io::Result<bool> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let room = self.bytes.get_mut(self.end..).unwrap_or_default();
        match from.read(room).await? {
            0 if self.end == 0 => Ok(false),
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.end += n;
                Ok(true)
            }
        }
    }
}

/// What is to be written, whole pieces only: also when writing is given up half-way, the rest of a piece is still
/// there to be written.
struct Outlet {
    writer: WriteHalf<Stream>,
    pending: Vec<u8>,
    written: usize,
}

impl Outlet {
    fn new(writer: WriteHalf<Stream>) -> Self {
        Self { writer, pending: Vec::with_capacity(BATCH * FRAME), written: 0 }
    }

    fn push(&mut self, control: &Control) -> io::Result<()> {
        control.frame(&mut self.pending)
    }

    async fn drain(&mut self) -> io::Result<()> {
        while let Some(rest) = self.pending.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.writer.write(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => self.written += n,
            }
        }
        self.pending.clear();
        self.written = 0;
        self.writer.flush().await
    }

    /// Says a last thing.
    async fn close(&mut self, last: &Control) -> io::Result<()> {
        self.push(last)?;
        self.drain().await?;
        self.writer.shutdown().await
    }
}
