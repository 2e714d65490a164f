//! One job's way from provider to provider until its answer is complete.

use std::{collections::HashSet, sync::Arc};

use potluck_primitives::MicroCredits;
use tokio::{sync::mpsc::Sender, time::Instant};

use super::{PATH, Parts, Trouble, away, trouble, unanswered};
use crate::{
    dispatch::{
        health::{Blame, Measured},
        pool::{
            said::{Said, SeamError},
            score::Size,
        },
    },
    identity::NodeId,
    job::{Bill, Billed, Event, Job, JobError, Mode, Reply, Usage},
    pool::public::{
        budget::Reservation,
        market::{Candidate, Wish, floor},
        receipts::Side,
        session::{
            Unreached,
            ask::{Call, Request},
        },
    },
};

/// A job on its way.
pub(super) struct Errand {
    parts: Arc<Parts>,
    job: Job,
    size: Size,
    tried: HashSet<NodeId>,
    said: Said,
    /// BLAKE3 of the model's file that began the answer, once something was said.
    began: Option<[u8; 32]>,
    /// The refusal that says most.
    refusal: Option<JobError>,
    reservation: Reservation,
    bill: Bill,
}

/// A provider that works on the job.
struct Turn {
    parts: Arc<Parts>,
    candidate: Candidate,
    call: Option<Box<Call>>,
    began: Instant,
    first: Option<Instant>,
    /// Tokens it was given.
    resumed: u32,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.parts.health.end(self.candidate.provider(), self.candidate.model.name());
    }
}

/// How a provider's turn ended.
enum End {
    Done(Event),
    ReaderGone,
    Broke(Trouble),
}

impl Errand {
    /// Finds a provider that takes the job, and passes its answer on.
    pub(super) async fn start(parts: Arc<Parts>, job: Job) -> Result<Reply, JobError> {
        let reservation = parts.budgets.reserve(&job.spend)?;
        let mut errand = Self {
            size: Size::of(&job),
            parts,
            job,
            tried: HashSet::new(),
            said: Said::default(),
            began: None,
            refusal: None,
            reservation,
            bill: Bill::default(),
        };
        let turn = errand.next().await?;
        let (events, mut reply) = Reply::channel(turn.candidate.provider().to_string(), Mode::Public);
        reply.bill = Some(errand.bill.clone());
        tokio::spawn(errand.run(turn, events));
        Ok(reply)
    }

    async fn run(mut self, mut turn: Turn, events: Sender<Result<Event, JobError>>) {
        loop {
            let end = tokio::select! {
                // A reader that goes away ends everything at once; the provider sees its stream end.
                () = events.closed() => End::ReaderGone,
                end = self.pass(&mut turn, &events) => end,
            };
            let trouble = match end {
                End::Done(done) => return self.settle(turn, done, &events).await,
                End::ReaderGone => return self.make_out(&turn.candidate, None),
                End::Broke(trouble) => trouble,
            };
            let (at_risk, provider) =
                (turn.call.as_ref().map(|call| call.at_risk()), turn.candidate.provider());
            tracing::info!(%provider, at_risk = %at_risk.unwrap_or_default(), why = %trouble.error, "a provider broke off");
            self.parts.note(&turn.candidate, &trouble);
            if trouble.last {
                self.make_out(&turn.candidate, None);
                let _ = events.send(Err(trouble.error)).await;
                return;
            }
            let candidate = turn.candidate.clone();
            drop(turn);
            self.refuse(trouble.error);
            let next = tokio::select! {
                () = events.closed() => return self.make_out(&candidate, None),
                next = self.next() => next,
            };
            match next {
                Ok(next) => turn = next,
                Err(error) => {
                    self.make_out(&candidate, None);
                    let _ = events.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    /// The next provider that takes the job.
    async fn next(&mut self) -> Result<Turn, JobError> {
        while self.tried.len() < self.parts.config.tries {
            let (limit, me) = (self.reservation.left(), self.parts.me);
            let job = self.continued();
            let wish = Wish { job: &job, size: self.size, limit, me };
            let ranked = self.parts.ranked(&wish, |candidate| {
                // Files that differ give answers that differ.
                let same = self.began.is_none_or(|digest| digest == candidate.model.digest);
                same && !self.tried.contains(&candidate.provider())
            });
            let Some(candidate) = ranked.into_iter().next() else { break };
            self.tried.insert(candidate.provider());
            match self.ask(&job, candidate).await {
                Ok(turn) => return Ok(turn),
                Err(trouble) if trouble.last => return Err(trouble.error),
                Err(trouble) => self.refuse(trouble.error),
            }
        }
        Err(self.give_up())
    }

    /// The job with what of its answer is there.
    fn continued(&self) -> Job {
        let mut job = self.job.clone();
        job.resume.extend_from_slice(&self.said.tokens);
        job
    }

    async fn ask(&mut self, job: &Job, candidate: Candidate) -> Result<Turn, Trouble> {
        self.said.begin();
        let (provider, model) = (candidate.provider(), candidate.model.clone());
        self.parts.health.begin(provider, model.name(), true, Instant::now());
        let mut turn = Turn {
            parts: Arc::clone(&self.parts),
            candidate,
            call: None,
            began: Instant::now(),
            first: None,
            resumed: u32::try_from(job.resume.len()).unwrap_or(u32::MAX),
        };
        let offer = turn.candidate.listed.offer();
        let begun = match self.parts.circuits.dial(offer, self.reservation.spent()).await {
            Ok(stream) => {
                let request = Request {
                    job,
                    provider,
                    model: model.name(),
                    rates: model.rates,
                    limit: self.reservation.left(),
                    spent: self.reservation.spent(),
                    purse: Arc::clone(&self.parts.purse),
                    timers: self.parts.config.timers,
                    audit: false,
                };
                Call::begin(stream, request).await.map_err(trouble)
            }
            Err(Unreached::Away(reason)) => Err(away(reason)),
            Err(Unreached::Payment(error)) => Err(trouble(error.into())),
        };
        match begun {
            Ok(call) => {
                turn.call = Some(Box::new(call));
                turn.began = Instant::now();
                Ok(turn)
            }
            Err(trouble) => {
                self.parts.note(&turn.candidate, &trouble);
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
            JobError::Cancelled | JobError::ShuttingDown => 1,
            JobError::Internal { .. }
            | JobError::Unanswered { .. }
            | JobError::ModelUnusable { .. }
            | JobError::Payment { .. } => 2,
            JobError::ContextLengthExceeded { .. } => 3,
            _ => 4,
        };
        if self.refusal.as_ref().is_none_or(|old| weight(&error) >= weight(old)) {
            self.refusal = Some(error);
        }
    }

    /// Why no provider takes the job.
    fn give_up(&mut self) -> JobError {
        if !self.said.is_empty() {
            let why = self.refusal.take().map_or_else(String::new, |error| format!(": {error}"));
            let reason = format!("the provider that answered is gone and no other can go on{why}");
            return JobError::Unanswered { reason };
        }
        if let Some(refusal) = self.refusal.take() {
            return match refusal {
                // A stranger that stops is not this node.
                JobError::ShuttingDown | JobError::Cancelled => {
                    let reason = "every provider of this model is stopping; try again in a moment".into();
                    JobError::Unanswered { reason }
                }
                other => other,
            };
        }
        let all = self.parts.candidates(&self.job.model);
        let model = self.job.model.clone();
        let prompt = u32::try_from(self.size.least).unwrap_or(u32::MAX);
        let Some(least) = all.iter().map(|candidate| floor(candidate.model.rates, prompt)).min() else {
            let reason = format!(
                "nobody who is known offers `{model}`; `potluck public status` lists what is offered, public.bootstrap says where to look"
            );
            return JobError::Unanswered { reason };
        };
        let room = all.iter().map(|candidate| u64::from(candidate.model.context)).max().unwrap_or(0);
        let needed = self.size.least.saturating_add(self.size.answer);
        if needed > room {
            return JobError::ContextLengthExceeded { model, needed, available: room };
        }
        if least > self.reservation.left() {
            let most = self.reservation.left();
            let reason = format!(
                "the prompt and the way there alone cost at least {least} credits, where {most} may be paid; raise x-potluck-max-price, or the key's or the day's budget where that is less"
            );
            return JobError::Payment { reason };
        }
        let reason =
            "every provider of this model failed lately or has enough to do; try again in a moment".into();
        JobError::Unanswered { reason }
    }

    /// Passes a provider's answer on until it ends one way or another.
    async fn pass(&mut self, turn: &mut Turn, events: &Sender<Result<Event, JobError>>) -> End {
        let most = self.job.max_tokens;
        loop {
            let Some(call) = turn.call.as_mut() else {
                return End::Broke(unanswered("nobody works on the job".into()));
            };
            let event = match call.next().await {
                Ok(event) => event,
                Err(error) => return End::Broke(trouble(error)),
            };
            let broke = |error: SeamError| {
                End::Broke(Trouble { blame: Some(Blame::Model), ..unanswered(error.to_string()) })
            };
            match event {
                Event::Text { text, logprobs, tokens } => {
                    turn.token();
                    match self.said.take(&text, logprobs, &tokens, most) {
                        Ok(Some(event)) => {
                            self.began.get_or_insert(turn.candidate.model.digest);
                            if !turn.room(events, event).await {
                                return End::ReaderGone;
                            }
                        }
                        Ok(None) => {}
                        Err(error) => return broke(error),
                    }
                }
                done @ Event::Done { .. } => {
                    if !self.said.has_joined() {
                        return broke(SeamError::Differs);
                    }
                    if let Event::Done { usage, .. } = &done {
                        turn.done(usage, self.said.own_tokens);
                    }
                    return End::Done(done);
                }
            }
        }
    }

    /// Takes and keeps the receipt, makes the bill out, and ends the answer.
    async fn settle(self, mut turn: Turn, done: Event, events: &Sender<Result<Event, JobError>>) {
        let Some(call) = turn.call.take() else { return };
        let paid = call.paid();
        let whole = call.receipt().await;
        if let Some(whole) = whole.clone() {
            let (book, asked_as) = (Arc::clone(&self.parts.receipts), *self.job.id.as_bytes());
            let kept =
                tokio::task::spawn_blocking(move || book.keep(Side::Asked, paid, asked_as, &whole)).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!(%error, "a receipt is not kept");
            }
        }
        self.make_out(&turn.candidate, whole);
        let _ = events.send(Ok(done)).await;
    }

    fn make_out(&self, candidate: &Candidate, receipt: Option<Vec<u8>>) {
        let cost: MicroCredits = self.reservation.total();
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.bill.make_out(Billed {
            cost: u64::try_from(cost.0).unwrap_or(u64::MAX),
            audit: candidate.class().as_str().to_owned(),
            receipt: receipt.map(hex).unwrap_or_default(),
        });
    }
}

impl Turn {
    /// Gives an event to the reader. While it takes its time the provider is paid and hears that it is not forgotten.
    /// False: the reader is gone, or the provider, which the next event will tell.
    async fn room(&mut self, events: &Sender<Result<Event, JobError>>, event: Event) -> bool {
        let permit = match &mut self.call {
            Some(call) => {
                let room = events.reserve();
                tokio::pin!(room);
                tokio::select! {
                    biased;
                    permit = &mut room => permit,
                    () = call.idle() => room.await,
                }
            }
            None => events.reserve().await,
        };
        permit.map(|permit| permit.send(Ok(event))).is_ok()
    }

    /// A token came back.
    fn token(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.parts.health.token(self.candidate.provider(), self.candidate.model.name(), PATH, now);
    }

    /// The answer is complete.
    fn done(&mut self, usage: &Usage, tokens: usize) {
        let Some(first) = self.first else { return };
        let computed = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
        let measured = Measured {
            first: first.saturating_duration_since(self.began),
            prompt_tokens: computed.saturating_add(self.resumed),
            tokens: u32::try_from(tokens).unwrap_or(u32::MAX).saturating_sub(1),
            time: first.elapsed(),
        };
        self.parts.health.measured(self.candidate.provider(), self.candidate.model.name(), measured);
    }
}
