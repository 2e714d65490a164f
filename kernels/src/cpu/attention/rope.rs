//! Rotary embeddings and writing to the cache.

use super::{PAGE, Pages, padded};
use crate::backend::{AttentionShape, PageId, Rope, RopeStyle};
use crate::cpu::buffer::Shared;
use crate::cpu::elementwise::RmsNorm;
use crate::cpu::isa::{Isa, Kernel, LANES};
use crate::cpu::math::sin_cos;

/// Cosines and sines of a step's positions, `[token][pair]` each.
#[derive(Debug, Default)]
pub(crate) struct Angles {
    /// What the numbers were computed for.
    of: Option<(u64, Rope)>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// Computes the angles unless those of this step and rotation are there.
    pub(crate) fn prepare(&mut self, step: u64, positions: &[u32], rope: &Rope) {
        if self.of.as_ref().is_some_and(|(of, with)| *of == step && with == rope) {
            return;
        }
        self.cos.clear();
        self.sin.clear();
        let magnitude = f64::from(rope.magnitude);
        for position in positions {
            for frequency in &rope.inv_freq {
                let (sin, cos) = sin_cos(f64::from(*position) * f64::from(*frequency));
                self.cos.push((cos * magnitude) as f32);
                self.sin.push((sin * magnitude) as f32);
            }
        }
        match &mut self.of {
            Some((of, with)) if with == rope => *of = step,
            of => *of = Some((step, rope.clone())),
        }
    }
}

/// Normalises, rotates and appends the tokens of a range.
pub(crate) struct Append<'a> {
    pub(crate) shape: &'a AttentionShape,
    pub(crate) style: RopeStyle,
    pub(crate) pairs: usize,
    pub(crate) angles: &'a Angles,
    /// Weights of the norms of q and k heads, and eps.
    pub(crate) norms: Option<(Shared<f32>, Shared<f32>, f32)>,
    pub(crate) qkv: Shared<f32>,
    pub(crate) positions: &'a [u32],
    pub(crate) sequence: &'a [u32],
    pub(crate) tables: &'a [Vec<PageId>],
    pub(crate) pages: Pages<u16>,
    pub(crate) tokens: std::ops::Range<usize>,
}

impl Kernel for Append<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let shape = self.shape;
        let (dim, width) = (shape.head_dim, shape.qkv_width());
        for token in self.tokens.clone() {
            // SAFETY: qkv is `[tokens, qkv_width]` and this token has one thread.
            let row = unsafe { self.qkv.get().add(token * width) };
            if let Some((q, k, eps)) = self.norms {
                let heads = [(row, q, shape.heads), (row.wrapping_add(shape.q_width()), k, shape.kv_heads)];
                for (x, weight, count) in heads {
                    let x = Shared::new(x);
                    RmsNorm { x, out: x, weight, steps: (dim, dim), width: dim, eps, rows: 0..count }.run(s);
                }
            }
            let angles = token * self.pairs..(token + 1) * self.pairs;
            let (cos, sin) = (&self.angles.cos[angles.clone()], &self.angles.sin[angles]);
            for head in 0..shape.heads + shape.kv_heads {
                // SAFETY: the q and k heads are at the start of the row; 2 · pairs <= head_dim was checked.
                let head = unsafe { std::slice::from_raw_parts_mut(row.add(head * dim), dim) };
                rotate(self.style, cos, sin, head);
            }
            let position = self.positions[token] as usize;
            let page = self.tables[self.sequence[token] as usize][position / PAGE] as usize;
            for head in 0..shape.kv_heads {
                // SAFETY: tables were checked; no other token has this position of this sequence.
                unsafe {
                    let k = row.add((shape.heads + head) * dim);
                    let v = k.add(shape.kv_heads * dim);
                    let keys = self.pages.key(page, head).add(position % PAGE);
                    let values = self.pages.value(page, head).add(position % PAGE * padded(dim));
                    let mut at = 0;
                    while at < dim {
                        let n = LANES.min(dim - at);
                        let mut halves = [0u16; LANES];
                        s.store_f16(halves.as_mut_ptr(), s.load_n(k.add(at), n));
                        for (d, half) in halves.iter().enumerate().take(n) {
                            keys.add((at + d) * PAGE).write(*half);
                        }
                        s.store_f16(values.add(at), s.load_n(v.add(at), n));
                        at += LANES;
                    }
                }
            }
        }
    }
}

/// Rotates the pairs of one head.
#[inline(always)]
fn rotate(style: RopeStyle, cos: &[f32], sin: &[f32], head: &mut [f32]) {
    match style {
        RopeStyle::Interleaved => {
            for ((pair, c), s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                let (a, b) = (pair[0], pair[1]);
                pair[0] = a * c - b * s;
                pair[1] = a * s + b * c;
            }
        }
        RopeStyle::HalfSplit => {
            let (first, rest) = head.split_at_mut(cos.len());
            for (((a, b), c), s) in first.iter_mut().zip(rest).zip(cos).zip(sin) {
                (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
            }
        }
    }
}
