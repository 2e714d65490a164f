//! One job on its way through the scheduler.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use potluck_kernels::{backend::PageId, engine::kv::PagePool, sample::Sampler, tokenizer::Tokenizer};
use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::text::TextOut;
use crate::{
    inference::{
        grammar::Grammar,
        lease::Lease,
        prepare::Prepared,
        vouch::{Vouch, Vouching},
    },
    job::{Event, FinishReason, JobError, Usage},
};

/// How long an answer may wait for a reader that takes nothing before it is given up.
const STALL_LIMIT: Duration = Duration::from_secs(300);

/// A job that is ready for the engine: checked, rendered, counted.
pub(in crate::inference) struct Work {
    pub(in crate::inference) prepared: Prepared,
    pub(in crate::inference) tokenizer: Arc<Tokenizer>,
    pub(in crate::inference) events: Sender<Result<Event, JobError>>,
    /// Keeps the model loaded and the job counted.
    pub(in crate::inference) lease: Lease,
    pub(in crate::inference) submitted: Instant,
    pub(in crate::inference) load: Duration,
    /// Where the commitments to its hidden states are wanted.
    pub(in crate::inference) vouch: Option<Vouch>,
}

/// What a sequence waits for before its next token can be chosen.
#[derive(Debug)]
pub(super) enum Constraint {
    /// Nothing.
    Free,
    /// The grammar is being advanced elsewhere.
    Computing,
    /// The tokens that are allowed next.
    Allowed(Grammar, Vec<u32>),
}

/// A job that has a place in the engine, or had one and waits for it again.
pub(super) struct Sequence {
    pub(super) id: u64,
    /// Prompt and answer so far.
    pub(super) tokens: Vec<u32>,
    pub(super) prompt: usize,
    /// Tokens of the answer that were made elsewhere.
    pub(super) resumed: usize,
    pub(super) limit: usize,
    /// The answer was complete when it came.
    pub(super) ended: Option<FinishReason>,
    /// Tokens whose keys and values are in the cache.
    pub(super) computed: usize,
    pub(super) pages: Vec<PageId>,
    pub(super) sampler: Sampler,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) text: TextOut,
    pub(super) constraint: Constraint,
    /// Logits that wait for the grammar.
    pub(super) logits: Option<Vec<f32>>,
    /// Commits to the hidden states that the answer's tokens were drawn from.
    pub(super) vouching: Option<Vouching>,
    /// An event that the reader had no room for, and since when.
    blocked: Option<(Event, Instant)>,
    events: Sender<Result<Event, JobError>>,
    pub(super) lease: Lease,
    pub(super) usage: Usage,
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

impl Sequence {
    pub(super) fn new(id: u64, work: Work) -> Self {
        let Prepared { tokens, prompt, limit, sampler, text, said, ended, grammar } = work.prepared;
        let resumed = tokens.len().saturating_sub(prompt);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let usage = Usage {
            prompt_tokens: count(prompt),
            completion_tokens: count(resumed),
            load: work.load,
            ..Usage::default()
        };
        let constraint = match grammar {
            Some((grammar, mask)) => Constraint::Allowed(grammar, mask),
            None => Constraint::Free,
        };
        let mut sequence = Self {
            id,
            prompt,
            resumed,
            tokens,
            limit,
            ended,
            computed: 0,
            pages: Vec::new(),
            sampler,
            tokenizer: work.tokenizer,
            text,
            constraint,
            logits: None,
            vouching: work.vouch.map(Vouching::new),
            blocked: None,
            events: work.events,
            lease: work.lease,
            usage,
            submitted: work.submitted,
            started: None,
            first_token: None,
        };
        if !said.is_empty() {
            sequence.send(Event::Text { text: said, logprobs: Vec::new(), tokens: Vec::new() });
        }
        sequence
    }

    /// Whether the caller went away, or takes nothing for too long.
    pub(super) fn is_gone(&self) -> bool {
        let stalled = self.blocked.as_ref().is_some_and(|(_, since)| since.elapsed() > STALL_LIMIT);
        self.events.is_closed() || stalled
    }

    /// Tokens that are not in the cache yet.
    pub(super) fn missing(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether only the newest token is missing: the next step gives the next token.
    pub(super) fn decodes(&self) -> bool {
        self.missing() == 1 && self.tokens.len() > self.prompt
    }

    /// Whether the next step may work on this sequence.
    pub(super) fn is_ready(&self) -> bool {
        self.missing() > 0 && self.logits.is_none() && self.blocked.is_none()
    }

    /// Notes the first time the engine works on it.
    pub(super) fn start(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    /// Gives the cache back. Tails of prefixes go first, so that heads stay longest.
    pub(super) fn release(&mut self, pool: &mut PagePool) {
        for page in self.pages.drain(..).rev() {
            if let Err(error) = pool.release(page) {
                tracing::error!(%error, "the page pool lost count");
            }
        }
        self.computed = 0;
    }

    /// Sends an event if there is room, else keeps it and pauses the sequence.
    pub(super) fn send(&mut self, event: Event) {
        match self.events.try_send(Ok(event)) {
            Ok(()) => {}
            Err(TrySendError::Full(Ok(event))) => self.blocked = Some((event, Instant::now())),
            Err(TrySendError::Full(Err(_)) | TrySendError::Closed(_)) => {}
        }
    }

    /// Tries again to send what was kept.
    pub(super) fn unblock(&mut self) {
        if let Some((event, since)) = self.blocked.take()
            && let Err(TrySendError::Full(Ok(event))) = self.events.try_send(Ok(event))
        {
            self.blocked = Some((event, since));
        }
    }

    /// Time since the engine first worked on it.
    pub(super) fn in_engine(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Notes a token of the answer.
    pub(super) fn append(&mut self, token: u32) {
        self.tokens.push(token);
        self.count();
    }

    /// Counts a produced token, whether it is kept or ends the answer.
    pub(super) fn count(&mut self) {
        self.first_token.get_or_insert_with(Instant::now);
        self.usage.completion_tokens += 1;
    }

    /// Ends the answer: the rest of the text, then `Done`.
    pub(super) fn finish(mut self, reason: FinishReason) -> Ended {
        let now = Instant::now();
        let started = self.started.unwrap_or(now);
        let first = self.first_token.unwrap_or(now);
        self.usage.prompt = first.saturating_duration_since(started);
        self.usage.decode = now.saturating_duration_since(first);
        self.usage.total = now.saturating_duration_since(self.submitted);
        if let Some(vouching) = self.vouching.take() {
            vouching.finish();
        }
        let rest = self.text.finish();
        let mut last: Vec<_> = self.blocked.take().map(|(event, _)| Ok(event)).into_iter().collect();
        last.extend(rest.map(Ok));
        last.push(Ok(Event::Done { reason, usage: self.usage }));
        Ended { last, events: self.events, lease: self.lease }
    }

    /// Ends the answer with an error.
    pub(super) fn fail(mut self, error: JobError) -> Ended {
        let mut last: Vec<_> = self.blocked.take().map(|(event, _)| Ok(event)).into_iter().collect();
        last.push(Err(error));
        Ended { last, events: self.events, lease: self.lease }
    }
}

/// An answer that only has to be read.
pub(super) struct Ended {
    last: Vec<Result<Event, JobError>>,
    events: Sender<Result<Event, JobError>>,
    lease: Lease,
}

impl Ended {
    /// Delivers what is left: at once where there is room, else as the reader catches up.
    pub(super) fn deliver(self, runtime: &tokio::runtime::Handle) {
        let Self { last, events, lease } = self;
        let mut left = last.into_iter();
        while let Some(item) = left.next() {
            match events.try_send(item) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => return,
                Err(TrySendError::Full(item)) => {
                    // The engine's part is over: the reader holds nothing but its own channel.
                    drop(lease);
                    runtime.spawn(async move {
                        for item in std::iter::once(item).chain(left) {
                            let sent = tokio::time::timeout(STALL_LIMIT, events.send(item)).await;
                            if !matches!(sent, Ok(Ok(()))) {
                                return;
                            }
                        }
                    });
                    return;
                }
            }
        }
    }
}
