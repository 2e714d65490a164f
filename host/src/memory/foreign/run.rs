//! One run of an importer: a thread that calls it, and the iterator that takes what it gives.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
    vec,
};

use wasmtime::{Store, Trap, UpdateDeadline};
use wasmtime_wasi::{I32Exit, ResourceTableError};

use super::{
    bindings,
    bounds::{self, plain},
    component::Importer,
    entry::{Description, Item},
    error::{ForeignError, Stop},
    gate::{self, Reached},
    grant::Grant,
    guest::{Guest, Said},
    limits::Limits,
};

/// Batches that wait to be taken. The guest waits while they do.
const WAITING: usize = 2;
/// How much longer than a call may take the iterator waits for it: a read that blocks (a named pipe in the folder)
/// is not ended by the clock that ends guests.
const GRACE: Duration = Duration::from_secs(5);
/// How long the iterator waits at once.
const LOOK: Duration = Duration::from_secs(1);
/// Most bytes of a reason for an end.
const REASON: usize = 1024;

/// What an importer has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Calls into it.
    pub calls: u64,
    /// Instructions of all calls, in wasmtime's units of fuel.
    pub fuel: u64,
    /// Instructions of the call that had most.
    pub most_fuel: u64,
    /// Memory, in bytes. Guests never give memory back.
    pub memory: usize,
    /// Time of all calls.
    pub time: Duration,
}

/// What the thread tells.
enum Told {
    Label(Description),
    Items(Vec<Item>),
    Stopped(Stop),
}

/// What waiting for a while brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A record or a problem.
    Item(Item),
    /// Nothing yet.
    Waiting,
    /// Nothing any more.
    Over,
}

/// The records and problems of an import, as they are found: as an iterator, or step by step for those who have
/// something to do meanwhile.
///
/// After an error nothing more comes. Dropping it ends the importer.
pub struct Import {
    description: Description,
    receiver: Receiver<Told>,
    batch: vec::IntoIter<Item>,
    longest: Duration,
    pub(super) said: Said,
    gone: Arc<AtomicBool>,
    used: Arc<Mutex<Used>>,
    /// Since when nothing has come.
    since: Option<Instant>,
    over: bool,
    /// Kept until the end: what the guest reads goes away with it.
    _grant: Grant,
}

impl fmt::Debug for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import").field("description", &self.description).finish_non_exhaustive()
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        self.gone.store(true, Relaxed);
    }
}

impl Import {
    /// What the importer says of itself.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What it has used up to now.
    pub fn used(&self) -> Used {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes within a time. A guest that has not come to an end long after it should have (it reads from
    /// something that blocks, where its clock does not reach it) is left behind.
    ///
    /// # Errors
    /// [`ForeignError::Stopped`] when the importer ended early; after it, nothing comes.
    pub fn step(&mut self, patience: Duration) -> Result<Step, ForeignError> {
        if let Some(item) = self.batch.next() {
            return Ok(Step::Item(item));
        }
        if self.over {
            return Ok(Step::Over);
        }
        match self.receive(patience) {
            Some(Told::Items(items)) if !items.is_empty() => {
                self.batch = items.into_iter();
                Ok(self.batch.next().map_or(Step::Waiting, Step::Item))
            }
            Some(Told::Items(_)) => {
                self.over = true;
                Ok(Step::Over)
            }
            Some(Told::Stopped(stop)) => {
                self.over = true;
                Err(self.stopped(stop))
            }
            Some(Told::Label(_)) | None => Ok(Step::Waiting),
        }
    }

    fn stopped(&self, stop: Stop) -> ForeignError {
        ForeignError::Stopped { importer: self.description.name.clone(), stop, said: self.said.text() }
    }

    /// What the thread tells within a time.
    fn receive(&mut self, patience: Duration) -> Option<Told> {
        let since = *self.since.get_or_insert_with(Instant::now);
        match self.receiver.recv_timeout(patience) {
            Ok(told) => {
                self.since = None;
                Some(told)
            }
            Err(RecvTimeoutError::Disconnected) => Some(Told::Items(Vec::new())),
            Err(RecvTimeoutError::Timeout) if since.elapsed() >= self.longest => {
                Some(Told::Stopped(Stop::Time { limit: self.longest }))
            }
            Err(RecvTimeoutError::Timeout) => None,
        }
    }
}

impl Iterator for Import {
    type Item = Result<Item, ForeignError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step(LOOK) {
                Ok(Step::Item(item)) => return Some(Ok(item)),
                Ok(Step::Waiting) => {}
                Ok(Step::Over) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Starts an importer and waits until it has said what it is.
pub(super) fn start(importer: &Importer, grant: Grant) -> Result<Import, ForeignError> {
    let limits = Arc::clone(&importer.limits);
    let guest = Guest::new(grant.folder(), &limits)
        .map_err(|error| ForeignError::Engine(format!("the folder cannot be opened: {error:#}")))?;
    let said = guest.said.clone();
    let gone = Arc::clone(&guest.gone);
    let used = Arc::clone(&guest.used);
    let (sender, receiver) = sync_channel(WAITING);
    let (name, pre) = (grant.name().to_owned(), importer.clone());
    let work = move || {
        let outcome = Run::new(&pre, guest).and_then(|mut run| run.work(&name, &sender));
        if let Err(stop) = outcome {
            // Whoever is gone needs no reason.
            let _ = sender.send(Told::Stopped(stop));
        }
    };
    let failed = |stop, said| ForeignError::Stopped { importer: importer.agent("of the hash"), stop, said };
    thread::Builder::new()
        .name("importer".into())
        .stack_size(gate::THREAD_STACK)
        .spawn(work)
        .map_err(|error| failed(Stop::Thread(error.to_string()), String::new()))?;
    let description = Description {
        name: importer.agent("of the hash"),
        version: String::new(),
        summary: String::new(),
        licence: String::new(),
    };
    let longest = limits.call.saturating_add(GRACE);
    let mut import = Import {
        description,
        receiver,
        batch: Vec::new().into_iter(),
        longest,
        said,
        gone,
        used,
        since: None,
        over: false,
        _grant: grant,
    };
    loop {
        match import.receive(LOOK) {
            Some(Told::Label(description)) => {
                import.description = description;
                return Ok(import);
            }
            Some(Told::Stopped(stop)) => return Err(import.stopped(stop)),
            Some(Told::Items(_)) => return Err(import.stopped(Stop::Crash("it said nothing".into()))),
            None => {}
        }
    }
}

/// The guest and what it has used.
struct Run {
    store: Store<Guest>,
    guest: bindings::Importer,
    limits: Arc<Limits>,
    items: u64,
    texts: u64,
}

impl Run {
    fn new(importer: &Importer, guest: Guest) -> Result<Self, Stop> {
        let limits = Arc::clone(&importer.limits);
        let mut store = Store::new(importer.pre.engine(), guest);
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(limits.batch);
        store.epoch_deadline_callback(|store| {
            let guest = store.data();
            let late = guest.gone.load(Relaxed) || guest.deadline.is_some_and(|at| Instant::now() >= at);
            if late { Err(Trap::Interrupt.into()) } else { Ok(UpdateDeadline::Continue(1)) }
        });
        let pre = &importer.pre;
        let guest = call(&mut store, &limits, |store| pre.instantiate(store))?;
        Ok(Self { store, guest, limits, items: 0, texts: 0 })
    }

    fn work(&mut self, name: &str, to: &SyncSender<Told>) -> Result<(), Stop> {
        let label = self.call(|guest, store| guest.call_describe(store))?;
        let mut wanted = to.send(Told::Label(bounds::description(label)?)).is_ok();
        self.call(|guest, store| guest.call_open(store, name))?
            .map_err(|reason| Stop::Refused(plain(&reason, REASON)))?;
        while wanted {
            let batch = self.call(|guest, store| guest.call_next(store))?;
            let items = bounds::batch(batch.map_err(|reason| Stop::Failed(plain(&reason, REASON)))?)?;
            self.count(&items)?;
            let over = items.is_empty();
            wanted = to.send(Told::Items(items)).is_ok() && !over;
        }
        Ok(())
    }

    fn call<T>(
        &mut self,
        work: impl FnOnce(&bindings::Importer, &mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<T, Stop> {
        let guest = &self.guest;
        call(&mut self.store, &self.limits, |store| work(guest, store))
    }

    /// Counts what was given, so that an importer that never ends does not fill the memory.
    fn count(&mut self, items: &[Item]) -> Result<(), Stop> {
        for item in items {
            self.items += 1;
            if let Item::Entry(entry) = item {
                self.texts += entry.content.len() as u64;
            }
        }
        for (what, count, most) in [
            ("records and problems", self.items, self.limits.items),
            ("bytes", self.texts, self.limits.texts),
        ] {
            if count > most {
                return Err(Stop::Flood { what, most });
            }
        }
        Ok(())
    }
}

/// Calls the guest with new fuel, until the earlier of the call's deadline and that of all calls.
fn call<T>(
    store: &mut Store<Guest>,
    limits: &Limits,
    work: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
) -> Result<T, Stop> {
    let usage = Arc::clone(&store.data().used);
    let used = || usage.lock().unwrap_or_else(PoisonError::into_inner);
    let left = limits.total.saturating_sub(used().time);
    let time = left.min(limits.call);
    let begun = Instant::now();
    store.data_mut().deadline = begun.checked_add(time);
    store.set_epoch_deadline(1);
    let outcome = store.set_fuel(limits.fuel).and_then(|()| work(store));
    let fuel = limits.fuel.saturating_sub(store.get_fuel().unwrap_or_default());
    let mut used = used();
    used.calls += 1;
    used.fuel = used.fuel.saturating_add(fuel);
    used.most_fuel = used.most_fuel.max(fuel);
    used.memory = store.data().memory.used;
    used.time += begun.elapsed();
    let limit = if left < limits.call { limits.total } else { limits.call };
    outcome.map_err(|error| reason(&error, store.data(), limits, limit))
}

/// Why a call failed.
fn reason(error: &wasmtime::Error, guest: &Guest, limits: &Limits, limit: Duration) -> Stop {
    if let Some(I32Exit(status)) = error.downcast_ref() {
        return Stop::Exit { status: *status };
    }
    match error.downcast_ref() {
        Some(Trap::OutOfFuel) => return Stop::Fuel { fuel: limits.fuel },
        Some(Trap::Interrupt) => return Stop::Time { limit },
        _ => {}
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return Stop::Handles { most: limits.handles };
    }
    if let Some(Reached(function)) = error.downcast_ref() {
        return Stop::Network { function: plain(function, 200) };
    }
    if format!("{error:#}").contains(TOO_MUCH) {
        return Stop::Bytes { most: limits.batch };
    }
    if guest.memory.refused {
        return Stop::Memory { most: limits.memory };
    }
    Stop::Crash(plain(&error.root_cause().to_string(), REASON))
}

/// Words of wasmtime's error when a call gives more than the fuel of host calls allows.
const TOO_MUCH: &str = "fuel allocated for hostcalls has been exhausted";
