//! The policies of this machine's pool: what is voted on, what is here, and what decides.

use std::{
    fmt, fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    atomic,
    blob::{BlobId, Item, Kind as BlobKind, fetch::Fetcher, source},
    dispatch::pool::routing::{Distances, Routing},
    mesh::streams::BoxFuture as Boxed,
    policy::{
        Approvals, Approved, BoxFuture, CacheConfig, Components, Decision, Decisions, DecisionsConfig,
        DecisionsError, Engine, EngineConfig, EngineError, FetchError, Kind, LoadError, MAX_COMPONENT,
        NothingBefore, PaperError, Policies, PoliciesConfig, Policy, PolicyHash, Replay, Soonest, Standing,
        follow,
    },
    pool::trusted::{
        PoolHandle,
        papers::Motion,
        service::{BallotRow, PoolError},
    },
};

/// Most components that are kept in the folder: the oldest that nobody votes on go first.
const MOST: usize = 256;

/// Why something about policies was not done.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The engine did not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The component is no policy that can be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The pool says no.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Decisions cannot be kept or read.
    #[error(transparent)]
    Decisions(#[from] DecisionsError),
    /// A decision cannot be executed again.
    #[error(transparent)]
    Paper(#[from] PaperError),
    /// There is nothing to go back to.
    #[error(transparent)]
    Nothing(#[from] NothingBefore),
    /// The component is not to be had.
    #[error("the component {hash} is not here: {why}")]
    Fetch {
        /// Which.
        hash: PolicyHash,
        /// Why.
        why: FetchError,
    },
    /// Nobody voted on such a thing.
    #[error("no motion of this pool, and no component here, begins with `{0}`: see `potluck policy list`")]
    Unknown(String),
    /// More than one is meant.
    #[error("more than one component begins with `{0}`: give more of its hash")]
    Ambiguous(String),
    /// No decision about that job is kept.
    #[error("no decision about the job {0} is kept: no policy decided about it, or it was too long ago")]
    NoDecision(Uuid),
    /// A component cannot be kept.
    #[error("{} cannot be written: {error}; make room, or correct the folder's permissions", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

/// The folder of components, each named by its hash.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Bytes of those that are there, by hash; read once.
    sizes: Mutex<Vec<(PolicyHash, u64)>>,
}

impl Folder {
    fn open(path: PathBuf) -> Result<Self, PolicyError> {
        let made = fs::create_dir_all(&path).and_then(|()| fs::read_dir(&path));
        let entries = made.map_err(|error| PolicyError::Disk { path: path.clone(), error })?;
        let sizes = entries.flatten().filter_map(|entry| {
            let hash = entry.file_name().to_str()?.strip_suffix(".wasm")?.parse().ok()?;
            Some((hash, entry.metadata().ok()?.len()))
        });
        let sizes = Mutex::new(sizes.take(MOST).collect());
        Ok(Self { path, sizes })
    }

    fn list(&self) -> Vec<(PolicyHash, u64)> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn file(&self, hash: PolicyHash) -> PathBuf {
        self.path.join(format!("{hash}.wasm"))
    }

    /// The component's bytes, if they are here and right.
    pub(super) fn read(&self, hash: PolicyHash) -> Option<Vec<u8>> {
        let path = self.file(hash);
        let small = fs::metadata(&path).is_ok_and(|file| file.len() <= MAX_COMPONENT as u64);
        let bytes = small.then(|| fs::read(&path).ok()).flatten()?;
        // A spoiled file is as good as none: it comes again from a member.
        (PolicyHash::of(&bytes) == hash).then_some(bytes)
    }

    fn write(&self, bytes: &[u8]) -> Result<PolicyHash, PolicyError> {
        let hash = PolicyHash::of(bytes);
        if self.read(hash).is_none() {
            let path = self.file(hash);
            atomic::write(&path, |file| file.write_all(bytes))
                .map_err(|error| PolicyError::Disk { path, error })?;
            let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
            sizes.retain(|(held, _)| *held != hash);
            sizes.push((hash, bytes.len() as u64));
        }
        Ok(hash)
    }
}

/// What members may copy of it.
#[derive(Debug)]
pub(super) struct Shelf(pub(super) Arc<Folder>);

impl source::BlobSource for Shelf {
    fn list(&self, kind: BlobKind) -> Boxed<'_, Vec<Item>> {
        Box::pin(async move {
            if kind != BlobKind::Policy {
                return Vec::new();
            }
            let item = |(hash, size): (PolicyHash, u64)| Item {
                name: format!("{hash}.wasm"),
                size,
                sha256: None,
                id: Some(BlobId(*hash.as_bytes())),
            };
            self.0.list().into_iter().map(item).collect()
        })
    }

    fn open(&self, kind: BlobKind, id: BlobId) -> Boxed<'_, Option<Arc<dyn source::Blob>>> {
        let folder = Arc::clone(&self.0);
        Box::pin(async move {
            if kind != BlobKind::Policy {
                return None;
            }
            let read = tokio::task::spawn_blocking(move || folder.read(PolicyHash::from_bytes(id.0)));
            let bytes = read.await.ok()??;
            Some(Arc::new(source::Bytes(bytes.into())) as Arc<dyn source::Blob>)
        })
    }
}

/// Components come from the folder, then from members, and stay.
#[derive(Debug)]
struct Source {
    folder: Arc<Folder>,
    fetcher: Fetcher,
}

impl Components for Source {
    fn fetch(&self, hash: PolicyHash) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        Box::pin(async move {
            let folder = Arc::clone(&self.folder);
            let here = tokio::task::spawn_blocking(move || folder.read(hash)).await;
            if let Ok(Some(bytes)) = here {
                return Ok(bytes);
            }
            let members = self.fetcher.members();
            if members.is_empty() {
                return Err(FetchError::Missing);
            }
            let came = self.fetcher.component(BlobId(*hash.as_bytes()), &members).await;
            let bytes = came.map_err(|error| FetchError::Failed(error.to_string()))?;
            let found = PolicyHash::of(&bytes);
            if found != hash {
                return Err(FetchError::Other(found));
            }
            let (folder, kept) = (Arc::clone(&self.folder), bytes.clone());
            let written = tokio::task::spawn_blocking(move || folder.write(&kept)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "a component could not be kept");
            }
            Ok(bytes)
        })
    }
}

/// The pool's votes as approvals.
#[derive(Debug)]
struct Votes(watch::Receiver<Arc<Vec<Approved>>>);

impl Approvals for Votes {
    fn watch(&self) -> watch::Receiver<Arc<Vec<Approved>>> {
        self.0.clone()
    }
}

/// What a motion means for this program; `None`: it is about a kind that a newer one knows.
fn approved(motion: &Motion) -> Option<Approved> {
    Some(Approved {
        kind: kind(motion)?,
        hash: PolicyHash::from_bytes(motion.component),
        from_ms: u64::try_from(motion.from).ok()?,
        by: "the pool".into(),
    })
}

fn kind(motion: &Motion) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| number(*kind) == motion.kind)
}

/// How papers count kinds.
const fn number(kind: Kind) -> u8 {
    match kind {
        Kind::Routing => 0,
        Kind::Pricing => 1,
        Kind::Slashing => 2,
    }
}

/// A motion, for people.
#[derive(Clone, Debug, Serialize)]
struct MotionRow {
    kind: Option<Kind>,
    hash: PolicyHash,
    from_ms: i64,
    #[serde(flatten)]
    ballot: BallotRow,
}

/// The policies of this machine's pool.
pub struct PolicyRoom {
    engine: Engine,
    policies: Policies,
    decisions: Arc<Decisions>,
    folder: Arc<Folder>,
    components: Arc<Source>,
    handle: PoolHandle,
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for PolicyRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyRoom").field("policies", &self.policies).finish_non_exhaustive()
    }
}

/// The engine of this machine, with its cache of compiled code.
///
/// # Errors
/// [`EngineError`]
fn engine(home: &Path, key: [u8; 32]) -> Result<Engine, EngineError> {
    let dir = home.join("policies").join("compiled");
    Engine::new(EngineConfig { cache: Some(CacheConfig { dir, key }), ..EngineConfig::default() })
}

pub(super) fn folder(home: &Path) -> Result<Arc<Folder>, PolicyError> {
    Folder::open(home.join("policies").join("components")).map(Arc::new)
}

impl PolicyRoom {
    /// Follows the votes of the pool from now on.
    ///
    /// # Errors
    /// [`PolicyError`] when the engine or the store of decisions cannot be used.
    pub(super) fn open(
        home: &Path,
        folder: Arc<Folder>,
        handle: PoolHandle,
        fetcher: Fetcher,
        key: [u8; 32],
        stop: &CancellationToken,
    ) -> Result<Arc<Self>, PolicyError> {
        let engine = engine(home, key)?;
        let policies = Policies::new("pool", PoliciesConfig::default(), Arc::new(Soonest));
        let decisions = home.join("policies").join("decisions");
        let decisions = Arc::new(Decisions::open(&decisions, &DecisionsConfig::default())?);
        let components = Arc::new(Source { folder: Arc::clone(&folder), fetcher });
        let mut tasks = JoinSet::new();
        let (told, votes) = watch::channel(Arc::default());
        tasks.spawn(translate(handle.approved(), told));
        let source = Arc::clone(&components) as Arc<dyn Components>;
        let votes = Arc::new(Votes(votes));
        tasks.spawn(follow(policies.clone(), engine.clone(), votes, source, now, stop.clone()));
        let tasks = Mutex::new(tasks);
        Ok(Arc::new(Self { engine, policies, decisions, folder, components, handle, tasks }))
    }

    pub(super) fn shutdown(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    /// What somebody else approves of decides in a scope of its own, with the same engine, components and record of
    /// decisions; until it is stopped.
    #[cfg(feature = "public")]
    pub(in crate::node) fn beside(
        &self,
        scope: &str,
        approvals: Arc<dyn Approvals>,
        stop: &CancellationToken,
    ) -> (Policies, Arc<Decisions>) {
        let policies = Policies::new(scope, PoliciesConfig::default(), Arc::new(Soonest));
        let source = Arc::clone(&self.components) as Arc<dyn Components>;
        let following = follow(policies.clone(), self.engine.clone(), approvals, source, now, stop.clone());
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(following);
        (policies, Arc::clone(&self.decisions))
    }

    /// What dispatch asks.
    pub(super) fn routing(&self, distances: Arc<dyn Distances>) -> Routing {
        Routing { policies: self.policies.clone(), decisions: Arc::clone(&self.decisions), distances }
    }

    /// What runs policies, for other pools than this one.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where components come from: the folder, then members.
    pub fn components(&self) -> Arc<dyn Components> {
        Arc::clone(&self.components) as Arc<dyn Components>
    }

    /// What decides now, with what was counted about it.
    pub fn standing(&self) -> Vec<Standing> {
        self.policies.standing()
    }

    /// What decides, what is voted on, and which components are here.
    ///
    /// # Errors
    /// [`PolicyError::Pool`], but for a machine that is in no pool.
    pub async fn list(&self) -> Result<Value, PolicyError> {
        let motions = match self.handle.ballots().await {
            Ok(ballots) => ballots.into_iter().map(row).collect(),
            Err(PoolError::NoPool) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let component = |(hash, size): (PolicyHash, u64)| json!({"hash": hash, "size": size});
        let components: Vec<Value> = self.folder.list().into_iter().map(component).collect();
        Ok(json!({
            "active": self.policies.standing(),
            "motions": motions,
            "components": components,
            "decisions_dropped": self.decisions.dropped(),
        }))
    }

    /// Everything about a component that is here or at a member, by its hash or the beginning of it.
    ///
    /// # Errors
    /// [`PolicyError`]
    pub async fn show(&self, wanted: &str) -> Result<Value, PolicyError> {
        let hash = self.find(wanted).await?;
        let policy = self.load(hash).await?;
        Ok(describe(&policy))
    }

    /// A component's whole hash, by the beginning of it, or by the name of an active policy.
    async fn find(&self, wanted: &str) -> Result<PolicyHash, PolicyError> {
        if let Ok(hash) = wanted.parse() {
            return Ok(hash);
        }
        let digits = wanted.trim().trim_start_matches("0x").to_ascii_lowercase();
        let active = self.policies.standing();
        if let Some(standing) = active.iter().find(|standing| standing.name == wanted) {
            return Ok(standing.hash);
        }
        let motions = self.handle.ballots().await.unwrap_or_default();
        let voted = motions.iter().map(|row| PolicyHash::from_bytes(row.motion.component));
        let mut all: Vec<PolicyHash> =
            self.folder.list().into_iter().map(|(hash, _)| hash).chain(voted).collect();
        all.retain(|hash| digits.len() >= 4 && hash.to_string().starts_with(&digits));
        all.sort_unstable();
        all.dedup();
        match all.as_slice() {
            [] => Err(PolicyError::Unknown(wanted.into())),
            [one] => Ok(*one),
            _ => Err(PolicyError::Ambiguous(wanted.into())),
        }
    }

    async fn load(&self, hash: PolicyHash) -> Result<Arc<Policy>, PolicyError> {
        let bytes = self.components.fetch(hash).await.map_err(|why| PolicyError::Fetch { hash, why })?;
        let engine = self.engine.clone();
        let loaded = tokio::task::spawn_blocking(move || engine.load(&bytes)).await;
        Ok(loaded.map_err(|_| PoolError::Closed)??)
    }

    /// Checks a component and keeps it, so that it can be voted on and members can have it.
    ///
    /// # Errors
    /// [`PolicyError::Load`] with what is wrong with it, or [`PolicyError::Disk`].
    pub async fn add(&self, bytes: Vec<u8>) -> Result<Arc<Policy>, PolicyError> {
        let (engine, folder) = (self.engine.clone(), Arc::clone(&self.folder));
        let added = tokio::task::spawn_blocking(move || {
            let policy = engine.load(&bytes)?;
            folder.write(&bytes)?;
            Ok(policy)
        });
        added.await.map_err(|_| PoolError::Closed)?
    }

    /// Votes that a policy decides from a moment on (now, without one), or that it does not. Who votes for what
    /// nobody voted on yet proposes it. `None` as the component is the rule that is built in.
    ///
    /// # Errors
    /// [`PolicyError`]
    pub async fn vote(&self, vote: Vote) -> Result<Value, PolicyError> {
        let Vote { kind, component, from, yes, note } = vote;
        let hash = match &component {
            None => PolicyHash::NATIVE,
            Some(wanted) => self.find(wanted).await?,
        };
        let standing = self.handle.ballots().await?;
        let of = |row: &&BallotRow| {
            row.motion.component == *hash.as_bytes() && from.is_none_or(|from| row.motion.from == from)
        };
        let open = standing.iter().find(|row| of(row) && (from.is_some() || !row.approved));
        let motion = match (open, yes) {
            (Some(row), _) => row.motion,
            // Against what is approved: the newest of its motions.
            (None, false) => {
                standing.iter().find(of).ok_or_else(|| PolicyError::Unknown(hash.to_string()))?.motion
            }
            (None, true) => {
                let kind = match kind {
                    Some(kind) if hash == PolicyHash::NATIVE => kind,
                    _ => self.load(hash).await?.kind(),
                };
                let now = i64::try_from(now()).unwrap_or(i64::MAX);
                Motion { kind: number(kind), component: *hash.as_bytes(), from: from.unwrap_or(now) }
            }
        };
        let done = self.handle.vote(motion, yes, note).await?;
        Ok(serde_json::to_value(row(done)).unwrap_or_default())
    }

    /// Votes that what decided before the pool's present policy decides again from now on.
    ///
    /// # Errors
    /// [`PolicyError`]
    pub async fn back(&self, kind: Kind) -> Result<Value, PolicyError> {
        let time = i64::try_from(now()).unwrap_or(i64::MAX);
        let ballots = self.handle.ballots().await?;
        // The newest activation comes first.
        let approved = ballots.iter().filter(|row| row.approved && row.motion.kind == number(kind));
        let mut past = approved.filter(|row| row.motion.from <= time).map(|row| row.motion.component);
        let present = past.next().ok_or(NothingBefore(kind))?;
        let before = past.find(|component| *component != present).map(PolicyHash::from_bytes);
        let component = before.filter(|hash| *hash != PolicyHash::NATIVE).map(|hash| hash.to_string());
        let note = "back to what decided before".into();
        self.vote(Vote { kind: Some(kind), component, from: Some(time), yes: true, note }).await
    }

    /// On this machine alone, goes back to what decided before; the pool's vote stands for the others.
    ///
    /// # Errors
    /// [`PolicyError::Nothing`]
    pub fn rollback(&self, kind: Kind) -> Result<Option<PolicyHash>, PolicyError> {
        Ok(self.policies.rollback(kind)?)
    }

    /// The decisions about a job, each executed again.
    ///
    /// # Errors
    /// [`PolicyError::NoDecision`] where none is kept.
    pub async fn explain(&self, job: Uuid) -> Result<Value, PolicyError> {
        let decisions = Arc::clone(&self.decisions);
        let found = tokio::task::spawn_blocking(move || decisions.flush().and_then(|()| decisions.find(job)));
        let found = found.await.map_err(|_| PoolError::Closed)??;
        if found.is_empty() {
            return Err(PolicyError::NoDecision(job));
        }
        let mut told = Vec::with_capacity(found.len());
        for decision in &found {
            told.push(self.replay(decision).await?);
        }
        Ok(json!({"job": job, "decisions": told}))
    }

    /// The latest decisions, in short.
    ///
    /// # Errors
    /// [`PolicyError::Decisions`]
    pub async fn latest(&self, most: usize) -> Result<Value, PolicyError> {
        let decisions = Arc::clone(&self.decisions);
        let found =
            tokio::task::spawn_blocking(move || decisions.flush().and_then(|()| decisions.latest(most)));
        let found = found.await.map_err(|_| PoolError::Closed)??;
        let short = |it: &Decision| json!({"job": it.job, "kind": it.kind, "policy": it.policy, "time_ms": it.time_ms});
        Ok(json!({"decisions": found.iter().map(short).collect::<Vec<_>>()}))
    }

    /// A decision of any machine, executed again here.
    ///
    /// # Errors
    /// [`PolicyError::Paper`] for something that is none, [`PolicyError::Fetch`] where the component is not to be had.
    pub async fn replay(&self, decision: &Decision) -> Result<Value, PolicyError> {
        let policy = self.load(decision.policy).await?;
        let again = {
            let (policy, decision) = (Arc::clone(&policy), decision.clone());
            tokio::task::spawn_blocking(move || decision.replay(&policy))
                .await
                .map_err(|_| PoolError::Closed)??
        };
        let (same, other) = match again {
            Replay::Same => (true, None),
            Replay::Different(output) => (false, Some(output)),
        };
        Ok(json!({
            "paper": decision.export(),
            "policy": policy.describe(),
            "question": decision.question()?,
            "answer": decision.answer()?,
            "same": same,
            "again": other,
        }))
    }
}

/// A vote.
#[derive(Clone, Debug)]
pub struct Vote {
    /// What it is about; needed for the rule that is built in only.
    pub kind: Option<Kind>,
    /// The component's hash or the beginning of it; `None`: the rule that is built in.
    pub component: Option<String>,
    /// From when on it decides, in milliseconds since 1970; `None`: now, or an open motion about it.
    pub from: Option<i64>,
    /// For or against.
    pub yes: bool,
    /// A few words for the others.
    pub note: String,
}

fn row(ballot: BallotRow) -> MotionRow {
    let hash = PolicyHash::from_bytes(ballot.motion.component);
    MotionRow { kind: kind(&ballot.motion), hash, from_ms: ballot.motion.from, ballot }
}

/// A policy, for people.
pub fn describe(policy: &Policy) -> Value {
    json!({
        "hash": policy.hash(),
        "kind": policy.kind(),
        "abi": policy.abi().to_string(),
        "size": policy.size(),
        "description": policy.describe(),
        "report": policy.report(),
        "keeps_warm": policy.keeps_warm(),
    })
}

async fn translate(mut motions: watch::Receiver<Arc<Vec<Motion>>>, told: watch::Sender<Arc<Vec<Approved>>>) {
    loop {
        let approved = motions.borrow_and_update().iter().filter_map(approved).collect();
        told.send_replace(Arc::new(approved));
        if motions.changed().await.is_err() {
            return;
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
