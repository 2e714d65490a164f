//! Plain scalar f32 arithmetic to hold the GPU kernels against, and a device to run them on.
#![allow(dead_code, reason = "each test binary uses its share")]

use half::f16;
use potluck_kernels::backend::BackendError;
use potluck_kernels::cube::{CubeBackend, Options, Selection};
use potluck_kernels::dtype::DType;

/// A backend on a real GPU if there is one, else on a software Vulkan driver. `None` when the tests are to be
/// skipped.
pub(crate) fn backend(options: Options) -> Option<CubeBackend> {
    if std::env::var("POTLUCK_SKIP_GPU").as_deref() == Ok("1") {
        eprintln!("POTLUCK_SKIP_GPU=1: skipped");
        return None;
    }
    let open = |selection| CubeBackend::with_options(Options { selection, ..options });
    match open(Selection::Auto) {
        Ok(backend) => Some(backend),
        Err(BackendError::Unavailable { .. }) => Some(open(Selection::Software).unwrap_or_else(|e| {
            panic!("{e}. Install a Vulkan driver (Debian: mesa-vulkan-drivers), or set POTLUCK_SKIP_GPU=1.")
        })),
        Err(e) => panic!("{e}"),
    }
}

/// A small generator of numbers, the same on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn word(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Evenly in -1..1.
    pub(crate) fn unit(&mut self) -> f32 {
        self.word() as f32 / 2f32.powi(31) - 1.0
    }

    pub(crate) fn vector(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }

    pub(crate) fn below(&mut self, n: u32) -> u32 {
        self.word() % n
    }
}

/// `blocks` blocks of `dtype` with random contents and sane scales.
pub(crate) fn random_blocks(random: &mut Random, dtype: DType, blocks: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..blocks {
        let mut block: Vec<u8> = (0..dtype.block_bytes()).map(|_| random.word() as u8).collect();
        let mut put = |at: usize, v: f32| block[at..at + 2].copy_from_slice(&f16::from_f32(v).to_le_bytes());
        match dtype {
            DType::F32 => block.copy_from_slice(&random.unit().to_le_bytes()),
            // Every tenth one subnormal as a half.
            DType::F16 if random.below(10) == 0 => put(0, random.unit() * 3e-5),
            DType::F16 => put(0, random.unit()),
            DType::BF16 => block.copy_from_slice(&half::bf16::from_f32(random.unit()).to_le_bytes()),
            DType::Q8_0 => put(0, random.unit() / 127.0),
            DType::Q4_0 | DType::Q5_0 => put(0, random.unit() / 16.0),
            DType::Q4_1 | DType::Q5_1 => {
                put(0, random.unit() / 16.0);
                put(2, random.unit());
            }
            DType::Q4_K | DType::Q5_K => {
                put(0, random.unit() / 600.0);
                put(2, random.unit() / 64.0);
            }
            DType::Q6_K => put(208, random.unit() / 3000.0),
        }
        bytes.extend(block);
    }
    bytes
}

/// Decodes whole blocks, after the formats' descriptions in ggml.
pub(crate) fn dequantise(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let half = |b: &[u8], at: usize| f16::from_le_bytes([b[at], b[at + 1]]).to_f32();
    let mut out = Vec::new();
    for b in bytes.chunks_exact(dtype.block_bytes()) {
        match dtype {
            DType::F32 => out.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            DType::F16 => out.push(half(b, 0)),
            DType::BF16 => out.push(half::bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            DType::Q8_0 => out.extend(b[2..].iter().map(|&q| half(b, 0) * f32::from(q as i8))),
            DType::Q4_0 => {
                for i in 0..32 {
                    let q = if i < 16 { b[2 + i] & 15 } else { b[2 + i - 16] >> 4 };
                    out.push(half(b, 0) * (f32::from(q) - 8.0));
                }
            }
            DType::Q4_1 => {
                for i in 0..32 {
                    let q = if i < 16 { b[4 + i] & 15 } else { b[4 + i - 16] >> 4 };
                    out.push(half(b, 0) * f32::from(q) + half(b, 2));
                }
            }
            DType::Q5_0 | DType::Q5_1 => {
                let h = if dtype == DType::Q5_0 { 2 } else { 4 };
                let bits = u32::from_le_bytes([b[h], b[h + 1], b[h + 2], b[h + 3]]);
                for i in 0..32 {
                    let q = if i < 16 { b[h + 4 + i] & 15 } else { b[h + 4 + i - 16] >> 4 };
                    let q = f32::from(q) + if bits >> i & 1 == 1 { 16.0 } else { 0.0 };
                    out.push(if h == 2 { half(b, 0) * (q - 16.0) } else { half(b, 0) * q + half(b, 2) });
                }
            }
            DType::Q4_K | DType::Q5_K => {
                let s = &b[4..16];
                for i in 0..256 {
                    let g = i / 32;
                    let (scale, min) = if g < 4 {
                        (s[g] & 63, s[g + 4] & 63)
                    } else {
                        (s[g + 4] & 15 | (s[g - 4] >> 6) << 4, s[g + 4] >> 4 | (s[g] >> 6) << 4)
                    };
                    let start = if dtype == DType::Q4_K { 16 } else { 48 };
                    let byte = b[start + i / 64 * 32 + i % 32];
                    let mut q = if g % 2 == 0 { byte & 15 } else { byte >> 4 };
                    if dtype == DType::Q5_K && b[16 + i % 32] >> g & 1 == 1 {
                        q += 16;
                    }
                    out.push(half(b, 0) * f32::from(scale) * f32::from(q) - half(b, 2) * f32::from(min));
                }
            }
            DType::Q6_K => {
                for i in 0..256 {
                    let (part, within) = (i / 128, i % 128);
                    let low = b[part * 64 + within % 64];
                    let low = if within < 64 { low & 15 } else { low >> 4 };
                    let high = b[128 + part * 32 + within % 32] >> (within / 32 * 2) & 3;
                    let q = f32::from(low | high << 4) - 32.0;
                    out.push(half(b, 208) * f32::from(b[192 + i / 16] as i8) * q);
                }
            }
        }
    }
    out
}

/// `out[t] = w · x[t]`.
pub(crate) fn product(w: &[f32], rows: usize, cols: usize, x: &[f32], tokens: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(tokens * rows);
    for t in 0..tokens {
        for r in 0..rows {
            let mut sum = 0.0f64;
            for c in 0..cols {
                sum += f64::from(w[r * cols + c]) * f64::from(x[t * cols + c]);
            }
            out.push(sum as f32);
        }
    }
    out
}

/// Attention of the q part of fused rows; `keys(t)` lists, for token t, pairs of (k, v) rows it sees, each
/// `kv_heads · dim` wide.
pub(crate) fn attend(
    q: &[f32],
    (heads, kv_heads, dim): (usize, usize, usize),
    scale: f32,
    seen: &[(&[f32], &[f32])],
) -> Vec<f32> {
    let mut out = Vec::new();
    for h in 0..heads {
        let kv = h / (heads / kv_heads);
        let q = &q[h * dim..(h + 1) * dim];
        let scores: Vec<f64> = seen
            .iter()
            .map(|(k, _)| {
                let k = &k[kv * dim..(kv + 1) * dim];
                q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() * f64::from(scale)
            })
            .collect();
        let most = scores.iter().copied().fold(f64::MIN, f64::max);
        let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
        for c in 0..dim {
            let sum: f64 = scores
                .iter()
                .zip(seen)
                .map(|(s, (_, v))| (s - most).exp() * f64::from(v[kv * dim + c]))
                .sum();
            out.push((sum / total) as f32);
        }
    }
    out
}

/// Norm of the difference over the norm of `expected`.
pub(crate) fn distance(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len(), "lengths");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let off = norm(&mut got.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    off / norm(&mut expected.iter().map(|v| f64::from(*v))).max(1e-30)
}

/// Fails when the results are further apart than `tolerance` (relative norm).
#[track_caller]
pub(crate) fn close(what: &str, got: &[f32], expected: &[f32], tolerance: f64) {
    let off = distance(got, expected);
    assert!(off <= tolerance, "{what}: relative distance {off:.3e} is above {tolerance:.0e}");
}
