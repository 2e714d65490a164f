//! Members that are revoked, lie, flood, or send what makes no sense.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_revoked_member_loses_its_job_at_once() {
    let world = World::new(one());
    let machine = &world.machines[0];
    let mut reply = world.pool.submit(job(1)).await.unwrap();
    reply.next().await.unwrap().unwrap();
    machine.roster.revoke(0);
    let began = Instant::now();
    until(|| machine.script.cancelled.load(Relaxed) == 1).await;
    assert!(began.elapsed() < Duration::from_millis(20));
    assert_eq!(machine.server.counters().revoked, 1);
    assert!(reply.collect().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_revoked_server_is_left_at_once() {
    let world = World::new(two());
    world.machines[0].script.on_event(|n| if n == 5 { Deed::Hang } else { Deed::GoOn });
    let reply = world.pool.submit(job(1)).await.unwrap();
    let whole = tokio::spawn(reply.collect());
    sleep(Duration::from_millis(80)).await;
    let began = Instant::now();
    world.roster.revoke(1);
    check_text(&whole.await.unwrap().unwrap(), 1);
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    until(|| world.machines[0].server.running() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_gets_what_one_member_may_have() {
    let config = ServeConfig { jobs: 3, jobs_per_member: 2, ..ServeConfig::default() };
    let no_receipts = |_| -> Arc<dyn Receipts> { Arc::new(crate::mesh::protocol::job::receipts::NoReceipts) };
    let world = World::with(one(), None, config, no_receipts);
    let tasks = (0..50).map(|seed| {
        let pool = world.pool.clone();
        tokio::spawn(async move { pool.submit(job(seed)).await?.collect().await })
    });
    let mut answered = 0;
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(_) => answered += 1,
            Err(JobError::Busy { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    let script = &world.machines[0].script;
    assert!((2..10).contains(&answered), "{answered}");
    assert_eq!(script.jobs.lock().unwrap().len(), answered);
    assert_eq!(world.machines[0].server.running(), 0);
    assert_eq!(world.health.seen(node(1), "m", "direct", Instant::now()).failures, 0);
    check(&world.pool.submit(job(1)).await.unwrap().collect().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn streams_that_make_no_sense_end() {
    let world = World::new(one());
    let server = &world.machines[0].server;
    // Too long, no CBOR, another message, nothing at all, half a frame for ever.
    for bytes in [
        vec![0xff; 8],
        [&[0, 0, 0, 3][..], b"abc"].concat(),
        vec![0, 0, 0, 2, 0x82, 0x01],
        vec![0, 0, 0, 200, 1],
    ] {
        let mut stream = world.net.dial(node(0), node(1), PROTOCOL).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut rest = Vec::new();
        timeout(Duration::from_secs(40), stream.read_to_end(&mut rest)).await.expect("it ends").unwrap();
    }
    until(|| server.counters().nonsense >= 2 && server.counters().cancelled >= 1).await;
    drop(world.net.dial(node(0), node(1), PROTOCOL).await.unwrap());
    world.report();
    check(&world.pool.submit(job(1)).await.unwrap().collect().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_slow_for_everybody() {
    let world = World::new(two());
    let slow = async |from: u8, streams: usize| {
        let mut held = Vec::new();
        for _ in 0..streams {
            let mut stream = world.net.dial(node(from), node(1), PROTOCOL).await.unwrap();
            stream.write_all(&[0, 0, 90, 90, 1, 2, 3]).await.unwrap();
            held.push(stream);
        }
        held
    };
    let held = slow(2, 12).await;
    sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    let reply = world.pool.submit_to(job(1), Some(node(1))).await.unwrap();
    check(&reply.collect().await.unwrap(), 1);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    drop(held);
    // Who is slow itself waits, and does not take that for a failure.
    let _held = slow(0, 2).await;
    let began = Instant::now();
    let reply = world.pool.submit_to(job(1), Some(node(1))).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(25), "{:?}", began.elapsed());
    check(&reply.collect().await.unwrap(), 1);
    assert_eq!(world.health.seen(node(1), "m", "direct", Instant::now()).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_liar_is_found_out() {
    // The first claims to be fast and is slow; the second is honest.
    let world = World::new(vec![
        Script::new("slow", |s| s.pause = Duration::from_millis(300)),
        Script::new("fast", |s| s.pause = Duration::from_millis(10)),
    ]);
    let lie = |speed: f32| {
        world.report();
        world.say(1, vec![ModelLoad { decode: speed, prefill: speed, ..model(4096) }]);
        world.say(2, vec![ModelLoad { decode: 100.0, prefill: 1000.0, ..model(4096) }]);
    };
    let mut nodes = Vec::new();
    for seed in 0..6 {
        lie(1e6);
        let reply = world.pool.submit(job(seed)).await.unwrap();
        nodes.push(reply.node.clone());
        reply.collect().await.unwrap();
        // The probe that the second gets meanwhile.
        world.health.token(node(2), "m", "direct", Instant::now());
    }
    assert_eq!(nodes, [1, 2, 2, 2, 2, 2].map(id));
    // One that claims to have what it has not costs one refusal, and nothing once its report says less.
    let missing = Some(JobError::ModelNotFound { model: "m".into() });
    world.machines[1].script.refuse(missing);
    world.health.forget(node(1));
    check(&world.pool.submit(job(1)).await.unwrap().collect().await.unwrap(), 1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        failure_persistence: None,
        ..proptest::prelude::ProptestConfig::with_cases(60)
    })]

    /// Whatever a member sends, the machine answers the next.
    #[test]
    fn a_server_survives_any_bytes(frames in proptest::collection::vec(proptest::collection::vec(0u8..255, 0..60), 0..6), framed: bool) {
        paused(async {
            let world = World::new(one());
            let mut stream = world.net.dial(node(0), node(1), PROTOCOL).await.unwrap();
            write(&mut stream, &frames, framed).await;
            drop(stream);
            check(&world.pool.submit(job(1)).await.unwrap().collect().await.unwrap(), 1);
            until(|| world.machines[0].server.running() == 0).await;
        });
    }

    /// Whatever a machine answers, the reader gets the whole answer from another.
    #[test]
    fn an_asker_survives_any_bytes(frames in proptest::collection::vec(proptest::collection::vec(0u8..255, 0..60), 0..6), framed: bool, accepts: bool) {
        paused(async {
            let world = World::new(two());
            let mut liar = world.net.bind(node(1), PROTOCOL);
            tokio::spawn(async move {
                while let Some(mut inbound) = liar.recv().await {
                    if accepts {
                        let accepted = ToAsker::Accepted { node: "x".into(), context: 1 };
                        let _ = frame::write(&mut inbound.stream, &accepted, 1000).await;
                        let text = ToAsker::Text { text: word(1, 0).1, logprobs: vec![], tokens: vec![word(1, 0).0] };
                        let _ = frame::write(&mut inbound.stream, &text, 1000).await;
                    }
                    write(&mut inbound.stream, &frames, framed).await;
                }
            });
            check_text(&world.pool.submit(job(1)).await.unwrap().collect().await.unwrap(), 1);
        });
    }
}

fn paused(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(work);
}

async fn write(stream: &mut (impl AsyncWriteExt + Unpin), frames: &[Vec<u8>], framed: bool) {
    for bytes in frames {
        if framed {
            let _ = stream.write_all(&(bytes.len() as u32).to_be_bytes()).await;
        }
        let _ = stream.write_all(bytes).await;
    }
}
