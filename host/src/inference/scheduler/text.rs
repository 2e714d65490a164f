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
pub(in crate::inference) struct TextOut {
    tokenizer: Arc<Tokenizer>,
    detokenizer: Detokenizer,
    stops: Vec<String>,
    /// Text not given out yet.
    held: String,
    /// Tokens not given out yet.
    pending: Vec<Pending>,
    logprobs: bool,
}

/// A token whose text has not been given out.
#[derive(Debug)]
struct Pending {
    /// The place in `held` where its text starts.
    start: usize,
    token: u32,
    /// When asked for.
    logprob: Option<TokenLogprob>,
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
    pub(in crate::inference) fn new(
        tokenizer: Arc<Tokenizer>,
        fresh: bool,
        stops: Vec<String>,
        logprobs: bool,
    ) -> Self {
        let detokenizer = if fresh {
            Detokenizer::new(tokenizer.clone(), true)
        } else {
            Detokenizer::continuing(tokenizer.clone(), true)
        };
        Self { tokenizer, detokenizer, stops, held: String::new(), pending: Vec::new(), logprobs }
    }

    /// Takes tokens that were made elsewhere: their text is given out once more, their ids and log-probabilities
    /// are not. True when a stop sequence was met.
    pub(in crate::inference) fn replay(&mut self, tokens: &[u32]) -> (String, bool) {
        let mut said = String::new();
        for &token in tokens {
            let piece = self.detokenizer.push(token);
            self.held.push_str(&piece);
            let stop = self.stop_at();
            let ready = stop.unwrap_or_else(|| self.held.len() - self.possible_stop());
            let rest = self.held.split_off(ready);
            said.push_str(&std::mem::replace(&mut self.held, rest));
            if stop.is_some() {
                self.held.clear();
                return (said, true);
            }
        }
        (said, false)
    }

    /// Takes the next token.
    pub(super) fn push(&mut self, sampled: &Sampled) -> Pushed {
        let start = self.held.len();
        let piece = self.detokenizer.push(sampled.token);
        self.held.push_str(&piece);
        let logprob = self.logprobs.then(|| describe(&self.tokenizer, sampled));
        self.pending.push(Pending { start, token: sampled.token, logprob });
        if let Some(at) = self.stop_at() {
            self.held.truncate(at);
            self.pending.retain(|p| p.start < at);
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

    /// Gives out the first `len` bytes of the held text, and the ids and log-probabilities of tokens that start in
    /// them. A token whose text is all held back is not among them: nothing of it has been said yet.
    fn give(&mut self, len: usize) -> Option<Event> {
        if len == 0 && !self.logprobs {
            return None;
        }
        let rest = self.held.split_off(len);
        let text = std::mem::replace(&mut self.held, rest);
        // With nothing held back, tokens without text (half a character) are given out as well.
        let all = self.held.is_empty();
        let ready = self.pending.iter().take_while(|p| all || p.start < len).count();
        let (mut tokens, mut logprobs) = (Vec::with_capacity(ready), Vec::new());
        for given in self.pending.drain(..ready) {
            tokens.push(given.token);
            logprobs.extend(given.logprob);
        }
        self.pending.iter_mut().for_each(|p| p.start = p.start.saturating_sub(len));
        (!text.is_empty() || !tokens.is_empty()).then_some(Event::Text { text, logprobs, tokens })
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
