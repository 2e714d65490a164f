//! Questions whose answers are audited, asked as everybody asks.
//!
//! A canary takes the way of every other job: the same purse, circuits, one-time keys, receipts and messages, and the
//! same code sends it. The provider's signed statement, on which an audit rests, goes with every answer, so nothing
//! asks for it. What is left to tell a canary by is what it says. Its words come from lists in this file, put together
//! at random: whoever reads this file can recognise them with some effort, and a provider that answers only these
//! honestly is not found. No text of a person is ever used, neither this machine's owner's nor anybody else's.

use std::{sync::Arc, time::Duration};

use potluck_kernels::sample::SamplingParams;

use super::transcript::Transcript;
use crate::{
    job::{Event, Format, Input, Job, JobError, Message, Mode, Spend, random_seed},
    policy::sample::Sampler,
    pool::public::{
        market::Candidate,
        provider::Parts,
        receipts::Side,
        session::ask::{Call, CallError, Request, Testimony},
    },
};

/// Longest that a canary takes.
const PATIENCE: Duration = Duration::from_secs(300);

const OPENINGS: [&str; 12] = [
    "Explain",
    "Write a short text about",
    "Give me three ideas for",
    "What should I know about",
    "Summarise what matters in",
    "Tell a story about",
    "How do I begin with",
    "Compare two ways of",
    "List what can go wrong with",
    "Draft a letter about",
    "Why do people care about",
    "Describe in plain words",
];
const THINGS: [&str; 24] = [
    "growing tomatoes on a balcony",
    "a lighthouse in winter",
    "repairing an old bicycle",
    "moving to another town",
    "baking bread without a machine",
    "the tides",
    "learning to swim late in life",
    "a lost letter",
    "small gardens",
    "choosing a used car",
    "teaching a dog to wait",
    "a night train",
    "saving water at home",
    "painting a room",
    "planning a week of meals",
    "the first day at a new job",
    "keeping bees",
    "reading maps",
    "an empty theatre",
    "sorting photographs",
    "two friends who meet again",
    "a broken clock",
    "walking in the hills",
    "choir practice",
];
const TAILS: [&str; 8] = [
    "",
    " Keep it short.",
    " Use simple words.",
    " Please give an example.",
    " I have little time.",
    " Two paragraphs are enough.",
    " Be concrete.",
    " Do not use a list.",
];
const STARTS: [&str; 10] = [
    "Once upon a time",
    "Every morning",
    "When the rain stopped,",
    "In the old house",
    "One day",
    "There was a little",
    "Nobody knew why",
    "On the way home",
    "Long ago",
    "The boat came back and",
];

/// Random choices.
#[derive(Debug)]
pub struct Dice(Sampler);

impl Dice {
    /// New ones, from the system's randomness.
    pub fn new() -> Self {
        Self(Sampler::new(random_seed()))
    }

    /// The same ones again.
    pub const fn of(seed: u64) -> Self {
        Self(Sampler::new(seed))
    }

    /// A random number.
    pub fn roll(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let at = self.roll().checked_rem(of.len() as u64)?;
        of.get(usize::try_from(at).ok()?)
    }

    fn word(&mut self, of: &'static [&'static str]) -> &'static str {
        self.pick(of).copied().unwrap_or_default()
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}

/// A request such as people make. `chats`: the model takes turns of a conversation.
pub fn job(model: &str, chats: bool, dice: &mut Dice) -> Job {
    let input = if chats {
        let text = format!("{} {}.{}", dice.word(&OPENINGS), dice.word(&THINGS), dice.word(&TAILS));
        let message = Message { role: "user".into(), content: text, extra: serde_json::Map::new() };
        Input::Chat { messages: vec![message], tools: Vec::new(), template_vars: serde_json::Map::new() }
    } else {
        let text = format!("{} {}", dice.word(&STARTS), dice.word(&THINGS));
        Input::Text { text, special: false }
    };
    let temperature = dice.pick(&[0.0_f32, 0.2, 0.7, 0.8, 0.8, 1.0, 1.0, 1.0]).copied().unwrap_or(1.0);
    let top_p = dice.pick(&[1.0_f32, 1.0, 0.95, 0.9]).copied().unwrap_or(1.0);
    let max_tokens = dice.pick(&[64_u32, 100, 128, 200, 256, 256, 300]).copied();
    Job {
        id: uuid::Uuid::now_v7(),
        model: model.to_owned(),
        mode: Mode::Public,
        input,
        sampling: SamplingParams { temperature, top_p, seed: dice.roll(), ..SamplingParams::default() },
        max_tokens,
        stop: Vec::new(),
        format: Format::Text,
        logprobs: None,
        keep_alive: None,
        resume: Vec::new(),
        spend: Spend::default(),
    }
}

/// Why a canary has no transcript.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// It may not be paid.
    #[error(transparent)]
    Refused(#[from] JobError),
    /// The provider cannot be reached.
    #[error("the provider cannot be reached: {0}")]
    Away(String),
    /// The provider broke off.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It took too long.
    #[error("the answer took more than {} s", PATIENCE.as_secs())]
    Slow,
    /// The provider does not stand for its answer.
    #[error("the provider signs nothing about its answer, or something else than it said")]
    Unsigned,
}

/// Asks a provider, and keeps what shows the answer.
///
/// # Errors
/// [`CanaryError`]; only [`CanaryError::Unsigned`] and [`CanaryError::Call`] say something about the provider.
pub async fn ask(parts: &Parts, candidate: &Candidate, job: &Job) -> Result<Transcript, CanaryError> {
    tokio::time::timeout(PATIENCE, ask_in_time(parts, candidate, job)).await.unwrap_or(Err(CanaryError::Slow))
}

async fn ask_in_time(parts: &Parts, candidate: &Candidate, job: &Job) -> Result<Transcript, CanaryError> {
    let reservation = parts.budgets.reserve(&job.spend)?;
    let offer = candidate.listed.offer();
    let stream = parts
        .circuits
        .dial(offer, reservation.spent())
        .await
        .map_err(|error| CanaryError::Away(error.to_string()))?;
    let request = Request {
        job,
        provider: candidate.provider(),
        model: candidate.model.name(),
        rates: candidate.model.rates,
        limit: reservation.left(),
        spent: reservation.spent(),
        purse: Arc::clone(&parts.purse),
        timers: parts.config.timers,
        audit: true,
    };
    let mut call = Call::begin(stream, request).await?;
    while !matches!(call.next().await?, Event::Done { .. }) {}
    let paid = call.paid();
    let (testimony, receipt) = call.audited().await;
    if let Some(whole) = receipt {
        let (book, asked_as) = (Arc::clone(&parts.receipts), *job.id.as_bytes());
        let kept = tokio::task::spawn_blocking(move || book.keep(Side::Asked, paid, asked_as, &whole)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, "a receipt is not kept");
        }
    }
    let Testimony { ask, statement } = testimony.ok_or(CanaryError::Unsigned)?;
    let offer = parity_scale_codec::Encode::encode(&*candidate.listed.signed);
    Transcript::new(offer, ask, statement).ok_or(CanaryError::Unsigned)
}
