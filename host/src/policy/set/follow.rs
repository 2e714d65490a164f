//! Follows what is approved: fetches and loads what will decide, and swaps when its moment comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Event, Policies};
use crate::policy::{
    Approvals, Approved, Components, Engine, FetchError, Kind, LoadError, Policy, PolicyHash,
};

/// Most approvals that are looked at; those with the latest moment count.
const MAX_APPROVED: usize = 64;
/// How long until a component that nobody had is asked for again.
const RETRY: Duration = Duration::from_secs(15);
/// How long a component may take to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long at most until the clock is looked at again, since it may be set.
const LOOK: Duration = Duration::from_secs(30);

/// Keeps a set of policies at what is approved, until `stop` is cancelled. `now` gives milliseconds since 1970.
///
/// What comes later is fetched and tried beforehand, so that the swap itself takes no time. Where the latest approved
/// policy cannot be used, the one approved before it goes on; where none is left, the native default. A component of
/// another kind than the one it is approved for, and bytes that are another component's, are never used.
pub async fn follow(
    policies: Policies,
    engine: Engine,
    approvals: Arc<dyn Approvals>,
    components: Arc<dyn Components>,
    now: impl Fn() -> u64 + Send + Sync,
    stop: CancellationToken,
) {
    let mut watch = approvals.watch();
    let mut follower =
        Follower { policies, engine, components, loaded: BTreeMap::new(), told: BTreeSet::new() };
    loop {
        let approved = watch.borrow_and_update().clone();
        let wait = tokio::select! {
            () = stop.cancelled() => return,
            wait = follower.step(&approved, &now) => wait,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            changed = watch.changed() => {
                // Whoever approves is gone: what was approved last stays.
                if changed.is_err() {
                    stop.cancelled().await;
                    return;
                }
            }
        }
    }
}

/// A policy that is loaded, or why it never will be.
type Loaded = Result<Arc<Policy>, LoadError>;

struct Follower {
    policies: Policies,
    engine: Engine,
    components: Arc<dyn Components>,
    loaded: BTreeMap<PolicyHash, Loaded>,
    /// What was told already, so that a retry does not repeat it.
    told: BTreeSet<(Kind, PolicyHash)>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("loaded", &self.loaded.len()).finish_non_exhaustive()
    }
}

impl Follower {
    /// Brings the set up to date and says after how long to do so again.
    async fn step(&mut self, approved: &[Approved], now: &(impl Fn() -> u64 + Sync)) -> Duration {
        let mut latest: Vec<_> = approved.to_vec();
        // The greater hash decides between two of the same moment, so that all members choose alike.
        latest.sort_by_key(|approved| std::cmp::Reverse((approved.from_ms, approved.hash)));
        latest.truncate(MAX_APPROVED);
        self.told.retain(|(kind, hash)| latest.iter().any(|a| a.kind == *kind && a.hash == *hash));
        let mut wait = LOOK;
        let mut needed = BTreeSet::new();
        for kind in Kind::ALL {
            let of_kind: Vec<_> = latest.iter().filter(|approved| approved.kind == kind).collect();
            wait = wait.min(self.step_kind(kind, &of_kind, now, &mut needed).await);
        }
        self.loaded.retain(|hash, _| needed.contains(hash));
        wait
    }

    async fn step_kind(
        &mut self,
        kind: Kind,
        latest: &[&Approved],
        now: &(impl Fn() -> u64 + Sync),
        needed: &mut BTreeSet<PolicyHash>,
    ) -> Duration {
        let mut wait = LOOK;
        let mut chosen = None;
        for approved in latest {
            if self.policies.is_skipped(kind, approved.hash, approved.from_ms) {
                continue;
            }
            let left = approved.from_ms.saturating_sub(now());
            if approved.hash == PolicyHash::NATIVE {
                // No policy decides from this moment on.
                if left == 0 {
                    break;
                }
                wait = wait.min(Duration::from_millis(left));
                continue;
            }
            needed.insert(approved.hash);
            let policy = match self.policy(approved).await {
                Ok(policy) => policy,
                Err(retry) => {
                    wait = retry.map_or(wait, |retry| wait.min(retry));
                    continue;
                }
            };
            // Looked at after loading, which takes its time.
            let left = approved.from_ms.saturating_sub(now());
            if left == 0 {
                chosen = Some((policy, *approved));
                break;
            }
            wait = wait.min(Duration::from_millis(left));
        }
        self.put(kind, chosen);
        wait
    }

    fn put(&self, kind: Kind, chosen: Option<(Arc<Policy>, &Approved)>) {
        let active = self.policies.active(kind);
        match chosen {
            Some((policy, approved)) => {
                let there = |active: &Arc<super::Active>| {
                    active.hash() == approved.hash && active.from_ms() == approved.from_ms
                };
                if !active.as_ref().is_some_and(there) {
                    self.policies.activate(policy, approved.by.clone(), approved.from_ms);
                }
            }
            None if active.is_some() => self.policies.deactivate(kind),
            None => {}
        }
    }

    /// The policy of an approval; the error says when to try again, `None`: never.
    async fn policy(&mut self, approved: &Approved) -> Result<Arc<Policy>, Option<Duration>> {
        let (kind, hash) = (approved.kind, approved.hash);
        if !self.loaded.contains_key(&hash) {
            match self.fetch(hash).await {
                Ok(Err(error)) if error.is_passing() => return Err(Some(RETRY)),
                Ok(loaded) => {
                    self.loaded.insert(hash, loaded);
                }
                Err(error) => {
                    let error = error.to_string();
                    self.tell_once(kind, hash, Event::Missing { kind, hash, error });
                    return Err(Some(RETRY));
                }
            }
        }
        let loaded = match self.loaded.get(&hash) {
            Some(Ok(policy)) if policy.kind() == kind => return Ok(policy.clone()),
            Some(Ok(policy)) => LoadError::Kind { found: policy.kind(), wanted: kind },
            Some(Err(error)) => error.clone(),
            None => return Err(Some(RETRY)),
        };
        self.tell_once(kind, hash, Event::Unusable { kind, hash, error: loaded.to_string() });
        Err(None)
    }

    fn tell_once(&mut self, kind: Kind, hash: PolicyHash, event: Event) {
        if self.told.insert((kind, hash)) {
            self.policies.tell(event);
        }
    }

    async fn fetch(&self, hash: PolicyHash) -> Result<Loaded, FetchError> {
        let fetching = tokio::time::timeout(PATIENCE, self.components.fetch(hash));
        let bytes = fetching.await.map_err(|_| FetchError::Missing)??;
        let found = PolicyHash::of(&bytes);
        if found != hash {
            return Err(FetchError::Other(found));
        }
        let engine = self.engine.clone();
        let loading = tokio::task::spawn_blocking(move || engine.load(&bytes));
        loading.await.map_err(|error| FetchError::Failed(error.to_string()))
    }
}
