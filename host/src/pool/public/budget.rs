//! What may be spent in a day, in all and by each API key.
//!
//! A job reserves the most that it may cost before anything is paid, and gives back what it did not need. Days are
//! UTC. What was spent is on disk, so that a restart gives nobody a second budget.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use potluck_primitives::MicroCredits;
use serde::{Deserialize, Serialize};

use super::receipts::now_ms;
use crate::job::{JobError, Spend};

const DAY_MS: u64 = 86_400_000;
/// Most bytes of the file.
const MAX_FILE: u64 = 1 << 20;

/// What may be spent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// For one job that does not say.
    pub job: MicroCredits,
    /// In a day, in all.
    pub day: MicroCredits,
    /// In a day by each key; a key that is not named may spend all of it.
    pub keys: BTreeMap<String, MicroCredits>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    day: u64,
    /// Micro-credits of everybody.
    total: u64,
    /// Micro-credits by key.
    keys: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct State {
    spent: Spent,
    /// What running jobs may still cost, in all and by key.
    reserved: u64,
    by_key: BTreeMap<String, u64>,
}

/// Watches over the budgets. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Budgets {
    budget: Arc<Budget>,
    path: Arc<PathBuf>,
    state: Arc<Mutex<State>>,
}

/// What a job may cost. Dropping it gives back what was not spent.
#[derive(Debug)]
pub struct Reservation {
    budgets: Budgets,
    key: Option<String>,
    amount: u64,
    spent: Arc<AtomicU64>,
}

fn today() -> u64 {
    now_ms() / DAY_MS
}

fn amount(amount: MicroCredits) -> u64 {
    u64::try_from(amount.0).unwrap_or(u64::MAX)
}

fn words(amount: u64) -> MicroCredits {
    MicroCredits(amount.into())
}

impl Budgets {
    /// Budgets, with what the file at `path` says was spent today.
    pub fn open(budget: Budget, path: PathBuf) -> Self {
        let small = std::fs::metadata(&path).is_ok_and(|file| file.len() <= MAX_FILE);
        let read = small.then(|| std::fs::read(&path).ok()).flatten();
        let spent = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let state = State { spent, reserved: 0, by_key: BTreeMap::new() };
        Self { budget: Arc::new(budget), path: Arc::new(path), state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.spent.day != today() {
            state.spent = Spent { day: today(), ..Spent::default() };
        }
        state
    }

    /// Sets aside what a job may cost: what it says, at most what is left.
    ///
    /// # Errors
    /// [`JobError::Payment`]: nothing is left.
    pub fn reserve(&self, spend: &Spend) -> Result<Reservation, JobError> {
        let mut state = self.state();
        let wanted = spend.max_price.unwrap_or_else(|| amount(self.budget.job));
        let used = state.spent.total.saturating_add(state.reserved);
        let left = amount(self.budget.day).saturating_sub(used);
        let mut granted = wanted.min(left);
        let own = spend.key.as_ref().and_then(|key| Some((key, amount(*self.budget.keys.get(key)?))));
        if let Some((key, most)) = own {
            let used = state.spent.keys.get(key).copied().unwrap_or(0);
            let reserved = state.by_key.get(key).copied().unwrap_or(0);
            granted = granted.min(most.saturating_sub(used).saturating_sub(reserved));
        }
        if granted == 0 {
            let reason = match own {
                _ if wanted == 0 => "the request may cost nothing; raise x-potluck-max-price".to_owned(),
                Some((key, most)) if left > 0 => format!(
                    "the key `{key}` has spent its {} credits of today; the node's owner can raise its budget",
                    words(most)
                ),
                _ => format!(
                    "today's {} credits for the public pool are spent or set aside for running requests; the node's owner can raise public.day_budget",
                    self.budget.day
                ),
            };
            return Err(JobError::Payment { reason });
        }
        state.reserved = state.reserved.saturating_add(granted);
        if let Some(key) = &spend.key {
            let reserved = state.by_key.entry(key.clone()).or_default();
            *reserved = reserved.saturating_add(granted);
        }
        drop(state);
        let (budgets, key, spent) = (self.clone(), spend.key.clone(), Arc::default());
        Ok(Reservation { budgets, key, amount: granted, spent })
    }

    /// What was spent today, in all and by key.
    pub fn today(&self) -> (MicroCredits, BTreeMap<String, MicroCredits>) {
        let state = self.state();
        let keys = state.spent.keys.iter().map(|(key, spent)| (key.clone(), words(*spent))).collect();
        (words(state.spent.total), keys)
    }

    fn settle(&self, key: Option<&String>, reserved: u64, spent: u64) {
        let mut state = self.state();
        state.reserved = state.reserved.saturating_sub(reserved);
        state.spent.total = state.spent.total.saturating_add(spent);
        if let Some(key) = key {
            if let Some(held) = state.by_key.get_mut(key) {
                *held = held.saturating_sub(reserved);
            }
            let total = state.spent.keys.entry(key.clone()).or_default();
            *total = total.saturating_add(spent);
        }
        if spent == 0 {
            return;
        }
        // A few hundred bytes, once a job; under the lock, so that an older state never follows a newer one.
        let bytes = serde_json::to_vec(&state.spent).unwrap_or_default();
        if let Err(error) = crate::atomic::write(&self.path, |out| out.write_all(&bytes)) {
            tracing::warn!(%error, "what was spent today cannot be written down");
        }
    }
}

impl Reservation {
    /// The most that may be paid.
    pub fn most(&self) -> MicroCredits {
        words(self.amount)
    }

    /// Counts what is paid.
    pub fn spent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.spent)
    }

    /// What was paid so far.
    pub fn total(&self) -> MicroCredits {
        words(self.spent.load(Relaxed))
    }

    /// What may still be paid.
    pub fn left(&self) -> MicroCredits {
        words(self.amount.saturating_sub(self.spent.load(Relaxed)))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budgets.settle(self.key.as_ref(), self.amount, self.spent.load(Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(key: Option<&str>, most: u64) -> Spend {
        Spend { key: key.map(Into::into), max_price: Some(most) }
    }

    #[test]
    fn nobody_spends_more_than_its_budget_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spent.json");
        let keys = BTreeMap::from([("guest".to_owned(), MicroCredits(1_000))]);
        let budget = Budget { job: MicroCredits(400), day: MicroCredits(3_000), keys };
        let budgets = Budgets::open(budget.clone(), path.clone());
        let first = budgets.reserve(&spend(Some("guest"), 700)).unwrap();
        let second = budgets.reserve(&spend(Some("guest"), 700)).unwrap();
        assert_eq!((first.most(), second.most()), (MicroCredits(700), MicroCredits(300)));
        let refused = budgets.reserve(&spend(Some("guest"), 1)).unwrap_err().to_string();
        assert!(refused.contains("guest") && refused.contains("budget"), "{refused}");
        first.spent().fetch_add(650, Relaxed);
        drop((first, second));
        let third = budgets.reserve(&spend(Some("guest"), 700)).unwrap();
        assert_eq!(third.most(), MicroCredits(350));
        drop(third);
        let budgets = Budgets::open(budget, path);
        assert_eq!(budgets.today().0, MicroCredits(650));
        let owner = budgets.reserve(&Spend::default()).unwrap();
        assert_eq!(owner.most(), MicroCredits(400), "what a job may cost that does not say");
        let rest = budgets.reserve(&spend(None, u64::MAX)).unwrap();
        assert_eq!(rest.most(), MicroCredits(1_950));
        assert!(matches!(budgets.reserve(&spend(None, 1)), Err(JobError::Payment { .. })));
    }
}
