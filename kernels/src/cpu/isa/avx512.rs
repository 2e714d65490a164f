//! AVX-512 with VNNI: one register is one vector.

use std::arch::x86_64::*;

use super::{Isa, LANES};

/// Proof that the processor has AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The processor has the features.
    #[inline(always)]
    pub(super) unsafe fn assume() -> Self {
        Self(())
    }
}

/// Methods made of intrinsics whose features the value of the type proves.
macro_rules! ops {
    ($(fn $name:ident$(<const $n:ident: u32>)?($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name$(<const $n: u32>)?(self, $($arg: $ty),*) -> $out {
            // SAFETY: a value of this type exists only where the features do.
            unsafe { $body }
        }
    )*};
}

/// Methods that also touch memory.
macro_rules! memory_ops {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: a value of this type exists only where the features do; the caller vouches for the memory.
            unsafe { $body }
        }
    )*};
}

impl Isa for Avx512 {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;

    const TILE_TOKENS: usize = 6;
    const TILE_GROUPS: usize = 2;
    const FLOAT_TOKENS: usize = 12;
    const DIRECT_TOKENS: usize = 8;
    const WIDE_OFFSET: i32 = 128;

    ops! {
        fn splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        fn add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        fn sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        fn mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        fn min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        fn round(a: __m512) -> __m512 =
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        fn select_lt(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 =
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes);
        fn pow2(n: __m512) -> __m512 = _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(
            _mm512_cvtps_epi32(n),
            _mm512_set1_epi32(127),
        )));
        fn zero_i() -> __m512i = _mm512_setzero_si512();
        fn to_f(v: __m512i) -> __m512 = _mm512_cvtepi32_ps(v);
        fn mask(v: __m512i, mask: u8) -> __m512i =
            _mm512_and_si512(v, _mm512_set1_epi8(mask.cast_signed()));
        fn or(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        fn shr<const N: u32>(v: __m512i) -> __m512i = _mm512_srli_epi16::<N>(v);
        fn shl<const N: u32>(v: __m512i) -> __m512i = _mm512_slli_epi16::<N>(v);
        fn widen(v: __m512i) -> __m512i = _mm512_xor_si512(v, _mm512_set1_epi8(-128));
        fn dot(acc: __m512i, w: __m512i, x: __m512i) -> __m512i = _mm512_dpbusd_epi32(acc, w, x);
        fn dot_wide(acc: __m512i, w: __m512i, x: __m512i) -> __m512i = _mm512_dpbusd_epi32(acc, w, x);
        fn highest(v: __m512) -> f32 = _mm512_reduce_max_ps(v);
        fn prefetch(p: *const u8) -> () = _mm_prefetch::<_MM_HINT_T1>(p.cast());
    }

    memory_ops! {
        fn load(p: *const f32) -> __m512 = _mm512_loadu_ps(p);
        fn store(p: *mut f32, v: __m512) -> () = _mm512_storeu_ps(p, v);
        fn load_f16(p: *const u16) -> __m512 = _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()));
        fn load_bf16(p: *const u16) -> __m512 = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())),
        ));
        fn load_u8(p: *const u8) -> __m512 =
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())));
        fn load_i8(p: *const u8) -> __m512 =
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())));
        fn splat_i(p: *const i32) -> __m512i = _mm512_set1_epi32(p.read_unaligned());
        fn load_b(p: *const u8) -> __m512i = _mm512_loadu_si512(p.cast());
        fn store_b(p: *mut u8, v: __m512i) -> () = _mm512_storeu_si512(p.cast(), v);
        fn splat_b(p: *const u8) -> __m512i = _mm512_set1_epi32(p.cast::<i32>().read_unaligned());
        fn quantize(v: __m512, p: *mut i8) -> i32 = {
            let q = _mm512_cvtps_epi32(v);
            _mm_storeu_si128(p.cast(), _mm512_cvtsepi32_epi8(q));
            _mm512_reduce_add_epi32(q)
        };
        fn store_f16(p: *mut u16, v: __m512) -> () =
            _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
        fn load_n(p: *const f32, n: usize) -> __m512 =
            _mm512_maskz_loadu_ps(low_lanes(n), p);
        fn store_n(p: *mut f32, n: usize, v: __m512) -> () =
            _mm512_mask_storeu_ps(p, low_lanes(n), v);
    }
}

/// A mask of the first `n` lanes.
#[inline(always)]
fn low_lanes(n: usize) -> __mmask16 {
    if n >= LANES { u16::MAX } else { (1u16 << n) - 1 }
}
