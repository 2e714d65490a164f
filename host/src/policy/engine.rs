//! The engine that all policies run in: one per process.
//!
//! Its settings leave nothing for an answer to depend on but the arguments: no NaN has more than one form, no thread
//! shares memory, no instruction set shines through, and a call that meets a limit ends instead of learning of it.
//! A call is bounded by fuel, which is the same on every machine; the clock only stops what fuel should have.

pub(crate) mod limits;
mod slots;
mod ticker;

use std::{
    collections::HashMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use wasmtime::{
    Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Store, Trap, WasmFeatures,
    component::{Component, Linker},
};

use self::{
    limits::{Grew, Limits},
    slots::Slots,
    ticker::Ticker,
};
use super::{
    CallError, LoadError, Policy, PolicyHash,
    abi::Program,
    cache::{Cache, CacheConfig},
    check, golden,
};

/// Largest component, in bytes.
pub const MAX_COMPONENT: usize = 1 << 20;

/// Bounds of the engine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Fuel of one call, about one unit for one WebAssembly instruction and one for each byte moved in bulk.
    pub fuel: u64,
    /// How often the clock is looked at.
    pub tick: Duration,
    /// After how long by the clock a call is stopped. Very generous: fuel stops whatever a guest can do within a
    /// fraction of a second of computing, so the clock only stops what fuel should have, and a machine that is
    /// overloaded shall not make a good policy fail.
    pub deadline: Duration,
    /// Bytes of memory of one instance.
    pub memory: usize,
    /// Bytes of stack of one call.
    pub stack: usize,
    /// Bytes that one answer may have.
    pub answer: usize,
    /// Instances that may be in use at the same time, not counting warm ones.
    pub slots: u32,
    /// Warm instances of all policies together.
    pub warm: u32,
    /// Warm instances of one policy.
    pub warm_of_one: u32,
    /// Calls after which a warm instance is replaced.
    pub warm_calls: u32,
    /// One of so many warm answers is computed again in a fresh instance and compared; 0: none.
    pub compare_every: u32,
    /// For how long a caller waits for an instance.
    pub patience: Duration,
    /// Compile for the oldest processor of this architecture instead of this machine's. Slower, and the answers are
    /// the same: that is what it is there to show.
    pub baseline: bool,
    /// Where compiled code is kept; `None`: nowhere, it is compiled at each start.
    pub cache: Option<CacheConfig>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            fuel: 10_000_000,
            tick: Duration::from_millis(10),
            deadline: Duration::from_secs(5),
            memory: 8 << 20,
            stack: 256 << 10,
            answer: 256 << 10,
            slots: 64,
            warm: 32,
            warm_of_one: 8,
            warm_calls: 1000,
            compare_every: 256,
            patience: Duration::from_millis(500),
            baseline: false,
            cache: None,
        }
    }
}

impl EngineConfig {
    /// The deadline in ticks.
    fn deadline_ticks(&self) -> u64 {
        let ticks = self.deadline.as_nanos().div_ceil(self.tick.as_nanos().max(1));
        // A tick may come right after the call has begun.
        u64::try_from(ticks).unwrap_or(u64::MAX / 2).saturating_add(1)
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A setting that cannot be.
    #[error("the policy engine cannot start, since {0}; correct it in the configuration")]
    Setting(&'static str),
    /// The engine refused its settings, or could not reserve its memory.
    #[error("the policy engine cannot start: {0}; this machine may lack address space or a needed feature")]
    Start(String),
    /// No thread.
    #[error("the policy engine cannot start its clock: {0}")]
    Ticker(#[source] io::Error),
    /// No cache.
    #[error("the folder for compiled policies cannot be used: {0}; choose another or switch the cache off")]
    Cache(#[source] io::Error),
}

/// Loads policies and runs them. Cloning it is cheap.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    wasm: wasmtime::Engine,
    linker: Linker<Limits>,
    config: EngineConfig,
    ticks: u64,
    slots: Slots,
    warm: Slots,
    cache: Option<Cache>,
    /// Policies that are in use, so that one that two pools approve is there once. Locked while one is loaded: code of
    /// strangers is compiled one component at a time.
    loaded: Mutex<HashMap<PolicyHash, Weak<Policy>>>,
    _ticker: Ticker,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the engine and its clock.
    ///
    /// # Errors
    /// [`EngineError`]: a setting that cannot be, no address space, or no cache folder.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        check_config(&config)?;
        let start = |error: wasmtime::Error| EngineError::Start(format!("{error:#}"));
        let wasm = wasmtime::Engine::new(&settings(&config).map_err(start)?).map_err(start)?;
        let ticker = Ticker::start(&wasm, config.tick).map_err(EngineError::Ticker)?;
        let cache = config.cache.as_ref().map(|cache| Cache::open(cache, &wasm)).transpose();
        let inner = Inner {
            linker: Linker::new(&wasm),
            ticks: config.deadline_ticks(),
            slots: Slots::new(config.slots),
            warm: Slots::new(config.warm),
            cache: cache.map_err(EngineError::Cache)?,
            loaded: Mutex::default(),
            _ticker: ticker,
            wasm,
            config,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Checks a component, compiles it and tries it with vectors. Takes some hundred milliseconds and blocks: call it
    /// where that is fine. A policy that is in use already is returned as it is.
    ///
    /// # Errors
    /// [`LoadError`]: what is wrong with it.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Policy>, LoadError> {
        if bytes.len() > MAX_COMPONENT {
            return Err(LoadError::Large { size: bytes.len(), most: MAX_COMPONENT });
        }
        let hash = PolicyHash::of(bytes);
        let mut loaded = self.loaded();
        if let Some(policy) = loaded.get(&hash).and_then(Weak::upgrade) {
            return Ok(policy);
        }
        let policy = Arc::new(self.load_new(bytes, hash)?);
        loaded.retain(|_, policy| policy.strong_count() > 0);
        loaded.insert(hash, Arc::downgrade(&policy));
        Ok(policy)
    }

    fn loaded(&self) -> MutexGuard<'_, HashMap<PolicyHash, Weak<Policy>>> {
        self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load_new(&self, bytes: &[u8], hash: PolicyHash) -> Result<Policy, LoadError> {
        let found = check::check(bytes, self.features(), self.inner.config.memory)?;
        let start = Instant::now();
        let (component, cached) = self.compile(bytes, hash)?;
        let program = Program::new(&self.inner.linker, &component, found.interface)?;
        let mut policy = Policy::new(self, program, hash, bytes.len());
        policy.report.functions = found.functions;
        policy.report.memory = found.memory;
        policy.report.cached = cached;
        policy.report.compile_micros = start.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
        golden::try_out(&mut policy, found.golden.as_deref())?;
        Ok(policy)
    }

    fn compile(&self, bytes: &[u8], hash: PolicyHash) -> Result<(Component, bool), LoadError> {
        let cached = self.inner.cache.as_ref().and_then(|cache| cache.get(&self.inner.wasm, hash));
        if let Some(component) = cached {
            return Ok((component, true));
        }
        let component = Component::from_binary(&self.inner.wasm, bytes)
            .map_err(|error| LoadError::Compile(short(&error)))?;
        if let Some(cache) = &self.inner.cache
            && let Err(error) =
                component.serialize().map_err(io::Error::other).and_then(|code| cache.put(hash, &code))
        {
            tracing::warn!(%hash, %error, "compiled code of a policy could not be kept");
        }
        Ok((component, false))
    }

    /// The WebAssembly features that components may use.
    pub fn features(&self) -> WasmFeatures {
        self.inner.wasm.get_wasm_features()
    }

    /// The bounds it runs with.
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// A new store with a whole call's fuel.
    pub(crate) fn store(&self) -> Result<Store<Limits>, CallError> {
        let mut store = Store::new(&self.inner.wasm, Limits { memory: self.inner.config.memory });
        store.limiter(|limits| limits);
        store.set_hostcall_fuel(self.inner.config.answer);
        self.refill(&mut store)?;
        Ok(store)
    }

    /// Gives a store the fuel and the time of one call.
    pub(crate) fn refill(&self, store: &mut Store<Limits>) -> Result<(), CallError> {
        store.set_fuel(self.inner.config.fuel).map_err(|error| self.explain(&error))?;
        store.set_epoch_deadline(self.inner.ticks);
        Ok(())
    }

    /// Fuel that a call has used up in a store.
    pub(crate) fn burnt(&self, store: &Store<Limits>) -> u64 {
        self.inner.config.fuel.saturating_sub(store.get_fuel().unwrap_or(0))
    }

    /// A place for one instance for one call; waits for it.
    pub(crate) fn place(&self) -> Result<Place<'_>, CallError> {
        let patience = self.inner.config.patience;
        self.inner.slots.take(patience).ok_or(CallError::Busy(patience))?;
        Ok(Place(&self.inner.slots))
    }

    /// A place for a warm instance, if there is one.
    pub(crate) fn warm_place(&self) -> Option<WarmPlace> {
        self.inner.warm.try_take()?;
        Some(WarmPlace(self.inner.clone()))
    }

    /// Says in our own words why a call failed.
    pub(crate) fn explain(&self, error: &wasmtime::Error) -> CallError {
        let config = &self.inner.config;
        if let Some(trap) = error.downcast_ref::<Trap>() {
            return match trap {
                Trap::OutOfFuel => CallError::Fuel { budget: config.fuel },
                Trap::Interrupt => CallError::Time(config.deadline),
                Trap::StackOverflow => CallError::Stack { limit: count(config.stack) },
                trap => CallError::Trap(trap.to_string()),
            };
        }
        if error.downcast_ref::<Grew>().is_some() {
            return CallError::Memory { limit: count(config.memory) };
        }
        let text = short(error);
        if text.contains("fuel allocated for hostcalls") {
            return CallError::TooMuch { limit: count(config.answer) };
        }
        CallError::Malformed(text)
    }
}

/// A place in the pool, given back when it is dropped.
pub(crate) struct Place<'a>(&'a Slots);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.give();
    }
}

/// A place in the pool for a warm instance, given back when it is dropped.
pub(crate) struct WarmPlace(Arc<Inner>);

impl Drop for WarmPlace {
    fn drop(&mut self) {
        self.0.warm.give();
    }
}

fn count(bytes: usize) -> u64 {
    bytes.try_into().unwrap_or(u64::MAX)
}

/// An error of the engine in one line of bounded length: a component may have put its own words into it.
pub(crate) fn short(error: &wasmtime::Error) -> String {
    let line = format!("{error:#}");
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
}

fn check_config(config: &EngineConfig) -> Result<(), EngineError> {
    let wrong = [
        (config.fuel == 0, "a call has no fuel"),
        (config.tick.is_zero(), "the clock is looked at without a pause"),
        (config.memory < 1 << 16, "an instance has less than 64 KiB of memory"),
        (config.memory > 1 << 30, "an instance has more than 1 GiB of memory"),
        (config.stack < 16 << 10, "a call has less than 16 KiB of stack"),
        (config.stack > 1 << 20, "a call has more than 1 MiB of stack"),
        (config.slots == 0, "no instance may be in use"),
        (config.slots > 1000 || config.warm > 1000, "more than 1000 instances may be in use"),
    ];
    match wrong.into_iter().find(|(wrong, _)| *wrong) {
        Some((_, what)) => Err(EngineError::Setting(what)),
        None => Ok(()),
    }
}

fn settings(limits: &EngineConfig) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config.wasm_component_model(true).concurrency_support(false);
    config.consume_fuel(true).epoch_interruption(true).max_wasm_stack(limits.stack);
    config.cranelift_nan_canonicalization(true).cranelift_opt_level(OptLevel::Speed);
    config.wasm_relaxed_simd(false).wasm_simd(false);
    config.wasm_memory64(false).wasm_multi_memory(false).shared_memory(false);
    config.wasm_features(WasmFeatures::FUNCTION_REFERENCES | WasmFeatures::CM_ASYNC, false);
    config.gc_support(false).wasm_stack_switching(false);
    config.wasm_tail_call(false).wasm_custom_page_sizes(false).wasm_wide_arithmetic(false);
    config.wasm_backtrace_max_frames(None).generate_address_map(false);
    config.memory_reservation(count(limits.memory)).memory_guard_size(1 << 20).memory_may_move(false);
    if limits.baseline {
        config.target(baseline())?;
    }
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits)));
    Ok(config)
}

fn pool(limits: &EngineConfig) -> PoolingAllocationConfig {
    let instances = limits.slots.saturating_add(limits.warm);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(limits::MAX_CORE_INSTANCES))
        .max_core_instances_per_component(limits::MAX_CORE_INSTANCES)
        .total_memories(instances.saturating_mul(limits::MAX_MEMORIES))
        .max_memories_per_component(limits::MAX_MEMORIES)
        .total_tables(instances.saturating_mul(limits::MAX_TABLES))
        .max_tables_per_component(limits::MAX_TABLES)
        .max_tables_per_module(limits::MAX_TABLES)
        .table_elements(limits::MAX_TABLE)
        .max_memory_size(limits.memory)
        .max_unused_warm_slots(instances)
        // Clearing the first pages is cheaper than giving them back and getting them again.
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(16 << 10);
    pool
}

/// A target without this machine's extensions: naming it keeps the compiler from looking.
const fn baseline() -> &'static str {
    match (cfg!(target_arch = "aarch64"), cfg!(target_os = "macos"), cfg!(windows)) {
        (false, false, false) => "x86_64-unknown-linux-gnu",
        (false, true, _) => "x86_64-apple-darwin",
        (false, _, true) => "x86_64-pc-windows-msvc",
        (true, false, false) => "aarch64-unknown-linux-gnu",
        (true, true, _) => "aarch64-apple-darwin",
        (true, _, true) => "aarch64-pc-windows-msvc",
    }
}
