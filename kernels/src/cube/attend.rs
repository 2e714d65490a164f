//! Choosing and launching the kernels of attention, and what rotation needs from the host.

use cubecl::prelude::{CubeCount, CubeDim};

use super::attention::{self, AttentionPlan};
use super::ops::shape_error;
use super::step::TILE_SIZES;
use super::weights::Words;
use super::{CubeAct, CubeBackend, arg};
use crate::backend::{AttentionShape, BackendError, Rope};

/// Cubes that keep a large GPU busy; attention splits its keys until there are so many.
const BUSY: usize = 512;
/// Queries that one attention cube handles at most, and shared memory that it may take.
const MOST_QUERIES: u32 = 16;
const ATTENTION_SHARED: usize = 32 << 10;

impl CubeBackend {
    /// Tokens per attention cube: as many as share keys, as far as queries and shared memory allow.
    fn attention_plan(&self, shape: &AttentionShape, cached: bool) -> (AttentionPlan, u32, usize) {
        let mut best = None;
        for (&size, &(start, tiles)) in TILE_SIZES.iter().zip(&self.step.tiles) {
            let plan = AttentionPlan {
                heads: shape.heads as u32,
                kv_heads: shape.kv_heads as u32,
                head_dim: shape.head_dim as u32,
                tokens: size as u32,
                cached,
                split: false,
            };
            let allowed = plan.queries() <= MOST_QUERIES
                && plan.shared_bytes() <= self.shared_memory.min(ATTENTION_SHARED)
                && tiles * size < 2 * self.step.tokens;
            if best.is_none() || allowed {
                best = Some((plan, start, tiles));
            }
        }
        // `TILE_SIZES` is not empty, so there always is one.
        best.unwrap_or((
            AttentionPlan { heads: 1, kv_heads: 1, head_dim: 4, tokens: 1, cached, split: false },
            0,
            0,
        ))
    }

    pub(crate) fn attend(
        &mut self,
        op: &'static str,
        shape: &AttentionShape,
        qkv: &CubeAct,
        cache: Option<&(Words, Words)>,
        out: &CubeAct,
    ) -> Result<(), BackendError> {
        let tokens = self.step.tokens;
        let (mut plan, tiles, count) = self.attention_plan(shape, cache.is_some());
        let needed = plan.shared_bytes();
        if needed > self.shared_memory {
            return Err(shape_error(
                op,
                format!("queries that fit {} bytes of shared memory", self.shared_memory),
                format!("{needed} bytes for {shape:?}"),
            ));
        }
        let window = shape.window.unwrap_or(0);
        let keys = if cache.is_some() { self.step.max_position as usize + 1 } else { self.step.longest };
        let seen = if window > 0 { keys.min(window as usize + plan.tokens as usize) } else { keys };
        // Two blocks of keys per split at least, or merging costs more than it saves.
        let blocks = seen.div_ceil(attention::BLOCK as usize);
        let splits = (BUSY / (count * shape.kv_heads).max(1)).min(blocks / 2).max(1);
        plan.split = splits > 1;
        if plan.split {
            let words = tokens * shape.heads * splits * (shape.head_dim + 2);
            if self.scratch.len < words {
                self.scratch = self.reserve_words(words.next_power_of_two(), "attention scratch")?;
            }
        }
        let none = self.none();
        let (keys, values) = cache.map_or((&none, &none), |(k, v)| (k, v));
        let target = if plan.split { &self.scratch } else { &out.words };
        let positions = if cache.is_some() { self.step.tables } else { self.step.sequences };
        self.launches += 1;
        // SAFETY: pages are inside of the cache, tiles inside of the batch (checked by the callers), and the
        // kernel reads keys below the positions of the batch only.
        unsafe {
            attention::attention::launch_unchecked(
                &self.client,
                CubeCount::Static(count as u32, shape.kv_heads as u32, splits as u32),
                CubeDim::new_1d(attention::BLOCK),
                arg(&qkv.words, 4),
                arg(keys, 1),
                arg(values, 1),
                arg(&self.meta, 1),
                arg(target, 1),
                tiles,
                self.step.positions,
                positions,
                window,
                splits as u32,
                shape.scale,
                plan,
            );
        }
        if plan.split {
            self.launches += 1;
            // SAFETY: the launch above wrote `splits` parts for every token and head.
            unsafe {
                attention::merge::launch_unchecked(
                    &self.client,
                    CubeCount::Static(shape.heads as u32, tokens as u32, 1),
                    CubeDim::new_1d(attention::BLOCK),
                    arg(&self.scratch, 1),
                    arg(&out.words, 1),
                    splits as u32,
                    shape.heads as u32,
                    shape.head_dim as u32,
                );
            }
        }
        Ok(())
    }

    /// Cosine and sine for every token of the step and every pair, computed when the first layer asks.
    pub(crate) fn rope_table(&mut self, rope: &Rope) -> Words {
        if let Some((_, table)) = self.ropes.iter().find(|(known, _)| known == rope) {
            return table.clone();
        }
        let mut angles = Vec::with_capacity(self.step.positions_of.len() * rope.inv_freq.len() * 2);
        for &position in &self.step.positions_of {
            for frequency in &rope.inv_freq {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                angles.extend([cos * rope.magnitude, sin * rope.magnitude]);
            }
        }
        if angles.is_empty() {
            angles.push(0.0);
        }
        let len = angles.len();
        let table = Words { handle: self.client.create(cubecl::bytes::Bytes::from_elems(angles)), len };
        self.ropes.push((rope.clone(), table.clone()));
        table
    }
}
