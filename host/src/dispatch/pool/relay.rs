//! One job's way from machine to machine until its answer is complete.

use std::{collections::HashSet, sync::Arc};

use tokio::{sync::mpsc::Sender, sync::watch, time::Instant};

use super::{
    Answerer, Candidate, Inner, Trouble, Wanted, away, internal, refused, said::Said, score::Size, trouble,
};
use crate::{
    dispatch::{
        health::{Blame, Measured},
        load::ModelLoad,
    },
    identity::NodeId,
    job::{Event, Job, JobError, Mode, Reply, Usage},
    mesh::protocol::job::receipts::Served,
    pool::trusted::Admitted,
};

/// A job on its way.
pub(super) struct Relay {
    inner: Arc<Inner>,
    job: Job,
    size: Size,
    target: Option<NodeId>,
    tried: HashSet<Option<NodeId>>,
    said: Said,
    /// The model that began the answer.
    began: Option<ModelLoad>,
    /// The refusal that says most.
    refusal: Option<JobError>,
}

/// A machine that works on the job.
struct Turn {
    inner: Arc<Inner>,
    candidate: Candidate,
    answerer: Option<Answerer>,
    admitted: watch::Receiver<Arc<Vec<Admitted>>>,
    began: Instant,
    first: Option<Instant>,
    /// Tokens it was given.
    resumed: u32,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(peer) = self.candidate.node {
            self.inner.pool.health.end(peer, &self.candidate.load.name);
        }
    }
}

/// How a machine's turn ended.
enum End {
    Done,
    ReaderGone,
    Broke(Trouble),
}

impl Relay {
    /// Finds a machine that takes the job, and passes its answer on.
    pub(super) async fn start(
        inner: Arc<Inner>,
        job: Job,
        target: Option<NodeId>,
    ) -> Result<Reply, JobError> {
        let mut relay = Self {
            size: Size::of(&job),
            inner,
            job,
            target,
            tried: HashSet::new(),
            said: Said::default(),
            began: None,
            refusal: None,
        };
        let turn = relay.next().await?;
        let node = turn.candidate.node.map_or_else(|| turn.candidate.name.clone(), |node| node.to_string());
        let (events, reply) = Reply::channel(node, Mode::Trusted);
        tokio::spawn(relay.run(turn, events));
        Ok(reply)
    }

    async fn run(mut self, mut turn: Turn, events: Sender<Result<Event, JobError>>) {
        loop {
            let end = tokio::select! {
                // A reader that goes away ends everything at once; the machine sees its stream end.
                () = events.closed() => End::ReaderGone,
                end = self.pass(&mut turn, &events) => end,
            };
            let trouble = match end {
                End::Done => return self.settle(turn).await,
                End::ReaderGone => return,
                End::Broke(trouble) => trouble,
            };
            self.inner.note(&turn.candidate, &trouble);
            if trouble.last {
                let _ = events.send(Err(trouble.error)).await;
                return;
            }
            let from = turn.candidate.name.clone();
            drop(turn);
            self.refuse(trouble.error);
            let next = tokio::select! {
                () = events.closed() => return,
                next = self.next() => next,
            };
            match next {
                Ok(next) => {
                    let (tokens, to) = (self.said.tokens.len(), &next.candidate.name);
                    tracing::info!(job = %self.job.id, from, to, tokens, "another machine goes on");
                    turn = next;
                }
                Err(error) => {
                    let _ = events.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    /// The next machine that takes the job.
    async fn next(&mut self) -> Result<Turn, JobError> {
        while self.tried.len() < self.inner.pool.config.tries {
            let wanted = Wanted {
                job: &self.job,
                size: self.size,
                target: self.target,
                tried: &self.tried,
                began: self.began.as_ref(),
            };
            let ranked = self.inner.ranked(&wanted).await;
            let candidate = match ranked.map(|ranked| ranked.into_iter().next()) {
                Ok(Some(candidate)) => candidate,
                Ok(None) => break,
                Err(busy) => {
                    self.refuse(busy);
                    break;
                }
            };
            self.tried.insert(candidate.node);
            match self.ask(candidate).await {
                Ok(turn) => return Ok(turn),
                Err(trouble) if trouble.last => return Err(trouble.error),
                Err(trouble) => self.refuse(trouble.error),
            }
        }
        Err(self.give_up().await)
    }

    async fn ask(&mut self, candidate: Candidate) -> Result<Turn, Trouble> {
        let mut job = self.job.clone();
        job.resume.clone_from(&self.said.tokens);
        let resumed = u32::try_from(job.resume.len()).unwrap_or(u32::MAX);
        self.said.begin();
        if let Some(peer) = candidate.node {
            self.inner.pool.health.begin(peer, &candidate.load.name, true, Instant::now());
        }
        let mut turn = Turn {
            inner: self.inner.clone(),
            candidate,
            answerer: None,
            admitted: self.inner.pool.membership.watch(),
            began: Instant::now(),
            first: None,
            resumed,
        };
        match self.inner.ask(&turn.candidate, job).await {
            Ok(answerer) => {
                self.inner.prefixes.note(turn.candidate.node, &self.inner.prefixes.of(&self.job));
                turn.answerer = Some(answerer);
                turn.began = Instant::now();
                Ok(turn)
            }
            Err(trouble) => {
                self.inner.note(&turn.candidate, &trouble);
                Err(trouble)
            }
        }
    }

    /// Keeps the refusal that says most, and what it says about the size of the job.
    fn refuse(&mut self, error: JobError) {
        if let JobError::ContextLengthExceeded { needed, .. } = error {
            self.size = self.size.counted(needed);
        }
        let weight = |error: &JobError| match error {
            JobError::ModelNotFound { .. } => 0,
            JobError::Cancelled | JobError::ShuttingDown | JobError::ModeUnavailable { .. } => 1,
            JobError::Internal { .. } | JobError::ModelUnusable { .. } => 2,
            JobError::ContextLengthExceeded { .. } => 3,
            _ => 4,
        };
        if self.refusal.as_ref().is_none_or(|old| weight(&error) >= weight(old)) {
            self.refusal = Some(error);
        }
    }

    /// Why no machine takes the job.
    async fn give_up(&mut self) -> JobError {
        let all = self.inner.candidates(&self.job.model, Instant::now()).await;
        let all: Vec<_> =
            all.iter().filter(|c| self.target.is_none_or(|target| c.node == Some(target))).collect();
        if !self.said.is_empty() {
            let why = self.refusal.take().map_or_else(String::new, |error| format!(": {error}"));
            let reason = format!("the machine that answered is gone and no other can go on{why}");
            return JobError::Internal { reason };
        }
        if let Some(refusal) = self.refusal.take() {
            return refusal;
        }
        let needed = self.size.least.saturating_add(self.size.answer);
        let room = all.iter().map(|c| c.load.context).max().unwrap_or(0);
        let model = self.job.model.clone();
        if room > 0 && needed > room {
            return JobError::ContextLengthExceeded { model, needed, available: room };
        }
        match all.iter().find(|c| c.seen.open) {
            Some(candidate) => {
                let why = candidate.seen.trouble.clone().unwrap_or_default();
                let reason = format!("{} failed lately and is not asked for a while: {why}", candidate.name);
                JobError::Internal { reason }
            }
            None => JobError::ModelNotFound { model },
        }
    }

    /// Passes a machine's answer on until it ends one way or another.
    async fn pass(&mut self, turn: &mut Turn, events: &Sender<Result<Event, JobError>>) -> End {
        loop {
            let event = match turn.event().await {
                Ok(event) => event,
                Err(trouble) => return End::Broke(trouble),
            };
            let event = match event {
                Event::Text { text, logprobs, tokens } => {
                    turn.token();
                    match self.said.take(&text, logprobs, &tokens, self.job.max_tokens) {
                        Ok(Some(event)) => {
                            self.began.get_or_insert_with(|| turn.candidate.load.clone());
                            event
                        }
                        Ok(None) => continue,
                        Err(error) => {
                            let blame = Some(Blame::Model);
                            return End::Broke(Trouble { blame, ..internal(error.to_string()) });
                        }
                    }
                }
                Event::Done { reason, usage } => {
                    if !self.said.has_joined() {
                        let error = super::said::SeamError::Differs.to_string();
                        return End::Broke(Trouble { blame: Some(Blame::Model), ..internal(error) });
                    }
                    turn.done(&usage, self.said.own_tokens);
                    Event::Done { reason, usage }
                }
            };
            let done = matches!(event, Event::Done { .. });
            if !turn.room(events, event).await {
                return End::ReaderGone;
            }
            if done {
                return End::Done;
            }
        }
    }

    /// Takes and signs the receipt.
    async fn settle(self, mut turn: Turn) {
        let (Some(peer), Some(Answerer::Member(call))) = (turn.candidate.node, turn.answerer.take()) else {
            return;
        };
        let counted = Served {
            job: self.job.id,
            model: turn.candidate.load.name.clone(),
            // How many tokens a prompt has only the tokenizer knows; this is what it cannot be above.
            prompt_tokens: u32::try_from(self.size.most).unwrap_or(u32::MAX).saturating_add(turn.resumed),
            cached_tokens: 0,
            completion_tokens: u32::try_from(self.said.own_tokens).unwrap_or(u32::MAX),
            compute: call.elapsed(),
        };
        let receipts = self.inner.pool.receipts.clone();
        let sign = |half: &[u8]| match receipts.countersign(peer, half, &counted) {
            Ok(whole) => Some(whole),
            Err(error) => {
                tracing::warn!(%peer, %error, "a receipt is not signed");
                None
            }
        };
        call.receipt(sign).await;
    }
}

impl Turn {
    /// The next event, or why there will be none.
    async fn event(&mut self) -> Result<Event, Trouble> {
        match &mut self.answerer {
            Some(Answerer::Own(reply)) => match reply.next().await {
                Some(Ok(event)) => Ok(event),
                Some(Err(error)) => Err(refused(error)),
                None => Err(internal("the engine broke off without saying why".into())),
            },
            Some(Answerer::Member(call)) => {
                let peer = self.candidate.node;
                tokio::select! {
                    biased;
                    event = call.next() => event.map_err(trouble),
                    // The pool knows sooner than the clock.
                    _ = self.admitted.wait_for(|all| !all.iter().any(|m| Some(m.node) == peer)) => {
                        Err(away("it is no connected member any more".into()))
                    }
                }
            }
            None => Err(internal("nobody works on the job".into())),
        }
    }

    /// Gives an event to the reader. While it takes its time the machine hears that it is not forgotten. False:
    /// the reader is gone, or the machine, which the next event will tell.
    async fn room(&mut self, events: &Sender<Result<Event, JobError>>, event: Event) -> bool {
        let permit = match &mut self.answerer {
            Some(Answerer::Member(call)) => {
                let room = events.reserve();
                tokio::pin!(room);
                tokio::select! {
                    biased;
                    permit = &mut room => permit,
                    () = call.idle() => room.await,
                }
            }
            _ => events.reserve().await,
        };
        permit.map(|permit| permit.send(Ok(event))).is_ok()
    }

    /// A token came back.
    fn token(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        if let Some(peer) = self.candidate.node {
            let Candidate { load, path, .. } = &self.candidate;
            self.inner.pool.health.token(peer, &load.name, path, now);
        }
    }

    /// The answer is complete.
    fn done(&mut self, usage: &Usage, tokens: usize) {
        let (Some(peer), Some(first)) = (self.candidate.node, self.first) else { return };
        let computed = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
        let measured = Measured {
            first: first.saturating_duration_since(self.began),
            prompt_tokens: computed.saturating_add(self.resumed),
            tokens: u32::try_from(tokens).unwrap_or(u32::MAX).saturating_sub(1),
            time: first.elapsed(),
        };
        self.inner.pool.health.measured(peer, &self.candidate.load.name, measured);
    }
}
