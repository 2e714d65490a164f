//! One stream with one peer: reading, taking, telling, and writing, each at its own pace.
//!
//! Five loops share a [`Link`]. None waits for the peer but the one that writes, and local writes wait for none of them:
//! they leave news, and who misses news looks everything through.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::{broadcast::error::RecvError, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use super::super::record::NodeId;
use super::{
    Options, audit,
    intake::{Intake, Offence, Sifted},
    link::{Due, Link},
    message::{Audit, Bye, Have, HaveRow, Hello, MAX_FRAME, MAX_HELLO, Message, Ops, VERSION},
    replica::{Replica, ReplicaError},
    runs::{Run, Runs},
    scope::{Membership, Reach},
    status::{Board, PeerState},
};
use crate::mesh::{
    frame::{self, FrameError},
    streams::Stream,
};

/// The most runs in all that a peer may say it has.
const MAX_RUNS: usize = 1 << 18;
/// Frames that wait to be taken.
const WAITING: usize = 2;
/// How often it is written down how far a peer is.
const STATE: Duration = Duration::from_millis(500);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(250);

/// Why a stream ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum End {
    /// The peer closed it.
    #[error("the stream was closed")]
    Closed,
    /// The peer said goodbye.
    #[error("it ended the stream: {0}")]
    Bye(String),
    /// Nothing came, or could be sent, for too long.
    #[error("nothing came through for too long")]
    Stalled,
    /// The stream broke.
    #[error("{0}")]
    Broken(String),
    /// The peer speaks another version.
    #[error(
        "it speaks version {0} of the protocol and this machine speaks {VERSION}: update potluck on both"
    )]
    Version(u16),
    /// The peer broke the rules.
    #[error(transparent)]
    Offence(#[from] Offence),
    /// The peer has no rights to the memory any more.
    #[error("it may not replicate the memory")]
    Barred,
    /// This machine stops.
    #[error("this machine is shutting down")]
    Stopped,
    /// The memory failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => Self::Broken(error.to_string()),
            FrameError::Ended => Self::Broken(error.to_string()),
            FrameError::TooLong { .. } | FrameError::Malformed(_) => {
                Offence::Protocol(error.to_string()).into()
            }
        }
    }
}

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) replica: Arc<dyn Replica>,
    pub(super) membership: Arc<dyn Membership>,
    pub(super) intake: Arc<Intake>,
    pub(super) board: Arc<Board>,
    pub(super) options: Options,
    /// With whom there is a session.
    pub(super) near: watch::Sender<BTreeSet<NodeId>>,
    /// Counts requests for an audit.
    pub(super) audits: watch::Sender<u64>,
    /// Counts changes of members.
    pub(super) changes: watch::Sender<u64>,
    pub(super) stop: watch::Sender<bool>,
}

impl Common {
    /// What a peer may read, and what of our own we may show; `None` if it has no rights to the memory.
    pub(super) fn reaches(&self, peer: NodeId) -> Option<(Reach, Reach)> {
        let grants = self.membership.grants(peer)?;
        if grants.memory.is_empty() {
            return None;
        }
        let own = match self.membership.grants(self.replica.node()) {
            Some(mine) => Reach::writes(&mine.memory),
            None => Reach::All,
        };
        Some((Reach::reads(&grants.memory), own))
    }

    /// What this machine may read.
    fn reads(&self) -> Reach {
        let grants = self.membership.grants(self.replica.node());
        grants.map_or(Reach::All, |grants| Reach::reads(&grants.memory))
    }
}

/// Entries of some frames, checked.
struct Checked {
    /// The number of the last frame.
    number: u64,
    count: u64,
    sifted: Vec<Sifted>,
}

/// One session.
pub(super) struct Session {
    common: Arc<Common>,
    peer: NodeId,
    link: Link,
}

/// Replicates over a stream until it ends.
pub(super) async fn run(common: Arc<Common>, peer: NodeId, mut stream: Stream) -> End {
    let skew = match greet(&common, &mut stream).await {
        Ok(skew) => skew,
        Err(end) => return end,
    };
    let Some((reach, own)) = common.reaches(peer) else { return End::Barred };
    common.board.edit(peer, |status| {
        (status.state, status.skew_ms, status.retry_ms) = (PeerState::CatchingUp, skew, None);
        (status.expected, status.arrived, status.last_error) = (0, 0, None);
    });
    let link = Link::new(common.replica.node(), reach, own, common.options);
    let session = Session { common, peer, link };
    let (reader, writer) = tokio::io::split(stream);
    let (queue, waiting) = mpsc::channel(WAITING);
    let (checked, to_take) = mpsc::channel(1);
    let _near = Nearness::of(&session);
    tokio::select! {
        end = session.read(reader, queue) => end,
        end = session.check(waiting, checked) => end,
        end = session.take(to_take) => end,
        end = session.tell() => end,
        end = session.write(writer) => end,
    }
}

/// Both sides say who they are; how far the peer's clock is ahead.
async fn greet(common: &Common, stream: &mut Stream) -> Result<i64, End> {
    let wall_ms = common.replica.now();
    let greeting = async {
        let hello = Message::Hello(Hello { version: VERSION, wall_ms });
        frame::write(stream, &hello, MAX_HELLO).await?;
        frame::expect::<Message, _>(stream, MAX_HELLO).await
    };
    match timeout(common.options.greeting, greeting).await.map_err(|_| End::Stalled)?? {
        Message::Hello(hello) if hello.version == VERSION => Ok(hello.wall_ms.saturating_sub(wall_ms)),
        Message::Hello(hello) => Err(End::Version(hello.version)),
        _ => Err(Offence::Protocol("it did not greet".into()).into()),
    }
}

/// Says that there is a session with a peer, for as long as it lives.
struct Nearness<'a>(&'a Session);

impl<'a> Nearness<'a> {
    fn of(session: &'a Session) -> Self {
        session.common.near.send_modify(|near| {
            near.insert(session.peer);
        });
        Self(session)
    }
}

impl Drop for Nearness<'_> {
    fn drop(&mut self) {
        self.0.common.near.send_modify(|near| {
            near.remove(&self.0.peer);
        });
    }
}

impl Session {
    /// Reads what the peer says.
    async fn read(&self, mut reader: ReadHalf<Stream>, queue: mpsc::Sender<Ops>) -> End {
        match self.read_all(&mut reader, &queue).await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn read_all(&self, reader: &mut ReadHalf<Stream>, queue: &mpsc::Sender<Ops>) -> Result<End, End> {
        let mut rows: Vec<HaveRow> = Vec::new();
        let mut number = 0_u64;
        loop {
            let next = timeout(self.common.options.idle, frame::read(reader, MAX_FRAME)).await;
            let Some(message) = next.map_err(|_| End::Stalled)?? else { return Ok(End::Closed) };
            match message {
                Message::Hello(_) => return Err(Offence::Protocol("it greeted twice".into()).into()),
                Message::Have(have) => self.have(have, &mut rows)?,
                Message::Ops(ops) => {
                    number += 1;
                    if ops.number != number {
                        return Err(Offence::Protocol("its frames are not in order".into()).into());
                    }
                    // A full queue holds the peer back, and nobody else.
                    queue.send(ops).await.map_err(|_| End::Closed)?;
                }
                Message::Ack(ack) => self.link.acked(&ack, self.catalogue())?,
                Message::Near(near) => self.link.near(near.nodes.into_iter().collect(), self.catalogue()),
                Message::Audit(audit) => self.audit(&audit),
                Message::Bye(bye) => return Ok(End::Bye(bye.reason.chars().take(256).collect())),
            }
        }
    }

    fn catalogue(&self) -> &super::catalogue::Catalogue {
        self.common.replica.catalogue()
    }

    /// The peer says what it has.
    fn have(&self, have: Have, rows: &mut Vec<HaveRow>) -> Result<(), End> {
        rows.extend(have.rows);
        let runs: usize = rows.iter().map(|row| row.runs.iter().count()).sum();
        if rows.len() > super::catalogue::MAX_ORIGINS || runs > MAX_RUNS {
            return Err(Offence::Protocol("it says that it has more than anybody can".into()).into());
        }
        if have.more {
            return Ok(());
        }
        let rows = std::mem::take(rows);
        if !self.link.is_ready() {
            let held = self.catalogue().held();
            let none = Runs::default();
            let expected =
                rows.iter().map(|row| row.runs.minus(held.get(&row.origin).unwrap_or(&none)).len()).sum();
            self.common.board.edit(self.peer, |status| status.expected = expected);
        }
        self.link.have(rows, self.catalogue());
        Ok(())
    }

    /// Compares sums with ours; what differs is looked at more closely, and what is missing is brought.
    fn audit(&self, audit: &Audit) {
        let reach = self.link.reach().and(&self.common.reads());
        let found = audit::compare(self.catalogue(), &audit.rows, &reach);
        for (origin, sequence) in found.forks {
            self.common.board.fork(self.peer, origin, sequence);
        }
        if found.missing {
            self.link.say_have();
        }
        if !found.closer.is_empty() {
            self.link.say(Message::Audit(Audit { rows: found.closer }));
        }
        let now = self.common.replica.now();
        self.common.board.edit(self.peer, |status| status.audited_at = Some(now));
    }

    /// Checks the entries that were read, while those before them are written.
    async fn check(&self, mut waiting: mpsc::Receiver<Ops>, queue: mpsc::Sender<Checked>) -> End {
        while let Some(Ops { mut number, mut entries }) = waiting.recv().await {
            // Many small frames become one write.
            while entries.len() < super::message::MAX_ENTRIES / 2
                && let Ok(next) = waiting.try_recv()
            {
                number = next.number;
                entries.extend(next.entries);
            }
            let count = entries.len() as u64;
            match self.common.intake.sift(entries).await {
                Ok(sifted) => {
                    if queue.send(Checked { number, count, sifted }).await.is_err() {
                        break;
                    }
                }
                Err(offence) => return offence.into(),
            }
        }
        // The reader ends the session.
        std::future::pending().await
    }

    /// Takes the entries that were checked.
    async fn take(&self, mut waiting: mpsc::Receiver<Checked>) -> End {
        while let Some(Checked { number, count, sifted }) = waiting.recv().await {
            // The papers count at this moment, not when the stream was opened.
            if self.common.reaches(self.peer).is_none() {
                return End::Barred;
            }
            if let Err(error) = self.take_batch(sifted).await {
                return error.into();
            }
            self.link.dealt_with(number);
            self.common.board.edit(self.peer, |status| {
                status.received += count;
                status.arrived += count;
            });
        }
        std::future::pending().await
    }

    async fn take_batch(&self, sifted: Vec<Sifted>) -> Result<(), ReplicaError> {
        self.link.mark(sifted.iter().map(|one| (one.origin, Run::one(one.sequence))));
        self.common.intake.take(self.peer, sifted).await?;
        self.common.intake.retry().await?;
        Ok(())
    }

    /// Passes on what happens here: news, the time, changes of members.
    async fn tell(&self) -> End {
        let Common { options, near, audits, changes, stop, .. } = &*self.common;
        let mut news = self.catalogue().news();
        let (mut near, mut audits, mut changes, mut stop) =
            (near.subscribe(), audits.subscribe(), changes.subscribe(), stop.subscribe());
        near.mark_changed();
        let every = |period: Duration| {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut repair, mut audit) = (every(options.repair), every(options.audit));
        self.link.say_have();
        loop {
            tokio::select! {
                found = news.recv() => match found {
                    Ok(found) => self.link.news(&found),
                    Err(RecvError::Lagged(_)) => self.link.missed_news(self.catalogue()),
                    Err(RecvError::Closed) => return End::Replica(ReplicaError::Closed),
                },
                _ = repair.tick() => self.link.say_have(),
                _ = audit.tick() => self.ask_audit(),
                Ok(()) = audits.changed() => self.ask_audit(),
                Ok(()) = near.changed() => {
                    let mut nodes = near.borrow_and_update().clone();
                    nodes.remove(&self.peer);
                    self.link.say_near(nodes.into_iter().take(super::catalogue::MAX_ORIGINS).collect());
                }
                Ok(()) = changes.changed() => match self.common.reaches(self.peer) {
                    None => return End::Barred,
                    Some((reach, own)) => {
                        self.link.regrant(reach, own, self.catalogue());
                        // What we may read may be more, too, and what was refused may be taken now.
                        self.link.say_have();
                    }
                },
                true = stopped(&mut stop) => {
                    self.link.say_bye();
                    tokio::time::sleep(FAREWELL).await;
                    return End::Stopped;
                }
            }
        }
    }

    fn ask_audit(&self) {
        let reach = self.link.reach().and(&self.common.reads());
        for rows in audit::opening(self.catalogue(), &reach) {
            self.link.say(Message::Audit(Audit { rows }));
        }
    }

    /// Writes what is due, and waits when nothing is.
    async fn write(&self, mut writer: WriteHalf<Stream>) -> End {
        match self.write_all(&mut writer).await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn write_all(&self, writer: &mut WriteHalf<Stream>) -> Result<End, End> {
        let mut told = Instant::now();
        loop {
            let message = match self.link.due(self.catalogue()) {
                Due::Say(message) => message,
                Due::SayHave => {
                    let mut frames = Have::frames(self.everything());
                    let last = frames.pop().unwrap_or_default();
                    for frame in frames {
                        self.send(writer, Message::Have(frame)).await?;
                    }
                    Message::Have(last)
                }
                Due::Entries(origin, wanted) => {
                    let (raw, upto) =
                        self.common.replica.read(origin, wanted.clone(), super::message::FULL_FRAME).await?;
                    let count = raw.len() as u64;
                    let Some(ops) = self.link.sending(origin, &wanted, raw, upto) else { continue };
                    self.common.board.edit(self.peer, |status| status.sent += count);
                    Message::Ops(ops)
                }
                Due::Nothing(until) => {
                    if self.link.standing().in_step || told.elapsed() > STATE {
                        self.state();
                        told = Instant::now();
                    }
                    self.link.wait(until.unwrap_or_else(|| Instant::now() + STATE)).await;
                    continue;
                }
            };
            let last = matches!(message, Message::Bye(_));
            self.send(writer, message).await?;
            if last {
                let _ = tokio::io::AsyncWriteExt::shutdown(writer).await;
                return Ok(End::Stopped);
            }
        }
    }

    async fn send(&self, writer: &mut WriteHalf<Stream>, message: Message) -> Result<(), End> {
        let sent = timeout(self.common.options.idle, frame::write(writer, &message, MAX_FRAME)).await;
        Ok(sent.map_err(|_| End::Stalled)??)
    }

    /// What is here, and what is not wanted.
    fn everything(&self) -> BTreeMap<NodeId, Runs> {
        let mut all = self.catalogue().held();
        for (origin, runs) in self.common.intake.settled() {
            all.entry(origin).or_default().merge(&runs);
        }
        all
    }

    /// Writes down how far the peer is behind.
    fn state(&self) {
        let standing = self.link.standing();
        // Counting takes a look at every entry; whoever is in step lacks none.
        let owed = if standing.in_step { 0 } else { self.link.owed(self.catalogue()) };
        self.common.board.edit(self.peer, |status| {
            status.lag_ms = standing.waits_ms;
            status.state = if standing.in_step { PeerState::InStep } else { PeerState::CatchingUp };
            status.lag_ops = standing.in_flight.saturating_add(owed);
        });
    }
}

/// Waits until this machine stops.
async fn stopped(stop: &mut watch::Receiver<bool>) -> bool {
    stop.wait_for(|stop| *stop).await.is_ok()
}

impl Bye {
    /// The farewell of a machine that stops.
    pub(super) fn stopping() -> Self {
        Self { reason: "shutting down".into() }
    }
}
