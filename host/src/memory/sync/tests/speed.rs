//! How long an entry takes, and how many go through.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_elsewhere_after_the_way_there() {
    for delay in [0, 5] {
        let world = {
            let mut world = World::new();
            world.net.delay(Duration::from_millis(delay));
            for seed in [1, 2] {
                let place = world.add(seed);
                world.club.admit_fully(world.node(place));
                world.start(place);
            }
            world
        };
        until("they are in step", || {
            world.status(0).peers.iter().any(|peer| peer.state == PeerState::InStep)
        })
        .await;
        let mut times = Vec::new();
        let mut news = world.paper(1).catalogue().news();
        for n in 0..200 {
            let started = Instant::now();
            world.paper(0).say(&format!("number {n}"), None);
            news.recv().await.unwrap();
            times.push(started.elapsed());
            sleep(Duration::from_millis(3)).await;
        }
        times.sort_unstable();
        println!("one way {delay} ms: p50 {:?}, p95 {:?}, p99 {:?}", times[100], times[190], times[198]);
        assert!(times[100] < Duration::from_millis(delay + 20), "{:?}", times[100]);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_gets_many_entries_in_one_go() {
    let count =
        std::env::var("POTLUCK_SYNC_BULK").ok().and_then(|count| count.parse().ok()).unwrap_or(3_000_u64);
    let mut world = World::of(1);
    for n in 0..count {
        world
            .paper(0)
            .say(&format!("fact {n}: {}", "some words that make it as long as facts are ".repeat(4)), None);
    }
    let place = world.add(2);
    world.club.admit_fully(world.node(place));
    let started = Instant::now();
    world.start(place);
    let here = || world.paper(1).catalogue().held().values().map(Runs::len).sum::<u64>();
    while here() < count {
        sleep(Duration::from_millis(20)).await;
    }
    let took = started.elapsed();
    println!("{count} entries in {took:?}: {:.0} a second", count as f64 / took.as_secs_f64());
    assert_eq!(world.net.opened(), 1);
    world.end().await;
}
