//! Attention, the cache and the element-wise ops of the CPU backend against plain loops, and against themselves.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]

use half::f16;
use potluck_kernels::backend::{
    AttentionShape, Backend, Batch, CacheShape, PAGE, RawMatrix, Rope, RopeStyle,
};
use potluck_kernels::cpu::{CpuBackend, Simd};
use potluck_kernels::dtype::DType;

type Act = <CpuBackend as Backend>::Act;

/// Pseudo-random values in −1..1.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Fills an activation by embedding an f32 table; leaves the backend in that step.
fn fill(backend: &mut CpuBackend, values: &[f32], width: usize) -> Act {
    let tokens = values.len() / width;
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let table =
        backend.matrix(&[RawMatrix { dtype: DType::F32, rows: tokens, cols: width, data: &bytes }]).unwrap();
    let indices: Vec<u32> = (0..tokens as u32).collect();
    let batch = Batch {
        tokens: indices.clone(),
        positions: indices,
        sequence: vec![0; tokens],
        tables: Vec::new(),
        outputs: Vec::new(),
    };
    let mut act = backend.activation(tokens, width).unwrap();
    backend.begin(&batch).unwrap();
    backend.embed(&table, &mut act).unwrap();
    act
}

fn read(backend: &mut CpuBackend, rows: usize, act: &Act) -> Vec<f32> {
    let mut out = Vec::new();
    backend.read(rows, act, &mut out).unwrap();
    out
}

/// One layer's attention over sequences of given lengths, fed in steps.
struct Scene {
    shape: AttentionShape,
    rope: Rope,
    norms: bool,
    lengths: Vec<usize>,
}

impl Scene {
    fn new(heads: usize, kv_heads: usize, head_dim: usize, window: Option<u32>, lengths: &[usize]) -> Self {
        let inv_freq = (0..head_dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / head_dim as f32)).collect();
        Self {
            shape: AttentionShape { heads, kv_heads, head_dim, scale: (head_dim as f32).powf(-0.5), window },
            rope: Rope { style: RopeStyle::HalfSplit, inv_freq, magnitude: 1.0 },
            norms: false,
            lengths: lengths.to_vec(),
        }
    }

    /// `[q | k | v]` of a position of a sequence.
    fn qkv(&self, sequence: usize, position: usize) -> Vec<f32> {
        let mut row = noise((sequence * 100_003 + position + 1) as u64, self.shape.qkv_width());
        row.iter_mut().for_each(|v| *v *= 2.0);
        row
    }

    fn tables(&self) -> Vec<Vec<u32>> {
        let pages: Vec<usize> = self.lengths.iter().map(|n| n.div_ceil(PAGE)).collect();
        let total: usize = pages.iter().sum();
        // A fixed shuffle: a step coprime to the count.
        let step = (1..).map(|n| 2 * n + total / 2).find(|step| gcd(*step, total) == 1).unwrap();
        let mut next = 0;
        pages
            .iter()
            .map(|n| {
                (0..*n)
                    .map(|_| {
                        next += step;
                        1 + (next % total) as u32
                    })
                    .collect()
            })
            .collect()
    }

    fn cache_shape(&self) -> CacheShape {
        let pages = self.lengths.iter().map(|n| n.div_ceil(PAGE)).sum::<usize>() + 1;
        CacheShape { layers: 2, pages, kv_heads: self.shape.kv_heads, head_dim: self.shape.head_dim }
    }

    /// Feeds all sequences, `chunk` positions of each per step, and returns the outputs per sequence.
    fn run(&self, backend: &mut CpuBackend, chunk: usize) -> Vec<Vec<f32>> {
        let mut cache = backend.cache(&self.cache_shape()).unwrap();
        let tables = self.tables();
        let (q_norm, k_norm) = (noise(77, self.shape.head_dim), noise(78, self.shape.head_dim));
        let mut outputs = vec![Vec::new(); self.lengths.len()];
        let longest = self.lengths.iter().copied().max().unwrap();
        for start in (0..longest).step_by(chunk) {
            let mut batch = Batch { tables: tables.clone(), ..Batch::default() };
            let mut rows = Vec::new();
            for (sequence, length) in self.lengths.iter().enumerate() {
                for position in start..(start + chunk).min(*length) {
                    batch.tokens.push(0);
                    batch.positions.push(position as u32);
                    batch.sequence.push(sequence as u32);
                    rows.extend(self.qkv(sequence, position));
                }
            }
            let tokens = batch.tokens.len();
            let mut qkv = fill(backend, &rows, self.shape.qkv_width());
            let mut out = backend.activation(tokens, self.shape.q_width()).unwrap();
            backend.begin(&batch).unwrap();
            let norms = self.norms.then_some((&q_norm, &k_norm, 1e-6));
            backend.rope_append(1, &self.shape, &self.rope, norms, &mut qkv, &mut cache).unwrap();
            backend.attention(1, &self.shape, &qkv, &cache, &mut out).unwrap();
            let got = read(backend, tokens, &out);
            for (row, sequence) in got.chunks(self.shape.q_width()).zip(&batch.sequence) {
                outputs[*sequence as usize].extend_from_slice(row);
            }
        }
        outputs
    }

    /// The same in f64, with keys and values rounded to f16.
    fn expected(&self, sequence: usize) -> Vec<f64> {
        let shape = &self.shape;
        let dim = shape.head_dim;
        let (q_norm, k_norm) = (noise(77, dim), noise(78, dim));
        let rotate = |head: &[f32], position: usize, norm: &[f32]| -> Vec<f64> {
            let mut head: Vec<f64> = head.iter().map(|v| f64::from(*v)).collect();
            if self.norms {
                let mean = head.iter().map(|v| v * v).sum::<f64>() / dim as f64;
                head.iter_mut().zip(norm).for_each(|(v, w)| *v *= f64::from(*w) / (mean + 1e-6).sqrt());
            }
            let pairs = self.rope.inv_freq.len();
            for (i, frequency) in self.rope.inv_freq.iter().enumerate() {
                let (a, b) = match self.rope.style {
                    RopeStyle::HalfSplit => (i, i + pairs),
                    RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                };
                let (s, c) = (position as f64 * f64::from(*frequency)).sin_cos();
                let (s, c) = (s * f64::from(self.rope.magnitude), c * f64::from(self.rope.magnitude));
                (head[a], head[b]) = (head[a] * c - head[b] * s, head[a] * s + head[b] * c);
            }
            head
        };
        let round = |v: f64| f64::from(f16::from_f64(v).to_f32());
        let rows: Vec<Vec<f32>> = (0..self.lengths[sequence]).map(|p| self.qkv(sequence, p)).collect();
        let mut out = Vec::new();
        for (position, row) in rows.iter().enumerate() {
            let low = shape.window.map_or(0, |w| (position + 1).saturating_sub(w as usize));
            for head in 0..shape.heads {
                let kv = head / (shape.heads / shape.kv_heads);
                let q = rotate(&row[head * dim..(head + 1) * dim], position, &q_norm);
                let mut weights = Vec::new();
                for (at, other) in rows.iter().enumerate().take(position + 1).skip(low) {
                    let start = (shape.heads + kv) * dim;
                    let k = rotate(&other[start..start + dim], at, &k_norm);
                    let score: f64 = q.iter().zip(&k).map(|(a, b)| a * round(*b)).sum();
                    weights.push(score * f64::from(shape.scale));
                }
                let top = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                weights.iter_mut().for_each(|w| *w = (*w - top).exp());
                let total: f64 = weights.iter().sum();
                for d in 0..dim {
                    let start = (shape.heads + shape.kv_heads + kv) * dim + d;
                    let sum: f64 = weights
                        .iter()
                        .enumerate()
                        .map(|(i, w)| w * round(f64::from(rows[low + i][start])))
                        .sum();
                    out.push(sum / total);
                }
            }
        }
        out
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn close(got: &[f32], expected: &[f64], slack: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((f64::from(*a) - b).abs() <= slack * (1.0 + b.abs()), "{what}: value {i} is {a}, not {b}");
    }
}

fn scenes() -> Vec<Scene> {
    let mut scenes = Vec::new();
    for (i, head_dim) in [8, 32, 64, 80, 96, 128].into_iter().enumerate() {
        let group = [1, 2, 4, 7, 8, 4][i];
        scenes.push(Scene::new(2 * group, 2, head_dim, None, &[70, 33, 5]));
        let mut windowed = Scene::new(group, 1, head_dim, Some([1, 5, 16, 33, 40, 64][i]), &[90, 41]);
        windowed.norms = i % 2 == 0;
        windowed.rope.style = RopeStyle::Interleaved;
        scenes.push(windowed);
    }
    let mut partial = Scene::new(4, 2, 64, None, &[40]);
    partial.rope.inv_freq.truncate(16);
    partial.rope.magnitude = 1.25;
    scenes.push(partial);
    scenes
}

#[test]
fn attention_is_that_of_a_plain_loop() {
    for scene in scenes() {
        for (threads, chunk) in [(1, 1), (2, 24), (2, 128)] {
            let mut backend = CpuBackend::new(threads, None).unwrap();
            for (sequence, got) in scene.run(&mut backend, chunk).iter().enumerate() {
                close(got, &scene.expected(sequence), 3e-4, &format!("{:?}, chunks of {chunk}", scene.shape));
            }
        }
    }
}

#[test]
fn attention_bits_do_not_depend_on_instruction_set_threads_or_batch() {
    let bits =
        |outputs: Vec<Vec<f32>>| -> Vec<u32> { outputs.concat().into_iter().map(f32::to_bits).collect() };
    for scene in scenes() {
        let right = bits(scene.run(&mut CpuBackend::new(1, Some(Simd::Scalar)).unwrap(), 1));
        for simd in Simd::ALL.into_iter().filter(|simd| simd.available()) {
            for (threads, chunk) in [(1, 128), (2, 11), (3, 17), (8, 48)] {
                let mut backend = CpuBackend::new(threads, Some(simd)).unwrap();
                let same = bits(scene.run(&mut backend, chunk)) == right;
                assert!(same, "{:?}: {simd}, {threads} threads, chunks of {chunk}", scene.shape);
            }
        }
    }
}

#[test]
fn encoders_see_their_whole_sequence() {
    let runs = [37usize, 1, 70];
    for (heads, head_dim) in [(3, 32), (2, 8), (1, 80)] {
        let scene = Scene::new(heads, heads, head_dim, None, &runs);
        let (dim, width) = (head_dim, scene.shape.qkv_width());
        let mut rows = Vec::new();
        let mut batch = Batch::default();
        for (sequence, length) in runs.iter().enumerate() {
            for position in 0..*length {
                rows.push(scene.qkv(sequence, position));
                batch.tokens.push(0);
                batch.positions.push(position as u32);
                batch.sequence.push(sequence as u32);
            }
        }
        let mut expected = Vec::new();
        let mut start = 0;
        for length in runs {
            let own = &rows[start..start + length];
            start += length;
            for row in own {
                for head in 0..heads {
                    let part = |row: &[f32], which: usize| -> Vec<f64> {
                        let at = (which * heads + head) * dim;
                        row[at..at + dim].iter().map(|v| f64::from(*v)).collect()
                    };
                    let q = part(row, 0);
                    let mut weights: Vec<f64> = own
                        .iter()
                        .map(|other| q.iter().zip(part(other, 1)).map(|(a, b)| a * b).sum::<f64>())
                        .collect();
                    weights.iter_mut().for_each(|w| *w = (*w * f64::from(scene.shape.scale)).exp());
                    let total: f64 = weights.iter().sum();
                    for d in 0..dim {
                        let sum: f64 = weights.iter().zip(own).map(|(w, other)| w * part(other, 2)[d]).sum();
                        expected.push(sum / total);
                    }
                }
            }
        }
        let mut bits: Option<Vec<u32>> = None;
        for simd in Simd::ALL.into_iter().filter(|simd| simd.available()) {
            for threads in [1, 2, 3] {
                let mut backend = CpuBackend::new(threads, Some(simd)).unwrap();
                let qkv = fill(&mut backend, &rows.concat(), width);
                let mut out = backend.activation(rows.len(), heads * dim).unwrap();
                backend.begin(&batch).unwrap();
                backend.attention_full(&scene.shape, &qkv, &mut out).unwrap();
                let got = read(&mut backend, rows.len(), &out);
                close(&got, &expected, 1e-5, "encoder");
                let got: Vec<u32> = got.into_iter().map(f32::to_bits).collect();
                assert_eq!(*bits.get_or_insert_with(|| got.clone()), got, "{simd}, {threads} threads");
            }
        }
    }
}

#[test]
fn a_copied_page_serves_like_its_original() {
    let scene = Scene::new(4, 2, 64, None, &[20]);
    let mut backend = CpuBackend::new(1, None).unwrap();
    let shape = CacheShape { layers: 2, pages: 4, kv_heads: 2, head_dim: 64 };
    let mut cache = backend.cache(&shape).unwrap();
    let mut step =
        |cache: &mut <CpuBackend as Backend>::Cache, page: u32, positions: std::ops::Range<u32>| {
            let rows: Vec<f32> = positions.clone().flat_map(|p| scene.qkv(0, p as usize)).collect();
            let batch = Batch {
                tokens: vec![0; positions.len()],
                sequence: vec![0; positions.len()],
                positions: positions.clone().collect(),
                tables: vec![vec![page]],
                outputs: Vec::new(),
            };
            let mut qkv = fill(&mut backend, &rows, scene.shape.qkv_width());
            let mut out = backend.activation(positions.len(), scene.shape.q_width()).unwrap();
            backend.begin(&batch).unwrap();
            for layer in 0..2 {
                backend.rope_append(layer, &scene.shape, &scene.rope, None, &mut qkv, cache).unwrap();
            }
            backend.attention(0, &scene.shape, &qkv, cache, &mut out).unwrap();
            read(&mut backend, positions.len(), &out)
        };
    step(&mut cache, 3, 0..19);
    cache_copy(&mut cache, 3, 1);
    let original = step(&mut cache, 3, 19..20);
    let copy = step(&mut cache, 1, 19..20);
    assert_eq!(original, copy);
    let mut backend = CpuBackend::new(1, None).unwrap();
    assert!(backend.copy_page(&mut cache, 0, 4).is_err());
}

fn cache_copy(cache: &mut <CpuBackend as Backend>::Cache, from: u32, to: u32) {
    CpuBackend::new(1, None).unwrap().copy_page(cache, from, to).unwrap();
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let scene = Scene::new(2, 1, 32, None, &[40]);
    let mut backend = CpuBackend::new(1, None).unwrap();
    let mut cache = backend.cache(&scene.cache_shape()).unwrap();
    let good = Batch {
        tokens: vec![0, 0],
        positions: vec![31, 32],
        sequence: vec![0, 0],
        tables: vec![vec![0, 1]],
        outputs: vec![1],
    };
    let mut qkv = backend.activation(2, scene.shape.qkv_width()).unwrap();
    let mut out = backend.activation(2, scene.shape.q_width()).unwrap();
    for bad in [
        Batch { positions: vec![0], ..good.clone() },
        Batch { sequence: vec![0], ..good.clone() },
        Batch { positions: vec![2, 2], ..good.clone() },
        Batch { outputs: vec![2], ..good.clone() },
        Batch { outputs: vec![1, 0], ..good.clone() },
    ] {
        assert!(backend.begin(&bad).is_err(), "{bad:?}");
    }
    for bad in [
        Batch { tables: vec![vec![0]], ..good.clone() },
        Batch { tables: vec![vec![0, 99]], ..good.clone() },
        Batch { tables: vec![], ..good.clone() },
    ] {
        backend.begin(&bad).unwrap();
        assert!(backend.rope_append(0, &scene.shape, &scene.rope, None, &mut qkv, &mut cache).is_err());
        assert!(backend.attention(0, &scene.shape, &qkv, &cache, &mut out).is_err());
    }
    backend.begin(&good).unwrap();
    assert!(backend.rope_append(2, &scene.shape, &scene.rope, None, &mut qkv, &mut cache).is_err());
    backend.rope_append(1, &scene.shape, &scene.rope, None, &mut qkv, &mut cache).unwrap();
    backend.attention(1, &scene.shape, &qkv, &cache, &mut out).unwrap();
}

/// Results of all element-wise ops on `tokens` rows.
fn elementwise(backend: &mut CpuBackend, tokens: usize, width: usize) -> Vec<Vec<f32>> {
    let x = noise(11, tokens * width).iter().map(|v| 4.0 * v).collect::<Vec<_>>();
    let (weight, bias) = (noise(12, width), noise(13, width));
    let mut out = backend.activation(tokens, width).unwrap();
    let mut results = Vec::new();
    let act = fill(backend, &x, width);
    backend.rms_norm(tokens, &act, &weight, 1e-5, &mut out).unwrap();
    results.push(read(backend, tokens, &out));
    let mut act = fill(backend, &x, width);
    backend.layer_norm(&mut act, &weight, &bias, 1e-12).unwrap();
    results.push(read(backend, tokens, &act));
    let mut act = fill(backend, &x, width);
    backend.gelu(&mut act).unwrap();
    results.push(read(backend, tokens, &act));
    let gate_up = noise(14, tokens * 2 * width).iter().map(|v| 6.0 * v).collect::<Vec<_>>();
    let act = fill(backend, &gate_up, 2 * width);
    backend.swiglu(&act, &mut out).unwrap();
    results.push(read(backend, tokens, &out));
    results
}

#[test]
fn norms_and_gates_are_right_and_the_same_everywhere() {
    for (tokens, width) in [(1, 8), (3, 33), (40, 172), (70, 768)] {
        let right = elementwise(&mut CpuBackend::new(1, Some(Simd::Scalar)).unwrap(), tokens, width);
        for simd in Simd::ALL.into_iter().filter(|simd| simd.available()) {
            for threads in [1, 2, 3, 8] {
                let got = elementwise(&mut CpuBackend::new(threads, Some(simd)).unwrap(), tokens, width);
                for (got, right) in got.iter().zip(&right) {
                    assert!(
                        got.iter().zip(right).all(|(a, b)| a.to_bits() == b.to_bits()),
                        "{simd} {threads}"
                    );
                }
            }
        }
        let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
        let x = wide(noise(11, tokens * width).iter().map(|v| 4.0 * v).collect());
        let (weight, bias) = (wide(noise(12, width)), wide(noise(13, width)));
        let (mut rms, mut layer, mut gate) = (Vec::new(), Vec::new(), Vec::new());
        for row in x.chunks(width) {
            let n = width as f64;
            let scale = (row.iter().map(|v| v * v).sum::<f64>() / n + 1e-5).sqrt();
            rms.extend(row.iter().zip(&weight).map(|(v, w)| v / scale * w));
            let mean = row.iter().sum::<f64>() / n;
            let scale = (row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n + 1e-12).sqrt();
            layer.extend((0..width).map(|i| (row[i] - mean) / scale * weight[i] + bias[i]));
        }
        for row in noise(14, tokens * 2 * width).chunks(2 * width) {
            let value = |i: usize| f64::from(6.0 * row[i]);
            gate.extend((0..width).map(|i| value(i) / (1.0 + (-value(i)).exp()) * value(width + i)));
        }
        close(&right[0], &rms, 2e-6, "rms_norm");
        close(&right[1], &layer, 4e-6, "layer_norm");
        close(&right[3], &gate, 4e-6, "swiglu");
        // x·Φ(x) is between 0 and x, and within a few parts in 10⁷ of the exact value (see `cpu::math`).
        assert!(right[2].iter().zip(&x).all(|(y, x)| f64::from(*y).abs() <= x.abs() + 1e-6));
    }
}

#[test]
fn embeddings_and_outputs_pick_rows() {
    let mut backend = CpuBackend::new(2, None).unwrap();
    let width = 40;
    let values = noise(1, 50 * width);
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let table =
        backend.matrix(&[RawMatrix { dtype: DType::F32, rows: 50, cols: width, data: &bytes }]).unwrap();
    let batch = Batch {
        tokens: vec![49, 0, 7],
        positions: vec![3, 4, 5],
        sequence: vec![0; 3],
        tables: Vec::new(),
        outputs: vec![0, 2],
    };
    let mut out = backend.activation(3, width).unwrap();
    let mut picked = backend.activation(2, width).unwrap();
    backend.begin(&batch).unwrap();
    backend.embed(&table, &mut out).unwrap();
    backend.embed_positions(&table, &mut out).unwrap();
    backend.select_outputs(&out, &mut picked).unwrap();
    let got = read(&mut backend, 2, &picked);
    for i in 0..width {
        assert_eq!(got[i], values[49 * width + i] + values[3 * width + i]);
        assert_eq!(got[width + i], values[7 * width + i] + values[5 * width + i]);
    }
    backend.begin(&Batch { tokens: vec![50, 0, 7], ..batch }).unwrap();
    assert!(backend.embed(&table, &mut out).is_err());
}
