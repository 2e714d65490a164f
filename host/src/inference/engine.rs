//! What the scheduler needs of a model on a device, and how a model gets there.

use std::{path::Path, sync::Arc};

use potluck_kernels::{
    backend::{Batch, PAGE},
    engine::{self, EngineOptions, Generator, Memory},
    gguf::Gguf,
    model::DecoderConfig,
};

use super::{Device, InferenceConfig, ModelEntry, builtin, prepare::Frontend, quant};

/// Most memory that a KV cache takes when nothing is configured, in bytes.
const MAX_CACHE: u64 = 2 << 30;
/// Full-length sequences that a cache holds when memory allows; shorter ones share the pages.
const FULL_SEQUENCES: u64 = 4;
/// Tokens in one step.
const BATCH: usize = 512;

/// A loaded model: takes steps, returns logits. One thread owns it.
pub(super) trait Core: Send {
    /// Tokens in the vocabulary: the width of a row of logits.
    fn vocab(&self) -> usize;
    /// Pages of the KV cache.
    fn pages(&self) -> usize;
    /// Most tokens in one step.
    fn max_batch(&self) -> usize;
    /// Most rows of logits in one step.
    fn max_outputs(&self) -> usize;
    /// Runs a step; returns one row of logits per output.
    fn forward(&mut self, batch: &Batch) -> Result<&[f32], String>;

    /// Values of a last hidden state; 0: there are none to be had.
    fn width(&self) -> usize {
        0
    }

    /// The last hidden states of the outputs of the last step, one row each.
    fn hidden(&mut self) -> Result<&[f32], String> {
        Ok(&[])
    }

    /// Whether any other machine's CPU would find the same bits.
    fn exact(&self) -> bool {
        false
    }
}

impl Core for Box<dyn Generator> {
    fn vocab(&self) -> usize {
        self.config().vocab
    }

    fn pages(&self) -> usize {
        self.as_ref().pages()
    }

    fn max_batch(&self) -> usize {
        self.max_batch_tokens()
    }

    fn max_outputs(&self) -> usize {
        self.as_ref().max_outputs()
    }

    fn forward(&mut self, batch: &Batch) -> Result<&[f32], String> {
        self.as_mut().forward(batch).map_err(|e| e.to_string())
    }

    fn width(&self) -> usize {
        self.config().width
    }

    fn hidden(&mut self) -> Result<&[f32], String> {
        self.as_mut().hidden().map_err(|e| e.to_string())
    }

    fn exact(&self) -> bool {
        // Backends call themselves `cpu (…)` or `gpu (…)`.
        self.describe().starts_with("cpu")
    }
}

impl Core for Box<dyn Core> {
    fn vocab(&self) -> usize {
        self.as_ref().vocab()
    }

    fn pages(&self) -> usize {
        self.as_ref().pages()
    }

    fn max_batch(&self) -> usize {
        self.as_ref().max_batch()
    }

    fn max_outputs(&self) -> usize {
        self.as_ref().max_outputs()
    }

    fn forward(&mut self, batch: &Batch) -> Result<&[f32], String> {
        self.as_mut().forward(batch)
    }

    fn width(&self) -> usize {
        self.as_ref().width()
    }

    fn hidden(&mut self) -> Result<&[f32], String> {
        self.as_mut().hidden()
    }

    fn exact(&self) -> bool {
        self.as_ref().exact()
    }
}

/// A model in memory, ready for a scheduler.
pub(super) struct Built {
    pub(super) core: Box<dyn Core>,
    pub(super) frontend: Arc<Frontend>,
    pub(super) device: String,
    pub(super) weights: u64,
    pub(super) cache: u64,
}

/// Brings models into memory. Tests put their own in place of [`Files`].
pub(super) trait Loader: Send + Sync + std::fmt::Debug {
    /// Bytes that the model will take.
    ///
    /// # Errors
    /// In words, when it cannot be loaded at all.
    fn estimate(&self, entry: &ModelEntry) -> Result<u64, String>;

    /// Loads it; takes long.
    ///
    /// # Errors
    /// In words.
    fn build(&self, entry: &ModelEntry) -> Result<Built, String>;
}

/// Loads GGUF files.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) device: Device,
    pub(super) threads: Option<usize>,
    pub(super) context: Option<u32>,
    pub(super) parallel: usize,
    /// Bytes for everything.
    pub(super) budget: u64,
}

impl Files {
    pub(super) fn new(config: &InferenceConfig, budget: u64) -> Self {
        let InferenceConfig { device, threads, context, parallel, .. } = *config;
        Self { device, threads, context, parallel, budget }
    }

    fn plan(&self, gguf: &Gguf) -> Result<EngineOptions, String> {
        let config = DecoderConfig::from_gguf(gguf).map_err(|e| e.to_string())?;
        let page = config.cache_bytes(1).max(1);
        let room = (self.budget / 4).min(MAX_CACHE) / page;
        let asked = self.context.map(|c| (c as usize).clamp(1, config.context));
        let fits = usize::try_from(room).unwrap_or(usize::MAX).saturating_mul(PAGE).max(512);
        let context = asked.unwrap_or(config.context.min(fits));
        let pages = (context.div_ceil(PAGE) as u64).max(1);
        let sequences = (room / pages).clamp(1, FULL_SEQUENCES.min(self.parallel as u64).max(1));
        Ok(EngineOptions {
            device: match self.device {
                Device::Auto => engine::Device::Auto,
                Device::Cpu => engine::Device::Cpu,
                Device::Gpu => engine::Device::Gpu,
            },
            threads: self.threads,
            context,
            parallel: usize::try_from(sequences).unwrap_or(1),
            max_batch_tokens: BATCH.max(self.parallel),
        })
    }
}

impl Loader for Files {
    fn estimate(&self, entry: &ModelEntry) -> Result<u64, String> {
        let gguf = open(entry)?;
        let options = self.plan(&gguf)?;
        engine::estimate(&gguf, &options).map(|m| m.total()).map_err(|e| e.to_string())
    }

    fn build(&self, entry: &ModelEntry) -> Result<Built, String> {
        let gguf = open(entry)?;
        let options = self.plan(&gguf)?;
        let generator = engine::load_decoder(&gguf, &options, &mut |_, _| {}).map_err(|e| e.to_string())?;
        let vocab = generator.config().vocab;
        let frontend = Frontend::new(&entry.name, gguf.metadata(), options.context, vocab)?;
        gguf.release_pages();
        let Memory { weights, cache, .. } = generator.memory();
        let device = generator.describe();
        Ok(Built { core: Box::new(generator), frontend: Arc::new(frontend), device, weights, cache })
    }
}

/// Opens a model's file.
///
/// # Errors
/// In words.
pub(super) fn open(entry: &ModelEntry) -> Result<Gguf, String> {
    let Some(path) = &entry.path else {
        let bytes = builtin::GUIDE_BYTES.ok_or("this build has no built-in model")?;
        return Gguf::from_bytes(bytes.to_vec()).map_err(|e| e.to_string());
    };
    let file = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if let Some((_, parts)) = quant::split_part(file) {
        return Err(format!(
            "{file} is one of {parts} parts; split models are not supported: merge them with `llama-gguf-split --merge`"
        ));
    }
    Gguf::open(path).map_err(|e| e.to_string())
}

/// Bytes for models when nothing is configured: 80 % of the machine's memory, or of what the process may use.
pub(super) fn default_budget() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(8 << 30, |kib| kib.saturating_mul(1024));
    let limit = std::fs::read_to_string(Path::new("/sys/fs/cgroup/memory.max")).ok();
    let limit = limit.and_then(|l| l.trim().parse::<u64>().ok()).unwrap_or(u64::MAX);
    total.min(limit) / 5 * 4
}
