//! Where theory knows the answer, the simulator must come to it.

use super::*;
use crate::policy::simulate::number::{Random, whole};

/// Jobs that come at random, so many in a second, and take a second on average, also at random.
pub(super) fn random_jobs(count: u32, per_second: f64, seed: u64) -> Vec<Job> {
    let (mut random, mut at) = (Random::new(seed, 0), 0.0);
    let mut next = || {
        at += random.exponential() * 1e6 / per_second;
        // The token of the prompt takes its millisecond too.
        let answer = whole(random.exponential() * 1000.0).clamp(1, 900_000);
        job(whole(at), u32::try_from(answer).unwrap())
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn one_machine_with_one_slot_is_the_queue_of_the_textbook() {
    for (per_second, seed) in [(0.5, 1), (0.7, 2)] {
        let trace = Trace { jobs: random_jobs(150_000, per_second, seed), ..plain(1, 1) };
        let report = quiet(&trace, &[Contestant::native()], &unbounded());
        let it = &report.outcomes[0];
        assert_eq!(it.totals.done, 150_000);
        // M/M/1: a job is there for 1 / (service rate - arrival rate) on average, exponentially distributed.
        let mean = 1.0 / (1.0 - per_second);
        let found = it.whole.mean / 1e6;
        assert!((found / mean - 1.0).abs() < 0.04, "at {per_second}: {found} instead of {mean}");
        let p90 = mean * 10.0_f64.ln();
        assert!((it.whole.p90 as f64 / 1e6 / p90 - 1.0).abs() < 0.06, "at {per_second}: {}", it.whole.p90);
        let used = it.load.utilisation.mean / 1e6;
        assert!((used - per_second).abs() < 0.02, "at {per_second}: {used}");
    }
}

#[test]
fn a_crowded_machine_gets_slower_by_what_is_said_of_it() {
    let mut trace = plain(1, 4);
    trace.machines[1].crowding = 500_000;
    // Four at once, 1,000 tokens each: at 1 / 2.5 of the speed all of them take 2.5 s.
    trace.jobs = (0..4).map(|_| job(0, 1000)).collect();
    let it = &quiet(&trace, &[Contestant::native()], &unbounded()).outcomes[0];
    assert_eq!((it.whole.p50, it.whole.p99), (2_500_000, 2_500_000));
    // A fifth waits for a slot and is alone then.
    trace.jobs.push(job(0, 1000));
    let it = &quiet(&trace, &[Contestant::native()], &unbounded()).outcomes[0];
    assert_eq!((it.whole.p50, it.whole.p99), (2_500_000, 3_500_000));
}

#[test]
fn a_prefix_is_computed_once() {
    let mut trace = plain(1, 1);
    let long = |at_us| Job { prompt: 6401, prefix: vec![[9, 64]], ..job(at_us, 1) };
    trace.jobs = vec![long(0), long(10_000_000)];
    trace.machines[1].prefill = 1_000_000;
    let it = &quiet(&trace, &[Contestant::native()], &unbounded()).outcomes[0];
    // 64 blocks of 64 tokens are 4,096 tokens, and those are there the second time.
    assert_eq!((it.first.curve[100], it.first.curve[0]), (6_401_000, 6_401_000 - 4_096_000));
    assert_eq!(it.load.reused, 1_000_000 * 4096 / 12802);
}

#[test]
fn a_model_is_loaded_when_it_is_needed_and_unloaded_for_another() {
    let mut trace = plain(1, 1);
    trace.models.push(Model { name: "two".into(), parameters: 1000, bits: 4500 });
    trace.machines[1].models = vec![0, 1];
    trace.machines[1].load_us = 5_000_000;
    let of = |at_us, model| Job { model, ..job(at_us, 1) };
    trace.jobs = vec![of(0, 0), of(20_000_000, 0), of(40_000_000, 1), of(60_000_000, 0)];
    let it = &quiet(&trace, &[Contestant::native()], &unbounded()).outcomes[0];
    let slow = it.first.curve.iter().filter(|first| **first == 5_001_000).count();
    assert_eq!((it.first.curve[0], it.first.curve[100]), (1000, 5_001_000));
    assert_eq!(slow, 50, "the first is in memory at the beginning");
}

#[test]
fn two_equal_machines_share_the_work_under_the_native_order() {
    let trace = Trace { jobs: random_jobs(20_000, 1.2, 5), ..plain(2, 1) };
    let it = &quiet(&trace, &[Contestant::native()], &unbounded()).outcomes[0];
    let [least, most] = [it.load.utilisation.curve[0], it.load.utilisation.curve[100]];
    assert!((550_000..650_000).contains(&least) && (550_000..650_000).contains(&most), "{least} {most}");
    assert!(it.load.gini < 0.02, "{}", it.load.gini);
    // What the numbers are for: an order that always asks the same machine is told from it.
    let it = &quiet(&trace, &[built_in("same", Same)], &Rules::default()).outcomes[0];
    assert!(it.load.gini > 0.1, "{}", it.load.gini);
}

#[test]
fn no_machine_is_used_beyond_its_slots() {
    let trace = Scenario { load: 200, ..Scenario { machines: 10, jobs: 3000, seed: 3, load: 0 } }.trace();
    let it = &quiet(&trace, &[Contestant::native()], &Rules::default()).outcomes[0];
    assert!(it.load.utilisation.curve[100] <= 1_000_000);
    assert!(it.totals.refused > 0 || it.totals.waits > 0, "twice as much as can be done fills the queues");
}
