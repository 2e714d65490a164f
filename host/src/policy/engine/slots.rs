use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Counts instances, so that the pool is never asked for more than it has: callers wait for their turn instead.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Mutex<u32>,
    freed: Condvar,
}

impl Slots {
    pub(crate) const fn new(slots: u32) -> Self {
        Self { free: Mutex::new(slots), freed: Condvar::new() }
    }

    fn free(&self) -> MutexGuard<'_, u32> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot, as soon as one is free; `None` when that takes longer than `patience`.
    pub(crate) fn take(&self, patience: Duration) -> Option<()> {
        let mut free = self.free();
        if *free == 0 {
            let wait = self.freed.wait_timeout_while(free, patience, |free| *free == 0);
            free = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        *free = free.checked_sub(1)?;
        Some(())
    }

    /// A slot, if one is free now.
    pub(crate) fn try_take(&self) -> Option<()> {
        let mut free = self.free();
        *free = free.checked_sub(1)?;
        Some(())
    }

    pub(crate) fn give(&self) {
        *self.free() += 1;
        self.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_waited_for_and_no_longer_than_asked() {
        let slots = Slots::new(1);
        assert!(slots.take(Duration::ZERO).is_some());
        assert!(slots.take(Duration::from_millis(1)).is_none());
        assert!(slots.try_take().is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| slots.take(Duration::from_secs(20)));
            slots.give();
            assert!(waiting.join().unwrap().is_some());
        });
    }
}
