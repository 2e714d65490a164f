//! Shows that a policy answers the same everywhere: in several engines, over several threads, in fresh instances and in
//! warm ones.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

use parity_scale_codec::Encode;
use serde::Serialize;

use super::{
    CallError, Engine, Kind, LoadError, Policy, PolicyHash,
    sample::Sampler,
    types::{Input, Output},
};

/// Questions that one thread takes at a time. Each block has random numbers of its own, so that it does not matter who
/// takes which.
const BLOCK: u64 = 500;

/// How a policy is asked.
#[derive(Clone, Debug)]
pub struct Way {
    /// The engine.
    pub engine: Engine,
    /// Threads that ask at the same time.
    pub threads: usize,
    /// Whether warm instances may answer. For routing only; others are asked as ever.
    pub warm: bool,
    /// What it is called in a report.
    pub name: String,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Steady {
    /// Which policy.
    pub hash: PolicyHash,
    /// What it decides.
    pub kind: Kind,
    /// Questions that each way answered.
    pub inputs: u64,
    /// Questions it refused in words.
    pub refused: u64,
    /// Questions on which it failed; the same way everywhere, but a good policy has none.
    pub failed: u64,
    /// A hash over all answers: the same on every machine, for ever.
    pub digest: PolicyHash,
}

/// Why a policy is not steady.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SteadyError {
    /// It cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// No way to ask was given.
    #[error("there is no way to ask; give at least one engine")]
    NoWay,
    /// Two ways gave two answers.
    #[error("question {place} is answered differently by {one} and by {other}; the question is {input:?}")]
    Differs {
        /// Its place among the questions.
        place: u64,
        /// The first way.
        one: String,
        /// The other.
        other: String,
        /// The question.
        input: Box<Input>,
    },
    /// A call was stopped by the clock, or found no instance: that says nothing about the policy.
    #[error("this machine is too busy to tell: {0}")]
    Overloaded(CallError),
}

/// Asks a component made-up questions in each of several ways, and compares the bytes of the answers.
///
/// # Errors
/// [`SteadyError`]: it cannot be loaded, or two answers differ.
pub fn check(component: &[u8], ways: &[Way], inputs: u64, seed: u64) -> Result<Steady, SteadyError> {
    let mut found: Option<(Steady, Vec<Block>)> = None;
    let mut first: Option<&Way> = None;
    for way in ways {
        let policy = way.engine.load(component)?;
        let run = Run { policy: &policy, warm: way.warm, inputs, seed };
        let blocks = run.all(way.threads)?;
        let steady = run.sum_up(&blocks);
        match (&found, first) {
            (Some((other, theirs)), Some(one)) if other.digest != steady.digest => {
                let block = theirs.iter().zip(&blocks).position(|(one, other)| one.digest != other.digest);
                let block = u64::try_from(block.unwrap_or(0)).unwrap_or(0);
                return Err(differing(component, one, way, block, seed)?);
            }
            (Some(_), _) => {}
            (None, _) => {
                first = Some(way);
                found = Some((steady, blocks));
            }
        }
    }
    found.map(|(steady, _)| steady).ok_or(SteadyError::NoWay)
}

/// Finds the question in a block that two ways answer differently.
fn differing(
    component: &[u8],
    one: &Way,
    other: &Way,
    block: u64,
    seed: u64,
) -> Result<SteadyError, SteadyError> {
    let (ours, theirs) = (one.engine.load(component)?, other.engine.load(component)?);
    let mut sampler = sampler(seed, block);
    let mut last = None;
    for place in 0..BLOCK {
        let input = sampler.input(ours.kind());
        let differs = answer(&ours, &input, one.warm) != answer(&theirs, &input, other.warm);
        last = Some((place, input));
        if differs {
            break;
        }
    }
    let (place, input) = last.ok_or(SteadyError::NoWay)?;
    let (one, other) = (one.name.clone(), other.name.clone());
    Ok(SteadyError::Differs { place: block * BLOCK + place, one, other, input: Box::new(input) })
}

/// The answers to one block of questions.
struct Block {
    digest: PolicyHash,
    refused: u64,
    failed: u64,
}

struct Run<'a> {
    policy: &'a Policy,
    warm: bool,
    inputs: u64,
    seed: u64,
}

fn sampler(seed: u64, block: u64) -> Sampler {
    Sampler::new(seed ^ block.wrapping_mul(0x2545_f491_4f6c_dd1d))
}

fn answer(policy: &Policy, input: &Input, warm: bool) -> Result<Output, CallError> {
    match input {
        Input::Routing { job, candidates, now, seed } if warm => {
            match policy.rank(job, candidates, *now, *seed) {
                Ok(ranking) => Ok(Output::Routing(Ok(ranking))),
                Err(CallError::Refused(words)) => Ok(Output::Routing(Err(words))),
                Err(error) => Err(error),
            }
        }
        _ => policy.decide(input).map(|decided| decided.output),
    }
}

impl Run<'_> {
    fn all(&self, threads: usize) -> Result<Vec<Block>, SteadyError> {
        let blocks = self.inputs.div_ceil(BLOCK);
        let next = AtomicU64::new(0);
        let work = || -> Result<Vec<(u64, Block)>, SteadyError> {
            let mut done = Vec::new();
            loop {
                let block = next.fetch_add(1, Relaxed);
                if block >= blocks {
                    return Ok(done);
                }
                done.push((block, self.block(block)?));
            }
        };
        let done = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            // A panic goes on here: it is a mistake of ours.
            joined
                .map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Vec<_>>()
        });
        let mut all = Vec::new();
        for part in done {
            all.extend(part?);
        }
        all.sort_by_key(|(block, _)| *block);
        Ok(all.into_iter().map(|(_, block)| block).collect())
    }

    fn block(&self, block: u64) -> Result<Block, SteadyError> {
        let mut sampler = sampler(self.seed, block);
        let mut bytes = Vec::new();
        let (mut refused, mut failed) = (0, 0);
        for _ in 0..BLOCK.min(self.inputs - block * BLOCK) {
            match answer(self.policy, &sampler.input(self.policy.kind()), self.warm) {
                Ok(output) => {
                    refused += u64::from(output.refusal().is_some());
                    output.encode_to(&mut bytes);
                }
                Err(error @ (CallError::Time(_) | CallError::Busy(_))) => {
                    return Err(SteadyError::Overloaded(error));
                }
                Err(error) => {
                    failed += 1;
                    error.to_string().encode_to(&mut bytes);
                }
            }
        }
        Ok(Block { digest: PolicyHash::of(&bytes), refused, failed })
    }

    fn sum_up(&self, blocks: &[Block]) -> Steady {
        let digests: Vec<u8> = blocks.iter().flat_map(|block| *block.digest.as_bytes()).collect();
        Steady {
            hash: self.policy.hash(),
            kind: self.policy.kind(),
            inputs: self.inputs,
            refused: blocks.iter().map(|block| block.refused).sum(),
            failed: blocks.iter().map(|block| block.failed).sum(),
            digest: PolicyHash::of(&digests),
        }
    }
}

impl fmt::Display for Steady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hash, kind, inputs, refused, failed, digest } = self;
        write!(f, "{kind} {hash}: {inputs} questions, {refused} refused, {failed} failed, answers {digest}")
    }
}
