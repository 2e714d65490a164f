//! Pieces the kernels share: unpacking bits into floats, and sums over the units of a group.
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

/// Four floats, loaded at once.
pub(crate) type F4 = Vector<f32, Const<4>>;
/// Four words.
pub(crate) type U4 = Vector<u32, Const<4>>;

/// How the elements of a packed matrix are laid out. Everything here is known when a kernel is compiled.
///
/// The unit of work is an octet: 8 consecutive weights of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Format {
    /// Bits of an element in `quants`: 4, 8, 16 or 32.
    pub(crate) bits: u32,
    /// For 16 bits: whether they are bfloat16 rather than binary16.
    pub bf16: bool,
    /// Bits of an element in `high`, above the 4 in `quants`: 0, 1 or 2.
    pub(crate) high: u32,
    /// What is subtracted from a quant before it is scaled.
    pub(crate) offset: u32,
    /// How scales are stored, see [`Scales`].
    pub(crate) scales: Scales,
}

/// How the scales of a packed matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scales {
    /// The elements are floats.
    None,
    /// Per 32 elements an f16 scale, two in a word.
    Half,
    /// Per 32 elements one word: f16 scale, f16 minimum.
    HalfMin,
    /// Per 256 elements six words: d and dmin as f32, then eight pairs of bytes (scale, minimum).
    /// As halves d and dmin would be a word less (3 %), but then each octet would convert them.
    Super32,
    /// Per 256 elements five words: d as f32, then sixteen signed bytes, one per 16 elements.
    Super16,
}

impl Format {
    /// Words that one octet takes in `quants`.
    pub(crate) const fn octet_words(self) -> usize {
        (self.bits / 4) as usize
    }

    /// Words loaded at once.
    pub(crate) const fn vector(self) -> usize {
        if self.bits == 32 { 4 } else { self.octet_words() }
    }

    /// Loads per octet.
    pub(crate) const fn loads(self) -> usize {
        self.octet_words() / self.vector()
    }

    /// Whether values are `scale · q + min`.
    pub(crate) const fn quantised(self) -> bool {
        !matches!(self.scales, Scales::None)
    }

    /// Words of `scales` per row of `octets`.
    pub(crate) const fn scale_words(self, octets: usize) -> usize {
        match self.scales {
            Scales::None => 0,
            Scales::Half => octets.div_ceil(8),
            Scales::HalfMin => octets.div_ceil(4),
            Scales::Super32 | Scales::Super16 => octets.div_ceil(32) * self.super_words(),
        }
    }

    /// Words of `scales` per 256 elements.
    pub(crate) const fn super_words(self) -> usize {
        match self.scales {
            Scales::Super32 => 6,
            _ => 5,
        }
    }

    /// Words of `high` per row of `octets`.
    pub(crate) const fn high_words(self, octets: usize) -> usize {
        (octets * self.high as usize).div_ceil(4)
    }
}

/// The binary16 in the low half of `bits` (the high half must be 0), for finite values.
///
/// WGSL has no 16-bit integers and half floats are an extension, so this is integer work. Subnormal
/// halves are rebuilt by a subtraction: as f32 bit patterns they would be subnormal, which GPUs may flush.
#[cube]
pub(crate) fn half_to_f32(bits: u32) -> f32 {
    let magnitude = (bits & 0x7fffu32) << 13u32;
    let sign = (bits & 0x8000u32) << 16u32;
    let normal = f32::reinterpret(magnitude + 0x3800_0000u32);
    let subnormal = f32::reinterpret(magnitude + 0x3880_0000u32) - f32::reinterpret(0x3880_0000u32.runtime());
    let value = select(magnitude < 0x0080_0000u32, subnormal, normal);
    f32::reinterpret(u32::reinterpret(value) | sign)
}

/// `value` as a binary16 in the low half of a word, rounded to nearest even, clamped to the finite range.
#[cube]
pub(crate) fn f32_to_half(value: f32) -> u32 {
    let bits = u32::reinterpret(value);
    let sign = (bits >> 16u32) & 0x8000u32;
    let magnitude = min(bits & 0x7fff_ffffu32, 0x477f_e000u32);
    // Below 2^-14 adding 0.5 puts the mantissa at a fixed place, rounded by the adder itself.
    let small = u32::reinterpret(f32::reinterpret(magnitude) + 0.5f32) - 0x3f00_0000u32;
    let odd = (magnitude >> 13u32) & 1u32;
    let large = (magnitude - 0x3800_0000u32 + 0x0fffu32 + odd) >> 13u32;
    select(magnitude < 0x3880_0000u32, small, large) | sign
}

/// Sixteen-bit floats `2i` and `2i+1` of a word.
#[cube]
pub(crate) fn low_half(word: u32) -> f32 {
    half_to_f32(word & 0xffffu32)
}

#[cube]
pub(crate) fn high_half(word: u32) -> f32 {
    half_to_f32(word >> 16u32)
}

/// Small unsigned integers as floats. Integer conversions run at a quarter of the rate of additions on
/// common GPUs; placing the bits in the mantissa of 2^23 and subtracting it is exact for < 2^23.
#[cube]
fn small_to_f32(q: U4) -> F4 {
    let magic = U4::new(0x4b00_0000u32);
    F4::reinterpret(q | magic) - F4::new(8388608.0f32)
}

#[cube]
fn lanes(a: u32, b: u32, c: u32, d: u32) -> U4 {
    let mut v = U4::empty();
    v.insert(0usize, a);
    v.insert(1usize, b);
    v.insert(2usize, c);
    v.insert(3usize, d);
    v
}

#[cube]
pub(crate) fn floats(a: f32, b: f32, c: f32, d: f32) -> F4 {
    let mut v = F4::empty();
    v.insert(0usize, a);
    v.insert(1usize, b);
    v.insert(2usize, c);
    v.insert(3usize, d);
    v
}

/// Half `part` (0 or 1) of an octet: four unscaled values. `first` and `second` are the octet's loads (the
/// second only with 32 bits), `high` its high bits, octet 0 of them in the lowest place.
#[cube]
pub(crate) fn decode<N: Size>(
    first: Vector<u32, N>,
    second: Vector<u32, N>,
    high: u32,
    #[comptime] part: usize,
    #[comptime] format: Format,
) -> F4 {
    if comptime!(format.bits == 4) {
        let shift = comptime!(part as u32 * 16);
        let word = first.extract(0usize) >> shift;
        let mut q = (U4::new(word) >> lanes(0u32, 4u32, 8u32, 12u32)) & U4::new(15u32);
        if comptime!(format.high == 1) {
            // Four places up, so that one shift brings each bit above its nibble.
            let h = (high >> comptime!(part as u32 * 4)) << 4u32;
            q = q | ((U4::new(h) >> lanes(0u32, 1u32, 2u32, 3u32)) & U4::new(16u32));
        }
        if comptime!(format.high == 2) {
            let h = (high >> comptime!(part as u32 * 8)) << 4u32;
            q = q | ((U4::new(h) >> lanes(0u32, 2u32, 4u32, 6u32)) & U4::new(48u32));
        }
        small_to_f32(q)
    } else if comptime!(format.bits == 8) {
        let word = first.extract(part);
        let q = (U4::new(word) >> lanes(0u32, 8u32, 16u32, 24u32)) & U4::new(255u32);
        small_to_f32(q)
    } else if comptime!(format.bits == 16) {
        let a = first.extract(comptime!(part * 2));
        let b = first.extract(comptime!(part * 2 + 1));
        if comptime!(format.bf16) {
            F4::reinterpret(lanes(a << 16u32, a & 0xffff_0000u32, b << 16u32, b & 0xffff_0000u32))
        } else {
            floats(low_half(a), high_half(a), low_half(b), high_half(b))
        }
    } else {
        let v = if comptime!(part == 0) { first } else { second };
        F4::reinterpret(lanes(v.extract(0usize), v.extract(1usize), v.extract(2usize), v.extract(3usize)))
    }
}

/// The word of `high` that octet `octet` of a row lies in, shifted so that its bits are lowest.
#[cube]
pub(crate) fn high_bits(high: &[u32], row_start: u32, octet: u32, #[comptime] format: Format) -> u32 {
    if comptime!(format.high == 1) {
        high[(row_start + octet / 4u32) as usize] >> ((octet % 4u32) * 8u32)
    } else if comptime!(format.high == 2) {
        high[(row_start + octet / 2u32) as usize] >> ((octet % 2u32) * 16u32)
    } else {
        0u32.runtime()
    }
}

/// A byte as a float, for the same reason as [`small_to_f32`].
#[cube]
fn byte_to_f32(byte: u32) -> f32 {
    f32::reinterpret(byte | 0x4b00_0000u32) - 8388608.0f32
}

/// Factor of an octet's quants, and what is added to each of them then.
#[cube]
pub(crate) fn scale_min(
    scales: &[u32],
    row_start: u32,
    octet: u32,
    #[comptime] format: Format,
) -> (f32, f32) {
    if comptime!(matches!(format.scales, Scales::Half)) {
        let word = scales[(row_start + octet / 8u32) as usize];
        let scale = half_to_f32((word >> (((octet / 4u32) % 2u32) * 16u32)) & 0xffffu32);
        (scale, scale * comptime!(-(format.offset as f32)))
    } else if comptime!(matches!(format.scales, Scales::HalfMin)) {
        let word = scales[(row_start + octet / 4u32) as usize];
        (low_half(word), high_half(word))
    } else if comptime!(matches!(format.scales, Scales::Super32)) {
        let base = row_start + (octet / 32u32) * comptime!(format.super_words() as u32);
        let group = (octet / 4u32) % 8u32;
        let pair = scales[(base + 2u32 + group / 2u32) as usize] >> ((group % 2u32) * 16u32);
        let scale = f32::reinterpret(scales[base as usize]) * byte_to_f32(pair & 255u32);
        let minimum = f32::reinterpret(scales[(base + 1u32) as usize]) * byte_to_f32((pair >> 8u32) & 255u32);
        (scale, -minimum)
    } else if comptime!(matches!(format.scales, Scales::Super16)) {
        let base = row_start + (octet / 32u32) * comptime!(format.super_words() as u32);
        let group = (octet / 2u32) % 16u32;
        let byte = (scales[(base + 1u32 + group / 4u32) as usize] >> ((group % 4u32) * 8u32)) & 255u32;
        let scale = f32::reinterpret(scales[base as usize]) * (byte_to_f32(byte ^ 128u32) - 128.0f32);
        (scale, scale * comptime!(-(format.offset as f32)))
    } else {
        (1.0f32.runtime(), 0.0f32.runtime())
    }
}

/// Sum over groups of `lanes` consecutive units (a power of two that divides the cube), by shuffles inside a
/// plane. Every unit of the cube must call it. Valid for any plane size that is a multiple of `lanes`.
#[cube]
pub(crate) fn plane_group_sum(value: f32, #[comptime] lanes: u32) -> f32 {
    let mut sum = value;
    #[unroll]
    for step in 0u32..comptime!(lanes.ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!(1u32 << step));
    }
    sum
}

/// Sum of `value` over all `units` (a power of two) of a cube; every unit gets it.
#[cube]
pub(crate) fn cube_sum(value: f32, #[comptime] units: u32) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(units as usize);
    shared[UNIT_POS as usize] = value;
    sync_cube();
    #[unroll]
    for step in 0u32..comptime!(units.ilog2()) {
        let half = comptime!(units >> (step + 1));
        if UNIT_POS < half {
            shared[UNIT_POS as usize] += shared[(UNIT_POS + half) as usize];
        }
        sync_cube();
    }
    let sum = shared[0];
    sync_cube();
    sum
}
