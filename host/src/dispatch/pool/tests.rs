//! Jobs between machines, over streams in memory.

mod hostile;

use std::{
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use crate::{
    dispatch::{fixture::*, load::ModelLoad, provider::Provider, serve::ServeConfig},
    identity::NodeId,
    job::{Answer, Event, FinishReason, Input, JobError, REPLY_BUFFER},
    mesh::{
        frame,
        protocol::job::{
            PROTOCOL,
            receipts::{ReceiptError, Receipts, Served},
            wire::ToAsker,
        },
    },
    pool::trusted::{Membership, Scope},
};

fn one() -> Vec<Arc<Script>> {
    vec![Script::new("a", |_| {})]
}

fn two() -> Vec<Arc<Script>> {
    vec![Script::new("a", |_| {}), Script::new("b", |_| {})]
}

/// Waits for something that must happen soon.
async fn until(mut happened: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < Duration::from_secs(30), "it did not happen");
        sleep(Duration::from_millis(2)).await;
    }
}

fn check(answer: &Answer, seed: u64) {
    assert_eq!(answer.text, whole(seed, 20));
    let ids: Vec<_> = (0..20).map(|at| word(seed, at).0).collect();
    assert!(ids.starts_with(&answer.tokens) && answer.tokens.len() > 15, "{answer:?}");
    assert_eq!((answer.reason, answer.usage.completion_tokens), (FinishReason::Length, 20));
}

#[tokio::test(start_paused = true)]
async fn a_job_is_answered_by_another_machine() {
    let world = World::new(one());
    let reply = world.pool.submit(job(1)).await.unwrap();
    assert_eq!((reply.node.clone(), reply.mode), (id(1), crate::job::Mode::Trusted));
    check(&reply.collect().await.unwrap(), 1);
    let seen = world.health.seen(node(1), "m", "direct", Instant::now());
    assert_eq!((seen.healthy, seen.in_flight, seen.failures), (Some(true), 0, 0));
    assert!(seen.decode.unwrap() > 50.0, "{seen:?}");
    until(|| world.machines[0].server.counters().completed == 1).await;
    assert_eq!(world.machines[0].server.running(), 0);
    assert_eq!(world.pool.offers().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_reply_cancels_the_job_there() {
    let world = World::new(one());
    let mut reply = world.pool.submit(job(1)).await.unwrap();
    reply.next().await.unwrap().unwrap();
    drop(reply);
    until(|| world.machines[0].script.cancelled.load(Relaxed) == 1).await;
    until(|| world.machines[0].server.counters().cancelled == 1).await;
    assert_eq!(world.machines[0].server.running(), 0);
    assert_eq!(world.health.seen(node(1), "m", "direct", Instant::now()).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_is_refused() {
    let world = World::new(one());
    let server = &world.machines[0];
    let refused = |error: JobError| matches!(error, JobError::ModeUnavailable { .. });
    server.roster.change(0, |g| g.uses = false);
    assert!(refused(world.pool.submit(job(1)).await.unwrap_err()));
    server.roster.change(0, |g| g.uses = true);
    server.roster.change(1, |g| g.serve = false);
    assert!(refused(world.pool.submit(job(1)).await.unwrap_err()));
    server.roster.change(1, |g| g.serve = true);
    server.roster.change(0, |g| g.models = Scope::Only(vec!["other".into()]));
    let error = world.pool.submit(job(1)).await.unwrap_err();
    assert!(matches!(error, JobError::ModelNotFound { .. }), "{error:?}");
    server.roster.change(0, |g| (g.models, g.rate) = (Scope::All, Some(2)));
    for _ in 0..2 {
        world.pool.submit(job(1)).await.unwrap().collect().await.unwrap();
    }
    let error = world.pool.submit(job(1)).await.unwrap_err();
    assert!(matches!(error, JobError::Busy { retry_after, .. } if retry_after > Duration::from_secs(50)));
    assert!(server.script.jobs.lock().unwrap().len() == 2);
    // Whoever is no member gets nothing, not even a refusal.
    server.roster.revoke(0);
    let began = Instant::now();
    let error = world.pool.submit(job(1)).await.unwrap_err();
    assert!(
        matches!(error, JobError::Internal { .. }) && began.elapsed() < Duration::from_secs(3),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_makes_room_for_the_next() {
    let world = World::new(two());
    let first = &world.machines[0].script;
    for error in [
        JobError::Busy { queued: 3, retry_after: Duration::from_secs(1) },
        JobError::ShuttingDown,
        JobError::ModelUnusable { model: "m".into(), reason: "r".into() },
        JobError::ContextLengthExceeded { model: "m".into(), needed: 30, available: 20 },
    ] {
        first.refuse(Some(error.clone()));
        let reply = world.pool.submit(job(1)).await.unwrap();
        assert_eq!(reply.node, id(2), "{error:?}");
        check(&reply.collect().await.unwrap(), 1);
        assert_eq!(first.jobs.lock().unwrap().drain(..).count(), 1, "{error:?}");
        world.health.forget(node(1));
        world.health.forget(node(2));
        world.report();
    }
    // What every machine would refuse is refused at once.
    let wrong = JobError::Invalid { field: "temperature".into(), reason: "r".into() };
    first.refuse(Some(wrong.clone()));
    assert_eq!(world.pool.submit(job(1)).await.unwrap_err(), wrong);
    first.refuse(None);
    // A target is never replaced.
    world.machines[1].script.refuse(Some(JobError::ShuttingDown));
    let error = world.pool.submit_to(job(1), Some(node(2))).await.unwrap_err();
    assert_eq!(error, JobError::ShuttingDown);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_fit_is_not_asked_and_the_rest_learn_from_the_first() {
    let scripts: Vec<_> = [50, 300, 300, 4000]
        .map(|context| Script::new("x", |script: &mut Script| script.context = context))
        .into();
    let world = World::new(scripts);
    let mut long = job(1);
    long.input = Input::Text { text: "x ".repeat(400), special: false };
    for n in [1, 2] {
        let refusal = JobError::ContextLengthExceeded { model: "m".into(), needed: 420, available: 300 };
        world.machines[n].script.refuse(Some(refusal));
    }
    // The large one is known to be ill, so the small ones are asked first.
    let reply = world.pool.submit(long.clone()).await.unwrap();
    assert_eq!(reply.node, id(4), "it surely fits");
    drop(reply);
    world.say(4, Vec::new());
    let error = world.pool.submit(long).await.unwrap_err();
    assert!(matches!(error, JobError::ContextLengthExceeded { needed: 420, .. }), "{error:?}");
    let asked: Vec<usize> =
        world.machines.iter().map(|machine| machine.script.jobs.lock().unwrap().len()).collect();
    assert_eq!(asked[0], 0);
    assert_eq!(asked[1] + asked[2], 1, "the second of equal size is not asked: {asked:?}");
    assert_eq!(asked[3], 1);
}

/// Breaks the first machine off before each of its events in each of these ways.
async fn break_off(
    how: impl Fn(&World) -> Box<dyn Fn() -> Deed + Send + Sync>,
    logprobs: Option<u8>,
) -> Vec<Duration> {
    let mut pauses = Vec::new();
    for cut in 0..20 {
        let world = World::new(two());
        let deed = how(&world);
        world.machines[0].script.on_event(move |event| if event == cut { deed() } else { Deed::GoOn });
        let mut asked = job(cut as u64);
        asked.logprobs = logprobs;
        let mut reply = world.pool.submit(asked).await.unwrap();
        assert_eq!(reply.node, id(1));
        let (mut answer, mut last, mut longest) = (Answer::default(), Instant::now(), Duration::ZERO);
        while let Some(event) = reply.next().await {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            match event.unwrap() {
                Event::Text { text, logprobs, tokens } => {
                    answer.text.push_str(&text);
                    answer.logprobs.extend(logprobs);
                    answer.tokens.extend(tokens);
                }
                Event::Done { reason, usage } => (answer.reason, answer.usage) = (reason, usage),
            }
        }
        pauses.push(longest);
        let logprobs_off = logprobs.is_none();
        let want: Vec<u32> = (0..20).map(|at| word(cut as u64, at).0).collect();
        // The last ones may have no text to go with.
        let silent = want.iter().rev().take_while(|id| logprobs_off && *id % 5 == 1).count();
        let want = &want[..want.len() - silent];
        assert_eq!(answer.text, whole(cut as u64, 20), "cut at {cut}");
        assert_eq!(answer.tokens, want, "cut at {cut}");
        assert_eq!((answer.reason, answer.usage.completion_tokens), (FinishReason::Length, 20));
        if logprobs.is_some() {
            let got: Vec<f32> = answer.logprobs.iter().map(|l| -l.logprob).collect();
            assert_eq!(got, (0..20).map(|n| n as f32).collect::<Vec<_>>(), "cut at {cut}");
        }
        let resumed = world.machines[1].script.jobs.lock().unwrap()[0].resume.len();
        assert!(resumed <= cut && resumed + 2 >= cut, "{resumed} of {cut}");
        let seen = world.health.seen(node(1), "m", "direct", Instant::now());
        assert_eq!((seen.healthy, seen.in_flight), (Some(false), 0));
    }
    pauses
}

#[tokio::test(start_paused = true)]
async fn an_engine_may_fail_at_any_event() {
    let fails = |_: &World| -> Box<dyn Fn() -> Deed + Send + Sync> {
        Box::new(|| Deed::Fail(JobError::Internal { reason: "on purpose".into() }))
    };
    let pauses = break_off(fails, None).await;
    assert!(pauses.iter().all(|pause| *pause < Duration::from_millis(60)), "{pauses:?}");
    break_off(fails, Some(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_may_die_at_any_event() {
    let dies = |world: &World| -> Box<dyn Fn() -> Deed + Send + Sync> {
        let net = world.net.clone();
        Box::new(move || {
            net.set(node(1), LinkState::Cut);
            Deed::Hang
        })
    };
    let pauses = break_off(dies, Some(1)).await;
    assert!(pauses.iter().all(|pause| *pause < Duration::from_millis(60)), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_may_fall_silent_at_any_event() {
    let freezes = |world: &World| -> Box<dyn Fn() -> Deed + Send + Sync> {
        let net = world.net.clone();
        Box::new(move || {
            net.set(node(1), LinkState::Frozen);
            Deed::Hang
        })
    };
    let pauses = break_off(freezes, None).await;
    assert!(pauses.iter().all(|pause| *pause < Duration::from_millis(900)), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_ids_is_replaced_too() {
    // Nothing can be resumed then: the other machine says it all again, and what is known is passed over.
    let world = World::new(vec![Script::new("a", |s| s.ids = false), Script::new("b", |_| {})]);
    world.machines[0]
        .script
        .on_event(|n| if n == 12 { Deed::Fail(JobError::ShuttingDown) } else { Deed::GoOn });
    let mut asked = job(5);
    asked.logprobs = Some(1);
    let answer = world.pool.submit(asked).await.unwrap().collect().await.unwrap();
    assert_eq!((answer.text, answer.logprobs.len()), (whole(5, 20), 20));
    assert!(world.machines[1].script.jobs.lock().unwrap()[0].resume.is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_model_of_the_same_name_does_not_go_on() {
    let world = World::new(vec![
        Script::new("a", |_| {}),
        Script::new("b", |s| s.salt = 77),
        Script::new("c", |_| {}),
    ]);
    world.machines[0]
        .script
        .on_event(|n| if n == 9 { Deed::Fail(JobError::ShuttingDown) } else { Deed::GoOn });
    let answer = world.pool.submit(job(5)).await.unwrap().collect().await.unwrap();
    check_text(&answer, 5);
    assert_eq!(world.machines[1].script.jobs.lock().unwrap().len(), 1, "it was tried and found out");
    // With digests it is not even tried.
    world.health.forget(node(2));
    world.health.forget(node(1));
    world.report();
    world.say(2, vec![ModelLoad { digest: Some("other".into()), ..model(4096) }]);
    world.machines[0]
        .script
        .on_event(|n| if n == 9 { Deed::Fail(JobError::ShuttingDown) } else { Deed::GoOn });
    check_text(&world.pool.submit_to(job(5), None).await.unwrap().collect().await.unwrap(), 5);
}

fn check_text(answer: &Answer, seed: u64) {
    assert_eq!((answer.text.as_str(), answer.usage.completion_tokens), (whole(seed, 20).as_str(), 20));
}

#[tokio::test(start_paused = true)]
async fn when_nobody_can_go_on_the_reader_is_told() {
    let world = World::new(two());
    for machine in &world.machines {
        machine.script.on_event(|n| if n == 3 { Deed::Fail(JobError::ShuttingDown) } else { Deed::GoOn });
    }
    let error = world.pool.submit(job(5)).await.unwrap().collect().await.unwrap_err();
    let JobError::Internal { reason } = error else { panic!("{error:?}") };
    assert!(reason.contains("no other can go on") && reason.contains("shutting down"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn this_machine_is_one_of_them() {
    let own = Script::new("own", |_| {});
    let world = World::with(two(), Some(own.clone()), ServeConfig::default(), |_| {
        Arc::new(crate::mesh::protocol::job::receipts::NoReceipts)
    });
    // Nothing is known of the others yet; it is first.
    let reply = world.pool.submit(job(1)).await.unwrap();
    assert_eq!(reply.node, "n0");
    check(&reply.collect().await.unwrap(), 1);
    // Its engine breaks: a member goes on.
    own.on_event(|n| if n == 4 { Deed::Fail(JobError::Internal { reason: "x".into() }) } else { Deed::GoOn });
    check_text(&world.pool.submit(job(1)).await.unwrap().collect().await.unwrap(), 1);
    // A member breaks: this machine goes on.
    own.on_event(|_| Deed::GoOn);
    own.refuse(Some(JobError::Busy { queued: 1, retry_after: Duration::ZERO }));
    let reply = world.pool.submit(job(2)).await.unwrap();
    assert!(reply.node == id(1) || reply.node == id(2));
    check_text(&reply.collect().await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_slows_the_machine_down() {
    let world = World::new(vec![Script::new("a", |s| s.pause = Duration::from_millis(1))]);
    let mut asked = job(3);
    asked.max_tokens = Some(2000);
    let mut reply = world.pool.submit(asked).await.unwrap();
    let script = &world.machines[0].script;
    sleep(Duration::from_secs(60)).await;
    let sent = script.sent.load(Relaxed);
    // Two channels and what the streams hold; the rest waits in the engine.
    assert!((REPLY_BUFFER..2 * REPLY_BUFFER + 300).contains(&sent), "{sent}");
    let mut text = String::new();
    while let Some(event) = reply.next().await {
        if let Event::Text { text: more, .. } = event.unwrap() {
            text.push_str(&more);
        }
    }
    assert_eq!(text, whole(3, 2000));
    assert_eq!(world.health.seen(node(1), "m", "direct", Instant::now()).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_only_says_that_it_is_there_is_given_up() {
    let world = World::new(two());
    world.machines[0].script.on_event(|n| if n == 2 { Deed::Hang } else { Deed::GoOn });
    let began = Instant::now();
    let whole = tokio::spawn(world.pool.submit(job(3)).await.unwrap().collect());
    sleep(Duration::from_secs(299)).await;
    world.report();
    check_text(&whole.await.unwrap().unwrap(), 3);
    assert!(began.elapsed() > Duration::from_secs(299) && began.elapsed() < Duration::from_secs(310));
}

#[tokio::test(start_paused = true)]
async fn an_asking_side_that_is_gone_without_a_word_is_noticed() {
    let world = World::new(vec![Script::new("a", |s| s.pause = Duration::from_secs(100_000))]);
    let _reply = world.pool.submit(job(3)).await.unwrap();
    sleep(Duration::from_secs(100)).await;
    let server = &world.machines[0].server;
    assert_eq!(server.running(), 1, "pings keep it");
    world.net.set(node(1), LinkState::Frozen);
    let began = Instant::now();
    until(|| server.running() == 0).await;
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
}

/// A ledger that writes down what it sees.
#[derive(Debug, Default)]
struct Ledger {
    me: u8,
    lines: Arc<Mutex<Vec<String>>>,
    most: Option<u32>,
}

impl Receipts for Ledger {
    fn issue(&self, peer: NodeId, served: &Served) -> Option<Vec<u8>> {
        let line = format!("{} gave {} {}", self.me, peer.0[0], served.completion_tokens);
        self.lines.lock().unwrap().push(line);
        Some(served.completion_tokens.to_be_bytes().to_vec())
    }

    fn countersign(&self, peer: NodeId, half: &[u8], counted: &Served) -> Result<Vec<u8>, ReceiptError> {
        let claimed = u32::from_be_bytes(half.try_into().unwrap());
        if claimed > counted.completion_tokens + 1 || self.most.is_some_and(|most| claimed > most) {
            return Err(ReceiptError { job: counted.job, reason: "too much".into() });
        }
        self.lines.lock().unwrap().push(format!("{} took of {} {claimed}", self.me, peer.0[0]));
        Ok([half, b"signed"].concat())
    }

    fn settle(&self, peer: NodeId, whole: &[u8]) -> Result<(), ReceiptError> {
        assert!(whole.ends_with(b"signed"));
        self.lines.lock().unwrap().push(format!("{} settled with {}", self.me, peer.0[0]));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn both_sides_sign_what_each_machine_did() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let ledger = |me| -> Arc<dyn Receipts> { Arc::new(Ledger { me, lines: lines.clone(), most: None }) };
    let world = World::with(two(), None, ServeConfig::default(), ledger);
    check(&world.pool.submit(job(1)).await.unwrap().collect().await.unwrap(), 1);
    until(|| lines.lock().unwrap().len() == 3).await;
    assert_eq!(*lines.lock().unwrap(), ["1 gave 0 20", "0 took of 1 20", "1 settled with 0"]);
    lines.lock().unwrap().clear();
    // Whoever goes on is paid for its part.
    world.machines[0]
        .script
        .on_event(|n| if n == 8 { Deed::Fail(JobError::ShuttingDown) } else { Deed::GoOn });
    check_text(&world.pool.submit_to(job(1), None).await.unwrap().collect().await.unwrap(), 1);
    until(|| lines.lock().unwrap().len() == 3).await;
    assert_eq!(lines.lock().unwrap()[0], "2 gave 0 12");
}

#[tokio::test(start_paused = true)]
async fn stopping_tells_whoever_waits() {
    let world = World::new(two());
    let reply = world.pool.submit(job(1)).await.unwrap();
    let whole = tokio::spawn(reply.collect());
    sleep(Duration::from_millis(55)).await;
    world.machines[0].server.shutdown().await;
    check_text(&whole.await.unwrap().unwrap(), 1);
    assert!(world.roster.grants(node(1)).is_some());
}
