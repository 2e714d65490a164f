//! The machines of a trusted pool as one provider, this one among them.
//!
//! A job goes to the best candidate ([`score`]). One that refuses, fails or falls silent before it has said anything
//! makes room for the next at once. One that breaks off later is replaced too: the next machine goes on after the
//! tokens that are there, and the reader sees one unbroken answer ([`relay`]).

mod prefix;
mod relay;
pub mod routing;
pub(crate) mod said;
pub mod score;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::{
    health::{Blame, Health},
    load::{LoadSource, LoadTable, ModelLoad},
    provider::{BoxFuture, Offer, Provider, SharedProvider},
};
use crate::{
    identity::NodeId,
    job::{Job, JobError, Mode, Reply, random_seed},
    mesh::{
        protocol::job::{
            PROTOCOL, Timers,
            call::{Call, CallError},
            receipts::Receipts,
        },
        streams::{OpenError, Streams},
    },
    pool::trusted::{Admitted, Membership},
};
use prefix::Prefixes;
use relay::Relay;
use routing::{Routing, able};
use score::{Candidate, Size};

/// How jobs are given to members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Machines that are tried for one job.
    pub tries: usize,
    /// Jobs that one member is given at the same time.
    pub in_flight: u32,
    /// The clocks.
    pub timers: Timers,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { tries: 6, in_flight: 8, timers: Timers::default() }
    }
}

/// This machine's own engines, as a candidate among others.
#[derive(Clone, Debug)]
pub struct Own {
    /// What this machine is called.
    pub node: String,
    /// Answers jobs on this machine.
    pub provider: SharedProvider,
    /// What is loaded.
    pub load: Arc<dyn LoadSource>,
}

/// What the pool's provider needs.
#[derive(Clone, Debug)]
pub struct Pool {
    /// How jobs are given away.
    pub config: PoolConfig,
    /// The mesh.
    pub streams: Arc<dyn Streams>,
    /// Who is a member.
    pub membership: Arc<dyn Membership>,
    /// What members report.
    pub table: Arc<LoadTable>,
    /// What was seen of them.
    pub health: Arc<Health>,
    /// The ledger.
    pub receipts: Arc<dyn Receipts>,
    /// This machine's engines; `None`: it has none.
    pub own: Option<Own>,
    /// The pool's routing policy; `None`: machines are always chosen in the native order.
    pub routing: Option<Routing>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    name: String,
    turn: AtomicU64,
    prefixes: Prefixes,
}

/// Answers jobs with the machines of a trusted pool. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct PoolProvider {
    inner: Arc<Inner>,
}

/// Who works on a job.
#[derive(Debug)]
enum Answerer {
    Member(Box<Call>),
    Own(Reply),
}

/// Why a machine does not answer.
#[derive(Debug)]
struct Trouble {
    error: JobError,
    blame: Option<Blame>,
    /// No other machine would do better.
    last: bool,
}

impl PoolProvider {
    /// A provider over a pool.
    pub fn new(pool: Pool) -> Self {
        let name = pool.own.as_ref().map_or_else(|| "pool".to_owned(), |own| own.node.clone());
        let mut key = [0; 32];
        for part in key.chunks_exact_mut(8) {
            part.copy_from_slice(&random_seed().to_le_bytes());
        }
        let (turn, prefixes) = (AtomicU64::new(random_seed()), Prefixes::new(key));
        Self { inner: Arc::new(Inner { pool, name, turn, prefixes }) }
    }

    /// What it works with.
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// Starts a job on one member, or, with `None`, on the best machine. With a target nobody else is ever asked.
    ///
    /// # Errors
    /// The refusal of the machine that came closest.
    pub async fn submit_to(&self, job: Job, target: Option<NodeId>) -> Result<Reply, JobError> {
        Relay::start(self.inner.clone(), job, target).await
    }

    /// Every machine that has a model, with its score for a job: what `submit` would choose from.
    pub async fn candidates(&self, job: &Job) -> Vec<(Option<score::Score>, Candidate)> {
        let size = Size::of(job);
        let all = self.inner.candidates(&job.model, Instant::now()).await;
        all.into_iter().map(|c| (score::score(size, &c), c)).collect()
    }
}

impl Provider for PoolProvider {
    fn circle(&self) -> Mode {
        Mode::Trusted
    }

    fn there(&self) -> bool {
        let membership = &self.inner.pool.membership;
        membership.grants(membership.me()).is_some()
    }

    fn node(&self) -> &str {
        &self.inner.name
    }

    fn offers(&self) -> BoxFuture<'_, Vec<Offer>> {
        Box::pin(self.inner.offers())
    }

    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>> {
        Box::pin(self.submit_to(job, None))
    }
}

/// Whether a name that was asked for means a model: case and `:latest` do not count.
pub(crate) fn means(asked: &str, model: &str) -> bool {
    let plain = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_ascii_lowercase();
    asked == model || plain(asked) == plain(model)
}

impl Inner {
    /// Members that may serve us and whose reports hold.
    fn serving(&self, now: Instant) -> Vec<(Admitted, Arc<super::load::Report>)> {
        let membership = &self.pool.membership;
        let me = membership.me();
        if !membership.grants(me).is_some_and(|grants| grants.uses) {
            return Vec::new();
        }
        let admitted = membership.watch().borrow().clone();
        let serving = admitted.iter().filter(|member| member.node != me && member.grants.serve);
        serving
            .filter_map(|member| Some((member.clone(), self.pool.table.get(member.node, now)?.0)))
            .collect()
    }

    /// Every model of the pool, once, with the longest context there is for it.
    async fn offers(&self) -> Vec<Offer> {
        let mut all: Vec<Offer> = match &self.pool.own {
            Some(own) => own.provider.offers().await,
            None => Vec::new(),
        };
        for (_, report) in self.serving(Instant::now()) {
            for model in &report.models {
                match all.iter_mut().find(|offer| offer.model == model.name) {
                    Some(offer) => offer.context = offer.context.max(model.context),
                    None => all.push(Offer { model: model.name.clone(), context: model.context }),
                }
            }
        }
        all
    }

    /// Every machine that has a model.
    async fn candidates(&self, model: &str, now: Instant) -> Vec<Candidate> {
        let mut all = Vec::new();
        if let Some(own) = &self.pool.own
            && let Some(load) = pick(model, own.load.now().await.iter())
        {
            let (name, path) = (own.node.clone(), "own".to_owned());
            all.push(Candidate { node: None, name, path, load, seen: super::health::Seen::default() });
        }
        for (member, report) in self.serving(now) {
            if let Some(load) = pick(model, report.models.iter()) {
                let seen = self.pool.health.seen(member.node, &load.name, &member.path, now);
                let Admitted { node, name, path, .. } = member;
                all.push(Candidate { node: Some(node), name, path, load, seen });
            }
        }
        all
    }

    /// The candidates for a job in their order, without those that were tried and those that have enough to do.
    ///
    /// # Errors
    /// [`JobError::Busy`] when only the latter are left.
    async fn ranked(&self, ask: &Wanted<'_>) -> Result<Vec<Candidate>, JobError> {
        let all = self.candidates(&ask.job.model, Instant::now()).await;
        let all = all.into_iter().filter(|c| {
            let target = ask.target.is_none_or(|target| c.node == Some(target));
            target && !ask.tried.contains(&c.node) && ask.continues(&c.load)
        });
        let most = self.pool.config.in_flight;
        let (full, free): (Vec<_>, Vec<_>) = all.partition(|c| c.seen.there >= most);
        let turn = self.turn.fetch_add(1, Relaxed);
        let ranked = able(ask.size, free, turn);
        let policy = self.pool.routing.as_ref().and_then(|it| it.order(ask, &self.prefixes, &ranked));
        let ranked = policy.unwrap_or(ranked);
        if ranked.is_empty() && full.iter().any(|c| score::score(ask.size, c).is_some()) {
            return Err(JobError::Busy { queued: most as usize, retry_after: Duration::from_secs(1) });
        }
        Ok(ranked)
    }

    /// Asks one machine.
    async fn ask(&self, candidate: &Candidate, mut job: Job) -> Result<Answerer, Trouble> {
        job.mode = Mode::Local;
        let Some(peer) = candidate.node else {
            let own = self.pool.own.as_ref().ok_or_else(|| internal("this machine has no engines".into()))?;
            return match own.provider.submit(job).await {
                Ok(reply) => Ok(Answerer::Own(reply)),
                Err(error) => Err(refused(error)),
            };
        };
        job.model.clone_from(&candidate.load.name);
        let timers = self.pool.config.timers;
        let stream = match timeout(timers.first, self.pool.streams.open(peer, PROTOCOL)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unopened(&error)),
            Err(_) => return Err(away(format!("no stream within {} ms", timers.first.as_millis()))),
        };
        match Call::begin(stream, &job, false, timers).await {
            Ok(call) => Ok(Answerer::Member(Box::new(call))),
            Err(error) => Err(trouble(error)),
        }
    }

    /// Notes that a machine failed.
    fn note(&self, candidate: &Candidate, trouble: &Trouble) {
        let (Some(peer), Some(blame)) = (candidate.node, trouble.blame) else { return };
        let jitter = f64::from(u8::try_from(random_seed() % 256).unwrap_or(0)) / 255.0;
        let why = trouble.error.to_string();
        tracing::warn!(%peer, member = candidate.name, model = candidate.load.name, why, "a member failed");
        self.pool.health.failed(peer, &candidate.load.name, blame, &why, jitter, Instant::now());
    }
}

/// What the next machine must be able to do.
struct Wanted<'a> {
    job: &'a Job,
    size: Size,
    target: Option<NodeId>,
    tried: &'a HashSet<Option<NodeId>>,
    /// The model that began the answer, once something was said.
    began: Option<&'a ModelLoad>,
}

impl Wanted<'_> {
    /// Whether a model may go on with the answer.
    fn continues(&self, load: &ModelLoad) -> bool {
        let Some(began) = self.began else { return true };
        // Files that differ give answers that differ.
        let same = match (&began.digest, &load.digest) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        same && load.resumes
    }
}

/// The model that a name means, of one machine's.
fn pick<'a>(asked: &str, models: impl Iterator<Item = &'a ModelLoad>) -> Option<ModelLoad> {
    let mut found: Option<&ModelLoad> = None;
    for model in models.filter(|model| means(asked, &model.name)) {
        if found.is_none() || model.name == asked {
            found = Some(model);
        }
    }
    found.cloned()
}

fn internal(reason: String) -> Trouble {
    Trouble { error: JobError::Internal { reason }, blame: None, last: false }
}

fn away(reason: String) -> Trouble {
    Trouble { blame: Some(Blame::Machine), ..internal(reason) }
}

fn unopened(error: &OpenError) -> Trouble {
    match error {
        OpenError::Closed => Trouble { error: JobError::ShuttingDown, blame: None, last: true },
        OpenError::Unreachable { .. } | OpenError::Refused { .. } => away(error.to_string()),
    }
}

/// What a machine's own words mean for the job.
fn refused(error: JobError) -> Trouble {
    let (blame, last) = match &error {
        JobError::Invalid { field, .. } => (None, !matches!(field.as_str(), "resume" | "probe" | "share")),
        JobError::ModelUnusable { .. } | JobError::Unanswered { .. } | JobError::Internal { .. } => {
            (Some(Blame::Model), false)
        }
        JobError::ModelNotFound { .. }
        | JobError::EmbedderMissing { .. }
        | JobError::ContextLengthExceeded { .. }
        | JobError::Busy { .. }
        | JobError::ModeUnavailable { .. }
        | JobError::Payment { .. }
        | JobError::Cancelled
        | JobError::ShuttingDown => (None, false),
    };
    Trouble { error, blame, last }
}

fn trouble(error: CallError) -> Trouble {
    match error {
        CallError::Refused(error) => refused(error),
        CallError::TooLarge { .. } => {
            let (field, reason) = ("messages".into(), error.to_string());
            Trouble { error: JobError::Invalid { field, reason }, blame: None, last: true }
        }
        CallError::Stuck { .. } => Trouble { blame: Some(Blame::Model), ..internal(error.to_string()) },
        CallError::Silent { .. } | CallError::Broken(_) | CallError::Nonsense(_) => away(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
