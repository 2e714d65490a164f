//! What was asked of the chain and is not known to be done, kept through crashes.
//!
//! A call is on disk before anything about it leaves the machine, and the signed bytes of each attempt are on disk
//! before they are sent. So whoever reads the file after a crash knows every transaction that can exist, and sends the
//! same bytes again instead of making a second one. A call counts by its hash: asked for twice while it is under way,
//! it is done once.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
};

use parity_scale_codec::{Decode, Encode};
use potluck_primitives::MicroCredits;
use serde::Serialize;

use crate::{
    call::{Call, CallError, CallId},
    journal::{Journal, JournalError},
};

/// Most calls under way.
pub const MAX_OPEN: usize = 256;
/// Calls that are done, of which the outbox tells.
pub const MAX_HISTORY: usize = 512;
/// Attempts after which a call is given up.
pub const MAX_ATTEMPTS: u32 = 16;
/// Length from which on the file is written anew, in bytes, unless that would not make it much shorter.
const COMPACT: u64 = 4 << 20;
/// Longest words about an outcome, in bytes.
const MAX_WORDS: usize = 512;

/// A transaction that was made and may be sent at any time.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attempt {
    /// The account's nonce in it; means nothing for a call that is not signed.
    pub nonce: u64,
    /// The finalised block that it was made at. It is valid in later blocks only.
    pub birth: u32,
    /// That block's hash.
    pub birth_hash: [u8; 32],
    /// Blocks after its birth in which it is valid; 0: no limit.
    pub period: u32,
    /// The transaction's hash.
    pub hash: [u8; 32],
    /// The transaction.
    pub bytes: Vec<u8>,
}

impl Attempt {
    /// Whether no block after `block` can hold it.
    pub fn is_past(&self, block: u32) -> bool {
        self.period != 0 && block >= self.birth.saturating_add(self.period)
    }

    /// The last block that can hold it, and `head` at most.
    pub fn last_block(&self, head: u32) -> u32 {
        if self.period == 0 { head } else { head.min(self.birth.saturating_add(self.period)) }
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// A finalised block holds it.
    #[codec(index = 0)]
    Done {
        /// The block.
        block: u32,
        /// What it paid out, where it paid, in microcredits.
        #[serde(serialize_with = "micro_credits")]
        paid: Option<MicroCredits>,
        /// What was wrong with parts of it.
        notes: Vec<String>,
    },
    /// The chain says that what it asks for has been done: another transaction did it.
    #[codec(index = 1)]
    AlreadyDone,
    /// A finalised block holds it, and the runtime refused it.
    #[codec(index = 2)]
    Failed {
        /// The block.
        block: u32,
        /// What the runtime says.
        reason: String,
    },
    /// No block holds it, and none will.
    #[codec(index = 3)]
    Refused {
        /// Why.
        reason: String,
    },
}

fn micro_credits<S: serde::Serializer>(
    value: &Option<MicroCredits>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(amount) => serializer.collect_str(amount),
        None => serializer.serialize_none(),
    }
}

impl Outcome {
    /// Whether what was asked for is so now.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::AlreadyDone)
    }
}

/// A call under way.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What names it.
    pub id: CallId,
    /// What is asked.
    pub call: Call,
    /// When it was asked, in milliseconds since 1970.
    pub asked_ms: u64,
    /// The transaction that stands for it.
    pub attempt: Option<Attempt>,
    /// Transactions made for it so far.
    pub attempts: u32,
}

/// A call that ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Finished {
    /// What named it.
    pub id: CallId,
    /// What was asked, as a word for programs.
    pub word: String,
    /// What was asked, for people.
    pub what: String,
    /// When it was asked, in milliseconds since 1970.
    pub asked_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// How.
    pub outcome: Outcome,
}

/// A line of the file.
#[derive(Debug, Encode, Decode)]
enum Line {
    #[codec(index = 0)]
    Asked { asked_ms: u64, call: Call },
    #[codec(index = 1)]
    Attempted { id: CallId, number: u32, attempt: Attempt },
    #[codec(index = 2)]
    Ended { id: CallId, ended_ms: u64, outcome: Outcome },
    #[codec(index = 3)]
    Remembered(Finished),
}

/// Why the outbox does not take or keep something.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The call makes no sense.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Too many calls wait.
    #[error(
        "{MAX_OPEN} calls wait for the chain already; see `potluck credits history` for what holds them up"
    )]
    Full,
    /// Its file.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A line of the file makes no sense.
    #[error("{path} holds a line that this potluck does not know (number {line}): update potluck")]
    Unknown {
        /// The file.
        path: String,
        /// Which line.
        line: usize,
    },
}

/// Whether a call was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is kept from now on.
    New(CallId),
    /// The same call is under way.
    UnderWay(CallId),
}

impl Asked {
    /// What names the call.
    pub fn id(self) -> CallId {
        match self {
            Self::New(id) | Self::UnderWay(id) => id,
        }
    }
}

/// The calls under way and the file that keeps them.
#[derive(Debug)]
pub struct Outbox {
    journal: Journal,
    /// In the order they were asked.
    open: BTreeMap<u64, Entry>,
    by_id: BTreeMap<CallId, u64>,
    next: u64,
    history: VecDeque<Finished>,
    compact_at: u64,
}

impl Outbox {
    /// Opens the file and reads what was under way.
    ///
    /// # Errors
    /// [`OutboxError`] when the file cannot be used.
    pub fn open(path: &Path) -> Result<Self, OutboxError> {
        let (journal, lines) = Journal::open(path)?;
        let mut outbox = Self {
            journal,
            open: BTreeMap::new(),
            by_id: BTreeMap::new(),
            next: 0,
            history: VecDeque::new(),
            compact_at: COMPACT,
        };
        for (number, line) in lines.iter().enumerate() {
            let known = Line::decode(&mut line.as_slice()).ok().and_then(|line| outbox.apply(line));
            if known.is_none() {
                return Err(OutboxError::Unknown { path: path.display().to_string(), line: number + 1 });
            }
        }
        Ok(outbox)
    }

    /// Keeps a call from now on; nothing happens when the same call is under way.
    ///
    /// # Errors
    /// [`OutboxError`]; the call is then not asked for, unless the disk failed in a way that only a restart can tell.
    pub fn ask(&mut self, call: Call, now_ms: u64) -> Result<Asked, OutboxError> {
        call.check()?;
        let id = call.id();
        if self.by_id.contains_key(&id) {
            return Ok(Asked::UnderWay(id));
        }
        if self.open.len() >= MAX_OPEN {
            return Err(OutboxError::Full);
        }
        self.write(Line::Asked { asked_ms: now_ms, call })?;
        Ok(Asked::New(id))
    }

    /// Keeps a transaction; only then may it be sent.
    ///
    /// # Errors
    /// [`OutboxError::Journal`]; the transaction must then not be sent.
    pub fn attempt(&mut self, id: CallId, attempt: Attempt) -> Result<(), OutboxError> {
        let number = self.entry(id).map_or(0, |entry| entry.attempts).saturating_add(1);
        self.write(Line::Attempted { id, number, attempt })
    }

    /// Keeps how a call ended; it may be asked for anew afterwards.
    ///
    /// # Errors
    /// [`OutboxError::Journal`]; the call is then still under way.
    pub fn end(&mut self, id: CallId, outcome: Outcome, now_ms: u64) -> Result<(), OutboxError> {
        self.write(Line::Ended { id, ended_ms: now_ms, outcome: short(outcome) })?;
        if self.journal.size() > self.compact_at {
            self.compact()?;
            self.compact_at = COMPACT.max(self.journal.size().saturating_mul(2));
        }
        Ok(())
    }

    /// A call under way.
    pub fn entry(&self, id: CallId) -> Option<&Entry> {
        self.open.get(self.by_id.get(&id)?)
    }

    /// The calls under way, in the order they were asked.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.open.values()
    }

    /// The calls that ended, the last one last; at most [`MAX_HISTORY`].
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Finished> {
        self.history.iter()
    }

    fn write(&mut self, line: Line) -> Result<(), OutboxError> {
        self.journal.append(&line.encode())?;
        // What is on disk is known to make sense: it was made from what is open.
        let _ = self.apply(line);
        Ok(())
    }

    fn apply(&mut self, line: Line) -> Option<()> {
        match line {
            Line::Asked { asked_ms, call } => {
                let id = call.id();
                if self.by_id.insert(id, self.next).is_some() {
                    return None;
                }
                self.open.insert(self.next, Entry { id, call, asked_ms, attempt: None, attempts: 0 });
                self.next = self.next.checked_add(1)?;
            }
            Line::Attempted { id, number, attempt } => {
                let entry = self.open.get_mut(self.by_id.get(&id)?)?;
                (entry.attempt, entry.attempts) = (Some(attempt), number);
            }
            Line::Ended { id, ended_ms, outcome } => {
                let entry = self.open.remove(&self.by_id.remove(&id)?)?;
                let Entry { call, asked_ms, .. } = entry;
                let (word, what) = (call.word().into(), call.to_string());
                self.remember(Finished { id, word, what, asked_ms, ended_ms, outcome });
            }
            Line::Remembered(finished) => self.remember(finished),
        }
        Some(())
    }

    fn remember(&mut self, finished: Finished) {
        if self.history.len() >= MAX_HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(finished);
    }

    fn compact(&mut self) -> Result<(), OutboxError> {
        let mut lines: Vec<Vec<u8>> =
            self.history.iter().map(|finished| Line::Remembered(finished.clone()).encode()).collect();
        for entry in self.open.values() {
            lines.push(Line::Asked { asked_ms: entry.asked_ms, call: entry.call.clone() }.encode());
            if let Some(attempt) = entry.attempt.clone() {
                lines.push(Line::Attempted { id: entry.id, number: entry.attempts, attempt }.encode());
            }
        }
        Ok(self.journal.rewrite(lines.iter().map(Vec::as_slice))?)
    }
}

/// An outcome without more words than anybody reads: they come from elsewhere.
fn short(mut outcome: Outcome) -> Outcome {
    match &mut outcome {
        Outcome::Done { notes, .. } => {
            notes.truncate(crate::call::MAX_VOUCHERS);
            notes.iter_mut().for_each(cut);
        }
        Outcome::Failed { reason, .. } | Outcome::Refused { reason } => cut(reason),
        Outcome::AlreadyDone => {}
    }
    outcome
}

fn cut(words: &mut String) {
    let end = words.floor_char_boundary(MAX_WORDS);
    words.truncate(end);
}

#[cfg(test)]
mod tests;
