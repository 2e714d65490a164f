//! From logits to a token.
//!
//! The order is: logit bias, repeat, presence and frequency penalties, mask of allowed tokens, temperature, top-k,
//! top-p, min-p, then the largest of `logit / temperature + noise`. The noise is Gumbel's, a function of (seed,
//! position, token id) alone: the choice follows the softmax exactly (the Gumbel-max trick, see
//! <https://arxiv.org/abs/1611.01144>), and the same seed gives the same tokens whatever else is in a batch.

pub(crate) mod math;
mod select;

use math::{log_sum_exp, tempered_exp};
use select::{Candidate, argmax, largest};

/// Most alternatives with log-probabilities that can be asked for.
pub const MAX_TOP_LOGPROBS: usize = 256;
/// Most entries of a logit bias.
pub const MAX_LOGIT_BIAS: usize = 4096;

/// Why parameters are refused or a token cannot be chosen.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A number is NaN, infinite or out of range.
    #[error("{name} is {value}; it must be {range}")]
    Parameter {
        /// The parameter, by its usual name.
        name: &'static str,
        /// What was asked for.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
    /// A logit bias names a token that does not exist.
    #[error("logit_bias names token {token} of a vocabulary of {vocab}")]
    BiasToken {
        /// The token id.
        token: u32,
        /// Tokens in the vocabulary.
        vocab: usize,
    },
    /// The logits do not have the length of the vocabulary.
    #[error("{got} logits for a vocabulary of {vocab}")]
    Length {
        /// Logits given.
        got: usize,
        /// Tokens in the vocabulary.
        vocab: usize,
    },
    /// The logits contain NaN or +∞, or nothing but −∞: the model or its file is broken.
    #[error("the model's logits are not finite; the model file is damaged or its numbers overflowed")]
    NotFinite,
    /// The mask allows no token at all.
    #[error("no token is allowed here")]
    NothingAllowed,
}

/// What is asked of a sampler. The default is the model's own distribution (temperature 1, nothing cut).
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 takes the most likely token. At most 1000.
    pub temperature: f32,
    /// Only the k most likely tokens; 0: all.
    pub top_k: u32,
    /// Only the most likely tokens whose probabilities together reach this; 1: all. From 0 to 1.
    pub top_p: f32,
    /// Only tokens at least this likely, relative to the most likely one; 0: all. From 0 to 1.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens that occur in the last `repeat_last_n`; 1: off.
    pub repeat_penalty: f32,
    /// How many of the last tokens, prompt included, `repeat_penalty` looks at.
    pub repeat_last_n: u32,
    /// Taken from the logits of every token generated so far. From −100 to 100.
    pub presence_penalty: f32,
    /// Taken from a token's logit as many times as it was generated. From −100 to 100.
    pub frequency_penalty: f32,
    /// Added to logits by token id.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the noise.
    pub seed: u64,
    /// How many alternatives to return with log-probabilities.
    pub top_logprobs: usize,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            top_logprobs: 0,
        }
    }
}

impl SamplingParams {
    /// Parameters that take the most likely token each time.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every parameter; nothing is ever clamped.
    ///
    /// # Errors
    /// [`SamplingError::Parameter`] or [`SamplingError::BiasToken`] for the first that is wrong.
    pub fn validate(&self, vocab: usize) -> Result<(), SamplingError> {
        let checks = [
            ("temperature", self.temperature, 0.0, 1000.0, "from 0 to 1000"),
            ("top_p", self.top_p, 0.0, 1.0, "from 0 to 1"),
            ("min_p", self.min_p, 0.0, 1.0, "from 0 to 1"),
            ("repeat_penalty", self.repeat_penalty, 0.01, 100.0, "from 0.01 to 100"),
            ("presence_penalty", self.presence_penalty, -100.0, 100.0, "from -100 to 100"),
            ("frequency_penalty", self.frequency_penalty, -100.0, 100.0, "from -100 to 100"),
        ];
        for (name, value, low, high, range) in checks {
            if !(low..=high).contains(&value) {
                return Err(SamplingError::Parameter { name, value: value.into(), range });
            }
        }
        let counts = [
            ("top_logprobs", self.top_logprobs, MAX_TOP_LOGPROBS, "at most 256"),
            ("logit_bias", self.logit_bias.len(), MAX_LOGIT_BIAS, "at most 4096 entries"),
        ];
        for (name, value, limit, range) in counts {
            if value > limit {
                #[allow(clippy::cast_precision_loss, reason = "for a message")]
                return Err(SamplingError::Parameter { name, value: value as f64, range });
            }
        }
        for &(token, bias) in &self.logit_bias {
            if token as usize >= vocab {
                return Err(SamplingError::BiasToken { token, vocab });
            }
            if !bias.is_finite() {
                let range = "a finite number for each token";
                return Err(SamplingError::Parameter { name: "logit_bias", value: bias.into(), range });
            }
        }
        Ok(())
    }

    fn adjusts(&self) -> bool {
        !self.logit_bias.is_empty()
            || self.repeat_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub token: u32,
    /// Its log-probability in the model's own distribution: no temperature, no penalty, no mask.
    pub logprob: f32,
    /// The most likely tokens of the same distribution with their log-probabilities, as many as were asked for,
    /// most likely first.
    pub top: Vec<(u32, f32)>,
}

/// The least margin of a token that is not the chosen one, in logits: a draw of equals is still another token.
pub const LEAST_MARGIN: f64 = 1e-6;

/// How far claimed tokens are from what a sampler chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    /// The token that the sampler chooses.
    pub chosen: u32,
    /// By how many logits the chosen token leads: its `logit + T · noise` less the same of the claimed token, after
    /// bias and penalties, and by how much the claimed token's logit misses the cuts, if it does. 0 when the choice was
    /// claimed, and at least [`LEAST_MARGIN`] otherwise. `None`: no claimed token is allowed at all.
    pub margin: Option<f64>,
}

/// Which tokens may be drawn, after every cut: those whose logit is at least this.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Of all tokens.
    All(f64),
    /// Of the candidates.
    Candidates(f64),
}

/// Chooses tokens for one sequence. Holds no state but buffers: everything follows from the arguments.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    vocab: usize,
    adjusted: Vec<f32>,
    recent: Vec<u32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for a vocabulary of this size.
    ///
    /// # Errors
    /// As [`SamplingParams::validate`].
    pub fn new(params: SamplingParams, vocab: usize) -> Result<Self, SamplingError> {
        params.validate(vocab)?;
        Ok(Self { params, vocab, adjusted: Vec::new(), recent: Vec::new(), candidates: Vec::new() })
    }

    /// What was asked for.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Chooses the token that follows `tokens`, the first `prompt` of which are the prompt. Its position, which the
    /// noise depends on, is `tokens.len()`. `allowed` has a bit per token id (bit `id % 32` of word `id / 32`);
    /// ids past its end are not allowed.
    ///
    /// # Errors
    /// [`SamplingError`] when the logits are broken or nothing is allowed.
    pub fn sample(
        &mut self,
        logits: &[f32],
        tokens: &[u32],
        prompt: usize,
        allowed: Option<&[u32]>,
    ) -> Result<Sampled, SamplingError> {
        self.check(logits)?;
        let (best, max) = argmax(logits);
        let normaliser = log_sum_exp(logits, max);
        if !normaliser.is_finite() {
            return Err(SamplingError::NotFinite);
        }
        let token =
            self.adjusted((logits, best, max), tokens, prompt, allowed, |sampler, logits, best, max| {
                sampler.choose(logits, tokens.len(), best, max)
            })?;
        #[allow(clippy::cast_possible_truncation, reason = "the result is f32")]
        let logprob = |logit: f32| (f64::from(logit) - normaliser) as f32;
        let top = if self.params.top_logprobs == 0 {
            Vec::new()
        } else {
            largest(logits, self.params.top_logprobs, &mut self.candidates);
            self.candidates.iter().map(|c| (c.id, logprob(c.logit))).collect()
        };
        let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        Ok(Sampled { token, logprob: logprob(own), top })
    }

    /// How far the nearest of the `claimed` tokens is from the token that [`Sampler::sample`] chooses with the same
    /// arguments. For T = 0 it is the plain difference of logits.
    ///
    /// Source: Karvonen et al., "`DiFR`: Inference Verification Despite Nondeterminism", 2025.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn margin(
        &mut self,
        logits: &[f32],
        tokens: &[u32],
        prompt: usize,
        allowed: Option<&[u32]>,
        claimed: &[u32],
    ) -> Result<Margin, SamplingError> {
        self.check(logits)?;
        let (best, max) = argmax(logits);
        if !max.is_finite() || logits.iter().any(|logit| logit.is_nan()) {
            return Err(SamplingError::NotFinite);
        }
        self.adjusted((logits, best, max), tokens, prompt, allowed, |sampler, logits, best, max| {
            sampler.distance(logits, tokens.len(), (best, max), claimed)
        })
    }

    fn check(&self, logits: &[f32]) -> Result<(), SamplingError> {
        if logits.len() == self.vocab && !logits.is_empty() {
            return Ok(());
        }
        Err(SamplingError::Length { got: logits.len(), vocab: self.vocab })
    }

    /// Does something with the logits, their largest and its token after bias, penalties and mask.
    fn adjusted<R>(
        &mut self,
        (logits, best, max): (&[f32], u32, f32),
        tokens: &[u32],
        prompt: usize,
        allowed: Option<&[u32]>,
        then: impl FnOnce(&mut Self, &[f32], u32, f32) -> R,
    ) -> Result<R, SamplingError> {
        if allowed.is_none() && !self.params.adjusts() {
            return Ok(then(self, logits, best, max));
        }
        let mut adjusted = std::mem::take(&mut self.adjusted);
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        self.adjust(&mut adjusted, tokens, prompt);
        if let Some(allowed) = allowed {
            mask(&mut adjusted, allowed);
        }
        let (best, max) = argmax(&adjusted);
        let result = if max == f32::NEG_INFINITY {
            Err(SamplingError::NothingAllowed)
        } else {
            Ok(then(self, &adjusted, best, max))
        };
        self.adjusted = adjusted;
        result
    }

    /// Biases and penalties.
    fn adjust(&mut self, logits: &mut [f32], tokens: &[u32], prompt: usize) {
        let p = &self.params;
        for &(token, bias) in &p.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if p.repeat_penalty != 1.0 {
            let start = tokens.len().saturating_sub(p.repeat_last_n as usize);
            sorted_copy(tokens.get(start..).unwrap_or_default(), &mut self.recent);
            for run in self.recent.chunk_by(|a, b| a == b) {
                let Some(logit) = run.first().and_then(|&t| logits.get_mut(t as usize)) else { continue };
                *logit = if *logit > 0.0 { *logit / p.repeat_penalty } else { *logit * p.repeat_penalty };
            }
        }
        if p.presence_penalty != 0.0 || p.frequency_penalty != 0.0 {
            sorted_copy(tokens.get(prompt..).unwrap_or_default(), &mut self.recent);
            for run in self.recent.chunk_by(|a, b| a == b) {
                let Some(logit) = run.first().and_then(|&t| logits.get_mut(t as usize)) else { continue };
                #[allow(clippy::cast_precision_loss, reason = "a count of tokens in a context")]
                let count = run.len() as f32;
                *logit -= p.presence_penalty + p.frequency_penalty * count;
            }
        }
    }

    /// Whether the most likely token is taken, without noise.
    fn is_greedy(&self) -> bool {
        self.params.temperature == 0.0 || self.params.top_k == 1
    }

    /// Temperature, cuts and noise over adjusted logits, whose maximum is `max` at `best`.
    fn choose(&mut self, logits: &[f32], position: usize, best: u32, max: f32) -> u32 {
        if self.is_greedy() {
            return best;
        }
        let cut = self.cut(logits, max);
        self.draw(cut, logits, position, best, max)
    }

    /// The noisiest of what the cut left.
    fn draw(&self, cut: Cut, logits: &[f32], position: usize, best: u32, max: f32) -> u32 {
        let temperature = f64::from(self.params.temperature);
        let stream = math::stream(self.params.seed, position as u64);
        match cut {
            Cut::All(floor) => {
                let all = (0u32..).zip(logits).filter(|&(_, &logit)| f64::from(logit) >= floor);
                noisiest(all.map(|(id, &logit)| (id, logit)), max, temperature, stream, best)
            }
            Cut::Candidates(floor) => {
                let kept = self.candidates.iter().filter(|c| f64::from(c.logit) >= floor);
                noisiest(kept.map(|c| (c.id, c.logit)), max, temperature, stream, best)
            }
        }
    }

    /// Top-k, top-p and min-p.
    fn cut(&mut self, logits: &[f32], max: f32) -> Cut {
        let p = &self.params;
        let temperature = f64::from(p.temperature);
        let floor = min_p_floor(p.min_p, max, temperature);
        let cut_k = p.top_k > 0 && (p.top_k as usize) < logits.len();
        if !cut_k && p.top_p >= 1.0 {
            return Cut::All(floor);
        }
        if cut_k {
            largest(logits, p.top_k as usize, &mut self.candidates);
            if p.top_p < 1.0 {
                let weight = |c: &Candidate| tempered_exp(c.logit, max, temperature);
                let total: f64 = self.candidates.iter().map(weight).sum();
                let keep = prefix(&self.candidates, f64::from(p.top_p) * total, weight);
                self.candidates.truncate(keep.unwrap_or(self.candidates.len()));
            }
        } else {
            nucleus(logits, max, temperature, p.top_p, &mut self.candidates);
        }
        Cut::Candidates(floor)
    }

    /// As [`Sampler::margin`], over adjusted logits, whose maximum is `max` at `best`.
    fn distance(
        &mut self,
        logits: &[f32],
        position: usize,
        (best, max): (u32, f32),
        claimed: &[u32],
    ) -> Margin {
        let own = |id: u32| logits.get(id as usize).copied().filter(|logit| *logit > f32::NEG_INFINITY);
        let (chosen, cut) = if self.is_greedy() {
            (best, f64::NEG_INFINITY)
        } else {
            let cut = self.cut(logits, max);
            let lowest = match cut {
                Cut::All(floor) => floor,
                // In order: the last is the lowest.
                Cut::Candidates(floor) => {
                    self.candidates.last().map_or(floor, |last| floor.max(f64::from(last.logit)))
                }
            };
            (self.draw(cut, logits, position, best, max), lowest)
        };
        if claimed.contains(&chosen) {
            return Margin { chosen, margin: Some(0.0) };
        }
        let temperature = if self.is_greedy() { 0.0 } else { f64::from(self.params.temperature) };
        let stream = math::stream(self.params.seed, position as u64);
        let noisy =
            |id: u32, logit: f32| f64::from(logit) + temperature * math::gumbel(math::uniform(stream, id));
        let most = own(chosen).map_or(f64::NEG_INFINITY, |logit| noisy(chosen, logit));
        // Near a cut, another rounding lets a token in: a little below it is a little wrong.
        let of = |&id: &u32| {
            let logit = own(id)?;
            let missed = (cut - f64::from(logit)).max(0.0);
            Some(((most - noisy(id, logit)).max(0.0) + missed).max(LEAST_MARGIN))
        };
        Margin { chosen, margin: claimed.iter().filter_map(of).reduce(f64::min) }
    }
}

/// The logit below which a token is less than `min_p` times as likely as the most likely one.
fn min_p_floor(min_p: f32, max: f32, temperature: f64) -> f64 {
    if min_p == 0.0 {
        return f64::NEG_INFINITY;
    }
    f64::from(max) + math::ln(f64::from(min_p)) * temperature
}

/// The largest of logit / temperature + noise, where no logit passes `max`; of equals the lowest id.
fn noisiest(
    candidates: impl Iterator<Item = (u32, f32)>,
    max: f32,
    temperature: f64,
    stream: u64,
    best: u32,
) -> u32 {
    let inverse = 1.0 / temperature;
    let top = f64::from(max) * inverse;
    let mut winner = (f64::NEG_INFINITY, best);
    // With u from (0, 1): noise = −ln(−ln u) ≤ −ln(1 − u). A token whose 1 − u passes this bound cannot win even
    // with the largest logit; nearly all are passed over so, at the cost of a hash and no logarithm.
    let mut bound = f64::INFINITY;
    for (id, logit) in candidates {
        let uniform = math::uniform(stream, id);
        if 1.0 - uniform > bound || logit == f32::NEG_INFINITY {
            continue;
        }
        let score = f64::from(logit) * inverse + math::gumbel(uniform);
        if score > winner.0 || (score == winner.0 && id < winner.1) {
            winner = (score, id);
            bound = (top - score).exp() * (1.0 + 1e-6) + 1e-15;
        }
    }
    winner.1
}

/// How many of the candidates, in order, reach `target` together; `None` when all of them do not.
fn prefix(candidates: &[Candidate], target: f64, weight: impl Fn(&Candidate) -> f64) -> Option<usize> {
    let mut sum = 0.0;
    candidates
        .iter()
        .position(|c| {
            sum += weight(c);
            sum >= target
        })
        .map(|last| last + 1)
}

/// Leaves in `out`, in order, the most likely tokens that reach `top_p` together. Sorts only as many as it takes.
fn nucleus(logits: &[f32], max: f32, temperature: f64, top_p: f32, out: &mut Vec<Candidate>) {
    let total: f64 = logits.iter().map(|&l| tempered_exp(l, max, temperature)).sum();
    let target = f64::from(top_p) * total;
    let mut count = 128;
    loop {
        largest(logits, count, out);
        let weight = |c: &Candidate| tempered_exp(c.logit, max, temperature);
        match prefix(out, target, weight) {
            Some(keep) => return out.truncate(keep),
            None if count >= logits.len() => return,
            None => count *= 16,
        }
    }
}

fn mask(logits: &mut [f32], allowed: &[u32]) {
    let words = allowed.iter().copied().chain(std::iter::repeat(0));
    for (chunk, word) in logits.chunks_mut(32).zip(words) {
        if word == u32::MAX {
            continue;
        }
        for (bit, logit) in chunk.iter_mut().enumerate() {
            if (word >> bit) & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

fn sorted_copy(tokens: &[u32], out: &mut Vec<u32>) {
    out.clear();
    out.extend_from_slice(tokens);
    out.sort_unstable();
}
