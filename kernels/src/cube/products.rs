//! Choosing and launching the kernels of matrix products.

use cubecl::prelude::{CubeCount, CubeDim};

use super::bits::Format;
use super::matmul;
use super::matvec::{ACCUMULATE, BIAS, MatvecShape, matvec};
use super::weights::{Shard, Words};
use super::{CubeAct, CubeBackend, CubeMatrix, CubeVector, arg};
use crate::backend::BackendError;

/// Largest number of tokens for which reading weights costs more than computing with them.
const FEW_TOKENS: usize = 8;
/// Units of a mat-vec cube.
const MATVEC_UNITS: u32 = 128;

/// Work groups for `cubes` cubes that find their place by linear position.
pub(crate) fn linear(cubes: usize) -> CubeCount {
    let cubes = u32::try_from(cubes).unwrap_or(u32::MAX).max(1);
    if cubes <= 65_535 {
        CubeCount::Static(cubes, 1, 1)
    } else {
        CubeCount::Static(65_535, cubes.div_ceil(65_535), 1)
    }
}

/// Geometry for `tokens` (1 to 8) tokens.
fn matvec_shape(format: Format, tokens: usize, lanes: u32) -> MatvecShape {
    let (plane, lanes) = if lanes > 0 { (true, lanes) } else { (false, 32) };
    let tokens = tokens.next_power_of_two() as u32;
    // About 64 bytes under way per unit: 4 rows of 4, 8 or 16 bytes. More tokens need the registers.
    let unroll = match (tokens, format.bits) {
        (1, 4) => 4,
        (1, 8) => 2,
        _ => 1,
    };
    // 8 KiB of x at a time, so that several cubes fit a multiprocessor.
    let tile = 256 / tokens;
    MatvecShape { lanes, groups: MATVEC_UNITS / lanes, rows: 4, unroll, tokens, tile, plane }
}

impl CubeBackend {
    /// One launch per shard; each writes its own columns of `out`.
    pub(crate) fn product(
        &mut self,
        rows: usize,
        w: &CubeMatrix,
        x: &CubeAct,
        bias: Option<&CubeVector>,
        accumulate: bool,
        out: &mut CubeAct,
    ) -> Result<(), BackendError> {
        let fits = x.width == w.cols && out.width == w.rows && rows <= x.tokens && rows <= out.tokens;
        if !fits || bias.is_some_and(|b| b.words.len != w.rows) {
            return Err(BackendError::Shape {
                op: "matmul",
                expected: format!("{rows} rows of x of {}, out of {}", w.cols, w.rows),
                got: format!("x {} × {}, out {} × {}", x.tokens, x.width, out.tokens, out.width),
            });
        }
        if rows == 0 {
            return Ok(());
        }
        let mut flags = if accumulate { ACCUMULATE } else { 0 };
        if bias.is_some() {
            flags += BIAS;
        }
        let none = Words { handle: self.nothing.clone(), len: 1 };
        let bias = bias.map_or(&none, |b| &b.words);
        for shard in &w.shards {
            self.product_of(rows, w.cols, shard, x, bias, flags, out);
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the arguments of one launch")]
    fn product_of(
        &mut self,
        tokens: usize,
        cols: usize,
        shard: &Shard,
        x: &CubeAct,
        bias: &Words,
        flags: u32,
        out: &CubeAct,
    ) {
        let format = shard.format;
        let octets = cols.div_ceil(8);
        // Vector loads of x need every row to begin at a multiple of four.
        let vector = if x.width.is_multiple_of(4) { 4 } else { 1 };
        let (quants, high, scales) =
            (arg(&shard.quants, format.vector()), arg(&shard.high, 1), arg(&shard.scales, 1));
        let (xs, bias, outs) = (arg(&x.words, vector), arg(bias, 1), arg(&out.words, 1));
        let (high_words, scale_words) = (format.high_words(octets) as u32, format.scale_words(octets) as u32);
        self.launches += 1;
        if tokens <= FEW_TOKENS {
            let shape = matvec_shape(format, tokens, self.lanes);
            let cubes = shard.rows.div_ceil((shape.groups * shape.rows) as usize);
            // SAFETY: buffers have the lengths their shapes ask for (checked by the caller and at upload), and
            // the kernel keeps rows, octets and tokens inside of them.
            unsafe {
                matvec::launch_unchecked(
                    &self.client,
                    linear(cubes),
                    CubeDim::new_1d(shape.lanes * shape.groups),
                    format.vector(),
                    vector,
                    quants,
                    high,
                    scales,
                    xs,
                    bias,
                    outs,
                    shard.rows as u32,
                    octets as u32,
                    cols as u32,
                    x.width as u32,
                    out.width as u32,
                    shard.first as u32,
                    tokens as u32,
                    flags,
                    high_words,
                    scale_words,
                    format,
                    shape,
                );
            }
        } else {
            let per_unit = if tokens <= 32 { 2 } else { 4 };
            let across = shard.rows.div_ceil(matmul::TILE_ROWS as usize) as u32;
            let down = tokens.div_ceil(16 * per_unit) as u32;
            // SAFETY: as above.
            unsafe {
                matmul::matmul::launch_unchecked(
                    &self.client,
                    CubeCount::Static(across, down, 1),
                    CubeDim::new_1d(matmul::UNITS),
                    format.vector(),
                    vector,
                    quants,
                    high,
                    scales,
                    xs,
                    bias,
                    outs,
                    shard.rows as u32,
                    octets as u32,
                    cols as u32,
                    x.width as u32,
                    out.width as u32,
                    shard.first as u32,
                    tokens as u32,
                    flags,
                    high_words,
                    scale_words,
                    format,
                    per_unit as u32,
                );
            }
        }
    }
}
