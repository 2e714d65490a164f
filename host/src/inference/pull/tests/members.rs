//! Copying models from the stores of other machines over a mesh in memory.

use std::path::Path;

use super::*;
use crate::{
    blob::{
        BlobId, Item, Kind, Occupied, PROTOCOL,
        fetch::{Config, Fetcher},
        serve::{BlobServer, ServeConfig, Serving},
        source::{Blob, BlobSource, Finding, Found},
        trees::Trees,
    },
    dispatch::fixture::{Net, Roster, node},
    inference::shelf::Shelf,
    mesh::streams::BoxFuture,
    pool::trusted::Scope,
};

#[derive(Debug)]
struct Idle;

impl Occupied for Idle {
    fn occupied(&self) -> bool {
        false
    }
}

fn big(value: u8) -> Vec<u8> {
    let mut writer = GgufWriter::new(Metadata::default());
    writer.tensor("t", &[1024, 640], DType::F32, vec![value; 1024 * 640 * 4]);
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    bytes
}

/// A machine with a store. Machine 0 pulls.
struct Machine {
    store: Arc<Store>,
    trees: Trees,
    puller: Puller,
    dir: tempfile::TempDir,
}

impl Machine {
    fn new(models: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |(name, bytes): &(&str, &[u8])| {
            let path = dir.path().join(format!("{name}.gguf"));
            std::fs::write(&path, bytes).unwrap();
            path.display().to_string()
        };
        let given: Vec<String> = models.iter().map(write).collect();
        let store = Arc::new(Store::open(dir.path(), &given, None).unwrap());
        let trees = Trees::new(store.trees(), Arc::new(Idle));
        let puller = Puller {
            store: store.clone(),
            // Copies need no hub.
            settings: Settings { offline: true, ..Settings::from_env(true) },
            turns: Mutex::default(),
        };
        Self { store, trees, puller, dir }
    }

    fn shelf(&self) -> Arc<dyn BlobSource> {
        Arc::new(Shelf { store: self.store.clone(), trees: self.trees.clone() })
    }
}

/// Answers for a shelf, but says another SHA-256.
#[derive(Debug)]
struct Claims(Arc<dyn BlobSource>, BlobId);

impl BlobSource for Claims {
    fn list(&self, kind: Kind) -> BoxFuture<'_, Vec<Item>> {
        self.0.list(kind)
    }

    fn find<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Option<Finding>> {
        Box::pin(async move {
            let mut finding = self.0.find(kind, name).await?;
            let found = finding.wait_for(|found| !matches!(found, Found::Hashing { .. })).await.ok()?.clone();
            let Found::Known(item) = found else { panic!("{found:?}") };
            Some(tokio::sync::watch::channel(Found::Known(Item { sha256: Some(self.1), ..item })).1)
        })
    }

    fn open(&self, kind: Kind, id: BlobId) -> BoxFuture<'_, Option<Arc<dyn Blob>>> {
        self.0.open(kind, id)
    }
}

struct World {
    own: Machine,
    roster: Arc<Roster>,
    fetcher: Fetcher,
    servers: Vec<BlobServer>,
}

impl World {
    fn new(sources: Vec<Arc<dyn BlobSource>>) -> Self {
        let net = Net::default();
        let everybody: Vec<u8> = (0..=sources.len() as u8).collect();
        let serve = |(n, source): (u8, Arc<dyn BlobSource>)| {
            let membership = Roster::new(node(n), &everybody);
            membership.change(0, |grants| grants.fetch = Some(Scope::All));
            let serving = Serving { sources: vec![source], membership, occupied: Arc::new(Idle) };
            BlobServer::bind(ServeConfig::default(), serving, net.bind(node(n), PROTOCOL))
        };
        let servers = (1..).zip(sources).map(serve).collect();
        let roster = Roster::new(node(0), &everybody);
        roster.change(0, |grants| grants.fetch = Some(Scope::All));
        let config = Config { patience: Duration::from_secs(3), ..Config::default() };
        let fetcher = Fetcher::new(config, net.streams(node(0)), roster.clone());
        Self { own: Machine::new(&[("mine", &big(9))]), roster, fetcher, servers }
    }

    async fn pull(&self, name: &str, from: &str) -> Result<String, PullError> {
        let (progress, mut steps) = mpsc::channel(64);
        let drain = tokio::spawn(async move { while steps.recv().await.is_some() {} });
        let members = Members { puller: &self.own.puller, fetcher: &self.fetcher, trees: &self.own.trees };
        let outcome = members.pull(name, from, &progress).await;
        drop(progress);
        drain.await.unwrap();
        outcome
    }

    async fn refused(&self, name: &str, from: &str) -> String {
        let error = self.pull(name, from).await.unwrap_err().to_string();
        assert_eq!(files(&self.own.dir.path().join("models/manifests")), 0, "{error}");
        error
    }
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_of_two_members_is_copied_checked_and_listed() {
    let bytes = big(1);
    let (one, two) = (Machine::new(&[("m", &bytes), ("x", b"GGUF")]), Machine::new(&[("m", &bytes)]));
    let world = World::new(vec![one.shelf(), two.shelf()]);
    assert_eq!(world.pull("M", "pool").await.unwrap(), "m");
    let entry = world.own.store.resolve("m").unwrap();
    assert_eq!(entry.digest.unwrap(), hex(&Sha256::digest(&bytes)));
    let path = entry.path.unwrap();
    assert!(std::fs::read(&path).unwrap() == bytes);
    assert_eq!(files(&world.own.store.partial()), 0);
    // It can be given on at once: its hashes came with it.
    assert_eq!(world.own.trees.id(&path), Some(BlobId(*blake3::hash(&bytes).as_bytes())));
    let listed = world.own.shelf().list(Kind::Model).await;
    assert!(listed.iter().any(|item| item.name == "m" && item.id.is_some()), "{listed:?}");
    // What is here is not copied again.
    let sent = || world.servers.iter().map(|server| server.counters().bytes).sum::<u64>();
    let before = sent();
    assert!(before >= bytes.len() as u64);
    assert_eq!(world.pull("m", "n1").await.unwrap(), "m");
    assert_eq!(sent(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_there_is() {
    let one = Machine::new(&[("m", &big(1)), ("mine", &big(2)), ("broken", b"no model at all")]);
    let two = Machine::new(&[("m", &big(3))]);
    let world = World::new(vec![one.shelf(), two.shelf()]);
    let said = world.refused("nothing", "pool").await;
    assert!(said.contains("n1 has m, mine, broken; n2 has m"), "{said}");
    let said = world.refused("m", "pool").await;
    assert!(said.contains("--from") && said.contains("n1 has") && said.contains("n2 has"), "{said}");
    let said = world.refused("m", "nobody").await;
    assert!(said.contains("n1, n2"), "{said}");
    let said = world.refused("mine", "pool").await;
    assert!(said.contains("another file is here") && said.contains("potluck rm"), "{said}");
    let said = world.refused("broken", "pool").await;
    assert!(said.contains("not usable"), "{said}");
    assert_eq!(files(&world.own.store.partial()), 0, "{}", world.own.dir.path().display());
    let id = node(2).to_string();
    assert_eq!(world.pull("m", &id[..8]).await.unwrap(), "m");
    world.roster.change(0, |grants| grants.fetch = None);
    assert_eq!(world.pull("m", "pool").await, Err(PullError::NotGranted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_sha_256_is_worth_nothing_and_a_right_one_decides() {
    let bytes = big(1);
    let (one, two) = (Machine::new(&[("m", &bytes)]), Machine::new(&[("m", &bytes)]));
    let wrong: Arc<dyn BlobSource> = Arc::new(Claims(one.shelf(), BlobId([3; 32])));
    let world = World::new(vec![wrong.clone()]);
    let said = world.refused("m", "pool").await;
    assert!(said.contains("SHA-256") && said.contains("thrown away"), "{said}");
    assert_eq!(files(&world.own.store.partial()), 0);
    let right = BlobId(Sha256::digest(&bytes).into());
    let world = World::new(vec![wrong, Arc::new(Claims(two.shelf(), right))]);
    assert_eq!(world.pull("m", "pool").await.unwrap(), "m");
}
