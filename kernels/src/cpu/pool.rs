//! A fork-join pool for work of a few microseconds: workers spin for the next job before they sleep.

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker looks for the next job before it sleeps.
const SPIN: Duration = Duration::from_micros(100);

type Job = *const (dyn Fn(usize) + Sync);

/// What the caller and the workers share.
struct State {
    /// Number of the current job.
    epoch: AtomicUsize,
    /// The current job; written before `epoch` is raised, valid until `running` is 0.
    job: UnsafeCell<Option<Job>>,
    /// Workers that have not finished the current job.
    running: AtomicUsize,
    /// Workers that sleep or are about to.
    sleeping: AtomicUsize,
    stop: AtomicBool,
    failure: Mutex<Option<Box<dyn Any + Send>>>,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only while no worker runs (running == 0) and read after the epoch was raised.
unsafe impl Sync for State {}
// SAFETY: the job pointer is only used while the caller that owns the job waits.
unsafe impl Send for State {}

/// Threads that run one closure together with the caller.
pub(crate) struct Pool {
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads, the caller included. Fewer when the system gives no more.
    pub(crate) fn new(threads: usize) -> Self {
        let state = Arc::new(State {
            epoch: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            running: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut workers = Vec::new();
        for index in 1..threads {
            let state = Arc::clone(&state);
            let builder = std::thread::Builder::new().name(format!("potluck-cpu-{index}"));
            match builder.spawn(move || work(&state, index)) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    tracing::warn!(%error, "a compute thread could not be started");
                    break;
                }
            }
        }
        Self { state, workers }
    }

    /// Threads that take part in a job.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(0)` here and `job(1..threads)` on the workers; returns when all are done.
    pub(crate) fn run(&mut self, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            job(0);
            return;
        }
        let state = &*self.state;
        // SAFETY: only the lifetime is erased; `Join` waits for the workers before `job` can go.
        let job_static = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(job) };
        // SAFETY: no worker is running, since the last run waited for all of them.
        unsafe { *state.job.get() = Some(job_static) };
        state.running.store(self.workers.len(), Ordering::Relaxed);
        state.epoch.fetch_add(1, Ordering::SeqCst);
        if state.sleeping.load(Ordering::SeqCst) > 0 {
            let _guard = state.lock.lock().unwrap_or_else(PoisonError::into_inner);
            state.wake.notify_all();
        }
        let join = Join(state);
        job(0);
        drop(join);
        let failure = state.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(failure) = failure {
            resume_unwind(failure);
        }
    }

    /// Runs `job(i)` for every i in `0..units`, taken in turn in steps of `step` by whichever thread is free.
    pub(crate) fn each(
        &mut self,
        units: usize,
        step: usize,
        job: impl Fn(usize, std::ops::Range<usize>) + Sync,
    ) {
        let step = step.max(1);
        if self.workers.is_empty() || units <= step {
            job(0, 0..units);
            return;
        }
        let next = AtomicUsize::new(0);
        self.run(&|thread| {
            loop {
                let start = next.fetch_add(step, Ordering::Relaxed);
                if start >= units {
                    break;
                }
                job(thread, start..(start + step).min(units));
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        self.state.epoch.fetch_add(1, Ordering::SeqCst);
        {
            let _guard = self.state.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.state.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

/// Waits for the workers, even when the caller's share panics.
struct Join<'a>(&'a State);

impl Drop for Join<'_> {
    fn drop(&mut self) {
        let mut turns = 0u32;
        while self.0.running.load(Ordering::Acquire) > 0 {
            // A worker this late has probably lost its core to someone else; it may need this one.
            if turns < 4096 {
                turns += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// A worker's life.
fn work(state: &State, index: usize) {
    let mut seen = 0;
    loop {
        seen = next_epoch(state, seen);
        if state.stop.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the epoch was raised after the job was written, and it stays until `running` is 0.
        if let Some(job) = unsafe { *state.job.get() } {
            // SAFETY: the caller of `run` waits for `running` to reach 0, so the closure is alive.
            let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(index) }));
            if let Err(failure) = outcome {
                *state.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            }
        }
        state.running.fetch_sub(1, Ordering::Release);
    }
}

/// Waits until the epoch is no longer `seen`.
fn next_epoch(state: &State, seen: usize) -> usize {
    let start = Instant::now();
    loop {
        for _ in 0..64 {
            let epoch = state.epoch.load(Ordering::Acquire);
            if epoch != seen {
                return epoch;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > SPIN {
            break;
        }
    }
    let mut guard = state.lock.lock().unwrap_or_else(PoisonError::into_inner);
    state.sleeping.fetch_add(1, Ordering::SeqCst);
    let epoch = loop {
        let epoch = state.epoch.load(Ordering::SeqCst);
        if epoch != seen {
            break epoch;
        }
        guard = state.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
    };
    state.sleeping.fetch_sub(1, Ordering::SeqCst);
    epoch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_runs_once_for_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            let mut pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for units in [0, 1, 7, 100] {
                let counts: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
                pool.each(units, 3, |thread, range| {
                    assert!(thread < threads);
                    range.for_each(|i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn sleeping_workers_wake_up() {
        let mut pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(2));
            let count = AtomicUsize::new(0);
            pool.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), 2);
        }
    }

    #[test]
    fn a_panic_in_a_worker_reaches_the_caller_and_the_pool_survives() {
        let mut pool = Pool::new(2);
        let outcome = catch_unwind(AssertUnwindSafe(|| pool.run(&|thread| assert_eq!(thread, 0))));
        assert!(outcome.is_err());
        pool.run(&|_| {});
    }
}
