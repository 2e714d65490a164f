//! The teacher-forced pass, step by step, so that it can share a device with other work.

use super::{
    Answer, AuditError, Finish, GROUP, MICRO, OUTSIDE, Request, Score, Trace, Verdict, faults, score::Limits,
};
use crate::{
    backend::{Batch, PAGE, PageId},
    cpu::{CpuBackend, Simd},
    engine::{EngineError, Generator, generator},
    gguf::Gguf,
    model::{Decoder, LoadOptions},
    sample::Sampler,
};

/// What a model offers to an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Values of a hidden state.
    pub width: usize,
    /// Positions the model was trained for.
    pub context: usize,
    /// Most tokens in one step.
    pub tokens: usize,
    /// Most rows of logits in one step.
    pub outputs: usize,
}

impl Room {
    /// Of this model.
    pub fn of(model: &dyn Generator) -> Self {
        let config = model.config();
        Self {
            vocab: config.vocab,
            width: config.width,
            context: config.context,
            tokens: model.max_batch_tokens(),
            outputs: model.max_outputs(),
        }
    }
}

/// One answer on its way through the verifier's model.
#[derive(Debug)]
pub struct Replay<'a> {
    room: Room,
    answer: &'a Answer,
    ends: &'a [u32],
    sampler: Sampler,
    prompt: usize,
    /// Prompt and answer.
    tokens: Vec<u32>,
    /// How many of them are to be fed.
    feed: usize,
    fed: usize,
    pages: Vec<PageId>,
    /// Hidden states of a group that is not complete.
    hidden: Vec<f32>,
    trace: Trace,
}

impl<'a> Replay<'a> {
    /// Of a provider's answer, for a model in which `ends` end an answer. `pages` belong to the audit until it is over.
    /// An answer with a token that does not exist is not fed: its trace has the fault and nothing else.
    ///
    /// # Errors
    /// [`AuditError::Request`] and [`AuditError::Sampling`] when the request makes no sense to this model,
    /// [`AuditError::Room`] when there are too few pages.
    pub fn new(
        room: Room,
        request: &Request,
        answer: &'a Answer,
        ends: &'a [u32],
        pages: &[PageId],
    ) -> Result<Self, AuditError> {
        let refuse = |what: String| Err(AuditError::Request(what));
        if request.prompt.is_empty() {
            return refuse("its prompt is empty".into());
        }
        if let Some(token) = request.prompt.iter().find(|&&token| token as usize >= room.vocab) {
            return refuse(format!("token {token} of its prompt is not in the vocabulary of {}", room.vocab));
        }
        if room.tokens == 0 || room.outputs == 0 {
            return refuse("the model takes no tokens".into());
        }
        let mut answers = answer.tokens.as_slice();
        let faults = faults(request, answer, room.vocab, ends);
        if answers.iter().any(|&token| token as usize >= room.vocab) {
            answers = &[];
        }
        let ending = answer.finish == Finish::End && answers.len() == answer.tokens.len() && !ends.is_empty();
        let prompt = request.prompt.len();
        // The last token's logits say what comes after it, which only matters when nothing does.
        let outputs = answers.len() + usize::from(ending);
        let feed = if outputs == 0 { 0 } else { prompt + outputs - 1 };
        let fits = (pages.len() * PAGE).min(room.context);
        if feed > fits {
            return Err(AuditError::Room { positions: feed, room: fits });
        }
        Ok(Self {
            room,
            answer,
            ends,
            sampler: Sampler::new(request.params.clone(), room.vocab)?,
            prompt,
            tokens: request.prompt.iter().chain(answers).copied().collect(),
            feed,
            fed: 0,
            pages: pages.to_vec(),
            hidden: Vec::new(),
            trace: Trace {
                numerics: answer.numerics,
                faults,
                margins: Vec::new(),
                end: None,
                past: Vec::new(),
                groups: Vec::new(),
            },
        })
    }

    /// The next step's batch; `None` when all is done. Asking again gives the same until [`Replay::take`].
    pub fn next_batch(&self) -> Option<Batch> {
        let (start, end) = self.step()?;
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let wanted = self.first_output(start) - start;
        Some(Batch {
            tokens: self.tokens.get(start..end)?.to_vec(),
            positions: (narrow(start)..narrow(end)).collect(),
            sequence: vec![0; end - start],
            tables: vec![self.pages.clone()],
            outputs: (narrow(wanted)..narrow(end - start)).collect(),
        })
    }

    /// Takes what the model made of the last [`Replay::next_batch`]: logits and hidden states of its outputs.
    ///
    /// # Errors
    /// [`AuditError::Step`] for other lengths, [`AuditError::Sampling`] and [`AuditError::Hidden`] when the verifier's
    /// own numbers are broken.
    pub fn take(&mut self, logits: &[f32], hidden: &[f32]) -> Result<(), AuditError> {
        let Some((start, end)) = self.step() else { return Ok(()) };
        let first = self.first_output(start);
        for (values, each) in [(logits, self.room.vocab), (hidden, self.room.width)] {
            let expected = end.saturating_sub(first) * each;
            if values.len() != expected {
                return Err(AuditError::Step { got: values.len(), expected });
            }
        }
        let rows = logits.chunks_exact(self.room.vocab).zip(hidden.chunks_exact(self.room.width));
        for (position, (logits, hidden)) in (first..end).zip(rows) {
            self.position(position + 1, logits, hidden)?;
        }
        self.fed = end;
        Ok(())
    }

    /// Everything that was found.
    ///
    /// # Errors
    /// [`AuditError::Hidden`] as [`Replay::take`].
    pub fn finish(mut self) -> Result<Trace, AuditError> {
        if !self.hidden.is_empty() {
            self.group()?;
        }
        Ok(self.trace)
    }

    /// The token at this place in the sequence, from the logits before it.
    fn position(&mut self, place: usize, logits: &[f32], hidden: &[f32]) -> Result<(), AuditError> {
        let before = self.tokens.get(..place).unwrap_or_default();
        let claimed = self.tokens.get(place).copied();
        let claims = claimed.as_ref().map_or(self.ends, std::slice::from_ref);
        let found = self.sampler.margin(logits, before, self.prompt, None, claims)?;
        let micro = found.margin.map_or(OUTSIDE, micro);
        if claimed.is_none() {
            self.trace.end = Some(micro);
            return Ok(());
        }
        if self.ends.contains(&found.chosen) {
            self.trace.past.push((self.trace.margins.len(), micro));
        }
        self.trace.margins.push(micro);
        self.hidden.extend_from_slice(hidden);
        if self.hidden.len() >= GROUP * self.room.width {
            self.group()?;
        }
        Ok(())
    }

    fn group(&mut self) -> Result<(), AuditError> {
        // One that is missing is a fault already.
        if let Some(commitment) = self.answer.commitments.get(self.trace.groups.len()) {
            self.trace.groups.push(commitment.compare(&self.hidden, self.room.width)?);
        }
        self.hidden.clear();
        Ok(())
    }

    /// The first position at or after this one whose logits are wanted.
    fn first_output(&self, start: usize) -> usize {
        start.max(self.prompt - 1)
    }

    /// From which position to which the next step goes.
    fn step(&self) -> Option<(usize, usize)> {
        let start = self.fed;
        let end = (start + self.room.tokens).min(self.feed);
        // Positions of the prompt cost no logits.
        let end = end.min(self.first_output(start) + self.room.outputs);
        (start < end).then_some((start, end))
    }
}

/// A margin in micro-logits. Beyond a million logits it is one.
#[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
#[allow(clippy::cast_precision_loss, reason = "a million is exact")]
fn micro(margin: f64) -> i64 {
    (margin.min(MICRO as f64) * MICRO as f64).round() as i64
}

/// Replays answers on a model.
#[derive(Clone, Debug, Default)]
pub struct Auditor {
    /// Tokens that end an answer, see [`crate::tokenizer::Tokenizer::eog_tokens`]. With none, early ends are not seen.
    pub ends: Vec<u32>,
}

impl Auditor {
    /// Runs an answer through the model. `pages` are overwritten; the caller holds them alone.
    ///
    /// # Errors
    /// [`AuditError`] when the audit cannot be made; nothing in it is the provider's doing.
    pub fn trace(
        &self,
        model: &mut dyn Generator,
        pages: &[PageId],
        request: &Request,
        answer: &Answer,
    ) -> Result<Trace, AuditError> {
        let room = Room::of(model);
        let mut replay = Replay::new(room, request, answer, &self.ends, pages)?;
        let mut logits = Vec::new();
        while let Some(batch) = replay.next_batch() {
            logits.clear();
            logits.extend_from_slice(model.forward(&batch)?);
            replay.take(&logits, model.hidden()?)?;
        }
        replay.finish()
    }

    /// Runs an answer through the model and judges it by the limits for the arithmetic that the provider claims.
    ///
    /// # Errors
    /// As [`Auditor::trace`].
    pub fn score(
        &self,
        model: &mut dyn Generator,
        pages: &[PageId],
        request: &Request,
        answer: &Answer,
    ) -> Result<(Score, Verdict), AuditError> {
        let limits = Limits::of(answer.numerics);
        let score = self.trace(model, pages, request, answer)?.score(&limits);
        let verdict = limits.judge(&score);
        Ok((score, verdict))
    }
}

/// A model for settling disputes: plain code without vector instructions on the CPU. Its bits are those of the vector
/// paths, so this is a second, independent way to them rather than another result; it is about ten times slower.
/// `positions` is the longest sequence, prompt and answer together.
///
/// # Errors
/// [`EngineError`] when the file does not describe a supported decoder or memory is short.
pub fn referee(gguf: &Gguf, threads: usize, positions: usize) -> Result<Box<dyn Generator>, EngineError> {
    let backend = CpuBackend::new(threads, Some(Simd::Scalar))?;
    let options =
        LoadOptions { max_batch_tokens: 64, max_outputs: 64, cache_pages: positions.div_ceil(PAGE).max(1) };
    let decoder = Decoder::load(gguf, backend, options, &mut |_, _| {})?;
    Ok(generator(decoder, crate::model::decoder::weights_bytes(gguf)))
}
