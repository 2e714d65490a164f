//! One stream: a request, its answer, its receipt.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until, timeout};

use super::{Shared, busy, quota::Slot};
use crate::{
    identity::NodeId,
    job::{Event, Input, Job, JobError, Reply},
    mesh::{
        frame::FrameError,
        protocol::{
            job::{
                convert,
                receipts::Served,
                wire::{MAX_FRAME, MAX_RECEIPT, MAX_REQUEST, ToAsker, ToServer},
            },
            link::{self, Reader, Writer},
        },
        streams::Stream,
    },
    pool::trusted::Admitted,
};

/// Longest prompt of a probe, in bytes.
const PROBE_PROMPT: usize = 32;
/// Time for the last words to a side that will not be heard any more.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a session ended.
enum End {
    /// The answer is complete.
    Completed,
    /// The other side was told that the job is refused.
    Refused(JobError),
    /// The job failed after it was accepted.
    Failed(JobError),
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
    let (reader, writer) = link::split(stream, MAX_REQUEST);
    let mut watch = Watch::new(&shared, peer);
    let mut session = Session { shared: &shared, peer, reader, writer, slot, heartbeat: ticks(&shared) };
    let end = tokio::select! {
        biased;
        end = watch.wait() => end,
        end = session.serve() => end.unwrap_or_else(|end| end),
    };
    session.close(end).await;
}

fn ticks(shared: &Shared) -> Interval {
    let every = shared.config.timers.heartbeat;
    let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits for what ends a session from outside.
struct Watch {
    peer: NodeId,
    admitted: tokio::sync::watch::Receiver<Arc<Vec<Admitted>>>,
    stop: tokio::sync::watch::Receiver<bool>,
}

impl Watch {
    fn new(shared: &Shared, peer: NodeId) -> Self {
        let admitted = shared.serving.membership.watch();
        Self { peer, admitted, stop: shared.stop.subscribe() }
    }

    async fn wait(&mut self) -> End {
        let (peer, admitted) = (self.peer, &mut self.admitted);
        tokio::select! {
            // When the pool itself is gone nobody is a member.
            _ = admitted.wait_for(|all| !all.iter().any(|member| member.node == peer)) => End::Revoked,
            _ = self.stop.wait_for(|stop| *stop) => End::Failed(JobError::ShuttingDown),
        }
    }
}

struct Session<'a> {
    shared: &'a Shared,
    peer: NodeId,
    reader: Reader,
    writer: Writer,
    slot: Slot,
    heartbeat: Interval,
}

impl Session<'_> {
    async fn serve(&mut self) -> Result<End, End> {
        let (job, probe) = self.request().await?;
        let model = job.model.clone();
        let resumed = u32::try_from(job.resume.len()).unwrap_or(u32::MAX);
        let id = job.id;
        let context = self.model(&job, probe).await?;
        let reply = self.submit(job).await?;
        self.say(&ToAsker::Accepted { node: self.shared.serving.node.clone(), context })?;
        let usage = self.stream(reply).await?;
        let served = Served {
            job: id,
            model,
            prompt_tokens: usage.prompt_tokens.saturating_add(resumed),
            cached_tokens: usage.cached_tokens,
            completion_tokens: usage.completion_tokens.saturating_sub(resumed),
            compute: usage.prompt + usage.decode,
        };
        self.receipt(&served).await;
        Ok(End::Completed)
    }

    /// Reads the request, as far as it is allowed to come in.
    async fn request(&mut self) -> Result<(Job, bool), End> {
        let timers = self.shared.config.timers;
        let (reader, own, all) = (&mut self.reader, &self.slot.arriving, &self.shared.arriving);
        let arrive = async {
            // Held while the request comes in: its sender's own permit first, so that nobody is slow for everybody.
            let _own = own.acquire().await;
            let _all = all.acquire().await;
            reader.next::<ToServer>().await?.ok_or(End::Gone("it sent no request"))
        };
        let arrive = pinging(&mut self.writer, &mut self.heartbeat, arrive);
        let message = timeout(timers.request, arrive).await;
        let message = message.map_err(|_| End::Gone("its request took too long"))???;
        let ToServer::Ask { ask } = message else {
            return Err(End::Nonsense("the first message is no request".into()));
        };
        self.reader.cap(MAX_RECEIPT + 64);
        self.writer.cap(MAX_FRAME);
        let probe = ask.probe;
        let grants = self.shared.allow(self.peer, &ask.model).map_err(End::Refused)?;
        let mut job = convert::job(*ask).map_err(|error| End::Refused(error.into()))?;
        // Others do not decide how long a model stays in this machine's memory, or that it goes.
        job.keep_alive = None;
        let started = self.slot.start(grants.rate, probe, Instant::now());
        started.map_err(|wait| End::Refused(busy(&self.slot, wait)))?;
        Ok((job, probe))
    }

    /// The context of the model, which must be here under exactly this name: a name that the store would only guess
    /// at might mean one that the member may not use.
    async fn model(&mut self, job: &Job, probe: bool) -> Result<u64, End> {
        let models = self.meanwhile(self.shared.serving.load.now()).await?;
        let Some(model) = models.iter().find(|model| model.name == job.model) else {
            return Err(End::Refused(JobError::ModelNotFound { model: job.model.clone() }));
        };
        if probe {
            // A probe is one token of a loaded model and nothing else.
            let short = matches!(&job.input, Input::Text { text, .. } if text.len() <= PROBE_PROMPT);
            if !short || job.max_tokens != Some(1) || !job.resume.is_empty() || !model.loaded {
                let reason = "it must ask a loaded model for one token after a word".into();
                return Err(End::Refused(JobError::Invalid { field: "probe".into(), reason }));
            }
        }
        Ok(model.context)
    }

    /// Gives the job to the engine.
    async fn submit(&mut self, job: Job) -> Result<Reply, End> {
        self.meanwhile(self.shared.serving.provider.submit(job)).await?.map_err(End::Refused)
    }

    /// Waits for work that may take long; meanwhile the other side hears that it is not forgotten.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        let mut asker = Asker::new(self.shared);
        let reader = &mut self.reader;
        let work = async {
            tokio::select! {
                done = work => Ok(done),
                end = asker.listen(reader) => Err(end),
            }
        };
        pinging(&mut self.writer, &mut self.heartbeat, work).await?
    }

    /// Passes the answer on, no faster than the other side reads.
    async fn stream(&mut self, mut reply: Reply) -> Result<crate::job::Usage, End> {
        let mut asker = Asker::new(self.shared);
        let stall = self.shared.config.timers.stall;
        let mut queue = std::collections::VecDeque::new();
        let mut usage = None;
        let mut wrote = Instant::now();
        loop {
            if self.writer.is_clear() {
                wrote = Instant::now();
                match (queue.pop_front(), usage) {
                    (Some(message), _) => self.say(&message)?,
                    (None, Some(usage)) => return Ok(usage),
                    (None, None) => {}
                }
            }
            let clear = self.writer.is_clear();
            tokio::select! {
                biased;
                end = asker.listen(&mut self.reader) => return Err(end),
                done = self.writer.drive(), if !clear => done?,
                event = reply.next(), if clear && usage.is_none() => match event {
                    Some(Ok(event)) => {
                        if let Event::Done { usage: took, .. } = &event {
                            usage = Some(*took);
                        }
                        queue.extend(convert::event(event));
                        self.heartbeat.reset();
                    }
                    Some(Err(error)) => return Err(End::Failed(error)),
                    None => {
                        let reason = "the engine broke off without saying why".into();
                        return Err(End::Failed(JobError::Internal { reason }));
                    }
                },
                _ = self.heartbeat.tick(), if clear => ping(&mut self.writer)?,
                () = sleep_until(wrote + stall), if !clear => return Err(End::Gone("it reads nothing")),
            }
        }
    }

    /// Offers the receipt. What becomes of it changes nothing about the answer.
    async fn receipt(&mut self, served: &Served) {
        let (serving, peer) = (&self.shared.serving, self.peer);
        let half = serving.receipts.issue(peer, served).filter(|half| half.len() <= MAX_RECEIPT);
        let exchange = async {
            self.writer.drive().await?;
            if let Some(half) = half {
                self.writer.send(&ToAsker::Receipt { bytes: half.into() }).await?;
                loop {
                    match self.reader.next::<ToServer>().await? {
                        Some(ToServer::Ping) => {}
                        Some(ToServer::Receipt { bytes }) => {
                            if let Err(error) = serving.receipts.settle(peer, &bytes) {
                                tracing::warn!(%peer, %error, "a receipt came back wrong");
                            }
                            break;
                        }
                        _ => {
                            tracing::warn!(%peer, job = %served.job, "no receipt came back");
                            break;
                        }
                    }
                }
            }
            self.writer.finish().await
        };
        match timeout(self.shared.config.timers.receipt, exchange).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%peer, %error, "the stream ended before the receipt"),
            Err(_) => tracing::warn!(%peer, job = %served.job, "no receipt came back in time"),
        }
    }

    fn say(&mut self, message: &ToAsker) -> Result<(), End> {
        self.writer.put(message).map_err(|error| {
            End::Failed(JobError::Internal { reason: format!("an event of the answer is too long: {error}") })
        })
    }

    /// Says what is to be said last, and counts.
    async fn close(mut self, end: End) {
        let (cells, peer) = (&self.shared.cells, self.peer);
        let (cell, last) = match end {
            End::Completed => (&cells.completed, None),
            End::Refused(error) => {
                tracing::debug!(%peer, %error, "a job was refused");
                (&cells.refused, Some(error))
            }
            End::Failed(error) => {
                tracing::warn!(%peer, %error, "a job of a member failed");
                (&cells.failed, Some(error))
            }
            End::Gone(why) => {
                tracing::debug!(%peer, why, "a job's asking side is gone");
                (&cells.cancelled, None)
            }
            End::Revoked => (&cells.revoked, None),
            End::Nonsense(why) => {
                tracing::warn!(%peer, why, "a stream for a job that makes no sense");
                (&cells.nonsense, None)
            }
        };
        cell.fetch_add(1, Relaxed);
        // The place is free before the other side knows: it may ask again at once.
        drop(self.slot);
        if let Some(error) = last {
            let farewell = async {
                self.writer.put(&ToAsker::Failed { failure: convert::failure(&error) })?;
                self.writer.finish().await?;
                // What is still on its way here would make the stream's end a reset, and the words be lost.
                while self.reader.next::<ToServer>().await?.is_some() {}
                Ok::<_, FrameError>(())
            };
            let _ = timeout(FAREWELL, farewell).await;
        }
    }
}

/// Waits for work; the other side hears meanwhile that somebody is there.
async fn pinging<T>(
    writer: &mut Writer,
    heartbeat: &mut Interval,
    work: impl Future<Output = T>,
) -> Result<T, End> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            done = writer.drive(), if !writer.is_clear() => done?,
            _ = heartbeat.tick() => ping(writer)?,
        }
    }
}

fn ping(writer: &mut Writer) -> Result<(), End> {
    if writer.is_clear() {
        writer.put(&ToAsker::Ping)?;
    }
    Ok(())
}

/// Whether the asking side is still there.
struct Asker {
    heard: Instant,
    patience: Duration,
}

impl Asker {
    fn new(shared: &Shared) -> Self {
        Self { heard: Instant::now(), patience: shared.config.timers.asker_deadline }
    }

    /// Waits for its end. May be given up and called again.
    async fn listen(&mut self, reader: &mut Reader) -> End {
        loop {
            tokio::select! {
                message = reader.next::<ToServer>() => match message {
                    Ok(Some(ToServer::Ping)) => self.heard = Instant::now(),
                    Ok(Some(_)) => return End::Nonsense("a message that has no place here".into()),
                    Ok(None) => return End::Gone("it ended the stream"),
                    Err(error) => return error.into(),
                },
                () = sleep_until(self.heard + self.patience) => return End::Gone("it says nothing any more"),
            }
        }
    }
}
