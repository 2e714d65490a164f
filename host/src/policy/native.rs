//! The order that is used where no policy decides.

use std::fmt::Debug;

use super::types::{Candidate, Choice, Health, Job, Path, Ranking};

/// What orders machines when there is no routing policy, or when it fails.
pub trait Native: Send + Sync + Debug {
    /// An order. It cannot fail.
    fn rank(&self, job: &Job, candidates: &[Candidate], now: u64, seed: u64) -> Ranking;
}

/// The plain order: machines that are well and have room first, and among them the one that will be done soonest by
/// what was seen of it, or by what it says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Soonest;

impl Native for Soonest {
    fn rank(&self, job: &Job, candidates: &[Candidate], _now: u64, _seed: u64) -> Ranking {
        let mut order: Vec<_> = (0u32..)
            .zip(candidates)
            .map(|(place, machine)| (class(job, machine), micros(job, machine), place))
            .collect();
        order.sort_unstable();
        let choice = |(_, micros, candidate): (u8, u64, u32)| {
            let score = i64::try_from(micros).unwrap_or(i64::MAX);
            Choice { candidate, score: score.saturating_neg() }
        };
        Ranking { order: order.into_iter().map(choice).collect(), note: String::new() }
    }
}

/// Lower is better: a machine that is well, one that failed lately, one that cannot do it.
fn class(job: &Job, machine: &Candidate) -> u8 {
    let needs = job.prompt_least.saturating_add(job.answer_expected);
    let small = machine.context != 0 && machine.context < needs;
    match machine.health {
        _ if small => 3,
        Health::Healthy | Health::Unknown => 0,
        Health::Failed => 1,
        Health::Paused => 2,
    }
}

/// Microseconds until the answer is there.
fn micros(job: &Job, machine: &Candidate) -> u64 {
    const UNKNOWN_PREFILL: u64 = 50_000;
    const UNKNOWN_DECODE: u64 = 5_000;
    let speed = |seen: Option<u64>, claimed: u64, unknown: u64| {
        seen.filter(|speed| *speed > 0).unwrap_or(if claimed > 0 { claimed } else { unknown })
    };
    let at =
        |tokens: u64, speed: u64| tokens.saturating_mul(1_000_000_000).checked_div(speed).unwrap_or(u64::MAX);
    let prefill = speed(machine.seen_prefill, machine.claimed_prefill, UNKNOWN_PREFILL);
    let decode = speed(machine.seen_decode, machine.claimed_decode, UNKNOWN_DECODE);
    let own = at(job.prompt_most, prefill).saturating_add(at(job.answer_expected, decode));
    let ahead = u64::from(machine.running)
        .saturating_add(machine.queued.into())
        .saturating_add(machine.in_flight.into());
    // Jobs beyond the slots wait for one: each for about as long as this one takes.
    let waits = (ahead + 1).saturating_sub(machine.slots.max(1).into());
    let loading = if machine.loaded { 0 } else { 2_000_000 };
    let way = match machine.path {
        Path::Own => 0,
        Path::Direct => machine.round_trip.unwrap_or(20_000),
        Path::Relayed => machine.round_trip.unwrap_or(100_000),
    };
    own.saturating_mul(waits.saturating_add(1)).saturating_add(loading).saturating_add(way)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{
        Kind, check_output,
        sample::Sampler,
        types::{Input, Output},
    };

    #[test]
    fn the_soonest_comes_first_and_the_paused_last() {
        let job = Job { prompt_most: 100, answer_expected: 100, ..Job::default() };
        let machine = |decode: u64| Candidate {
            claimed_decode: decode,
            claimed_prefill: 500_000,
            slots: 1,
            loaded: true,
            health: Health::Healthy,
            ..Candidate::default()
        };
        let paused = Candidate { health: Health::Paused, ..machine(90_000) };
        let busy = Candidate { running: 1, queued: 3, ..machine(60_000) };
        let ranking = Soonest.rank(&job, &[paused, busy, machine(20_000), machine(30_000)], 0, 0);
        let order: Vec<_> = ranking.order.iter().map(|choice| choice.candidate).collect();
        assert_eq!(order, [3, 2, 1, 0]);
    }

    #[test]
    fn whatever_is_asked_is_answered_within_bounds() {
        let mut sampler = Sampler::new(5);
        for _ in 0..3000 {
            let input = sampler.input(Kind::Routing);
            let Input::Routing { job, candidates, now, seed } = &input else { panic!() };
            let ranking = Soonest.rank(job, candidates, *now, *seed);
            assert_eq!(ranking.order.len(), candidates.len());
            assert_eq!(check_output(&input, &Output::Routing(Ok(ranking))), Ok(()));
        }
    }
}
