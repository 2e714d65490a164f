//! Head norms, rotation and the append to the KV cache in one launch.
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

use super::bits::{cube_sum, f32_to_half};
use crate::backend::PAGE;

/// What one launch does, as far as it is known when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RopeShape {
    /// Query heads.
    pub(crate) heads: u32,
    /// Key and value heads.
    pub(crate) kv_heads: u32,
    /// Channels per head.
    pub(crate) head_dim: u32,
    /// Pairs that are rotated.
    pub(crate) pairs: u32,
    /// `(2i, 2i+1)` rather than `(i, i + pairs)`.
    pub(crate) interleaved: bool,
    /// Whether q and k heads are normalised.
    pub(crate) norms: bool,
    /// Units of a cube, a power of two.
    pub(crate) units: u32,
}

/// One cube per (head, token) of the fused `[q | k | v]` rows. Keys lie in the cache as
/// `[page][head][pair of channels][position]` so that units that score one position each read
/// neighbouring words; values as `[page][head][position][pair of channels]` so that units that sum one
/// channel pair each do.
///
/// `angles` holds cosine and sine for every token and pair, from the host: Vulkan promises sine and cosine
/// to 2^-11 only, and nothing at all for angles beyond π, which positions in the thousands are.
#[cube(launch_unchecked)]
pub(crate) fn rope_append(
    qkv: &mut [f32],
    angles: &[f32],
    q_norm: &[f32],
    k_norm: &[f32],
    meta: &[u32],
    keys: &mut [u32],
    values: &mut [u32],
    positions: u32,
    table_starts: u32,
    eps: f32,
    #[comptime] shape: RopeShape,
) {
    let dim = shape.head_dim;
    let units = shape.units;
    let mut head_in = Shared::<[f32]>::new_slice(dim as usize);
    let mut head_out = Shared::<[f32]>::new_slice(dim as usize);

    let head = CUBE_POS_X;
    let token = CUBE_POS_Y;
    let start = (token * comptime!(shape.heads + 2 * shape.kv_heads) + head) * dim;
    let position = meta[(positions + token) as usize];
    let is_value = head >= comptime!(shape.heads + shape.kv_heads);
    let is_query = head < shape.heads;

    let mut sum = 0.0f32.runtime();
    let mut i = UNIT_POS;
    while i < dim {
        let v = qkv[(start + i) as usize];
        head_in[i as usize] = v;
        sum += v * v;
        i += units;
    }
    if comptime!(shape.norms) {
        let total = cube_sum(sum, units);
        if !is_value {
            let factor = 1.0f32 / (total / f32::cast_from(dim.runtime()) + eps).sqrt();
            let mut i = UNIT_POS;
            while i < dim {
                let weight = if is_query { q_norm[i as usize] } else { k_norm[i as usize] };
                head_in[i as usize] = head_in[i as usize] * factor * weight;
                i += units;
            }
        }
    }
    sync_cube();

    // Channels that are not rotated, and all of v.
    let rotated = comptime!(2 * shape.pairs);
    let mut i = UNIT_POS;
    while i < dim {
        if is_value || i >= rotated {
            head_out[i as usize] = head_in[i as usize];
        }
        i += units;
    }
    if !is_value {
        let mut pair = UNIT_POS;
        while pair < shape.pairs {
            let first = if comptime!(shape.interleaved) { pair * 2u32 } else { pair };
            let second = if comptime!(shape.interleaved) { pair * 2u32 + 1u32 } else { pair + shape.pairs };
            let angle = (token * shape.pairs + pair) * 2u32;
            let cos = angles[angle as usize];
            let sin = angles[(angle + 1u32) as usize];
            let a = head_in[first as usize];
            let b = head_in[second as usize];
            head_out[first as usize] = a * cos - b * sin;
            head_out[second as usize] = a * sin + b * cos;
            pair += units;
        }
    }
    sync_cube();

    if is_query {
        let mut i = UNIT_POS;
        while i < dim {
            qkv[(start + i) as usize] = head_out[i as usize];
            i += units;
        }
    } else {
        let table = meta[(table_starts + token) as usize];
        let page = meta[(table + position / comptime!(PAGE as u32)) as usize];
        let slot = position % comptime!(PAGE as u32);
        let mut kv_head = head - shape.heads;
        if is_value {
            kv_head -= shape.kv_heads;
        }
        let block = page * shape.kv_heads + kv_head;
        let words = comptime!(shape.head_dim / 2);
        let mut pair = UNIT_POS;
        while pair < words {
            let low = f32_to_half(head_out[(pair * 2u32) as usize]);
            let high = f32_to_half(head_out[(pair * 2u32 + 1u32) as usize]);
            let word = low | (high << 16u32);
            if is_value {
                values[((block * comptime!(PAGE as u32) + slot) * words + pair) as usize] = word;
            } else {
                keys[((block * words + pair) * comptime!(PAGE as u32) + slot) as usize] = word;
            }
            pair += units;
        }
    }
}
