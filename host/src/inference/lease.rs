//! Who uses a loaded model: what the queue limit, the keep-alive and the metrics look at.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// What one loaded model is doing.
#[derive(Debug)]
pub(super) struct Gauge {
    /// Jobs that hold a lease: being prepared, waiting or being answered.
    pub(super) leased: AtomicUsize,
    /// Jobs in the engine.
    pub(super) active: AtomicUsize,
    /// Jobs that wait for a place in it.
    pub(super) waiting: AtomicUsize,
    /// Set when everything must end now.
    pub(super) abort: AtomicBool,
    /// Set when the engine failed: nothing more is given to it.
    pub(super) broken: AtomicBool,
    /// Smoothed time of a job in the engine, in milliseconds.
    job_ms: AtomicU64,
    last_used: Mutex<Instant>,
    /// Rung whenever a lease ends.
    idle: Arc<Notify>,
}

impl Gauge {
    pub(super) fn new(idle: Arc<Notify>) -> Self {
        Self {
            leased: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            abort: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            job_ms: AtomicU64::new(0),
            last_used: Mutex::new(Instant::now()),
            idle,
        }
    }

    /// When the last lease began or ended.
    pub(super) fn last_used(&self) -> Instant {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn touch(&self) {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Notes how long a job was in the engine.
    pub(super) fn note_job(&self, time: Duration) {
        let new = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let old = self.job_ms.load(Ordering::Relaxed);
        let smooth = if old == 0 { new } else { old - old / 4 + new / 4 };
        self.job_ms.store(smooth, Ordering::Relaxed);
    }

    /// When a refused caller may find room: one place frees every `job / parallel`.
    pub(super) fn retry_after(&self, parallel: usize) -> Duration {
        let job = Duration::from_millis(self.job_ms.load(Ordering::Relaxed).max(1000));
        (job / u32::try_from(parallel.max(1)).unwrap_or(u32::MAX))
            .clamp(Duration::from_secs(1), Duration::from_secs(120))
    }
}

/// A job's claim on a loaded model. Dropping it ends the claim.
#[derive(Debug)]
pub(super) struct Lease {
    gauge: Arc<Gauge>,
}

impl Lease {
    /// A claim, unless `limit` jobs have one already; then their number.
    pub(super) fn take(gauge: &Arc<Gauge>, limit: usize) -> Result<Self, usize> {
        let add = |n: usize| (n < limit).then_some(n + 1);
        gauge.leased.fetch_update(Ordering::AcqRel, Ordering::Acquire, add)?;
        gauge.touch();
        Ok(Self { gauge: gauge.clone() })
    }

    pub(super) fn gauge(&self) -> &Gauge {
        &self.gauge
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.gauge.touch();
        self.gauge.leased.fetch_sub(1, Ordering::AcqRel);
        self.gauge.idle.notify_one();
    }
}
