//! How long a machine is expected to take for a job, in integers: the estimate that the node itself makes.

use crate::{Candidate, Health, Job, Path, fixed};

/// Tokens of the answers that other jobs are waiting for.
const USUAL_ANSWER: u64 = 256;
/// Time to load a model, in microseconds.
const LOADING: u64 = 10_000_000;
/// Speeds of a machine of which nothing is known, in thousandths of a token per second.
const UNKNOWN_PREFILL: u64 = 100_000;
const UNKNOWN_DECODE: u64 = 10_000;
/// After so many failures in a row a machine that is paused is not asked even where it is the only one.
const HOPELESS: u32 = 4;
/// More tokens than this are not told apart, so that no sum overflows: 2³².
const MOST_TOKENS: u64 = 1 << 32;
/// Microseconds in a thousandth of a token per second's second: time is tokens · this / speed.
const MICROS: u64 = 1_000_000_000;

/// What is expected of one candidate. Compare [`class`](Self::class) first, then [`rough`](Self::rough).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// 0: its context surely holds the job; 1: it may.
    pub fit: u8,
    /// 0: a token came back lately, or it is this machine; 1: nothing is known; 2: the last job failed; 3: it is
    /// paused for that.
    pub health: u8,
    /// 0: the model is in memory; 1: it must be loaded.
    pub loading: u8,
    /// Time to the end of the answer, in microseconds, waiting included.
    pub micros: u64,
}

impl Expected {
    /// Of a candidate for a job; `None`: it cannot serve it, or fails so often that it should not be asked.
    pub fn of(job: &Job, candidate: &Candidate) -> Option<Self> {
        if candidate.health == Health::Paused && candidate.failures >= HOPELESS {
            return None;
        }
        let room = candidate.context;
        // An answer has at least one token.
        let least = job.prompt_least.saturating_add(job.answer_room.max(1));
        if room > 0 && least > room {
            return None;
        }
        let fit = u8::from(room == 0 || job.prompt_most.saturating_add(job.answer_room) > room);
        let health = match (candidate.path, candidate.health) {
            (Path::Own, _) | (_, Health::Healthy) => 0,
            (_, Health::Unknown) => 1,
            (_, Health::Failed) => 2,
            (_, Health::Paused) => 3,
        };
        Some(Self { fit, health, loading: u8::from(!candidate.loaded), micros: micros(job, candidate) })
    }

    /// Fit, then health, then loading, as one number from 0, the best, to 15.
    pub const fn class(&self) -> u8 {
        self.fit.wrapping_mul(8).wrapping_add(self.health.wrapping_mul(2)).wrapping_add(self.loading)
    }

    /// [`rough`] of the time.
    pub fn rough(&self) -> i64 {
        rough(self.micros)
    }
}

/// A time in steps of a tenth of a natural logarithm: ten percent more or less is no difference, so that machines
/// that are alike share the work. 0 is a microsecond; none at all comes before.
pub fn rough(micros: u64) -> i64 {
    // A second is a whole step, as it is for the node: 10 · ln 1,000,000 is 138.155.
    const SECOND: i64 = 59_337_166_024;
    const HALF: i64 = fixed::LN_ONE / 2;
    let Some(ln) = fixed::ln(micros) else { return -1 };
    let steps = ln.wrapping_sub(SECOND).wrapping_mul(10).wrapping_add(HALF).wrapping_shr(32);
    steps.wrapping_add(138)
}

/// Jobs that are there: those it tells of, or ours, which may not be in what it tells yet.
pub fn jobs(candidate: &Candidate) -> u64 {
    let told = u64::from(candidate.running).saturating_add(candidate.queued.into());
    told.max(candidate.in_flight.into())
}

/// Jobs that it answers at the same time, at least 1.
pub fn slots(candidate: &Candidate) -> u64 {
    u64::from(candidate.slots).max(1)
}

/// Expected time in microseconds: waiting, loading, prompt, answer.
fn micros(job: &Job, candidate: &Candidate) -> u64 {
    // What another machine says of itself is believed by half; what was seen, in full.
    let believed = |claimed: u64| if candidate.path == Path::Own { claimed } else { claimed / 2 };
    let speed = |seen: Option<u64>, claimed: u64, unknown: u64| {
        seen.unwrap_or(if claimed > 0 { believed(claimed) } else { unknown }).max(1)
    };
    let prefill = speed(candidate.seen_prefill, candidate.claimed_prefill, UNKNOWN_PREFILL);
    let decode = speed(candidate.seen_decode, candidate.claimed_decode, UNKNOWN_DECODE);
    let time = |tokens: u64, unit: u64, speed: u64| {
        tokens.min(MOST_TOKENS).saturating_mul(unit).checked_div(speed).unwrap_or(u64::MAX)
    };
    // The middle of what the prompt may have: half of each token of both ends.
    let halves = job.prompt_least.saturating_add(job.prompt_most);
    let own = time(halves, MICROS / 2, prefill).saturating_add(time(job.answer_expected, MICROS, decode));
    let (there, slots) = (jobs(candidate), slots(candidate));
    let ahead = there.saturating_add(1).saturating_sub(slots);
    let waiting = fixed::mul_div_saturating(time(USUAL_ANSWER, MICROS, decode).max(own), ahead, slots);
    // Answers beside it take from its speed, but not all; a speed that was seen has that in it.
    let beside = if candidate.seen_decode.is_some() { 0 } else { there.min(slots.saturating_sub(1)) };
    let crowded = fixed::mul_div_saturating(own, beside.saturating_add(2), 2);
    let loading = if candidate.loaded { 0 } else { LOADING };
    waiting.saturating_add(loading).saturating_add(crowded)
}
