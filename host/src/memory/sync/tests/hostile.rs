//! Members that break the rules, keys that are used twice, peers that do not read.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    identity::Signer,
    memory::{
        clock::Stamp,
        record::{Context, Draft, Entry, RecordId, Version},
        sync::message::{Hello, MAX_HELLO, Message, Ops},
    },
    mesh::{frame, streams::Stream},
};

/// A member that does as it likes: its id is the smallest possible, so that it opens the streams.
fn rogue(world: &World) -> (Signer, NodeId) {
    let signer = (0..=u8::MAX)
        .map(|seed| Signer::from_seed([seed; 32]))
        .filter(|signer| world.machines.iter().all(|machine| signer.node() < machine.paper.signer.node()))
        .min_by_key(Signer::node)
        .unwrap();
    let node = signer.node();
    world.club.admit_fully(node);
    (signer, node)
}

async fn connect(world: &World, node: NodeId) -> Stream {
    let mut stream = world.net.open(node, world.node(0)).unwrap();
    let hello = Message::Hello(Hello { version: 1, wall_ms: Millis::now().0 });
    frame::write(&mut stream, &hello, MAX_HELLO).await.unwrap();
    stream
}

fn entry(signer: &Signer, sequence: u64, text: &str) -> Entry {
    let stamp = Stamp::new(Millis::now().0, 0);
    let context = Context { id: RecordId::generate(Millis::now()), stamp, sequence };
    let draft = Draft { content: text.into(), ..Draft::default() };
    Entry::Version(Box::new(Version::seal(draft, context, signer).unwrap()))
}

fn ops(number: u64, entries: &[Vec<u8>]) -> Message {
    Message::Ops(Ops { number, entries: entries.iter().cloned().map(Into::into).collect() })
}

fn state(world: &World, node: NodeId) -> PeerStatus {
    world.status(0).peers.into_iter().find(|peer| peer.node == node).unwrap()
}

fn is_penalised(world: &World, node: NodeId) -> bool {
    world.status(0).peers.iter().any(|peer| peer.node == node && peer.state == PeerState::Penalised)
}

#[tokio::test]
async fn whoever_sends_garbage_is_named_and_has_to_wait() {
    let garbage: Vec<Vec<u8>> = vec![
        vec![0xff; 64],
        vec![0, 0, 0, 3, 1, 2, 3],
        vec![0, 0xff, 0xff, 0xff, 0],
        {
            let mut bytes = Vec::new();
            frame::write(&mut bytes, &ops(7, &[]), 1 << 20).await.unwrap();
            bytes
        },
        {
            let mut bytes = Vec::new();
            frame::write(&mut bytes, &ops(1, &[vec![1, 2, 3]]), 1 << 20).await.unwrap();
            bytes
        },
    ];
    for bytes in garbage {
        let world = World::of(1);
        let (_, node) = rogue(&world);
        let mut stream = connect(&world, node).await;
        stream.write_all(&bytes).await.unwrap();
        until("it is penalised", || is_penalised(&world, node)).await;
        let error = state(&world, node).last_error.unwrap();
        assert!(error.contains("it broke the protocol") || error.contains("no entry"), "{error}");
        let mut stream = connect(&world, node).await;
        let mut byte = [0];
        assert!(!matches!(stream.read(&mut byte).await, Ok(1..)), "it is not listened to for a while");
        world.end().await;
    }
}

#[tokio::test]
async fn a_forged_entry_is_refused_and_its_carrier_named() {
    let world = World::of(1);
    let (_, node) = rogue(&world);
    let Entry::Version(mut version) = entry(&Signer::from_seed([9; 32]), 1, "what somebody said") else {
        unreachable!()
    };
    version.header.origin = world.node(0);
    let bytes = Entry::Version(version).encode().unwrap();
    let mut stream = connect(&world, node).await;
    frame::write(&mut stream, &ops(1, &[bytes]), 1 << 20).await.unwrap();
    until("it is penalised", || is_penalised(&world, node)).await;
    assert!(state(&world, node).last_error.unwrap().contains("forged"));
    assert!(world.paper(0).entries().is_empty());
    world.end().await;
}

#[tokio::test]
async fn entries_of_strangers_are_refused_and_the_rest_is_taken() {
    let world = World::of(2);
    let (signer, node) = rogue(&world);
    let stranger = entry(&Signer::from_seed([200; 32]), 1, "nobody knows me").encode().unwrap();
    let own = entry(&signer, 1, "a member may say this");
    let mut stream = connect(&world, node).await;
    frame::write(&mut stream, &ops(1, &[stranger, own.encode().unwrap()]), 1 << 20).await.unwrap();
    until("its own entry is taken", || world.paper(1).has(own.version())).await;
    assert_eq!(state(&world, node).refused.get("stranger"), Some(&1));
    assert_eq!(world.paper(0).entries().len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_text_that_is_withheld_comes_from_elsewhere() {
    let mut world = World::of(2);
    world.stop(1).await;
    let (_, node) = rogue(&world);
    let id = world.paper(1).say("somebody would rather not have this read", None);
    let bytes = world.paper(1).entries().into_values().next().unwrap();
    let stripped = Entry::decode(&bytes).unwrap().erased().encode().unwrap();
    let mut stream = connect(&world, node).await;
    frame::write(&mut stream, &ops(1, &[stripped]), 1 << 20).await.unwrap();
    until("it waits", || world.status(0).held.len() == 1).await;
    assert!(!world.paper(0).has(id));
    world.start(1);
    until("the whole entry comes", || world.paper(0).text(id).is_some()).await;
    until("nothing waits any more", || world.status(0).held.is_empty()).await;
    world.end().await;
}

#[tokio::test]
async fn a_key_that_two_machines_use_is_found_out_and_harms_nothing() {
    let world = World::of(2);
    let (signer, node) = rogue(&world);
    let (one, two) = (entry(&signer, 1, "one machine says this"), entry(&signer, 1, "the other says that"));
    let mut stream = connect(&world, node).await;
    frame::write(&mut stream, &ops(1, &[one.encode().unwrap()]), 1 << 20).await.unwrap();
    until("the first is taken", || world.paper(1).has(one.version())).await;
    frame::write(&mut stream, &ops(2, &[two.encode().unwrap()]), 1 << 20).await.unwrap();
    until("the second is found out", || world.status(0).forks.len() == 1).await;
    let fork = world.status(0).forks.remove(0);
    assert_eq!((fork.origin, fork.sequence), (node, 1));
    assert!(fork.reason.contains("two machines use the key"), "{}", fork.reason);
    assert!(world.paper(0).has(one.version()) && !world.paper(0).has(two.version()));
    world.end().await;
}

#[tokio::test]
async fn an_audit_finds_a_fork_that_no_exchange_shows() {
    let mut world = World::new();
    for seed in [1, 2] {
        let place = world.add(seed);
        world.club.admit_fully(world.node(place));
    }
    // Both took entries of a third, and each another one as its number 700.
    let signer = Signer::from_seed([50; 32]);
    world.club.admit_fully(signer.node());
    for sequence in 1..=1_000 {
        let same = entry(&signer, sequence, &format!("said {sequence}"));
        let other = if sequence == 700 { entry(&signer, sequence, "said otherwise") } else { same.clone() };
        world.paper(0).smuggle(same);
        world.paper(1).smuggle(other);
    }
    world.start(0);
    world.start(1);
    until("they are in step", || world.status(0).peers.iter().any(|peer| peer.state == PeerState::InStep))
        .await;
    assert!(world.status(0).forks.is_empty());
    world.machines[0].sync.as_ref().unwrap().handle().audit();
    until("the audit finds it", || !world.status(0).forks.is_empty() || !world.status(1).forks.is_empty())
        .await;
    let forks = [world.status(0).forks, world.status(1).forks].concat();
    assert!(forks.iter().all(|fork| (fork.origin, fork.sequence) == (signer.node(), 700)), "{forks:?}");
    world.end().await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_up_nobody() {
    let mut world = World::of(2);
    world.options.window = 64 << 10;
    world.stop(0).await;
    world.start(0);
    let (_, node) = rogue(&world);
    let mut stream = connect(&world, node).await;
    frame::write(&mut stream, &Message::Have(Default::default()), 1 << 20).await.unwrap();
    until("it is connected", || world.status(0).peers.iter().any(|peer| peer.node == node)).await;
    let started = Instant::now();
    let mut last = None;
    for n in 0..2_000 {
        last = Some(world.paper(0).say(&format!("{n} {}", "words ".repeat(100)), None));
    }
    until("the other has it all", || world.paper(1).has(last.unwrap())).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    until("it is known to be behind", || state(&world, node).lag_ops > 1_000).await;
    world.end().await;
}

#[tokio::test]
async fn a_machine_that_lost_its_disk_gets_its_own_entries_back() {
    let mut world = World::of(2);
    for n in 0..50 {
        world.paper(0).say(&format!("remembered elsewhere {n}"), None);
    }
    world.converge().await;
    world.stop(0).await;
    world.machines[0].disk.0.lock().unwrap().clear();
    let machine = &mut world.machines[0];
    machine.paper = Paper::open(machine.seed, machine.disk.clone(), 0);
    world.start(0);
    world.converge().await;
    world.paper(0).say("and it goes on after them", None);
    world.converge().await;
    assert_eq!(world.paper(1).entries().len(), 51);
    assert!(world.status(1).forks.is_empty());
    world.end().await;
}
