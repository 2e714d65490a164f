use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::fixture::{Guest, engine, scoring};
use crate::policy::{
    Approvals, Approved, BoxFuture, Components, Event, FetchError, Kind, Policies, PoliciesConfig,
    PolicyHash, Soonest, follow,
};

#[derive(Debug)]
struct Pool(watch::Sender<Arc<Vec<Approved>>>);

impl Approvals for Pool {
    fn watch(&self) -> watch::Receiver<Arc<Vec<Approved>>> {
        self.0.subscribe()
    }
}

#[derive(Debug, Default)]
struct Folder(Mutex<HashMap<PolicyHash, Vec<u8>>>);

impl Components for Folder {
    fn fetch(&self, hash: PolicyHash) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        let found = self.0.lock().unwrap().get(&hash).cloned();
        Box::pin(async move { found.ok_or(FetchError::Missing) })
    }
}

struct Scene {
    policies: Policies,
    pool: Arc<Pool>,
    folder: Arc<Folder>,
    now: Arc<AtomicU64>,
    stop: CancellationToken,
    events: broadcast::Receiver<Event>,
}

impl Scene {
    fn new() -> Self {
        let policies = Policies::new("pool", PoliciesConfig::default(), Arc::new(Soonest));
        let pool = Arc::new(Pool(watch::channel(Arc::default()).0));
        let (folder, now) = (Arc::new(Folder::default()), Arc::new(AtomicU64::new(1000)));
        let stop = CancellationToken::new();
        let clock = now.clone();
        let events = policies.events();
        let task = follow(
            policies.clone(),
            engine().clone(),
            pool.clone(),
            folder.clone(),
            move || clock.load(Ordering::Relaxed),
            stop.clone(),
        );
        tokio::spawn(task);
        Self { policies, pool, folder, now, stop, events }
    }

    fn put(&self, bytes: Vec<u8>) -> PolicyHash {
        let hash = PolicyHash::of(&bytes);
        self.folder.0.lock().unwrap().insert(hash, bytes);
        hash
    }

    fn approve(&self, list: &[(Kind, PolicyHash, u64)]) {
        let approved = |&(kind, hash, from_ms): &(Kind, PolicyHash, u64)| Approved {
            kind,
            hash,
            from_ms,
            by: "owner".into(),
        };
        self.pool.0.send_replace(Arc::new(list.iter().map(approved).collect()));
    }

    async fn event(&mut self) -> Event {
        tokio::time::timeout(Duration::from_secs(120), self.events.recv()).await.unwrap().unwrap()
    }

    async fn activated(&mut self) -> PolicyHash {
        match self.event().await {
            Event::Activated { hash, .. } => hash,
            other => panic!("{other}"),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn what_is_approved_is_fetched_and_decides_when_its_moment_comes() {
    let mut scene = Scene::new();
    let (one, two) = (scene.put(scoring(61)), scene.put(scoring(62)));
    scene.approve(&[(Kind::Routing, one, 500), (Kind::Routing, two, 1400)]);
    assert_eq!(scene.activated().await, one);
    // The other is loaded already, and waits for the clock.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(scene.policies.active(Kind::Routing).unwrap().hash(), one);
    scene.now.store(1400, Ordering::Relaxed);
    assert_eq!(scene.activated().await, two);
    // What is no longer approved does not decide.
    scene.approve(&[(Kind::Routing, one, 500)]);
    assert_eq!(scene.activated().await, one);
    scene.approve(&[]);
    assert!(matches!(scene.event().await, Event::Deactivated { .. }));
    assert!(scene.policies.active(Kind::Routing).is_none());
}

#[tokio::test]
async fn where_the_latest_cannot_be_used_the_one_before_goes_on() {
    let mut scene = Scene::new();
    let good = scene.put(scoring(63));
    let broken = scene.put(b"no component".to_vec());
    let pricing = scene.put(Guest::default().pricing());
    scene.approve(&[(Kind::Routing, good, 1), (Kind::Routing, pricing, 2), (Kind::Routing, broken, 3)]);
    let Event::Unusable { hash, .. } = scene.event().await else { panic!() };
    assert_eq!(hash, broken);
    let Event::Unusable { hash, error, .. } = scene.event().await else { panic!() };
    assert_eq!(hash, pricing);
    assert!(error.contains("pricing policy"), "{error}");
    assert_eq!(scene.activated().await, good);
    // The same policy for what it is made for.
    scene.approve(&[(Kind::Routing, good, 1), (Kind::Pricing, pricing, 1)]);
    assert_eq!(scene.activated().await, pricing);
}

#[tokio::test]
async fn of_two_with_the_same_moment_all_members_take_the_same() {
    let (low, high) = {
        let mut hashes = [scoring(64), scoring(65)].map(|bytes| (PolicyHash::of(&bytes), bytes));
        hashes.sort();
        let [low, high] = hashes;
        (low, high)
    };
    for order in [[&low, &high], [&high, &low]] {
        let mut scene = Scene::new();
        for (hash, bytes) in order {
            assert_eq!(scene.put(bytes.clone()), *hash);
        }
        scene.approve(&order.map(|(hash, _)| (Kind::Routing, *hash, 7)));
        assert_eq!(scene.activated().await, high.0);
    }
}

#[tokio::test]
async fn what_comes_under_a_wrong_name_is_not_used_and_what_is_missing_is_asked_for_again() {
    let mut scene = Scene::new();
    let bytes = scoring(66);
    let hash = PolicyHash::of(&bytes);
    scene.folder.0.lock().unwrap().insert(hash, scoring(67));
    scene.approve(&[(Kind::Routing, hash, 1)]);
    let Event::Missing { error, .. } = scene.event().await else { panic!() };
    assert!(error.contains("another component"), "{error}");
    assert!(scene.policies.active(Kind::Routing).is_none());
    scene.put(bytes);
    // It is tried again with every change, and after a while.
    scene.approve(&[(Kind::Routing, hash, 1)]);
    assert_eq!(scene.activated().await, hash);
}

#[tokio::test]
async fn going_back_holds_until_it_is_approved_anew() {
    let mut scene = Scene::new();
    let (one, two) = (scene.put(scoring(68)), scene.put(scoring(69)));
    scene.approve(&[(Kind::Routing, one, 1)]);
    assert_eq!(scene.activated().await, one);
    scene.approve(&[(Kind::Routing, one, 1), (Kind::Routing, two, 2)]);
    assert_eq!(scene.activated().await, two);
    assert_eq!(scene.policies.rollback(Kind::Routing), Ok(Some(one)));
    assert!(matches!(scene.event().await, Event::RolledBack { .. }));
    scene.approve(&[(Kind::Routing, one, 1), (Kind::Routing, two, 2)]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(scene.policies.active(Kind::Routing).unwrap().hash(), one);
    scene.approve(&[(Kind::Routing, one, 1), (Kind::Routing, two, 3)]);
    assert_eq!(scene.activated().await, two);
}
