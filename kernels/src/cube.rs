//! The GPU backend: CubeCL kernels over wgpu (Vulkan, Metal, DirectX 12).
//!
//! Weights are repacked at load so that kernels read whole words along K; each op of
//! [`crate::backend::Backend`] is one launch, a product one launch per segment of a stacked matrix. Reductions
//! use planes (subgroups) where the driver has them and shared memory elsewhere; both ways are the same code.
//!
//! A software Vulkan driver (lavapipe) runs all of it, as a test device: the CPU backend is what to use on a
//! machine without a GPU.

mod attend;
mod attention;
mod bits;
mod device;
mod matmul;
mod matvec;
mod ops;
mod pack;
mod products;
mod rope;
mod rows;
mod step;
mod weights;

use cubecl::MemoryAllocationMode;
use cubecl::client::Client;
use cubecl::prelude::BufferArg;
use cubecl::server::{Handle, ServerError};

use crate::backend::{BackendError, Rope};

pub use device::{AdapterInfo, AdapterKind, Selection, adapters};
pub use weights::CubeMatrix;

use step::Step;
use weights::Words;

/// How a [`CubeBackend`] is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which adapter to take.
    pub selection: Selection,
    /// Largest buffer of weights, in bytes; the device's own limit when absent or smaller. For tests.
    pub shard_bytes: Option<usize>,
    /// Whether to use plane operations: absent, as the driver reports them; `Some(true)` forces them on
    /// wherever the plane size allows (CubeCL never reports them for software adapters).
    pub planes: Option<bool>,
}

/// A GPU that runs the op set.
pub struct CubeBackend {
    client: Client,
    name: String,
    /// Largest buffer, in words.
    limit_words: usize,
    /// Largest buffer of weights, in words.
    weight_words: usize,
    /// Units that form a plane, 0 where shared memory is to be used.
    lanes: u32,
    /// Shared memory of a cube, in bytes.
    shared_memory: usize,
    /// One word, bound where a kernel has a buffer that a call does not need.
    nothing: Handle,
    step: Step,
    meta: Words,
    /// Partial results of split attention.
    scratch: Words,
    /// Cosines and sines of this step's positions.
    ropes: Vec<(Rope, Words)>,
    /// Words uploaded since the last wait.
    staged: usize,
    /// Kernel launches so far.
    launches: u64,
}

impl std::fmt::Debug for CubeBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CubeBackend")
            .field("name", &self.name)
            .field("limit_words", &self.limit_words)
            .field("lanes", &self.lanes)
            .finish_non_exhaustive()
    }
}

/// A vector of floats on the device.
#[derive(Debug)]
pub struct CubeVector {
    words: Words,
}

/// Activations on the device.
#[derive(Debug)]
pub struct CubeAct {
    words: Words,
    tokens: usize,
    width: usize,
}

impl CubeAct {
    /// Rows that fit.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Values per row.
    pub fn width(&self) -> usize {
        self.width
    }
}

/// A paged KV cache on the device: two buffers of packed half floats per layer.
#[derive(Debug)]
pub struct CubeCache {
    layers: Vec<(Words, Words)>,
    shape: crate::backend::CacheShape,
}

impl CubeBackend {
    /// Opens an adapter.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] when there is none of the kind asked for, or its driver refuses.
    pub fn new(selection: Selection) -> Result<Self, BackendError> {
        Self::with_options(Options { selection, ..Options::default() })
    }

    /// Opens an adapter with options.
    ///
    /// # Errors
    /// As [`CubeBackend::new`].
    pub fn with_options(options: Options) -> Result<Self, BackendError> {
        let opened = device::open(options.selection)?;
        let client = opened.client;
        let properties = client.properties();
        // Kernels count words in 32 bits.
        let limit_words =
            usize::try_from(properties.memory.max_page_size / 4).unwrap_or(usize::MAX).min(1 << 30);
        let shared_memory = properties.hardware.max_shared_memory_size;
        let weight_words = options.shard_bytes.map_or(limit_words, |b| (b / 4).min(limit_words));
        let lanes = device::plane_lanes(&client, options.planes);
        let nothing = client.create_from_slice(&[0; 16]);
        let none = Words { handle: nothing.clone(), len: 1 };
        let backend = Self {
            client,
            name: opened.name,
            limit_words,
            weight_words,
            lanes,
            shared_memory,
            nothing,
            step: Step::default(),
            meta: none.clone(),
            scratch: none,
            ropes: Vec::new(),
            staged: 0,
            launches: 0,
        };
        backend.allocated(&backend.nothing, "a first buffer", 16)?;
        Ok(backend)
    }

    /// Kernel launches since the backend was opened.
    pub fn launches(&self) -> u64 {
        self.launches
    }

    /// Whether reductions use planes.
    pub fn uses_planes(&self) -> bool {
        self.lanes > 0
    }

    /// Waits until all queued work is done.
    ///
    /// # Errors
    /// [`BackendError::Device`] when the device failed.
    pub fn sync(&mut self) -> Result<(), BackendError> {
        cubecl::future::block_on(self.client.sync()).map_err(|e| failed("sync", &e))
    }

    /// Largest buffer of weights, in words.
    fn cap_words(&self) -> usize {
        self.weight_words
    }

    /// Allocates outside of the pool that activations and uploads of a step share.
    fn persistent<T>(&self, make: impl FnOnce(&Client) -> T) -> T {
        // SAFETY: the stream is this backend's alone, and the mode is put back at once.
        unsafe { self.client.allocation_mode(MemoryAllocationMode::Persistent) };
        let made = make(&self.client);
        // SAFETY: as above.
        unsafe { self.client.allocation_mode(MemoryAllocationMode::Auto) };
        made
    }

    /// Whether an allocation succeeded.
    fn allocated(&self, handle: &Handle, what: &str, bytes: u64) -> Result<(), BackendError> {
        self.client.check([handle]).map_err(|e| BackendError::OutOfMemory {
            backend: "gpu",
            what: what.to_owned(),
            bytes,
            reason: reason(&e),
        })
    }
}

/// A buffer as a kernel argument, in vectors of `vector` words.
fn arg(words: &Words, vector: usize) -> BufferArg {
    // SAFETY: `len` is the length the buffer was allocated with.
    unsafe { BufferArg::from_raw_parts(words.handle.clone(), (words.len / vector).max(1)) }
}

/// The device's words without the backtrace it appends.
fn reason(error: &ServerError) -> String {
    let text = error.to_string();
    let end = text.find("Backtrace").unwrap_or(text.len());
    text.get(..end).unwrap_or(&text).trim().to_owned()
}

fn failed(op: &'static str, error: &ServerError) -> BackendError {
    BackendError::Device { backend: "gpu", op, reason: reason(error) }
}
