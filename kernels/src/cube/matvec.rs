//! `out[t] = W · x[t]` for few tokens: bound by the speed at which weights are read, so each is read once.
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

use super::bits::{F4, Format, decode, floats, high_bits, plane_group_sum, scale_min};

/// Geometry of a mat-vec kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MatvecShape {
    /// Units that share the rows of a group, each taking every `lanes`-th octet. Power of two.
    pub(crate) lanes: u32,
    /// Groups in a cube.
    pub(crate) groups: u32,
    /// Rows of a group: that many loads in flight per unit, and one read of x serves them all.
    pub(crate) rows: u32,
    /// Octets that a unit loads from each row before it computes.
    pub(crate) unroll: u32,
    /// Tokens, at most.
    pub(crate) tokens: u32,
    /// Octets of x held in shared memory at a time; a multiple of `lanes · unroll`.
    pub(crate) tile: u32,
    /// Sum over lanes by plane shuffles instead of shared memory.
    pub(crate) plane: bool,
}

/// Adds the bias.
pub(crate) const BIAS: u32 = 1;
/// Adds what `out` holds.
pub(crate) const ACCUMULATE: u32 = 2;

/// Neighbouring units read neighbouring octets of a row, so that every load of a plane is one contiguous
/// piece of memory. The tile of x is kept as two planes of vectors (front and back half of each octet):
/// neighbouring units then read neighbouring 16 bytes, which no two banks share.
#[cube(launch_unchecked)]
pub(crate) fn matvec<N: Size, X: Size>(
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
    #[comptime] shape: MatvecShape,
) {
    let lanes = shape.lanes;
    let per_group = shape.rows as usize;
    let batch = shape.tokens as usize;
    let tile = shape.tile;
    let units = comptime!(shape.lanes * shape.groups);
    let mut front = Shared::<[F4]>::new_slice(comptime!((shape.tile * shape.tokens) as usize));
    let mut back = Shared::<[F4]>::new_slice(comptime!((shape.tile * shape.tokens) as usize));

    let lane = UNIT_POS % lanes;
    let group = UNIT_POS / lanes;
    let first_row = (CUBE_POS as u32 * shape.groups + group) * shape.rows;

    let mut acc = Array::<f32>::new(comptime!((shape.rows * shape.tokens) as usize));
    #[unroll]
    for i in 0..comptime!((shape.rows * shape.tokens) as usize) {
        acc[i] = 0.0f32;
    }

    let tiles = (octets + tile - 1u32) / tile;
    for number in 0u32..tiles {
        let start = number * tile;
        sync_cube();
        // Two chunks of four values per octet, zero past the end of a row or of the batch.
        let mut chunk = UNIT_POS;
        while chunk < comptime!(shape.tile * 2 * shape.tokens) {
            let token = chunk / (tile * 2u32);
            let within = chunk % (tile * 2u32);
            let column = (start * 2u32 + within) * 4u32;
            let value = load_chunk::<X>(input, token, column, cols, x_width, token < tokens);
            let place = (token * tile + within / 2u32) as usize;
            if within % 2u32 == 0u32 {
                front[place] = value;
            } else {
                back[place] = value;
            }
            chunk += units;
        }
        sync_cube();

        let left = min(octets - start, tile.runtime());
        let step_octets = comptime!(shape.lanes * shape.unroll);
        let steps = (left + step_octets - 1u32) / step_octets;
        for step in 0u32..steps {
            // All loads first, so that as many as possible are under way at once.
            let mut first = Array::<Vector<u32, N>>::new(comptime!((shape.rows * shape.unroll) as usize));
            let mut second = Array::<Vector<u32, N>>::new(comptime!(if format.bits == 32 {
                (shape.rows * shape.unroll) as usize
            } else {
                1
            }));
            #[unroll]
            for u in 0..comptime!(shape.unroll as usize) {
                let wanted = start + step * step_octets + u as u32 * lanes + lane;
                let octet = min(wanted, octets - 1u32);
                #[unroll]
                for r in 0..per_group {
                    let row = min(first_row + r as u32, rows - 1u32);
                    let slot = comptime!(u * shape.rows as usize + r);
                    let at = (row * octets + octet) * comptime!(format.loads() as u32);
                    first[slot] = quants[at as usize];
                    if comptime!(format.bits == 32) {
                        second[slot] = quants[(at + 1u32) as usize];
                    }
                }
            }
            #[unroll]
            for u in 0..comptime!(shape.unroll as usize) {
                let local = step * step_octets + u as u32 * lanes + lane;
                let octet = min(start + local, octets - 1u32);
                // x is zero between the end of the row and the end of the tile.
                let mut w_front = Array::<F4>::new(per_group);
                let mut w_back = Array::<F4>::new(per_group);
                let mut w_scale = Array::<f32>::new(per_group);
                let mut w_min = Array::<f32>::new(per_group);
                #[unroll]
                for r in 0..per_group {
                    let row = min(first_row + r as u32, rows - 1u32);
                    let slot = comptime!(u * shape.rows as usize + r);
                    let other = comptime!(if format.bits == 32 { slot } else { 0 });
                    let bits = high_bits(high, row * high_words, octet, format);
                    w_front[r] = decode::<N>(first[slot], second[other], bits, 0usize, format);
                    w_back[r] = decode::<N>(first[slot], second[other], bits, 1usize, format);
                    if comptime!(format.quantised()) {
                        let (scale, minimum) = scale_min(scales, row * scale_words, octet, format);
                        w_scale[r] = scale;
                        w_min[r] = minimum;
                    }
                }
                #[unroll]
                for t in 0..batch {
                    let place = (t as u32 * tile + local) as usize;
                    let a = front[place];
                    let b = back[place];
                    let mut sum = 0.0f32.runtime();
                    if comptime!(format.quantised()) {
                        sum = (a + b).vector_sum();
                    }
                    #[unroll]
                    for r in 0..per_group {
                        let slot = comptime!(r * shape.tokens as usize + t);
                        let products = a.dot(w_front[r]) + b.dot(w_back[r]);
                        if comptime!(format.quantised()) {
                            acc[slot] += products * w_scale[r] + sum * w_min[r];
                        } else {
                            acc[slot] += products;
                        }
                    }
                }
            }
        }
    }

    // Fold the lanes.
    if comptime!(shape.plane) {
        #[unroll]
        for i in 0..comptime!((shape.rows * shape.tokens) as usize) {
            acc[i] = plane_group_sum(acc[i], lanes);
        }
        #[unroll]
        for t in 0..batch {
            #[unroll]
            for r in 0..per_group {
                let slot = comptime!(r * shape.tokens as usize + t);
                let row = first_row + r as u32;
                if lane == comptime!(slot as u32 % shape.lanes) && row < rows && (t as u32) < tokens {
                    store(
                        out,
                        bias,
                        acc[slot],
                        t as u32 * out_width + row_offset + row,
                        row_offset + row,
                        flags,
                    );
                }
            }
        }
    } else {
        // Up to eight sums at a time share the barriers of one tree.
        let slots = comptime!((shape.rows * shape.tokens) as usize);
        let at_once = comptime!(if slots < 8 { slots } else { 8 });
        let mut partial = Shared::<[f32]>::new_slice(comptime!(at_once * units as usize));
        #[unroll]
        for pass in 0..comptime!(slots.div_ceil(at_once)) {
            sync_cube();
            #[unroll]
            for i in 0..at_once {
                if comptime!(pass * at_once + i < slots) {
                    partial[(i as u32 * units + UNIT_POS) as usize] = acc[comptime!(pass * at_once + i)];
                }
            }
            sync_cube();
            #[unroll]
            for step in 0u32..comptime!(lanes.ilog2()) {
                let half = comptime!(lanes >> (step + 1));
                if lane < half {
                    #[unroll]
                    for i in 0..at_once {
                        let at = i as u32 * units + UNIT_POS;
                        partial[at as usize] += partial[(at + half) as usize];
                    }
                }
                sync_cube();
            }
            let mut i = lane;
            while i < at_once as u32 {
                let slot = comptime!((pass * at_once) as u32) + i;
                let row = first_row + slot / shape.tokens;
                let token = slot % shape.tokens;
                if slot < slots as u32 && row < rows && token < tokens {
                    let value = partial[(i * units + group * lanes) as usize];
                    store(out, bias, value, token * out_width + row_offset + row, row_offset + row, flags);
                }
                i += lanes;
            }
        }
    }
}

/// Four values of a row of x from `column` on, zero where there are none.
#[cube]
pub(crate) fn load_chunk<X: Size>(
    input: &[Vector<f32, X>],
    token: u32,
    column: u32,
    cols: u32,
    width: u32,
    valid: bool,
) -> F4 {
    let mut value = F4::new(0.0f32);
    let size = X::value();
    if comptime!(size == 4) {
        if valid && column < cols {
            let v = input[((token * width + column) / 4u32) as usize];
            value = floats(v.extract(0usize), v.extract(1usize), v.extract(2usize), v.extract(3usize));
        }
    } else if valid {
        let at = token * width + column;
        #[unroll]
        for i in 0..4usize {
            if column + (i as u32) < cols {
                value.insert(i, input[(at + i as u32) as usize].extract(0usize));
            }
        }
    }
    value
}

/// Writes one result with what `flags` add to it.
#[cube]
pub(crate) fn store(out: &mut [f32], bias: &[f32], value: f32, at: u32, row: u32, flags: u32) {
    let mut result = value;
    if flags % 2u32 == 1u32 {
        result += bias[row as usize];
    }
    if flags >= 2u32 {
        result += out[at as usize];
    }
    out[at as usize] = result;
}
