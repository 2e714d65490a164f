//! Which models are in memory: loading on first use, unloading what is not used, making room.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    ModelEntry,
    counters::add,
    lease::Lease,
    runner::{Runner, Shared},
};
use crate::job::{JobError, KeepAlive};

/// How long a model waits for others to become idle before its jobs are refused.
const ROOM_WAIT: Duration = Duration::from_secs(60);
/// How often expiry is looked at.
const TICK: Duration = Duration::from_millis(200);

/// What a load ended in.
type Outcome = Option<Result<(), JobError>>;

#[derive(Debug)]
enum Slot {
    Loading { reserved: u64, waiters: Arc<AtomicUsize>, done: watch::Receiver<Outcome> },
    Ready(Arc<Runner>),
}

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<String, Slot>,
    /// Unloaded, but answering their last jobs: bytes, and when they end.
    draining: Vec<(u64, watch::Receiver<bool>)>,
}

/// The keeper of models in memory.
#[derive(Debug)]
pub(super) struct Keeper {
    table: Mutex<Table>,
    shared: Shared,
    budget: u64,
    max_loaded: usize,
    default_keep: KeepAlive,
    stopping: AtomicBool,
    /// Held while room is made, so that two models do not count on the same room.
    room: tokio::sync::Mutex<()>,
}

/// What identifies a model in memory: its file.
fn key(entry: &ModelEntry) -> String {
    entry.path.as_ref().map_or_else(|| entry.name.clone(), |p| p.display().to_string())
}

impl Keeper {
    pub(super) fn new(shared: Shared, budget: u64, max_loaded: usize, default_keep: KeepAlive) -> Self {
        Self {
            table: Mutex::new(Table::default()),
            shared,
            budget,
            max_loaded: max_loaded.max(1),
            default_keep,
            stopping: AtomicBool::new(false),
            room: tokio::sync::Mutex::new(()),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A claim on the model, loaded if need be.
    ///
    /// # Errors
    /// [`JobError::Busy`], [`JobError::ModelUnusable`], [`JobError::ShuttingDown`].
    pub(super) async fn acquire(
        self: &Arc<Self>,
        entry: &ModelEntry,
        keep: Option<KeepAlive>,
    ) -> Result<(Arc<Runner>, Lease, Duration), JobError> {
        let began = Instant::now();
        let mut loaded = Duration::ZERO;
        let keep = keep.unwrap_or(self.default_keep);
        loop {
            let (mut done, _waiting) = match self.look(entry)? {
                Found::Ready(runner, lease) => {
                    runner.keep(keep);
                    return Ok((runner, lease, loaded));
                }
                Found::Loading(done, waiting) => (done, waiting),
            };
            let outcome = match done.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone(),
                Err(_) => Some(Err(JobError::Internal { reason: "loading broke off".into() })),
            };
            if let Some(Err(error)) = outcome {
                return Err(error);
            }
            loaded = began.elapsed();
        }
    }

    /// The model if it is there, else the load that brings it.
    fn look(self: &Arc<Self>, entry: &ModelEntry) -> Result<Found, JobError> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(JobError::ShuttingDown);
        }
        let most = self.shared.most();
        let key = key(entry);
        let mut table = self.table();
        if matches!(table.slots.get(&key), Some(Slot::Ready(runner)) if runner.has_ended()) {
            table.drain(&key);
        }
        match table.slots.get(&key) {
            Some(Slot::Ready(runner)) => {
                let lease = Lease::take(&runner.gauge, most).map_err(|_| {
                    let queued = runner.gauge.waiting.load(Ordering::Relaxed);
                    JobError::Busy { queued, retry_after: runner.gauge.retry_after(self.shared.parallel) }
                })?;
                Ok(Found::Ready(runner.clone(), lease))
            }
            Some(Slot::Loading { waiters, done, .. }) => {
                let waiting = Waiting::join(waiters, most)
                    .ok_or(JobError::Busy { queued: most, retry_after: Duration::from_secs(5) })?;
                Ok(Found::Loading(done.clone(), waiting))
            }
            None => {
                let (report, done) = watch::channel(None);
                let waiters = Arc::new(AtomicUsize::new(1));
                let waiting = Waiting(waiters.clone());
                table.slots.insert(key.clone(), Slot::Loading { reserved: 0, waiters, done: done.clone() });
                drop(table);
                let (keeper, entry) = (self.clone(), entry.clone());
                tokio::spawn(async move {
                    let outcome = keeper.load(&key, entry).await;
                    report.send_replace(Some(outcome));
                });
                Ok(Found::Loading(done, waiting))
            }
        }
    }

    /// Loads a model into its slot; the slot is gone afterwards if that fails.
    async fn load(&self, key: &str, entry: ModelEntry) -> Result<(), JobError> {
        let result = self.bring_in(key, entry).await;
        let mut table = self.table();
        match result {
            Ok(_) if self.stopping.load(Ordering::Acquire) => {
                table.slots.remove(key);
                Err(JobError::ShuttingDown)
            }
            Ok(runner) => {
                table.slots.insert(key.to_owned(), Slot::Ready(runner));
                add(&self.shared.cells.loads, 1);
                Ok(())
            }
            Err(error) => {
                table.slots.remove(key);
                Err(error)
            }
        }
    }

    async fn bring_in(&self, key: &str, entry: ModelEntry) -> Result<Arc<Runner>, JobError> {
        let unusable = |reason: String| JobError::ModelUnusable { model: entry.name.clone(), reason };
        let (loader, asked) = (self.shared.loader.clone(), entry.clone());
        let bytes = tokio::task::spawn_blocking(move || loader.estimate(&asked)).await;
        let bytes = bytes.unwrap_or_else(|_| Err("reading the file broke off".into())).map_err(unusable)?;
        self.make_room(key, &entry, bytes).await?;
        let began = Instant::now();
        let loaded = Runner::start(entry.clone(), bytes, self.default_keep, self.shared.clone()).await;
        let runner =
            loaded.unwrap_or_else(|_| Err("its thread could not be started".into())).map_err(unusable)?;
        tracing::info!(model = entry.name, ms = began.elapsed().as_millis(), "loaded");
        Ok(runner)
    }

    /// Unloads idle models, least recently used first, until `bytes` fit; reserves them.
    async fn make_room(&self, key: &str, entry: &ModelEntry, bytes: u64) -> Result<(), JobError> {
        if bytes > self.budget {
            let (needs, may) = (bytes >> 20, self.budget >> 20);
            let reason = format!(
                "it needs {needs} MiB, more than the {may} MiB that models may take; use a smaller model or a shorter context"
            );
            return Err(JobError::ModelUnusable { model: entry.name.clone(), reason });
        }
        let _turn = self.room.lock().await;
        let began = Instant::now();
        loop {
            let draining = {
                let mut table = self.table();
                if table.has_room(key, bytes, self.budget, self.max_loaded) {
                    if let Some(Slot::Loading { reserved, .. }) = table.slots.get_mut(key) {
                        *reserved = bytes;
                    }
                    return Ok(());
                }
                if table.evict_idle() {
                    continue;
                }
                table.draining.first().map(|(_, ended)| ended.clone())
            };
            if began.elapsed() > ROOM_WAIT || self.stopping.load(Ordering::Acquire) {
                let queued = self.table().slots.len();
                return Err(JobError::Busy { queued, retry_after: Duration::from_secs(10) });
            }
            match draining {
                Some(mut ended) => drop(tokio::time::timeout(TICK, ended.wait_for(|e| *e)).await),
                None => tokio::time::sleep(TICK).await,
            }
        }
    }

    /// All loaded models.
    pub(super) fn runners(&self) -> Vec<Arc<Runner>> {
        let table = self.table();
        let ready = table.slots.values().filter_map(|slot| match slot {
            Slot::Ready(runner) if !runner.has_ended() => Some(runner.clone()),
            _ => None,
        });
        let mut all: Vec<_> = ready.collect();
        all.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
        all
    }

    /// Unloads a model when its jobs are done. False when it is not loaded.
    pub(super) fn unload(&self, entry: &ModelEntry) -> bool {
        self.table().drain(&key(entry))
    }

    /// Unloads what nobody has used for long enough, for as long as the keeper lives.
    pub(super) async fn reap(keeper: std::sync::Weak<Self>) {
        loop {
            let Some(this) = keeper.upgrade() else { return };
            if this.stopping.load(Ordering::Acquire) {
                return;
            }
            {
                let mut table = this.table();
                let expired = table.slots.iter().filter_map(|(key, slot)| match slot {
                    Slot::Ready(r) if r.has_ended() => Some(key.clone()),
                    Slot::Ready(r) if !r.is_busy() && r.expires_in() == Some(Duration::ZERO) => {
                        Some(key.clone())
                    }
                    _ => None,
                });
                for key in expired.collect::<Vec<_>>() {
                    table.drain(&key);
                }
            }
            let idle = this.shared.idle.clone();
            drop(this);
            // A ring means that a lease ended: something may be unloaded at once.
            let _ = tokio::time::timeout(TICK, idle.notified()).await;
        }
    }

    /// Takes no more jobs, waits for running ones, then ends the rest; returns when all threads have ended.
    pub(super) async fn shutdown(&self, grace: Duration) {
        self.stopping.store(true, Ordering::Release);
        let began = Instant::now();
        while began.elapsed() < grace && self.runners().iter().any(|r| r.is_busy()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let runners = self.runners();
        let mut ended: Vec<_> = runners.iter().map(|r| r.ended()).collect();
        for runner in &runners {
            runner.gauge.abort.store(true, Ordering::Release);
        }
        {
            let mut table = self.table();
            ended.extend(table.draining.drain(..).map(|(_, ended)| ended));
            table.slots.clear();
        }
        drop(runners);
        for mut end in ended {
            if tokio::time::timeout(Duration::from_secs(30), end.wait_for(|e| *e)).await.is_err() {
                tracing::warn!("an engine thread did not end in time");
            }
        }
    }
}

enum Found {
    Ready(Arc<Runner>, Lease),
    Loading(watch::Receiver<Outcome>, Waiting),
}

/// A place among those who wait for a load.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn join(waiters: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let add = |n: usize| (n < most).then_some(n + 1);
        waiters.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        Some(Self(waiters.clone()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Table {
    fn has_room(&mut self, key: &str, bytes: u64, budget: u64, most: usize) -> bool {
        self.draining.retain(|(_, ended)| !*ended.borrow() && ended.has_changed().is_ok());
        let taken = self.slots.iter().filter(|(k, _)| *k != key).map(|(_, slot)| match slot {
            Slot::Loading { reserved, .. } => *reserved,
            Slot::Ready(runner) => runner.bytes,
        });
        let taken =
            taken.chain(self.draining.iter().map(|(bytes, _)| *bytes)).fold(bytes, u64::saturating_add);
        // A model that is on its way but has no room yet does not count: it may have to wait for this one.
        let count = self
            .slots
            .iter()
            .filter(|(k, slot)| *k != key && !matches!(slot, Slot::Loading { reserved: 0, .. }));
        taken <= budget && count.count() < most
    }

    /// Unloads the idle model that was used longest ago; those that are to stay for ever come last.
    fn evict_idle(&mut self) -> bool {
        let idle = self.slots.iter().filter_map(|(key, slot)| match slot {
            Slot::Ready(r) if !r.is_busy() => {
                Some((r.keep_alive() == KeepAlive::Forever, r.gauge.last_used(), key.clone()))
            }
            _ => None,
        });
        let Some((_, _, key)) = idle.min() else { return false };
        self.drain(&key)
    }

    fn drain(&mut self, key: &str) -> bool {
        match self.slots.get(key) {
            Some(Slot::Ready(_)) => {}
            _ => return false,
        }
        if let Some(Slot::Ready(runner)) = self.slots.remove(key)
            && !*runner.ended().borrow()
        {
            self.draining.push((runner.bytes, runner.ended()));
        }
        true
    }
}
