//! Kernels that work on rows of activations: norms, activation functions, gathers, copies.
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

use super::bits::{F4, Format, cube_sum, decode, high_bits, plane_group_sum, scale_min};

/// Sum of `value` over the `units` of a cube, by planes of at least `lanes` first where those may be used
/// (`lanes` 0: shared memory alone).
#[cube]
pub(crate) fn sum_over_cube(value: f32, #[comptime] units: u32, #[comptime] lanes: u32) -> f32 {
    if comptime!(lanes == 0 || lanes >= units) {
        cube_sum(value, units)
    } else {
        let folded = plane_group_sum(value, lanes);
        let groups = comptime!(units / lanes);
        let mut partial = Shared::<[f32]>::new_slice(groups as usize);
        if UNIT_POS % lanes == 0u32 {
            partial[(UNIT_POS / lanes) as usize] = folded;
        }
        sync_cube();
        let mut sum = 0.0f32.runtime();
        for i in 0u32..groups {
            sum += partial[i as usize];
        }
        sync_cube();
        sum
    }
}

/// One cube per row.
#[cube(launch_unchecked)]
pub(crate) fn rms_norm(
    x: &[f32],
    weight: &[f32],
    out: &mut [f32],
    width: u32,
    eps: f32,
    #[comptime] units: u32,
    #[comptime] lanes: u32,
) {
    let row = CUBE_POS as u32;
    let mut sum = 0.0f32.runtime();
    let mut i = UNIT_POS;
    while i < width {
        let v = x[(row * width + i) as usize];
        sum += v * v;
        i += units;
    }
    let total = sum_over_cube(sum, units, lanes);
    let factor = 1.0f32 / (total / f32::cast_from(width) + eps).sqrt();
    let mut i = UNIT_POS;
    while i < width {
        out[(row * width + i) as usize] = x[(row * width + i) as usize] * factor * weight[i as usize];
        i += units;
    }
}

/// One cube per row, in place. The variance is summed from the differences to the mean.
#[cube(launch_unchecked)]
pub(crate) fn layer_norm(
    x: &mut [f32],
    weight: &[f32],
    bias: &[f32],
    width: u32,
    eps: f32,
    #[comptime] units: u32,
    #[comptime] lanes: u32,
) {
    let row = CUBE_POS as u32;
    let mut sum = 0.0f32.runtime();
    let mut i = UNIT_POS;
    while i < width {
        sum += x[(row * width + i) as usize];
        i += units;
    }
    let mean = sum_over_cube(sum, units, lanes) / f32::cast_from(width);
    let mut squares = 0.0f32.runtime();
    let mut i = UNIT_POS;
    while i < width {
        let d = x[(row * width + i) as usize] - mean;
        squares += d * d;
        i += units;
    }
    let variance = sum_over_cube(squares, units, lanes) / f32::cast_from(width);
    let factor = 1.0f32 / (variance + eps).sqrt();
    let mut i = UNIT_POS;
    while i < width {
        let at = (row * width + i) as usize;
        x[at] = (x[at] - mean) * factor * weight[i as usize] + bias[i as usize];
        i += units;
    }
}

/// `out[t][i] = silu(gate) · up`.
#[cube(launch_unchecked)]
pub(crate) fn swiglu(gate_up: &[f32], out: &mut [f32], width: u32, total: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < total {
        let row = at / width;
        let i = at % width;
        let gate = gate_up[(row * width * 2u32 + i) as usize];
        let up = gate_up[(row * width * 2u32 + width + i) as usize];
        // For very negative gates the exponential is infinite and the quotient a clean zero.
        out[at as usize] = gate / (1.0f32 + (-gate).exp()) * up;
    }
}

/// The complementary error function of `z ≥ 0`, relative error below 1.2e-7 (Numerical Recipes' `erfcc`).
#[cube]
fn erfc_positive(z: f32) -> f32 {
    let t = 1.0f32 / (1.0f32 + 0.5f32 * z);
    let mut p = 0.17087277f32.runtime();
    p = p * t - 0.82215223f32;
    p = p * t + 1.48851587f32;
    p = p * t - 1.13520398f32;
    p = p * t + 0.27886807f32;
    p = p * t - 0.18628806f32;
    p = p * t + 0.09678418f32;
    p = p * t + 0.37409196f32;
    p = p * t + 1.00002368f32;
    t * (p * t - 1.26551223f32 - z * z).exp()
}

/// `x·Φ(x)` in place.
#[cube(launch_unchecked)]
pub(crate) fn gelu(x: &mut [f32], total: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < total {
        let v = x[at as usize];
        let z = v.abs() * 0.70710677f32;
        let half_tail = 0.5f32 * erfc_positive(z);
        x[at as usize] = v * select(v < 0.0f32, half_tail, 1.0f32 - half_tail);
    }
}

/// `out[i] = x[rows[i]]`, one cube per row.
#[cube(launch_unchecked)]
pub(crate) fn gather(
    x: &[f32],
    rows: &[u32],
    rows_start: u32,
    out: &mut [f32],
    width: u32,
    #[comptime] units: u32,
) {
    let row = CUBE_POS as u32;
    let from = rows[(rows_start + row) as usize];
    let mut i = UNIT_POS;
    while i < width {
        out[(row * width + i) as usize] = x[(from * width + i) as usize];
        i += units;
    }
}

/// Rows `ids[t]` of a packed table, decoded; one cube per token. Rows outside of this shard
/// (`first..first + rows`) are some other launch's. Adds when `add`.
#[cube(launch_unchecked)]
pub(crate) fn embed<N: Size>(
    quants: &[Vector<u32, N>],
    high: &[u32],
    scales: &[u32],
    ids: &[u32],
    out: &mut [f32],
    ids_start: u32,
    first: u32,
    rows: u32,
    octets: u32,
    width: u32,
    add: u32,
    high_words: u32,
    scale_words: u32,
    #[comptime] format: Format,
    #[comptime] units: u32,
) {
    let token = CUBE_POS as u32;
    let id = ids[(ids_start + token) as usize];
    if id >= first && id < first + rows {
        let row = id - first;
        let mut octet = UNIT_POS;
        while octet < octets {
            let at = (row * octets + octet) * comptime!(format.loads() as u32);
            let one = quants[at as usize];
            let mut two = one;
            if comptime!(format.bits == 32) {
                two = quants[(at + 1u32) as usize];
            }
            let bits = high_bits(high, row * high_words, octet, format);
            let (scale, minimum) = scale_min(scales, row * scale_words, octet, format);
            #[unroll]
            for part in 0..2usize {
                let values = decode::<N>(one, two, bits, part, format) * F4::new(scale) + F4::new(minimum);
                #[unroll]
                for i in 0..4usize {
                    let column = octet * 8u32 + comptime!(part as u32 * 4 + i as u32);
                    if column < width {
                        let place = (token * width + column) as usize;
                        if add != 0u32 {
                            out[place] += values.extract(i);
                        } else {
                            out[place] = values.extract(i);
                        }
                    }
                }
            }
            octet += units;
        }
    }
}

/// Copies `words` words inside of both buffers, from one page to another.
#[cube(launch_unchecked)]
pub(crate) fn copy_page(keys: &mut [u32], values: &mut [u32], from: u32, to: u32, words: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < words {
        keys[(to * words + at) as usize] = keys[(from * words + at) as usize];
        values[(to * words + at) as usize] = values[(from * words + at) as usize];
    }
}
