//! One step: what goes into it, and what comes of it.

use std::time::{Duration, Instant};

use potluck_kernels::{
    backend::{Batch, PAGE},
    sample::SamplingError,
};

use super::{Constraint, Scheduler, Sequence, text::Pushed};
use crate::{
    inference::{counters::add, engine::Core, grammar::GrammarWorker},
    job::{FinishReason, JobError},
};

/// How long prompts may hold up the sequences that are being decoded.
const PREFILL_TIME: Duration = Duration::from_millis(150);
/// How long a step may take that nobody waits for: a new job and a cancelled one are seen after it.
const ALONE_TIME: Duration = Duration::from_secs(3);

/// How many prompt tokens the engine takes per second, as far as seen.
#[derive(Debug, Default)]
pub(super) struct Pace {
    tokens_per_second: f64,
}

impl Pace {
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    fn note(&mut self, tokens: usize, time: Duration) {
        if tokens < PAGE {
            return;
        }
        let rate = tokens as f64 / time.as_secs_f64().max(1e-6);
        self.tokens_per_second =
            if self.tokens_per_second == 0.0 { rate } else { 0.7 * self.tokens_per_second + 0.3 * rate };
    }

    /// Prompt tokens for a step; whole pages where it matters.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the caller")]
    fn budget(&self, alone: bool) -> usize {
        if alone && self.tokens_per_second == 0.0 {
            return 4 * PAGE;
        }
        let time = if alone { ALONE_TIME } else { PREFILL_TIME };
        let tokens = (self.tokens_per_second * time.as_secs_f64()) as usize;
        (tokens / PAGE * PAGE).max(PAGE)
    }
}

/// Tokens of one sequence in a step.
struct Share {
    /// Its place among the running ones.
    at: usize,
    tokens: usize,
    /// Its row of logits, when it has one.
    row: Option<usize>,
}

/// Splits `budget` tokens fairly: equal shares first, what is left over in order.
fn split(wanted: &[usize], budget: usize) -> Vec<usize> {
    let share = (budget / wanted.len().max(1)).max(1);
    let mut left = budget;
    let mut given: Vec<usize> = wanted
        .iter()
        .map(|&want| {
            let give = want.min(share).min(left);
            left -= give;
            give
        })
        .collect();
    for (given, &want) in given.iter_mut().zip(wanted) {
        let more = (want - *given).min(left);
        *given += more;
        left -= more;
    }
    given
}

impl<C: Core> Scheduler<C> {
    /// Makes one step. False when there was nothing to do.
    ///
    /// # Errors
    /// The engine's reason.
    pub(super) fn step(&mut self) -> Result<bool, String> {
        self.secure_pages();
        let (batch, shares) = self.assemble();
        if batch.tokens.is_empty() {
            return Ok(false);
        }
        let began = Instant::now();
        let vocab = self.core.vocab();
        let logits = self.core.forward(&batch)?;
        self.pace.note(batch.tokens.len(), began.elapsed());
        add(&self.setup.cells.steps, 1);
        let (mut ended, mut drawn) = (Vec::new(), Vec::new());
        for share in shares {
            let Some(sequence) = self.running.get_mut(share.at) else { continue };
            let full = sequence.computed / PAGE;
            sequence.computed += share.tokens;
            if sequence.computed / PAGE > full {
                let known = sequence.tokens.get(..sequence.computed).unwrap_or_default();
                self.pool.publish(known, &sequence.pages).map_err(|e| e.to_string())?;
            }
            let Some(place) = share.row else { continue };
            let row =
                logits.get(place * vocab..(place + 1) * vocab).ok_or("the engine returned too few logits")?;
            let length = sequence.tokens.len();
            if let Some(end) = advance(sequence, row, &mut self.grammar) {
                ended.push((share.at, end));
            }
            if sequence.vouching.is_some() {
                drawn.push((share.at, place, sequence.tokens.len() > length));
            }
        }
        if !drawn.is_empty() {
            self.vouch(&drawn)?;
        }
        ended.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        for (at, end) in ended {
            let sequence = self.running.remove(at);
            self.end(sequence, end);
        }
        Ok(true)
    }

    /// Commits to the hidden states of the last step's outputs, for the sequences that want it: the place among the
    /// running ones, the row, and whether its token was drawn already.
    fn vouch(&mut self, drawn: &[(usize, usize, bool)]) -> Result<(), String> {
        let (width, exact) = (self.core.width(), self.core.exact());
        let hidden = self.core.hidden()?;
        for &(at, row, taken) in drawn {
            let vouching = self.running.get_mut(at).and_then(|sequence| sequence.vouching.as_mut());
            let row = hidden.get(row * width..(row + 1) * width);
            if let (Some(vouching), Some(row)) = (vouching, row) {
                vouching.take(row, exact, taken);
            }
        }
        Ok(())
    }

    /// Puts the next step together: one token of each sequence that is decoded, then chunks of prompts.
    fn assemble(&self) -> (Batch, Vec<Share>) {
        let mut shares: Vec<Share> = Vec::new();
        let mut prompts = Vec::new();
        for (at, sequence) in self.running.iter().enumerate().filter(|(_, s)| s.is_ready()) {
            if sequence.decodes() {
                shares.push(Share { at, tokens: 1, row: None });
            } else {
                prompts.push((at, sequence.missing()));
            }
        }
        let room = self.core.max_batch().saturating_sub(shares.len());
        let budget = room.min(self.pace.budget(shares.is_empty()));
        let wanted: Vec<usize> = prompts.iter().map(|&(_, missing)| missing).collect();
        for ((at, _), tokens) in prompts.into_iter().zip(split(&wanted, budget)) {
            if tokens > 0 {
                shares.push(Share { at, tokens, row: None });
            }
        }
        let mut batch = Batch::default();
        for (table, share) in (0u32..).zip(&mut shares) {
            let Some(sequence) = self.running.get(share.at) else { continue };
            let end = sequence.computed + share.tokens;
            let tokens = sequence.tokens.get(sequence.computed..end).unwrap_or_default();
            batch.tokens.extend_from_slice(tokens);
            let first = u32::try_from(sequence.computed).unwrap_or(u32::MAX);
            batch.positions.extend((first..).take(tokens.len()));
            batch.sequence.extend(std::iter::repeat_n(table, tokens.len()));
            batch.tables.push(sequence.pages.clone());
            if end == sequence.tokens.len() {
                share.row = Some(batch.outputs.len());
                batch.outputs.push(u32::try_from(batch.tokens.len() - 1).unwrap_or(u32::MAX));
            }
        }
        (batch, shares)
    }
}

/// Chooses a sequence's next token. `Some` when that ends the answer.
pub(super) fn advance(
    sequence: &mut Sequence,
    logits: &[f32],
    worker: &mut GrammarWorker,
) -> Option<Result<FinishReason, JobError>> {
    let constraint = std::mem::replace(&mut sequence.constraint, Constraint::Free);
    let (grammar, mask) = match constraint {
        Constraint::Free => (None, None),
        Constraint::Allowed(grammar, mask) => (Some(grammar), Some(mask)),
        Constraint::Computing => {
            sequence.constraint = Constraint::Computing;
            sequence.logits = Some(logits.to_vec());
            return None;
        }
    };
    let sampled = match sequence.sampler.sample(logits, &sequence.tokens, sequence.prompt, mask.as_deref()) {
        Ok(sampled) => sampled,
        Err(error @ SamplingError::NotFinite) => {
            return Some(Err(JobError::Internal { reason: error.to_string() }));
        }
        Err(error) => return Some(Err(JobError::Internal { reason: format!("sampling failed: {error}") })),
    };
    if sequence.tokenizer.is_eog(sampled.token) {
        sequence.count();
        return Some(Ok(FinishReason::Stop));
    }
    sequence.append(sampled.token);
    match sequence.text.push(&sampled) {
        Pushed::Stopped(event) => {
            if let Some(event) = event {
                sequence.send(event);
            }
            return Some(Ok(FinishReason::Stop));
        }
        Pushed::More(Some(event)) => sequence.send(event),
        Pushed::More(None) => {}
    }
    if let Some(grammar) = grammar {
        sequence.constraint = Constraint::Computing;
        worker.advance(sequence.id, grammar, sampled.token);
    }
    (sequence.tokens.len() >= sequence.limit).then_some(Ok(FinishReason::Length))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn shares_are_fair_and_use_everything() {
        assert_eq!(split(&[100, 100, 5], 60), [35, 20, 5]);
        assert_eq!(split(&[1, 1], 60), [1, 1]);
        assert_eq!(split(&[9, 9, 9], 2), [1, 1, 0]);
        assert!(split(&[], 10).is_empty());
    }
}
