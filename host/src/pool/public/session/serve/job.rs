//! One stream: a request, its payments, its answer, its receipt.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use minicbor::bytes::ByteVec;
use potluck_primitives::MicroCredits;
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until, timeout};

use super::{Shared, Till};
use crate::{
    inference::{Vouch, Vouched},
    job::{Event, FinishReason, JobError, Mode, Reply, Usage},
    mesh::{
        frame::FrameError,
        protocol::{
            job::convert,
            link::{self, Reader, Writer},
        },
        streams::{BoxFuture, Stream},
    },
    pool::public::{
        audit::transcript::{self, Asked, Ending, Statement},
        guard::{Gate, Place},
        meter::{Earning, Rates, micros},
        receipts::{self, Served, Side},
        session::PaymentError,
        wire::{self, MAX_FRAME, MAX_PAYMENT, MAX_REQUEST, Opened, ToProvider, ToRequester},
    },
};

/// Time for the last words to a requester that will not be heard any more.
const FAREWELL: Duration = Duration::from_secs(1);
/// Tokens of one event that must be paid before it is sent: an event may hold more when a stop sequence nearly came.
const STEP: u32 = 16;
/// Payments that wait for the issuer.
const WAITING: usize = 64;

/// How a session ended.
enum End {
    Completed,
    Refused(JobError),
    Failed(JobError),
    Unpaid(String),
    Yielded(JobError),
    Gone(&'static str),
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

pub(super) async fn run(shared: Arc<Shared>, stream: Stream, place: Place) {
    let unsealed = timeout(shared.timers.request, shared.serving.seals.unseal(stream)).await;
    let stream = match unsealed {
        Ok(Ok(stream)) => stream,
        Ok(Err(reason)) => {
            tracing::debug!(reason, "a seal cannot be opened");
            shared.cells.nonsense.fetch_add(1, Relaxed);
            return;
        }
        Err(_) => {
            shared.cells.cancelled.fetch_add(1, Relaxed);
            return;
        }
    };
    let (reader, writer) = link::split(stream, MAX_REQUEST);
    let every = shared.timers.heartbeat;
    let mut heartbeat = tokio::time::interval_at(Instant::now() + every, every);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let now = Instant::now();
    let mut stop = shared.stop.subscribe();
    let mut gate = place.gate();
    let mut session = Session {
        shared: &shared,
        reader,
        writer,
        heartbeat,
        heard: now,
        account: None,
        enough: false,
        sent: Vec::new(),
        place,
    };
    let end = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => End::Yielded(JobError::ShuttingDown),
        error = closed(&mut gate) => End::Yielded(error),
        end = session.serve() => end.unwrap_or_else(|end| end),
    };
    session.close(end).await;
}

/// Waits until the contributor wants the machine back at once.
async fn closed(gate: &mut Gate) -> JobError {
    gate.closed().await
}

/// What is earned with a job.
struct Account {
    earning: Earning,
    till: Arc<dyn Till>,
    waiting: VecDeque<(MicroCredits, Vec<Vec<u8>>)>,
    asking: Option<BoxFuture<'static, (MicroCredits, Result<MicroCredits, PaymentError>)>>,
}

impl Account {
    /// Takes tokens in: at once as far as their signatures say, for good when the issuer has answered.
    fn take(&mut self, tokens: Vec<Vec<u8>>) -> Result<(), End> {
        if tokens.is_empty() {
            return Ok(());
        }
        if self.waiting.len() >= WAITING {
            return Err(End::Nonsense("more payments than can be taken in".into()));
        }
        let worth = self.till.verify(&tokens).map_err(|error| End::Unpaid(error.to_string()))?;
        self.earning.pending(worth);
        self.waiting.push_back((worth, tokens));
        self.ask();
        Ok(())
    }

    fn ask(&mut self) {
        if self.asking.is_none()
            && let Some((worth, tokens)) = self.waiting.pop_front()
        {
            let till = Arc::clone(&self.till);
            self.asking = Some(Box::pin(async move { (worth, till.deposit(tokens).await) }));
        }
    }

    /// Waits for the issuer's word on a payment. May be given up and called again.
    async fn settle(&mut self) -> Result<MicroCredits, End> {
        let Some(asking) = &mut self.asking else { return std::future::pending().await };
        let (worth, answer) = asking.await;
        self.asking = None;
        let fresh = answer.map_err(|error| match error {
            PaymentError::Issuer(_) => End::Failed(JobError::Payment { reason: error.to_string() }),
            _ => End::Unpaid(error.to_string()),
        })?;
        self.earning.settled(worth, fresh);
        if fresh < worth {
            return Err(End::Unpaid("a token was spent before".into()));
        }
        self.ask();
        Ok(fresh)
    }

    fn open(&self) -> bool {
        self.asking.is_some() || !self.waiting.is_empty()
    }
}

struct Session<'a> {
    shared: &'a Shared,
    reader: Reader,
    writer: Writer,
    heartbeat: Interval,
    heard: Instant,
    account: Option<Account>,
    /// The requester wants no more.
    enough: bool,
    /// Tokens that were sent.
    sent: Vec<u32>,
    place: Place,
}

impl Session<'_> {
    async fn serve(&mut self) -> Result<End, End> {
        let (bare, (job, receipt_key, limit, spend)) = self.request().await?;
        let model = job.model.clone();
        let rates = self.shared.serving.goods.rates(&model, limit).ok_or_else(|| refused_price(&model))?;
        self.place.allows(&job).map_err(End::Refused)?;
        let (id, resumed) = (*job.id.as_bytes(), u32::try_from(job.resume.len()).unwrap_or(u32::MAX));
        let started_ms = receipts::now_ms();
        let counted = self.meanwhile(self.shared.serving.engine.count(job.clone())).await?;
        let counted = u32::try_from(counted.map_err(End::Refused)?).unwrap_or(u32::MAX);
        let prompt_tokens = counted.saturating_add(resumed);
        let mut account = Account {
            earning: Earning::new(rates, prompt_tokens),
            till: Arc::clone(&self.shared.serving.till),
            waiting: VecDeque::new(),
            asking: None,
        };
        account.take(spend)?;
        self.account = Some(account);
        self.accept(prompt_tokens, rates)?;
        self.paid(0).await?;
        let reply = self.meanwhile(self.shared.serving.engine.submit(job)).await?.map_err(End::Refused)?;
        let vouch = reply.vouch.clone();
        let (reason, usage) = self.stream(reply, (counted, resumed)).await?;
        self.place.leave();
        if let Some(vouched) = vouch.as_ref().and_then(Vouch::get) {
            let ask = transcript::ask_digest(&bare);
            let asked = Asked { job: id, requester: receipt_key, ask, started_ms };
            self.vouch(asked, (reason, self.enough), usage, vouched).await?;
        }
        let served = Served {
            job: id,
            requester: receipt_key,
            model,
            prompt_tokens,
            completion_tokens: self.account.as_ref().map_or(0, |account| account.earning.sent()),
            compute: micros(usage.prompt.saturating_add(usage.decode)),
            started_ms,
            ended_ms: receipts::now_ms(),
        };
        self.receipt(&served).await;
        Ok(End::Completed)
    }

    fn accept(&mut self, prompt_tokens: u32, rates: Rates) -> Result<(), End> {
        let rate = |rate: MicroCredits| u64::try_from(rate.0).unwrap_or(u64::MAX);
        let (prompt_rate, answer_rate) = (rate(rates.prompt), rate(rates.completion));
        self.say(&ToRequester::Accepted { prompt_tokens, prompt_rate, answer_rate })
    }

    /// Reads the request.
    async fn request(&mut self) -> Result<(Vec<u8>, Opened), End> {
        let (reader, all) = (&mut self.reader, &self.shared.arriving);
        let arrive = async {
            let _place = all.acquire().await;
            reader.next::<ToProvider>().await?.ok_or(End::Gone("it sent no request"))
        };
        let message = timeout(self.shared.timers.request, arrive).await;
        let message = message.map_err(|_| End::Gone("its request took too long"))??;
        let ToProvider::Ask { ask } = message else {
            return Err(End::Nonsense("the first message is no request".into()));
        };
        self.heard = Instant::now();
        self.reader.cap(MAX_PAYMENT);
        self.writer.cap(MAX_FRAME);
        let bare = ask.bare();
        let (mut job, key, rates, spend) = (*ask).open().map_err(End::Refused)?;
        job.mode = Mode::Local;
        // Strangers do not decide how long a model stays in this machine's memory.
        job.keep_alive = None;
        Ok((bare, (job, key, rates, spend)))
    }

    /// Waits for work that may take long, while the requester is heard and hears that somebody is there.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                turn = self.turn() => turn?,
            }
        }
    }

    /// One step of everything but the answer: hears, writes, settles, pings. May be given up and called again.
    async fn turn(&mut self) -> Result<(), End> {
        let timers = self.shared.timers;
        let gone = self.heard + timers.deadline;
        let account = &mut self.account;
        let settle = async {
            match account {
                Some(account) => account.settle().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            message = self.reader.next::<ToProvider>() => {
                self.heard = Instant::now();
                match message? {
                    Some(ToProvider::Ping) => Ok(()),
                    Some(ToProvider::Pay { spend }) => self.take(spend),
                    Some(ToProvider::Enough) => {
                        self.enough = true;
                        Ok(())
                    }
                    Some(ToProvider::Ask { .. } | ToProvider::Receipt { .. }) => {
                        Err(End::Nonsense("a message that has no place here".into()))
                    }
                    None => Err(End::Gone("it went away")),
                }
            }
            fresh = settle => {
                self.shared.earned(fresh?);
                Ok(())
            }
            written = self.writer.drive(), if !self.writer.is_clear() => written.map_err(End::from),
            _ = self.heartbeat.tick() => {
                if self.writer.is_clear() {
                    self.writer.put(&ToRequester::Ping)?;
                }
                Ok(())
            }
            () = sleep_until(gone) => Err(End::Gone("it says nothing any more")),
        }
    }

    fn take(&mut self, spend: Vec<ByteVec>) -> Result<(), End> {
        let tokens =
            wire::spend(spend).ok_or_else(|| End::Nonsense("a spend token that is too long".into()))?;
        match &mut self.account {
            Some(account) => account.take(tokens),
            None => Err(End::Nonsense("a payment before the price is known".into())),
        }
    }

    fn covers(&self, tokens: u32) -> bool {
        self.account.as_ref().is_some_and(|account| account.earning.covers(tokens))
    }

    /// Waits until so many more tokens are paid, or the requester wants no more.
    async fn paid(&mut self, tokens: u32) -> Result<(), End> {
        let until = Instant::now() + self.shared.timers.payment;
        while !self.covers(tokens) && !self.enough {
            tokio::select! {
                turn = self.turn() => turn?,
                () = sleep_until(until) => {
                    let waited = self.shared.timers.payment.as_secs();
                    return Err(End::Unpaid(format!("the next chunk was not paid within {waited} s")));
                }
            }
        }
        Ok(())
    }

    /// Passes the answer on as far as it is paid, and no faster than the requester reads.
    async fn stream(&mut self, mut reply: Reply, given: (u32, u32)) -> Result<(FinishReason, Usage), End> {
        let began = Instant::now();
        let usage = loop {
            if self.enough {
                break self.cut(began, given);
            }
            let event = tokio::select! {
                biased;
                event = reply.next() => event,
                turn = self.turn() => {
                    turn?;
                    continue;
                }
            };
            match event {
                Some(Ok(Event::Done { reason, usage })) => {
                    self.flush(wire::event(Event::Done { reason, usage }).into()).await?;
                    return Ok((reason, usage));
                }
                Some(Ok(Event::Text { text, logprobs, tokens })) => {
                    let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
                    self.paid(count.min(STEP)).await?;
                    if self.enough {
                        break self.cut(began, given);
                    }
                    if let Some(account) = &mut self.account {
                        account.earning.serve(count);
                    }
                    self.sent.extend_from_slice(&tokens);
                    let pause = self.place.wait(text.len());
                    if pause > Duration::ZERO {
                        self.meanwhile(tokio::time::sleep(pause)).await?;
                    }
                    self.flush(wire::event(Event::Text { text, logprobs, tokens }).into()).await?;
                }
                Some(Err(error)) => return Err(End::Failed(error)),
                None => {
                    let reason = "the engine broke off without saying why".into();
                    return Err(End::Failed(JobError::Internal { reason }));
                }
            }
            if let Some(error) = self.place.yields() {
                return Err(End::Yielded(error));
            }
        };
        drop(reply);
        self.flush(wire::event(Event::Done { reason: FinishReason::Length, usage }).into()).await?;
        Ok((FinishReason::Length, usage))
    }

    /// Signs what the answer was, for whoever audits it later.
    async fn vouch(
        &mut self,
        asked: Asked,
        (reason, cut): (FinishReason, bool),
        usage: Usage,
        vouched: &Vouched,
    ) -> Result<(), End> {
        let tokens = std::mem::take(&mut self.sent);
        let signer = &self.shared.serving.signer;
        let statement = Statement::new(signer.node(), asked, tokens, Ending::of(reason, cut), usage, vouched);
        // An answer of more tokens than a statement holds is given without one.
        let Some(statement) = statement else { return Ok(()) };
        let message = ToRequester::Vouched {
            started_ms: statement.started_at.0,
            exact: statement.exact,
            commitments: statement.commitments.to_vec().into(),
            signature: statement.sign(signer).to_vec().into(),
        };
        self.flush(VecDeque::from([message])).await
    }

    /// What was used of an answer that its requester ended.
    fn cut(&self, began: Instant, (prompt_tokens, resumed): (u32, u32)) -> Usage {
        let sent = self.account.as_ref().map_or(0, |account| account.earning.sent());
        let completion_tokens = sent.saturating_add(resumed);
        let took = began.elapsed();
        Usage { prompt_tokens, completion_tokens, decode: took, total: took, ..Usage::default() }
    }

    /// Writes messages; meanwhile the requester is heard.
    async fn flush(&mut self, mut messages: VecDeque<ToRequester>) -> Result<(), End> {
        let until = Instant::now() + self.shared.timers.stall;
        self.heartbeat.reset();
        loop {
            if self.writer.is_clear() {
                match messages.pop_front() {
                    Some(message) => self.say(&message)?,
                    None => return Ok(()),
                }
            }
            // `Enough` may cross the last words of an answer: it is complete then.
            tokio::select! {
                turn = self.turn() => turn?,
                () = sleep_until(until) => return Err(End::Gone("it reads nothing")),
            }
        }
    }

    /// Waits a moment for the issuer's word on the last payments.
    async fn collect(&mut self) {
        let until = Instant::now() + self.shared.timers.receipt;
        while let Some(account) = self.account.as_mut().filter(|account| account.open()) {
            let fresh = tokio::select! {
                fresh = account.settle() => fresh,
                () = sleep_until(until) => return,
            };
            match fresh {
                Ok(fresh) => self.shared.earned(fresh),
                Err(_) => return,
            }
        }
    }

    /// Offers the receipt. What becomes of it changes nothing about the answer.
    async fn receipt(&mut self, served: &Served) {
        let half = match receipts::issue(served, &self.shared.serving.signer) {
            Ok(half) => half,
            Err(error) => {
                tracing::warn!(%error, "there is no receipt for a public job");
                return;
            }
        };
        let patience = self.shared.timers.receipt;
        let exchange = async {
            self.writer.drive().await?;
            self.writer.send(&ToRequester::Receipt { bytes: half.into() }).await?;
            let whole = loop {
                match self.reader.next::<ToProvider>().await? {
                    Some(ToProvider::Ping | ToProvider::Enough) => {}
                    // Paid while the last tokens were on their way: it is earned.
                    Some(ToProvider::Pay { spend }) => drop(self.take(spend)),
                    Some(ToProvider::Receipt { bytes }) => break Some(bytes),
                    _ => break None,
                }
            };
            self.writer.finish().await?;
            Ok::<_, FrameError>(whole)
        };
        let whole = match timeout(patience, exchange).await {
            Ok(Ok(whole)) => whole,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the stream ended before the receipt");
                None
            }
            Err(_) => None,
        };
        self.collect().await;
        if let Some(whole) = whole {
            self.keep(whole.into()).await;
        }
    }

    async fn keep(&mut self, whole: Vec<u8>) {
        let amount = self.account.as_ref().map_or(MicroCredits::ZERO, |account| account.earning.total());
        let book = Arc::clone(&self.shared.serving.receipts);
        let kept =
            tokio::task::spawn_blocking(move || book.keep(Side::Served, amount, [0; 16], &whole)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, "a receipt of a public job is not kept");
        }
    }

    fn say(&mut self, message: &ToRequester) -> Result<(), End> {
        self.writer.put(message).map_err(|error| {
            End::Failed(JobError::Internal { reason: format!("an event of the answer is too long: {error}") })
        })
    }

    /// Says what is to be said last, and counts.
    async fn close(mut self, end: End) {
        let cells = &self.shared.cells;
        let (cell, last) = match end {
            End::Completed => (&cells.completed, None),
            End::Refused(error) => (&cells.refused, Some(error)),
            End::Failed(error) => (&cells.failed, Some(error)),
            End::Unpaid(reason) => (&cells.unpaid, Some(JobError::Payment { reason })),
            End::Yielded(error) => (&cells.yielded, Some(error)),
            End::Gone(why) => {
                tracing::debug!(why, "a public job's requester is gone");
                (&cells.cancelled, None)
            }
            End::Nonsense(why) => {
                tracing::debug!(why, "a stream for a public job that makes no sense");
                (&cells.nonsense, None)
            }
        };
        if let Some(error) = last {
            let farewell = async {
                self.writer.put(&ToRequester::Failed { failure: convert::failure(&error) })?;
                self.writer.finish().await?;
                // What is still on its way here would make the stream's end a reset, and the words be lost.
                while self.reader.next::<ToProvider>().await?.is_some() {}
                Ok::<_, FrameError>(())
            };
            let _ = timeout(FAREWELL, farewell).await;
        }
        cell.fetch_add(1, Relaxed);
        // What was paid is earned, however the job ended.
        self.collect().await;
    }
}

fn refused_price(model: &str) -> End {
    // The same words for a model that is not offered and for one that is dearer: the next offer says which.
    End::Refused(JobError::ModelNotFound { model: model.into() })
}
