//! `out[t] = W · x[t]` for many tokens: tiles of W are decoded once into shared memory and used by all
//! tokens of a tile.
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

use super::bits::{F4, Format, decode, high_bits, scale_min};
use super::matvec::{load_chunk, store};

/// Rows of W in a tile.
pub(crate) const TILE_ROWS: u32 = 64;
/// Octets of K in a tile.
const TILE_OCTETS: u32 = 4;
/// Vectors of four along K in a tile, and one more so that rows start in different banks.
const STRIDE: u32 = TILE_OCTETS * 2 + 1;
/// Units of a cube: 16 along rows times 16 along tokens.
pub(crate) const UNITS: u32 = 256;

/// Each unit computes 4 rows times `per_unit` tokens, 16 apart, so that at each step along K it reads
/// `4 + per_unit` vectors of four from shared memory for `16 · per_unit` multiply-adds, and the units of a
/// quarter plane read vectors that lie in different banks.
#[cube(launch_unchecked)]
pub(crate) fn matmul<N: Size, X: Size>(
    quants: &[Vector<u32, N>],
    high: &[u32],
    scales: &[u32],
    input: &[Vector<f32, X>],
    bias: &[f32],
    out: &mut [f32],
    rows: u32,
    octets: u32,
    cols: u32,
    x_width: u32,
    out_width: u32,
    row_offset: u32,
    tokens: u32,
    flags: u32,
    high_words: u32,
    scale_words: u32,
    #[comptime] format: Format,
    #[comptime] per_unit: u32,
) {
    let tile_tokens = comptime!(per_unit * 16);
    let mut xs = Shared::<[F4]>::new_slice(comptime!((per_unit * 16 * STRIDE) as usize));
    let mut ws = Shared::<[F4]>::new_slice(comptime!((TILE_ROWS * STRIDE) as usize));

    let first_row = CUBE_POS_X * TILE_ROWS;
    let first_token = CUBE_POS_Y * tile_tokens;
    let across = UNIT_POS % 16u32;
    let down = UNIT_POS / 16u32;

    let mut acc = Array::<f32>::new(comptime!((per_unit * 4) as usize));
    #[unroll]
    for i in 0..comptime!((per_unit * 4) as usize) {
        acc[i] = 0.0f32;
    }

    let w_local = UNIT_POS / TILE_OCTETS;
    let w_octet = UNIT_POS % TILE_OCTETS;
    let row = min(first_row + w_local, rows - 1u32);

    let tiles = (octets + comptime!(TILE_OCTETS - 1)) / TILE_OCTETS;
    for tile in 0u32..tiles {
        let start = tile * TILE_OCTETS;
        sync_cube();
        #[unroll]
        for i in 0u32..comptime!(per_unit * 16 * TILE_OCTETS * 2 / UNITS) {
            let chunk = UNIT_POS + comptime!(i * UNITS);
            let local = chunk / comptime!(TILE_OCTETS * 2);
            let within = chunk % comptime!(TILE_OCTETS * 2);
            let token = first_token + local;
            let column = (start * 2u32 + within) * 4u32;
            xs[(local * STRIDE + within) as usize] =
                load_chunk::<X>(input, token, column, cols, x_width, token < tokens);
        }
        // Past the end of a row x is zero, so any octet will do there.
        let octet = min(start + w_octet, octets - 1u32);
        let at = (row * octets + octet) * comptime!(format.loads() as u32);
        let first = quants[at as usize];
        let mut second = first;
        if comptime!(format.bits == 32) {
            second = quants[(at + 1u32) as usize];
        }
        let bits = high_bits(high, row * high_words, octet, format);
        let mut front = decode::<N>(first, second, bits, 0usize, format);
        let mut back = decode::<N>(first, second, bits, 1usize, format);
        if comptime!(format.quantised()) {
            let (scale, minimum) = scale_min(scales, row * scale_words, octet, format);
            front = front * F4::new(scale) + F4::new(minimum);
            back = back * F4::new(scale) + F4::new(minimum);
        }
        let place = w_local * STRIDE + w_octet * 2u32;
        ws[place as usize] = front;
        ws[(place + 1u32) as usize] = back;
        sync_cube();

        for k in 0u32..comptime!(TILE_OCTETS * 2) {
            let mut w = Array::<F4>::new(4usize);
            #[unroll]
            for j in 0..4usize {
                w[j] = ws[((across + comptime!(j as u32 * 16)) * STRIDE + k) as usize];
            }
            #[unroll]
            for i in 0..comptime!(per_unit as usize) {
                let v = xs[((down + comptime!(i as u32 * 16)) * STRIDE + k) as usize];
                #[unroll]
                for j in 0..4usize {
                    acc[comptime!(i * 4 + j)] += v.dot(w[j]);
                }
            }
        }
    }

    #[unroll]
    for i in 0..comptime!(per_unit as usize) {
        let token = first_token + down + comptime!(i as u32 * 16);
        #[unroll]
        for j in 0..4usize {
            let row = first_row + across + comptime!(j as u32 * 16);
            if token < tokens && row < rows {
                let at = token * out_width + row_offset + row;
                store(out, bias, acc[comptime!(i * 4 + j)], at, row_offset + row, flags);
            }
        }
    }
}
