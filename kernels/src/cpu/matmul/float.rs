//! Products with float weights.

use std::marker::PhantomData;
use std::ops::Range;

use super::{AHEAD, CHUNK, Job, PAIRS, PANEL, SUMS, finish};
use crate::cpu::buffer::Shared;
use crate::cpu::isa::{Isa, Kernel, LANES, run};
use crate::cpu::pack::Segment;
use crate::dtype::DType;

/// Columns in a panel of two groups of f32.
const PANEL_COLUMNS: usize = 128;

const _: () = assert!(PANEL_COLUMNS * 2 * LANES * 4 <= PANEL, "a panel fits its scratch");

/// A float type of weights.
trait Element {
    const BYTES: usize;
    /// # Safety
    /// 16 elements are readable at `p`.
    unsafe fn load<S: Isa>(s: S, p: *const u8) -> S::F;
}

macro_rules! elements {
    ($($name:ident: $bytes:literal, $load:ident;)*) => {$(
        enum $name {}
        impl Element for $name {
            const BYTES: usize = $bytes;
            #[inline(always)]
            unsafe fn load<S: Isa>(s: S, p: *const u8) -> S::F {
                // SAFETY: the caller vouches for 16 elements.
                unsafe { s.$load(p.cast()) }
            }
        }
    )*};
}

elements! {
    Single: 4, load;
    Half: 2, load_f16;
    Brain: 2, load_bf16;
}

macro_rules! with_element {
    ($dtype:expr, |$element:ident| $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $element = Single;
                $body
            }
            DType::F16 => {
                type $element = Half;
                $body
            }
            _ => {
                type $element = Brain;
                $body
            }
        }
    };
}

/// Copies the tokens of one tile into `[column][token]`.
pub(super) struct Interleave {
    pub(super) job: Job,
    pub(super) x: Shared<f32>,
    pub(super) cols: usize,
    pub(super) tile: usize,
}

impl Kernel for Interleave {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        let (first, width) = self.job.float_tiles.get(self.tile);
        // SAFETY: x is `[tokens, cols]`; a tile's columns come after those of the tokens before it.
        unsafe {
            let out = self.job.floats.get().add(first * self.cols);
            for token in 0..width {
                let x = self.x.get().add((first + token) * self.cols);
                for column in 0..self.cols {
                    out.add(column * width + token).write(x.add(column).read());
                }
            }
        }
    }
}

/// A few tokens: the weights go from memory through the registers once.
pub(super) fn direct(job: &Job, segment: &Segment, groups: Range<usize>) {
    with_element!(segment.dtype, |E| run(
        job.simd,
        Direct::<E> { job, segment, groups, element: PhantomData }
    ));
}

struct Direct<'a, E> {
    job: &'a Job,
    segment: &'a Segment,
    groups: Range<usize>,
    element: PhantomData<E>,
}

impl<E: Element> Kernel for Direct<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let mut group = self.groups.start;
        while group < self.groups.end {
            // A lone token has too few sums to hide the latency of one group's additions.
            let wide = self.job.tokens == 1 && self.groups.end - group >= 4;
            // SAFETY: the groups exist.
            unsafe {
                if wide {
                    self.part::<S, 4, 1>(s, group, 0);
                    group += 4;
                } else {
                    self.group(s, group);
                    group += 1;
                }
            }
        }
    }
}

impl<E: Element> Direct<'_, E> {
    /// One group with all tokens.
    ///
    /// # Safety
    /// The group exists.
    #[inline(always)]
    unsafe fn group<S: Isa>(&self, s: S, group: usize) {
        let most = S::DIRECT_TOKENS.min(4);
        let mut first = 0;
        while first < self.job.tokens {
            let left = self.job.tokens - first;
            // SAFETY: the caller vouches for the group, and the tokens exist.
            unsafe {
                if const { S::DIRECT_TOKENS >= 8 } && left >= 8 {
                    self.part::<S, 1, 8>(s, group, first);
                    first += 8;
                } else if most >= 4 && left >= 4 {
                    self.part::<S, 1, 4>(s, group, first);
                    first += 4;
                } else if most >= 2 && left >= 2 {
                    self.part::<S, 1, 2>(s, group, first);
                    first += 2;
                } else {
                    self.part::<S, 1, 1>(s, group, first);
                    first += 1;
                }
            }
        }
    }

    /// `T` tokens with `G` groups.
    ///
    /// # Safety
    /// Groups and tokens exist.
    #[inline(always)]
    unsafe fn part<S: Isa, const G: usize, const T: usize>(&self, s: S, group: usize, first: usize) {
        let (job, segment) = (self.job, self.segment);
        let mut weights = [std::ptr::null(); G];
        for (g, weights) in weights.iter_mut().enumerate() {
            *weights = segment.group(group + g);
        }
        let mut sums = [[s.splat(0.0); G]; T];
        for column in 0..segment.cols {
            // SAFETY: groups have `cols` vectors of weights, x `cols` columns of `tokens` values.
            unsafe {
                let x = job.floats.get().add(column * job.tokens + first);
                for (g, weights) in weights.iter().enumerate() {
                    let at = weights.add(column * LANES * E::BYTES);
                    s.prefetch(at.wrapping_add(AHEAD));
                    let w = E::load(s, at);
                    for (token, sums) in sums.iter_mut().enumerate() {
                        sums[g] = s.fma(w, s.splat(x.add(token).read()), sums[g]);
                    }
                }
            }
        }
        for (token, sums) in sums.into_iter().enumerate() {
            for (g, sum) in sums.into_iter().enumerate() {
                // SAFETY: groups and tokens exist, and this thread has these groups to itself.
                unsafe { finish(s, job, segment, group + g, first + token, sum) };
            }
        }
    }
}

/// Many tokens: weights are converted into a panel in L1 that all tokens use.
pub(super) fn panels(job: &Job, segment: &Segment, groups: Range<usize>, scratch: Shared<u8>) {
    with_element!(segment.dtype, |E| run(
        job.simd,
        Panels::<E> { job, segment, groups, scratch, element: PhantomData }
    ));
}

struct Panels<'a, E> {
    job: &'a Job,
    segment: &'a Segment,
    groups: Range<usize>,
    scratch: Shared<u8>,
    element: PhantomData<E>,
}

impl<E: Element> Kernel for Panels<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let chunk_tiles = CHUNK / S::FLOAT_TOKENS;
        let panels = |from: usize| (from..self.groups.end.min(from + 2 * PAIRS)).step_by(S::TILE_GROUPS);
        for from in self.groups.clone().step_by(2 * PAIRS) {
            for chunk in (0..self.job.float_tiles.count).step_by(chunk_tiles) {
                let tiles = chunk..(chunk + chunk_tiles).min(self.job.float_tiles.count);
                for start in (0..self.segment.cols).step_by(PANEL_COLUMNS) {
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

impl<E: Element> Panels<'_, E> {
    /// The tokens of some tiles with the columns of `G` groups from `start` on that fit a panel.
    ///
    /// # Safety
    /// Groups and columns exist; the scratch is this thread's; `sums` has a vector for each token and group.
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
        let cols = segment.cols;
        let count = PANEL_COLUMNS.min(cols - start);
        let (is_first, is_last) = (start == 0, start + count == cols);
        let (chunk_first, _) = job.float_tiles.get(tiles.start);
        let panel = self.scratch.get().cast::<f32>();
        for g in 0..G {
            let weights = segment.group(group + g);
            for column in 0..count {
                // SAFETY: the columns exist and fit the panel.
                unsafe {
                    let w = E::load(s, weights.add((start + column) * LANES * E::BYTES));
                    s.store(panel.add((column * G + g) * LANES), w);
                }
            }
        }
        for tile in tiles {
            let (first, width) = job.float_tiles.get(tile);
            // SAFETY: a tile is `[cols][width]`; its sums start at its place in the chunk.
            unsafe {
                let x = job.floats.get().add(first * cols + start * width);
                let sums = sums.add((first - chunk_first) * G * LANES);
                macro_rules! tile {
                    ($n:literal) => {
                        if const { $n <= S::FLOAT_TOKENS } {
                            let values = one_tile::<S, G, $n>(s, count, panel, x, sums, is_first);
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
                    7 => tile!(7),
                    8 => tile!(8),
                    9 => tile!(9),
                    10 => tile!(10),
                    11 => tile!(11),
                    12 => tile!(12),
                    _ => debug_assert!(false, "tiles are 3 to 12 wide"),
                }
            }
        }
    }
}

/// `T` tokens with a panel of `G` groups, on from `sums` unless these are the first columns.
///
/// # Safety
/// The panel holds `count` columns, `x` as many of `T` values, `sums` a vector per token and group.
#[inline(always)]
unsafe fn one_tile<S: Isa, const G: usize, const T: usize>(
    s: S,
    count: usize,
    panel: *const f32,
    x: *const f32,
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
    for column in 0..count {
        // SAFETY: the caller vouches for the columns.
        unsafe {
            let panel = panel.add(column * G * LANES);
            let x = x.add(column * T);
            let mut w = [s.load(panel); G];
            for (g, w) in w.iter_mut().enumerate().skip(1) {
                *w = s.load(panel.add(g * LANES));
            }
            for (token, values) in values.iter_mut().enumerate() {
                let x = s.splat(x.add(token).read());
                for (value, w) in values.iter_mut().zip(w) {
                    *value = s.fma(w, x, *value);
                }
            }
        }
    }
    values
}
