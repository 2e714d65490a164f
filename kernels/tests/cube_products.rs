//! Matrix products and table look-ups of the GPU backend against scalar loops.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail loudly")]

#[path = "common_cube/reference.rs"]
mod reference;

use potluck_kernels::backend::{Backend, Batch, RawMatrix};
use potluck_kernels::cube::{CubeBackend, CubeMatrix, Options};
use potluck_kernels::dtype::DType;
use reference::{Random, backend, close, dequantise, product, random_blocks};

/// Floats differ by the order of summation; quantised weights are decoded exactly, but summed with their
/// offsets apart.
fn tolerance(dtype: DType) -> f64 {
    if dtype.is_float() { 1e-5 } else { 2e-5 }
}

fn random_matrix(random: &mut Random, dtype: DType, rows: usize, cols: usize) -> (Vec<u8>, Vec<f32>) {
    let data = random_blocks(random, dtype, rows * cols / dtype.block());
    let values = dequantise(dtype, &data);
    (data, values)
}

fn batch(tokens: usize) -> Batch {
    Batch {
        tokens: vec![0; tokens],
        positions: (0..tokens as u32).collect(),
        sequence: vec![0; tokens],
        tables: vec![vec![]],
        outputs: vec![],
    }
}

fn run(gpu: &mut CubeBackend, w: &CubeMatrix, x: &[f32], tokens: usize) -> Vec<f32> {
    let xs = upload(gpu, x, tokens, w.cols());
    let mut out = gpu.activation(tokens + 1, w.rows()).unwrap();
    gpu.matmul(tokens, w, &xs, None, false, &mut out).unwrap();
    let mut got = Vec::new();
    gpu.read(tokens, &out, &mut got).unwrap();
    got
}

/// Activations can only be written by ops: a table of the rows wanted, looked up.
fn upload(gpu: &mut CubeBackend, x: &[f32], tokens: usize, width: usize) -> <CubeBackend as Backend>::Act {
    let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let table =
        gpu.matrix(&[RawMatrix { dtype: DType::F32, rows: tokens, cols: width, data: &bytes }]).unwrap();
    let mut act = gpu.activation(tokens, width).unwrap();
    let mut batch = batch(tokens);
    batch.tokens = (0..tokens as u32).collect();
    gpu.begin(&batch).unwrap();
    gpu.embed(&table, &mut act).unwrap();
    act
}

/// Every type over odd numbers of rows and columns, with every number of tokens that changes the kernel.
///
/// Compiling a kernel is what takes the time on a software driver, so that numbers of tokens other than the
/// first two go to the types with the most different loads.
fn every_type(gpu: &mut CubeBackend, tokens: &[usize]) {
    let mut random = Random(7);
    for dtype in DType::ALL {
        let shapes: &[(usize, usize)] = if dtype.block() == 256 {
            &[(1, 256), (17, 768), (130, 256)]
        } else if dtype.block() == 32 {
            &[(1, 32), (17, 64), (130, 768), (17, 96)]
        } else {
            &[(1, 32), (17, 172), (130, 768), (17, 35)]
        };
        for &(rows, cols) in shapes {
            let (data, values) = random_matrix(&mut random, dtype, rows, cols);
            let w = gpu.matrix(&[RawMatrix { dtype, rows, cols, data: &data }]).unwrap();
            let few = matches!(dtype, DType::F32 | DType::Q8_0 | DType::Q6_K);
            for &n in if few { tokens } else { &tokens[..tokens.len().min(2)] } {
                let x = random.vector(n * cols);
                let got = run(gpu, &w, &x, n);
                let expected = product(&values, rows, cols, &x, n);
                close(&format!("{dtype} {rows}×{cols}, {n} tokens"), &got, &expected, tolerance(dtype));
            }
        }
    }
}

#[test]
fn products_of_every_type() {
    let Some(mut gpu) = backend(Options { planes: Some(false), ..Options::default() }) else { return };
    every_type(&mut gpu, &[1, 33, 3, 8]);
}

#[test]
fn products_with_planes() {
    let Some(mut gpu) = backend(Options { planes: Some(true), ..Options::default() }) else { return };
    every_type(&mut gpu, &[1]);
}

#[test]
fn stacked_types_shards_bias_and_accumulation() {
    // 16 KiB per buffer: rows of 768 columns come in shards of 5 (f32) to 42 (4 bits).
    let Some(mut gpu) = backend(Options { shard_bytes: Some(16 << 10), ..Options::default() }) else {
        return;
    };
    let mut random = Random(11);
    let cols = 768;
    let parts = [(DType::Q4_K, 100), (DType::Q4_K, 30), (DType::Q6_K, 33), (DType::F16, 17), (DType::F32, 7)];
    let stored: Vec<_> = parts.iter().map(|&(t, rows)| random_matrix(&mut random, t, rows, cols)).collect();
    let raw: Vec<_> = parts
        .iter()
        .zip(&stored)
        .map(|(&(dtype, rows), (data, _))| RawMatrix { dtype, rows, cols, data })
        .collect();
    let w = gpu.matrix(&raw).unwrap();
    assert_eq!(w.shards(), 4 + 1 + 2 + 2, "130 rows by 42, 33 rows of 6 bits, 17 by 10, 7 by 5");
    let values: Vec<f32> = stored.iter().flat_map(|(_, v)| v.clone()).collect();
    let rows = w.rows();
    let bias = random.vector(rows);
    let bias_there = gpu.vector(&bias).unwrap();
    for n in [1, 5, 12, 33] {
        let x = random.vector(n * cols);
        let before = random.vector(n * rows);
        let expected = product(&values, rows, cols, &x, n);
        let xs = upload(&mut gpu, &x, n, cols);
        let mut out = upload(&mut gpu, &before, n, rows);
        let mut got = Vec::new();
        gpu.matmul(n, &w, &xs, None, true, &mut out).unwrap();
        gpu.read(n, &out, &mut got).unwrap();
        let plus: Vec<f32> = expected.iter().zip(&before).map(|(a, b)| a + b).collect();
        close(&format!("accumulated, {n} tokens"), &got, &plus, 2e-5);
        gpu.matmul(n, &w, &xs, Some(&bias_there), false, &mut out).unwrap();
        gpu.read(n, &out, &mut got).unwrap();
        let plus: Vec<f32> = expected.iter().enumerate().map(|(i, a)| a + bias[i % rows]).collect();
        close(&format!("with bias, {n} tokens"), &got, &plus, 2e-5);
        gpu.matmul(n, &w, &xs, Some(&bias_there), true, &mut out).unwrap();
        gpu.read(n, &out, &mut got).unwrap();
        let twice: Vec<f32> = plus
            .iter()
            .map(|a| a + a)
            .enumerate()
            .map(|(i, a)| a - bias[i % rows] + bias[i % rows])
            .collect();
        close(&format!("both, {n} tokens"), &got, &twice, 2e-5);
    }
}

#[test]
fn rows_of_tables() {
    let Some(mut gpu) = backend(Options { shard_bytes: Some(16 << 10), ..Options::default() }) else {
        return;
    };
    let mut random = Random(13);
    let rows = 130;
    for dtype in DType::ALL {
        let cols = if dtype.is_float() { 172 } else { 256 };
        let (data, values) = random_matrix(&mut random, dtype, rows, cols);
        let table = gpu.matrix(&[RawMatrix { dtype, rows, cols, data: &data }]).unwrap();
        let n = 9;
        let mut batch = batch(n);
        batch.tokens = (0..n).map(|_| random.below(rows as u32)).collect();
        batch.tokens[0] = rows as u32 - 1;
        batch.positions = (40..40 + n as u32).collect();
        gpu.begin(&batch).unwrap();
        let mut out = gpu.activation(n, cols).unwrap();
        gpu.embed(&table, &mut out).unwrap();
        let row = |i: u32| &values[i as usize * cols..(i as usize + 1) * cols];
        let expected: Vec<f32> = batch.tokens.iter().flat_map(|&t| row(t).to_vec()).collect();
        let mut got = Vec::new();
        gpu.read(n, &out, &mut got).unwrap();
        close(&format!("rows of {dtype}"), &got, &expected, 1e-6);
        gpu.embed_positions(&table, &mut out).unwrap();
        gpu.read(n, &out, &mut got).unwrap();
        let plus: Vec<f32> =
            expected.iter().zip(batch.positions.iter().flat_map(|&p| row(p))).map(|(a, b)| a + b).collect();
        close(&format!("positions of {dtype}"), &got, &plus, 1e-6);
    }
    // A token that the table does not have is refused before any kernel runs.
    let (data, _) = random_matrix(&mut random, DType::F32, 4, 8);
    let table = gpu.matrix(&[RawMatrix { dtype: DType::F32, rows: 4, cols: 8, data: &data }]).unwrap();
    let mut out = gpu.activation(1, 8).unwrap();
    let mut one = batch(1);
    one.tokens = vec![4];
    gpu.begin(&one).unwrap();
    assert!(gpu.embed(&table, &mut out).is_err());
}
