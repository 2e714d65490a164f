//! One stream: a list, or a file and its blocks.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout},
};

use super::{Shared, quota::Slot};
use crate::{
    blob::{
        Item, Kind,
        source::{Blob, Found},
    },
    identity::NodeId,
    mesh::{
        frame::FrameError,
        protocol::{
            blob::{
                tree,
                wire::{Ask, FailCode, MAX_ASK, MAX_ITEMS, MAX_TELL, MAX_WORDS, PAGE, Tell},
            },
            link::{self, Reader, Writer},
        },
        streams::Stream,
    },
    pool::trusted::Admitted,
};

/// Time for the last words to a side that will not be heard any more.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a session ended.
enum End {
    /// All was said.
    Done,
    /// The other side is told that it gets nothing, or nothing more.
    Refused(FailCode, String),
    /// The other side went away.
    Gone(&'static str),
    /// The other side is no member any more.
    Revoked,
    /// The other side does not keep to the protocol.
    Nonsense(String),
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(_) | FrameError::Ended => Self::Gone("the stream broke"),
            FrameError::TooLong { .. } | FrameError::Malformed(_) => Self::Nonsense(error.to_string()),
        }
    }
}

pub(super) async fn run(shared: Arc<Shared>, peer: NodeId, stream: Stream, slot: Slot) {
    let (reader, mut writer) = link::split(stream, MAX_ASK);
    writer.cap(MAX_TELL);
    let mut watch = Watch { admitted: shared.serving.membership.watch(), stop: shared.stop.subscribe() };
    let mut session = Session { shared: &shared, peer, reader, writer };
    let end = tokio::select! {
        biased;
        end = watch.wait(peer) => end,
        end = session.serve(slot.served) => end.unwrap_or_else(|end| end),
    };
    // The place is free before the other side knows: it may ask again at once.
    drop(slot);
    session.close(end).await;
}

/// What ends a session from outside.
struct Watch {
    admitted: watch::Receiver<Arc<Vec<Admitted>>>,
    stop: watch::Receiver<bool>,
}

impl Watch {
    async fn wait(&mut self, peer: NodeId) -> End {
        tokio::select! {
            // When the pool itself is gone nobody is a member.
            _ = self.admitted.wait_for(|all| !all.iter().any(|member| member.node == peer)) => End::Revoked,
            _ = self.stop.wait_for(|stop| *stop) => {
                End::Refused(FailCode::Stopping, "the node is stopping".into())
            }
        }
    }
}

struct Session<'a> {
    shared: &'a Shared,
    peer: NodeId,
    reader: Reader,
    writer: Writer,
}

/// What a stream is about.
struct Subject {
    kind: Kind,
    item: Item,
    blob: Arc<dyn Blob>,
}

impl Session<'_> {
    async fn serve(&mut self, served: bool) -> Result<End, End> {
        let timers = self.shared.config.timers;
        let first = timeout(timers.silence, self.reader.next::<Ask>()).await;
        let first =
            first.map_err(|_| End::Gone("it asked nothing"))??.ok_or(End::Gone("it asked nothing"))?;
        if !served {
            return Err(End::Refused(FailCode::Busy, "too many copies are under way; later".into()));
        }
        let subject = match first {
            Ask::List { kind } => return self.list(kind).await,
            Ask::Find { kind, name } => self.find(kind, &name).await?,
            Ask::Open { kind, id } => {
                let item = self.shared.named(self.peer, kind, id).await.ok_or_else(|| self.refusal(kind))?;
                self.open(kind, item).await?
            }
            _ => return Err(End::Nonsense("the first message names no file".into())),
        };
        self.say(&Tell::Found { item: subject.item.clone() }).await?;
        loop {
            let next = timeout(timers.idle, self.reader.next::<Ask>()).await;
            match next.map_err(|_| End::Gone("it asks nothing any more"))?? {
                None => return Ok(End::Done),
                Some(Ask::Ping) => {}
                Some(Ask::Hashes { from, count }) => self.hashes(&subject, from, count).await?,
                Some(Ask::Get { index }) => self.block(&subject, index).await?,
                Some(_) => return Err(End::Nonsense("a stream is about one thing".into())),
            }
        }
    }

    /// What is here and not for the asking side is not there for it.
    fn refusal(&self, kind: Kind) -> End {
        if self.shared.grants_any(self.peer, kind) {
            End::Refused(FailCode::NotFound, "there is no such file to copy".into())
        } else {
            End::Refused(FailCode::NotGranted, "this member may copy nothing from here".into())
        }
    }

    async fn list(&mut self, kind: Kind) -> Result<End, End> {
        if !self.shared.grants_any(self.peer, kind) {
            return Err(self.refusal(kind));
        }
        let mut items: Vec<Item> = Vec::new();
        for source in &self.shared.serving.sources {
            items.extend(source.list(kind).await);
        }
        items.retain(|item| item.is_sound(kind) && self.shared.allows(self.peer, kind, &item.name));
        let more = items.len() > MAX_ITEMS;
        items.truncate(MAX_ITEMS);
        self.say(&Tell::Listed { items, more }).await?;
        Ok(End::Done)
    }

    /// The file of this name; the other side hears how far it is while its id is being computed.
    async fn find(&mut self, kind: Kind, name: &str) -> Result<Subject, End> {
        if !self.shared.allows(self.peer, kind, name) {
            return Err(self.refusal(kind));
        }
        let mut finding = None;
        for source in &self.shared.serving.sources {
            finding = source.find(kind, name).await;
            if finding.is_some() {
                break;
            }
        }
        let mut finding = finding.ok_or_else(|| self.refusal(kind))?;
        let mut heartbeat = ticks(self.shared);
        let item = loop {
            // In its own block: what is borrowed from the channel must not be held while waiting.
            let found = finding.borrow_and_update().clone();
            match found {
                Found::Known(item) => break item,
                Found::Failed(why) => return Err(End::Refused(FailCode::Unreadable, why)),
                Found::Hashing { .. } => {}
            }
            tokio::select! {
                changed = settled(&mut finding) => if !changed {
                    return Err(End::Refused(FailCode::Unreadable, "it could not be read".into()));
                },
                _ = heartbeat.tick() => {
                    let found = finding.borrow().clone();
                    if let Found::Hashing { done, total } = found {
                        self.say(&Tell::Hashing { done, total }).await?;
                    }
                }
                end = listen(&mut self.reader) => return Err(end),
            }
        };
        self.open(kind, item).await
    }

    async fn open(&mut self, kind: Kind, item: Item) -> Result<Subject, End> {
        let id = item.id.ok_or_else(|| self.refusal(kind))?;
        for source in &self.shared.serving.sources {
            let blob = source.open(kind, id).await;
            if let Some(blob) = blob.filter(|blob| blob.size() == item.size) {
                return Ok(Subject { kind, item, blob });
            }
        }
        Err(End::Refused(FailCode::Unreadable, "the file changed".into()))
    }

    async fn hashes(&mut self, subject: &Subject, from: u64, count: u32) -> Result<(), End> {
        let count = usize::try_from(count).unwrap_or(PAGE).min(PAGE);
        let hashes = subject.blob.hashes(from, count);
        if hashes.is_empty() {
            return Err(End::Nonsense("hashes that there are none of".into()));
        }
        self.say(&Tell::Hashes { from, bytes: hashes.concat().into() }).await
    }

    /// Sends a block when its turn has come.
    async fn block(&mut self, subject: &Subject, index: u64) -> Result<(), End> {
        let length = tree::length(subject.item.size, index);
        if length == 0 {
            return Err(End::Nonsense("a block beyond the end".into()));
        }
        let mut heartbeat = ticks(self.shared);
        let turn = self.shared.pace.take(length);
        tokio::pin!(turn);
        loop {
            tokio::select! {
                () = &mut turn => break,
                _ = heartbeat.tick() => self.say(&Tell::Ping).await?,
            }
        }
        // Grants change while a stream lives.
        if !self.shared.allows(self.peer, subject.kind, &subject.item.name) {
            return Err(self.refusal(subject.kind));
        }
        let blob = Arc::clone(&subject.blob);
        let read =
            spawn_blocking(move || blob.read(index)).await.unwrap_or_else(|e| Err(io::Error::other(e)));
        let bytes = match read {
            Ok(bytes) if bytes.len() as u64 == length => bytes,
            Ok(_) => return Err(End::Refused(FailCode::Unreadable, "the file changed".into())),
            Err(error) => return Err(End::Refused(FailCode::Unreadable, error.to_string())),
        };
        self.say(&Tell::Block { index, bytes: bytes.into() }).await?;
        self.shared.cells.blocks.fetch_add(1, Relaxed);
        self.shared.cells.bytes.fetch_add(length, Relaxed);
        Ok(())
    }

    async fn say(&mut self, message: &Tell) -> Result<(), End> {
        let sent = timeout(self.shared.config.timers.stall, self.writer.send(message)).await;
        Ok(sent.map_err(|_| End::Gone("it reads nothing"))??)
    }

    /// Says what is to be said last, and counts.
    async fn close(mut self, end: End) {
        let (cells, peer) = (&self.shared.cells, self.peer);
        let last = match end {
            End::Done => None,
            End::Refused(code, mut words) => {
                tracing::debug!(%peer, words, "a copy was refused");
                cells.refused.fetch_add(1, Relaxed);
                words.truncate(words.floor_char_boundary(MAX_WORDS));
                Some(Tell::Failed { code, words })
            }
            End::Gone(why) => {
                tracing::debug!(%peer, why, "the asking side of a copy is gone");
                return;
            }
            End::Revoked => {
                cells.revoked.fetch_add(1, Relaxed);
                return;
            }
            End::Nonsense(why) => {
                tracing::warn!(%peer, why, "a stream for files that makes no sense");
                cells.nonsense.fetch_add(1, Relaxed);
                Some(Tell::Failed { code: FailCode::Nonsense, words: String::new() })
            }
        };
        let farewell = async {
            if let Some(last) = last {
                self.writer.put(&last)?;
            }
            self.writer.finish().await?;
            // What is still on its way here would make the stream's end a reset, and the words be lost.
            while self.reader.next::<Ask>().await?.is_some() {}
            Ok::<_, FrameError>(())
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}

/// Waits until a search has ended; false if its searcher went away without a result.
async fn settled(finding: &mut watch::Receiver<Found>) -> bool {
    finding.wait_for(|found| !matches!(found, Found::Hashing { .. })).await.is_ok()
}

/// Waits for the end of an asking side that has nothing to say but that it is there.
async fn listen(reader: &mut Reader) -> End {
    loop {
        match reader.next::<Ask>().await {
            Ok(Some(Ask::Ping)) => {}
            Ok(Some(_)) => return End::Nonsense("a message that has no place here".into()),
            Ok(None) => return End::Gone("it ended the stream"),
            Err(error) => return error.into(),
        }
    }
}

fn ticks(shared: &Shared) -> Interval {
    let every = shared.config.timers.heartbeat;
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
