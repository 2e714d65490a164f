//! Providers: many requests at once on one decoder, and answers with everything that an audit wants.

use std::collections::VecDeque;

use anyhow::{Context as _, Result};
use potluck_kernels::{
    audit::{Answer, Commitment, Committer, Finish, Numerics, Replay, Request, Room, Trace, Usage},
    backend::{Backend, Batch, PAGE},
    cpu::{CpuBackend, Simd},
    gguf::Gguf,
    model::{Decoder, LoadOptions},
    sample::{Sampler, SamplingParams},
};

/// Most tokens in a step.
const TOKENS: usize = 512;

/// A decoder with room for `batch` sequences of `positions` each.
///
/// # Errors
/// The model cannot be loaded.
pub fn decoder<B: Backend>(gguf: &Gguf, backend: B, batch: usize, positions: usize) -> Result<Decoder<B>> {
    let options = LoadOptions {
        max_batch_tokens: TOKENS,
        max_outputs: TOKENS,
        cache_pages: batch * positions.div_ceil(PAGE),
    };
    Ok(Decoder::load(gguf, backend, options, &mut |_, _| {})?)
}

/// A decoder on the CPU.
///
/// # Errors
/// As [`decoder`], or this processor lacks the instruction set.
pub fn on_cpu(
    gguf: &Gguf,
    threads: usize,
    simd: Option<Simd>,
    batch: usize,
    positions: usize,
) -> Result<Decoder<CpuBackend>> {
    decoder(gguf, CpuBackend::new(threads, simd)?, batch, positions)
}

/// What a provider does for a request; an honest one does what it says.
#[derive(Clone, Debug)]
pub struct Job {
    /// What was asked for.
    pub request: Request,
    /// How tokens are drawn.
    pub params: SamplingParams,
    /// The prompt that the model is shown.
    pub shown: Vec<u32>,
}

impl Job {
    /// As it was asked for.
    pub fn honest(request: &Request) -> Self {
        Self { request: request.clone(), params: request.params.clone(), shown: request.prompt.clone() }
    }
}

/// A sequence on its way.
struct Slot {
    job: usize,
    /// What the requester knows: its prompt and the answer so far.
    tokens: Vec<u32>,
    /// What the model is shown.
    shown: Vec<u32>,
    /// How much of it the cache holds.
    cached: usize,
    prompt: usize,
    limit: usize,
    sampler: Sampler,
    committer: Committer,
    pages: Vec<u32>,
}

/// Does all jobs, `batch` at a time, and commits to the hidden states that it had.
///
/// # Errors
/// The decoder or the sampler refuses.
pub fn serve<B: Backend>(
    decoder: &mut Decoder<B>,
    jobs: &[Job],
    ends: &[u32],
    numerics: Numerics,
    batch: usize,
) -> Result<Vec<Answer>> {
    let pages = decoder.options().cache_pages / batch;
    let per = u32::try_from(pages)?;
    let mut waiting: VecDeque<usize> = (0..jobs.len()).collect();
    let mut free: Vec<u32> = (0..u32::try_from(batch)?).rev().collect();
    let mut active: Vec<Slot> = Vec::new();
    let mut answers: Vec<Option<Answer>> = jobs.iter().map(|_| None).collect();
    loop {
        while let Some(slot) = free.pop() {
            let Some(job) = waiting.pop_front() else {
                free.push(slot);
                break;
            };
            let Job { request, params, shown } = jobs.get(job).context("a job")?;
            active.push(Slot {
                job,
                tokens: request.prompt.clone(),
                shown: shown.clone(),
                cached: 0,
                prompt: request.prompt.len(),
                limit: usize::try_from(request.limit)?,
                sampler: Sampler::new(params.clone(), decoder.config().vocab)?,
                committer: Committer::new(decoder.config().width),
                pages: (slot * per..(slot + 1) * per).collect(),
            });
        }
        if active.is_empty() {
            break;
        }
        let ended = step(decoder, &mut active, ends)?;
        for (place, finish) in ended.into_iter().rev() {
            let slot = active.swap_remove(place);
            free.push(slot.pages.first().context("a page")? / per);
            let answer = answers.get_mut(slot.job).context("a job")?;
            *answer = Some(slot.answer(finish, numerics)?);
        }
    }
    answers.into_iter().map(|answer| answer.context("every request is answered")).collect()
}

impl Slot {
    fn answer(self, finish: Finish, numerics: Numerics) -> Result<Answer> {
        let tokens = self.tokens.get(self.prompt..).unwrap_or_default().to_vec();
        let completion = tokens.len() + usize::from(finish == Finish::End);
        let usage = Usage { prompt: u32::try_from(self.prompt)?, completion: u32::try_from(completion)? };
        Ok(Answer { tokens, finish, usage, numerics, commitments: self.committer.finish()? })
    }
}

/// One token for every sequence that fits the step; the places of those that ended, in order.
fn step<B: Backend>(
    decoder: &mut Decoder<B>,
    active: &mut [Slot],
    ends: &[u32],
) -> Result<Vec<(usize, Finish)>> {
    let mut batch = Batch::default();
    let mut outputs = Vec::new();
    for (place, slot) in active.iter_mut().enumerate() {
        let new = slot.shown.get(slot.cached..).unwrap_or_default();
        let take = new.len().min(TOKENS - batch.tokens.len());
        if take == 0 {
            continue;
        }
        let sequence = u32::try_from(batch.tables.len())?;
        batch.tables.push(slot.pages.clone());
        batch.tokens.extend(new.iter().take(take));
        batch.positions.extend((0u32..).skip(slot.cached).take(take));
        batch.sequence.extend(std::iter::repeat_n(sequence, take));
        slot.cached += take;
        if slot.cached == slot.shown.len() {
            batch.outputs.push(u32::try_from(batch.tokens.len() - 1)?);
            outputs.push(place);
        }
    }
    let (vocab, width) = (decoder.config().vocab, decoder.config().width);
    let logits = decoder.forward(&batch)?.to_vec();
    let hidden = decoder.hidden()?;
    let mut ended = Vec::new();
    for ((place, logits), hidden) in outputs.into_iter().zip(logits.chunks(vocab)).zip(hidden.chunks(width)) {
        let slot = active.get_mut(place).context("a sequence")?;
        let token = slot.sampler.sample(logits, &slot.tokens, slot.prompt, None)?.token;
        if ends.contains(&token) {
            ended.push((place, Finish::End));
            continue;
        }
        slot.committer.push(hidden)?;
        slot.tokens.push(token);
        slot.shown.push(token);
        if slot.tokens.len() - slot.prompt >= slot.limit {
            ended.push((place, Finish::Limit));
        }
    }
    Ok(ended)
}

/// A verifier's replay of an answer on this decoder.
///
/// # Errors
/// The replay cannot be made.
pub fn replay<B: Backend>(
    decoder: &mut Decoder<B>,
    request: &Request,
    answer: &Answer,
    ends: &[u32],
) -> Result<Trace> {
    let (config, options) = (decoder.config(), decoder.options());
    let room = Room {
        vocab: config.vocab,
        width: config.width,
        context: config.context,
        tokens: options.max_batch_tokens,
        outputs: options.max_outputs,
    };
    let pages: Vec<u32> = (0..u32::try_from(options.cache_pages)?).collect();
    let mut replay = Replay::new(room, request, answer, ends, &pages)?;
    while let Some(batch) = replay.next_batch() {
        let logits = decoder.forward(&batch)?.to_vec();
        replay.take(&logits, decoder.hidden()?)?;
    }
    Ok(replay.finish()?)
}

/// What one forced pass over a prompt and an answer shows: commitments to the model's own states, and how near to an
/// end each place was (the margin of the nearest end in logits, beyond any where it is cut off).
///
/// # Errors
/// The decoder or the sampler refuses.
pub fn forced<B: Backend>(
    decoder: &mut Decoder<B>,
    request: &Request,
    tokens: &[u32],
    ends: &[u32],
) -> Result<(Vec<Commitment>, Vec<f64>)> {
    let (vocab, width) = (decoder.config().vocab, decoder.config().width);
    let all: Vec<u32> = request.prompt.iter().chain(tokens).copied().collect();
    let prompt = request.prompt.len();
    let pages: Vec<u32> = (0..u32::try_from(decoder.options().cache_pages)?).collect();
    let mut sampler = Sampler::new(request.params.clone(), vocab)?;
    let (mut committer, mut margins) = (Committer::new(width), Vec::new());
    for (place, chunk) in all.chunks(TOKENS).enumerate() {
        let start = place * TOKENS;
        let count = u32::try_from(chunk.len())?;
        let batch = Batch {
            tokens: chunk.to_vec(),
            positions: (0u32..).skip(start).take(chunk.len()).collect(),
            sequence: vec![0; chunk.len()],
            tables: vec![pages.clone()],
            outputs: (0..count).collect(),
        };
        let logits = decoder.forward(&batch)?.to_vec();
        let rows = logits.chunks(vocab).zip(decoder.hidden()?.chunks(width));
        for (position, (logits, hidden)) in (start..).zip(rows).skip((prompt - 1).saturating_sub(start)) {
            if position + 1 >= all.len() {
                break;
            }
            committer.push(hidden)?;
            let before = all.get(..=position).unwrap_or_default();
            margins.push(sampler.margin(logits, before, prompt, None, ends)?.margin.unwrap_or(f64::INFINITY));
        }
    }
    Ok((committer.finish()?, margins))
}

/// How tokens are drawn, five ways in turn; the first is greedy.
pub fn preset(number: usize, seed: u64) -> SamplingParams {
    let base = SamplingParams { seed, ..SamplingParams::default() };
    match number % 5 {
        0 => SamplingParams { temperature: 0.0, ..base },
        1 => SamplingParams { temperature: 0.7, top_p: 0.9, ..base },
        2 => base,
        3 => SamplingParams { temperature: 0.8, top_k: 40, ..base },
        _ => SamplingParams { temperature: 0.9, min_p: 0.05, repeat_penalty: 1.1, ..base },
    }
}
