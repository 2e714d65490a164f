//! How fast files are given away.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::blob::Occupied;

/// Hands out time: so many bytes a second for everybody together.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<u64>,
    rate_occupied: u64,
    occupied: Arc<dyn Occupied>,
    /// When the next block may go.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(rate: Option<u64>, rate_occupied: u64, occupied: Arc<dyn Occupied>) -> Self {
        Self { rate, rate_occupied, occupied, next: Mutex::default() }
    }

    /// Waits until so many bytes may go.
    pub(super) async fn take(&self, bytes: u64) {
        if let Some(at) = self.turn(bytes, Instant::now()) {
            sleep_until(at).await;
        }
    }

    /// When so many bytes may go; `None`: at once.
    fn turn(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let rate = match (self.occupied.occupied(), self.rate) {
            (false, rate) => rate?,
            (true, None) => self.rate_occupied,
            (true, Some(rate)) => rate.min(self.rate_occupied),
        };
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.map_or(now, |next| next.max(now));
        let micros = bytes.saturating_mul(1_000_000) / rate.max(1);
        *next = Some(at + Duration::from_micros(micros.min(60_000_000)));
        (at > now).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;

    #[derive(Debug, Default)]
    struct Jobs(AtomicBool);

    impl Occupied for Jobs {
        fn occupied(&self) -> bool {
            self.0.load(Relaxed)
        }
    }

    #[tokio::test]
    async fn copies_are_slow_while_there_are_jobs() {
        let jobs = Arc::new(Jobs::default());
        let pace = Pace::new(None, 1_000_000, jobs.clone());
        let now = Instant::now();
        assert_eq!(pace.turn(1 << 30, now), None);
        jobs.0.store(true, Relaxed);
        assert_eq!(pace.turn(500_000, now), None);
        assert_eq!(pace.turn(500_000, now), Some(now + Duration::from_millis(500)));
        assert_eq!(pace.turn(500_000, now), Some(now + Duration::from_secs(1)));
        jobs.0.store(false, Relaxed);
        assert_eq!(pace.turn(500_000, now), None);
        let slow = Pace::new(Some(100_000), 1_000_000, jobs);
        assert_eq!(slow.turn(100_000, now), None);
        assert_eq!(slow.turn(1, now), Some(now + Duration::from_secs(1)));
    }
}
