//! Order, limits and endings over a slow pretended encoder, and real vectors over a small real one.

use std::{path::PathBuf, sync::atomic::AtomicU64};

use potluck_kernels::{
    dtype::DType,
    engine::{Embedder, EngineError},
    gguf::Gguf,
    model::EncoderConfig,
    synthetic::{Kind, Spec},
};

use super::*;
use crate::inference::{Device, Inference, InferenceConfig, Origin};

/// A small encoder with random weights, as a file.
fn synthetic(folder: &std::path::Path) -> PathBuf {
    let path = folder.join("tiny-bert.gguf");
    std::fs::write(&path, Spec::small(Kind::Bert).bytes(DType::F16).unwrap()).unwrap();
    path
}

fn entry(path: PathBuf) -> ModelEntry {
    ModelEntry {
        name: "tiny-bert".into(),
        origin: Origin::Path,
        path: Some(path),
        size: 1,
        digest: None,
        modified: 0,
    }
}

/// Takes a millisecond per token and writes down the first token of every input after the start token.
#[derive(Debug)]
struct Slow {
    files: model::Files,
    seen: Arc<Mutex<Vec<u32>>>,
    loads: AtomicU64,
    fail: AtomicBool,
}

struct SlowEncoder(EncoderConfig, Arc<Mutex<Vec<u32>>>, bool);

impl Embedder for SlowEncoder {
    fn config(&self) -> &EncoderConfig {
        &self.0
    }
    fn describe(&self) -> String {
        "slow".into()
    }
    fn max_tokens(&self) -> usize {
        512
    }
    fn embed(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, EngineError> {
        assert!(!self.2, "it breaks on purpose");
        let tokens: usize = inputs.iter().map(Vec::len).sum();
        std::thread::sleep(Duration::from_millis(tokens as u64));
        self.1.lock().unwrap().extend(inputs.iter().map(|i| i[1]));
        Ok(inputs.iter().map(|i| vec![i[1] as f32]).collect())
    }
}

impl Opener for Slow {
    fn frontend(&self, entry: &ModelEntry) -> Result<Frontend, JobError> {
        self.files.frontend(entry)
    }
    fn encoder(&self, entry: &ModelEntry) -> Result<model::Encoder, JobError> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let gguf = Gguf::open(entry.path.as_ref().unwrap()).unwrap();
        let config = EncoderConfig::from_gguf(&gguf).unwrap();
        let fail = self.fail.swap(false, Ordering::Relaxed);
        let embedder = Box::new(SlowEncoder(config, self.seen.clone(), fail));
        Ok(model::Encoder { embedder, weights: 1, context: 512 })
    }
}

struct Bench {
    embeds: Arc<Embeds>,
    slow: Arc<Slow>,
    entry: ModelEntry,
    _folder: tempfile::TempDir,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let slow = Arc::new(Slow {
        files: model::Files { device: Device::Cpu, threads: Some(1) },
        seen: Arc::default(),
        loads: AtomicU64::new(0),
        fail: AtomicBool::new(false),
    });
    let entry = entry(synthetic(folder.path()));
    Bench { embeds: Arc::new(Embeds::with(slow.clone())), slow, entry, _folder: folder }
}

fn request(texts: Vec<String>, lane: Lane) -> EmbedRequest {
    EmbedRequest {
        model: "tiny-bert".into(),
        mode: Mode::Local,
        texts,
        truncate: true,
        lane,
        keep_alive: None,
    }
}

impl Bench {
    async fn embed(&self, texts: Vec<String>, lane: Lane) -> Result<Embedded, JobError> {
        self.embeds.embed(self.entry.clone(), request(texts, lane)).await
    }

    fn spawn(
        &self,
        texts: Vec<String>,
        lane: Lane,
    ) -> tokio::task::JoinHandle<(Result<Embedded, JobError>, Instant)> {
        let (embeds, entry) = (self.embeds.clone(), self.entry.clone());
        tokio::spawn(async move { (embeds.embed(entry, request(texts, lane)).await, Instant::now()) })
    }
}

/// Texts of 18 tokens with the start and end tokens.
fn long(word: &str, count: usize) -> Vec<String> {
    vec![format!("{word} {}", "x ".repeat(15)); count]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_goes_before_the_background() {
    let bench = bench();
    bench.embed(vec!["a".into()], Lane::Interactive).await.unwrap();
    // About a second of work, then another caller of the background, then somebody who waits.
    let first = bench.spawn(long("b", 56), Lane::Background);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = bench.spawn(long("c", 4), Lane::Background);
    let began = Instant::now();
    let query = bench.embed(vec!["d".into()], Lane::Interactive).await.unwrap();
    let waited = began.elapsed();
    assert_eq!(query.vectors.len(), 1);
    // One slice of the background may be under way: the first ones are larger, as the speed is not known yet.
    assert!(waited < Duration::from_millis(400), "{waited:?}");
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(first.0.unwrap().vectors.len(), 56);
    assert_eq!(second.0.unwrap().vectors.len(), 4);
    assert!(second.1 < first.1, "a short request waits for a long one of the same lane");
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_come_in_the_order_of_the_texts() {
    let bench = bench();
    let texts: Vec<String> = "a bb c dd e ff g".split(' ').map(str::to_owned).collect();
    let done = bench.embed(texts.clone(), Lane::Background).await.unwrap();
    for (text, vector) in texts.iter().zip(&done.vectors) {
        let alone = bench.embed(vec![text.clone()], Lane::Interactive).await.unwrap();
        assert_eq!(&alone.vectors[0], vector, "{text}");
    }
    assert_eq!(bench.slow.loads.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_frees_its_room() {
    let bench = bench();
    bench.embed(vec!["a".into()], Lane::Interactive).await.unwrap();
    let task = bench.spawn(long("b", 500), Lane::Background);
    tokio::time::sleep(Duration::from_millis(100)).await;
    task.abort();
    let began = Instant::now();
    while bench.embeds.shared.waiting.load(Ordering::Relaxed) > 0 {
        assert!(began.elapsed() < Duration::from_secs(3), "the work goes on for nobody");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(bench.slow.seen.lock().unwrap().len() < 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_refused_at_once() {
    let bench = bench();
    let refused = |e: JobError| matches!(e, JobError::Invalid { field, .. } if field == "input");
    assert!(refused(bench.embed(Vec::new(), Lane::Interactive).await.unwrap_err()));
    let many = vec![String::new(); MAX_TEXTS + 1];
    assert!(refused(bench.embed(many, Lane::Interactive).await.unwrap_err()));
    let big = vec!["x".repeat(MAX_TEXT_BYTES + 1)];
    assert!(refused(bench.embed(big, Lane::Interactive).await.unwrap_err()));
    let full = Lease::take(&bench.embeds.shared.waiting, MAX_WAITING, MAX_WAITING).unwrap();
    let busy = bench.embed(vec!["a".into()], Lane::Interactive).await.unwrap_err();
    assert!(matches!(busy, JobError::Busy { .. }), "{busy:?}");
    drop(full);
    bench.embed(vec!["a".into()], Lane::Interactive).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_breaks_is_loaded_again() {
    let bench = bench();
    bench.slow.fail.store(true, Ordering::Relaxed);
    let broken = bench.embed(vec!["a".into()], Lane::Interactive).await.unwrap_err();
    assert!(matches!(broken, JobError::Internal { .. }), "{broken:?}");
    bench.embed(vec!["a".into()], Lane::Interactive).await.unwrap();
    assert_eq!(bench.slow.loads.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_encoders_go_when_their_time_is_over() {
    let bench = bench();
    bench.embed(vec!["a".into()], Lane::Interactive).await.unwrap();
    assert_eq!(bench.embeds.loaded()[0].expires_in, None, "it stays by default");
    let keep = |time| Some(KeepAlive::For(time));
    bench.embeds.load(bench.entry.clone(), keep(Duration::from_millis(80))).await.unwrap();
    assert!(bench.embeds.loaded()[0].expires_in.is_some());
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(bench.embeds.loaded().is_empty());
    bench.embeds.load(bench.entry.clone(), None).await.unwrap();
    assert!(bench.embeds.unload(&bench.entry).await);
    assert!(!bench.embeds.unload(&bench.entry).await);
    let ask =
        EmbedRequest { keep_alive: keep(Duration::ZERO), ..request(vec!["a".into()], Lane::Interactive) };
    bench.embeds.embed(bench.entry.clone(), ask).await.unwrap();
    let began = Instant::now();
    while !bench.embeds.loaded().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(3));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_what_waits_after_the_grace() {
    let bench = bench();
    bench.embed(vec!["a".into()], Lane::Interactive).await.unwrap();
    let task = bench.spawn(long("b", 2000), Lane::Background);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    bench.embeds.shutdown(Duration::from_millis(100)).await;
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(task.await.unwrap().0, Err(JobError::ShuttingDown));
    let late = bench.embed(vec!["a".into()], Lane::Interactive).await.unwrap_err();
    assert_eq!(late, JobError::ShuttingDown);
}

/// A node with the synthetic encoder given by its path.
async fn node(folder: &std::path::Path) -> Inference {
    let config = InferenceConfig {
        home: folder.to_owned(),
        models: vec![synthetic(folder).display().to_string()],
        device: Device::Cpu,
        threads: Some(1),
        caches: false,
        ..InferenceConfig::default()
    };
    Inference::bind(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn encoders_in_gguf_files_are_served_too() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path()).await;
    let texts: Vec<String> =
        ["hello", "", "hello", "something else", &"x ".repeat(600)].map(Into::into).into();
    let done = node.embed("tiny-bert", texts.clone(), Lane::Interactive).await.unwrap();
    assert_eq!((done.model.as_str(), done.dims, done.cut), ("tiny-bert", 256, 1));
    assert_eq!(done.vectors[0], done.vectors[2]);
    assert_ne!(done.vectors[0], done.vectors[3]);
    for vector in &done.vectors {
        let norm: f32 = vector.iter().map(|v| v * v).sum();
        assert!(vector.len() == 256 && (norm - 1.0).abs() < 1e-5, "{norm}");
    }
    assert_eq!(node.loaded()[0].entry.name, "tiny-bert");
    let whole = EmbedRequest { truncate: false, ..request(texts, Lane::Interactive) };
    match node.embed_request(whole).await.unwrap_err() {
        JobError::ContextLengthExceeded { needed, available, .. } => {
            assert_eq!((needed, available), (602, 512))
        }
        other => panic!("{other:?}"),
    }
    assert!(node.unload("tiny-bert").await.unwrap());
    node.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_installed_or_no_encoder_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path()).await;
    assert_eq!(node.embedder(), None);
    for name in
        ["embedder", "all-minilm:latest", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"]
    {
        let error = node.embed(name, vec!["a".into()], Lane::Interactive).await.unwrap_err();
        assert!(matches!(error, JobError::EmbedderMissing { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains("potluck pull embedder"));
    }
    let error = node.embed("text-embedding-3-small", vec!["a".into()], Lane::Interactive).await.unwrap_err();
    assert!(matches!(error, JobError::ModelNotFound { .. }), "{error:?}");
    let error = node.embed("guide", vec!["a".into()], Lane::Interactive).await.unwrap_err();
    assert!(error.to_string().contains("makes no vectors"), "{error}");
}

/// The real model's files, where the tests have been given them.
fn minilm() -> Option<PathBuf> {
    let folder = std::env::var_os("POTLUCK_TEST_MINILM").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("SKIPPED: POTLUCK_TEST_MINILM names no folder with all-MiniLM-L6-v2");
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedder_put_in_place_by_hand_is_found_and_removed() {
    let Some(files) = minilm() else { return };
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("models/embedder");
    std::fs::create_dir_all(&folder).unwrap();
    for part in minilm::parts() {
        std::fs::copy(files.join(part.file), folder.join(part.file)).unwrap();
    }
    let node = node(home.path()).await;
    let info = node.embedder().unwrap();
    assert_eq!((info.name.as_str(), info.dims), ("embedder", 384));
    assert_eq!(info.model_id, "all-MiniLM-L6-v2:53aa51172d142c89");
    let details = node.show("all-minilm").await.unwrap();
    assert_eq!((details.parameters, details.context), (22_565_376, 256));
    let texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "The stock market fell today."];
    let texts = texts.map(Into::into).to_vec();
    let done = node.embed("all-MiniLM-L6-v2", texts, Lane::Interactive).await.unwrap();
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let (near, far) =
        (cosine(&done.vectors[0], &done.vectors[1]), cosine(&done.vectors[0], &done.vectors[2]));
    assert!(near > 0.5 && far < 0.2, "{near} {far}");
    let long = node.embed("embedder", vec!["word ".repeat(5000)], Lane::Background).await.unwrap();
    assert_eq!((long.tokens, long.cut), (256, 1));
    node.remove("embedder").await.unwrap();
    assert!(node.embedder().is_none() && !folder.exists());
    let error = node.embed("embedder", vec!["a".into()], Lane::Interactive).await.unwrap_err();
    assert!(matches!(error, JobError::EmbedderMissing { .. }), "{error:?}");
}
