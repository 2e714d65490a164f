//! Products with quantised weights.

use std::marker::PhantomData;
use std::ops::Range;

use super::{AHEAD, CHUNK, Job, PAIRS, PANEL, SUMS, Tiles, finish};
use crate::cpu::buffer::Shared;
use crate::cpu::format::{
    AT_SCALE, AT_START_0, AT_START_8, AT_START_16, AT_START_32, AT_START_128, AT_SUM, Format, RECORD,
    RECORD_BLOCKS, level_bytes, place, record_bytes, with_format,
};
use crate::cpu::isa::{Isa, Kernel, LANES, run};
use crate::cpu::pack::Segment;
use crate::dtype::DType;

/// Blocks of 32 columns in a panel.
const PANEL_BLOCKS: usize = 16;

/// Where in a panel the scales start: after two groups of levels.
const PANEL_SCALES: usize = PANEL_BLOCKS * 2 * 512;

/// Vectors of scales per block and group in a panel.
const PANEL_VECTORS: usize = 3;

const _: () =
    assert!(PANEL_SCALES + PANEL_BLOCKS * 2 * PANEL_VECTORS * 64 <= PANEL, "a panel fits its scratch");

/// Quantises the tokens of one tile into records.
pub(super) struct Quantize {
    pub(super) job: Job,
    pub(super) x: Shared<f32>,
    pub(super) cols: usize,
    pub(super) tile: usize,
}

impl Kernel for Quantize {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let (first, width) = self.job.int_tiles.get(self.tile);
        let blocks = self.cols / 32;
        for token in 0..width {
            for block in 0..blocks {
                // SAFETY: x is `[tokens, cols]`; a tile's records are `[blocks][width]` after those of the tokens
                // before it.
                unsafe {
                    let x = self.x.get().add((first + token) * self.cols + 32 * block);
                    let record = self.job.ints.get().add(((first * blocks) + block * width + token) * RECORD);
                    quantize_block(s, x, record);
                }
            }
        }
    }
}

/// # Safety
/// 32 values are readable at `x`, a record is writable at `record`.
#[inline(always)]
unsafe fn quantize_block<S: Isa>(s: S, x: *const f32, record: *mut u8) {
    // SAFETY: the caller vouches for the memory.
    unsafe {
        let (a, b) = (s.load(x), s.load(x.add(LANES)));
        let zero = s.splat(0.0);
        let size = s.max(s.max(a, s.sub(zero, a)), s.max(b, s.sub(zero, b)));
        let top = s.highest(size);
        // The reciprocal of anything smaller may overflow; such a block is as good as zero.
        let (scale, inverse) = if top > 1e-30 { (top / 127.0, 127.0 / top) } else { (0.0, 0.0) };
        let (inverse, most, least) = (s.splat(inverse), s.splat(127.0), s.splat(-127.0));
        let quant = record.cast::<i8>();
        let low = s.quantize(s.max(s.min(s.mul(a, inverse), most), least), quant);
        let high = s.quantize(s.max(s.min(s.mul(b, inverse), most), least), quant.add(LANES));
        let sum = low + high;
        record.add(AT_SCALE).cast::<f32>().write(scale);
        record.add(AT_SUM).cast::<f32>().write(scale * sum as f32);
        let starts = record.cast::<i32>();
        starts.add(AT_START_128 / 4).write(-128 * sum);
        starts.add(AT_START_8 / 4).write(-8 * sum);
        starts.add(AT_START_16 / 4).write(-16 * sum);
        starts.add(AT_START_32 / 4).write(-32 * low);
        starts.add(AT_START_32 / 4 + 1).write(-32 * high);
        starts.add(AT_START_0 / 4).write(0);
    }
}

/// Where the accumulator's start is for this format on this instruction set.
#[inline(always)]
const fn start<S: Isa, F: Format>() -> usize {
    if F::WIDE && S::WIDE_OFFSET == 0 { AT_START_0 } else { F::START }
}

/// A few tokens: the weights go from memory through the registers once.
pub(super) fn direct(job: &Job, segment: &Segment, groups: Range<usize>) {
    with_format!(segment.dtype, (), |F| direct_with::<F>(job, segment, groups));
}

/// Runs the kernel for the number of tokens; more than the registers hold take turns with each row group.
fn direct_with<F: Format>(job: &Job, segment: &Segment, groups: Range<usize>) {
    let most = run(job.simd, Most);
    if job.tokens <= most {
        direct_part::<F>(job, segment, groups, 0, job.tokens);
        return;
    }
    let parts = Tiles::new(job.tokens, most);
    for group in groups {
        for part in 0..parts.count {
            let (first, tokens) = parts.get(part);
            direct_part::<F>(job, segment, group..group + 1, first, tokens);
        }
    }
}

/// Tokens that share weights in registers.
struct Most;

impl Kernel for Most {
    type Output = usize;
    #[inline(always)]
    fn run<S: Isa>(self, _: S) -> usize {
        S::DIRECT_TOKENS
    }
}

fn direct_part<F: Format>(job: &Job, segment: &Segment, groups: Range<usize>, first: usize, tokens: usize) {
    macro_rules! part {
        ($n:literal) => {
            run(job.simd, Direct::<F, $n> { job, segment, groups, first, format: PhantomData })
        };
    }
    match tokens {
        1 => part!(1),
        2 => part!(2),
        3 => part!(3),
        4 => part!(4),
        5 => part!(5),
        6 => part!(6),
        7 => part!(7),
        8 => part!(8),
        _ => debug_assert!(tokens == 0, "at most 8 tokens"),
    }
}

/// The products of some groups with `T` tokens from `first` on.
struct Direct<'a, F, const T: usize> {
    job: &'a Job,
    segment: &'a Segment,
    groups: Range<usize>,
    first: usize,
    format: PhantomData<F>,
}

impl<F: Format, const T: usize> Kernel for Direct<'_, F, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        if const { T > S::DIRECT_TOKENS } {
            return;
        }
        let (job, segment) = (self.job, self.segment);
        let blocks = segment.cols / 32;
        // SAFETY: up to `DIRECT` tokens are one tile, whose records are `[blocks][tokens]`.
        let x = unsafe { job.ints.get().add(self.first * RECORD) };
        for group in self.groups {
            // SAFETY: the group has `blocks` blocks, x as many records per token.
            unsafe {
                let sums = direct_group::<S, F, T>(s, blocks, segment.group(group), x, job.tokens * RECORD);
                for (token, sum) in sums.into_iter().enumerate() {
                    finish(s, job, segment, group, self.first + token, sum);
                }
            }
        }
    }
}

/// # Safety
/// `group` and `x` hold `blocks` blocks; records of a token are `step` bytes apart.
#[inline(always)]
unsafe fn direct_group<S: Isa, F: Format, const T: usize>(
    s: S,
    blocks: usize,
    group: *const u8,
    x: *const u8,
    step: usize,
) -> [S::F; T] {
    let mut sums = [s.splat(0.0); T];
    let bytes = record_bytes(F::DTYPE) / RECORD_BLOCKS;
    for first in (0..blocks).step_by(RECORD_BLOCKS) {
        let count = RECORD_BLOCKS.min(blocks - first);
        // SAFETY: the caller vouches for `blocks` blocks.
        unsafe {
            let (at, scales, _) = place(F::DTYPE, blocks, first);
            let (levels, scales) = (group.add(at), group.add(scales));
            for b in 0..count {
                for line in 0..bytes.div_ceil(64) {
                    s.prefetch(levels.wrapping_add(b * bytes + AHEAD + 64 * line));
                }
                let quads = F::quads(s, levels.add(b * level_bytes(F::DTYPE)));
                let scales = F::scales(s, scales, b);
                direct_block::<S, F, T>(s, quads, scales, x.add((first + b) * step), &mut sums);
            }
        }
    }
    sums
}

/// Adds the products of a block with `T` tokens.
///
/// # Safety
/// `x` points to `T` records.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "the number of the quad also places its activations")]
unsafe fn direct_block<S: Isa, F: Format, const T: usize>(
    s: S,
    quads: [S::B; 8],
    (scale, min): ([S::F; 2], S::F),
    x: *const u8,
    sums: &mut [S::F; T],
) {
    let per_sub = 8 / F::SUBS;
    // SAFETY: the caller vouches for the records.
    unsafe {
        for (sub, scale) in scale.into_iter().enumerate().take(F::SUBS) {
            for (token, sum) in sums.iter_mut().enumerate() {
                let x = x.add(token * RECORD);
                let mut dots = s.splat_i(x.add(start::<S, F>() + 4 * sub).cast());
                for quad in sub * per_sub..(sub + 1) * per_sub {
                    dots = dot::<S, F>(s, dots, quads[quad], s.splat_b(x.add(4 * quad)));
                }
                let factor = s.mul(scale, s.splat(x.add(AT_SCALE).cast::<f32>().read()));
                *sum = s.fma(factor, s.to_f(dots), *sum);
            }
        }
        if F::MIN {
            for (token, sum) in sums.iter_mut().enumerate() {
                let x = x.add(token * RECORD + AT_SUM);
                *sum = s.fma(min, s.splat(x.cast::<f32>().read()), *sum);
            }
        }
    }
}

#[inline(always)]
fn dot<S: Isa, F: Format>(s: S, acc: S::I, w: S::B, x: S::B) -> S::I {
    if F::WIDE { s.dot_wide(acc, w, x) } else { s.dot(acc, w, x) }
}

/// Many tokens: weights are unpacked into a panel in L1 that all tokens use.
pub(super) fn panels(job: &Job, segment: &Segment, groups: Range<usize>, scratch: Shared<u8>) {
    with_format!(segment.dtype, (), |F| run(
        job.simd,
        Panels::<F> { job, segment, groups, scratch, format: PhantomData }
    ));
}

struct Panels<'a, F> {
    job: &'a Job,
    segment: &'a Segment,
    groups: Range<usize>,
    scratch: Shared<u8>,
    format: PhantomData<F>,
}

impl<F: Format> Kernel for Panels<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let chunk_tiles = CHUNK / S::TILE_TOKENS;
        let panels = |from: usize| (from..self.groups.end.min(from + 2 * PAIRS)).step_by(S::TILE_GROUPS);
        for from in self.groups.clone().step_by(2 * PAIRS) {
            for chunk in (0..self.job.int_tiles.count).step_by(chunk_tiles) {
                let tiles = chunk..(chunk + chunk_tiles).min(self.job.int_tiles.count);
                for start in (0..self.segment.cols / 32).step_by(PANEL_BLOCKS) {
                    for (index, group) in panels(from).enumerate() {
                        // SAFETY: groups lie in the segment, the scratch belongs to this thread.
                        unsafe {
                            let sums = self.scratch.get().add(PANEL).cast::<f32>();
                            let sums = sums.add(index * SUMS / 2 * S::TILE_GROUPS);
                            if const { S::TILE_GROUPS > 1 } && group + 1 < self.groups.end {
                                self.panel::<S, 2>(s, group, start, tiles.clone(), sums);
                            } else {
                                self.panel::<S, 1>(s, group, start, tiles.clone(), sums);
                            }
                        }
                    }
                }
            }
        }
    }
}

impl<F: Format> Panels<'_, F> {
    /// The tokens of some tiles with the blocks of `G` groups from `start` on that fit a panel.
    ///
    /// # Safety
    /// Groups and blocks exist; the scratch is this thread's; `sums` has a vector for each token and group.
    #[inline(always)]
    unsafe fn panel<S: Isa, const G: usize>(
        &self,
        s: S,
        group: usize,
        start: usize,
        tiles: Range<usize>,
        sums: *mut f32,
    ) {
        let (job, segment) = (self.job, self.segment);
        let blocks = segment.cols / 32;
        let count = PANEL_BLOCKS.min(blocks - start);
        let (is_first, is_last) = (start == 0, start + count == blocks);
        let (chunk_first, _) = job.int_tiles.get(tiles.start);
        // SAFETY: blocks start..start + count exist in the groups and fit the panel.
        unsafe { self.unpack::<S, G>(s, group, start, count) };
        for tile in tiles {
            let (first, width) = job.int_tiles.get(tile);
            // SAFETY: the tile's records are `[blocks][width]`; its sums start at its place in the chunk.
            unsafe {
                let x = job.ints.get().add((first * blocks + start * width) * RECORD);
                let sums = sums.add((first - chunk_first) * G * LANES);
                macro_rules! tile {
                    ($n:literal) => {
                        if const { $n <= S::TILE_TOKENS } {
                            let values = self.tile::<S, G, $n>(s, count, x, sums, is_first);
                            for (token, values) in values.into_iter().enumerate() {
                                for (g, value) in values.into_iter().enumerate() {
                                    if is_last {
                                        finish(s, job, segment, group + g, first + token, value);
                                    } else {
                                        s.store(sums.add((token * G + g) * LANES), value);
                                    }
                                }
                            }
                        }
                    };
                }
                match width {
                    3 => tile!(3),
                    4 => tile!(4),
                    5 => tile!(5),
                    6 => tile!(6),
                    _ => debug_assert!(false, "tiles are 3 to 6 wide"),
                }
            }
        }
    }

    /// Unpacks blocks `start..start + count` of `G` groups: quads as `[block][quad][group]`, and per block and group
    /// one or two scales and the minimum.
    ///
    /// # Safety
    /// The blocks exist and fit the panel.
    #[inline(always)]
    unsafe fn unpack<S: Isa, const G: usize>(&self, s: S, group: usize, start: usize, count: usize) {
        for g in 0..G {
            let group = self.segment.group(group + g);
            let blocks = self.segment.cols / 32;
            // SAFETY: the caller vouches for the blocks.
            unsafe {
                for b in 0..count {
                    let (levels, scales, index) = place(F::DTYPE, blocks, start + b);
                    let quads = F::quads(s, group.add(levels));
                    for (quad, v) in quads.into_iter().enumerate() {
                        s.store_b(self.scratch.get().add(((8 * b + quad) * G + g) * 64), v);
                    }
                    let ([first, second], min) = F::scales(s, group.add(scales), index);
                    let out = self.panel_scales().add((b * G + g) * PANEL_VECTORS * LANES);
                    s.store(out, first);
                    if F::SUBS > 1 {
                        s.store(out.add(LANES), second);
                    }
                    if F::MIN {
                        s.store(out.add(2 * LANES), min);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn panel_scales(&self) -> *mut f32 {
        self.scratch.get().wrapping_add(PANEL_SCALES).cast()
    }

    /// `T` tokens with the unpacked panel, on from `sums` unless these are the first columns.
    ///
    /// # Safety
    /// The panel holds `count` blocks, `x` as many records per token, `sums` a vector per token and group.
    #[inline(always)]
    unsafe fn tile<S: Isa, const G: usize, const T: usize>(
        &self,
        s: S,
        count: usize,
        x: *const u8,
        sums: *const f32,
        is_first: bool,
    ) -> [[S::F; G]; T] {
        let mut values = [[s.splat(0.0); G]; T];
        if !is_first {
            for (token, values) in values.iter_mut().enumerate() {
                for (g, value) in values.iter_mut().enumerate() {
                    // SAFETY: the caller vouches for the sums.
                    *value = unsafe { s.load(sums.add((token * G + g) * LANES)) };
                }
            }
        }
        let per_sub = 8 / F::SUBS;
        let (panel, scales) = (self.scratch.get().cast_const(), self.panel_scales().cast_const());
        for b in 0..count {
            // SAFETY: the caller vouches for `count` blocks and records.
            unsafe {
                let x = x.add(b * T * RECORD);
                let panel = panel.add(b * 8 * G * 64);
                let scales = scales.add(b * G * PANEL_VECTORS * LANES);
                for sub in 0..F::SUBS {
                    let mut dots = [[s.zero_i(); G]; T];
                    for (token, dots) in dots.iter_mut().enumerate() {
                        let from = s.splat_i(x.add(token * RECORD + start::<S, F>() + 4 * sub).cast());
                        *dots = [from; G];
                    }
                    for quad in sub * per_sub..(sub + 1) * per_sub {
                        let mut w = [s.load_b(panel.add(quad * G * 64)); G];
                        for (g, w) in w.iter_mut().enumerate().skip(1) {
                            *w = s.load_b(panel.add((quad * G + g) * 64));
                        }
                        for (token, dots) in dots.iter_mut().enumerate() {
                            let x = s.splat_b(x.add(token * RECORD + 4 * quad));
                            for (dots, w) in dots.iter_mut().zip(w) {
                                *dots = dot::<S, F>(s, *dots, w, x);
                            }
                        }
                    }
                    for g in 0..G {
                        let scale = s.load(scales.add((g * PANEL_VECTORS + sub) * LANES));
                        for token in 0..T {
                            let x = x.add(token * RECORD + AT_SCALE).cast::<f32>().read();
                            let factor = s.mul(scale, s.splat(x));
                            values[token][g] = s.fma(factor, s.to_f(dots[token][g]), values[token][g]);
                        }
                    }
                }
                if F::MIN {
                    for g in 0..G {
                        let min = s.load(scales.add((g * PANEL_VECTORS + 2) * LANES));
                        for (token, values) in values.iter_mut().enumerate() {
                            let x = x.add(token * RECORD + AT_SUM).cast::<f32>().read();
                            values[g] = s.fma(min, s.splat(x), values[g]);
                        }
                    }
                }
            }
        }
        values
    }
}
