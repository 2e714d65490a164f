//! Instances that answer more than once, for routing: making one costs more than asking it.
//!
//! An instance is used by one caller at a time, for a bounded number of calls, and thrown away when anything goes
//! wrong. Nothing of an earlier call may show in a later answer; some answers are therefore computed again in a fresh
//! instance, and a policy that answers otherwise gets fresh ones only from then on.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use wasmtime::Store;

use super::{
    CallError, Engine,
    abi::{Guest, Program},
    component::Answer,
    engine::{WarmPlace, limits::Limits},
};

struct Instance {
    store: Store<Limits>,
    guest: Guest,
    calls: u32,
    /// Last, so that the store has given its memory back before another takes the place.
    _place: WarmPlace,
}

#[derive(Default)]
struct Shelf {
    idle: Vec<Instance>,
    /// All that exist, those in use included.
    made: u32,
}

/// The warm instances of one policy.
#[derive(Default)]
pub(super) struct Warm {
    shelf: Mutex<Shelf>,
    off: AtomicBool,
    answers: AtomicU32,
}

impl fmt::Debug for Warm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shelf = self.shelf();
        f.debug_struct("Warm").field("made", &shelf.made).field("idle", &shelf.idle.len()).finish()
    }
}

impl Warm {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_on(&self) -> bool {
        !self.off.load(Ordering::Relaxed)
    }

    /// No warm answers from now on.
    pub(super) fn switch_off(&self) {
        self.off.store(true, Ordering::Relaxed);
        let idle = std::mem::take(&mut self.shelf().idle);
        let mut shelf = self.shelf();
        shelf.made = shelf.made.saturating_sub(u32::try_from(idle.len()).unwrap_or(u32::MAX));
    }

    /// Whether this answer is one of those that are computed again.
    pub(super) fn is_due(&self, every: u32) -> bool {
        every != 0 && self.answers.fetch_add(1, Ordering::Relaxed) % every == every - 1
    }

    /// Asks a warm instance; `None`: there is none, or it failed.
    pub(super) fn ask(
        &self,
        engine: &Engine,
        program: &Program,
        ask: &impl Fn(&Guest, &mut Store<Limits>) -> wasmtime::Result<Option<Answer>>,
        check: &impl Fn(&Answer) -> Result<(), CallError>,
    ) -> Option<(Answer, u64)> {
        let mut instance = self.take(engine, program)?;
        let asked = engine.refill(&mut instance.store).ok().and_then(|()| {
            let answer = ask(&instance.guest, &mut instance.store).ok().flatten()?;
            check(&answer).ok().map(|()| answer)
        });
        let fuel = engine.burnt(&instance.store);
        instance.calls += 1;
        let fit = asked.is_some() && instance.calls < engine.config().warm_calls && self.is_on();
        let mut shelf = self.shelf();
        if fit {
            shelf.idle.push(instance);
        } else {
            shelf.made = shelf.made.saturating_sub(1);
            drop(shelf);
            drop(instance);
        }
        asked.map(|answer| (answer, fuel))
    }

    fn take(&self, engine: &Engine, program: &Program) -> Option<Instance> {
        let mut shelf = self.shelf();
        if let Some(instance) = shelf.idle.pop() {
            return Some(instance);
        }
        if shelf.made >= engine.config().warm_of_one {
            return None;
        }
        let place = engine.warm_place()?;
        shelf.made += 1;
        drop(shelf);
        let made = Self::make(engine, program, place);
        if made.is_none() {
            let mut shelf = self.shelf();
            shelf.made = shelf.made.saturating_sub(1);
        }
        made
    }

    fn make(engine: &Engine, program: &Program, place: WarmPlace) -> Option<Instance> {
        let mut store = engine.store().ok()?;
        let guest = program.instantiate(&mut store).ok()?;
        Some(Instance { store, guest, calls: 0, _place: place })
    }
}
