//! The packed form of quantised weights: groups of 16 rows, interleaved along K by four bytes.
//!
//! A group is a row of records of up to eight blocks of 32 columns: first the levels of all of them, then their
//! scales, so that memory is read in order. In the levels of a block, a *quad* is 64 bytes: columns `4j..4j+4` of row 0, of row 1, … of row 15. Narrow types keep two quads in one 64-byte
//! load as low and high nibbles, and further bits in planes of their own.
//!
//! | type | levels of a block of 16 × 32 | scales |
//! |---|---|---|
//! | `Q8_0` | 8 quads | per block: d (f16) × 16 rows |
//! | `Q4_0` | 4 × 64 nibble pairs, load i = quads 2i and 2i+1 | d |
//! | `Q4_1` | as `Q4_0` | d, then m |
//! | `Q5_0` | as `Q4_0`, then 64 bytes whose bit j belongs to quad j | d |
//! | `Q5_1` | as `Q5_0` | d, then m |
//! | `Q4_K` | as `Q4_0` | per 256: d, −dmin (f16), then for each sub-block scale and minimum (u8) |
//! | `Q5_K` | as `Q5_0` | as `Q4_K` |
//! | `Q6_K` | as `Q4_0`, then 2 × 64 bytes of bit pairs, load i = quads 4i … 4i+3 | per 256: d (f16), then 16 × scale (i8) |

#![allow(clippy::indexing_slicing, reason = "fixed arrays of quads")]

use super::isa::Isa;
use crate::dtype::DType;

/// Bytes of a prepared activation block: 32 × i8 and the numbers below.
pub(crate) const RECORD: usize = 64;
/// f32: scale of the block.
pub(crate) const AT_SCALE: usize = 32;
/// f32: scale times the sum of the levels.
pub(crate) const AT_SUM: usize = 36;
/// i32: what the accumulator starts at, −128·Σ.
pub(crate) const AT_START_128: usize = 40;
/// i32: −8·Σ.
pub(crate) const AT_START_8: usize = 44;
/// i32: −16·Σ.
pub(crate) const AT_START_16: usize = 48;
/// i32: −32·Σ of the first 16, then of the last 16.
pub(crate) const AT_START_32: usize = 52;
/// i32: 0.
pub(crate) const AT_START_0: usize = 60;

/// How one type is kept and read.
pub(crate) trait Format: 'static {
    /// The type.
    const DTYPE: DType;
    /// Sub-blocks with a scale of their own in a block: 1 or 2.
    const SUBS: usize = 1;
    /// Whether blocks have a minimum to add.
    const MIN: bool = false;
    /// Whether levels are signed bytes.
    const WIDE: bool = false;
    /// Where in an activation record the accumulator's start is.
    const START: usize = AT_START_0;

    /// The eight quads of a block.
    ///
    /// # Safety
    /// `p` points to the levels of a block.
    unsafe fn quads<S: Isa>(s: S, p: *const u8) -> [S::B; 8];

    /// Scales (the second only with two sub-blocks) and minimum of block `b` of a record.
    ///
    /// # Safety
    /// `p` points to the scales of a record with more than `b` blocks.
    unsafe fn scales<S: Isa>(s: S, p: *const u8, b: usize) -> ([S::F; 2], S::F);
}

/// Blocks of 32 columns in a whole record.
pub(crate) const RECORD_BLOCKS: usize = 8;

/// Bytes of the scales of a record with `blocks` blocks of 32; K-quants only have whole records.
const fn scale_bytes(dtype: DType, blocks: usize) -> usize {
    match dtype {
        DType::Q4_1 | DType::Q5_1 => blocks * 64,
        DType::Q4_K | DType::Q5_K => 320,
        // 288 and what keeps the next record aligned.
        DType::Q6_K => 320,
        DType::Q8_0 | DType::Q4_0 | DType::Q5_0 => blocks * 32,
        DType::F32 | DType::F16 | DType::BF16 => 0,
    }
}

/// Bytes of a whole record.
pub(crate) const fn record_bytes(dtype: DType) -> usize {
    RECORD_BLOCKS * level_bytes(dtype) + scale_bytes(dtype, RECORD_BLOCKS)
}

/// Bytes of a group of 16 rows with `blocks` blocks.
pub(crate) const fn group_bytes(dtype: DType, blocks: usize) -> usize {
    let rest = blocks % RECORD_BLOCKS;
    let last = if rest == 0 { 0 } else { rest * level_bytes(dtype) + scale_bytes(dtype, rest) };
    (blocks / RECORD_BLOCKS * record_bytes(dtype) + last).next_multiple_of(64)
}

/// Where block `b` of a group with `blocks` blocks has its levels, where its record has its scales, and the number of
/// the block in the record.
#[inline(always)]
pub(crate) const fn place(dtype: DType, blocks: usize, b: usize) -> (usize, usize, usize) {
    let (record, index) = (b / RECORD_BLOCKS, b % RECORD_BLOCKS);
    let left = blocks - record * RECORD_BLOCKS;
    let count = if left < RECORD_BLOCKS { left } else { RECORD_BLOCKS };
    let at = record * record_bytes(dtype);
    (at + index * level_bytes(dtype), at + count * level_bytes(dtype), index)
}

/// Bytes of the levels of a block of 16 × 32.
pub(crate) const fn level_bytes(dtype: DType) -> usize {
    match dtype {
        DType::Q8_0 => 512,
        DType::Q4_0 | DType::Q4_1 | DType::Q4_K => 256,
        DType::Q5_0 | DType::Q5_1 | DType::Q5_K => 320,
        DType::Q6_K => 384,
        DType::F32 => 2048,
        DType::F16 | DType::BF16 => 1024,
    }
}

/// Four loads of nibble pairs.
///
/// # Safety
/// 256 bytes are readable at `p`.
#[inline(always)]
unsafe fn nibbles<S: Isa>(s: S, p: *const u8) -> [S::B; 8] {
    // SAFETY: the caller vouches for the bytes.
    let v = unsafe { [s.load_b(p), s.load_b(p.add(64)), s.load_b(p.add(128)), s.load_b(p.add(192))] };
    [
        s.mask(v[0], 15),
        s.mask(s.shr::<4>(v[0]), 15),
        s.mask(v[1], 15),
        s.mask(s.shr::<4>(v[1]), 15),
        s.mask(v[2], 15),
        s.mask(s.shr::<4>(v[2]), 15),
        s.mask(v[3], 15),
        s.mask(s.shr::<4>(v[3]), 15),
    ]
}

/// Nibbles and a plane of fifth bits.
///
/// # Safety
/// 320 bytes are readable at `p`.
#[inline(always)]
unsafe fn five_bits<S: Isa>(s: S, p: *const u8) -> [S::B; 8] {
    // SAFETY: the caller vouches for the bytes.
    let (low, plane) = unsafe { (nibbles(s, p), s.load_b(p.add(256))) };
    [
        s.or(low[0], s.mask(s.shl::<4>(plane), 16)),
        s.or(low[1], s.mask(s.shl::<3>(plane), 16)),
        s.or(low[2], s.mask(s.shl::<2>(plane), 16)),
        s.or(low[3], s.mask(s.shl::<1>(plane), 16)),
        s.or(low[4], s.mask(plane, 16)),
        s.or(low[5], s.mask(s.shr::<1>(plane), 16)),
        s.or(low[6], s.mask(s.shr::<2>(plane), 16)),
        s.or(low[7], s.mask(s.shr::<3>(plane), 16)),
    ]
}

/// The scale of a block as an f16 per row.
///
/// # Safety
/// As [`Format::scales`].
#[inline(always)]
unsafe fn plain<S: Isa>(s: S, p: *const u8, b: usize) -> ([S::F; 2], S::F) {
    // SAFETY: the caller vouches for block b.
    let d = unsafe { s.load_f16(p.add(32 * b).cast()) };
    ([d, d], d)
}

/// Scale and minimum of a block as an f16 each per row.
///
/// # Safety
/// As [`Format::scales`].
#[inline(always)]
unsafe fn with_minimum<S: Isa>(s: S, p: *const u8, b: usize) -> ([S::F; 2], S::F) {
    // SAFETY: the caller vouches for block b.
    let (d, m) = unsafe { (s.load_f16(p.add(64 * b).cast()), s.load_f16(p.add(64 * b + 32).cast())) };
    ([d, d], m)
}

/// Scale and minimum of a sub-block of `Q4_K` or `Q5_K`.
///
/// # Safety
/// As [`Format::scales`].
#[inline(always)]
unsafe fn of_sub_block<S: Isa>(s: S, p: *const u8, b: usize) -> ([S::F; 2], S::F) {
    // SAFETY: the caller vouches for block b; the scales of a record have 64 + 8 · 32 bytes.
    unsafe {
        let sub = p.add(64 + b * 32);
        let d = s.mul(s.load_f16(p.cast()), s.load_u8(sub));
        let m = s.mul(s.load_f16(p.add(32).cast()), s.load_u8(sub.add(16)));
        ([d, d], m)
    }
}

/// Defines a format from its constants and its two readers.
macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident: $dtype:ident, $quads:expr, $scales:expr, { $($constant:item)* })*) => {$(
        $(#[$doc])*
        pub(crate) enum $name {}

        impl Format for $name {
            const DTYPE: DType = DType::$dtype;
            $($constant)*

            #[inline(always)]
            unsafe fn quads<S: Isa>(s: S, p: *const u8) -> [S::B; 8] {
                // SAFETY: the caller vouches for a block at p.
                unsafe { $quads(s, p) }
            }

            #[inline(always)]
            unsafe fn scales<S: Isa>(s: S, p: *const u8, b: usize) -> ([S::F; 2], S::F) {
                // SAFETY: the caller vouches for block b.
                unsafe { $scales(s, p, b) }
            }
        }
    )*};
}

formats! {
    /// `Q8_0`.
    Q80: Q8_0, eight_bits, plain, { const WIDE: bool = true; const START: usize = AT_START_128; }
    /// `Q4_0`.
    Q40: Q4_0, nibbles, plain, { const START: usize = AT_START_8; }
    /// `Q4_1`.
    Q41: Q4_1, nibbles, with_minimum, { const MIN: bool = true; }
    /// `Q5_0`.
    Q50: Q5_0, five_bits, plain, { const START: usize = AT_START_16; }
    /// `Q5_1`.
    Q51: Q5_1, five_bits, with_minimum, { const MIN: bool = true; }
    /// `Q4_K`.
    Q4K: Q4_K, nibbles, of_sub_block, { const MIN: bool = true; }
    /// `Q5_K`.
    Q5K: Q5_K, five_bits, of_sub_block, { const MIN: bool = true; }
    /// `Q6_K`.
    Q6K: Q6_K, six_bits, of_sixteen, { const SUBS: usize = 2; const START: usize = AT_START_32; }
}

/// Signed bytes, prepared for the wide dot product.
///
/// # Safety
/// 512 bytes are readable at `p`.
#[inline(always)]
unsafe fn eight_bits<S: Isa>(s: S, p: *const u8) -> [S::B; 8] {
    // SAFETY: the caller vouches for the bytes.
    unsafe {
        [
            s.widen(s.load_b(p)),
            s.widen(s.load_b(p.add(64))),
            s.widen(s.load_b(p.add(128))),
            s.widen(s.load_b(p.add(192))),
            s.widen(s.load_b(p.add(256))),
            s.widen(s.load_b(p.add(320))),
            s.widen(s.load_b(p.add(384))),
            s.widen(s.load_b(p.add(448))),
        ]
    }
}

/// Nibbles and two planes of bit pairs.
///
/// # Safety
/// 384 bytes are readable at `p`.
#[inline(always)]
unsafe fn six_bits<S: Isa>(s: S, p: *const u8) -> [S::B; 8] {
    // SAFETY: the caller vouches for the bytes.
    let (low, a, b) = unsafe { (nibbles(s, p), s.load_b(p.add(256)), s.load_b(p.add(320))) };
    [
        s.or(low[0], s.mask(s.shl::<4>(a), 48)),
        s.or(low[1], s.mask(s.shl::<2>(a), 48)),
        s.or(low[2], s.mask(a, 48)),
        s.or(low[3], s.mask(s.shr::<2>(a), 48)),
        s.or(low[4], s.mask(s.shl::<4>(b), 48)),
        s.or(low[5], s.mask(s.shl::<2>(b), 48)),
        s.or(low[6], s.mask(b, 48)),
        s.or(low[7], s.mask(s.shr::<2>(b), 48)),
    ]
}

/// The two scales of a block of `Q6_K`.
///
/// # Safety
/// As [`Format::scales`].
#[inline(always)]
unsafe fn of_sixteen<S: Isa>(s: S, p: *const u8, b: usize) -> ([S::F; 2], S::F) {
    // SAFETY: the caller vouches for block b; the scales of a record have 32 + 16 · 16 bytes.
    unsafe {
        let sub = p.add(32 + b * 32);
        let d = s.load_f16(p.cast());
        ([s.mul(d, s.load_i8(sub)), s.mul(d, s.load_i8(sub.add(16)))], d)
    }
}

/// Calls `$f::<Format>($args)` for a quantised type and `$other` for a float type.
macro_rules! with_format {
    ($dtype:expr, $other:expr, |$format:ident| $body:expr) => {
        match $dtype {
            DType::Q8_0 => {
                type $format = $crate::cpu::format::Q80;
                $body
            }
            DType::Q4_0 => {
                type $format = $crate::cpu::format::Q40;
                $body
            }
            DType::Q4_1 => {
                type $format = $crate::cpu::format::Q41;
                $body
            }
            DType::Q5_0 => {
                type $format = $crate::cpu::format::Q50;
                $body
            }
            DType::Q5_1 => {
                type $format = $crate::cpu::format::Q51;
                $body
            }
            DType::Q4_K => {
                type $format = $crate::cpu::format::Q4K;
                $body
            }
            DType::Q5_K => {
                type $format = $crate::cpu::format::Q5K;
                $body
            }
            DType::Q6_K => {
                type $format = $crate::cpu::format::Q6K;
                $body
            }
            DType::F32 | DType::F16 | DType::BF16 => $other,
        }
    };
}
pub(crate) use with_format;
