//! The paged KV cache and attention over it.
//!
//! Keys are `[page][kv head][channel][32 positions]`, so that scores have a position per lane; values are
//! `[page][kv head][32 positions][channels, padded to 16]`, so that outputs have a channel per lane. Every query goes
//! through the same sequence of operations wherever it stands in a batch: scores sum over channels in order, the
//! maximum is exact, the softmax sums positions by their number modulo 16, outputs add positions in order.

#![allow(
    clippy::indexing_slicing,
    reason = "tables are checked before kernels run; the rest are fixed arrays"
)]

mod cache;
mod rope;

use std::ops::Range;

use super::buffer::{Buffer, Shared};
use super::isa::{Isa, Kernel, LANES, Simd, run};
use super::math;
use super::pool::Pool;
use crate::backend::{AttentionShape, BackendError, PAGE, PageId};

pub use cache::CpuCache;
pub(crate) use cache::{Pages, Stored, padded};
pub(crate) use rope::{Angles, Append};

/// Queries (tokens × heads of a group) that one thread takes at once.
const QUERIES: usize = 32;

/// Up to how many multiplications one thread does alone; see the matrix product's.
const ALONE: usize = 128 << 10;

/// Consecutive tokens of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) sequence: usize,
    pub(crate) tokens: Range<usize>,
}

/// Who sees what.
#[derive(Clone, Copy)]
pub(crate) enum View<'a> {
    /// A token at position p sees positions up to p, at most `window` of them.
    Causal { positions: &'a [u32], tables: &'a [Vec<PageId>], window: Option<u32> },
    /// A token sees its whole run; runs start at these pages.
    Full { first_pages: &'a [usize] },
}

impl View<'_> {
    /// Positions that a token sees.
    #[inline]
    fn range(&self, run: &Run, token: usize) -> Range<usize> {
        match self {
            Self::Causal { positions, window, .. } => {
                let position = positions[token] as usize;
                let low = window.map_or(0, |window| (position + 1).saturating_sub(window as usize));
                low.min(position)..position + 1
            }
            Self::Full { .. } => 0..run.tokens.len(),
        }
    }

    #[inline]
    fn page(&self, run: &Run, run_index: usize, index: usize) -> usize {
        match self {
            Self::Causal { tables, .. } => tables[run.sequence][index] as usize,
            Self::Full { first_pages } => first_pages[run_index] + index,
        }
    }
}

/// Scratch of attention.
#[derive(Debug)]
pub(crate) struct Workspace {
    threads: Buffer,
    /// Keys and values of a step without a cache.
    full: Buffer,
    /// (run, first token, end) of each block of tokens.
    blocks: Vec<(usize, usize, usize)>,
    first_pages: Vec<usize>,
}

impl Workspace {
    pub(crate) fn new() -> Result<Self, BackendError> {
        Ok(Self {
            threads: Buffer::zeroed(0, "attention scores")?,
            full: Buffer::zeroed(0, "keys and values")?,
            blocks: Vec::new(),
            first_pages: Vec::new(),
        })
    }
}

/// Buffers of one attention; shapes have been checked.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    /// `[tokens, qkv_width]`.
    pub(crate) qkv: Shared<f32>,
    /// `[tokens, q_width]`.
    pub(crate) out: Shared<f32>,
}

/// Attention of all runs over `pages`.
#[allow(clippy::too_many_arguments, reason = "two callers, which have all of it at hand")]
pub(crate) fn attend<E: Stored>(
    simd: Simd,
    pool: &mut Pool,
    workspace: &mut Workspace,
    shape: &AttentionShape,
    runs: &[Run],
    view: View<'_>,
    pages: Pages<E>,
    operands: Operands,
) -> Result<(), BackendError> {
    let group = shape.heads / shape.kv_heads;
    let per_block = (QUERIES / group).max(1);
    workspace.blocks.clear();
    let mut span = 0;
    for (index, run) in runs.iter().enumerate() {
        for first in run.tokens.clone().step_by(per_block) {
            let end = (first + per_block).min(run.tokens.end);
            let (low, high) =
                (view.range(run, first).start / PAGE, view.range(run, end - 1).end.div_ceil(PAGE));
            span = span.max((high - low) * PAGE);
            workspace.blocks.push((index, first, end));
        }
    }
    let queries = per_block * group;
    let floats = queries * (shape.head_dim + span + padded(shape.head_dim) + 1).next_multiple_of(LANES);
    workspace.threads.reserve(pool.threads() * floats * 4, "attention scores")?;
    let scratch = Shared::new(workspace.threads.as_mut_ptr().cast::<f32>());
    let blocks = &workspace.blocks;
    let units = blocks.len() * shape.kv_heads;
    let step = if units * queries * span * shape.head_dim <= ALONE { units } else { 1 };
    pool.each(units, step, |thread, range| {
        for unit in range {
            // Blocks of later tokens cost most and go first.
            let (run_index, first, end) = blocks[blocks.len() - 1 - unit / shape.kv_heads];
            let block = Block {
                shape,
                run: &runs[run_index],
                run_index,
                tokens: first..end,
                head: unit % shape.kv_heads,
                view,
                pages,
                operands,
                // SAFETY: each thread has its own `floats` values.
                scratch: Shared::new(unsafe { scratch.get().add(thread * floats) }),
            };
            run(simd, block);
        }
    });
    Ok(())
}

/// Attention of every token over its own run, without a cache.
pub(crate) fn attend_full(
    simd: Simd,
    pool: &mut Pool,
    workspace: &mut Workspace,
    shape: &AttentionShape,
    runs: &[Run],
    operands: Operands,
) -> Result<(), BackendError> {
    let mut first_pages = std::mem::take(&mut workspace.first_pages);
    first_pages.clear();
    let mut count = 0;
    for run in runs {
        first_pages.push(count);
        count += run.tokens.len().div_ceil(PAGE);
    }
    let key_values = count * shape.kv_heads * shape.head_dim * PAGE;
    let value_values = count * shape.kv_heads * padded(shape.head_dim) * PAGE;
    workspace.full.reserve((key_values + value_values) * 4, "keys and values")?;
    let base = workspace.full.as_mut_ptr().cast::<f32>();
    let pages = Pages {
        keys: Shared::new(base),
        values: Shared::new(base.wrapping_add(key_values)),
        kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
    };
    let width = shape.qkv_width();
    pool.each(runs.len() * shape.kv_heads, 1, |_, range| {
        for unit in range {
            let (index, head) = (unit / shape.kv_heads, unit % shape.kv_heads);
            for (position, token) in runs[index].tokens.clone().enumerate() {
                let page = first_pages[index] + position / PAGE;
                let (key, value) = (pages.key(page, head), pages.value(page, head));
                let slot = position % PAGE;
                // SAFETY: pages were counted above; qkv is `[tokens, width]`; every (page, head) has one writer.
                unsafe {
                    let q = operands.qkv.get().add(token * width);
                    let k = q.add((shape.heads + head) * shape.head_dim);
                    let v = k.add(shape.kv_heads * shape.head_dim);
                    for d in 0..shape.head_dim {
                        key.add(d * PAGE + slot).write(k.add(d).read());
                        value.add(slot * padded(shape.head_dim) + d).write(v.add(d).read());
                    }
                }
            }
        }
    });
    let view = View::Full { first_pages: &first_pages };
    let outcome = attend(simd, pool, workspace, shape, runs, view, pages, operands);
    workspace.first_pages = first_pages;
    outcome
}

/// A block of tokens of one run with the query heads of one key head.
struct Block<'a, E> {
    shape: &'a AttentionShape,
    run: &'a Run,
    run_index: usize,
    tokens: Range<usize>,
    head: usize,
    view: View<'a>,
    pages: Pages<E>,
    operands: Operands,
    scratch: Shared<f32>,
}

impl<E: Stored> Kernel for Block<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let dim = self.shape.head_dim;
        let group = self.group();
        let queries = self.tokens.len() * group;
        let first_page = self.sees(0).start / PAGE;
        let end_page = self.sees(queries - 1).end.div_ceil(PAGE);
        let span = (end_page - first_page) * PAGE;
        // SAFETY: `attend` has given the scratch room for these four arrays and checked all tables.
        unsafe {
            let scores = self.scratch.get();
            let sums = scores.add(queries * span);
            let packed = sums.add(queries * padded(dim));
            let totals = packed.add(queries * dim);
            let most = S::TILE_TOKENS;
            self.pack_queries(packed, queries, most);
            for page in first_page..end_page {
                let keys = self.pages.key(self.view.page(self.run, self.run_index, page), self.head);
                let mut first = 0;
                while first < queries {
                    let width = most.min(queries - first);
                    let visible = self.sees(first).start..self.sees(first + width - 1).end;
                    if visible.start < (page + 1) * PAGE && page * PAGE < visible.end {
                        let q = packed.add(first * dim);
                        let out = scores.add(first * span + (page - first_page) * PAGE);
                        macro_rules! tile {
                            ($n:literal) => {
                                if const { $n <= S::TILE_TOKENS } {
                                    score_tile::<S, E, $n>(s, dim, keys, q, out, span);
                                }
                            };
                        }
                        match width {
                            1 => tile!(1),
                            2 => tile!(2),
                            3 => tile!(3),
                            4 => tile!(4),
                            5 => tile!(5),
                            _ => tile!(6),
                        }
                    }
                    first += width;
                }
            }
            for query in 0..queries {
                let sees = self.sees(query);
                let sees = sees.start - first_page * PAGE..sees.end - first_page * PAGE;
                totals.add(query).write(softmax(s, scores.add(query * span), sees));
            }
            std::ptr::write_bytes(sums, 0, queries * padded(dim));
            let mut first = 0;
            while first < queries {
                let width = most.min(queries - first);
                // What all queries of the tile see is done together, the rest for each alone.
                let low = self.sees(first + width - 1).start;
                let high = self.sees(first).end;
                let values = Values { block: &self, scores, span, first_page, sums };
                if low < high {
                    for query in first..first + width {
                        values.add::<S, 1>(s, query, self.sees(query).start..low);
                    }
                    macro_rules! tile {
                        ($n:literal) => {
                            if const { $n <= S::TILE_TOKENS } {
                                values.add::<S, $n>(s, first, low..high);
                            }
                        };
                    }
                    match width {
                        1 => tile!(1),
                        2 => tile!(2),
                        3 => tile!(3),
                        4 => tile!(4),
                        5 => tile!(5),
                        _ => tile!(6),
                    }
                    for query in first..first + width {
                        values.add::<S, 1>(s, query, high..self.sees(query).end);
                    }
                } else {
                    for query in first..first + width {
                        values.add::<S, 1>(s, query, self.sees(query));
                    }
                }
                first += width;
            }
            for query in 0..queries {
                self.write(s, query, sums.add(query * padded(dim)), totals.add(query).read());
            }
        }
    }
}

impl<E: Stored> Block<'_, E> {
    #[inline(always)]
    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    /// Positions that a query of the block sees.
    #[inline(always)]
    fn sees(&self, query: usize) -> Range<usize> {
        self.view.range(self.run, self.tokens.start + query / self.group())
    }

    /// Scales the queries and interleaves those of a tile: `[tile][channel][query]`.
    ///
    /// # Safety
    /// `packed` has room for `queries · head_dim` values.
    #[inline(always)]
    unsafe fn pack_queries(&self, packed: *mut f32, queries: usize, most: usize) {
        let (dim, group, width) = (self.shape.head_dim, self.group(), self.shape.qkv_width());
        for query in 0..queries {
            let first = query / most * most;
            let tile = most.min(queries - first);
            let token = self.tokens.start + query / group;
            let head = self.head * group + query % group;
            // SAFETY: the token and head exist; the caller vouches for `packed`.
            unsafe {
                let q = self.operands.qkv.get().add(token * width + head * dim);
                let out = packed.add(first * dim + query - first);
                for d in 0..dim {
                    out.add(d * tile).write(q.add(d).read() * self.shape.scale);
                }
            }
        }
    }

    /// Divides a query's sums by its total and writes them.
    ///
    /// # Safety
    /// `sums` has the padded channels of the query.
    #[inline(always)]
    unsafe fn write<S: Isa>(&self, s: S, query: usize, sums: *const f32, total: f32) {
        let (dim, group) = (self.shape.head_dim, self.group());
        let token = self.tokens.start + query / group;
        let head = self.head * group + query % group;
        let total = s.splat(total);
        // SAFETY: out is `[tokens, heads · head_dim]`; sums are padded to whole vectors.
        unsafe {
            let out = self.operands.out.get().add((token * self.shape.heads + head) * dim);
            let mut d = 0;
            while d < dim {
                s.store_n(out.add(d), LANES.min(dim - d), s.div(s.load(sums.add(d)), total));
                d += LANES;
            }
        }
    }
}

/// Scores of `T` queries with the 32 positions of a page.
///
/// # Safety
/// `keys` is `[dim][32]`, `q` is `[dim][T]`, `out` has 32 values every `span`.
#[inline(always)]
unsafe fn score_tile<S: Isa, E: Stored, const T: usize>(
    s: S,
    dim: usize,
    keys: *const E,
    q: *const f32,
    out: *mut f32,
    span: usize,
) {
    let mut sums = [[s.splat(0.0); 2]; T];
    for d in 0..dim {
        // SAFETY: the caller vouches for `dim` channels.
        unsafe {
            let keys = keys.add(d * PAGE);
            let (a, b) = (E::load(s, keys), E::load(s, keys.add(LANES)));
            for (query, sums) in sums.iter_mut().enumerate() {
                let q = s.splat(q.add(d * T + query).read());
                *sums = [s.fma(q, a, sums[0]), s.fma(q, b, sums[1])];
            }
        }
    }
    for (query, sums) in sums.into_iter().enumerate() {
        // SAFETY: the caller vouches for room.
        unsafe {
            s.store(out.add(query * span), sums[0]);
            s.store(out.add(query * span + LANES), sums[1]);
        }
    }
}

/// Replaces the scores that are seen by `e^(score − max)`, and the others in their vectors by 0; returns their sum.
///
/// # Safety
/// `scores` has whole pages up to the end of `sees`.
#[inline(always)]
unsafe fn softmax<S: Isa>(s: S, scores: *mut f32, sees: Range<usize>) -> f32 {
    let start = sees.start / LANES * LANES;
    let end = sees.end.next_multiple_of(LANES);
    // SAFETY: the caller vouches for the scores.
    unsafe {
        for hidden in (start..sees.start).chain(sees.end..end) {
            scores.add(hidden).write(f32::NEG_INFINITY);
        }
        let mut top = s.splat(f32::NEG_INFINITY);
        for at in (start..end).step_by(LANES) {
            top = s.max(s.load(scores.add(at)), top);
        }
        let top = s.splat(s.highest(top));
        let mut total = s.splat(0.0);
        for at in (start..end).step_by(LANES) {
            let p = math::exp(s, s.sub(s.load(scores.add(at)), top));
            s.store(scores.add(at), p);
            total = s.add(total, p);
        }
        s.sum(total)
    }
}

/// The sums of values weighted by scores.
struct Values<'a, E> {
    block: &'a Block<'a, E>,
    scores: *const f32,
    span: usize,
    first_page: usize,
    sums: *mut f32,
}

impl<E: Stored> Values<'_, E> {
    /// Adds the values of `positions` to the sums of `T` queries from `first` on.
    ///
    /// # Safety
    /// Queries and positions exist.
    #[inline(always)]
    unsafe fn add<S: Isa, const T: usize>(&self, s: S, first: usize, positions: Range<usize>) {
        if positions.is_empty() {
            return;
        }
        let vectors = padded(self.block.shape.head_dim) / LANES;
        let mut vector = 0;
        while vector < vectors {
            let left = vectors - vector;
            // SAFETY: the caller vouches for queries and positions.
            unsafe {
                if const { S::TILE_GROUPS > 1 } && left >= 4 {
                    self.channels::<S, T, 4>(s, first, positions.clone(), vector);
                    vector += 4;
                } else if const { S::TILE_GROUPS > 1 } && left >= 2 {
                    self.channels::<S, T, 2>(s, first, positions.clone(), vector);
                    vector += 2;
                } else {
                    self.channels::<S, T, 1>(s, first, positions.clone(), vector);
                    vector += 1;
                }
            }
        }
    }

    /// The same for `D` vectors of channels.
    ///
    /// # Safety
    /// Queries, positions and channels exist.
    #[inline(always)]
    unsafe fn channels<S: Isa, const T: usize, const D: usize>(
        &self,
        s: S,
        first: usize,
        positions: Range<usize>,
        vector: usize,
    ) {
        let block = self.block;
        let width = padded(block.shape.head_dim);
        let mut sums = [[s.splat(0.0); D]; T];
        // SAFETY: the caller vouches for queries and channels.
        let place =
            |query: usize, d: usize| unsafe { self.sums.add((first + query) * width + (vector + d) * LANES) };
        for (query, sums) in sums.iter_mut().enumerate() {
            for (d, sum) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                *sum = unsafe { s.load(place(query, d)) };
            }
        }
        let mut position = positions.start;
        while position < positions.end {
            let index = position / PAGE;
            let end = positions.end.min((index + 1) * PAGE);
            let page = block.pages.value(block.view.page(block.run, block.run_index, index), block.head);
            // SAFETY: the caller vouches for the positions.
            unsafe {
                let scores = self.scores.add(first * self.span + position - self.first_page * PAGE);
                for at in 0..end - position {
                    let v = page.add((position % PAGE + at) * width + vector * LANES);
                    let mut values = [s.splat(0.0); D];
                    for (d, value) in values.iter_mut().enumerate() {
                        *value = E::load(s, v.add(d * LANES));
                    }
                    for (query, sums) in sums.iter_mut().enumerate() {
                        let p = s.splat(scores.add(query * self.span + at).read());
                        for (sum, value) in sums.iter_mut().zip(values) {
                            *sum = s.fma(p, value, *sum);
                        }
                    }
                }
            }
            position = end;
        }
        for (query, sums) in sums.into_iter().enumerate() {
            for (d, sum) in sums.into_iter().enumerate() {
                // SAFETY: as above.
                unsafe { s.store(place(query, d), sum) };
            }
        }
    }
}
