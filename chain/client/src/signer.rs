//! The one task that owns the account: it numbers, signs, sends and follows transactions until they are final.
//!
//! Every decision about a transaction follows from three facts: its bytes are on disk, it is valid in the blocks of
//! its era only, and of two with the same number at most one is ever included. So a transaction is replaced only when
//! all final blocks that could hold it have been read and none does, and the era is over or the number is used.
//! Whatever a node claims about its pool changes nothing but how soon something is sent again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep},
};

use crate::{
    call::{Call, CallId},
    link::{Effect, Head, Link, LinkError, SubmitError},
    outbox::{Asked, Attempt, Entry, Finished, MAX_ATTEMPTS, Outbox, OutboxError, Outcome},
};

/// Calls that are looked after at the same time; later ones wait.
const MAX_LIVE: usize = 32;
/// Most that wait for the end of one call.
const MAX_WAITERS: usize = 64;
/// Final blocks that an unsigned call may be refused for before it is given up.
const PATIENCE: u32 = 3;
/// As long, where no blocks come.
const GRACE: Duration = Duration::from_secs(20);
/// Final blocks that are looked through for an unsigned call after a restart.
const LOOK_BACK: u32 = 16;

/// How the signer goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How often the chain is asked while something is under way and nothing is heard.
    pub poll: Duration,
    /// After how long a transaction that is not final is sent again.
    pub resend: Duration,
    /// Longest pause after a failure.
    pub patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(2),
            resend: Duration::from_secs(15),
            patience: Duration::from_secs(15),
        }
    }
}

/// A call under way, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnderWay {
    /// What names it.
    pub id: CallId,
    /// What is asked, as a word for programs.
    pub word: &'static str,
    /// What is asked, for people.
    pub what: String,
    /// When it was asked, in milliseconds since 1970.
    pub asked_ms: u64,
    /// Transactions made for it so far.
    pub attempts: u32,
    /// Why it takes its time, where that is known.
    pub trouble: Option<String>,
}

/// What the signer is at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// What is under way.
    pub open: Vec<UnderWay>,
    /// Why the chain cannot be asked now.
    pub trouble: Option<String>,
}

enum Command {
    Ask { call: Box<Call>, reply: oneshot::Sender<Result<Asked, OutboxError>> },
    Wait { id: CallId, reply: oneshot::Sender<Finished> },
    History { reply: oneshot::Sender<Vec<Finished>> },
    Forget { reply: oneshot::Sender<Result<usize, OutboxError>> },
}

/// Why a call was not taken or its end not heard of.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The outbox did not take it.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The signer has ended.
    #[error("the node is shutting down; what was asked of the chain goes on when it starts again")]
    Closed,
}

/// Asks things of the chain through the one signer.
#[derive(Clone, Debug)]
pub struct SignerHandle {
    commands: mpsc::Sender<Command>,
    standing: watch::Receiver<Standing>,
}

impl SignerHandle {
    /// Keeps a call and sees to it from now on, through crashes.
    ///
    /// # Errors
    /// [`AskError`]
    pub async fn ask(&self, call: Call) -> Result<Asked, AskError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Ask { call: Box::new(call), reply };
        self.commands.send(command).await.map_err(|_| AskError::Closed)?;
        Ok(answer.await.map_err(|_| AskError::Closed)??)
    }

    /// Waits until a call has ended. Of one that ended before, the last end is told.
    ///
    /// # Errors
    /// [`AskError::Closed`], also for a call that was never asked.
    pub async fn wait(&self, id: CallId) -> Result<Finished, AskError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Wait { id, reply }).await.map_err(|_| AskError::Closed)?;
        answer.await.map_err(|_| AskError::Closed)
    }

    /// The calls that ended, the last one last.
    ///
    /// # Errors
    /// [`AskError::Closed`]
    pub async fn history(&self) -> Result<Vec<Finished>, AskError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::History { reply }).await.map_err(|_| AskError::Closed)?;
        answer.await.map_err(|_| AskError::Closed)
    }

    /// Gives up all that is under way, sent or not; how many that were. Only right for a chain that no longer exists.
    ///
    /// # Errors
    /// [`AskError`]
    pub async fn forget(&self) -> Result<usize, AskError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Forget { reply }).await.map_err(|_| AskError::Closed)?;
        Ok(answer.await.map_err(|_| AskError::Closed)??)
    }

    /// What is under way.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }
}

/// What is known about a call beyond what is on disk; after a restart it is found out again.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// The last final block that was looked through for its transaction.
    searched: u32,
    sent: Option<Instant>,
    /// The final block at which an unsigned call was refused first, and when.
    refused: Option<(u32, Instant)>,
    trouble: Option<String>,
    /// Whether the trouble is that the node would not include it as it is: its number is then free for another.
    invalid: bool,
}

/// Why a step was not finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// The owner of the account.
#[derive(Debug)]
pub struct Signer<L> {
    link: L,
    outbox: Outbox,
    pace: Pace,
    /// The next number to use, unless something happened that makes it doubtful.
    nonce: Option<u64>,
    seen: BTreeMap<CallId, Seen>,
    waiters: BTreeMap<CallId, Vec<oneshot::Sender<Finished>>>,
    standing: watch::Sender<Standing>,
    trouble: Option<String>,
}

impl<L: Link> Signer<L> {
    /// A signer over a chain and the calls that were under way. Nothing happens before [`Signer::run`].
    pub fn new(link: L, outbox: Outbox, pace: Pace) -> Self {
        let standing = watch::Sender::new(Standing::default());
        Self {
            link,
            outbox,
            pace,
            nonce: None,
            seen: BTreeMap::new(),
            waiters: BTreeMap::new(),
            standing,
            trouble: None,
        }
    }

    /// The task and what asks it. It ends when all handles are gone; `heard` wakes it when a block became final.
    pub fn bind(
        self,
        heard: std::sync::Arc<Notify>,
    ) -> (SignerHandle, impl Future<Output = ()> + Send + 'static) {
        let (sender, commands) = mpsc::channel(64);
        self.tell();
        let handle = SignerHandle { commands: sender, standing: self.standing.subscribe() };
        (handle, self.run(commands, heard))
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>, heard: std::sync::Arc<Notify>) {
        let mut pause = Duration::ZERO;
        loop {
            let idle = self.outbox.entries().next().is_none();
            let wait = if idle { Duration::from_secs(3_600) } else { pause };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                () = heard.notified(), if !idle && self.trouble.is_none() => {}
                () = sleep(wait), if !idle => {}
            }
            while let Ok(command) = commands.try_recv() {
                self.obey(command);
            }
            pause = match self.step().await {
                Ok(()) => {
                    self.trouble = None;
                    self.pace.poll
                }
                Err(error) => {
                    tracing::debug!(%error, "the chain could not be asked");
                    self.trouble = Some(error.to_string());
                    // What was sent may or may not have arrived.
                    self.seen.values_mut().for_each(|seen| seen.sent = None);
                    self.nonce = None;
                    (pause * 2).clamp(Duration::from_millis(250), self.pace.patience)
                }
            };
            self.tell();
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Ask { call, reply } => {
                let _ = reply.send(self.outbox.ask(*call, unix_ms()));
            }
            Command::Wait { id, reply } => {
                if self.outbox.entry(id).is_some() {
                    let waiters = self.waiters.entry(id).or_default();
                    if waiters.len() < MAX_WAITERS {
                        waiters.push(reply);
                    }
                } else if let Some(finished) = self.outbox.history().rev().find(|done| done.id == id) {
                    let _ = reply.send(finished.clone());
                }
            }
            Command::History { reply } => {
                let _ = reply.send(self.outbox.history().cloned().collect());
            }
            Command::Forget { reply } => {
                let ids: Vec<_> = self.outbox.entries().map(|entry| entry.id).collect();
                let reason = "the owner gave it up".to_owned();
                let ended =
                    ids.iter().try_for_each(|id| self.end(*id, Outcome::Refused { reason: reason.clone() }));
                let _ = reply.send(ended.map(|()| ids.len()));
            }
        }
        self.tell();
    }

    fn tell(&self) {
        let open = self.outbox.entries().map(|entry| UnderWay {
            id: entry.id,
            word: entry.call.word(),
            what: entry.call.to_string(),
            asked_ms: entry.asked_ms,
            attempts: entry.attempts,
            trouble: self.seen.get(&entry.id).and_then(|seen| seen.trouble.clone()),
        });
        let standing = Standing { open: open.collect(), trouble: self.trouble.clone() };
        self.standing.send_if_modified(|told| {
            let changed = *told != standing;
            *told = standing;
            changed
        });
    }

    /// Brings all that is under way as far as it gets now.
    pub(crate) async fn step(&mut self) -> Result<(), StepError> {
        let ids: Vec<_> = self.outbox.entries().map(|entry| entry.id).take(MAX_LIVE).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let head = self.link.head().await?;
        for id in ids {
            let Some(entry) = self.outbox.entry(id).cloned() else { continue };
            match entry.attempt.clone() {
                None => self.make(&entry, head).await?,
                Some(attempt) => self.follow(&entry, &attempt, head).await?,
            }
        }
        Ok(())
    }

    async fn make(&mut self, entry: &Entry, head: Head) -> Result<(), StepError> {
        let nonce = if entry.call.is_signed() { self.number(entry.id).await? } else { 0 };
        let attempt = match self.link.make(&entry.call, nonce, head).await {
            Ok(attempt) => attempt,
            // Another try gives nothing else before this program or the chain changes.
            Err(LinkError::OtherRuntime(what)) => {
                let reason = LinkError::OtherRuntime(what).to_string();
                return Ok(self.end(entry.id, Outcome::Refused { reason })?);
            }
            Err(error) => return Err(error.into()),
        };
        self.outbox.attempt(entry.id, attempt.clone())?;
        self.seen.insert(entry.id, Seen { searched: attempt.birth, ..Seen::default() });
        if entry.call.is_signed() {
            self.nonce = nonce.checked_add(1);
        }
        self.send(entry, &attempt, head).await
    }

    /// The next number that no transaction of another call has. Where there is none, the node is asked: another
    /// machine may have used the key meanwhile, or a development chain have begun anew.
    async fn number(&mut self, of: CallId) -> Result<u64, StepError> {
        let taken: BTreeSet<u64> = self
            .outbox
            .entries()
            .filter(|entry| entry.id != of && entry.call.is_signed())
            .filter(|entry| !self.seen.get(&entry.id).is_some_and(|seen| seen.invalid))
            .filter_map(|entry| Some(entry.attempt.as_ref()?.nonce))
            .collect();
        let mut nonce = match self.nonce.filter(|_| !taken.is_empty()) {
            Some(nonce) => nonce,
            None => self.link.next_nonce().await?,
        };
        while taken.contains(&nonce) {
            nonce = nonce.saturating_add(1);
        }
        Ok(nonce)
    }

    async fn follow(&mut self, entry: &Entry, attempt: &Attempt, head: Head) -> Result<(), StepError> {
        if !self.is_on_chain(entry.id, attempt, head).await? {
            return Ok(());
        }
        if let Some((block, number, index)) = self.find(entry.id, attempt, head).await? {
            let outcome = match self.link.effect(block, index, &entry.call).await? {
                Effect::Done { paid, notes } => Outcome::Done { block: number, paid, notes },
                Effect::Failed(reason) => Outcome::Failed { block: number, reason },
            };
            return Ok(self.end(entry.id, outcome)?);
        }
        if !entry.call.is_signed() {
            if self.link.is_done(&entry.call, head).await? {
                return Ok(self.end(entry.id, Outcome::AlreadyDone)?);
            }
            let seen = self.seen.entry(entry.id).or_default();
            if let Some((block, when)) = seen.refused
                && (head.number.saturating_sub(block) >= PATIENCE || when.elapsed() >= GRACE)
            {
                let reason = seen.trouble.take().unwrap_or_default();
                return Ok(self.end(entry.id, Outcome::Refused { reason })?);
            }
        } else if attempt.is_past(head.number) || self.link.nonce_at(head).await? > attempt.nonce {
            // All blocks that could hold it have been read.
            return self.replace(entry, head).await;
        }
        let due = |sent: Instant| sent.elapsed() >= self.pace.resend;
        if self.seen.get(&entry.id).and_then(|seen| seen.sent).is_none_or(due) {
            return self.send(entry, attempt, head).await;
        }
        Ok(())
    }

    /// Whether the node's chain is the one that the transaction was made for, as far as it goes. Where it is not,
    /// nothing is done: on the right chain the transaction may be included.
    async fn is_on_chain(&mut self, id: CallId, attempt: &Attempt, head: Head) -> Result<bool, StepError> {
        let trouble = if head.number < attempt.birth {
            Some(
                "the node's chain is shorter than it was when this was signed: it catches up, or is another one",
            )
        } else if self.link.hash_of(attempt.birth).await? != Some(attempt.birth_hash) {
            Some(
                "the node is on another branch than the one this was signed for: use another node, or, if this was a development chain that is gone, `potluck chain forget`",
            )
        } else {
            None
        };
        let seen = self.seen.entry(id).or_default();
        if let Some(trouble) = trouble {
            seen.trouble = Some(trouble.into());
            return Ok(false);
        }
        if !seen.invalid && seen.refused.is_none() {
            seen.trouble = None;
        }
        Ok(true)
    }

    /// Looks for the transaction in the final blocks that were not looked through yet: block hash, number and index.
    async fn find(
        &mut self,
        id: CallId,
        attempt: &Attempt,
        head: Head,
    ) -> Result<Option<([u8; 32], u32, usize)>, StepError> {
        // Whether an old call without an era was done is asked instead.
        let oldest = if attempt.period == 0 { head.number.saturating_sub(LOOK_BACK) } else { 0 };
        let searched = self.seen.get(&id).map_or(0, |seen| seen.searched).max(attempt.birth).max(oldest);
        for number in searched.saturating_add(1)..=attempt.last_block(head.number) {
            let body = self.link.body(number).await?;
            let body = body.ok_or_else(|| {
                LinkError::Nonsense(format!("it lacks block {number}, though it has later ones"))
            })?;
            if let Some(index) = body.transactions.iter().position(|hash| *hash == attempt.hash) {
                return Ok(Some((body.hash, number, index)));
            }
            self.seen.entry(id).or_default().searched = number;
        }
        Ok(None)
    }

    /// Makes another transaction in place of one that can never be included.
    async fn replace(&mut self, entry: &Entry, head: Head) -> Result<(), StepError> {
        self.nonce = None;
        let seen = self.seen.remove(&entry.id).unwrap_or_default();
        if let Some(reason) = seen.trouble.filter(|_| seen.invalid) {
            return Ok(self.end(entry.id, Outcome::Refused { reason })?);
        }
        if entry.attempts >= MAX_ATTEMPTS {
            let reason = format!("{MAX_ATTEMPTS} transactions were made for it, and no block took one");
            return Ok(self.end(entry.id, Outcome::Refused { reason })?);
        }
        self.make(entry, head).await
    }

    async fn send(&mut self, entry: &Entry, attempt: &Attempt, head: Head) -> Result<(), StepError> {
        let sent = self.link.submit(&attempt.bytes).await;
        let seen = self.seen.entry(entry.id).or_default();
        seen.sent = Some(Instant::now());
        match sent {
            Ok(()) | Err(SubmitError::Known) => {
                (seen.trouble, seen.invalid, seen.refused) = (None, false, None)
            }
            Err(SubmitError::Link(error)) => {
                seen.sent = None;
                return Err(error.into());
            }
            Err(SubmitError::Stale | SubmitError::Future | SubmitError::Outdated)
                if entry.call.is_signed() =>
            {
                self.nonce = None;
            }
            Err(error) if entry.call.is_signed() => {
                (seen.trouble, seen.invalid) = (Some(error.to_string()), true);
                self.nonce = None;
            }
            Err(error) => {
                // What it asks may be in a block that is not final yet: it is given up only when it still is not done
                // some blocks later.
                seen.refused.get_or_insert((head.number, Instant::now()));
                seen.trouble = Some(error.to_string());
            }
        }
        Ok(())
    }

    fn end(&mut self, id: CallId, outcome: Outcome) -> Result<(), OutboxError> {
        self.outbox.end(id, outcome, unix_ms())?;
        self.seen.remove(&id);
        let waiters = self.waiters.remove(&id).unwrap_or_default();
        if let Some(finished) = self.outbox.history().next_back() {
            for waiter in waiters {
                let _ = waiter.send(finished.clone());
            }
        }
        Ok(())
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
