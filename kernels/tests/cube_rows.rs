//! Norms, activation functions, copies and errors of the GPU backend against scalar loops.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail loudly")]

#[path = "common_cube/reference.rs"]
mod reference;

use potluck_kernels::backend::{Backend, BackendError, Batch, RawMatrix};
use potluck_kernels::cube::{AdapterKind, CubeBackend, Options, Selection, adapters};
use potluck_kernels::dtype::DType;
use reference::{Random, backend, close};

fn batch(tokens: usize) -> Batch {
    Batch {
        tokens: (0..tokens as u32).collect(),
        positions: (0..tokens as u32).collect(),
        sequence: vec![0; tokens],
        tables: vec![vec![]],
        outputs: vec![],
    }
}

/// Begins a step of `tokens` tokens and puts `x` into an activation buffer.
fn upload(gpu: &mut CubeBackend, x: &[f32], tokens: usize) -> <CubeBackend as Backend>::Act {
    let cols = x.len() / tokens;
    let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let table = gpu.matrix(&[RawMatrix { dtype: DType::F32, rows: tokens, cols, data: &bytes }]).unwrap();
    let mut act = gpu.activation(tokens, cols).unwrap();
    gpu.begin(&batch(tokens)).unwrap();
    gpu.embed(&table, &mut act).unwrap();
    act
}

fn read(gpu: &mut CubeBackend, rows: usize, act: &<CubeBackend as Backend>::Act) -> Vec<f32> {
    let mut got = Vec::new();
    gpu.read(rows, act, &mut got).unwrap();
    got
}

fn norms(gpu: &mut CubeBackend) {
    let mut random = Random(3);
    for (tokens, width) in [(1, 8), (3, 172), (33, 768)] {
        let x: Vec<f32> = random.vector(tokens * width).iter().map(|v| v * 3.0 + 0.5).collect();
        let weight = random.vector(width);
        let bias = random.vector(width);
        let (w, b) = (gpu.vector(&weight).unwrap(), gpu.vector(&bias).unwrap());
        let mut act = upload(gpu, &x, tokens);
        let mut out = gpu.activation(tokens, width).unwrap();
        gpu.rms_norm(tokens, &act, &w, 1e-5, &mut out).unwrap();
        let expected: Vec<f32> = x
            .chunks(width)
            .flat_map(|row| {
                let mean = row.iter().map(|v| v * v).sum::<f32>() / width as f32;
                row.iter().zip(&weight).map(|(v, w)| v / (mean + 1e-5).sqrt() * w).collect::<Vec<_>>()
            })
            .collect();
        close(&format!("rms_norm {tokens} × {width}"), &read(gpu, tokens, &out), &expected, 1e-5);
        gpu.layer_norm(&mut act, &w, &b, 1e-12).unwrap();
        let expected: Vec<f32> = x
            .chunks(width)
            .flat_map(|row| {
                let mean = row.iter().sum::<f32>() / width as f32;
                let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / width as f32;
                let factor = 1.0 / (variance + 1e-12).sqrt();
                row.iter()
                    .enumerate()
                    .map(|(i, v)| (v - mean) * factor * weight[i] + bias[i])
                    .collect::<Vec<_>>()
            })
            .collect();
        close(&format!("layer_norm {tokens} × {width}"), &read(gpu, tokens, &act), &expected, 1e-5);
    }
}

#[test]
fn norms_by_shared_memory_and_by_planes() {
    for planes in [false, true] {
        let Some(mut gpu) = backend(Options { planes: Some(planes), ..Options::default() }) else { return };
        norms(&mut gpu);
    }
}

/// erf by its series, in f64.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn activation_functions() {
    let Some(mut gpu) = backend(Options::default()) else { return };
    let mut random = Random(5);
    for (tokens, width) in [(1, 8), (5, 172)] {
        let x: Vec<f32> = random.vector(tokens * 2 * width).iter().map(|v| v * 5.0).collect();
        let act = upload(&mut gpu, &x, tokens);
        let mut out = gpu.activation(tokens, width).unwrap();
        gpu.swiglu(&act, &mut out).unwrap();
        let expected: Vec<f32> = x
            .chunks(2 * width)
            .flat_map(|row| {
                let (gate, up) = row.split_at(width);
                gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect::<Vec<_>>()
            })
            .collect();
        close("swiglu", &read(&mut gpu, tokens, &out), &expected, 1e-5);

        let mut act = upload(&mut gpu, &x, tokens);
        gpu.gelu(&mut act).unwrap();
        let expected: Vec<f32> = x
            .iter()
            .map(|&v| (f64::from(v) * 0.5 * (1.0 + erf(f64::from(v) / 2f64.sqrt()))) as f32)
            .collect();
        let got = read(&mut gpu, tokens, &act);
        close("gelu", &got, &expected, 1e-6);
        for (g, e) in got.iter().zip(&expected) {
            assert!((g - e).abs() < 2e-6, "gelu: {g} for {e}");
        }
    }
    // Far out: no NaN, no overflow.
    let x = [-1e30, -200.0, 200.0, 1e30, 1.0, 1.0, 1.0, 1.0];
    let act = upload(&mut gpu, &x, 1);
    let mut out = gpu.activation(1, 4).unwrap();
    gpu.swiglu(&act, &mut out).unwrap();
    assert_eq!(read(&mut gpu, 1, &out), [0.0, 0.0, 200.0, 1e30]);
    let mut act = upload(&mut gpu, &x[1..3], 1);
    gpu.gelu(&mut act).unwrap();
    assert_eq!(read(&mut gpu, 1, &act), [0.0, 200.0]);
}

#[test]
fn rows_that_are_asked_for() {
    let Some(mut gpu) = backend(Options::default()) else { return };
    let mut random = Random(9);
    let (tokens, width) = (17, 40);
    let x = random.vector(tokens * width);
    let act = upload(&mut gpu, &x, tokens);
    let mut step = batch(tokens);
    step.outputs = vec![0, 5, 16];
    gpu.begin(&step).unwrap();
    let mut out = gpu.activation(4, width).unwrap();
    gpu.select_outputs(&act, &mut out).unwrap();
    let expected: Vec<f32> =
        [0usize, 5, 16].iter().flat_map(|&r| x[r * width..(r + 1) * width].to_vec()).collect();
    assert_eq!(read(&mut gpu, 3, &out), expected);
}

#[test]
fn errors_are_typed_and_leave_the_backend_usable() {
    let Some(mut gpu) = backend(Options::default()) else { return };
    // More than any device gives out in one buffer.
    match gpu.activation(60_000, 1 << 30) {
        Err(BackendError::OutOfMemory { backend: "gpu", bytes, .. }) => assert!(bytes > 1 << 40),
        other => panic!("{other:?}"),
    }
    let mut uneven = batch(3);
    uneven.positions.pop();
    assert!(matches!(gpu.begin(&uneven), Err(BackendError::Shape { op: "begin", .. })));
    let mut gap = batch(3);
    gap.positions = vec![0, 2, 3];
    assert!(matches!(gpu.begin(&gap), Err(BackendError::Shape { op: "begin", .. })));
    let short = [0u8; 10];
    let raw = RawMatrix { dtype: DType::Q8_0, rows: 1, cols: 32, data: &short };
    assert!(matches!(gpu.matrix(&[raw]), Err(BackendError::Shape { .. })));
    assert!(gpu.matrix(&[]).is_err());

    let x = [1.0, 2.0, 3.0, 4.0];
    let act = upload(&mut gpu, &x, 1);
    let mut out = gpu.activation(1, 3).unwrap();
    assert!(matches!(gpu.swiglu(&act, &mut out), Err(BackendError::Shape { op: "swiglu", .. })));
    let mut got = Vec::new();
    assert!(gpu.read(2, &act, &mut got).is_err());
    assert_eq!(read(&mut gpu, 1, &act), x);
}

#[test]
fn adapters_are_listed_and_chosen_by_number() {
    if std::env::var("POTLUCK_SKIP_GPU").as_deref() == Ok("1") {
        return;
    }
    let list = adapters();
    assert!(!list.is_empty(), "no Vulkan driver: install one, or set POTLUCK_SKIP_GPU=1");
    for adapter in &list {
        eprintln!("{adapter:?}");
        assert!(!adapter.name.is_empty() && adapter.max_buffer > 0 && adapter.shared_memory >= 16 << 10);
    }
    assert!(CubeBackend::new(Selection::Index(0)).is_ok());
    assert!(matches!(CubeBackend::new(Selection::Index(99)), Err(BackendError::Unavailable { .. })));
    if list.iter().any(|a| a.kind == AdapterKind::Software) {
        let gpu = CubeBackend::new(Selection::Software).unwrap();
        assert!(!gpu.uses_planes(), "CubeCL does not report planes on software adapters");
        assert!(gpu.describe().starts_with("gpu: "));
    }
}

#[test]
fn a_backend_can_move_to_another_thread() {
    let Some(mut gpu) = backend(Options::default()) else { return };
    let act = upload(&mut gpu, &[1.0, 2.0], 1);
    let got = std::thread::spawn(move || {
        let mut got = Vec::new();
        gpu.read(1, &act, &mut got).unwrap();
        got
    })
    .join()
    .unwrap();
    assert_eq!(got, [1.0, 2.0]);
}
