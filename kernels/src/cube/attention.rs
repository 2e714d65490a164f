//! Attention over the paged cache (flash-decoding: keys may be split over cubes, whose partial results a
//! second kernel merges) and over the tokens of a batch.
#![allow(
    clippy::indexing_slicing,
    clippy::too_many_arguments,
    clippy::assign_op_pattern,
    clippy::collapsible_if,
    clippy::excessive_precision,
    clippy::implicit_saturating_sub,
    clippy::manual_div_ceil,
    clippy::manual_is_multiple_of,
    reason = "kernels are written in CubeCL's part of Rust, and their indices are bounded by the launch geometry"
)]

use cubecl::prelude::*;

use super::bits::{F4, floats, high_half, low_half};
use crate::backend::PAGE;

/// Units of a cube, and keys that it handles at a time: one key per unit while scores are computed.
pub(crate) const BLOCK: u32 = 64;
/// Units that share the search for one query's maximum.
const SEARCH: u32 = 8;
/// Below every score; finite, so that differences of it are not NaN.
const LOWEST: f32 = -1.0e30;

/// What one launch does, as far as it is known when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AttentionPlan {
    /// Query heads.
    pub(crate) heads: u32,
    /// Key and value heads.
    pub(crate) kv_heads: u32,
    /// Channels per head, a multiple of 4.
    pub(crate) head_dim: u32,
    /// Consecutive tokens of a sequence that one cube handles together.
    pub(crate) tokens: u32,
    /// Keys and values come from the cache (and attention is causal) rather than from the batch.
    pub(crate) cached: bool,
    /// Whether partial results are written for [`merge`] instead of results.
    pub(crate) split: bool,
}

impl AttentionPlan {
    /// Queries of a cube: all heads that share a key head, for each of its tokens.
    pub(crate) const fn queries(&self) -> u32 {
        self.tokens * self.group()
    }

    /// Query heads per key head.
    pub(crate) const fn group(&self) -> u32 {
        self.heads / self.kv_heads
    }

    /// Bytes of shared memory of a cube.
    pub(crate) const fn shared_bytes(&self) -> usize {
        (self.queries() * (self.head_dim + BLOCK + SEARCH + 2) * 4) as usize
    }

    /// Units next to each other that hold the channel pairs of a value.
    const fn pair_units(&self) -> u32 {
        if self.head_dim / 2 < BLOCK { self.head_dim / 2 } else { BLOCK }
    }

    /// Channel pairs of one unit.
    const fn pairs_per_unit(&self) -> u32 {
        (self.head_dim / 2).div_ceil(BLOCK)
    }

    /// Sets of units over which the queries are spread while values are summed.
    const fn slices(&self) -> u32 {
        BLOCK / self.pair_units()
    }

    /// Queries of one unit while values are summed.
    const fn queries_per_slice(&self) -> u32 {
        self.queries().div_ceil(self.slices())
    }
}

/// One cube per (tile of tokens, key head, split of the keys).
///
/// `meta` holds, from `tiles` on, a pair (first token, count) per tile; from `positions` on the position of
/// each token; from `table_starts` on the place in `meta` of its sequence's page table (without a cache: a
/// pair (first token, tokens) of its sequence).
#[cube(launch_unchecked)]
pub(crate) fn attention(
    qkv: &[F4],
    keys: &[u32],
    values: &[u32],
    meta: &[u32],
    out: &mut [f32],
    tiles: u32,
    positions: u32,
    table_starts: u32,
    window: u32,
    splits: u32,
    scale: f32,
    #[comptime] plan: AttentionPlan,
) {
    let dim = plan.head_dim;
    let quads = comptime!(plan.head_dim / 4);
    let words = comptime!(plan.head_dim / 2);
    let queries = plan.queries();
    let row_quads = comptime!((plan.heads + 2 * plan.kv_heads) * (plan.head_dim / 4));
    let page_size = comptime!(PAGE as u32);

    let mut query = Shared::<[F4]>::new_slice(comptime!((plan.queries() * plan.head_dim / 4) as usize));
    let mut score = Shared::<[f32]>::new_slice(comptime!((plan.queries() * BLOCK) as usize));
    let mut found = Shared::<[f32]>::new_slice(comptime!((plan.queries() * SEARCH) as usize));
    let mut highest = Shared::<[f32]>::new_slice(queries as usize);
    let mut shrink = Shared::<[f32]>::new_slice(queries as usize);

    let tile = CUBE_POS_X;
    let kv_head = CUBE_POS_Y;
    let split = CUBE_POS_Z;
    let first = meta[(tiles + 2u32 * tile) as usize];
    let count = meta[(tiles + 2u32 * tile + 1u32) as usize];
    let table = meta[(table_starts + first) as usize];

    // Keys that any token of the tile sees: low..end.
    let mut low = 0u32.runtime();
    let position = meta[(positions + first) as usize];
    let base = if comptime!(plan.cached) { 0u32.runtime() } else { meta[table as usize] };
    let end = if comptime!(plan.cached) { position + count } else { meta[(table + 1u32) as usize] };
    if comptime!(plan.cached) {
        if window > 0u32 && position + 1u32 > window {
            low = position + 1u32 - window;
        }
    }
    let first_block = low / BLOCK;
    let last_block = (end + comptime!(BLOCK - 1)) / BLOCK;
    let per_split = (last_block - first_block + splits - 1u32) / splits;
    let from_block = first_block + split * per_split;
    let to_block = min(from_block + per_split, last_block);

    // Queries, scaled.
    let mut i = UNIT_POS;
    while i < comptime!(plan.queries() * plan.head_dim / 4) {
        let m = i / quads;
        let token = first + min(m / plan.group(), count - 1u32);
        let head = kv_head * plan.group() + m % plan.group();
        query[i as usize] = qkv[(token * row_quads + head * quads + i % quads) as usize] * F4::new(scale);
        i += BLOCK;
    }
    if UNIT_POS < queries {
        highest[UNIT_POS as usize] = LOWEST;
    }
    if comptime!(plan.queries() > BLOCK) {
        if UNIT_POS + BLOCK < queries {
            highest[(UNIT_POS + BLOCK) as usize] = LOWEST;
        }
    }

    let slice = UNIT_POS / plan.pair_units();
    let first_pair = UNIT_POS % plan.pair_units();
    let per_slice = plan.queries_per_slice() as usize;
    let per_unit = plan.pairs_per_unit() as usize;
    let mut acc_even =
        Array::<f32>::new(comptime!((plan.queries_per_slice() * plan.pairs_per_unit()) as usize));
    let mut acc_odd =
        Array::<f32>::new(comptime!((plan.queries_per_slice() * plan.pairs_per_unit()) as usize));
    let mut weight = Array::<f32>::new(per_slice);
    #[unroll]
    for i in 0..per_slice {
        weight[i] = 0.0f32;
        #[unroll]
        for j in 0..per_unit {
            acc_even[comptime!(i * plan.pairs_per_unit() as usize + j)] = 0.0f32;
            acc_odd[comptime!(i * plan.pairs_per_unit() as usize + j)] = 0.0f32;
        }
    }
    sync_cube();

    let mut block = from_block;
    while block < to_block {
        // One key per unit, scored against every query.
        let key = block * BLOCK + UNIT_POS;
        let mut s = Array::<f32>::new(queries as usize);
        #[unroll]
        for m in 0..queries as usize {
            s[m] = 0.0f32;
        }
        if key < end && key >= low {
            if comptime!(plan.cached) {
                let page = meta[(table + key / page_size) as usize];
                let at = (page * plan.kv_heads + kv_head) * words * page_size + key % page_size;
                for quad in 0u32..quads {
                    let one = keys[(at + quad * 2u32 * page_size) as usize];
                    let two = keys[(at + (quad * 2u32 + 1u32) * page_size) as usize];
                    let k = floats(low_half(one), high_half(one), low_half(two), high_half(two));
                    #[unroll]
                    for m in 0..queries as usize {
                        s[m] += k.dot(query[(m as u32 * quads + quad) as usize]);
                    }
                }
            } else {
                let at = (base + key) * row_quads + (kv_head + plan.heads) * quads;
                for quad in 0u32..quads {
                    let k = qkv[(at + quad) as usize];
                    #[unroll]
                    for m in 0..queries as usize {
                        s[m] += k.dot(query[(m as u32 * quads + quad) as usize]);
                    }
                }
            }
        }
        #[unroll]
        for m in 0..queries as usize {
            let mut seen = key < end;
            if comptime!(plan.cached) {
                let own = position + comptime!(m as u32 / plan.group());
                seen = key <= own && key < end && (window == 0u32 || key + window > own);
            }
            score[comptime!(m * BLOCK as usize) + UNIT_POS as usize] = select(seen, s[m], LOWEST);
        }
        sync_cube();

        let mut item = UNIT_POS;
        while item < comptime!(plan.queries() * SEARCH) {
            let at = (item / SEARCH) * BLOCK + item % SEARCH;
            let mut most = LOWEST.runtime();
            #[unroll]
            for i in 0u32..comptime!(BLOCK / SEARCH) {
                most = max(most, score[(at + comptime!(i * SEARCH)) as usize]);
            }
            found[item as usize] = most;
            item += BLOCK;
        }
        sync_cube();

        let mut m = UNIT_POS;
        while m < queries {
            let old = highest[m as usize];
            let mut most = old;
            #[unroll]
            for i in 0u32..SEARCH {
                most = max(most, found[(m * SEARCH + i) as usize]);
            }
            highest[m as usize] = most;
            shrink[m as usize] = (old - most).exp();
            m += BLOCK;
        }
        sync_cube();

        for m in 0u32..queries {
            let at = (m * BLOCK + UNIT_POS) as usize;
            let value = score[at];
            // A query may see none of the keys so far; its maximum is then no score of its own.
            score[at] = select(value <= comptime!(LOWEST * 0.5), 0.0f32, (value - highest[m as usize]).exp());
        }
        sync_cube();

        // Two neighbouring channels per unit, summed over the keys.
        #[unroll]
        for i in 0..per_slice {
            let m = min(slice + comptime!(i as u32 * plan.slices()), comptime!(plan.queries() - 1));
            let factor = shrink[m as usize];
            weight[i] *= factor;
            #[unroll]
            for j in 0..per_unit {
                let at = comptime!(i * plan.pairs_per_unit() as usize + j);
                acc_even[at] *= factor;
                acc_odd[at] *= factor;
            }
        }
        let stop = min(end - block * BLOCK, BLOCK.runtime());
        let mut start = 0u32.runtime();
        if block * BLOCK < low {
            start = low - block * BLOCK;
        }
        for k in start..stop {
            let key = block * BLOCK + k;
            let at = if comptime!(plan.cached) {
                let page = meta[(table + key / page_size) as usize];
                ((page * plan.kv_heads + kv_head) * page_size + key % page_size) * words
            } else {
                (base + key) * row_quads + (kv_head + comptime!(plan.heads + plan.kv_heads)) * quads
            };
            #[unroll]
            for j in 0..per_unit {
                let pair = first_pair + comptime!(j as u32 * BLOCK);
                if pair < words {
                    let (even, odd) = if comptime!(plan.cached) {
                        let word = values[(at + pair) as usize];
                        (low_half(word), high_half(word))
                    } else {
                        let v = qkv[(at + pair / 2u32) as usize];
                        let back = pair % 2u32 == 1u32;
                        let even = select(back, v.extract(2usize), v.extract(0usize));
                        (even, select(back, v.extract(3usize), v.extract(1usize)))
                    };
                    #[unroll]
                    for i in 0..per_slice {
                        let m =
                            min(slice + comptime!(i as u32 * plan.slices()), comptime!(plan.queries() - 1));
                        let p = score[(m * BLOCK + k) as usize];
                        let at = comptime!(i * plan.pairs_per_unit() as usize + j);
                        acc_even[at] += p * even;
                        acc_odd[at] += p * odd;
                        if comptime!(j == 0) {
                            weight[i] += p;
                        }
                    }
                }
            }
        }
        sync_cube();
        block += 1u32;
    }

    #[unroll]
    for i in 0..per_slice {
        let m = slice + comptime!(i as u32 * plan.slices());
        let within = m / plan.group();
        if m < queries && within < count && slice < plan.slices() {
            let head = kv_head * plan.group() + m % plan.group();
            let row = (first + within) * plan.heads + head;
            #[unroll]
            for j in 0..per_unit {
                let pair = first_pair + comptime!(j as u32 * BLOCK);
                let at = comptime!(i * plan.pairs_per_unit() as usize + j);
                if pair < words {
                    if comptime!(plan.split) {
                        let start = (row * splits + split) * comptime!(plan.head_dim + 2);
                        out[(start + pair * 2u32) as usize] = acc_even[at];
                        out[(start + pair * 2u32 + 1u32) as usize] = acc_odd[at];
                        if pair == 0u32 {
                            out[(start + dim) as usize] = highest[m as usize];
                            out[(start + dim + 1u32) as usize] = weight[i];
                        }
                    } else {
                        let start = row * dim + pair * 2u32;
                        out[start as usize] = acc_even[at] / weight[i];
                        out[(start + 1u32) as usize] = acc_odd[at] / weight[i];
                    }
                }
            }
        }
    }
}

/// Joins the splits of [`attention`]: one cube per (head, token).
#[cube(launch_unchecked)]
pub(crate) fn merge(
    parts: &[f32],
    out: &mut [f32],
    splits: u32,
    #[comptime] heads: u32,
    #[comptime] dim: u32,
) {
    let row = CUBE_POS_Y * heads + CUBE_POS_X;
    let stride = comptime!(dim + 2);
    let start = row * splits * stride;
    let mut highest = LOWEST.runtime();
    for split in 0u32..splits {
        highest = max(highest, parts[(start + split * stride + dim) as usize]);
    }
    let mut weight = 0.0f32.runtime();
    for split in 0u32..splits {
        let at = start + split * stride + dim;
        weight += (parts[at as usize] - highest).exp() * parts[(at + 1u32) as usize];
    }
    let mut i = UNIT_POS;
    while i < dim {
        let mut sum = 0.0f32.runtime();
        for split in 0u32..splits {
            let at = start + split * stride;
            sum += (parts[(at + dim) as usize] - highest).exp() * parts[(at + i) as usize];
        }
        out[(row * dim + i) as usize] = sum / weight;
        i += BLOCK;
    }
}
