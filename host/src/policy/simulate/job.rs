//! A job, as the machines of a simulation work with it and as a policy hears of it.

use crate::policy::types::{Circle, Job as Told};

use super::{
    number::mix,
    trace::{BLOCK, Job, Machine, Model},
};

/// Tokens that an answer is expected to have when nothing is said about it, as a node expects it.
const USUAL_ANSWER: u64 = 256;

/// How many tokens a job has, as far as the node that asks can say without the model's tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) least: u64,
    pub(super) most: u64,
    pub(super) room: u64,
    pub(super) expected: u64,
}

impl Size {
    /// A token has 2 to 8 bytes, about 4. What was made of the answer before is counted exactly, and the prompt once a
    /// machine has counted it.
    pub(super) fn of(job: &Job, made: u32, counted: bool) -> Self {
        let (prompt, made) = (u64::from(job.prompt), u64::from(made));
        let (least, most) = if counted { (prompt, prompt) } else { (prompt / 2, 2 * prompt + 16) };
        let limit = job.max_tokens.map(u64::from);
        let expected = limit.unwrap_or(USUAL_ANSWER.max(made)).min(4 * USUAL_ANSWER.max(made));
        Self { least, most, room: limit.unwrap_or(1).max(made), expected: expected.saturating_sub(made) }
    }
}

/// A job in the words of the interface.
pub(super) fn told(job: &Job, size: Size, model: &Model, made: u32, paid: bool) -> Told {
    Told {
        model: model.name.clone(),
        circle: if paid { Circle::Public } else { Circle::Trusted },
        prompt_least: size.least,
        prompt_most: size.most,
        answer_room: size.room,
        answer_expected: size.expected,
        resumed: made.into(),
        prefix: hashes(job),
        max_price: job.max_price.filter(|_| paid),
    }
}

/// The texts that a prompt begins with: a key for each that depends on all before it and on the model, and its blocks.
pub(super) fn texts(job: &Job) -> impl Iterator<Item = (u64, u64)> + '_ {
    let mut key = mix(job.model.into());
    job.prefix.iter().map(move |[text, blocks]| {
        key = mix(key ^ mix(*text));
        (key, *blocks)
    })
}

fn hashes(job: &Job) -> Vec<u64> {
    texts(job).flat_map(|(key, blocks)| (0..blocks).map(move |block| mix(key ^ block))).collect()
}

/// How many leading blocks of a job are known to somebody who knows so many blocks of a text.
pub(super) fn shared(job: &Job, mut known: impl FnMut(u64) -> Option<u64>) -> u64 {
    let mut all = 0;
    for (key, blocks) in texts(job) {
        let there = known(key).unwrap_or(0).min(blocks);
        all += there;
        if there < blocks {
            break;
        }
    }
    all
}

/// What somebody knows who has seen a job and its answer: the last text goes on with the answer.
pub(super) fn learnt(job: &Job, answer: u32) -> impl Iterator<Item = (u64, u64)> + '_ {
    let last = job.prefix.len().saturating_sub(1);
    let more = u64::from(answer) / BLOCK;
    texts(job)
        .enumerate()
        .map(move |(place, (key, blocks))| (key, blocks + if place == last { more } else { 0 }))
}

/// Thousandths of a token per second with a model, from those with one of 1,000 million parameters.
pub(super) fn speed(base: u64, model: &Model) -> u64 {
    // Slower than a token in ten seconds is not simulated, so that times stay within their bounds.
    (base.saturating_mul(1000) / model.parameters.max(1)).max(100)
}

/// Microseconds for tokens at a speed in thousandths.
pub(super) fn time(tokens: u64, speed: u64) -> u64 {
    tokens.saturating_mul(1_000_000_000) / speed.max(1)
}

/// Microseconds that a job takes where nothing else is done.
pub(super) fn alone(job: &Job, machine: &Machine, model: &Model) -> u64 {
    let prompt = time(job.prompt.into(), speed(machine.prefill, model));
    prompt.saturating_add(time(job.answer.into(), speed(machine.decode, model)))
}

/// What tokens take on the reference machine, in micro-credits: 1.7 for a prompt's and 4.2 for an answer's, for each
/// 1,000 million parameters of the model.
pub(super) fn work(prompt: u64, answer: u64, model: &Model) -> u64 {
    let tokens = prompt.saturating_mul(17).saturating_add(answer.saturating_mul(42));
    tokens.saturating_mul(model.parameters) / 10_000
}
