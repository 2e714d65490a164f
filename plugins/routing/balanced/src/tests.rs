use super::*;
use potluck_policy::{golden, sample};

fn candidate(machine: u64, change: impl FnOnce(&mut Candidate)) -> Candidate {
    let mut candidate = sample::candidate(machine);
    change(&mut candidate);
    candidate
}

fn rank(candidates: &[Candidate], seed: u64) -> Vec<u64> {
    let ranking = Balanced::rank(&sample::job(), candidates, 0, seed).unwrap();
    ranking.order.iter().map(|choice| candidates[choice.candidate as usize].machine).collect()
}

#[test]
fn answers_as_its_vectors_say() {
    golden::routing::<Balanced>(concat!(env!("CARGO_MANIFEST_DIR"), "/golden.json")).unwrap();
}

#[test]
fn who_cannot_fit_is_never_asked() {
    let all = [
        candidate(1, |c| c.context = 199),
        candidate(2, |c| (c.context, c.claimed_decode) = (300, 1_000_000)),
        candidate(3, |c| c.context = 0),
        candidate(4, |_| {}),
    ];
    let order = rank(&all, 0);
    assert_eq!(order[0], 4, "{order:?}");
    assert!(!order.contains(&1) && order.len() == 3);
}

#[test]
fn health_goes_before_speed_and_memory_before_disk() {
    let all = [
        candidate(1, |c| (c.health, c.claimed_decode) = (Health::Failed, 1_000_000)),
        candidate(2, |c| (c.health, c.claimed_decode) = (Health::Unknown, 1_000_000)),
        candidate(3, |c| (c.loaded, c.claimed_decode) = (false, 1_000_000)),
        candidate(4, |c| c.claimed_decode = 1_000),
        candidate(5, |c| (c.health, c.failures) = (Health::Paused, 4)),
        candidate(6, |c| (c.health, c.failures) = (Health::Paused, 1)),
    ];
    assert_eq!(rank(&all, 0), [4, 3, 2, 1, 6]);
}

#[test]
fn what_was_seen_outweighs_what_is_claimed() {
    let liar = candidate(1, |c| {
        (c.claimed_decode, c.claimed_prefill) = (1_000_000_000, 1_000_000_000);
        (c.seen_decode, c.seen_prefill) = (Some(2_000), Some(50_000));
    });
    let honest = candidate(2, |c| (c.seen_decode, c.seen_prefill) = (Some(20_000), Some(400_000)));
    assert_eq!(rank(&[liar, honest], 0), [2, 1]);
}

#[test]
fn this_machine_is_asked_unless_it_is_busy() {
    let own = |running, queued| {
        candidate(0, |c| {
            (c.path, c.health, c.running, c.queued) = (Path::Own, Health::Unknown, running, queued)
        })
    };
    let peer = || candidate(1, |c| (c.seen_decode, c.seen_prefill) = (Some(22_000), Some(440_000)));
    assert_eq!(rank(&[peer(), own(0, 0)], 0), [0, 1]);
    assert_eq!(rank(&[peer(), own(4, 6)], 0), [1, 0]);
    let fast = candidate(2, |c| (c.seen_decode, c.seen_prefill) = (Some(200_000), Some(4_000_000)));
    assert_eq!(rank(&[own(0, 0), fast], 0), [2, 0]);
}

#[test]
fn equal_machines_take_turns() {
    let firsts = (0..40).map(|seed| rank(&[candidate(1, |_| {}), candidate(2, |_| {})], seed)[0]);
    assert_eq!(firsts.collect::<std::collections::HashSet<_>>().len(), 2);
}

#[test]
fn nobody_is_asked_where_nobody_can() {
    let ranking = Balanced::rank(&sample::job(), &[], 0, 0).unwrap();
    assert_eq!((ranking.order.len(), ranking.note.as_str()), (0, "none of 0 can serve this job"));
}

#[test]
fn anything_is_ordered_once_each_and_scores_fall() {
    for seed in 0..2000 {
        let mut any = sample::Any::new(seed << 20);
        let (job, candidates) = (any.job(), any.candidates());
        let order = Balanced::rank(&job, &candidates, any.number(), any.number()).unwrap().order;
        assert!(order.is_sorted_by(|a, b| a.score >= b.score), "{order:?}");
        let each: std::collections::HashSet<u32> = order.iter().map(|choice| choice.candidate).collect();
        assert_eq!(each.len(), order.len());
        assert!(order.iter().all(|choice| (choice.candidate as usize) < candidates.len()));
    }
}

/// The node's own estimate, in floating point, for machines with ordinary numbers.
#[allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "compared with integers")]
fn seconds(job: &Job, c: &Candidate) -> f64 {
    let speed = |seen: Option<u64>, claimed: u64, unknown: f64| {
        let claimed = claimed as f64 / 1000.0 * if c.path == Path::Own { 1.0 } else { 0.5 };
        seen.map(|seen| seen as f64 / 1000.0)
            .unwrap_or(if claimed > 0.0 { claimed } else { unknown })
            .max(1e-3)
    };
    let prefill = speed(c.seen_prefill, c.claimed_prefill, 100.0);
    let decode = speed(c.seen_decode, c.claimed_decode, 10.0);
    let prompt = (job.prompt_least + job.prompt_most) as f64 / 2.0;
    let own = prompt / prefill + job.answer_expected as f64 / decode;
    let there = (u64::from(c.running) + u64::from(c.queued)).max(u64::from(c.in_flight));
    let slots = u64::from(c.slots.max(1));
    let rounds = (there + 1).saturating_sub(slots) as f64 / slots as f64;
    let waiting = rounds * (256.0 / decode).max(own);
    let crowded = if c.seen_decode.is_some() { 1.0 } else { 1.0 + 0.5 * there.min(slots - 1) as f64 };
    waiting + if c.loaded { 0.0 } else { 10.0 } + own * crowded
}

#[test]
#[allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "compared with integers")]
fn the_estimate_is_the_nodes_own() {
    let mut any = sample::Any::new(1);
    for _ in 0..20_000 {
        let job = Job {
            prompt_least: any.below(2_000),
            prompt_most: 2_000 + any.below(6_000),
            answer_expected: 1 + any.below(2_000),
            ..sample::job()
        };
        let candidate = candidate(1, |c| {
            c.context = 0;
            c.path = if any.below(2) == 0 { Path::Own } else { Path::Direct };
            c.loaded = any.below(2) == 0;
            c.slots = u32::try_from(any.below(6)).unwrap();
            c.running = u32::try_from(any.below(6)).unwrap();
            c.queued = u32::try_from(any.below(6)).unwrap();
            c.in_flight = u32::try_from(any.below(6)).unwrap();
            c.claimed_prefill = 1000 * any.below(500);
            c.claimed_decode = 1000 * any.below(50);
            c.seen_prefill = (any.below(2) == 0).then(|| any.below(500_000));
            c.seen_decode = (any.below(2) == 0).then(|| any.below(50_000));
        });
        let expected = Expected::of(&job, &candidate).unwrap();
        let seconds = seconds(&job, &candidate);
        let ours = expected.micros as f64 / 1e6;
        assert!((ours / seconds - 1.0).abs() < 2e-3, "{ours} {seconds} {candidate:?}");
        let steps = seconds.ln() * 10.0;
        // Where floating point is not itself at the edge of a step.
        if (steps - steps.floor() - 0.5).abs() > 0.03 {
            assert_eq!(expected.rough(), steps.round() as i64 + 138, "{seconds}");
        }
    }
}
