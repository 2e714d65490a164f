//! The CPU backend's kernels, one by one, next to the memory's own speed.
//!
//! `read_ceiling` streams a buffer larger than every cache; a matrix-vector product cannot move its weights
//! faster. Criterion prints bytes per second for both, so that the ratio can be read off one run.
#![allow(clippy::unwrap_used, reason = "a bench that cannot set up has nothing to measure")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use potluck_kernels::{
    backend::{AttentionShape, Backend, Batch, CacheShape, PAGE, RawMatrix, Rope, RopeStyle},
    cpu::CpuBackend,
    dtype::DType,
    quant,
};

const THREADS: usize = 2;
/// A projection of a 1B model: 8192 × 2048 weights, past every cache in any type.
const SHAPE: (usize, usize) = (8192, 2048);
const TYPES: [DType; 6] = [DType::F32, DType::F16, DType::Q8_0, DType::Q4_0, DType::Q4_K, DType::Q6_K];

/// Values in −0.5 … 0.5 from a counter, so that every run sees the same ones.
fn values(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5).collect()
}

fn backend() -> CpuBackend {
    CpuBackend::new(THREADS, None).unwrap()
}

fn weights(dtype: DType) -> Vec<u8> {
    let row = values(SHAPE.1);
    let mut bytes = Vec::new();
    quant::quantize_row(dtype, &row, &mut bytes).unwrap();
    bytes.repeat(SHAPE.0)
}

fn read_ceiling(c: &mut Criterion) {
    let buffer = vec![1u64; 32 << 20];
    let mut group = c.benchmark_group("read_ceiling");
    group.throughput(Throughput::Bytes((buffer.len() * 8) as u64));
    group.bench_function("two threads", |b| {
        b.iter(|| {
            std::thread::scope(|scope| {
                for half in buffer.chunks(buffer.len() / THREADS) {
                    scope.spawn(move || black_box(half.iter().fold(0u64, |sum, &x| sum.wrapping_add(x))));
                }
            });
        });
    });
    group.finish();
}

/// Matrix products at one token (bytes per second of weights) and at 512 (multiply-adds as elements).
fn matmul(c: &mut Criterion) {
    for tokens in [1usize, 8, 512] {
        let mut group = c.benchmark_group(format!("matmul/{tokens} tokens"));
        group.sample_size(10);
        for dtype in TYPES {
            let bytes = weights(dtype);
            let mut cpu = backend();
            let raw = RawMatrix { dtype, rows: SHAPE.0, cols: SHAPE.1, data: &bytes };
            let matrix = cpu.matrix(&[raw]).unwrap();
            let norm = cpu.vector(&vec![1.0; SHAPE.1]).unwrap();
            let table = cpu
                .matrix(&[RawMatrix {
                    dtype: DType::F32,
                    rows: 1,
                    cols: SHAPE.1,
                    data: &values(SHAPE.1).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>(),
                }])
                .unwrap();
            let mut x = cpu.activation(tokens, SHAPE.1).unwrap();
            let mut h = cpu.activation(tokens, SHAPE.1).unwrap();
            let mut out = cpu.activation(tokens, SHAPE.0).unwrap();
            cpu.begin(&one_sequence(tokens, 0)).unwrap();
            cpu.embed(&table, &mut x).unwrap();
            cpu.rms_norm(tokens, &x, &norm, 1e-5, &mut h).unwrap();
            group.throughput(if tokens == 512 {
                Throughput::Elements((tokens * SHAPE.0 * SHAPE.1) as u64)
            } else {
                Throughput::Bytes(bytes.len() as u64)
            });
            group.bench_function(BenchmarkId::from_parameter(dtype), |b| {
                b.iter(|| cpu.matmul(tokens, &matrix, &h, None, false, &mut out).unwrap());
            });
        }
        group.finish();
    }
}

/// `tokens` tokens of one sequence that begins at `start`.
fn one_sequence(tokens: usize, start: usize) -> Batch {
    let pages = (start + tokens).div_ceil(PAGE);
    Batch {
        tokens: vec![0; tokens],
        positions: (start..start + tokens).map(|p| p as u32).collect(),
        sequence: vec![0; tokens],
        tables: vec![(0..pages as u32).collect()],
        outputs: vec![],
    }
}

/// Attention of one token over a filled cache, in bytes of keys and values per second.
fn attention(c: &mut Criterion) {
    let shape = AttentionShape { heads: 32, kv_heads: 8, head_dim: 64, scale: 0.125, window: None };
    let rope = Rope {
        style: RopeStyle::Interleaved,
        inv_freq: (0..32).map(|i| 10_000f32.powf(-(i as f32) / 32.0)).collect(),
        magnitude: 1.0,
    };
    let mut group = c.benchmark_group("attention/1 token");
    for depth in [512usize, 4096] {
        let mut cpu = backend();
        let cache_shape = CacheShape { layers: 1, pages: depth / PAGE + 1, kv_heads: 8, head_dim: 64 };
        let mut cache = cpu.cache(&cache_shape).unwrap();
        let mut qkv = cpu.activation(1, shape.qkv_width()).unwrap();
        let mut out = cpu.activation(1, shape.q_width()).unwrap();
        for position in 0..=depth {
            cpu.begin(&one_sequence(1, position)).unwrap();
            cpu.rope_append(0, &shape, &rope, None, &mut qkv, &mut cache).unwrap();
        }
        group.throughput(Throughput::Bytes((depth * 8 * 64 * 2 * 2) as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{depth} positions")), |b| {
            b.iter(|| cpu.attention(0, &shape, &qkv, &cache, &mut out).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, read_ceiling, matmul, attention);
criterion_main!(benches);
