//! Probes and diagnoses against machines in memory.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::sleep;

use super::*;
use crate::{
    dispatch::{fixture::*, load::ModelLoad, provider::Provider},
    pool::trusted::Scope,
};

fn layers(steps: &[Step]) -> Vec<(Layer, bool)> {
    steps.iter().map(|step| (step.layer, step.outcome.is_ok())).collect()
}

async fn passes(world: &World, seconds: u64) {
    for _ in 0..seconds {
        world.report();
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_machine_is_probed_now_and_then_and_a_busy_one_is_not() {
    let world = World::new(vec![Script::new("a", |_| {}), Script::new("b", |_| {})]);
    let canary = Canary::bind(CanaryConfig::default(), &world.pool);
    let jobs = |n: usize| world.machines[n].script.jobs.lock().unwrap().len();
    passes(&world, 3).await;
    for n in [1, 2] {
        assert_eq!(world.health.seen(node(n), "m", "direct", Instant::now()).healthy, Some(true), "at once");
    }
    for _ in 0..60 {
        let reply = world.pool.submit_to(job(1), Some(node(1))).await.unwrap();
        reply.collect().await.unwrap();
        passes(&world, 5).await;
    }
    assert_eq!(jobs(0), 61, "60 jobs and the first probe");
    assert!((5..=11).contains(&jobs(1)), "{} probes in 300 s", jobs(1));
    let probe = &world.machines[1].script.jobs.lock().unwrap()[0].clone();
    assert_eq!(probe.max_tokens, Some(1));
    // A model that is not loaded is left alone.
    let before = jobs(1);
    for _ in 0..100 {
        world.say(2, vec![ModelLoad { loaded: false, ..model(4096) }]);
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(jobs(1), before);
    canary.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_reports_and_does_not_answer_is_found_out() {
    let world = World::new(vec![Script::new("a", |_| {}), Script::new("b", |_| {})]);
    // Its engine hangs; its reports are as good as ever.
    world.machines[0].script.on_event(|_| Deed::Hang);
    let _canary = Canary::bind(CanaryConfig::default(), &world.pool);
    passes(&world, 14).await;
    let seen = world.health.seen(node(1), "m", "direct", Instant::now());
    assert_eq!(seen.healthy, Some(false));
    assert!(seen.trouble.unwrap().contains("no token within"));
    assert_eq!(world.pool.submit(job(1)).await.unwrap().node, id(2));
    // It comes back by itself.
    world.machines[0].script.on_event(|_| Deed::GoOn);
    passes(&world, 80).await;
    assert_eq!(world.health.seen(node(1), "m", "direct", Instant::now()).healthy, Some(true));
}

#[tokio::test(start_paused = true)]
async fn probes_are_no_way_round_the_quota() {
    let world = World::new(vec![Script::new("a", |_| {})]);
    world.machines[0].roster.change(0, |grants| grants.rate = Some(1));
    world.pool.submit(job(1)).await.unwrap().collect().await.unwrap();
    let ask = async |job: &Job| {
        let stream = world.pool.pool().streams.open(node(1), PROTOCOL).await.unwrap();
        Call::begin(stream, job, true, world.pool.pool().config.timers).await.map(drop)
    };
    ask(&one_token("m")).await.unwrap();
    let mut long = one_token("m");
    long.max_tokens = Some(2);
    let refused = ask(&long).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused(JobError::Invalid { .. })), "{refused:?}");
    let mut refused = 0;
    for _ in 0..100 {
        refused += usize::from(ask(&one_token("m")).await.is_err());
        sleep(Duration::from_millis(50)).await;
    }
    assert!(refused > 30, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn the_layer_that_fails_is_named() {
    let world = World::new(vec![Script::new("a", |_| {})]);
    let ask = async || diagnose(&world.pool, node(1), None, Duration::from_secs(20)).await;
    let all = [Layer::Roster, Layer::Reachability, Layer::Tunnel, Layer::Model, Layer::Token];
    let upto = |n: usize| -> Vec<(Layer, bool)> {
        all[..n].iter().enumerate().map(|(i, layer)| (*layer, i + 1 < n)).collect()
    };
    let steps = ask().await;
    assert!(steps.len() == 5 && steps.iter().all(|step| step.outcome.is_ok()), "{steps:?}");
    world.report();
    world.machines[0].script.on_event(|_| Deed::Hang);
    assert_eq!(layers(&ask().await), upto(5));
    world.report();
    world.machines[0].script.refuse(Some(JobError::ShuttingDown));
    assert_eq!(layers(&ask().await), upto(4));
    world.machines[0].roster.change(0, |grants| grants.models = Scope::Only(Vec::new()));
    world.report();
    assert_eq!(layers(&ask().await), upto(4));
    // Streams open and nothing comes back.
    world.machines[0].roster.revoke(0);
    let steps = ask().await;
    assert_eq!(layers(&steps), upto(3), "{steps:?}");
    world.net.set(node(1), LinkState::Cut);
    assert_eq!(layers(&ask().await), upto(2));
    world.roster.change(1, |grants| grants.serve = false);
    assert_eq!(layers(&ask().await), upto(1));
    world.roster.revoke(1);
    let steps = ask().await;
    assert_eq!(layers(&steps), upto(1));
    assert!(steps[0].outcome.as_ref().unwrap_err().contains("potluck pool members"));
    assert_eq!(world.machines[0].script.running.load(Relaxed), 0);
}
