//! `homebound`: local first, with spill-over.
//!
//! A job stays on the machine that decides while that has room: a free slot, and space in its cache for prompt and
//! answer. When it has none the job goes where it is expected to finish first, and this machine is one of those, with
//! no advantage: a queue at home can still be the shortest.
//!
//! Of the others come first those that surely fit, that are not failing, members before those that ask for a price,
//! direct ways before relayed ones, and then the least expected time, where ten percent are no difference.

#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "tests may fail"))]

use potluck_policy::{expected, expected::jobs, prelude::*};

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct Homebound;

/// Where a candidate comes: compared field by field, the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Not this machine with room.
    away: bool,
    class: u8,
    paid: bool,
    relayed: bool,
    rough: i64,
    turn: u64,
    candidate: u32,
}

impl Routing for Homebound {
    fn rank(job: &Job, candidates: &[Candidate], _now: u64, seed: u64) -> Result<Ranking, String> {
        let place = |(candidate, it): (u32, &Candidate)| {
            let expected = Expected::of(job, it)?;
            Some(Place {
                away: it.path != Path::Own || !has_room(job, it),
                // Loading is part of the time.
                class: expected.fit.wrapping_mul(4).wrapping_add(expected.health),
                paid: it.price.is_some(),
                relayed: it.path == Path::Relayed,
                rough: expected::rough(expected.micros),
                turn: hash::mix(it.machine, seed),
                candidate,
            })
        };
        let mut places: Vec<Place> = (0..).zip(candidates).filter_map(place).collect();
        places.sort_unstable();
        let (able, given) = (places.len(), candidates.len());
        let note = match places.first() {
            None => format!("none of {given} can serve this job"),
            Some(first) if first.away => format!("no room at home; {able} of {given} can serve"),
            Some(_) => format!("home has room; {able} of {given} can serve"),
        };
        let order = places.iter().map(|place| Choice { candidate: place.candidate, score: score(place) });
        Ok(Ranking { order: order.collect(), note })
    }
}

/// A free slot, and space in the cache where a loaded model says how much there is.
fn has_room(job: &Job, own: &Candidate) -> bool {
    let needed = job.prompt_most.saturating_add(job.answer_room);
    jobs(own) < expected::slots(own) && (!own.loaded || own.free_tokens >= needed)
}

/// Falls with the order.
fn score(place: &Place) -> i64 {
    let class = i64::from(place.class).wrapping_mul(4);
    let class = class.wrapping_add(i64::from(place.paid).wrapping_mul(2)).wrapping_add(place.relayed.into());
    let away = i64::from(place.away).wrapping_mul(-1_000_000);
    away.wrapping_sub(class.wrapping_mul(10_000)).wrapping_sub(place.rough)
}

export_routing!(Homebound);

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_policy::{golden, sample};

    fn own() -> Candidate {
        Candidate { path: Path::Own, ..sample::candidate(0) }
    }

    fn fast(machine: u64) -> Candidate {
        Candidate { seen_prefill: Some(4_000_000), seen_decode: Some(200_000), ..sample::candidate(machine) }
    }

    fn rank(candidates: &[Candidate]) -> Vec<u64> {
        let order = Homebound::rank(&sample::job(), candidates, 0, 0).unwrap().order;
        order.iter().map(|choice| candidates[choice.candidate as usize].machine).collect()
    }

    #[test]
    fn answers_as_its_vectors_say() {
        golden::routing::<Homebound>(concat!(env!("CARGO_MANIFEST_DIR"), "/golden.json")).unwrap();
    }

    #[test]
    fn home_is_first_while_it_has_a_slot_and_space() {
        assert_eq!(rank(&[fast(1), own()]), [0, 1]);
        assert_eq!(rank(&[fast(1), Candidate { running: 3, ..own() }]), [0, 1]);
        assert_eq!(rank(&[fast(1), Candidate { running: 4, ..own() }]), [1, 0]);
        assert_eq!(rank(&[fast(1), Candidate { in_flight: 4, ..own() }]), [1, 0]);
        assert_eq!(rank(&[fast(1), Candidate { free_tokens: 499, ..own() }]), [1, 0]);
        assert_eq!(rank(&[fast(1), Candidate { free_tokens: 500, ..own() }]), [0, 1]);
    }

    #[test]
    fn the_queue_at_home_can_be_the_shortest() {
        let full = Candidate { running: 4, ..own() };
        let fuller = Candidate { running: 4, queued: 20, ..sample::candidate(1) };
        assert_eq!(rank(&[fuller, full]), [0, 1]);
    }

    #[test]
    fn members_before_strangers_and_direct_before_relayed() {
        let full = Candidate { running: 4, queued: 40, ..own() };
        let relayed = Candidate { path: Path::Relayed, ..fast(1) };
        let paid = Candidate { price: Some(0), ..fast(2) };
        assert_eq!(rank(&[paid, relayed, full, sample::candidate(3)]), [3, 0, 1, 2]);
    }

    #[test]
    fn anything_is_ordered_and_scores_fall() {
        for seed in 0..2000 {
            let mut any = sample::Any::new(seed << 20);
            let (job, candidates) = (any.job(), any.candidates());
            let order = Homebound::rank(&job, &candidates, any.number(), any.number()).unwrap().order;
            assert!(order.is_sorted_by(|a, b| a.score >= b.score), "{order:?}");
        }
    }
}
