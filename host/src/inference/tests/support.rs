//! Nodes and jobs for tests.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use potluck_kernels::{
    backend::{Batch, PAGE},
    gguf::Gguf,
    sample::SamplingParams,
};

use crate::{
    inference::{
        Device, Inference, InferenceConfig, ModelEntry,
        engine::{Built, Core, Loader},
        handle::Inner,
        prepare::Frontend,
    },
    job::{Format, Input, Job, Mode},
};

/// A file of the shared test data; says so when it is not there.
pub(super) fn data(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("POTLUCK_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there", path.display());
    None
}

/// A node with the small trained model.
pub(super) async fn stories(change: impl FnOnce(&mut InferenceConfig)) -> Option<Inference> {
    let mut config = InferenceConfig {
        home: tempfile::tempdir().unwrap().keep(),
        models: vec![data("models/stories260K-f32.gguf")?.display().to_string()],
        device: Device::Cpu,
        threads: Some(1),
        caches: false,
        ..InferenceConfig::default()
    };
    change(&mut config);
    Some(Inference::bind(config).await.unwrap())
}

/// A node over [`PageCore`] with the small model's vocabulary.
pub(super) async fn paged(pages: usize, parallel: usize, fail_after: Option<usize>) -> Option<Inference> {
    let path = data("models/stories260K-f32.gguf")?;
    let config = InferenceConfig {
        home: tempfile::tempdir().unwrap().keep(),
        models: vec![path.display().to_string()],
        caches: false,
        parallel,
        ..InferenceConfig::default()
    };
    let loader =
        Arc::new(PageLoader { pages, fail_after: AtomicUsize::new(fail_after.unwrap_or(usize::MAX)) });
    Some(Inference { inner: Inner::with(config, u64::MAX, loader, None).await.unwrap() })
}

/// A job that continues a text, greedily.
pub(super) fn text(text: &str) -> Job {
    Job {
        id: uuid::Uuid::now_v7(),
        model: "stories260K-f32".into(),
        mode: Mode::Local,
        input: Input::Text { text: text.into(), special: false },
        sampling: SamplingParams::greedy(),
        max_tokens: None,
        stop: Vec::new(),
        format: Format::Text,
        logprobs: None,
        keep_alive: None,
        resume: Vec::new(),
        spend: Default::default(),
    }
}

/// Waits for something that must happen soon.
pub(super) async fn wait_until(mut happened: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < Duration::from_secs(20), "it did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Loads [`PageCore`]s; the first breaks after some steps.
#[derive(Debug)]
struct PageLoader {
    pages: usize,
    fail_after: AtomicUsize,
}

impl Loader for PageLoader {
    fn estimate(&self, _: &ModelEntry) -> Result<u64, String> {
        Ok(1)
    }

    fn build(&self, entry: &ModelEntry) -> Result<Built, String> {
        let gguf = Gguf::open(entry.path.as_ref().unwrap()).unwrap();
        let frontend = Frontend::new(&entry.name, gguf.metadata(), 512, 512)?;
        let core = PageCore {
            pages: vec![[u32::MAX; PAGE]; self.pages],
            logits: Vec::new(),
            steps_left: self.fail_after.swap(usize::MAX, Ordering::Relaxed),
        };
        Ok(Built {
            core: Box::new(core),
            frontend: Arc::new(frontend),
            device: "test".into(),
            weights: 1,
            cache: 1,
        })
    }
}

/// An engine whose cache holds the tokens themselves, and whose logits are a hash of what a sequence's pages hold:
/// any mistake with pages changes the text.
struct PageCore {
    pages: Vec<[u32; PAGE]>,
    logits: Vec<f32>,
    steps_left: usize,
}

impl Core for PageCore {
    fn vocab(&self) -> usize {
        512
    }

    fn pages(&self) -> usize {
        self.pages.len()
    }

    fn max_batch(&self) -> usize {
        64
    }

    fn max_outputs(&self) -> usize {
        64
    }

    fn forward(&mut self, batch: &Batch) -> Result<&[f32], String> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or("it failed on purpose")?;
        self.logits.clear();
        let place = |i: usize, position: usize| {
            let table = &batch.tables[batch.sequence[i] as usize];
            (table[position / PAGE] as usize, position % PAGE)
        };
        for (i, &token) in batch.tokens.iter().enumerate() {
            let (page, offset) = place(i, batch.positions[i] as usize);
            self.pages[page][offset] = token;
        }
        for &row in &batch.outputs {
            let (i, mut hash) = (row as usize, 7u64);
            for position in 0..=batch.positions[i] as usize {
                let (page, offset) = place(i, position);
                hash = (hash ^ u64::from(self.pages[page][offset]))
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .rotate_left(23);
            }
            self.logits.extend((0..512u64).map(|id| {
                let bits =
                    (hash ^ id.wrapping_mul(0xbf58_476d_1ce4_e5b9)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 40;
                if id < 3 { -100.0 } else { (bits % 997) as f32 / 100.0 }
            }));
        }
        Ok(&self.logits)
    }
}
