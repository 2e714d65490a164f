//! NEON: a vector is four registers. Only base instructions are used (no `sdot`), so any AArch64 will do.

#![allow(unused_unsafe, reason = "which intrinsics are safe depends on the version of the standard library")]

use std::arch::aarch64::*;
use std::array::from_fn;

use half::f16;

use super::{Isa, LANES};

/// AArch64 always has these instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neon;

/// Methods made of intrinsics of the base instruction set; the arguments are arrays of four registers.
macro_rules! lanewise {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: [$ty; 4]),*) -> [$out; 4] {
            $(let mut $arg = $arg.into_iter();)*
            from_fn(|_| match ($($arg.next(),)*) {
                // SAFETY: NEON belongs to every AArch64.
                ($(Some($arg),)*) => unsafe { $body },
                // SAFETY: as above; never reached, the arrays have four elements.
                _ => unsafe { std::mem::zeroed() },
            })
        }
    )*};
}

impl Isa for Neon {
    type F = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    type B = [uint8x16_t; 4];

    const TILE_TOKENS: usize = 4;
    const TILE_GROUPS: usize = 1;
    const FLOAT_TOKENS: usize = 5;
    const DIRECT_TOKENS: usize = 4;
    const WIDE_OFFSET: i32 = 0;

    lanewise! {
        fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcgtq_f32(a, b), a, b);
        fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcltq_f32(a, b), a, b);
        fn round(a: float32x4_t) -> float32x4_t = vrndnq_f32(a);
        fn select_lt(a: float32x4_t, b: float32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t =
            vbslq_f32(vcltq_f32(a, b), yes, no);
        fn pow2(n: float32x4_t) -> float32x4_t =
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127))));
        fn to_f(v: int32x4_t) -> float32x4_t = vcvtq_f32_s32(v);
        fn or(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t = vorrq_u8(a, b);
        fn dot(acc: int32x4_t, w: uint8x16_t, x: uint8x16_t) -> int32x4_t = dot(acc, w, x);
        fn dot_wide(acc: int32x4_t, w: uint8x16_t, x: uint8x16_t) -> int32x4_t = dot(acc, w, x);
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: NEON belongs to every AArch64.
        [unsafe { vdupq_n_f32(x) }; 4]
    }
    #[inline(always)]
    fn zero_i(self) -> Self::I {
        // SAFETY: NEON belongs to every AArch64.
        [unsafe { vdupq_n_s32(0) }; 4]
    }
    #[inline(always)]
    fn mask(self, v: Self::B, mask: u8) -> Self::B {
        // SAFETY: NEON belongs to every AArch64.
        v.map(|v| unsafe { vandq_u8(v, vdupq_n_u8(mask)) })
    }
    #[inline(always)]
    fn shr<const N: u32>(self, v: Self::B) -> Self::B {
        // SAFETY: NEON belongs to every AArch64.
        v.map(|v| unsafe { vshlq_u8(v, vdupq_n_s8(-(N as i8))) })
    }
    #[inline(always)]
    fn shl<const N: u32>(self, v: Self::B) -> Self::B {
        // SAFETY: NEON belongs to every AArch64.
        v.map(|v| unsafe { vshlq_u8(v, vdupq_n_s8(N as i8)) })
    }
    #[inline(always)]
    fn widen(self, v: Self::B) -> Self::B {
        v
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        // SAFETY: the caller vouches for 16 values.
        from_fn(|i| unsafe { vld1q_f32(p.add(4 * i)) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::F) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: the caller vouches for room for 16 values.
            unsafe { vst1q_f32(p.add(4 * i), v) };
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Self::F {
        // SAFETY: the caller vouches for 16 values.
        let v = unsafe { p.cast::<[u16; LANES]>().read_unaligned() }.map(|b| f16::from_bits(b).to_f32());
        // SAFETY: v has 16 values.
        unsafe { self.load(v.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::F {
        // SAFETY: the caller vouches for 16 values.
        from_fn(|i| unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(p.add(4 * i))))) })
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> Self::F {
        // SAFETY: the caller vouches for 16 values.
        let v = unsafe { p.cast::<[u8; LANES]>().read_unaligned() }.map(f32::from);
        // SAFETY: v has 16 values.
        unsafe { self.load(v.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const u8) -> Self::F {
        // SAFETY: the caller vouches for 16 values.
        let v = unsafe { p.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from);
        // SAFETY: v has 16 values.
        unsafe { self.load(v.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn splat_i(self, p: *const i32) -> Self::I {
        // SAFETY: the caller vouches for a value at p.
        [unsafe { vdupq_n_s32(p.read_unaligned()) }; 4]
    }
    #[inline(always)]
    unsafe fn load_b(self, p: *const u8) -> Self::B {
        // SAFETY: the caller vouches for 64 bytes.
        from_fn(|i| unsafe { vld1q_u8(p.add(16 * i)) })
    }
    #[inline(always)]
    unsafe fn store_b(self, p: *mut u8, v: Self::B) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: the caller vouches for room for 64 bytes.
            unsafe { vst1q_u8(p.add(16 * i), v) };
        }
    }
    #[inline(always)]
    unsafe fn splat_b(self, p: *const u8) -> Self::B {
        // SAFETY: the caller vouches for 4 bytes.
        [unsafe { vreinterpretq_u8_u32(vdupq_n_u32(p.cast::<u32>().read_unaligned())) }; 4]
    }
    #[inline(always)]
    unsafe fn quantize(self, v: Self::F, p: *mut i8) -> i32 {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: lanes has room for 16 values.
        unsafe { self.store(lanes.as_mut_ptr(), v) };
        let q = lanes.map(|v| v.round_ties_even() as i8);
        // SAFETY: the caller vouches for room for 16 bytes.
        unsafe { p.cast::<[i8; LANES]>().write_unaligned(q) };
        q.into_iter().map(i32::from).sum()
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, v: Self::F) {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: lanes has room for 16 values; the caller vouches for room at p.
        unsafe {
            self.store(lanes.as_mut_ptr(), v);
            p.cast::<[u16; LANES]>().write_unaligned(lanes.map(|v| f16::from_f32(v).to_bits()));
        }
    }
}

/// Signed products of |w| ≤ 128 and |x| ≤ 127: pairs are at most 32,512 and fit 16 bits.
///
/// # Safety
/// NEON exists.
#[inline(always)]
unsafe fn dot(acc: int32x4_t, w: uint8x16_t, x: uint8x16_t) -> int32x4_t {
    // SAFETY: NEON belongs to every AArch64.
    unsafe {
        let (w, x) = (vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(x));
        let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
        let high = vmull_high_s8(w, x);
        vpadalq_s16(acc, vpaddq_s16(low, high))
    }
}
