//! What belongs to one run of an importer: its view of the world, its memory and what it says.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::{ResourceLimiter, component::ResourceTable};
use wasmtime_wasi::{
    Deterministic, FsPerms, HostWallClock, WasiCtx, WasiCtxView, WasiView,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use super::{limits::Limits, run::Used};

/// What the wall clock of every importer says: the start of 2020, in seconds since 1970.
const NOW: u64 = 1_577_836_800;
/// What is random for every importer.
const RANDOM: [u8; 8] = [0x51, 0x3a, 0x8c, 0x07, 0xe2, 0x9d, 0x64, 0xbf];
/// Most bytes of randomness in one call.
const RANDOM_BYTES: u64 = 1 << 20;
/// Most memories, tables and instances of core modules. A component of Python has about thirty instances.
const MEMORIES: usize = 16;
const TABLES: usize = 64;
const INSTANCES: usize = 512;
/// Most elements of all tables.
const ELEMENTS: usize = 1 << 20;

/// One run of an importer.
pub(super) struct Guest {
    wasi: WasiCtx,
    table: ResourceTable,
    pub(super) memory: Memory,
    pub(super) said: Said,
    /// When the call that runs must have ended.
    pub(super) deadline: Option<Instant>,
    /// Whether nobody wants what it gives any more.
    pub(super) gone: Arc<AtomicBool>,
    /// What it has used.
    pub(super) used: Arc<Mutex<Used>>,
}

impl Guest {
    /// A guest that sees one folder as `/in`.
    ///
    /// # Errors
    /// The folder's, when it cannot be opened.
    pub(super) fn new(folder: &Path, limits: &Limits) -> wasmtime::Result<Self> {
        let said = Said { held: Arc::default(), most: limits.said };
        let mut wasi = WasiCtx::builder();
        wasi.preopened_dir(folder, "/in", FsPerms::ReadOnly)?
            .allow_blocking_current_thread(true)
            .stdout(said.clone())
            .stderr(said.clone())
            .wall_clock(StillWallClock)
            .secure_random(Deterministic::new(RANDOM.to_vec()))
            .insecure_random(Deterministic::new(RANDOM.to_vec()))
            .insecure_random_seed(u128::from(u64::from_le_bytes(RANDOM)))
            .max_random_size(RANDOM_BYTES);
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        let memory = Memory { most: limits.memory, used: 0, elements: 0, refused: false };
        Ok(Self {
            wasi: wasi.build(),
            table,
            memory,
            said,
            deadline: None,
            gone: Arc::default(),
            used: Arc::default(),
        })
    }

    /// Its handles.
    pub(super) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// A wall clock that stands still.
struct StillWallClock;

impl HostWallClock for StillWallClock {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::from_secs(NOW)
    }
}

/// The memory a guest has in all. Asking for more fails as it does on a machine that has no more, so that a guest
/// can say so in its own words; whether it has asked is remembered, for those that crash instead.
#[derive(Debug)]
pub(super) struct Memory {
    most: usize,
    pub(super) used: usize,
    elements: usize,
    pub(super) refused: bool,
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        let fits = used <= self.most;
        if fits {
            self.used = used;
        } else {
            self.refused = true;
        }
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = self.elements.saturating_add(desired.saturating_sub(current));
        let fits = elements <= ELEMENTS;
        if fits {
            self.elements = elements;
        }
        Ok(fits)
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

/// The end of what a guest writes to stdout and stderr. It takes everything and keeps the last bytes, so that a
/// guest that talks much neither fails nor fills the memory.
#[derive(Clone, Debug)]
pub(super) struct Said {
    held: Arc<Mutex<VecDeque<u8>>>,
    most: usize,
}

impl Said {
    fn take(&self, bytes: &[u8]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let last = bytes.len().saturating_sub(self.most);
        held.extend(bytes.get(last..).unwrap_or_default());
        let over = held.len().saturating_sub(self.most);
        held.drain(..over);
    }

    /// How many hold it.
    #[cfg(test)]
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.held)
    }

    /// As text, without control characters other than line ends.
    pub(super) fn text(&self) -> String {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(held.make_contiguous());
        text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
    }
}

impl IsTerminal for Said {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Said {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only streams of WASI 0.2 are linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Said {
    async fn ready(&mut self) {}
}

impl OutputStream for Said {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_is_said_is_kept() {
        let said = Said { held: Arc::default(), most: 8 };
        said.take(b"one ");
        said.take(b"two\n\x1b[3");
        assert_eq!(said.text(), " two\n [3");
        said.take(&[b'x'; 1000]);
        assert_eq!(said.text(), "xxxxxxxx");
        said.take("ü".as_bytes());
        assert_eq!(said.text(), "xxxxxxü");
    }

    #[test]
    fn memory_is_counted_over_all_memories() {
        let mut memory = Memory { most: 100, used: 0, elements: 0, refused: false };
        assert!(memory.memory_growing(0, 60, None).unwrap());
        assert!(memory.memory_growing(0, 40, None).unwrap());
        assert!(!memory.refused);
        assert!(!memory.memory_growing(40, 41, None).unwrap());
        assert!(memory.refused);
        assert!(memory.table_growing(0, ELEMENTS, None).unwrap());
        assert!(!memory.table_growing(0, 1, None).unwrap());
    }
}
