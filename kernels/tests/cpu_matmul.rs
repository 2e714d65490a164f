//! Matrix products of the CPU backend against plain loops, and against themselves on other threads, instruction sets
//! and batch sizes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]

use potluck_kernels::backend::{Backend, Batch, RawMatrix};
use potluck_kernels::cpu::{CpuBackend, Simd};
use potluck_kernels::dtype::DType;
use potluck_kernels::quant::{dequantize_row, quantize_row};

/// Bell-shaped pseudo-random values.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| (0..4).map(|_| next()).sum::<f32>()).collect()
}

/// A stored matrix and what it decodes to.
struct Stored {
    dtype: DType,
    rows: usize,
    cols: usize,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Stored {
    fn new(dtype: DType, rows: usize, cols: usize) -> Self {
        let (mut bytes, mut values) = (Vec::new(), vec![0.0; rows * cols]);
        for row in noise((rows * cols) as u64, rows * cols).chunks(cols) {
            quantize_row(dtype, row, &mut bytes).unwrap();
        }
        let size = dtype.bytes_for(cols).unwrap();
        for (row, out) in bytes.chunks(size).zip(values.chunks_mut(cols)) {
            dequantize_row(dtype, row, out).unwrap();
        }
        Self { dtype, rows, cols, bytes, values }
    }

    fn raw(&self) -> RawMatrix<'_> {
        RawMatrix { dtype: self.dtype, rows: self.rows, cols: self.cols, data: &self.bytes }
    }
}

/// Puts values into an activation through the only way in: an embedding of an f32 table.
fn activation(
    backend: &mut CpuBackend,
    tokens: usize,
    width: usize,
    values: &[f32],
) -> <CpuBackend as Backend>::Act {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let table =
        backend.matrix(&[RawMatrix { dtype: DType::F32, rows: tokens, cols: width, data: &bytes }]).unwrap();
    let batch = Batch {
        tokens: (0..tokens as u32).collect(),
        positions: (0..tokens as u32).collect(),
        sequence: vec![0; tokens],
        tables: Vec::new(),
        outputs: Vec::new(),
    };
    let mut act = backend.activation(tokens, width).unwrap();
    backend.begin(&batch).unwrap();
    backend.embed(&table, &mut act).unwrap();
    act
}

/// `[tokens, rows]` of one product, with bias and onto old values when `extras`.
fn product(backend: &mut CpuBackend, parts: &[&Stored], x: &[f32], tokens: usize, extras: bool) -> Vec<f32> {
    let cols = parts[0].cols;
    let rows: usize = parts.iter().map(|part| part.rows).sum();
    let raw: Vec<RawMatrix<'_>> = parts.iter().map(|part| part.raw()).collect();
    let w = backend.matrix(&raw).unwrap();
    let x = activation(backend, tokens, cols, x);
    let bias = backend.vector(&noise(5, rows)).unwrap();
    let old: Vec<f32> = (0..tokens).flat_map(|_| noise(6, rows)).collect();
    let mut out = activation(backend, tokens, rows, &old);
    backend.matmul(tokens, &w, &x, extras.then_some(&bias), extras, &mut out).unwrap();
    let mut got = Vec::new();
    backend.read(tokens, &out, &mut got).unwrap();
    got
}

/// What the product should be, in f64; activations as they are quantised when `int`.
fn expected(parts: &[&Stored], x: &[f32], tokens: usize, int: bool) -> Vec<f64> {
    let cols = parts[0].cols;
    let mut out = Vec::new();
    for x in x.chunks(cols).take(tokens) {
        let mut x: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        if int {
            for block in x.chunks_mut(32) {
                let top = block.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                let (scale, inverse) = (top as f32 / 127.0, 127.0 / top as f32);
                for v in block {
                    let q = (*v as f32 * inverse).round_ties_even();
                    *v = f64::from(q) * f64::from(scale);
                }
            }
        }
        for part in parts {
            for row in part.values.chunks(cols) {
                out.push(row.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum());
            }
        }
    }
    out
}

fn distance(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let error: f64 = got.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    let norm: f64 = expected.iter().map(|b| b * b).sum();
    (error / norm).sqrt()
}

fn shapes(dtype: DType) -> Vec<(usize, usize)> {
    let cols: &[usize] = match dtype.block() {
        1 => &[32, 64, 172, 256, 768],
        32 => &[32, 64, 256, 768],
        _ => &[256, 768],
    };
    cols.iter().flat_map(|cols| [1, 17, 33].map(|rows| (rows, *cols))).collect()
}

#[test]
fn products_are_those_of_the_decoded_weights() {
    let mut backend = CpuBackend::new(2, None).unwrap();
    for dtype in DType::ALL {
        for (rows, cols) in shapes(dtype) {
            let stored = Stored::new(dtype, rows, cols);
            for tokens in [1, 3, 9, 40] {
                let x = noise(tokens as u64, tokens * cols);
                let got = product(&mut backend, &[&stored], &x, tokens, false);
                // A few sums may cancel to nearly nothing, which makes relative errors large.
                let few = rows * tokens < 16;
                let exact = distance(&got, &expected(&[&stored], &x, tokens, !dtype.is_float()));
                assert!(
                    exact < if few { 1e-3 } else { 1e-5 },
                    "{dtype} {rows}×{cols}, {tokens} tokens: {exact} off its own quantisation"
                );
                let plain = distance(&got, &expected(&[&stored], &x, tokens, false));
                assert!(plain < 2e-2 || few, "{dtype} {rows}×{cols}, {tokens} tokens: {plain} off");
            }
        }
    }
}

#[test]
fn extreme_levels_do_not_overflow() {
    // All levels at their largest, against activations at ±127 levels, is where 16-bit sums would saturate.
    for dtype in DType::ALL.into_iter().filter(|dtype| !dtype.is_float()) {
        let cols = 512;
        for sign in [1.0, -1.0] {
            let row: Vec<f32> = (0..cols).map(|i| if i % 16 == 15 { -4.0 } else { 4.0 * sign }).collect();
            let mut bytes = Vec::new();
            quantize_row(dtype, &row, &mut bytes).unwrap();
            let mut values = vec![0.0; cols];
            dequantize_row(dtype, &bytes, &mut values).unwrap();
            let stored = Stored { dtype, rows: 1, cols, bytes, values };
            let x = vec![sign * 3.0; cols];
            let right = expected(&[&stored], &x, 1, true);
            for simd in Simd::ALL.into_iter().filter(|simd| simd.available()) {
                let mut backend = CpuBackend::new(1, Some(simd)).unwrap();
                let off = distance(&product(&mut backend, &[&stored], &x, 1, false), &right);
                assert!(off < 1e-5, "{dtype} on {simd}: {off}");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_instruction_set_threads_or_batch() {
    let tokens = 47;
    for dtype in DType::ALL {
        for (rows, cols) in [(33, 768), (80, if dtype.is_float() { 172 } else { 256 })] {
            let stored = Stored::new(dtype, rows, cols);
            let x = noise(3, tokens * cols);
            let mut reference = CpuBackend::new(1, Some(Simd::Scalar)).unwrap();
            let right = product(&mut reference, &[&stored], &x, tokens, true);
            for simd in Simd::ALL.into_iter().filter(|simd| simd.available()) {
                for threads in [1, 2, 3, 8] {
                    let mut backend = CpuBackend::new(threads, Some(simd)).unwrap();
                    let batches: &[usize] =
                        if threads == 1 { &[1, 2, 7, 8, 13, 32, 33, 47] } else { &[7, 47] };
                    for &batch in batches {
                        let got: Vec<f32> = x
                            .chunks(batch * cols)
                            .flat_map(|x| product(&mut backend, &[&stored], x, x.len() / cols, true))
                            .collect();
                        let same = got.iter().zip(&right).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{dtype} {rows}×{cols}: {simd}, {threads} threads, {batch} at once");
                    }
                }
            }
        }
    }
}

#[test]
fn long_rows_and_many_tokens_keep_their_bits() {
    // More columns than a panel and more tokens than a chunk.
    for dtype in [DType::F16, DType::Q8_0, DType::Q4_K, DType::Q6_K] {
        let (rows, cols, tokens) = (48, 1280, 530);
        let stored = Stored::new(dtype, rows, cols);
        let x = noise(3, tokens * cols);
        let mut backend = CpuBackend::new(2, None).unwrap();
        let all = product(&mut backend, &[&stored], &x, tokens, false);
        let off = distance(&all, &expected(&[&stored], &x, tokens, !dtype.is_float()));
        assert!(off < 1e-5, "{dtype}: {off}");
        for token in [0, 1, 257, 511, 512, 529] {
            let one = product(&mut backend, &[&stored], &x[token * cols..(token + 1) * cols], 1, false);
            assert_eq!(one, all[token * rows..(token + 1) * rows], "{dtype} token {token}");
        }
    }
}

#[test]
fn stacked_parts_of_different_types_are_one_matrix() {
    let parts = [(DType::Q4_K, 40), (DType::Q6_K, 24), (DType::F16, 7), (DType::Q8_0, 33)]
        .map(|(dtype, rows)| Stored::new(dtype, rows, 256));
    let parts: Vec<&Stored> = parts.iter().collect();
    for threads in [1, 3] {
        let mut backend = CpuBackend::new(threads, None).unwrap();
        for tokens in [1, 4, 35] {
            let x = noise(9, tokens * 256);
            let got = product(&mut backend, &parts, &x, tokens, false);
            assert!(distance(&got, &expected(&parts, &x, tokens, false)) < 2e-2);
            let mut alone = vec![Vec::<f32>::new(); tokens];
            for part in &parts {
                let one = product(&mut backend, &[part], &x, tokens, false);
                alone.iter_mut().zip(one.chunks(part.rows)).for_each(|(all, one)| all.extend(one));
            }
            assert_eq!(got, alone.concat());
        }
    }
}

#[test]
fn zeros_infinities_and_tiny_values_are_defined() {
    let stored = Stored::new(DType::Q8_0, 16, 64);
    for value in [0.0, 1e-40, 1e-31, f32::INFINITY, f32::NAN, f32::MAX] {
        let x = vec![value; 64];
        let mut bits = Vec::new();
        for simd in Simd::ALL.into_iter().filter(|simd| simd.available()) {
            let mut backend = CpuBackend::new(1, Some(simd)).unwrap();
            let got = product(&mut backend, &[&stored], &x, 1, false);
            bits.push(got.iter().map(|v| if v.is_nan() { 0 } else { v.to_bits() }).collect::<Vec<_>>());
        }
        assert!(bits.windows(2).all(|pair| pair[0] == pair[1]), "{value}");
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let mut backend = CpuBackend::new(1, None).unwrap();
    let stored = Stored::new(DType::Q8_0, 16, 64);
    let w = backend.matrix(&[stored.raw()]).unwrap();
    assert!(backend.matrix(&[]).is_err());
    let short = RawMatrix { data: &stored.bytes[1..], ..stored.raw() };
    assert!(backend.matrix(&[short]).is_err());
    let other = Stored::new(DType::Q8_0, 16, 96);
    assert!(backend.matrix(&[stored.raw(), other.raw()]).is_err());
    let (x, mut out) = (backend.activation(2, 64).unwrap(), backend.activation(2, 16).unwrap());
    assert!(backend.matmul(2, &w, &x, None, false, &mut out).is_ok());
    assert!(backend.matmul(0, &w, &x, None, false, &mut out).is_ok());
    assert!(backend.matmul(3, &w, &x, None, false, &mut out).is_err());
    assert!(backend.matmul(2, &w, &x, Some(&vec![0.0; 15]), false, &mut out).is_err());
    let mut narrow = backend.activation(2, 15).unwrap();
    assert!(backend.matmul(2, &w, &x, None, false, &mut narrow).is_err());
}
