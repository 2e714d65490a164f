//! What a verifier asked for, what a provider says it did, and what contradicts itself.

use super::{Commitment, GROUP};
use crate::sample::SamplingParams;

/// What was asked for: the verifier's own words.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The prompt's tokens, template and special tokens included.
    pub prompt: Vec<u32>,
    /// How tokens are drawn, seed included.
    pub params: SamplingParams,
    /// Most tokens of the answer, the one that ends it included.
    pub limit: u32,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model drew a token that ends an answer. It is counted, and not among the tokens.
    End,
    /// The request's limit was reached.
    Limit,
    /// The requester had enough: a stop string, or it hung up.
    Cut,
}

/// Tokens, as they are paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt: u32,
    /// Of the answer, the one that ended it included.
    pub completion: u32,
}

/// What kind of arithmetic a provider says it has; it is held to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numerics {
    /// This crate's CPU backend: the same bits everywhere.
    Exact,
    /// Another order of sums, or activations in another format: GPUs.
    Float,
}

/// What the provider gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The answer's tokens.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// What it wants to be paid for.
    pub usage: Usage,
    /// Its arithmetic.
    pub numerics: Numerics,
    /// One for every 32 tokens.
    pub commitments: Vec<Commitment>,
}

/// A contradiction that anybody can see without a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A token that does not exist.
    #[error("token {token} at place {place} is not in the vocabulary")]
    UnknownToken {
        /// Place in the answer.
        place: u32,
        /// The token.
        token: u32,
    },
    /// A token that ends an answer, and more after it.
    #[error("the answer goes on after the token at place {place}, which ends it")]
    PastEnd {
        /// Place in the answer.
        place: u32,
    },
    /// More tokens than were asked for.
    #[error("{counted} tokens, {limit} were asked for")]
    TooLong {
        /// Tokens, the one that ended the answer included.
        counted: u32,
        /// The request's limit.
        limit: u32,
    },
    /// Said to have reached the limit, and has not.
    #[error("the answer is said to be at the limit of {limit} tokens and has {counted}")]
    ShortOfLimit {
        /// Tokens.
        counted: u32,
        /// The request's limit.
        limit: u32,
    },
    /// Other counts than there are tokens.
    #[error("{claimed:?} is claimed, {counted:?} was given")]
    Usage {
        /// What the provider wants to be paid for.
        claimed: Usage,
        /// What there is.
        counted: Usage,
    },
    /// Too few or too many commitments.
    #[error("{got} commitments, {expected} belong to the answer")]
    Commitments {
        /// How many the answer needs.
        expected: u32,
        /// How many there are.
        got: u32,
    },
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Everything that contradicts itself, for a vocabulary of this size in which `ends` end an answer.
pub fn faults(request: &Request, answer: &Answer, vocab: usize, ends: &[u32]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let place = |found: &dyn Fn(u32) -> bool| (0u32..).zip(&answer.tokens).find(|&(_, &token)| found(token));
    if let Some((place, &token)) = place(&|token| token as usize >= vocab) {
        faults.push(Fault::UnknownToken { place, token });
    }
    if let Some((place, _)) = place(&|token| ends.contains(&token)) {
        faults.push(Fault::PastEnd { place });
    }
    let tokens = count(answer.tokens.len());
    let counted = tokens.saturating_add(u32::from(answer.finish == Finish::End));
    if counted > request.limit {
        faults.push(Fault::TooLong { counted, limit: request.limit });
    }
    if answer.finish == Finish::Limit && counted < request.limit {
        faults.push(Fault::ShortOfLimit { counted, limit: request.limit });
    }
    let counted = Usage { prompt: count(request.prompt.len()), completion: counted };
    if answer.usage != counted {
        faults.push(Fault::Usage { claimed: answer.usage, counted });
    }
    let (expected, got) = (count(answer.tokens.len().div_ceil(GROUP)), count(answer.commitments.len()));
    if expected != got {
        faults.push(Fault::Commitments { expected, got });
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> (Request, Answer) {
        let request = Request { prompt: vec![1, 2, 3], params: SamplingParams::default(), limit: 40 };
        let commitment = super::super::commit(&[1.0, 2.0], 2).unwrap();
        let answer = Answer {
            tokens: vec![7; 39],
            finish: Finish::End,
            usage: Usage { prompt: 3, completion: 40 },
            numerics: Numerics::Exact,
            commitments: vec![commitment; 2],
        };
        (request, answer)
    }

    #[test]
    fn a_sound_answer_has_no_fault() {
        let (request, answer) = case();
        assert!(faults(&request, &answer, 10, &[0]).is_empty());
        let limit = Answer { tokens: vec![7; 40], finish: Finish::Limit, ..answer };
        assert!(faults(&request, &limit, 10, &[0]).is_empty());
    }

    #[test]
    fn every_contradiction_is_found() {
        let (request, sound) = case();
        let of = |change: &dyn Fn(&mut Answer)| {
            let mut answer = sound.clone();
            change(&mut answer);
            faults(&request, &answer, 10, &[0])
        };
        let paid = |prompt, completion| Usage { prompt, completion };
        assert_eq!(of(&|a| a.tokens[4] = 10), [Fault::UnknownToken { place: 4, token: 10 }]);
        assert_eq!(of(&|a| a.tokens[9] = 0), [Fault::PastEnd { place: 9 }]);
        assert_eq!(
            of(&|a| (a.tokens.push(7), a.usage.completion = 41).1),
            [Fault::TooLong { counted: 41, limit: 40 }]
        );
        assert_eq!(
            of(&|a| (a.finish = Finish::Limit, a.usage.completion = 39).1),
            [Fault::ShortOfLimit { counted: 39, limit: 40 }]
        );
        for claimed in [paid(3, 41), paid(3, 39), paid(4, 40)] {
            assert_eq!(of(&|a| a.usage = claimed), [Fault::Usage { claimed, counted: paid(3, 40) }]);
        }
        assert_eq!(of(&|a| a.commitments.truncate(1)), [Fault::Commitments { expected: 2, got: 1 }]);
        assert_eq!(
            of(&|a| a.commitments.push(a.commitments[0].clone())),
            [Fault::Commitments { expected: 2, got: 3 }]
        );
    }
}
