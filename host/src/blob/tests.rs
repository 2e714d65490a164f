//! Machines that copy from each other over a mesh in memory.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::{
    fetch::{Candidate, Config, Copied, FetchError, Fetcher, SourceError, Wanted},
    serve::{BlobServer, ServeConfig, Serving},
    source::{Blob, BlobSource, Bytes},
    trees::Tree,
    *,
};
use crate::{
    dispatch::fixture::{LinkState, Net, Roster, node},
    mesh::{
        frame,
        protocol::blob::{
            tree::{self, BLOCK, Hash},
            wire::{Ask, FailCode, MAX_ITEMS, MAX_TELL, Tell},
        },
        streams::BoxFuture,
    },
    pool::trusted::{Admitted, Membership, Scope},
};

/// A machine without jobs.
#[derive(Debug)]
pub(super) struct Idle;

impl Occupied for Idle {
    fn occupied(&self) -> bool {
        false
    }
}

/// Bytes that do not repeat.
pub(super) fn file(seed: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// The block hashes of bytes.
pub(super) fn tree_of(bytes: &[u8]) -> Tree {
    let size = bytes.len() as u64;
    let whole = tree::blocks(size) == 1;
    let blocks = bytes.chunks(BLOCK as usize).enumerate();
    let hashes = blocks.map(|(index, bytes)| tree::block(index as u64, bytes, whole).unwrap()).collect();
    Tree::new(size, BlobId(*blake3::hash(bytes).as_bytes()), hashes).unwrap()
}

/// What a source does with the file that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Mood {
    #[default]
    Honest,
    /// Every block has a wrong byte.
    Corrupt,
    /// The blocks are right, the list of their hashes is not.
    WrongHashes,
    /// Blocks are shorter than they are.
    Short,
    /// Takes this long for each block.
    Slow(Duration),
}

#[derive(Debug)]
struct Held {
    tree: Tree,
    bytes: Arc<Vec<u8>>,
    mood: Mood,
    reads: Arc<AtomicUsize>,
}

impl Blob for Held {
    fn size(&self) -> u64 {
        self.tree.size
    }

    fn hashes(&self, from: u64, count: usize) -> Vec<Hash> {
        let mut hashes: Vec<Hash> =
            self.tree.hashes.iter().skip(from as usize).take(count).copied().collect();
        if self.mood == Mood::WrongHashes {
            hashes[0][0] ^= 1;
        }
        hashes
    }

    fn read(&self, index: u64) -> io::Result<Vec<u8>> {
        self.reads.fetch_add(1, Relaxed);
        let start = (index * BLOCK) as usize;
        let mut bytes = self.bytes[start..self.bytes.len().min(start + BLOCK as usize)].to_vec();
        match self.mood {
            Mood::Corrupt => bytes[7] ^= 1,
            Mood::Short => bytes.truncate(9),
            Mood::Slow(pause) => std::thread::sleep(pause),
            Mood::Honest | Mood::WrongHashes => {}
        }
        Ok(bytes)
    }
}

/// A source in memory.
#[derive(Debug, Default)]
struct Memory {
    models: Vec<(String, Arc<Vec<u8>>)>,
    policies: Vec<(String, Vec<u8>)>,
    mood: Mutex<Mood>,
    reads: Arc<AtomicUsize>,
}

impl Memory {
    fn item(&self, name: &str, bytes: &[u8]) -> Item {
        let id = Some(BlobId(*blake3::hash(bytes).as_bytes()));
        Item { name: name.into(), size: bytes.len() as u64, sha256: None, id }
    }
}

impl BlobSource for Memory {
    fn list(&self, kind: Kind) -> BoxFuture<'_, Vec<Item>> {
        Box::pin(async move {
            match kind {
                Kind::Model => self.models.iter().map(|(name, bytes)| self.item(name, bytes)).collect(),
                Kind::Policy => {
                    let of = |(name, bytes): &(String, Vec<u8>)| Item {
                        id: Some(Bytes::id(bytes)),
                        ..self.item(name, bytes)
                    };
                    self.policies.iter().map(of).collect()
                }
            }
        })
    }

    fn open(&self, kind: Kind, id: BlobId) -> BoxFuture<'_, Option<Arc<dyn Blob>>> {
        Box::pin(async move {
            let mood = *self.mood.lock().unwrap();
            if kind == Kind::Policy {
                let (_, bytes) = self.policies.iter().find(|(_, bytes)| Bytes::id(bytes) == id)?;
                let mut bytes = bytes.clone();
                if mood == Mood::Corrupt {
                    bytes[0] ^= 1;
                }
                return Some(Arc::new(Bytes(bytes.into())) as Arc<dyn Blob>);
            }
            let found = self.models.iter().find(|(_, bytes)| *blake3::hash(bytes).as_bytes() == id.0)?;
            let (tree, bytes) = (tree_of(&found.1), found.1.clone());
            Some(Arc::new(Held { tree, bytes, mood, reads: self.reads.clone() }) as Arc<dyn Blob>)
        })
    }
}

struct Machine {
    source: Arc<Memory>,
    roster: Arc<Roster>,
    server: BlobServer,
}

/// Machine 0 copies from machines 1 and further.
struct World {
    net: Net,
    roster: Arc<Roster>,
    machines: Vec<Machine>,
    fetcher: Fetcher,
    folder: tempfile::TempDir,
    wanted: Wanted,
    bytes: Arc<Vec<u8>>,
}

fn timers() -> Timers {
    Timers {
        heartbeat: Duration::from_millis(50),
        silence: Duration::from_secs(3),
        block: Duration::from_secs(10),
        ..Timers::default()
    }
}

impl World {
    fn new(size: usize, moods: &[Mood]) -> Self {
        let bytes = Arc::new(file(1, size));
        let net = Net::default();
        let everybody: Vec<u8> = (0..=moods.len() as u8).collect();
        let machines = (1..).zip(moods).map(|(n, mood)| {
            let source = Arc::new(Memory {
                models: vec![("m".into(), bytes.clone()), ("other".into(), Arc::new(file(9, 5)))],
                policies: vec![("router".into(), b"component".to_vec())],
                mood: Mutex::new(*mood),
                ..Memory::default()
            });
            let roster = Roster::new(node(n), &everybody);
            roster.change(0, |grants| grants.fetch = Some(Scope::All));
            let serving = Serving {
                sources: vec![source.clone()],
                membership: roster.clone(),
                occupied: Arc::new(Idle),
            };
            let config = ServeConfig { timers: timers(), ..ServeConfig::default() };
            let server = BlobServer::bind(config, serving, net.bind(node(n), PROTOCOL));
            Machine { source, roster, server }
        });
        let machines: Vec<Machine> = machines.collect();
        let roster = Roster::new(node(0), &everybody);
        roster.change(0, |grants| grants.fetch = Some(Scope::All));
        let config = Config {
            timers: timers(),
            grace: Duration::from_millis(300),
            patience: Duration::from_millis(800),
            again: Duration::from_millis(50),
            again_most: Duration::from_millis(200),
            ..Config::default()
        };
        let fetcher = Fetcher::new(config, net.streams(node(0)), roster.clone());
        let wanted = Wanted { id: BlobId(*blake3::hash(&bytes).as_bytes()), size: size as u64 };
        let folder = tempfile::tempdir().unwrap();
        Self { net, roster, machines, fetcher, folder, wanted, bytes }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let candidate = |n: u8| Candidate { node: node(n), member: format!("n{n}"), file: "m".into() };
        (1..=self.machines.len() as u8).map(candidate).collect()
    }

    fn members(&self) -> Vec<Admitted> {
        self.fetcher.members()
    }

    async fn copy(&self, say: watch::Sender<Copied>) -> Result<std::path::PathBuf, FetchError> {
        let copy = self.fetcher.copy(self.wanted, self.candidates(), self.folder.path(), say);
        let (path, tree) = timeout(Duration::from_secs(60), copy).await.expect("it ends")?;
        assert_eq!(tree.id, self.wanted.id);
        Ok(path)
    }

    fn is_whole(&self, path: &Path) {
        assert!(std::fs::read(path).unwrap() == *self.bytes, "the copy has other bytes");
        assert_eq!(std::fs::read_dir(self.folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    fn sent(&self) -> Vec<u64> {
        self.machines.iter().map(|machine| machine.server.counters().blocks).collect()
    }
}

fn quiet() -> watch::Sender<Copied> {
    watch::channel(Copied::default()).0
}

const MIB: usize = BLOCK as usize;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sources_share_the_work() {
    let world = World::new(20 * MIB + 5, &[Mood::Honest, Mood::Honest]);
    let (say, copied) = watch::channel(Copied::default());
    let path = world.copy(say).await.unwrap();
    world.is_whole(&path);
    let sent = world.sent();
    assert!(sent.iter().all(|blocks| *blocks >= 3) && sent.iter().sum::<u64>() >= 21, "{sent:?}");
    assert!(sent.iter().sum::<u64>() <= 25, "hardly a block comes twice: {sent:?}");
    assert_eq!(copied.borrow().completed, world.wanted.size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_need_no_list_of_hashes() {
    for size in [1, 77, MIB, MIB + 1] {
        let world = World::new(size, &[Mood::Honest]);
        let path = world.copy(quiet()).await.unwrap();
        world.is_whole(&path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_a_liar_come_from_elsewhere() {
    for liar in [Mood::Corrupt, Mood::WrongHashes, Mood::Short] {
        let world = World::new(6 * MIB + 1, &[liar, Mood::Honest]);
        let path = world.copy(quiet()).await.unwrap_or_else(|error| panic!("{liar:?}: {error}"));
        world.is_whole(&path);
        assert!(world.sent()[1] >= 6, "{liar:?}: {:?}", world.sent());
        assert!(world.sent()[0] <= 4, "a liar is not asked again: {:?}", world.sent());
    }
    let world = World::new(3 * MIB, &[Mood::Corrupt]);
    let error = world.copy(quiet()).await.unwrap_err();
    assert!(error.to_string().contains("n1: it sent bytes that are not those"), "{error}");
    let world = World::new(3 * MIB, &[Mood::WrongHashes]);
    let error = world.copy(quiet()).await.unwrap_err();
    assert!(error.to_string().contains("hashes of another file"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_source_does_not_decide_when_the_file_is_there() {
    let world = World::new(12 * MIB, &[Mood::Slow(Duration::from_secs(4)), Mood::Honest]);
    let began = std::time::Instant::now();
    let path = world.copy(quiet()).await.unwrap();
    world.is_whole(&path);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_everybody_went_away_is_not_fetched_again() {
    let pause = Mood::Slow(Duration::from_millis(60));
    let world = World::new(24 * MIB, &[pause, pause]);
    let (say, mut copied) = watch::channel(Copied::default());
    let cut = async {
        copied.wait_for(|copied| copied.completed >= 5 * BLOCK).await.unwrap();
        world.net.set(node(1), LinkState::Cut);
        copied.wait_for(|copied| copied.completed >= 9 * BLOCK).await.unwrap();
        world.net.set(node(2), LinkState::Cut);
    };
    let (outcome, ()) = tokio::join!(world.copy(say), cut);
    let FetchError::Lost { completed, .. } = outcome.unwrap_err() else { panic!("they are gone") };
    assert!((9 * BLOCK..24 * BLOCK).contains(&completed), "{completed}");
    world.net.set(node(2), LinkState::Open);
    world.machines[1].source.reads.store(0, Relaxed);
    // The first one stays away; its part is fetched from the other.
    let (say, copied) = watch::channel(Copied::default());
    let path = world.copy(say).await.unwrap();
    world.is_whole(&path);
    let again = world.machines[1].source.reads.load(Relaxed) as u64;
    assert_eq!(again, 24 - completed / BLOCK, "only what was missing");
    assert_eq!(copied.borrow().completed, world.wanted.size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_given_up_can_be_gone_on_with() {
    let world = World::new(16 * MIB, &[Mood::Slow(Duration::from_millis(40))]);
    let (say, mut copied) = watch::channel(Copied::default());
    tokio::select! {
        _ = world.copy(say) => panic!("it was given up before"),
        _ = copied.wait_for(|copied| copied.completed >= 4 * BLOCK) => {}
    }
    // What was given up while it was written may or may not count.
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.machines[0].source.reads.store(0, Relaxed);
    let path = world.copy(quiet()).await.unwrap();
    world.is_whole(&path);
    assert!(world.machines[0].source.reads.load(Relaxed) <= 12 + 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_gets_nothing_more() {
    let world = World::new(30 * MIB, &[Mood::Slow(Duration::from_millis(50))]);
    let (say, mut copied) = watch::channel(Copied::default());
    let revoke = async {
        copied.wait_for(|copied| copied.completed >= 3 * BLOCK).await.unwrap();
        world.machines[0].roster.revoke(0);
        world.sent()[0]
    };
    let (outcome, before) = tokio::join!(world.copy(say), revoke);
    assert!(matches!(outcome, Err(FetchError::Lost { .. })));
    let counters = world.machines[0].server.counters();
    assert!(counters.blocks <= before + 1 && counters.revoked == 1, "{counters:?}");
    assert_eq!(world.machines[0].server.streams(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_is_taken_away_ends_a_copy() {
    let world = World::new(30 * MIB, &[Mood::Slow(Duration::from_millis(50))]);
    let (say, mut copied) = watch::channel(Copied::default());
    let narrow = async {
        copied.wait_for(|copied| copied.completed >= 3 * BLOCK).await.unwrap();
        world.machines[0].roster.change(0, |grants| grants.fetch = None);
    };
    let (outcome, ()) = tokio::join!(world.copy(say), narrow);
    assert!(outcome.unwrap_err().to_string().contains("may copy nothing"));
    assert!(world.sent()[0] < 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_grant_there_is_nothing() {
    let world = World::new(2 * MIB, &[Mood::Honest]);
    let server = &world.machines[0].roster;
    let listed = async || world.fetcher.survey(Kind::Model, world.members()).await.remove(0).items;
    let names = async || listed().await.unwrap().into_iter().map(|item| item.name).collect::<Vec<_>>();
    assert_eq!(names().await, ["m", "other"]);
    server.change(0, |grants| grants.fetch = Some(Scope::Only(vec!["other".into()])));
    assert_eq!(names().await, ["other"]);
    let (found, lost) = world.fetcher.identify(world.candidates(), |_, _, _| {}).await;
    assert!(found.is_empty());
    let is_not_there =
        |error: &SourceError| matches!(error, SourceError::Refused { code: FailCode::NotFound, .. });
    assert!(is_not_there(&lost[0].1), "as if it were not there: {lost:?}");
    // What cannot be used cannot be copied.
    server.change(0, |grants| {
        grants.fetch = Some(Scope::All);
        grants.models = Scope::Only(vec!["other".into()]);
    });
    assert_eq!(names().await, ["other"]);
    server.change(0, |grants| grants.fetch = None);
    let refused = |code| matches!(code, Err(SourceError::Refused { code: FailCode::NotGranted, .. }));
    assert!(refused(listed().await));
    assert!(matches!(world.copy(quiet()).await, Err(FetchError::Lost { completed: 0, .. })));
    // A machine that may answer for nothing gives nothing, and is not believed if it does.
    server.change(0, |grants| *grants = crate::pool::trusted::Grants::everything());
    server.change(1, |grants| grants.serve = false);
    assert!(refused(listed().await));
    server.change(1, |grants| grants.serve = true);
    world.roster.change(1, |grants| grants.serve = false);
    assert!(listed().await.unwrap().is_empty());
    assert_eq!(world.sent(), [0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_has_so_many_streams() {
    let world = World::new(MIB, &[Mood::Honest]);
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut stream = world.net.dial(node(0), node(1), PROTOCOL).await.unwrap();
        frame::write(&mut stream, &Ask::Find { kind: Kind::Model, name: "m".into() }, 4096).await.unwrap();
        held.push((frame::expect::<Tell, _>(&mut stream, MAX_TELL).await.unwrap(), stream));
    }
    let (served, refused): (Vec<_>, Vec<_>) =
        held.iter().partition(|(tell, _)| matches!(tell, Tell::Found { .. }));
    assert_eq!((served.len(), refused.len()), (4, 1));
    assert!(matches!(refused[0].0, Tell::Failed { code: FailCode::Busy, .. }));
    assert_eq!(world.machines[0].server.streams(), 4);
    drop(held);
    timeout(Duration::from_secs(3), async {
        while world.machines[0].server.streams() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    world.machines[0].server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_contained_on_both_sides() {
    let world = World::new(2 * MIB, &[Mood::Honest]);
    for first in [Ask::Ping, Ask::Get { index: 0 }, Ask::Hashes { from: 0, count: 1 }] {
        let mut stream = world.net.dial(node(0), node(1), PROTOCOL).await.unwrap();
        frame::write(&mut stream, &first, 4096).await.unwrap();
        let told = frame::read::<Tell, _>(&mut stream, MAX_TELL).await.unwrap();
        assert!(matches!(told, Some(Tell::Failed { code: FailCode::Nonsense, .. })), "{first:?}");
    }
    for then in [Ask::Get { index: 2 }, Ask::Get { index: u64::MAX }, Ask::Hashes { from: 9, count: 9 }] {
        let mut stream = world.net.dial(node(0), node(1), PROTOCOL).await.unwrap();
        frame::write(&mut stream, &Ask::Find { kind: Kind::Model, name: "m".into() }, 4096).await.unwrap();
        frame::write(&mut stream, &then, 4096).await.unwrap();
        assert!(matches!(frame::expect::<Tell, _>(&mut stream, MAX_TELL).await.unwrap(), Tell::Found { .. }));
        let told = frame::expect::<Tell, _>(&mut stream, MAX_TELL).await.unwrap();
        assert!(matches!(told, Tell::Failed { code: FailCode::Nonsense, .. }), "{then:?}");
    }
    assert_eq!(world.machines[0].server.counters().nonsense, 6);
    // The other way round: a member that lists too much, or names that lead somewhere.
    let item = |name: &str| Item { name: name.into(), size: 1, sha256: None, id: None };
    let lists = [
        vec![item("x"); MAX_ITEMS + 1],
        vec![item("../../etc/passwd"), item("/x"), item("good"), item("a\u{202e}b")],
    ];
    let mut incoming = world.net.bind(node(1), PROTOCOL);
    let answers = async {
        for items in lists {
            let mut stream = incoming.recv().await.unwrap().stream;
            let _ = frame::expect::<Ask, _>(&mut stream, 4096).await;
            let _ = frame::write(&mut stream, &Tell::Listed { items, more: false }, 16 << 20).await;
        }
    };
    let asks = async {
        let shelf = world.fetcher.survey(Kind::Model, world.members()).await.remove(0);
        assert!(matches!(shelf.items, Err(SourceError::Lied(_))), "{shelf:?}");
        let shelf = world.fetcher.survey(Kind::Model, world.members()).await.remove(0);
        assert_eq!(shelf.items.unwrap(), [item("good")]);
    };
    tokio::join!(answers, asks);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_member_is_not_waited_for() {
    let world = World::new(2 * MIB, &[Mood::Honest, Mood::Honest]);
    let _nobody = world.net.bind(node(2), PROTOCOL);
    let shelves = timeout(Duration::from_secs(5), world.fetcher.survey(Kind::Model, world.members())).await;
    let items: Vec<bool> = shelves.unwrap().iter().map(|shelf| shelf.items.is_ok()).collect();
    assert_eq!(items, [true, false]);
    let (found, _) = world.fetcher.identify(world.candidates(), |_, _, _| {}).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].wanted, world.wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components_of_policies_come_by_their_hash() {
    let world = World::new(MIB, &[Mood::Corrupt, Mood::Honest]);
    let members = world.members();
    let id = Bytes::id(b"component");
    let listed = world.fetcher.survey(Kind::Policy, members.clone()).await;
    assert_eq!(listed[0].items.as_ref().unwrap()[0].id, Some(id));
    assert_eq!(world.fetcher.component(id, &members).await.unwrap(), b"component");
    let error = world.fetcher.component(id, &members[..1]).await.unwrap_err();
    assert!(error.to_string().contains("not those of the file"), "{error}");
    let error = world.fetcher.component(BlobId([0; 32]), &members[1..]).await.unwrap_err();
    assert!(error.to_string().contains("no such file"), "{error}");
    world.machines[1].roster.change(0, |grants| grants.fetch = None);
    assert_eq!(
        world.fetcher.component(id, &members[1..]).await.unwrap(),
        b"component",
        "every member needs it"
    );
    assert!(world.roster.grants(node(1)).is_some());
}
