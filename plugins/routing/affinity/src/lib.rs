//! `affinity`: prefix reuse.
//!
//! A machine that has lately worked on the beginning of a prompt still has it in its cache and does not compute it
//! again. So a job goes to the machine that knows most of its leading blocks. A beginning that nobody knows goes to a
//! machine that follows from the beginning itself, by rendezvous hashing (Thaler and Ravishankar, 1998): the next job
//! that begins so, whoever asks, finds it there, and when a machine leaves only its own beginnings move.
//!
//! So that a popular beginning does not bury one machine, a load bound holds (Mirrokni, Thorup and Zadimoghaddam,
//! 2016): machines with more than [`BOUND`] times their part of all jobs come after those with less.
//!
//! The order, most important first: surely fits, not failing, model in memory, within the bound, most blocks known,
//! rendezvous. A job without a prefix goes where it is expected to finish first.

#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "tests may fail"))]

use potluck_policy::{
    expected::{self, jobs, slots},
    prelude::*,
};

/// How much more than its part of all jobs a machine may have, in millionths.
pub const BOUND: u64 = 1_250_000;

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct Affinity;

/// Where a candidate comes: compared field by field, the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    class: u8,
    crowded: bool,
    /// Blocks of the prompt that it does not know.
    unknown: u64,
    rough: i64,
    turn: u64,
    candidate: u32,
}

impl Routing for Affinity {
    fn rank(job: &Job, candidates: &[Candidate], _now: u64, seed: u64) -> Result<Ranking, String> {
        let blocks = job.prefix.len() as u64;
        let all = Pool::of(candidates);
        // One beginning goes to one machine, whatever follows it.
        let beginning = job.prefix.first();
        let place = |(candidate, it): (u32, &Candidate)| {
            let expected = Expected::of(job, it)?;
            Some(Place {
                class: expected.class(),
                crowded: all.crowds(it),
                unknown: blocks.saturating_sub(it.prefix_blocks.into()),
                rough: if beginning.is_some() { 0 } else { expected::rough(expected.micros) },
                turn: hash::mix(it.machine, *beginning.unwrap_or(&seed)),
                candidate,
            })
        };
        let mut places: Vec<Place> = (0..).zip(candidates).filter_map(place).collect();
        places.sort_unstable();
        let note = match places.first() {
            None => format!("none of {} can serve this job", candidates.len()),
            Some(first) => format!(
                "{} of {} can serve; the first knows {} of {blocks} blocks",
                places.len(),
                candidates.len(),
                blocks.saturating_sub(first.unknown),
            ),
        };
        let order = places.iter().map(|place| Choice { candidate: place.candidate, score: score(place) });
        Ok(Ranking { order: order.collect(), note })
    }
}

/// All machines together.
struct Pool {
    jobs: u64,
    slots: u64,
}

impl Pool {
    fn of(candidates: &[Candidate]) -> Self {
        let sum = |of: fn(&Candidate) -> u64| candidates.iter().map(of).fold(0, u64::saturating_add);
        // The job that is to be placed counts.
        Self { jobs: sum(jobs).saturating_add(1), slots: sum(slots) }
    }

    /// Whether one more job would bring a machine beyond the bound.
    fn crowds(&self, candidate: &Candidate) -> bool {
        let part = fixed::mul_div_up(self.jobs, slots(candidate), self.slots).unwrap_or(u64::MAX);
        let most = fixed::mul_div_up(part, BOUND, fixed::ONE).unwrap_or(u64::MAX);
        jobs(candidate) >= most
    }
}

/// Falls with the order: the class, the bound, the blocks, the time.
fn score(place: &Place) -> i64 {
    let class = i64::from(place.class).wrapping_mul(2).wrapping_add(place.crowded.into());
    let unknown = i64::try_from(place.unknown.min(9_999)).unwrap_or(0);
    class.wrapping_mul(-10_000_000).wrapping_sub(unknown.wrapping_mul(1000)).wrapping_sub(place.rough)
}

export_routing!(Affinity);

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_policy::{golden, sample};
    use std::collections::HashMap;

    fn job(prefix: &[u64]) -> Job {
        Job { prefix: prefix.to_vec(), ..sample::job() }
    }

    fn rank(job: &Job, candidates: &[Candidate], seed: u64) -> Vec<u64> {
        let order = Affinity::rank(job, candidates, 0, seed).unwrap().order;
        order.iter().map(|choice| candidates[choice.candidate as usize].machine).collect()
    }

    #[test]
    fn answers_as_its_vectors_say() {
        golden::routing::<Affinity>(concat!(env!("CARGO_MANIFEST_DIR"), "/golden.json")).unwrap();
    }

    #[test]
    fn who_knows_most_is_first() {
        let knows = |machine, prefix_blocks| Candidate { prefix_blocks, ..sample::candidate(machine) };
        assert_eq!(rank(&job(&[1, 2, 3, 4]), &[knows(1, 1), knows(2, 3), knows(3, 0)], 0), [2, 1, 3]);
        // Knowing more than there is, is knowing all: the beginning decides.
        let both = [knows(1, 4), knows(2, 9)];
        assert_eq!(rank(&job(&[1, 2, 3, 4]), &both, 0), rank(&job(&[1, 9, 9, 9]), &both, 5));
    }

    #[test]
    fn a_beginning_stays_where_it_went_and_few_move_when_a_machine_leaves() {
        let machines: Vec<_> = (1..=10).map(sample::candidate).collect();
        let mut counts = HashMap::<u64, u64>::new();
        let mut moved = 0;
        for beginning in 0..1000 {
            let first = rank(&job(&[beginning, beginning + 1]), &machines, beginning)[0];
            assert_eq!(rank(&job(&[beginning, 7]), &machines, 99)[0], first);
            *counts.entry(first).or_default() += 1;
            let later = rank(&job(&[beginning]), &machines[1..], 0)[0];
            moved += u64::from(first != 1 && later != first);
        }
        assert_eq!(moved, 0, "only beginnings of the machine that left move");
        assert!(counts.values().all(|count| (60..=140).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_popular_beginning_does_not_bury_one_machine() {
        let mut machines: Vec<_> = (1..=4).map(sample::candidate).collect();
        for _ in 0..16 {
            let first = rank(&job(&[5, 6]), &machines, 0)[0];
            let machine = machines.iter_mut().find(|machine| machine.machine == first).unwrap();
            machine.in_flight += 1;
            machine.prefix_blocks = 2;
        }
        let most = machines.iter().map(|machine| machine.in_flight).max().unwrap();
        assert!(most <= 5, "{machines:?}");
    }

    #[test]
    fn without_a_prefix_the_fastest_is_first() {
        let fast = Candidate { seen_decode: Some(90_000), ..sample::candidate(2) };
        assert_eq!(rank(&job(&[]), &[sample::candidate(1), fast], 0), [2, 1]);
    }

    #[test]
    fn anything_is_ordered_and_scores_fall() {
        for seed in 0..2000 {
            let mut any = sample::Any::new(seed << 20);
            let (job, candidates) = (any.job(), any.candidates());
            let order = Affinity::rank(&job, &candidates, any.number(), any.number()).unwrap().order;
            assert!(order.is_sorted_by(|a, b| a.score >= b.score), "{order:?}");
        }
    }
}
