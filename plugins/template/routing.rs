//! `{{name}}`: say here what the rule is, and why.
//!
//! As it stands, it asks the machine with the fewest jobs first; where there are as many, machines take turns.

#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

use potluck_policy::prelude::*;

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct {{Name}};

impl Routing for {{Name}} {
    fn rank(job: &Job, candidates: &[Candidate], _now: u64, seed: u64) -> Result<Ranking, String> {
        let mut places = Vec::new();
        for (candidate, it) in (0..).zip(candidates) {
            // None: its context cannot hold the job, or it failed again and again.
            if Expected::of(job, it).is_none() {
                continue;
            }
            let jobs = u64::from(it.running).saturating_add(it.queued.into());
            // Compared from left to right, the least first.
            places.push((jobs, hash::mix(it.machine, seed), candidate));
        }
        places.sort();
        let note = format!("{} of {} machines can serve", places.len(), candidates.len());
        let order = places.iter().map(|&(jobs, _, candidate)| Choice { candidate, score: score_of(jobs) });
        Ok(Ranking { order: order.collect(), note })
    }
}

export_routing!({{Name}});

#[cfg(test)]
mod tests {
    use super::*;
    use potluck_policy::{golden, sample};

    #[test]
    fn answers_as_its_vectors_say() {
        golden::routing::<{{Name}}>(concat!(env!("CARGO_MANIFEST_DIR"), "/golden.json")).unwrap();
    }

    #[test]
    fn the_machine_with_the_fewest_jobs_is_first() {
        let busy = Candidate { running: 3, ..sample::candidate(1) };
        let idle = sample::candidate(2);
        let ranking = {{Name}}::rank(&sample::job(), &[busy, idle], 0, 0).unwrap();
        assert_eq!(ranking.order[0].candidate, 1);
    }

    #[test]
    fn anything_is_answered_without_a_panic() {
        for seed in 0..1000 {
            let mut any = sample::Any::new(seed << 20);
            let (job, candidates) = (any.job(), any.candidates());
            {{Name}}::rank(&job, &candidates, any.number(), any.number()).unwrap();
        }
    }
}
