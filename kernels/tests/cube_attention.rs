//! Rotation, the paged cache and attention of the GPU backend against scalar loops.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail loudly")]

#[path = "common_cube/reference.rs"]
mod reference;

use half::f16;
use potluck_kernels::backend::{
    AttentionShape, Backend, Batch, CacheShape, PAGE, PageId, RawMatrix, Rope, RopeStyle,
};
use potluck_kernels::cube::{CubeBackend, Options};
use potluck_kernels::dtype::DType;
use reference::{Random, attend, backend, close};

type Act = <CubeBackend as Backend>::Act;

/// A buffer with `x` in it. Leaves a step of `tokens` single tokens begun.
fn upload(gpu: &mut CubeBackend, x: &[f32], tokens: usize) -> Act {
    let cols = x.len() / tokens;
    let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let table = gpu.matrix(&[RawMatrix { dtype: DType::F32, rows: tokens, cols, data: &bytes }]).unwrap();
    let mut act = gpu.activation(tokens, cols).unwrap();
    let ids: Vec<u32> = (0..tokens as u32).collect();
    gpu.begin(&Batch {
        tokens: ids.clone(),
        positions: ids,
        sequence: vec![0; tokens],
        tables: vec![vec![]],
        outputs: vec![],
    })
    .unwrap();
    gpu.embed(&table, &mut act).unwrap();
    act
}

fn read(gpu: &mut CubeBackend, rows: usize, act: &Act) -> Vec<f32> {
    let mut got = Vec::new();
    gpu.read(rows, act, &mut got).unwrap();
    got
}

fn through_half(v: f32) -> f32 {
    f16::from_f32(v).to_f32()
}

/// One sequence as the reference knows it: the keys and values of all its positions, as the cache keeps them.
#[derive(Default, Clone)]
struct Known {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    pages: Vec<PageId>,
}

struct World {
    shape: AttentionShape,
    rope: Rope,
    norms: Option<(Vec<f32>, Vec<f32>)>,
    sequences: Vec<Known>,
    free: Vec<PageId>,
}

impl World {
    fn new(
        shape: AttentionShape,
        style: RopeStyle,
        rotated: usize,
        norms: bool,
        pages: u32,
        random: &mut Random,
    ) -> Self {
        let inv_freq = (0..rotated / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / rotated as f32)).collect();
        let mut free: Vec<PageId> = (0..pages).collect();
        for i in (1..free.len()).rev() {
            free.swap(i, random.below(i as u32 + 1) as usize);
        }
        let norms = norms.then(|| (random.vector(shape.head_dim), random.vector(shape.head_dim)));
        Self { rope: Rope { style, inv_freq, magnitude: 1.0 }, shape, norms, sequences: Vec::new(), free }
    }

    fn rotate(&self, head: &mut [f32], position: usize, norm: Option<&Vec<f32>>) {
        if let Some(weight) = norm {
            let mean = head.iter().map(|v| v * v).sum::<f32>() / head.len() as f32;
            for (v, w) in head.iter_mut().zip(weight) {
                *v = *v / (mean + 1e-6).sqrt() * w;
            }
        }
        let pairs = self.rope.inv_freq.len();
        for (i, f) in self.rope.inv_freq.iter().enumerate() {
            let (a, b) = match self.rope.style {
                RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                RopeStyle::HalfSplit => (i, i + pairs),
            };
            let (sin, cos) = (position as f32 * f).sin_cos();
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
        }
    }

    /// Adds `counts[s]` tokens to each sequence; gives the batch, its rows, and what attention must yield.
    fn step(&mut self, counts: &[usize], random: &mut Random) -> (Batch, Vec<f32>, Vec<f32>, Vec<f32>) {
        let AttentionShape { heads, kv_heads, head_dim: dim, scale, window } = self.shape.clone();
        let mut batch = Batch::default();
        let (mut rows, mut rotated, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (s, &count) in counts.iter().enumerate() {
            if self.sequences.len() <= s {
                self.sequences.push(Known::default());
            }
            for _ in 0..count {
                let position = self.sequences[s].keys.len();
                if position.is_multiple_of(PAGE) {
                    let page = self.free.pop().unwrap();
                    self.sequences[s].pages.push(page);
                }
                let row = random.vector(self.shape.qkv_width());
                let (mut q, rest) = (row[..heads * dim].to_vec(), &row[heads * dim..]);
                let (mut k, v) = (rest[..kv_heads * dim].to_vec(), &rest[kv_heads * dim..]);
                for head in q.chunks_mut(dim) {
                    self.rotate(head, position, self.norms.as_ref().map(|n| &n.0));
                }
                for head in k.chunks_mut(dim) {
                    self.rotate(head, position, self.norms.as_ref().map(|n| &n.1));
                }
                let known = &mut self.sequences[s];
                known.keys.push(k.iter().map(|v| through_half(*v)).collect());
                known.values.push(v.iter().map(|v| through_half(*v)).collect());
                let first = window.map_or(0, |w| (position + 1).saturating_sub(w as usize));
                let seen: Vec<_> =
                    (first..=position).map(|p| (&known.keys[p][..], &known.values[p][..])).collect();
                expected.extend(attend(&q, (heads, kv_heads, dim), scale, &seen));
                rotated.extend(q);
                rows.extend(row);
                batch.tokens.push(0);
                batch.positions.push(position as u32);
                batch.sequence.push(s as u32);
            }
        }
        batch.tables = self.sequences.iter().map(|s| s.pages.clone()).collect();
        (batch, rows, rotated, expected)
    }
}

/// Runs steps through `rope_append` and `attention` of layer 1 of 2 and compares queries and results.
fn check(gpu: &mut CubeBackend, world: &mut World, pages: usize, steps: &[&[usize]], random: &mut Random) {
    let shape = world.shape.clone();
    let mut cache = gpu
        .cache(&CacheShape { layers: 2, pages, kv_heads: shape.kv_heads, head_dim: shape.head_dim })
        .unwrap();
    let norms = world.norms.clone().map(|(q, k)| (gpu.vector(&q).unwrap(), gpu.vector(&k).unwrap()));
    for counts in steps {
        let (batch, rows, rotated, expected) = world.step(counts, random);
        let tokens = batch.tokens.len();
        let mut qkv = upload(gpu, &rows, tokens);
        let mut out = gpu.activation(tokens, shape.q_width()).unwrap();
        gpu.begin(&batch).unwrap();
        let head_norms = norms.as_ref().map(|(q, k)| (q, k, 1e-6));
        gpu.rope_append(1, &shape, &world.rope, head_norms, &mut qkv, &mut cache).unwrap();
        gpu.attention(1, &shape, &qkv, &cache, &mut out).unwrap();
        let got = read(gpu, tokens, &qkv);
        let queries: Vec<f32> =
            got.chunks(shape.qkv_width()).flat_map(|row| row[..shape.q_width()].to_vec()).collect();
        close(&format!("queries of {shape:?} after {counts:?}"), &queries, &rotated, 1e-5);
        // Keys are rounded to half floats after a rotation that may differ in the last bit of an f32.
        close(&format!("{shape:?} after {counts:?}"), &read(gpu, tokens, &out), &expected, 2e-4);
    }
}

fn shape(heads: usize, kv_heads: usize, head_dim: usize, window: Option<u32>) -> AttentionShape {
    AttentionShape { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), window }
}

#[test]
fn attention_over_group_sizes_and_head_widths() {
    let Some(mut gpu) = backend(Options::default()) else { return };
    let mut random = Random(17);
    let cases = [
        (4, 4, 8, RopeStyle::Interleaved, None, false),
        (4, 2, 32, RopeStyle::HalfSplit, Some(9), true),
        (8, 2, 64, RopeStyle::Interleaved, None, false),
        (7, 1, 80, RopeStyle::HalfSplit, Some(40), false),
        (16, 2, 128, RopeStyle::HalfSplit, None, true),
    ];
    for (heads, kv_heads, dim, style, window, norms) in cases {
        let rotated = if dim == 80 { 32 } else { dim };
        let mut world =
            World::new(shape(heads, kv_heads, dim, window), style, rotated, norms, 24, &mut random);
        // Prefill of several sequences, decode, and a mixture, across page borders.
        let steps: [&[usize]; 4] = [&[33, 5, 1], &[1, 1, 1], &[3, 0, 70], &[1, 1, 1]];
        check(&mut gpu, &mut world, 24, &steps, &mut random);
    }
}

#[test]
fn long_contexts_are_split_and_merged() {
    let Some(mut gpu) = backend(Options::default()) else { return };
    let mut random = Random(19);
    for window in [None, Some(150)] {
        let mut world = World::new(shape(4, 1, 64, window), RopeStyle::HalfSplit, 64, false, 40, &mut random);
        let before = gpu.launches();
        check(&mut gpu, &mut world, 40, &[&[300, 200], &[1, 1], &[1, 7]], &mut random);
        assert!(gpu.launches() > before);
    }
}

#[test]
fn a_copied_page_serves_another_sequence() {
    let Some(mut gpu) = backend(Options::default()) else { return };
    let mut random = Random(23);
    let shape = shape(4, 2, 32, None);
    let mut world = World::new(shape.clone(), RopeStyle::HalfSplit, 32, false, 12, &mut random);
    let mut cache = gpu.cache(&CacheShape { layers: 1, pages: 12, kv_heads: 2, head_dim: 32 }).unwrap();
    let mut run = |gpu: &mut CubeBackend, world: &mut World, cache: &mut _, counts: &[usize], what: &str| {
        let (batch, rows, _, expected) = world.step(counts, &mut random);
        let tokens = batch.tokens.len();
        let mut qkv = upload(gpu, &rows, tokens);
        let mut out = gpu.activation(tokens, shape.q_width()).unwrap();
        gpu.begin(&batch).unwrap();
        gpu.rope_append(0, &shape, &world.rope, None, &mut qkv, cache).unwrap();
        gpu.attention(0, &shape, &qkv, cache, &mut out).unwrap();
        close(what, &read(gpu, tokens, &out), &expected, 2e-4);
    };
    run(&mut gpu, &mut world, &mut cache, &[40], "the first sequence");
    // A second sequence shares the first page and gets a copy of the second, which both go on to write.
    let mut second = world.sequences[0].clone();
    let copy = world.free.pop().unwrap();
    gpu.copy_page(&mut cache, second.pages[1], copy).unwrap();
    second.pages[1] = copy;
    world.sequences.push(second);
    run(&mut gpu, &mut world, &mut cache, &[2, 3], "both sequences");
    run(&mut gpu, &mut world, &mut cache, &[1, 1], "both sequences again");
    assert!(gpu.copy_page(&mut cache, 0, 12).is_err(), "there is no page 12");
}

#[test]
fn encoders_see_all_tokens_of_their_sequence() {
    let Some(mut gpu) = backend(Options::default()) else { return };
    let mut random = Random(29);
    for (heads, kv_heads, dim) in [(12, 12, 32), (2, 1, 8), (4, 4, 64)] {
        let shape = shape(heads, kv_heads, dim, None);
        let lengths = [1usize, 70, 9];
        let tokens: usize = lengths.iter().sum();
        let rows = random.vector(tokens * shape.qkv_width());
        let qkv = upload(&mut gpu, &rows, tokens);
        let mut batch = Batch { tokens: vec![0; tokens], tables: vec![vec![]; 3], ..Batch::default() };
        let mut expected = Vec::new();
        let mut start = 0;
        for (s, n) in lengths.into_iter().enumerate() {
            batch.positions.extend(0..n as u32);
            batch.sequence.extend(vec![s as u32; n]);
            let row = |t: usize| &rows[(start + t) * shape.qkv_width()..(start + t + 1) * shape.qkv_width()];
            let (k, v) = (heads * dim, (heads + kv_heads) * dim);
            let seen: Vec<_> = (0..n).map(|t| (&row(t)[k..v], &row(t)[v..])).collect();
            for t in 0..n {
                expected.extend(attend(&row(t)[..k], (heads, kv_heads, dim), shape.scale, &seen));
            }
            start += n;
        }
        gpu.begin(&batch).unwrap();
        let mut out = gpu.activation(tokens, shape.q_width()).unwrap();
        gpu.attention_full(&shape, &qkv, &mut out).unwrap();
        close(&format!("{shape:?}"), &read(&mut gpu, tokens, &out), &expected, 1e-5);
    }
}

#[test]
fn missing_pages_and_layers_are_refused() {
    let Some(mut gpu) = backend(Options::default()) else { return };
    let shape = shape(2, 1, 8, None);
    let rope = Rope { style: RopeStyle::HalfSplit, inv_freq: vec![1.0; 4], magnitude: 1.0 };
    let mut cache = gpu.cache(&CacheShape { layers: 1, pages: 2, kv_heads: 1, head_dim: 8 }).unwrap();
    let mut qkv = gpu.activation(1, shape.qkv_width()).unwrap();
    let one = |position: u32, table: Vec<PageId>| Batch {
        tokens: vec![0],
        positions: vec![position],
        sequence: vec![0],
        tables: vec![table],
        outputs: vec![],
    };
    gpu.begin(&one(40, vec![0])).unwrap();
    assert!(gpu.rope_append(0, &shape, &rope, None, &mut qkv, &mut cache).is_err(), "no page for 40");
    gpu.begin(&one(0, vec![2])).unwrap();
    assert!(gpu.rope_append(0, &shape, &rope, None, &mut qkv, &mut cache).is_err(), "no page 2");
    gpu.begin(&one(0, vec![1])).unwrap();
    assert!(gpu.rope_append(1, &shape, &rope, None, &mut qkv, &mut cache).is_err(), "no layer 1");
    assert!(gpu.rope_append(0, &shape, &rope, None, &mut qkv, &mut cache).is_ok());
}
