//! The policies that decide for one pool, and what happens when they fail.
//!
//! A set is never changed: a swap puts another one in its place, while calls that have begun finish with the policy
//! they began with. What failed to decide falls back to what is safe: routing to the native order, pricing to a refusal
//! of the job, slashing to no verdict. A policy that fails again and again is set aside until somebody chooses anew.

mod active;
mod event;
mod follow;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::broadcast;

pub use active::Active;
pub use event::Event;
pub use follow::follow;

use super::{
    CallError, Decided, Kind, Native, Policy, PolicyHash,
    metrics::Reading,
    types::{Candidate, Evidence, Hardware, Input, Job, Market, Output, Price, Ranking, Verdict},
};

/// Events that a listener may lag behind before it misses some.
const EVENTS: usize = 64;

/// How a set of policies behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoliciesConfig {
    /// Failures in a row after which a policy is set aside.
    pub failures: u32,
}

impl Default for PoliciesConfig {
    fn default() -> Self {
        Self { failures: 5 }
    }
}

/// Who made a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decider {
    /// A policy.
    Policy(PolicyHash),
    /// The native order, since no policy decided.
    Native(NoDecision),
}

/// An order of candidates, and who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The order.
    pub ranking: Ranking,
    /// Who made it.
    pub by: Decider,
    /// How long it took.
    pub took: Duration,
}

/// Why no policy decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDecision {
    /// There is none.
    #[error("no {0} policy is active; choose one with `potluck policy use`, or propose one to the pool")]
    None(Kind),
    /// It failed too often.
    #[error(
        "the policy {0} failed too often and was set aside; go back to the one before with `potluck policy rollback`"
    )]
    Aside(PolicyHash),
    /// It failed this time.
    #[error("{0}")]
    Failed(#[from] CallError),
}

/// A policy in the set, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// What it decides.
    pub kind: Kind,
    /// Which policy.
    pub hash: PolicyHash,
    /// Its name, as it says itself.
    pub name: String,
    /// Who chose it.
    pub by: String,
    /// Since when it decides, in milliseconds since 1970.
    pub from_ms: u64,
    /// Whether it was set aside.
    pub aside: bool,
    /// What was counted.
    pub reading: Reading,
}

/// The policies at one moment.
#[derive(Clone, Debug, Default)]
struct Set {
    routing: Option<Arc<Active>>,
    pricing: Option<Arc<Active>>,
    slashing: Option<Arc<Active>>,
}

impl Set {
    const fn get(&self, kind: Kind) -> &Option<Arc<Active>> {
        match kind {
            Kind::Routing => &self.routing,
            Kind::Pricing => &self.pricing,
            Kind::Slashing => &self.slashing,
        }
    }

    const fn get_mut(&mut self, kind: Kind) -> &mut Option<Arc<Active>> {
        match kind {
            Kind::Routing => &mut self.routing,
            Kind::Pricing => &mut self.pricing,
            Kind::Slashing => &mut self.slashing,
        }
    }
}

/// What a change needs to know of earlier ones.
#[derive(Debug, Default)]
struct History {
    /// For each kind that was changed, what decided before; `None` in it: the native default.
    previous: Vec<(Kind, Option<Arc<Active>>)>,
    /// Approvals that somebody went back from: they are not taken up again by themselves.
    skipped: Vec<(Kind, PolicyHash, u64)>,
}

/// Most approvals that are remembered as skipped.
const MAX_SKIPPED: usize = 64;

/// The policies of one pool. Cloning it is cheap, and clones are the same set.
#[derive(Clone, Debug)]
pub struct Policies {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    scope: String,
    config: PoliciesConfig,
    native: Arc<dyn Native>,
    set: ArcSwap<Set>,
    history: Mutex<History>,
    events: broadcast::Sender<Event>,
}

impl Policies {
    /// An empty set for a pool: everything is decided natively, or not at all.
    pub fn new(scope: impl Into<String>, config: PoliciesConfig, native: Arc<dyn Native>) -> Self {
        let inner = Inner {
            scope: scope.into(),
            config,
            native,
            set: ArcSwap::default(),
            history: Mutex::default(),
            events: broadcast::channel(EVENTS).0,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The pool it belongs to.
    pub fn scope(&self) -> &str {
        &self.inner.scope
    }

    /// What happens to the set from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// What decides about something now, also when it was set aside.
    pub fn active(&self, kind: Kind) -> Option<Arc<Active>> {
        self.inner.set.load().get(kind).clone()
    }

    /// All policies of the set, for people and metrics.
    pub fn standing(&self) -> Vec<Standing> {
        let set = self.inner.set.load();
        Kind::ALL
            .into_iter()
            .filter_map(|kind| set.get(kind).as_ref())
            .map(|active| active.standing())
            .collect()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.inner.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) {
        tracing::info!(scope = %self.inner.scope, %event, "policies");
        // Nobody needs to listen.
        let _ = self.inner.events.send(event);
    }

    /// Puts an entry in its place. The caller holds the history, so that changes come one after the other.
    fn put(&self, kind: Kind, entry: Option<Arc<Active>>) -> Option<Arc<Active>> {
        let mut set = Set::clone(&self.inner.set.load());
        let before = std::mem::replace(set.get_mut(kind), entry);
        self.inner.set.store(Arc::new(set));
        before
    }

    /// Lets a policy decide from now on about what it is for. Calls in flight finish with the one before. Choosing a
    /// policy again that was set aside gives it another chance.
    pub fn activate(&self, policy: Arc<Policy>, by: impl Into<String>, from_ms: u64) {
        let (kind, hash, by) = (policy.kind(), policy.hash(), by.into());
        let entry = Arc::new(Active::new(policy, by.clone(), from_ms));
        let mut history = self.history();
        history.skipped.retain(|skipped| *skipped != (kind, hash, from_ms));
        let before = self.put(kind, Some(entry));
        let replaced = before.as_ref().map(|active| active.hash());
        if replaced != Some(hash) {
            history.remember(kind, before);
        }
        drop(history);
        self.tell(Event::Activated { kind, hash, by, from_ms, replaced });
    }

    /// Lets no policy decide about something from now on.
    pub fn deactivate(&self, kind: Kind) {
        let mut history = self.history();
        let Some(before) = self.put(kind, None) else { return };
        let hash = before.hash();
        history.remember(kind, Some(before));
        drop(history);
        self.tell(Event::Deactivated { kind, hash });
    }

    /// Goes back to what decided before, once. What is left behind is not taken up again by its old approval. Returns
    /// what decides now; `None` in it: the native default.
    ///
    /// # Errors
    /// [`NothingBefore`]: nothing was changed since the start or since the last time.
    pub fn rollback(&self, kind: Kind) -> Result<Option<PolicyHash>, NothingBefore> {
        let mut history = self.history();
        let before = history.previous.iter().position(|(of, _)| *of == kind);
        let (_, entry) = history.previous.swap_remove(before.ok_or(NothingBefore(kind))?);
        let to = entry.as_ref().map(|active| active.hash());
        let from = self.put(kind, entry);
        if let Some(from) = &from {
            history.skip(kind, from.hash(), from.from_ms());
        }
        drop(history);
        self.tell(Event::RolledBack { kind, from: from.map(|active| active.hash()), to });
        Ok(to)
    }

    fn is_skipped(&self, kind: Kind, hash: PolicyHash, from_ms: u64) -> bool {
        self.history().skipped.contains(&(kind, hash, from_ms))
    }

    /// The policy that can be asked now.
    fn asked(&self, kind: Kind) -> Result<Arc<Active>, NoDecision> {
        let active = self.active(kind).ok_or(NoDecision::None(kind))?;
        if active.is_aside() { Err(NoDecision::Aside(active.hash())) } else { Ok(active) }
    }

    /// Counts a failure, and sets the policy aside when it was one too many.
    fn count(&self, active: &Active, error: &CallError, took: Duration) {
        if let Some(failures) = active.failed(error, took, self.inner.config.failures) {
            let (kind, hash, error) = (active.kind(), active.hash(), error.to_string());
            self.tell(Event::SetAside { kind, hash, failures, error });
        }
    }

    /// Orders candidates: by the routing policy, or natively where there is none or it fails. Never fails.
    pub fn rank(&self, job: &Job, candidates: &[Candidate], now: u64, seed: u64) -> Routed {
        let start = Instant::now();
        let asked = self.asked(Kind::Routing).and_then(|active| {
            match active.policy().rank_counted(job, candidates, now, seed) {
                Ok(ranked) => {
                    active.decided(ranked.fuel, ranked.took, ranked.warm);
                    Ok((ranked.ranking, active.hash()))
                }
                Err(error) => {
                    self.count(&active, &error, start.elapsed());
                    Err(error.into())
                }
            }
        });
        let (ranking, by) = match asked {
            Ok((ranking, hash)) => (ranking, Decider::Policy(hash)),
            Err(why) => (self.inner.native.rank(job, candidates, now, seed), Decider::Native(why)),
        };
        Routed { ranking, by, took: start.elapsed() }
    }

    /// Decides in a fresh instance, so that others come to the same bytes. For routing there is no native fallback
    /// here: what others execute again must be the policy's.
    ///
    /// # Errors
    /// [`NoDecision`]. A refusal in words is an output.
    pub fn decide(&self, input: &Input) -> Result<(Decided, PolicyHash), NoDecision> {
        let start = Instant::now();
        let active = self.asked(input.kind())?;
        match active.policy().decide(input) {
            Ok(decided) => {
                active.decided(decided.fuel, decided.took, false);
                Ok((decided, active.hash()))
            }
            Err(error) => {
                self.count(&active, &error, start.elapsed());
                Err(error.into())
            }
        }
    }

    /// The price of a job on one machine, and the policy that set it. An error means that the job is not taken.
    ///
    /// # Errors
    /// [`NoDecision`], the policy's refusal in words included.
    pub fn quote(
        &self,
        job: &Job,
        hardware: &Hardware,
        market: &Market,
        now: u64,
    ) -> Result<(Price, PolicyHash), NoDecision> {
        let (job, hardware, market) = (job.clone(), hardware.clone(), market.clone());
        let (decided, hash) = self.decide(&Input::Pricing { job, hardware, market, now })?;
        match decided.output {
            Output::Pricing(Ok(price)) => Ok((price, hash)),
            other => Err(refused(&other, Kind::Pricing)),
        }
    }

    /// The verdict in a case, and the policy that gave it. An error means that there is no verdict.
    ///
    /// # Errors
    /// [`NoDecision`], the policy's refusal in words included.
    pub fn judge(&self, evidence: &Evidence, now: u64) -> Result<(Verdict, PolicyHash), NoDecision> {
        let (decided, hash) = self.decide(&Input::Slashing { evidence: evidence.clone(), now })?;
        match decided.output {
            Output::Slashing(Ok(verdict)) => Ok((verdict, hash)),
            other => Err(refused(&other, Kind::Slashing)),
        }
    }
}

fn refused(output: &Output, asked: Kind) -> NoDecision {
    let error = match output.refusal() {
        Some(words) => CallError::Refused(words.to_owned()),
        None => CallError::WrongKind { policy: output.kind(), asked },
    };
    NoDecision::Failed(error)
}

/// There is nothing to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no earlier {0} policy to go back to; choose one with `potluck policy use`")]
pub struct NothingBefore(pub Kind);

impl History {
    fn remember(&mut self, kind: Kind, before: Option<Arc<Active>>) {
        self.previous.retain(|(of, _)| *of != kind);
        self.previous.push((kind, before));
    }

    fn skip(&mut self, kind: Kind, hash: PolicyHash, from_ms: u64) {
        if self.skipped.len() >= MAX_SKIPPED {
            self.skipped.remove(0);
        }
        self.skipped.push((kind, hash, from_ms));
    }
}
