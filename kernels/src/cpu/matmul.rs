//! Matrix products: what they share, and how the work is divided.
//!
//! Each output is one sequence of f32 operations in the order of its columns, whatever the instruction set, the
//! number of tokens or threads: `acc = fma(d_w·d_x, Σ w·x, acc)` per block of 32 (per 16 with `Q6_K`) and
//! `acc = fma(m_w, d_x·Σ x, acc)` where blocks have minima; or `acc = fma(w, x, acc)` per column of float weights.

mod float;
mod integer;

use super::buffer::{Buffer, Shared};
use super::format::RECORD;
use super::isa::{Isa, Kernel, LANES, Simd, run};
use super::pack::{CpuMatrix, Segment};
use super::pool::Pool;
use crate::backend::BackendError;

/// Up to how many tokens weights are used straight from memory; more go through an unpacked panel in L1.
const DIRECT: usize = 32;

/// Up to how many multiplications one thread does alone: a few microseconds, in which a second one would hardly have
/// begun, and when other programs have its core, thousands of times as many.
const ALONE: usize = 256 << 10;

/// Tokens that share a panel; their activations of a panel's columns fit L2, and so do the sums below.
const CHUNK: usize = 128;

/// Pairs of row groups that take turns with the same tokens and columns.
const PAIRS: usize = 8;

/// How many bytes ahead of its use a cache line of weights is asked for; measured, with little between 4 and 16 KiB.
const AHEAD: usize = 8192;

/// Bytes of a thread's panel of unpacked weights, scales included.
const PANEL: usize = 32 << 10;

/// Bytes of scratch a thread needs.
const SCRATCH: usize = PANEL + PAIRS * SUMS * 4;

/// Sums that a pair of row groups keeps between panels.
const SUMS: usize = CHUNK * 2 * LANES;

/// How `tokens` are cut into tiles of nearly equal width.
#[derive(Clone, Copy, Debug)]
struct Tiles {
    count: usize,
    base: usize,
    /// The first so many tiles have one token more.
    wider: usize,
}

impl Tiles {
    fn new(tokens: usize, most: usize) -> Self {
        let count = tokens.div_ceil(most).max(1);
        Self { count, base: tokens / count, wider: tokens % count }
    }

    /// First token and width of tile `index`.
    fn get(self, index: usize) -> (usize, usize) {
        (index * self.base + index.min(self.wider), self.base + usize::from(index < self.wider))
    }
}

/// Everything a thread has to know about one product. Pointers are valid for the duration of the call.
#[derive(Clone, Copy)]
struct Job {
    simd: Simd,
    tokens: usize,
    /// Tiles of the prepared activations.
    int_tiles: Tiles,
    float_tiles: Tiles,
    /// Prepared activations: records for integer weights, f32 `[tile][column][token]` for float weights.
    ints: Shared<u8>,
    floats: Shared<f32>,
    out: Shared<f32>,
    width: usize,
    bias: Option<Shared<f32>>,
    accumulate: bool,
}

/// Scratch of products: prepared activations and each thread's panel.
#[derive(Debug)]
pub(crate) struct Workspace {
    ints: Buffer,
    floats: Buffer,
    threads: Buffer,
}

impl Workspace {
    pub(crate) fn new(threads: usize) -> Result<Self, BackendError> {
        Ok(Self {
            ints: Buffer::zeroed(0, "quantised activations")?,
            floats: Buffer::zeroed(0, "packed activations")?,
            threads: Buffer::zeroed(SCRATCH * threads, "the matrix product's panels")?,
        })
    }
}

/// Where the operands of a product are. Shapes have been checked.
pub(crate) struct Operands<'a> {
    pub(crate) rows: usize,
    pub(crate) weights: &'a CpuMatrix,
    /// `[rows, weights.cols]`.
    pub(crate) x: *const f32,
    /// `[rows, weights.rows]`.
    pub(crate) out: *mut f32,
    pub(crate) bias: Option<*const f32>,
    pub(crate) accumulate: bool,
}

/// Tile widths of an instruction set.
struct Widths;

impl Kernel for Widths {
    type Output = (usize, usize);
    #[inline(always)]
    fn run<S: Isa>(self, _: S) -> (usize, usize) {
        (S::TILE_TOKENS, S::FLOAT_TOKENS)
    }
}

/// `out = x · wᵀ (+ bias)`, or `out += …`.
pub(crate) fn product(
    simd: Simd,
    pool: &mut Pool,
    workspace: &mut Workspace,
    operands: &Operands<'_>,
) -> Result<(), BackendError> {
    let (tokens, matrix) = (operands.rows, operands.weights);
    if tokens == 0 {
        return Ok(());
    }
    let cols = matrix.cols;
    let is_direct = tokens <= DIRECT;
    let (int_width, float_width) = if is_direct { (DIRECT, DIRECT) } else { run(simd, Widths) };
    let int = matrix.segments.iter().any(|s| !s.dtype.is_float());
    let float = matrix.segments.iter().any(|s| s.dtype.is_float());
    if int {
        workspace.ints.reserve(tokens * (cols / 32) * RECORD, "quantised activations")?;
    }
    if float {
        workspace.floats.reserve(tokens * cols * 4, "packed activations")?;
    }
    let job = Job {
        simd,
        tokens,
        int_tiles: Tiles::new(tokens, int_width),
        float_tiles: Tiles::new(tokens, float_width),
        ints: Shared::new(workspace.ints.as_mut_ptr()),
        floats: Shared::new(workspace.floats.as_mut_ptr().cast()),
        out: Shared::new(operands.out),
        width: matrix.rows,
        bias: operands.bias.map(|p| Shared::new(p.cast_mut())),
        accumulate: operands.accumulate,
    };
    let x = Shared::new(operands.x.cast_mut());
    // A token or two are prepared faster than a second thread wakes up.
    let step = |tiles: Tiles| if tokens * cols < 32 << 10 { tiles.count } else { 1 };
    if int {
        pool.each(job.int_tiles.count, step(job.int_tiles), |_, range| {
            for tile in range {
                run(simd, integer::Quantize { job, x, cols, tile });
            }
        });
    }
    if float {
        pool.each(job.float_tiles.count, step(job.float_tiles), |_, range| {
            for tile in range {
                run(simd, float::Interleave { job, x, cols, tile });
            }
        });
    }
    let scratch = Shared::new(workspace.threads.as_mut_ptr());
    let pairs = |s: &Segment| s.groups().div_ceil(2);
    let units: usize = matrix.segments.iter().map(pairs).sum();
    let shared = (units / (pool.threads() * 8)).clamp(1, if is_direct { 64 } else { PAIRS });
    let step = if tokens * matrix.rows * cols <= ALONE { units } else { shared };
    pool.each(units, step, |thread, range| {
        let mut before = 0;
        for segment in &matrix.segments {
            let here = pairs(segment);
            let (start, end) = (range.start.max(before), range.end.min(before + here));
            if start < end {
                let groups = 2 * (start - before)..(2 * (end - before)).min(segment.groups());
                // SAFETY: every thread has its own `SCRATCH` bytes.
                let scratch = Shared::new(unsafe { scratch.get().add(thread * SCRATCH) });
                match (segment.dtype.is_float(), is_direct) {
                    (false, true) => integer::direct(&job, segment, groups),
                    (false, false) => integer::panels(&job, segment, groups, scratch),
                    (true, true) => float::direct(&job, segment, groups),
                    (true, false) => float::panels(&job, segment, groups, scratch),
                }
            }
            before += here;
        }
    });
    Ok(())
}

/// Adds bias and the old value where asked for and writes the outputs of 16 rows of one token.
///
/// # Safety
/// The job's pointers are valid and no other thread writes these outputs.
#[inline(always)]
unsafe fn finish<S: Isa>(s: S, job: &Job, segment: &Segment, group: usize, token: usize, value: S::F) {
    let first = group * LANES;
    let count = (segment.rows - first).min(LANES);
    let column = segment.first + first;
    // SAFETY: token < tokens and column + count <= width; bias has width values.
    unsafe {
        let out = job.out.get().add(token * job.width + column);
        let mut value = value;
        if count == LANES {
            if let Some(bias) = job.bias {
                value = s.add(value, s.load(bias.get().add(column)));
            }
            if job.accumulate {
                value = s.add(s.load(out), value);
            }
            s.store(out, value);
        } else {
            if let Some(bias) = job.bias {
                value = s.add(value, s.load_n(bias.get().add(column), count));
            }
            if job.accumulate {
                value = s.add(s.load_n(out, count), value);
            }
            s.store_n(out, count, value);
        }
    }
}
