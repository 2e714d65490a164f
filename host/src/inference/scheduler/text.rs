//! From tokens to the text a caller sees: whole characters, nothing of a stop sequence, log-probabilities with
//! the text they belong to.

use std::sync::Arc;

use potluck_kernels::{
    sample::Sampled,
    tokenizer::{Detokenizer, Tokenizer},
};

use crate::job::{Event, TokenLogprob};

/// Most stop sequences of a job.
pub(crate) const MAX_STOPS: usize = 64;
/// Longest stop sequence, in bytes.
pub(crate) const MAX_STOP_LEN: usize = 1024;

/// Collects an answer's tokens and gives out text that can no longer become part of a stop sequence.
#[derive(Debug)]
pub(super) struct TextOut {
    tokenizer: Arc<Tokenizer>,
    detokenizer: Detokenizer,
    stops: Vec<String>,
    /// Text not given out yet.
    held: String,
    /// Log-probabilities not given out yet, each with the place in `held` where its token's text starts.
    logprobs: Option<Vec<(usize, TokenLogprob)>>,
}

/// What a token led to.
#[derive(Debug, PartialEq)]
pub(super) enum Pushed {
    /// Go on; text that is ready, if any.
    More(Option<Event>),
    /// A stop sequence was met; the text before it, if any.
    Stopped(Option<Event>),
}

impl TextOut {
    /// `fresh`: the answer starts a text of its own, so a tokenizer's artificial leading space is dropped.
    pub(super) fn new(tokenizer: Arc<Tokenizer>, fresh: bool, stops: Vec<String>, logprobs: bool) -> Self {
        let detokenizer = if fresh {
            Detokenizer::new(tokenizer.clone(), true)
        } else {
            Detokenizer::continuing(tokenizer.clone(), true)
        };
        let logprobs = logprobs.then(Vec::new);
        Self { tokenizer, detokenizer, stops, held: String::new(), logprobs }
    }

    /// Takes the next token.
    pub(super) fn push(&mut self, sampled: &Sampled) -> Pushed {
        let start = self.held.len();
        let piece = self.detokenizer.push(sampled.token);
        self.held.push_str(&piece);
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.push((start, describe(&self.tokenizer, sampled)));
        }
        if let Some(at) = self.stop_at() {
            self.held.truncate(at);
            if let Some(logprobs) = &mut self.logprobs {
                logprobs.retain(|(start, _)| *start < at);
            }
            return Pushed::Stopped(self.give(at));
        }
        let ready = self.held.len() - self.possible_stop();
        Pushed::More(self.give(ready))
    }

    /// The rest, once no token follows.
    pub(super) fn finish(&mut self) -> Option<Event> {
        let rest = self.detokenizer.finish();
        self.held.push_str(&rest);
        self.give(self.held.len())
    }

    /// Where the earliest stop sequence starts.
    fn stop_at(&self) -> Option<usize> {
        self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min()
    }

    /// Length of the longest end of the held text that could still become a stop sequence.
    fn possible_stop(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0).saturating_sub(1);
        let from = self.held.len().saturating_sub(longest);
        (from..self.held.len())
            .filter_map(|at| self.held.get(at..))
            .find(|end| self.stops.iter().any(|stop| stop.starts_with(end)))
            .map_or(0, str::len)
    }

    /// Gives out the first `len` bytes of the held text, and the log-probabilities of tokens that start in them.
    fn give(&mut self, len: usize) -> Option<Event> {
        let rest = self.held.split_off(len);
        let text = std::mem::replace(&mut self.held, rest);
        let mut logprobs = Vec::new();
        if let Some(pending) = &mut self.logprobs {
            // With nothing held back, tokens without text (half a character) are given out as well.
            let all = self.held.is_empty();
            let ready = pending.iter().take_while(|(start, _)| all || *start < len).count();
            logprobs.extend(pending.drain(..ready).map(|(_, logprob)| logprob));
            pending.iter_mut().for_each(|(start, _)| *start = start.saturating_sub(len));
        }
        (!text.is_empty() || !logprobs.is_empty()).then_some(Event::Text { text, logprobs })
    }
}

fn describe(tokenizer: &Tokenizer, sampled: &Sampled) -> TokenLogprob {
    let of = |id: u32| (tokenizer.token_text(id).into_owned(), tokenizer.token_bytes(id).into_owned());
    let (token, bytes) = of(sampled.token);
    let top = sampled.top.iter().map(|&(id, logprob)| {
        let (token, bytes) = of(id);
        (token, bytes, logprob)
    });
    TokenLogprob { token, bytes, logprob: sampled.logprob, top: top.collect() }
}
