//! Two real memories, replicated.

use std::time::Instant;

use super::*;
use crate::memory::{
    record::NodeId,
    sync::{
        Authors, Membership, MemoryGrant, Options, Parts, PeerState, Sync,
        tests::{Club, Seat, grant, net::Net, quick},
    },
};

struct Machine {
    folder: tempfile::TempDir,
    memory: Memory,
    sync: Option<Sync>,
    node: NodeId,
}

async fn machine(net: &Net, club: &Club, grants: Vec<MemoryGrant>) -> Machine {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(folder.path()).await;
    let node = memory.inner.engine.node;
    club.admit(node, grants);
    let mut machine = Machine { folder, memory, sync: None, node };
    machine.start(net, club, quick()).await;
    machine
}

fn all() -> Vec<MemoryGrant> {
    vec![grant(None, true, true)]
}

impl Machine {
    async fn start(&mut self, net: &Net, club: &Club, options: Options) {
        let replica = self.memory.replica().await.unwrap();
        let (streams, incoming) = net.join(self.node);
        let seat = Arc::new(Seat(self.node, club.clone()));
        let membership = Arc::clone(&seat) as Arc<dyn Membership>;
        let parts = Parts { streams, incoming, membership, authors: seat as Arc<dyn Authors>, replica };
        self.sync = Some(Sync::bind(parts, options));
    }

    async fn stop(self) -> (tempfile::TempDir, NodeId) {
        let Self { folder, memory, sync, node } = self;
        if let Some(sync) = sync {
            sync.shutdown().await;
        }
        memory.close().await;
        (folder, node)
    }

    fn is_in_step(&self) -> bool {
        let status = self.sync.as_ref().unwrap().handle().status();
        status.peers.iter().any(|peer| peer.state == PeerState::InStep)
    }

    async fn has(&self, id: RecordId) {
        for _ in 0..4_000 {
            if self.memory.get(id, false).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("it did not come: {:?}", self.sync.as_ref().unwrap().handle().status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_machine_learns_the_other_recalls() {
    let (net, club) = (Net::default(), Club::new());
    let a = machine(&net, &club, all()).await;
    let b = machine(&net, &club, all()).await;
    let id = a.memory.remember(draft(TEXTS[0])).await.unwrap().id;
    b.has(id).await;
    assert_eq!(found(&b.memory, ask("which port has the staging database?")).await[0], TEXTS[0]);
    settled(&a.memory).await;
    let vectors = |machine: &Machine| machine.memory.inner.engine.read().embedded.len();
    for _ in 0..400 {
        if vectors(&b) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(vectors(&b), 1, "its vectors came along");
    let own = b.memory.inner.engine.reader.version_vector();
    assert!(!own.contains_key(&b.node), "and were not computed again: {own:?}");
    // Both change it without knowing of each other.
    net.cut(a.node, b.node);
    let change = |text: &str| Change { content: Some(text.into()), ..Change::default() };
    let one = a.memory.update(id, change("The staging database runs on port 6000.")).await.unwrap().id;
    let two = b.memory.update(id, change("The staging database runs on port 7000.")).await.unwrap().id;
    net.heal();
    a.has(two).await;
    b.has(one).await;
    for machine in [&a, &b] {
        assert_eq!(machine.memory.stats().await.unwrap().conflicts, 1);
        assert_eq!(found(&machine.memory, ask("port of the staging database")).await.len(), 2);
    }
    // Forgotten for good on one, gone from the disk of the other.
    let secret = a.memory.remember(draft("Zebulon hides the treasure under the oak.")).await.unwrap().id;
    b.has(secret).await;
    assert!(holds(&b.folder.path().join("log"), b"Zebulon"));
    let request = ForgetRequest { ids: vec![secret], hard: true, confirm: true, ..ForgetRequest::default() };
    a.memory.forget(request).await.unwrap();
    for _ in 0..400 {
        if b.memory.get(secret, false).await.unwrap().item.state == ItemState::Erased {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!holds(&b.folder.path().join("log"), b"Zebulon"));
    assert!(found(&b.memory, ask("Zebulon's treasure")).await.iter().all(|text| !text.contains("Zebulon")));
    // After a restart everything is as it was, and goes on.
    let (folder, node) = b.stop().await;
    let later = a.memory.remember(draft(TEXTS[4])).await.unwrap().id;
    let memory = open(folder.path()).await;
    assert_eq!(memory.stats().await.unwrap().repairs, Vec::<String>::new());
    let mut b = Machine { folder, memory, sync: None, node };
    b.start(&net, &club, quick()).await;
    b.has(later).await;
    assert_eq!(b.memory.stats().await.unwrap().live, a.memory.stats().await.unwrap().live);
    assert_eq!(b.memory.stats().await.unwrap().conflicts, 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scoped_member_gets_its_project_and_the_rest_once_it_may() {
    let (net, club) = (Net::default(), Club::new());
    let a = machine(&net, &club, all()).await;
    let b = machine(&net, &club, vec![grant(Some("a"), true, true)]).await;
    let mut last = [None; 2];
    for n in 0..120_usize {
        let project = ["a", "b"][n % 2];
        let draft =
            Draft { project: Some(project.into()), ..draft(&format!("Fact {n} belongs to {project}.")) };
        last[n % 2] = Some(a.memory.remember(draft).await.unwrap().id);
    }
    b.has(last[0].unwrap()).await;
    assert_eq!(b.memory.stats().await.unwrap().live, 60);
    assert!(!holds(&b.folder.path().join("log"), b"belongs to b"));
    club.admit(b.node, all());
    b.has(last[1].unwrap()).await;
    for _ in 0..400 {
        if b.memory.stats().await.unwrap().live == 120 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(b.memory.stats().await.unwrap().live, 120);
    let (folder, _) = b.stop().await;
    let memory = open(folder.path()).await;
    let stats = memory.stats().await.unwrap();
    assert_eq!((stats.live, stats.repairs), (120, Vec::new()));
    let files = std::fs::read_dir(folder.path().join("log").join(a.node.to_string())).unwrap().count();
    assert!(files < 30, "holes do not tear the log into {files} files");
    memory.close().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_recalled_elsewhere_within_milliseconds() {
    let count: usize =
        std::env::var("POTLUCK_SYNC_BULK").ok().and_then(|count| count.parse().ok()).unwrap_or(300);
    let (net, club) = (Net::default(), Club::new());
    let a = machine(&net, &club, all()).await;
    for start in (0..count).step_by(500) {
        let drafts = (start..count.min(start + 500)).map(|n| {
            draft(&format!(
                "Fact {n}: the {} meets the {} at {} o'clock in room {n}.",
                TEXTS[n % 6],
                TEXTS[n % 5],
                n % 24
            ))
        });
        a.memory.remember_all(drafts.collect()).await.unwrap();
    }
    let started = Instant::now();
    let b = machine(&net, &club, all()).await;
    while b.memory.stats().await.unwrap().versions < count as u64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = started.elapsed();
    println!("{count} records in {took:?}: {:.0} a second", count as f64 / took.as_secs_f64());
    for _ in 0..1_000 {
        if a.is_in_step() && b.is_in_step() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut times = Vec::new();
    for n in 0..100 {
        let text = format!("Visitor {n} of the lighthouse signs the book with a {n}-page poem.");
        let id = a.memory.remember(draft(&text)).await.unwrap().id;
        let acknowledged = Instant::now();
        while b.memory.get(id, false).await.is_err() {
            tokio::task::yield_now().await;
        }
        times.push(acknowledged.elapsed());
        assert_eq!(found(&b.memory, ask(&format!("poem of visitor {n} of the lighthouse"))).await[0], text);
    }
    times.sort_unstable();
    println!(
        "acknowledged here, found there, at {count}: p50 {:?}, p95 {:?}, p99 {:?}",
        times[50], times[95], times[98]
    );
    a.stop().await;
    b.stop().await;
}
