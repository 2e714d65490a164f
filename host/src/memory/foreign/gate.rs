//! The engine importers run on, and what they can reach from it.
//!
//! Everything a guest may call is added here by name. What a component asks for beyond that is found before it is
//! instantiated. Sockets are the exception: the libraries of Python and C name them in every component, so that they
//! are there, and end the guest when they are called; no code that could open one is linked.

use std::{
    sync::{LazyLock, OnceLock},
    thread,
    time::Duration,
};

use wasmtime::{
    Config, Engine, WasmBacktraceDetails,
    component::{Component, HasData, Linker, Resource, ResourceTable, ResourceType, types::ComponentItem},
};
use wasmtime_wasi::{
    WasiView as _,
    cli::{WasiCli, WasiCliView as _},
    clocks::{WasiClocks, WasiClocksView as _},
    filesystem::{WasiFilesystem, WasiFilesystemView as _},
    p2::{
        DynPollable, IoError, Pollable,
        bindings::{self, clocks::monotonic_clock},
        subscribe,
    },
    random::WasiRandom,
};

use super::{bounds::plain, error::ForeignError, guest::Guest};

/// The interfaces of WASI 0.2 that an importer may use, without their version.
const ALLOWED: [&str; 20] = [
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:filesystem/types",
    "wasi:filesystem/preopens",
    "wasi:clocks/wall-clock",
    "wasi:clocks/monotonic-clock",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
];
/// Interfaces that may be named and not used.
const SEALED: &str = "wasi:sockets/";
/// Resources that sealed interfaces borrow from `wasi:io`.
const BORROWED: [&str; 4] = ["pollable", "input-stream", "output-stream", "error"];

/// Time between two ticks of the clock that ends calls.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// Bytes of stack a guest may use. Interpreters recurse.
const STACK: usize = 2 << 20;
/// Bytes of stack of the thread a guest runs on: its own, and what the host needs.
pub(super) const THREAD_STACK: usize = STACK + (4 << 20);
/// Address space reserved for a memory; more is moved when it grows.
const RESERVED: u64 = 512 << 20;

/// The engine of this process, built at the first import.
///
/// # Errors
/// [`ForeignError::Engine`] where components cannot be run.
pub(super) fn engine() -> Result<&'static Engine, ForeignError> {
    static ENGINE: LazyLock<Result<Engine, String>> =
        LazyLock::new(|| Engine::new(&config()).map_err(|error| error.to_string()));
    static TICKER: OnceLock<Result<(), String>> = OnceLock::new();
    let engine = ENGINE.as_ref().map_err(|error| ForeignError::Engine(error.clone()))?;
    let ticking = TICKER.get_or_init(|| {
        let ticker = thread::Builder::new().name("importer-clock".into()).stack_size(64 << 10);
        let tick = move || {
            loop {
                thread::sleep(TICK);
                engine.increment_epoch();
            }
        };
        ticker.spawn(tick).map(drop).map_err(|error| error.to_string())
    });
    ticking.clone().map_err(ForeignError::Engine)?;
    Ok(engine)
}

/// The same answers on every machine, and nothing that importers do not need.
fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .consume_fuel(true)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .shared_memory(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .gc_support(false)
        .wasm_stack_switching(false)
        .max_wasm_stack(STACK)
        .async_stack_size(THREAD_STACK)
        .memory_reservation(RESERVED)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}

/// What the component asks for and does not get.
///
/// # Errors
/// [`ForeignError::Imports`] with the names.
pub(super) fn check_imports(component: &Component) -> Result<(), ForeignError> {
    let kind = component.component_type();
    let names: Vec<String> = kind
        .imports(component.engine())
        // A type is no import of something: it only says that two are the same.
        .filter(|(_, item)| !matches!(item.ty, ComponentItem::Type(_)))
        .map(|(name, _)| name.to_owned())
        .filter(|name| !is_allowed(name))
        .collect();
    if names.is_empty() { Ok(()) } else { Err(ForeignError::Imports { names }) }
}

/// Whether an import is one of WASI 0.2 that importers get, or one that they may name.
fn is_allowed(import: &str) -> bool {
    // An interface of nothing but types.
    let own = import.starts_with("potluck:importer/types@0.1.");
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    let known = ALLOWED.contains(&name) || name.starts_with(SEALED);
    own || (known && version.starts_with("0.2."))
}

/// What guests can call.
///
/// # Errors
/// [`ForeignError::Engine`] where WASI cannot be linked.
pub(super) fn linker(component: &Component) -> Result<Linker<Guest>, ForeignError> {
    let mut linker = Linker::new(component.engine());
    wasi(&mut linker)
        .and_then(|()| seal(&mut linker, component))
        .map_err(|error| ForeignError::Engine(format!("{error:#}")))?;
    Ok(linker)
}

/// A call into a sealed interface.
#[derive(Debug, thiserror::Error)]
#[error("{0} is sealed")]
pub(super) struct Reached(pub(super) String);

/// What stands for every resource of a sealed interface; there is never one.
enum Nothing {}

/// Defines what the component names of sealed interfaces: every function ends the guest.
fn seal(linker: &mut Linker<Guest>, component: &Component) -> wasmtime::Result<()> {
    let (engine, kind) = (component.engine(), component.component_type());
    for (interface, item) in kind.imports(engine) {
        let ComponentItem::ComponentInstance(items) = item.ty else { continue };
        if !interface.starts_with(SEALED) {
            continue;
        }
        let mut sealed = linker.instance(interface)?;
        for (name, item) in items.exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let function = format!("{interface} {name}");
                    sealed.func_new(name, move |_, _, _, _| {
                        Err(wasmtime::Error::new(Reached(function.clone())))
                    })?;
                }
                // Those of `wasi:io` are defined there, and only named again here.
                ComponentItem::Resource(_) if !BORROWED.contains(&name) => {
                    sealed.resource(name, ResourceType::host::<Nothing>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn wasi(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    use bindings::{cli, clocks, filesystem, random, sync};
    let l = linker;
    stream_errors(l)?;
    sync::io::poll::add_to_linker::<Guest, Streams>(l, Guest::table)?;
    sync::io::streams::add_to_linker::<Guest, Streams>(l, Guest::table)?;
    sync::filesystem::types::add_to_linker::<Guest, WasiFilesystem>(l, Guest::filesystem)?;
    filesystem::preopens::add_to_linker::<Guest, WasiFilesystem>(l, Guest::filesystem)?;
    clocks::wall_clock::add_to_linker::<Guest, WasiClocks>(l, Guest::clocks)?;
    monotonic_clock::add_to_linker::<Guest, StillClock>(l, |guest| Still(guest.table()))?;
    random::random::add_to_linker::<Guest, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
    random::insecure::add_to_linker::<Guest, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<Guest, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
    cli::environment::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::exit::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::stdin::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::stdout::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::stderr::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_input::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_output::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    Ok(())
}

/// `wasi:io/error`, which wasmtime-wasi keeps in a crate of its own: an error of a stream, and its words.
fn stream_errors(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut errors = linker.instance("wasi:io/error@0.2.12")?;
    errors.resource("error", ResourceType::host::<IoError>(), |mut store, handle| {
        store.data_mut().table().delete(Resource::<IoError>::new_own(handle))?;
        Ok(())
    })?;
    errors.func_wrap("[method]error.to-debug-string", |mut store, (error,): (Resource<IoError>,)| {
        let error = store.data_mut().table().get(&error)?;
        Ok((plain(&format!("{error:?}"), 1024),))
    })
}

/// Names the table of handles as what interfaces of streams work on.
struct Streams;

impl HasData for Streams {
    type Data<'a> = &'a mut ResourceTable;
}

/// Names [`Still`] as what the monotonic clock works on.
struct StillClock;

impl HasData for StillClock {
    type Data<'a> = Still<'a>;
}

/// A clock that stands still. Whoever waits for it is told at once that the time has come: a guest that slept would
/// hold its thread where neither fuel nor the deadline reaches it.
struct Still<'a>(&'a mut ResourceTable);

impl Still<'_> {
    fn at_once(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let moment = self.0.push(AtOnce)?;
        subscribe(self.0, moment)
    }
}

impl monotonic_clock::Host for Still<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(0)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1_000_000_000)
    }

    fn subscribe_instant(&mut self, _when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.at_once()
    }

    fn subscribe_duration(&mut self, _duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.at_once()
    }
}

struct AtOnce;

#[wasmtime_wasi::async_trait]
impl Pollable for AtOnce {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_passes() {
        for name in ["wasi:io/streams@0.2.0", "wasi:cli/exit@0.2.12", "wasi:sockets/tcp@0.2.3"] {
            assert!(is_allowed(name), "{name}");
        }
        assert!(is_allowed("potluck:importer/types@0.1.0"));
        for name in [
            "wasi:io/streams",
            "wasi:io/streams@0.3.0",
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:filesystem/types2@0.2.0",
            "wasi:cli/run@0.2.0",
            "potluck:policy/types@0.1.0",
            "host",
        ] {
            assert!(!is_allowed(name), "{name}");
        }
    }
}
