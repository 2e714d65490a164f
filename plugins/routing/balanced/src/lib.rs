//! `balanced`: latency- and load-aware, the same order as a node has without any policy.
//!
//! Out from the start: a machine whose context cannot hold the job, and one that failed again and again lately. Of the
//! others come first, in this order of importance:
//!
//! 1. a machine that surely fits before one that may,
//! 2. a healthy one before one of which nothing is known, before one that failed last, before one that is paused,
//! 3. one with the model in memory before one that must load it,
//! 4. the least expected time to the end of the answer, where ten percent more or less is no difference,
//! 5. the machine that decides before others,
//! 6. a different order for each job, so that machines that are alike share the work.
//!
//! The expected time is that of [`Expected`]: waiting, loading, prompt and answer, from speeds that were seen or else
//! half of those that are claimed.

#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "tests may fail"))]

use potluck_policy::{expected, prelude::*};

/// This machine is asked unless another is expected to answer in less than this part of its time, in hundredths.
const OWN_BONUS: u64 = 67;

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct Balanced;

/// Where a candidate comes: compared field by field, the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    class: u8,
    rough: i64,
    foreign: bool,
    turn: u64,
    candidate: u32,
    micros: u64,
}

impl Routing for Balanced {
    fn rank(job: &Job, candidates: &[Candidate], _now: u64, seed: u64) -> Result<Ranking, String> {
        let place = |(candidate, it): (u32, &Candidate)| {
            let expected = Expected::of(job, it)?;
            let foreign = it.path != Path::Own;
            let micros = if foreign {
                expected.micros
            } else {
                fixed::mul_div_saturating(expected.micros, OWN_BONUS, 100)
            };
            let turn = if foreign { hash::mix(it.machine, seed) } else { 0 };
            Some(Place {
                class: expected.class(),
                rough: expected::rough(micros),
                foreign,
                turn,
                candidate,
                micros: expected.micros,
            })
        };
        let mut places: Vec<Place> = (0..).zip(candidates).filter_map(place).collect();
        places.sort_unstable();
        let note = note(&places, candidates.len());
        let order = places.iter().map(|place| Choice { candidate: place.candidate, score: score(place) });
        Ok(Ranking { order: order.collect(), note })
    }
}

/// Ten thousands for the class, and the rough time: falls with the order.
fn score(place: &Place) -> i64 {
    i64::from(place.class).wrapping_mul(-10_000).wrapping_sub(place.rough)
}

fn note(places: &[Place], given: usize) -> String {
    let Some(first) = places.first() else {
        return format!("none of {given} can serve this job");
    };
    let able = places.len();
    format!("{able} of {given} can serve; the first is expected to take {} ms", first.micros / 1000)
}

export_routing!(Balanced);

#[cfg(test)]
mod tests;
