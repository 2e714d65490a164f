//! What waits for the encoder, and what it does next.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::Lane;
use crate::{
    inference::ModelEntry,
    job::{JobError, KeepAlive},
};

/// Vectors, and the time it took to load the encoder for them.
pub(super) type Outcome = Result<(Vec<Vec<f32>>, Duration), JobError>;

/// A request's claim on room in the queue. Dropping it ends the claim.
#[derive(Debug)]
pub(super) struct Lease {
    waiting: Arc<AtomicUsize>,
    texts: usize,
}

impl Lease {
    /// Room for these texts, unless more than `most` would wait then.
    pub(super) fn take(waiting: &Arc<AtomicUsize>, texts: usize, most: usize) -> Option<Self> {
        let add = |n: usize| n.checked_add(texts).filter(|sum| *sum <= most);
        waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        Some(Self { waiting: waiting.clone(), texts })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.texts, Ordering::AcqRel);
    }
}

/// One request on its way.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) key: String,
    pub(super) entry: ModelEntry,
    pub(super) keep: Option<KeepAlive>,
    /// Still to be embedded.
    inputs: VecDeque<Vec<u32>>,
    vectors: Vec<Vec<f32>>,
    load: Duration,
    reply: oneshot::Sender<Outcome>,
    _lease: Lease,
}

impl Work {
    pub(super) fn new(
        key: String,
        entry: ModelEntry,
        inputs: Vec<Vec<u32>>,
        keep: Option<KeepAlive>,
        reply: oneshot::Sender<Outcome>,
        lease: Lease,
    ) -> Self {
        let vectors = Vec::with_capacity(inputs.len());
        let load = Duration::ZERO;
        Self { key, entry, keep, inputs: inputs.into(), vectors, load, reply, _lease: lease }
    }

    /// Refuses the request.
    pub(super) fn fail(self, error: JobError) {
        let _ = self.reply.send(Err(error));
    }
}

/// Some texts of some requests for the same model, to be embedded together.
#[derive(Debug)]
pub(super) struct Slice {
    lane: Lane,
    /// Requests and how many of the inputs are theirs, in order.
    parts: Vec<(Work, usize)>,
    /// What to embed.
    pub(super) inputs: Vec<Vec<u32>>,
}

impl Slice {
    /// The request that decides on the model.
    pub(super) fn first(&self) -> Option<&Work> {
        self.parts.first().map(|(work, _)| work)
    }

    /// Tokens in all.
    pub(super) fn tokens(&self) -> usize {
        self.inputs.iter().map(Vec::len).sum()
    }

    /// The last request's wish decides how long the model stays.
    pub(super) fn keep(&self) -> Option<KeepAlive> {
        self.parts.last().and_then(|(work, _)| work.keep)
    }

    /// Refuses all requests that take part.
    pub(super) fn fail(self, error: &JobError) {
        for (work, _) in self.parts {
            work.fail(error.clone());
        }
    }
}

/// Two lanes of requests.
#[derive(Debug, Default)]
pub(super) struct Queue {
    interactive: VecDeque<Work>,
    background: VecDeque<Work>,
}

impl Queue {
    pub(super) fn push(&mut self, lane: Lane, work: Work) {
        self.lane(lane).push_back(work);
    }

    fn lane(&mut self, lane: Lane) -> &mut VecDeque<Work> {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Background => &mut self.background,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.interactive.is_empty() && self.background.is_empty()
    }

    /// The model that the next slice is for.
    pub(super) fn next_key(&self) -> Option<&str> {
        self.interactive.front().or(self.background.front()).map(|work| work.key.as_str())
    }

    /// Whether any request waits for this model.
    pub(super) fn wants(&self, key: &str) -> bool {
        self.interactive.iter().chain(&self.background).any(|work| work.key == key)
    }

    /// The next texts, of at most about `budget` tokens: one text at least, from the lane that goes first, in
    /// the order of requests. Requests whose caller went away are dropped.
    pub(super) fn slice(&mut self, budget: usize) -> Option<Slice> {
        self.interactive.retain(|work| !work.reply.is_closed());
        self.background.retain(|work| !work.reply.is_closed());
        let lane = if self.interactive.is_empty() { Lane::Background } else { Lane::Interactive };
        let waiting = self.lane(lane);
        let key = waiting.front()?.key.clone();
        let mut slice = Slice { lane, parts: Vec::new(), inputs: Vec::new() };
        let mut left = budget;
        while let Some(mut work) = waiting.pop_front_if(|work| work.key == key) {
            let before = slice.inputs.len();
            let fits = |left: usize, first: bool| move |input: &mut Vec<u32>| first || input.len() <= left;
            while let Some(input) = work.inputs.pop_front_if(fits(left, slice.inputs.is_empty())) {
                left = left.saturating_sub(input.len());
                slice.inputs.push(input);
            }
            let count = slice.inputs.len() - before;
            if count == 0 {
                waiting.push_front(work);
                break;
            }
            slice.parts.push((work, count));
        }
        Some(slice)
    }

    /// Hands out a slice's vectors. A request that is not done goes behind the others of its lane.
    pub(super) fn finish(&mut self, slice: Slice, vectors: Vec<Vec<f32>>, load: Duration) {
        let mut vectors = vectors.into_iter();
        for (mut work, count) in slice.parts {
            work.vectors.extend(vectors.by_ref().take(count));
            work.load += load;
            if work.inputs.is_empty() {
                let _ = work.reply.send(Ok((work.vectors, work.load)));
            } else {
                self.lane(slice.lane).push_back(work);
            }
        }
    }

    /// Refuses everything.
    pub(super) fn fail(&mut self, error: &JobError) {
        for work in self.interactive.drain(..).chain(self.background.drain(..)) {
            work.fail(error.clone());
        }
    }
}
