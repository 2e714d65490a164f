//! Generated models, and the same models in candle.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::{io::Cursor, path::PathBuf};

use candle_core::{Device, IndexOp, Tensor, quantized::gguf_file};
use candle_transformers::models::{quantized_llama, quantized_qwen2, quantized_qwen3};
use potluck_kernels::{
    dtype::DType,
    gguf::{Gguf, GgufWriter, Value},
    model::Architecture,
    synthetic::{Kind, Spec},
};

/// The storage types that every comparison covers.
pub const DTYPES: [DType; 6] =
    [DType::F32, DType::F16, DType::Q8_0, DType::Q4_0, DType::Q4_K, DType::Q6_K];

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

/// Logits of every position from candle, fed token by token. `bytes` must be in a layout candle knows.
pub fn candle_logits(bytes: &[u8], tokens: &[u32]) -> Vec<Vec<f32>> {
    enum Model {
        Llama(quantized_llama::ModelWeights),
        Qwen2(quantized_qwen2::ModelWeights),
        Qwen3(quantized_qwen3::ModelWeights),
    }
    let device = Device::Cpu;
    let mut reader = Cursor::new(bytes);
    let content = gguf_file::Content::read(&mut reader).expect("candle reads the file");
    let architecture = content.metadata["general.architecture"].to_string().expect("text").clone();
    let mut model = match architecture.as_str() {
        "llama" => Model::Llama(
            quantized_llama::ModelWeights::from_gguf(content, &mut reader, &device).expect("a llama"),
        ),
        "qwen2" => Model::Qwen2(
            quantized_qwen2::ModelWeights::from_gguf(content, &mut reader, &device).expect("a qwen2"),
        ),
        "qwen3" => Model::Qwen3(
            quantized_qwen3::ModelWeights::from_gguf(content, &mut reader, &device).expect("a qwen3"),
        ),
        other => panic!("candle has no {other}"),
    };
    tokens
        .iter()
        .enumerate()
        .map(|(position, &token)| {
            let input = Tensor::new(&[token], &device).and_then(|t| t.unsqueeze(0)).expect("a token");
            let logits = match &mut model {
                Model::Llama(m) => m.forward(&input, position),
                Model::Qwen2(m) => m.forward(&input, position),
                Model::Qwen3(m) => m.forward(&input, position),
            };
            let logits = logits.and_then(|l| l.i(0)).and_then(|l| l.flatten_all()).expect("logits");
            logits.to_vec1::<f32>().expect("f32")
        })
        .collect()
}

/// Test data that is not part of the project; says so when it is missing.
pub fn test_data(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("POTLUCK_TEST_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let file = root.join(path);
    if file.exists() {
        return Some(file);
    }
    println!("SKIPPED: {} is not there (set POTLUCK_TEST_DATA)", file.display());
    None
}
