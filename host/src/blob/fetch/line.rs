//! The asking side of one stream.

use std::{fmt, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    blob::{BlobId, Item, Kind, PROTOCOL, Timers},
    identity::NodeId,
    mesh::{
        frame::FrameError,
        protocol::{
            blob::{
                tree::{self, Hash},
                wire::{Ask, FailCode, MAX_ASK, MAX_TELL, MAX_WORDS, PAGE, Tell},
            },
            link::{self, Reader, Writer},
        },
        streams::{OpenError, Streams},
    },
};

/// Why a source gives nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// There is no stream with it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Broken(String),
    /// It said nothing for too long.
    #[error("it said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// It refused.
    #[error("it refuses: {words}")]
    Refused {
        /// Why.
        code: FailCode,
        /// Why, in its own words.
        words: String,
    },
    /// It does not keep to the protocol, or sent other bytes than it was asked for.
    #[error("it {0}")]
    Lied(&'static str),
}

impl SourceError {
    /// Whether another try makes sense.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Open(_) | Self::Broken(_) | Self::Silent(_) => true,
            Self::Refused { code, .. } => matches!(code, FailCode::Busy | FailCode::Stopping),
            Self::Lied(_) => false,
        }
    }
}

impl From<FrameError> for SourceError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => Self::Broken(error.to_string()),
            FrameError::Ended => Self::Broken("it ended".into()),
            FrameError::TooLong { .. } => Self::Lied("sent more than belongs into a message"),
            FrameError::Malformed(_) => Self::Lied("sent what is no message"),
        }
    }
}

/// A stream with a source.
pub(super) struct Line {
    reader: Reader,
    writer: Writer,
    timers: Timers,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

impl Line {
    pub(super) async fn open(
        streams: &dyn Streams,
        node: NodeId,
        timers: Timers,
    ) -> Result<Self, SourceError> {
        let opened = timeout(timers.silence * 2, streams.open(node, PROTOCOL)).await;
        let stream = opened.map_err(|_| SourceError::Silent(timers.silence * 2))??;
        let (reader, mut writer) = link::split(stream, MAX_TELL);
        writer.cap(MAX_ASK);
        Ok(Self { reader, writer, timers })
    }

    pub(super) async fn say(&mut self, ask: &Ask) -> Result<(), SourceError> {
        let sent = timeout(self.timers.silence, self.writer.send(ask)).await;
        Ok(sent.map_err(|_| SourceError::Silent(self.timers.silence))??)
    }

    /// The next message; a refusal is an error.
    async fn hear(&mut self, until: Instant) -> Result<Tell, SourceError> {
        let began = Instant::now();
        let next = timeout_at(until, self.reader.next::<Tell>()).await;
        match next.map_err(|_| SourceError::Silent(until.saturating_duration_since(began)))?? {
            None => Err(SourceError::Broken("it ended".into())),
            Some(Tell::Failed { code: FailCode::Nonsense, .. }) => {
                Err(SourceError::Lied("does not understand what it is asked"))
            }
            Some(Tell::Failed { code, words }) => Err(SourceError::Refused { code, words: readable(&words) }),
            Some(tell) => Ok(tell),
        }
    }

    fn silence(&self) -> Instant {
        Instant::now() + self.timers.silence
    }

    /// What may be copied from there, and whether that is not all.
    pub(super) async fn list(&mut self, kind: Kind) -> Result<(Vec<Item>, bool), SourceError> {
        self.say(&Ask::List { kind }).await?;
        let until = self.silence();
        loop {
            match self.hear(until).await? {
                Tell::Ping => {}
                Tell::Listed { items, more } => return Ok((items, more)),
                _ => return Err(SourceError::Lied("answered something else")),
            }
        }
    }

    /// Makes the stream be about a file. `progress` hears how far its id is, for at most `patience`.
    pub(super) async fn find(
        &mut self,
        ask: &Ask,
        kind: Kind,
        patience: Duration,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(Item, BlobId), SourceError> {
        self.say(ask).await?;
        let last = Instant::now() + patience;
        loop {
            match self.hear(self.silence().min(last)).await? {
                Tell::Ping => {}
                Tell::Hashing { done, total } => progress(done.min(total), total.min(kind.most())),
                Tell::Found { item } if item.is_sound(kind) => {
                    let id = item.id.ok_or(SourceError::Lied("found a file without an id"))?;
                    return Ok((item, id));
                }
                Tell::Found { .. } => return Err(SourceError::Lied("found a file that cannot be")),
                _ => return Err(SourceError::Lied("answered something else")),
            }
        }
    }

    /// All block hashes of the file that the stream is about; whether they are right is for the caller to see.
    pub(super) async fn hashes(&mut self, size: u64) -> Result<Vec<Hash>, SourceError> {
        let all = tree::blocks(size);
        let mut hashes: Vec<Hash> = Vec::new();
        while (hashes.len() as u64) < all {
            let at = hashes.len() as u64;
            let count = u32::try_from((all - at).min(PAGE as u64)).unwrap_or(u32::MAX);
            self.say(&Ask::Hashes { from: at, count }).await?;
            // A page takes less than a block does.
            let until = Instant::now() + self.timers.block;
            let bytes = loop {
                match self.hear(until).await? {
                    Tell::Ping => {}
                    Tell::Hashes { from, bytes } if from == at => break bytes,
                    _ => return Err(SourceError::Lied("answered something else")),
                }
            };
            let (page, rest) = bytes.as_chunks::<32>();
            if page.is_empty() || page.len() as u64 > u64::from(count) || !rest.is_empty() {
                return Err(SourceError::Lied("sent another number of hashes"));
            }
            hashes.extend_from_slice(page);
        }
        Ok(hashes)
    }

    /// Asks for a block; [`Self::block`] takes it.
    pub(super) async fn want(&mut self, index: u64) -> Result<(), SourceError> {
        self.say(&Ask::Get { index }).await
    }

    /// The next block, which must be the one numbered `index`.
    pub(super) async fn block(&mut self, index: u64) -> Result<Vec<u8>, SourceError> {
        let mut until = Instant::now() + self.timers.block;
        // A source that only ever pings must not hold a block for ever.
        let last = Instant::now() + self.timers.block * 4;
        loop {
            match self.hear(until).await? {
                Tell::Ping => until = (Instant::now() + self.timers.block).min(last),
                Tell::Block { index: sent, bytes } if sent == index => return Ok(bytes.into()),
                _ => return Err(SourceError::Lied("sent another block than it was asked for")),
            }
        }
    }
}

/// Words of another machine, as they may be shown.
fn readable(words: &str) -> String {
    let cut = words.get(..words.floor_char_boundary(MAX_WORDS)).unwrap_or_default();
    cut.chars().filter(|c| !crate::pool::trusted::names::unprintable(*c)).collect()
}
