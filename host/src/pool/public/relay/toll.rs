//! What a circuit may carry: tolls, the cells they pay for, and how fast.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::Reason;
use crate::mesh::streams::BoxFuture;

/// What a toll pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Cells, both ways together.
    pub cells: u64,
}

/// Takes tolls.
pub trait Tolls: Send + Sync + fmt::Debug {
    /// Takes a toll, at the opening of a circuit or later, and says what it pays for; or why it is not taken, in
    /// words for the requester.
    fn take<'a>(&'a self, toll: &'a [u8]) -> BoxFuture<'a, Result<Budget, String>>;
}

/// Asks for nothing: every toll, also none, pays for so many cells. For a relay that its owner gives away.
#[derive(Clone, Copy, Debug)]
pub struct Gratis(pub u64);

impl Tolls for Gratis {
    fn take<'a>(&'a self, _: &'a [u8]) -> BoxFuture<'a, Result<Budget, String>> {
        let budget = Budget { cells: self.0 };
        Box::pin(async move { Ok(budget) })
    }
}

/// The cells that a circuit has left.
pub(super) struct Meter {
    left: watch::Sender<i64>,
}

impl Meter {
    pub(super) fn new(cells: u64) -> Self {
        Self { left: watch::Sender::new(signed(cells)) }
    }

    pub(super) fn add(&self, cells: u64) {
        self.left.send_modify(|left| *left = left.saturating_add(signed(cells)));
    }

    /// Waits until there is one cell beyond `-credit`, and takes as many as there are, at most `cells`.
    pub(super) async fn spend(&self, cells: u64, credit: u64, patience: Duration) -> Result<u64, Reason> {
        let mut seen = self.left.subscribe();
        let floor = -signed(credit);
        let taking = async {
            loop {
                seen.wait_for(|left| *left > floor).await.map_err(|_| Reason::Unpaid)?;
                let mut taken = 0;
                // Looked at again: the other direction takes from it too.
                self.left.send_if_modified(|left| {
                    taken = left.saturating_sub(floor).clamp(0, signed(cells));
                    *left -= taken;
                    taken > 0
                });
                if let Ok(taken @ 1..) = u64::try_from(taken) {
                    return Ok(taken);
                }
            }
        };
        timeout(patience, taking).await.unwrap_or(Err(Reason::Unpaid))
    }
}

fn signed(cells: u64) -> i64 {
    i64::try_from(cells).unwrap_or(i64::MAX)
}

/// How much of a second may pass at once after a pause.
const BURST: Duration = Duration::from_millis(500);

/// So many cells a second, and half as many at once after a pause.
pub(super) struct Bucket {
    each: Duration,
    /// When all that has passed would have passed at the even rate.
    paid: Mutex<Instant>,
}

impl Bucket {
    pub(super) fn new(rate: u32) -> Self {
        Self { each: Duration::from_secs(1) / rate.max(1), paid: Mutex::new(Instant::now()) }
    }

    /// Waits until `cells` may pass.
    pub(super) async fn take(&self, cells: u32) {
        let paid = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            *paid = (*paid).max(Instant::now()) + self.each * cells;
            *paid
        };
        if let Some(at) = paid.checked_sub(BURST).filter(|at| *at > Instant::now()) {
            sleep_until(at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_lets_a_burst_pass_and_then_its_rate() {
        let bucket = Bucket::new(1_000);
        let began = Instant::now();
        bucket.take(500).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..20 {
            bucket.take(100).await;
        }
        let took = began.elapsed();
        assert!((1_990..=2_010).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_meter_stops_at_its_floor_until_more_is_paid_or_patience_ends() {
        let meter = Meter::new(10);
        let second = Duration::from_secs(1);
        assert_eq!(meter.spend(7, 0, second).await, Ok(7));
        assert_eq!(meter.spend(7, 0, second).await, Ok(3));
        assert_eq!(meter.spend(1, 0, second).await, Err(Reason::Unpaid));
        assert_eq!(meter.spend(9, 5, second).await, Ok(5));
        assert_eq!(meter.spend(1, 5, second).await, Err(Reason::Unpaid));
        let (spent, ()) = tokio::join!(meter.spend(4, 0, second), async { meter.add(6) });
        assert_eq!(spent, Ok(1));
    }
}
