//! Generated models, and how far logits are apart.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::path::PathBuf;

use potluck_kernels::{
    backend::{Backend, Batch},
    dtype::DType,
    gguf::{Gguf, GgufWriter, Value},
    model::{Architecture, Decoder, LoadOptions},
    reference::ReferenceDecoder,
    synthetic::{Kind, Spec},
};

/// The storage types that every comparison covers.
pub const DTYPES: [DType; 6] = [DType::F32, DType::F16, DType::Q8_0, DType::Q4_0, DType::Q4_K, DType::Q6_K];

/// How far logits may be apart, relative to their norm.
pub fn tolerance(dtype: DType) -> f64 {
    if dtype.is_float() { 1e-3 } else { 2e-2 }
}

/// A small model of this family.
pub fn small(architecture: Architecture, dtype: DType) -> Vec<u8> {
    Spec::small(Kind::Decoder(architecture)).bytes(dtype).expect("a valid specification")
}

/// Text for forced decoding: token ids that do not repeat soon.
pub fn text(len: usize, vocab: usize) -> Vec<u32> {
    let mut state = 12_345u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocab as u64) as u32
        })
        .collect()
}

/// `‖a − b‖ / ‖b‖`.
pub fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
    let norm: f64 = b.iter().map(|&b| square(f64::from(b))).sum();
    (difference / norm).sqrt()
}

/// The largest and the mean error over rows, and the share of rows with the same largest logit.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    pub worst: f64,
    pub mean: f64,
    pub top1: f64,
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worst {:.2e}, mean {:.2e}, top-1 {:.2} %", self.worst, self.mean, 100.0 * self.top1)
    }
}

pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best
}

/// Compares logits position by position.
pub fn compare(a: &[Vec<f32>], b: &[Vec<f32>]) -> Comparison {
    assert_eq!(a.len(), b.len());
    let errors: Vec<f64> = a.iter().zip(b).map(|(a, b)| relative_error(a, b)).collect();
    let same = a.iter().zip(b).filter(|(a, b)| argmax(a) == argmax(b)).count();
    Comparison {
        worst: errors.iter().copied().fold(0.0, f64::max),
        mean: errors.iter().sum::<f64>() / errors.len() as f64,
        top1: same as f64 / errors.len() as f64,
    }
}

/// The same file under other keys, without tensors that a reader does not know.
pub fn rewrite(gguf: &Gguf, from: &str, to: &str, without: &[&str]) -> Vec<u8> {
    let mut metadata = potluck_kernels::gguf::Metadata::default();
    for (key, value) in gguf.metadata().iter() {
        if without.contains(&key) {
            continue;
        }
        let key = match key.strip_prefix(from) {
            Some(rest) if rest.starts_with('.') => format!("{to}{rest}"),
            _ => key.to_owned(),
        };
        let value = if key == "general.architecture" { Value::String(to.to_owned()) } else { value.clone() };
        metadata.insert(key, value);
    }
    let mut writer = GgufWriter::new(metadata);
    for tensor in gguf.tensors().iter().filter(|t| !without.contains(&t.name.as_str())) {
        writer.tensor(&tensor.name, &tensor.dims, tensor.dtype, gguf.data(tensor).to_vec());
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).expect("a vector takes everything");
    bytes
}

/// Test data that is not part of the project; says so when it is missing.
pub fn test_data(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("POTLUCK_TEST_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let file = root.join(path);
    if file.exists() {
        return Some(file);
    }
    println!("SKIPPED: {} is not there (set POTLUCK_TEST_DATA)", file.display());
    None
}

/// Logits of every position from the plain reference.
pub fn reference_logits(gguf: &Gguf, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut model = ReferenceDecoder::load(gguf).expect("a supported model");
    tokens.iter().map(|&t| model.forward(t).expect("a known token")).collect()
}

/// A decoder on a backend with room for one sequence of 544 positions and more.
pub fn load<B: Backend>(gguf: &Gguf, backend: B) -> Decoder<B> {
    let options = LoadOptions { max_batch_tokens: 128, max_outputs: 128, cache_pages: 20 };
    Decoder::load(gguf, backend, options, &mut |_, _| {}).expect("the model loads")
}

/// Logits of every position, fed in steps of `step` tokens into scattered pages.
pub fn forced<B: Backend>(decoder: &mut Decoder<B>, tokens: &[u32], step: usize) -> Vec<Vec<f32>> {
    let vocab = decoder.config().vocab;
    let table: Vec<u32> = (0..20).map(|i| (i * 7 + 3) % 20).collect();
    let mut out = Vec::new();
    for (chunk, start) in tokens.chunks(step).zip((0u32..).step_by(step)) {
        let count = chunk.len() as u32;
        let batch = Batch {
            tokens: chunk.to_vec(),
            positions: (start..start + count).collect(),
            sequence: vec![0; chunk.len()],
            tables: vec![table.clone()],
            outputs: (0..count).collect(),
        };
        out.extend(decoder.forward(&batch).expect("a step").chunks(vocab).map(<[f32]>::to_vec));
    }
    out
}
