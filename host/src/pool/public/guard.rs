//! What a contributor allows strangers to do with this machine.
//!
//! Everything here is refused or ended by the program, not by good manners: how many jobs, from when to when, how
//! many bytes, not on battery, not while the owner works, no prompt with certain words. Switching off ends running
//! jobs at once; a reason that passes ends them at the next piece of their answer, and another provider goes on.

mod senses;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use aho_corasick::AhoCorasick;
use tokio::{sync::watch, time::Instant};

pub use senses::{Hours, HoursError, Senses, System};

use crate::{
    identity::NodeId,
    job::{Input, Job, JobError, Mode},
};

/// How long what the senses said is believed.
const FRESH: Duration = Duration::from_secs(1);
/// When jobs that find no place may come again.
const AGAIN: Duration = Duration::from_secs(5);

/// What a contributor allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Jobs at the same time.
    pub jobs: usize,
    /// Jobs at the same time over one relay.
    pub jobs_per_relay: usize,
    /// Bytes of text a second; `None`: any.
    pub rate: Option<u64>,
    /// When jobs are taken, in local time; empty: always.
    pub hours: Vec<Hours>,
    /// Whether jobs are taken on battery.
    pub battery: bool,
    /// For how long the owner must have left the machine alone; zero: that does not matter.
    pub idle: Duration,
    /// Prompts with these words, in any case, are refused.
    pub refuse: Vec<String>,
    /// Relays that are refused.
    pub relays: Vec<NodeId>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            jobs: 4,
            jobs_per_relay: 4,
            rate: None,
            hours: Vec::new(),
            battery: false,
            idle: Duration::from_secs(30),
            refuse: Vec::new(),
            relays: Vec::new(),
        }
    }
}

struct Inner {
    limits: Limits,
    words: Option<AhoCorasick>,
    senses: Arc<dyn Senses>,
    on: watch::Sender<bool>,
    /// Jobs by relay.
    there: Mutex<HashMap<NodeId, usize>>,
    bucket: Mutex<Bucket>,
    /// What the senses said last.
    seen: Mutex<Option<(Instant, Option<&'static str>)>>,
    /// Milliseconds from `began` to the owner's last request.
    used: AtomicU64,
    ever: AtomicBool,
    began: Instant,
}

#[derive(Debug)]
struct Bucket {
    /// When the next byte may go.
    free_at: Instant,
}

/// Says what strangers may do. Cloning it is cheap.
#[derive(Clone)]
pub struct Guard {
    inner: Arc<Inner>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("limits", &self.inner.limits).finish_non_exhaustive()
    }
}

/// Words that cannot be looked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the words to refuse cannot be looked for: {0}")]
pub struct WordsError(String);

impl Guard {
    /// A guard that is switched off.
    ///
    /// # Errors
    /// [`WordsError`]
    pub fn new(limits: Limits, senses: Arc<dyn Senses>) -> Result<Self, WordsError> {
        let words: Vec<&String> = limits.refuse.iter().filter(|word| !word.trim().is_empty()).collect();
        let words = match words.as_slice() {
            [] => None,
            words => {
                let built = AhoCorasick::builder().ascii_case_insensitive(true).build(words);
                Some(built.map_err(|error| WordsError(error.to_string()))?)
            }
        };
        let now = Instant::now();
        let inner = Inner {
            limits,
            words,
            senses,
            on: watch::channel(false).0,
            there: Mutex::default(),
            bucket: Mutex::new(Bucket { free_at: now }),
            seen: Mutex::default(),
            used: AtomicU64::new(0),
            ever: AtomicBool::new(false),
            began: now,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Switches serving on, or off: then every running job ends at once.
    pub fn switch(&self, on: bool) {
        self.inner.on.send_replace(on);
    }

    /// Whether it is switched on.
    pub fn is_on(&self) -> bool {
        *self.inner.on.borrow()
    }

    /// The owner asked this machine for something.
    pub fn owner_was_here(&self) {
        let since = u64::try_from(self.inner.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.inner.used.store(since, Relaxed);
        self.inner.ever.store(true, Relaxed);
    }

    /// Why no job is taken now, in words; `None`: jobs are taken.
    pub fn trouble(&self) -> Option<&'static str> {
        if !self.is_on() {
            return Some("the public pool is switched off on this machine");
        }
        self.inner.passing()
    }

    /// Jobs that run now.
    pub fn running(&self) -> usize {
        self.inner.there().values().sum()
    }

    /// A place for a stream that a relay opened; `None`: there is none.
    pub fn enter(&self, relay: NodeId) -> Option<Place> {
        let limits = &self.inner.limits;
        if !self.is_on() || limits.relays.contains(&relay) {
            return None;
        }
        let mut there = self.inner.there();
        let mine = there.get(&relay).copied().unwrap_or(0);
        // One more than the jobs, so that there is somebody to tell that there are enough.
        if there.values().sum::<usize>() > limits.jobs || mine > limits.jobs_per_relay {
            return None;
        }
        there.insert(relay, mine.saturating_add(1));
        Some(Place { inner: Arc::clone(&self.inner), relay, left: false })
    }
}

impl Inner {
    fn there(&self) -> MutexGuard<'_, HashMap<NodeId, usize>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reason that passes by itself.
    fn passing(&self) -> Option<&'static str> {
        let idle = self.limits.idle;
        if idle > Duration::ZERO && self.ever.load(Relaxed) {
            let used = Duration::from_millis(self.used.load(Relaxed));
            if self.began.elapsed().saturating_sub(used) < idle {
                return Some("the owner uses this machine");
            }
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, trouble)) = &*seen
            && when.elapsed() < FRESH
        {
            return *trouble;
        }
        let trouble = self.sense();
        *seen = Some((Instant::now(), trouble));
        trouble
    }

    fn sense(&self) -> Option<&'static str> {
        let limits = &self.limits;
        if !limits.hours.is_empty() && !limits.hours.iter().any(|hours| hours.hold(self.senses.minute())) {
            return Some("this machine serves at other hours");
        }
        if !limits.battery && self.senses.on_battery() {
            return Some("this machine runs on battery");
        }
        if limits.idle > Duration::ZERO && self.senses.touched().is_some_and(|ago| ago < limits.idle) {
            return Some("the owner uses this machine");
        }
        None
    }
}

fn off() -> JobError {
    JobError::ShuttingDown
}

/// A job's place on this machine; dropping it gives it back.
pub struct Place {
    inner: Arc<Inner>,
    relay: NodeId,
    left: bool,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("relay", &self.relay).finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Place {
    /// Gives the place back: the job is done, what comes now takes next to nothing.
    pub fn leave(&mut self) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        let mut there = self.inner.there();
        if let Some(count) = there.get_mut(&self.relay) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                there.remove(&self.relay);
            }
        }
    }
}

/// Tells when serving is switched off.
#[derive(Debug)]
pub struct Gate(watch::Receiver<bool>);

impl Gate {
    /// Waits until serving is switched off.
    pub async fn closed(&mut self) -> JobError {
        let _ = self.0.wait_for(|on| !on).await;
        off()
    }
}

impl Place {
    /// Tells when serving is switched off.
    pub fn gate(&self) -> Gate {
        Gate(self.inner.on.subscribe())
    }

    /// Whether a job may run.
    ///
    /// # Errors
    /// [`JobError::Busy`] when another time is better, [`JobError::ModeUnavailable`] for a prompt that is refused.
    pub fn allows(&self, job: &Job) -> Result<(), JobError> {
        let there = self.inner.there();
        let (all, mine) = (there.values().sum::<usize>(), there.get(&self.relay).copied().unwrap_or(0));
        drop(there);
        let limits = &self.inner.limits;
        if all > limits.jobs || mine > limits.jobs_per_relay {
            return Err(JobError::Busy { queued: all.saturating_sub(1), retry_after: AGAIN });
        }
        if let Some(error) = self.yields() {
            return Err(error);
        }
        if let Some(words) = &self.inner.words
            && !readable(&job.input, |text| !words.is_match(text))
        {
            let reason = "this provider does not answer prompts like this one".into();
            return Err(JobError::ModeUnavailable { mode: Mode::Public, reason });
        }
        Ok(())
    }

    /// Why a running job has to end here and go on elsewhere; `None`: it has not.
    pub fn yields(&self) -> Option<JobError> {
        if !*self.inner.on.borrow() {
            return Some(off());
        }
        let trouble = self.inner.passing()?;
        tracing::debug!(trouble, "a public job is not served");
        Some(JobError::Busy { queued: 0, retry_after: AGAIN })
    }

    /// For how long to wait until so many bytes may go. They count as gone.
    pub fn wait(&self, bytes: usize) -> Duration {
        let Some(rate) = self.inner.limits.rate.filter(|rate| *rate > 0) else { return Duration::ZERO };
        let now = Instant::now();
        let mut bucket = self.inner.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let from = bucket.free_at.max(now);
        let micros = (bytes as u64).saturating_mul(1_000_000).checked_div(rate).unwrap_or(0);
        bucket.free_at = from + Duration::from_micros(micros);
        from.saturating_duration_since(now)
    }
}

/// Whether all text of a prompt is fine; token ids cannot be read here and never are.
fn readable(input: &Input, fine: impl Fn(&str) -> bool) -> bool {
    match input {
        Input::Chat { messages, tools, .. } => {
            messages.iter().all(|message| fine(&message.content))
                && tools.iter().all(|tool| fine(&tool.to_string()))
        }
        Input::Text { text, .. } => fine(text),
        Input::Tokens(_) => false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::dispatch::fixture;

    /// Senses that say what they are told.
    #[derive(Debug, Default)]
    pub(crate) struct Told {
        pub(crate) battery: AtomicBool,
        pub(crate) minute: AtomicU64,
        pub(crate) touched: Mutex<Option<Duration>>,
    }

    impl Senses for Told {
        fn on_battery(&self) -> bool {
            self.battery.load(Relaxed)
        }
        fn minute(&self) -> u16 {
            u16::try_from(self.minute.load(Relaxed)).unwrap()
        }
        fn touched(&self) -> Option<Duration> {
            *self.touched.lock().unwrap()
        }
    }

    fn relay(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn guard(change: impl FnOnce(&mut Limits)) -> (Guard, Arc<Told>) {
        let mut limits = Limits::default();
        change(&mut limits);
        let senses = Arc::new(Told::default());
        let guard = Guard::new(limits, senses.clone()).unwrap();
        guard.switch(true);
        (guard, senses)
    }

    #[tokio::test]
    async fn places_are_counted_and_given_back() {
        let (guard, _) = guard(|limits| (limits.jobs, limits.jobs_per_relay) = (2, 1));
        let job = fixture::job(1);
        let first = guard.enter(relay(1)).unwrap();
        assert!(first.allows(&job).is_ok());
        let second = guard.enter(relay(1)).unwrap();
        assert!(matches!(second.allows(&job), Err(JobError::Busy { .. })), "one job of a relay");
        assert!(guard.enter(relay(1)).is_none(), "more are not even read");
        let third = guard.enter(relay(2)).unwrap();
        assert!(
            matches!(third.allows(&job), Err(JobError::Busy { .. })),
            "the busy one counts until it is gone"
        );
        drop(second);
        assert!(third.allows(&job).is_ok());
        drop((first, third));
        assert_eq!(guard.running(), 0);
        let (guard, _) = self::guard(|limits| limits.relays = vec![relay(3)]);
        assert!(guard.enter(relay(3)).is_none() && guard.enter(relay(4)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_owner_comes_first() {
        let (guard, senses) = guard(|_| {});
        let place = guard.enter(relay(1)).unwrap();
        assert_eq!(place.yields(), None);
        guard.owner_was_here();
        assert!(place.yields().is_some());
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(place.yields(), None);
        *senses.touched.lock().unwrap() = Some(Duration::from_secs(3));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(place.yields().is_some());
        *senses.touched.lock().unwrap() = None;
        senses.battery.store(true, Relaxed);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(guard.trouble(), Some("this machine runs on battery"));
        let mut gate = place.gate();
        guard.switch(false);
        assert_eq!(gate.closed().await, JobError::ShuttingDown);
        assert!(guard.enter(relay(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn it_serves_at_its_hours_only() {
        let (guard, senses) = guard(|limits| limits.hours = vec!["22:00-07:30".parse().unwrap()]);
        for (minute, open) in
            [(22 * 60, true), (0, true), (7 * 60 + 29, true), (7 * 60 + 30, false), (1200, false)]
        {
            senses.minute.store(minute, Relaxed);
            tokio::time::advance(Duration::from_secs(2)).await;
            assert_eq!(guard.trouble().is_none(), open, "{minute}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn words_and_bytes_are_limited() {
        let (guard, _) = guard(|limits| {
            limits.refuse = vec!["Secret Weapon".into()];
            limits.rate = Some(1_000);
        });
        let place = guard.enter(relay(1)).unwrap();
        let mut job = fixture::job(1);
        assert!(place.allows(&job).is_ok());
        job.input = Input::Text { text: "my SECRET weapon".into(), special: false };
        assert!(matches!(place.allows(&job), Err(JobError::ModeUnavailable { .. })));
        job.input = Input::Tokens(vec![1]);
        assert!(place.allows(&job).is_err(), "what cannot be read may hold anything");
        assert_eq!(place.wait(500), Duration::ZERO);
        assert_eq!(place.wait(1), Duration::from_millis(500));
    }
}
