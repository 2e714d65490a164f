//! The asking side of a job.

use std::{fmt, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until, timeout};

use super::{
    Timers, convert,
    wire::{MAX_FRAME, MAX_RECEIPT, MAX_REQUEST, ToAsker, ToServer},
};
use crate::{
    job::{Event, Job, JobError},
    mesh::{
        frame::FrameError,
        protocol::link::{self, Reader, Writer},
        streams::Stream,
    },
};

/// Why a machine does not answer, or not any more.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// It says so itself.
    #[error(transparent)]
    Refused(JobError),
    /// It says nothing any more.
    #[error("it said nothing for {} ms", after.as_millis())]
    Silent {
        /// For how long it was waited.
        after: Duration,
    },
    /// It says that it is there and nothing else.
    #[error("it made no progress for {} s", after.as_secs())]
    Stuck {
        /// For how long it was waited.
        after: Duration,
    },
    /// It broke the stream off.
    #[error("the stream broke: {0}")]
    Broken(String),
    /// It does not keep to the protocol.
    #[error("it does not keep to the protocol: {0}")]
    Nonsense(String),
    /// The job cannot be sent at all.
    #[error("the request has {length} bytes, where at most {} can travel", MAX_REQUEST)]
    TooLarge {
        /// Its length in bytes.
        length: usize,
    },
}

impl From<FrameError> for CallError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(_) | FrameError::Ended => Self::Broken(error.to_string()),
            FrameError::TooLong { .. } | FrameError::Malformed(_) => Self::Nonsense(error.to_string()),
        }
    }
}

/// A job that another machine works on. Dropping it cancels the job.
pub struct Call {
    reader: Reader,
    writer: Writer,
    timers: Timers,
    ping: Interval,
    /// When the other side was last heard.
    heard: Instant,
    /// When it last said something new.
    moved: Instant,
    began: Instant,
    first: Option<Duration>,
    done: bool,
    /// What the other side calls itself.
    pub node: String,
    /// Longest context it takes, in tokens; 0: not known.
    pub context: u64,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Call {
    /// Asks for a job over a new stream and waits until it has its place.
    ///
    /// # Errors
    /// Any [`CallError`].
    pub async fn begin(stream: Stream, job: &Job, probe: bool, timers: Timers) -> Result<Self, CallError> {
        let (reader, mut writer) = link::split(stream, MAX_REQUEST);
        let ask = ToServer::Ask { ask: Box::new(convert::ask(job, probe)) };
        writer.put(&ask).map_err(|error| match error {
            FrameError::TooLong { length, .. } => CallError::TooLarge { length },
            other => other.into(),
        })?;
        let now = Instant::now();
        let mut ping = tokio::time::interval_at(now + timers.asker_heartbeat, timers.asker_heartbeat);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut call = Self {
            reader,
            writer,
            timers,
            ping,
            heard: now,
            moved: now,
            began: now,
            first: None,
            done: false,
            node: String::new(),
            context: 0,
        };
        call.reader.cap(MAX_FRAME);
        match call.hear(timers.first).await? {
            ToAsker::Accepted { node, context } => {
                call.node = node.chars().take(256).collect();
                call.context = context;
                call.began = Instant::now();
                Ok(call)
            }
            ToAsker::Failed { failure } => Err(CallError::Refused(convert::error(failure))),
            _ => Err(CallError::Nonsense("it answers before it accepts".into())),
        }
    }

    /// The next event. [`Event::Done`] and errors are the last.
    ///
    /// # Errors
    /// Any [`CallError`].
    pub async fn next(&mut self) -> Result<Event, CallError> {
        // The reader may have been slow: what waits in the stream counts as said now.
        self.heard = Instant::now();
        match self.hear(self.timers.deadline).await? {
            ToAsker::Text { text, logprobs, tokens } => {
                self.first.get_or_insert(self.began.elapsed());
                let logprobs = logprobs.into_iter().map(convert::logprob).collect();
                Ok(Event::Text { text, logprobs, tokens })
            }
            ToAsker::Done { reason, usage } => {
                self.done = true;
                Ok(Event::Done { reason: convert::reason(reason), usage: convert::usage(usage) })
            }
            ToAsker::Failed { failure } => Err(CallError::Refused(convert::error(failure))),
            ToAsker::Accepted { .. } | ToAsker::Receipt { .. } | ToAsker::Ping => {
                Err(CallError::Nonsense("a message that has no place here".into()))
            }
        }
    }

    /// Keeps the other side informed while nothing is read from it; returns when the stream breaks. May be given
    /// up and called again.
    pub async fn idle(&mut self) {
        loop {
            let done = tokio::select! {
                done = self.writer.drive(), if !self.writer.is_clear() => done,
                _ = self.ping.tick() => {
                    if self.writer.is_clear() { self.writer.put(&ToServer::Ping) } else { Ok(()) }
                }
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// From acceptance to the first text, as seen here.
    pub fn first_token(&self) -> Option<Duration> {
        self.first
    }

    /// Time since acceptance.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// After [`Event::Done`]: takes the other side's half of the receipt, if there is one, and sends back what
    /// `sign` makes of it. Whatever fails here changes nothing about the answer.
    pub async fn receipt(mut self, sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>) {
        if !self.done {
            return;
        }
        let half = async {
            loop {
                match self.reader.next::<ToAsker>().await {
                    Ok(Some(ToAsker::Receipt { bytes })) if bytes.len() <= MAX_RECEIPT => return Some(bytes),
                    Ok(Some(ToAsker::Ping)) => {}
                    _ => return None,
                }
            }
        };
        let Ok(Some(half)) = timeout(self.timers.receipt, half).await else { return };
        let Some(whole) = sign(&half) else { return };
        let sent = async {
            // A ping may be half written.
            self.writer.drive().await?;
            self.writer.send(&ToServer::Receipt { bytes: whole.into() }).await?;
            self.writer.finish().await
        };
        // The other side ends the stream when it has it: a stream dropped earlier might lose it.
        if let Ok(Ok(())) = timeout(self.timers.receipt, sent).await {
            let _ = timeout(self.timers.receipt, self.reader.next::<ToAsker>()).await;
        }
    }

    /// The next message that is no ping.
    async fn hear(&mut self, patience: Duration) -> Result<ToAsker, CallError> {
        let mut patience = patience;
        loop {
            let silent = self.heard + patience;
            let stuck = self.moved + self.timers.stuck;
            tokio::select! {
                biased;
                message = self.reader.next::<ToAsker>() => {
                    self.heard = Instant::now();
                    match message? {
                        Some(ToAsker::Ping) => patience = self.timers.deadline,
                        Some(message) => {
                            self.moved = self.heard;
                            return Ok(message);
                        }
                        None => return Err(CallError::Broken("it ended before the answer did".into())),
                    }
                }
                written = self.writer.drive(), if !self.writer.is_clear() => written?,
                _ = self.ping.tick() => {
                    if self.writer.is_clear() {
                        self.writer.put(&ToServer::Ping)?;
                    }
                }
                () = sleep_until(stuck) => return Err(CallError::Stuck { after: self.timers.stuck }),
                () = sleep_until(silent) => return Err(CallError::Silent { after: patience }),
            }
        }
    }
}
