//! The requester's side of a job.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use potluck_primitives::MicroCredits;
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until, timeout};

use super::{PaymentError, Purse, Timers};
use crate::{
    dispatch::pool::score::Size,
    identity::{NodeId, Signer},
    job::{Event, Job, JobError, Usage},
    mesh::{
        frame::FrameError,
        protocol::{
            job::convert,
            link::{self, Reader, Writer},
        },
        streams::{BoxFuture, Stream},
    },
    pool::public::{
        audit::transcript::{self, Asked, Ending, SignedStatement, Statement},
        meter::{Paying, Rates},
        receipts::{self, Counted},
        wire::{self, MAX_FRAME, MAX_REQUEST, Terms, ToProvider, ToRequester},
    },
};

/// How far the clocks of both sides may differ, in milliseconds.
const SKEW: u64 = 120_000;
/// What a template may add to a prompt beyond what its bytes suggest, in tokens.
const TEMPLATE: u64 = 1_024;

/// Why a provider does not answer, or not any more.
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
    /// It does not keep to the protocol, or asks for more than it offered.
    #[error("it does not keep to the protocol: {0}")]
    Nonsense(String),
    /// The job cannot be sent at all.
    #[error("the request has {length} bytes, where at most {MAX_REQUEST} can travel")]
    TooLarge {
        /// Its length in bytes.
        length: usize,
    },
    /// The requester cannot pay.
    #[error(transparent)]
    Payment(#[from] PaymentError),
    /// The job costs more than may be paid.
    #[error(
        "the request costs more than the {most} credits that may be paid for it; raise x-potluck-max-price"
    )]
    Dear {
        /// What may be paid.
        most: MicroCredits,
    },
    /// The system gives no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

impl From<FrameError> for CallError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(_) | FrameError::Ended => Self::Broken(error.to_string()),
            FrameError::TooLong { .. } | FrameError::Malformed(_) => Self::Nonsense(error.to_string()),
        }
    }
}

/// What is asked of a provider.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The job, with what of its answer exists already.
    pub job: &'a Job,
    /// The provider.
    pub provider: NodeId,
    /// The model's name in its offer.
    pub model: &'a str,
    /// The rates of its offer.
    pub rates: Rates,
    /// Most that is paid.
    pub limit: MicroCredits,
    /// Counts what is paid, in micro-credits.
    pub spent: Arc<AtomicU64>,
    /// Pays.
    pub purse: Arc<dyn Purse>,
    /// The clocks.
    pub timers: Timers,
    /// Whether the answer is kept, to be audited. The provider sees nothing of that.
    pub audit: bool,
}

type Taking = BoxFuture<'static, (MicroCredits, Result<Vec<Vec<u8>>, PaymentError>)>;

/// A job that a provider works on. Dropping it cancels the job.
pub struct Call {
    reader: Reader,
    writer: Writer,
    timers: Timers,
    ping: Interval,
    purse: Arc<dyn Purse>,
    paying: Paying,
    taking: Option<Taking>,
    limit: MicroCredits,
    spent: Arc<AtomicU64>,
    max_tokens: Option<u32>,
    enough: bool,
    /// When the provider was last heard, and when it last said something new.
    heard: Instant,
    moved: Instant,
    began: Instant,
    first: Option<Duration>,
    done: bool,
    counted: Counted,
    signer: Signer,
    /// What was asked and answered, where it is to be audited.
    heard_whole: Option<Heard>,
}

/// An answer that a provider stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// What it was asked, see [`wire::Ask::bare`].
    pub ask: Vec<u8>,
    /// What it answered, with its signature.
    pub statement: SignedStatement,
}

/// An answer that is to be audited.
#[derive(Debug, Default)]
struct Heard {
    ask: Vec<u8>,
    tokens: Vec<u32>,
    done: Option<(Ending, Usage)>,
    vouched: Option<SignedStatement>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("provider", &self.counted.provider).finish_non_exhaustive()
    }
}

/// Tokens that may still be produced.
fn room(job: &Job) -> Option<u32> {
    let made = u32::try_from(job.resume.len()).unwrap_or(u32::MAX);
    job.max_tokens.map(|most| most.saturating_sub(made))
}

impl Call {
    /// Asks for a job over a sealed stream, pays the first chunk, and waits until the job has its place.
    ///
    /// # Errors
    /// Any [`CallError`].
    pub async fn begin(stream: Stream, request: Request<'_>) -> Result<Self, CallError> {
        let Request { job, provider, model, rates, limit, spent, purse, timers, audit } = request;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| CallError::Random)?;
        let signer = Signer::from_seed(seed);
        let size = Size::of(job);
        let resumed = job.resume.len() as u64;
        let least = u32::try_from(size.least.saturating_add(resumed)).unwrap_or(u32::MAX);
        let max_tokens = room(job);
        let mut paying = Paying::new(rates, least, max_tokens, limit);
        if paying.hopeless() {
            return Err(CallError::Dear { most: limit });
        }
        let due = paying.due();
        let spend = if due.0 == 0 { Vec::new() } else { purse.take(due).await? };
        paying.paid(due);
        count(&spent, due);
        let id = wire::fresh_job();
        let receipt_key = signer.node().0;
        let terms = Terms { job: id, model: model.to_owned(), rates, receipt_key, spend };
        let (reader, mut writer) = link::split(stream, MAX_REQUEST);
        let message = wire::ask(job, terms);
        let heard_whole = match &message {
            ToProvider::Ask { ask } if audit => Some(Heard { ask: ask.bare(), ..Heard::default() }),
            _ => None,
        };
        writer.put(&message).map_err(|error| match error {
            FrameError::TooLong { length, .. } => CallError::TooLarge { length },
            other => other.into(),
        })?;
        let now = Instant::now();
        let mut ping = tokio::time::interval_at(now + timers.heartbeat, timers.heartbeat);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let counted = Counted {
            job: id,
            provider,
            model: model.to_owned(),
            prompt_tokens: 0,
            completion_tokens: 0,
            sent_ms: receipts::now_ms(),
        };
        let mut call = Self {
            reader,
            writer,
            timers,
            ping,
            purse,
            paying,
            taking: None,
            limit,
            spent,
            max_tokens,
            enough: false,
            heard: now,
            moved: now,
            began: now,
            first: None,
            done: false,
            counted,
            signer,
            heard_whole,
        };
        call.reader.cap(MAX_FRAME);
        let most = size.most.saturating_add(resumed).saturating_add(TEMPLATE);
        call.accepted(rates, most).await?;
        Ok(call)
    }

    async fn accepted(&mut self, offered: Rates, most: u64) -> Result<(), CallError> {
        let (prompt_tokens, rates) = match self.hear(self.timers.first).await? {
            ToRequester::Accepted { prompt_tokens, prompt_rate, answer_rate } => {
                let credits = |rate: u64| MicroCredits(rate.into());
                (prompt_tokens, Rates { prompt: credits(prompt_rate), completion: credits(answer_rate) })
            }
            ToRequester::Failed { failure } => return Err(CallError::Refused(convert::error(failure))),
            _ => return Err(CallError::Nonsense("it answers before it accepts".into())),
        };
        if rates != offered {
            return Err(CallError::Nonsense("its price is not the one of its offer".into()));
        }
        if u64::from(prompt_tokens) > most {
            let reason =
                format!("it counts {prompt_tokens} tokens of prompt, where {most} are the most there can be");
            return Err(CallError::Nonsense(reason));
        }
        self.counted.prompt_tokens = prompt_tokens;
        self.paying.counted(prompt_tokens, self.max_tokens, self.limit);
        if self.paying.hopeless() {
            return Err(CallError::Dear { most: self.limit });
        }
        self.began = Instant::now();
        self.pay();
        Ok(())
    }

    /// Begins to pay what is due.
    fn pay(&mut self) {
        let due = self.paying.due();
        if due.0 > 0 && self.taking.is_none() && !self.enough {
            let purse = Arc::clone(&self.purse);
            self.taking = Some(Box::pin(async move { (due, purse.take(due).await) }));
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
            ToRequester::Text { text, logprobs, tokens } => {
                self.first.get_or_insert(self.began.elapsed());
                let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
                self.counted.completion_tokens = self.counted.completion_tokens.saturating_add(count);
                self.paying.served(count);
                if let Some(heard) = &mut self.heard_whole {
                    heard.tokens.extend_from_slice(&tokens);
                }
                let whole = self.max_tokens.is_some_and(|most| self.counted.completion_tokens >= most);
                if self.paying.spent() && !whole && !self.enough {
                    self.enough = true;
                    self.writer.put(&ToProvider::Enough)?;
                }
                self.pay();
                let logprobs = logprobs.into_iter().map(convert::logprob).collect();
                Ok(Event::Text { text, logprobs, tokens })
            }
            ToRequester::Done { reason, usage } => {
                self.done = true;
                let (reason, usage) = (convert::reason(reason), convert::usage(usage));
                if let Some(heard) = &mut self.heard_whole {
                    heard.done = Some((Ending::of(reason, self.enough), usage));
                }
                Ok(Event::Done { reason, usage })
            }
            ToRequester::Failed { failure } => Err(CallError::Refused(convert::error(failure))),
            ToRequester::Accepted { .. }
            | ToRequester::Receipt { .. }
            | ToRequester::Vouched { .. }
            | ToRequester::Ping => Err(CallError::Nonsense("a message that has no place here".into())),
        }
    }

    /// Keeps the provider informed and paid while nothing is read from it; returns when the stream breaks. May be
    /// given up and called again.
    pub async fn idle(&mut self) {
        loop {
            let done = tokio::select! {
                done = self.writer.drive(), if !self.writer.is_clear() => done.map_err(CallError::from),
                taken = taken(&mut self.taking) => self.hand_over(taken),
                _ = self.ping.tick() => self.tick(),
            };
            if done.is_err() {
                return;
            }
        }
    }

    fn tick(&mut self) -> Result<(), CallError> {
        if self.writer.is_clear() {
            self.writer.put(&ToProvider::Ping)?;
        }
        Ok(())
    }

    /// Sends what the purse gave.
    fn hand_over(
        &mut self,
        (amount, taken): (MicroCredits, Result<Vec<Vec<u8>>, PaymentError>),
    ) -> Result<(), CallError> {
        self.taking = None;
        let spend = taken?.into_iter().map(Into::into).collect();
        self.writer.put(&ToProvider::Pay { spend })?;
        self.paying.paid(amount);
        count(&self.spent, amount);
        self.pay();
        Ok(())
    }

    /// From acceptance to the first text, as seen here.
    pub fn first_token(&self) -> Option<Duration> {
        self.first
    }

    /// Time since acceptance.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What was paid so far.
    pub fn paid(&self) -> MicroCredits {
        self.paying.total()
    }

    /// What is lost if the provider is gone now: what was paid and not served.
    pub fn at_risk(&self) -> MicroCredits {
        MicroCredits(self.paying.total().0.saturating_sub(self.paying.owed().0))
    }

    /// After [`Event::Done`]: takes the provider's half of the receipt and sends back the whole, which is returned.
    /// Whatever fails here changes nothing about the answer.
    pub async fn receipt(mut self) -> Option<Vec<u8>> {
        self.close().await
    }

    /// After [`Event::Done`]: the answer as it can be audited, and the receipt as [`Self::receipt`]. Without an answer:
    /// the provider did not stand for it, or for another than was heard.
    pub async fn audited(mut self) -> (Option<Testimony>, Option<Vec<u8>>) {
        let receipt = self.close().await;
        let heard = self.heard_whole.take();
        let whole = heard.and_then(|heard| Some(Testimony { ask: heard.ask, statement: heard.vouched? }));
        (whole, receipt)
    }

    async fn close(&mut self) -> Option<Vec<u8>> {
        if !self.done {
            return None;
        }
        let half = async {
            // What was taken is not paid any more: the answer is complete.
            self.taking = None;
            loop {
                tokio::select! {
                    biased;
                    message = self.reader.next::<ToRequester>() => match message {
                        Ok(Some(ToRequester::Receipt { bytes })) => return Some(bytes),
                        Ok(Some(ToRequester::Ping)) => {}
                        Ok(Some(ToRequester::Vouched { started_ms, exact, commitments, signature })) => {
                            if let Some(heard) = &mut self.heard_whole {
                                let (requester, ask) = (self.signer.node().0, transcript::ask_digest(&heard.ask));
                                let asked = Asked { job: self.counted.job, requester, ask, started_ms };
                                heard.testify(&self.counted, asked, (exact, &commitments), &signature);
                            }
                        }
                        _ => return None,
                    },
                    written = self.writer.drive(), if !self.writer.is_clear() => written.ok()?,
                }
            }
        };
        let half = timeout(self.timers.receipt, half).await.ok()??;
        let whole = match receipts::countersign(&half, &self.counted, &self.signer, receipts::now_ms()) {
            Ok(whole) => whole,
            Err(error) => {
                tracing::warn!(provider = %self.counted.provider, %error, "a receipt is not signed");
                return None;
            }
        };
        let sent = async {
            self.writer.drive().await?;
            self.writer.send(&ToProvider::Receipt { bytes: whole.clone().into() }).await?;
            self.writer.finish().await
        };
        // The provider ends the stream when it has it: a stream dropped earlier might lose it.
        if let Ok(Ok(())) = timeout(self.timers.receipt, sent).await {
            let _ = timeout(self.timers.receipt, self.reader.next::<ToRequester>()).await;
        }
        Some(whole)
    }

    /// The next message that is no ping. Pays meanwhile.
    async fn hear(&mut self, patience: Duration) -> Result<ToRequester, CallError> {
        let mut patience = patience;
        loop {
            let silent = self.heard + patience;
            let stuck = self.moved + self.timers.stuck;
            tokio::select! {
                biased;
                message = self.reader.next::<ToRequester>() => {
                    self.heard = Instant::now();
                    match message? {
                        Some(ToRequester::Ping) => patience = self.timers.deadline,
                        Some(message) => {
                            self.moved = self.heard;
                            return Ok(message);
                        }
                        None => return Err(CallError::Broken("it ended before the answer did".into())),
                    }
                }
                written = self.writer.drive(), if !self.writer.is_clear() => written?,
                taken = taken(&mut self.taking) => self.hand_over(taken)?,
                _ = self.ping.tick() => self.tick()?,
                () = sleep_until(stuck) => return Err(CallError::Stuck { after: self.timers.stuck }),
                () = sleep_until(silent) => return Err(CallError::Silent { after: patience }),
            }
        }
    }
}

impl Heard {
    /// Takes the provider's signature, if it is of what was heard.
    fn testify(&mut self, counted: &Counted, asked: Asked, vouched: (bool, &[u8]), signature: &[u8]) {
        let Some((ending, usage)) = self.done.take() else { return };
        let Ok(signature) = signature.try_into() else { return };
        let (from, until) = (counted.sent_ms.saturating_sub(SKEW), receipts::now_ms().saturating_add(SKEW));
        if !(from..=until).contains(&asked.started_ms) {
            return;
        }
        let tokens = std::mem::take(&mut self.tokens);
        let heard = Statement::heard(counted.provider, asked, tokens, ending, usage, vouched);
        self.vouched =
            heard.map(|statement| SignedStatement { statement, signature }).filter(|signed| signed.verify());
    }
}

fn count(spent: &AtomicU64, amount: MicroCredits) {
    spent.fetch_add(u64::try_from(amount.0).unwrap_or(u64::MAX), Relaxed);
}

/// What the purse gives, once it was asked.
async fn taken(taking: &mut Option<Taking>) -> (MicroCredits, Result<Vec<Vec<u8>>, PaymentError>) {
    match taking {
        Some(taking) => taking.await,
        None => std::future::pending().await,
    }
}
