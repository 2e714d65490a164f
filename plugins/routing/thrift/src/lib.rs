//! `thrift`: cost-aware.
//!
//! A job costs what the machine asks for it and the time that somebody waits. Time is worth [`HOUR`]: a credit is one
//! hour of the reference machine, so waiting for an hour costs as much as one computes in it. A machine that failed
//! audits costs more, since its answer may have to be paid for again: its price grows by the share of audits that it
//! failed.
//!
//! Out from the start: who cannot serve, and who asks for more than the job may cost. Of the others those that surely
//! fit come first, then those that are not paused for failures, then the least cost; where it is the same, in a
//! different order for each job. Whether a model must be loaded is part of the time. A member asks for no price, so
//! that among members the fastest is first.

#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "tests may fail"))]

use potluck_policy::prelude::*;

/// What an hour of waiting is worth, in micro-credits.
pub const HOUR: u64 = 1_000_000;

/// Microseconds in an hour.
const HOUR_MICROS: u64 = 3_600_000_000;

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct Thrift;

/// Where a candidate comes: compared field by field, the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Who may not fit, and who is paused, after the others.
    class: u8,
    cost: u64,
    turn: u64,
    candidate: u32,
}

impl Routing for Thrift {
    fn rank(job: &Job, candidates: &[Candidate], _now: u64, seed: u64) -> Result<Ranking, String> {
        let limit = job.max_price.unwrap_or(u64::MAX);
        let place = |(candidate, it): (u32, &Candidate)| {
            let expected = Expected::of(job, it)?;
            if it.price.is_some_and(|price| price > limit) {
                return None;
            }
            let class = expected.fit.wrapping_mul(2).wrapping_add(u8::from(it.health == Health::Paused));
            Some(Place {
                class,
                cost: cost(it, expected.micros),
                turn: hash::mix(it.machine, seed),
                candidate,
            })
        };
        let mut places: Vec<Place> = (0..).zip(candidates).filter_map(place).collect();
        places.sort_unstable();
        let note = match places.first() {
            None => format!("none of {} can serve this job for what it may cost", candidates.len()),
            Some(first) => format!(
                "{} of {} can serve; the first costs {} micro-credits, time included",
                places.len(),
                candidates.len(),
                first.cost
            ),
        };
        let order = places.iter().map(|place| Choice { candidate: place.candidate, score: score(place) });
        Ok(Ranking { order: order.collect(), note })
    }
}

/// Price, risk and time, in micro-credits.
fn cost(candidate: &Candidate, micros: u64) -> u64 {
    let price = candidate.price.unwrap_or(0);
    let failed = u64::from(candidate.audits_failed);
    let audits = failed.saturating_add(candidate.audits_passed.into());
    let risk = fixed::of(price, fixed::share(failed, audits));
    let time = fixed::mul_div_saturating(micros, HOUR, HOUR_MICROS);
    price.saturating_add(risk).saturating_add(time)
}

/// Quadrillions of micro-credits for the class, and the cost: falls with the order.
fn score(place: &Place) -> i64 {
    const CLASS: u64 = 1_000_000_000_000_000;
    score_of(CLASS.wrapping_mul(place.class.into()).wrapping_add(place.cost.min(CLASS)))
}

export_routing!(Thrift);

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_policy::{golden, sample};

    fn offer(machine: u64, price: u64, decode: u64) -> Candidate {
        Candidate {
            price: Some(price),
            seen_prefill: Some(20 * decode),
            seen_decode: Some(decode),
            ..sample::candidate(machine)
        }
    }

    fn rank(job: &Job, candidates: &[Candidate]) -> Vec<u64> {
        let order = Thrift::rank(job, candidates, 0, 0).unwrap().order;
        order.iter().map(|choice| candidates[choice.candidate as usize].machine).collect()
    }

    #[test]
    fn answers_as_its_vectors_say() {
        golden::routing::<Thrift>(concat!(env!("CARGO_MANIFEST_DIR"), "/golden.json")).unwrap();
    }

    #[test]
    fn time_is_money_at_a_credit_an_hour() {
        // 112.5 tokens-equivalent of a second each: 36 s are 10,000 micro-credits.
        assert_eq!(cost(&offer(1, 5, 1), 36_000_000), 10_005);
        let (slow, fast) = (offer(1, 9_000, 500), offer(2, 40_000, 20_000));
        assert_eq!(rank(&sample::job(), &[slow, fast]), [2, 1], "200 s cost more than 31,000");
        let (cheap, fast) = (offer(1, 9_000, 10_000), offer(2, 40_000, 20_000));
        assert_eq!(rank(&sample::job(), &[fast, cheap]), [1, 2]);
    }

    #[test]
    fn a_failed_audit_makes_a_machine_dearer() {
        let doubtful = Candidate { audits_failed: 1, audits_passed: 1, ..offer(1, 9_000, 20_000) };
        assert_eq!(cost(&doubtful, 0), 13_500);
        assert_eq!(rank(&sample::job(), &[doubtful, offer(2, 10_000, 20_000)]), [2, 1]);
    }

    #[test]
    fn nobody_is_asked_who_asks_too_much() {
        let job = Job { max_price: Some(9_000), ..sample::job() };
        let member = sample::candidate(3);
        assert_eq!(rank(&job, &[offer(1, 9_000, 20_000), offer(2, 9_001, 20_000), member]), [3, 1]);
    }

    #[test]
    fn a_paused_machine_is_the_last_resort() {
        let paused = Candidate { health: Health::Paused, failures: 1, ..offer(1, 0, 50_000) };
        assert_eq!(rank(&sample::job(), &[paused, offer(2, 90_000, 1_000)]), [2, 1]);
    }

    #[test]
    fn anything_is_ordered_and_scores_fall() {
        for seed in 0..2000 {
            let mut any = sample::Any::new(seed << 20);
            let (job, candidates) = (any.job(), any.candidates());
            let order = Thrift::rank(&job, &candidates, any.number(), any.number()).unwrap().order;
            assert!(order.is_sorted_by(|a, b| a.score >= b.score), "{order:?}");
        }
    }
}
