//! One conversation with another member: a task that reads, a task that writes, and what is known of the other.

use std::collections::BTreeSet;

use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::mpsc,
    task::JoinHandle,
    time::{Duration, Instant, timeout},
};

use super::super::{
    clock::Millis,
    exchange::{Bye, GREETING, MAX_MESSAGE, Message, PATIENCE, SILENCE},
    join::Bucket,
    papers::{Paper, PaperError, PoolId},
};
use super::actor::Event;
use crate::{
    identity::{Digest, NodeId},
    mesh::frame::{self, FrameError},
    mesh::streams::Stream,
};

/// Messages that wait for a member that reads slowly.
const OUTBOX: usize = 64;
/// How long the other side has to read the last word.
const FAREWELL: Duration = Duration::from_secs(2);

/// What another member said; papers are verified already.
#[derive(Debug)]
pub(super) enum Said {
    Message(Message),
    Papers(Vec<Result<Paper, PaperError>>),
}

/// A conversation.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) session: u64,
    /// Whether this machine opened it.
    pub(super) ours: bool,
    pub(super) since: Instant,
    outbox: mpsc::Sender<Vec<Message>>,
    reader: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
    /// The digest in our `Hello`.
    pub(super) digest: Digest,
    /// It said `Hello`.
    pub(super) greeted: bool,
    /// How far its clock is ahead, in milliseconds.
    pub(super) ahead: Millis,
    /// Names of its papers, while they come in.
    pub(super) have: BTreeSet<Digest>,
    /// When we last listed ours.
    pub(super) listed: Option<Instant>,
    /// When we last answered its list.
    pub(super) supplied: Option<Instant>,
    /// When we last repeated our digest.
    pub(super) said_state: Instant,
    /// We have taken in all that it has.
    pub(super) complete: bool,
    /// We said `Ready`.
    pub(super) offered: bool,
    /// It said `Ready`.
    pub(super) accepted: bool,
    /// Since when it is admitted.
    pub(super) admitted: Option<Millis>,
    /// The discovery key that it was told.
    pub(super) told: Option<Digest>,
    /// Papers of it that were wrong.
    pub(super) wrong: u32,
}

impl Talk {
    /// Begins to read and to write. What is read goes to `events`, marked with `peer` and `session`.
    pub(super) fn start(
        (peer, session, ours): (NodeId, u64, bool),
        stream: Stream,
        (pool, digest): (PoolId, Digest),
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (read, write) = tokio::io::split(stream);
        let (outbox, queue) = mpsc::channel(OUTBOX);
        let ending = events.clone();
        let reader = tokio::spawn(async move {
            let why = match listen(read, (peer, session, pool), &events).await {
                Ok(()) => None,
                Err(error) => Some(error.to_string()),
            };
            let _ = events.send(Event::Ended { peer, session, why }).await;
        });
        let writer = tokio::spawn(async move {
            if let Err(why) = speak(write, queue).await {
                let _ = ending.send(Event::Ended { peer, session, why: Some(why) }).await;
            }
        });
        Self {
            session,
            ours,
            since: Instant::now(),
            outbox,
            reader: Some(reader),
            writer: Some(writer),
            digest,
            greeted: false,
            ahead: 0,
            have: BTreeSet::new(),
            listed: None,
            supplied: None,
            said_state: Instant::now(),
            complete: false,
            offered: false,
            accepted: false,
            admitted: None,
            told: None,
            wrong: 0,
        }
    }

    /// Queues messages; `false` if the other side reads too slowly to be waited for.
    pub(super) fn say(&self, messages: Vec<Message>) -> bool {
        messages.is_empty() || self.outbox.try_send(messages).is_ok()
    }

    /// Ends it with a word. The task returned is done once the other side has read that, or does not care to.
    pub(super) fn end(mut self, bye: Bye) -> JoinHandle<()> {
        let _ = self.outbox.try_send(vec![Message::Bye(bye)]);
        let (writer, reader) = (self.writer.take(), self.reader.take());
        // Closes the queue, so that the writer comes to its end.
        drop(self);
        tokio::spawn(async move {
            if let Some(writer) = writer {
                let _ = writer.await;
            }
            // A stream that is dropped with something unread may lose what was written last.
            if let Some(mut reader) = reader
                && timeout(FAREWELL, &mut reader).await.is_err()
            {
                reader.abort();
            }
        })
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // The writer ends by itself once its queue is empty.
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

async fn listen(
    mut stream: ReadHalf<Stream>,
    (peer, session, pool): (NodeId, u64, PoolId),
    events: &mpsc::Sender<Event>,
) -> Result<(), FrameError> {
    let silent = |_| FrameError::Malformed("it fell silent".into());
    let mut bucket = Bucket::new(1_024, Duration::from_millis(20), Instant::now());
    let mut wait = GREETING;
    while let Some(message) = timeout(wait, frame::read(&mut stream, MAX_MESSAGE)).await.map_err(silent)?? {
        // Whoever sends too much waits; nobody else does.
        if let Err(pause) = bucket.take(Instant::now()) {
            tokio::time::sleep(pause).await;
        }
        let said = match message {
            Message::Papers(papers) => {
                Said::Papers(papers.into_iter().map(|sealed| Paper::open(sealed, pool)).collect())
            }
            message => Said::Message(message),
        };
        if events.send(Event::Said { peer, session, said }).await.is_err() {
            break;
        }
        wait = SILENCE;
    }
    Ok(())
}

async fn speak(mut stream: WriteHalf<Stream>, mut queue: mpsc::Receiver<Vec<Message>>) -> Result<(), String> {
    while let Some(messages) = queue.recv().await {
        for message in messages {
            let write = frame::write(&mut stream, &message, MAX_MESSAGE);
            match timeout(PATIENCE, write).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err("it does not read".into()),
            }
        }
    }
    let _ = timeout(PATIENCE, tokio::io::AsyncWriteExt::shutdown(&mut stream)).await;
    Ok(())
}
