//! Plain code for every processor.

#![allow(clippy::indexing_slicing, reason = "fixed arrays of 16 lanes")]

use std::array::from_fn;

use half::f16;

use super::{Isa, LANES};

/// Sixteen lanes in arrays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scalar;

/// Reads `N` values.
///
/// # Safety
/// They are readable at `p`, at any alignment.
#[inline(always)]
unsafe fn read<T: Copy, const N: usize>(p: *const T) -> [T; N] {
    // SAFETY: the caller vouches for N values at p.
    unsafe { p.cast::<[T; N]>().read_unaligned() }
}

/// Applies a shift to the 16-bit words of 64 bytes.
#[inline(always)]
fn words(v: [u8; 64], f: impl Fn(u16) -> u16) -> [u8; 64] {
    let mut out = [0; 64];
    for (out, v) in out.chunks_exact_mut(2).zip(v.chunks_exact(2)) {
        out.copy_from_slice(&f(u16::from_le_bytes([v[0], v[1]])).to_le_bytes());
    }
    out
}

impl Isa for Scalar {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type B = [u8; 64];

    const TILE_TOKENS: usize = 4;
    const TILE_GROUPS: usize = 1;
    const FLOAT_TOKENS: usize = 6;
    const DIRECT_TOKENS: usize = 1;
    const WIDE_OFFSET: i32 = 0;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        // SAFETY: the caller vouches for 16 values.
        unsafe { read(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::F) {
        // SAFETY: the caller vouches for room for 16 values.
        unsafe { p.cast::<Self::F>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Self::F {
        // SAFETY: the caller vouches for 16 values.
        let v: [u16; LANES] = unsafe { read(p) };
        v.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::F {
        // SAFETY: the caller vouches for 16 values.
        let v: [u16; LANES] = unsafe { read(p) };
        v.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> Self::F {
        // SAFETY: the caller vouches for 16 values.
        let v: [u8; LANES] = unsafe { read(p) };
        v.map(f32::from)
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const u8) -> Self::F {
        // SAFETY: the caller vouches for 16 values.
        let v: [u8; LANES] = unsafe { read(p) };
        v.map(|b| f32::from(b.cast_signed()))
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn select_lt(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn pow2(self, n: Self::F) -> Self::F {
        n.map(|n| f32::from_bits((n as i32).wrapping_add(127).cast_unsigned() << 23))
    }

    #[inline(always)]
    unsafe fn splat_i(self, p: *const i32) -> Self::I {
        // SAFETY: the caller vouches for a value at p.
        [unsafe { p.read_unaligned() }; LANES]
    }
    #[inline(always)]
    fn zero_i(self) -> Self::I {
        [0; LANES]
    }
    #[inline(always)]
    fn to_f(self, v: Self::I) -> Self::F {
        v.map(|v| v as f32)
    }

    #[inline(always)]
    unsafe fn load_b(self, p: *const u8) -> Self::B {
        // SAFETY: the caller vouches for 64 bytes.
        unsafe { read(p) }
    }
    #[inline(always)]
    unsafe fn store_b(self, p: *mut u8, v: Self::B) {
        // SAFETY: the caller vouches for room for 64 bytes.
        unsafe { p.cast::<Self::B>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn splat_b(self, p: *const u8) -> Self::B {
        // SAFETY: the caller vouches for 4 bytes.
        let x: [u8; 4] = unsafe { read(p) };
        from_fn(|i| x[i % 4])
    }
    #[inline(always)]
    fn mask(self, v: Self::B, mask: u8) -> Self::B {
        v.map(|b| b & mask)
    }
    #[inline(always)]
    fn or(self, a: Self::B, b: Self::B) -> Self::B {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn shr<const N: u32>(self, v: Self::B) -> Self::B {
        words(v, |w| w >> N)
    }
    #[inline(always)]
    fn shl<const N: u32>(self, v: Self::B) -> Self::B {
        words(v, |w| w << N)
    }
    #[inline(always)]
    fn widen(self, v: Self::B) -> Self::B {
        v
    }
    #[inline(always)]
    fn dot(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I {
        self.dot_wide(acc, w, x)
    }
    #[inline(always)]
    fn dot_wide(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I {
        let product = |i: usize| i32::from(w[i].cast_signed()) * i32::from(x[i].cast_signed());
        from_fn(|i| acc[i] + product(4 * i) + product(4 * i + 1) + product(4 * i + 2) + product(4 * i + 3))
    }

    #[inline(always)]
    unsafe fn quantize(self, v: Self::F, p: *mut i8) -> i32 {
        let q = v.map(|v| v.round_ties_even() as i8);
        // SAFETY: the caller vouches for room for 16 bytes.
        unsafe { p.cast::<[i8; LANES]>().write_unaligned(q) };
        q.into_iter().map(i32::from).sum()
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, v: Self::F) {
        let bits = v.map(|v| f16::from_f32(v).to_bits());
        // SAFETY: the caller vouches for room for 16 values.
        unsafe { p.cast::<[u16; LANES]>().write_unaligned(bits) }
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
}
