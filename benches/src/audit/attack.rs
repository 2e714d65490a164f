//! Answers that are not what was asked for.
//!
//! Attackers here are careful: whoever changes the prompt still draws with the noise of the positions that the requester
//! sees, claims the counts that belong to the request, and commits to whatever hidden states it has.

use anyhow::{Context as _, Result};
use potluck_kernels::{
    audit::{Answer, Finish, GROUP, Numerics, Request},
    cpu::CpuBackend,
    dtype::DType,
    model::Decoder,
    sample::SamplingParams,
};

use super::{
    serve::{Job, forced, on_cpu, preset, serve},
    subject::{Change, Subject},
};
use crate::memory::random::Random;

/// What somebody does instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Serves another model.
    Model(Change),
    /// One token of the prompt is another.
    PromptToken,
    /// Eight tokens more at the head of the prompt: an instruction of the provider's own.
    PromptPrefix,
    /// Only the second half of the prompt.
    PromptCut,
    /// Temperature 5 % higher.
    Warmer,
    /// Temperature 25 % higher.
    Hotter,
    /// The most likely token each time.
    Greedy,
    /// Only the 20 most likely tokens.
    TopK,
    /// Another seed; also what a cached answer to the same prompt is.
    Seed,
    /// The small model answers, the right one reads the answer and commits to its own states.
    Draft,
    /// Says that the answer ended in the middle.
    Stop,
    /// The same at the place where it is least conspicuous.
    StopWell,
    /// The answer to another prompt.
    Cached,
    /// Wants to be paid for a tenth more.
    Usage,
    /// The first quarter with the right model, the rest with the lowest type.
    Tail,
    /// Goes on where the answer should end.
    Past,
}

impl Attack {
    /// All that make sense for a subject.
    pub fn all(subject: &Subject) -> Vec<Self> {
        let stored = subject.lower.iter().map(|dtype| Self::Model(Change::Stored(dtype.gguf_id())));
        let models = [Change::Pruned, Change::Dropped, Change::Small].map(Self::Model);
        let others = [
            Self::Draft,
            Self::Tail,
            Self::PromptToken,
            Self::PromptPrefix,
            Self::PromptCut,
            Self::Warmer,
            Self::Hotter,
            Self::TopK,
            Self::Greedy,
            Self::Seed,
            Self::Cached,
            Self::Stop,
            Self::StopWell,
            Self::Past,
            Self::Usage,
        ];
        stored.chain(models).chain(others).collect()
    }

    /// Its name in tables and files.
    pub fn name(self) -> String {
        match self {
            Self::Model(Change::Stored(id)) => {
                DType::from_gguf(id).map_or("unknown".into(), |dtype| dtype.to_string().to_lowercase())
            }
            Self::Model(Change::Dropped) => "layer-dropped".into(),
            Self::Model(Change::Small) => "small-model".into(),
            Self::Model(Change::Pruned) => "ffn-pruned".into(),
            Self::PromptToken => "prompt-one-token".into(),
            Self::PromptPrefix => "prompt-prefix".into(),
            Self::PromptCut => "prompt-cut".into(),
            Self::Warmer => "temperature-5".into(),
            Self::Hotter => "temperature-25".into(),
            Self::Greedy => "greedy".into(),
            Self::TopK => "top-k-20".into(),
            Self::Seed => "other-seed".into(),
            Self::Draft => "draft-small".into(),
            Self::Stop => "stop-half".into(),
            Self::StopWell => "stop-well-chosen".into(),
            Self::Cached => "cached".into(),
            Self::Usage => "usage-inflated".into(),
            Self::Tail => "tail-lowest".into(),
            Self::Past => "past-the-end".into(),
        }
    }

    /// Whether it is one only where tokens are drawn.
    pub const fn of_draws(self) -> bool {
        matches!(self, Self::Warmer | Self::Hotter | Self::Greedy | Self::TopK | Self::Seed)
    }
}

/// Requests number `first` and on: prompts that the model itself might have written, drawn five ways in turn.
///
/// # Errors
/// The model cannot be run.
pub fn requests(
    subject: &Subject,
    decoder: &mut Decoder<CpuBackend>,
    first: usize,
    count: usize,
    batch: usize,
) -> Result<Vec<Request>> {
    let mut requests = Vec::new();
    for number in first..first + count {
        let mut random = Random::of(u64::try_from(number)?, &subject.name);
        let params = preset(number, random.next());
        let prompt = match subject.start {
            Some(start) => vec![start],
            None => {
                let len = 16 + random.below(48);
                let vocab = decoder.config().vocab - 4;
                (0..len).map(|_| u32::try_from(4 + random.below(vocab))).collect::<Result<_, _>>()?
            }
        };
        requests.push(Request { prompt, params, limit: subject.limit });
    }
    if subject.start.is_some() {
        let write = |(number, request): (usize, &Request)| {
            let mut random = Random::of(u64::try_from(number).unwrap_or(0), "prompt");
            let params = SamplingParams { seed: random.next(), ..SamplingParams::default() };
            let limit = u32::try_from(16 + random.below(80)).unwrap_or(16);
            Job { request: Request { limit, ..request.clone() }, params, shown: request.prompt.clone() }
        };
        let jobs: Vec<Job> = (first..).zip(&requests).map(write).collect();
        let texts = serve(decoder, &jobs, &subject.ends, Numerics::Exact, batch)?;
        requests.iter_mut().zip(texts).for_each(|(request, text)| request.prompt.extend(text.tokens));
    }
    Ok(requests)
}

/// The model to attack with and the one to attack.
struct Bench<'a> {
    subject: &'a Subject,
    threads: usize,
    batch: usize,
    right: &'a mut Decoder<CpuBackend>,
}

impl Bench<'_> {
    fn serve(&mut self, jobs: &[Job]) -> Result<Vec<Answer>> {
        serve(self.right, jobs, &self.subject.ends, Numerics::Exact, self.batch)
    }

    fn other(&self, change: Change) -> Result<Decoder<CpuBackend>> {
        let positions = positions(self.subject);
        on_cpu(&self.subject.changed(change)?, self.threads, None, self.batch, positions)
    }

    fn lowest(&self) -> Result<Change> {
        Ok(Change::Stored(self.subject.lower.last().context("a lower type")?.gguf_id()))
    }
}

/// Longest sequence of a subject: prompt and answer.
pub fn positions(subject: &Subject) -> usize {
    usize::try_from(subject.limit).unwrap_or(0) + 128
}

/// What the attacker gives for each request. `right` is the model that was asked for.
///
/// # Errors
/// A model cannot be made or run.
pub fn answers(
    attack: Attack,
    subject: &Subject,
    requests: &[Request],
    right: &mut Decoder<CpuBackend>,
    threads: usize,
    batch: usize,
) -> Result<Vec<Answer>> {
    let mut bench = Bench { subject, threads, batch, right };
    let with = |change: &dyn Fn(&mut Job)| -> Vec<Job> {
        let make = |request| {
            let mut job = Job::honest(request);
            change(&mut job);
            job
        };
        requests.iter().map(make).collect()
    };
    let honest = || requests.iter().map(Job::honest).collect::<Vec<_>>();
    let vocab = bench.right.config().vocab;
    match attack {
        Attack::Model(change) => {
            serve(&mut bench.other(change)?, &honest(), &subject.ends, Numerics::Exact, batch)
        }
        Attack::PromptToken => bench.serve(&with(&|job| {
            let place = job.shown.len() / 2;
            let mut random = Random::of(job.params.seed, "token");
            if let Some(token) = job.shown.get_mut(place) {
                *token = u32::try_from(4 + random.below(vocab - 4)).unwrap_or(4);
            }
        })),
        Attack::PromptPrefix => bench.serve(&with(&|job| {
            let mut random = Random::of(job.params.seed, "prefix");
            let more = (0..8).map(|_| u32::try_from(4 + random.below(vocab - 4)).unwrap_or(4));
            job.shown.splice(1..1, more.collect::<Vec<_>>());
        })),
        Attack::PromptCut => bench.serve(&with(&|job| {
            let half = job.shown.len().div_ceil(2);
            job.shown.drain(1..half.max(1));
        })),
        Attack::Warmer => bench.serve(&with(&|job| job.params.temperature *= 1.05)),
        Attack::Hotter => bench.serve(&with(&|job| job.params.temperature *= 1.25)),
        Attack::Greedy => bench.serve(&with(&|job| job.params.temperature = 0.0)),
        Attack::TopK => bench.serve(&with(&|job| job.params.top_k = 20)),
        Attack::Seed => bench.serve(&with(&|job| job.params.seed ^= 1)),
        Attack::Past => bench.serve(&with(&|job| {
            job.params.logit_bias = subject.ends.iter().map(|end| (*end, -1e4)).collect();
        })),
        Attack::Usage => {
            let mut answers = bench.serve(&honest())?;
            let inflate = |answer: &mut Answer| answer.usage.completion += answer.usage.completion / 10 + 1;
            answers.iter_mut().for_each(inflate);
            Ok(answers)
        }
        Attack::Cached => {
            let mut answers = bench.serve(&honest())?;
            answers.rotate_left(1);
            for (answer, request) in answers.iter_mut().zip(requests) {
                answer.usage.prompt = u32::try_from(request.prompt.len())?;
            }
            Ok(answers)
        }
        Attack::Draft => {
            let mut answers =
                serve(&mut bench.other(Change::Small)?, &honest(), &subject.ends, Numerics::Exact, batch)?;
            for (answer, request) in answers.iter_mut().zip(requests) {
                answer.commitments = forced(bench.right, request, &answer.tokens, &subject.ends)?.0;
            }
            Ok(answers)
        }
        Attack::Stop | Attack::StopWell => {
            let mut answers = bench.serve(&honest())?;
            for (answer, request) in answers.iter_mut().zip(requests) {
                stop(&mut bench, attack, request, answer)?;
            }
            Ok(answers)
        }
        Attack::Tail => tail(&mut bench, requests, &honest()),
    }
}

/// Ends an answer before its time.
fn stop(bench: &mut Bench<'_>, attack: Attack, request: &Request, answer: &mut Answer) -> Result<()> {
    let mut place = answer.tokens.len() / 2;
    if attack == Attack::StopWell {
        let (_, margins) = forced(bench.right, request, &answer.tokens, &bench.subject.ends)?;
        let from = margins.len() / 4;
        let least = (from..).zip(margins.iter().skip(from)).min_by(|a, b| a.1.total_cmp(b.1));
        place = least.map_or(place, |(place, _)| place);
    }
    answer.tokens.truncate(place);
    answer.finish = Finish::End;
    answer.usage.completion = u32::try_from(place + 1)?;
    answer.commitments = forced(bench.right, request, &answer.tokens, &bench.subject.ends)?.0;
    Ok(())
}

/// A good beginning, and the lowest type from there.
fn tail(bench: &mut Bench<'_>, requests: &[Request], honest: &[Job]) -> Result<Vec<Answer>> {
    let mut answers = bench.serve(honest)?;
    let mut cheap = bench.other(bench.lowest()?)?;
    let mut jobs = Vec::new();
    for (request, answer) in requests.iter().zip(&mut answers) {
        answer.tokens.truncate(answer.tokens.len() / 4);
        let begun: Vec<u32> = request.prompt.iter().chain(&answer.tokens).copied().collect();
        let limit = request.limit - u32::try_from(answer.tokens.len())?;
        let rest = Request { prompt: begun.clone(), limit, ..request.clone() };
        jobs.push(Job { params: request.params.clone(), shown: begun, request: rest });
    }
    let rests = serve(&mut cheap, &jobs, &bench.subject.ends, Numerics::Exact, bench.batch)?;
    for ((request, answer), rest) in requests.iter().zip(&mut answers).zip(rests) {
        let good = answer.tokens.len() / GROUP;
        answer.tokens.extend(rest.tokens);
        answer.finish = rest.finish;
        let ended = usize::from(rest.finish == Finish::End);
        answer.usage.completion = u32::try_from(answer.tokens.len() + ended)?;
        answer.commitments.truncate(good);
        let cheap = forced(&mut cheap, request, &answer.tokens, &bench.subject.ends)?.0;
        answer.commitments.extend(cheap.into_iter().skip(good));
    }
    Ok(answers)
}
