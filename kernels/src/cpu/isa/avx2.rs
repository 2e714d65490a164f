//! AVX2 with FMA and F16C: a vector is two registers.

use std::arch::x86_64::*;

use super::Isa;

/// Proof that the processor has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The processor has the features.
    #[inline(always)]
    pub(super) unsafe fn assume() -> Self {
        Self(())
    }
}

type F2 = [__m256; 2];
type I2 = [__m256i; 2];

/// Methods made of intrinsics whose features the value of the type proves; `a.0` and `a.1` are the halves.
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

/// The same intrinsic on both halves.
macro_rules! both {
    ($f:expr; $a:ident) => {{
        let [a0, a1] = $a;
        [$f(a0), $f(a1)]
    }};
    ($f:expr; $a:ident, $b:ident) => {{
        let ([a0, a1], [b0, b1]) = ($a, $b);
        [$f(a0, b0), $f(a1, b1)]
    }};
    ($f:expr; $a:ident, $b:ident, $c:ident) => {{
        let ([a0, a1], [b0, b1], [c0, c1]) = ($a, $b, $c);
        [$f(a0, b0, c0), $f(a1, b1, c1)]
    }};
}

impl Isa for Avx2 {
    type F = F2;
    type I = I2;
    type B = I2;

    const TILE_TOKENS: usize = 4;
    const TILE_GROUPS: usize = 1;
    const FLOAT_TOKENS: usize = 6;
    const DIRECT_TOKENS: usize = 4;
    const WIDE_OFFSET: i32 = 0;

    ops! {
        fn splat(x: f32) -> F2 = [_mm256_set1_ps(x); 2];
        fn add(a: F2, b: F2) -> F2 = both!(_mm256_add_ps; a, b);
        fn sub(a: F2, b: F2) -> F2 = both!(_mm256_sub_ps; a, b);
        fn mul(a: F2, b: F2) -> F2 = both!(_mm256_mul_ps; a, b);
        fn div(a: F2, b: F2) -> F2 = both!(_mm256_div_ps; a, b);
        fn fma(a: F2, b: F2, c: F2) -> F2 = both!(_mm256_fmadd_ps; a, b, c);
        fn max(a: F2, b: F2) -> F2 = both!(_mm256_max_ps; a, b);
        fn min(a: F2, b: F2) -> F2 = both!(_mm256_min_ps; a, b);
        fn round(a: F2) -> F2 =
            both!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>; a);
        fn select_lt(a: F2, b: F2, yes: F2, no: F2) -> F2 = {
            let lt = both!(_mm256_cmp_ps::<_CMP_LT_OQ>; a, b);
            both!(_mm256_blendv_ps; no, yes, lt)
        };
        fn pow2(n: F2) -> F2 = both!(pow2; n);
        fn zero_i() -> I2 = [_mm256_setzero_si256(); 2];
        fn to_f(v: I2) -> F2 = both!(_mm256_cvtepi32_ps; v);
        fn mask(v: I2, mask: u8) -> I2 = {
            let masks = [_mm256_set1_epi8(mask.cast_signed()); 2];
            both!(_mm256_and_si256; v, masks)
        };
        fn or(a: I2, b: I2) -> I2 = both!(_mm256_or_si256; a, b);
        fn shr<const N: u32>(v: I2) -> I2 = {
            let n = [_mm_cvtsi32_si128(N.cast_signed()); 2];
            both!(_mm256_srl_epi16; v, n)
        };
        fn shl<const N: u32>(v: I2) -> I2 = {
            let n = [_mm_cvtsi32_si128(N.cast_signed()); 2];
            both!(_mm256_sll_epi16; v, n)
        };
        fn dot(acc: I2, w: I2, x: I2) -> I2 = both!(dot; acc, w, x);
        fn dot_wide(acc: I2, w: I2, x: I2) -> I2 = both!(dot_wide; acc, w, x);
        fn highest(v: F2) -> f32 = {
            let [a, b] = v;
            let m = _mm256_max_ps(a, b);
            let m = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps::<1>(m));
            let m = _mm_max_ps(m, _mm_movehl_ps(m, m));
            _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps::<1>(m, m)))
        };
        fn prefetch(p: *const u8) -> () = _mm_prefetch::<_MM_HINT_T1>(p.cast());
    }

    #[inline(always)]
    fn widen(self, v: I2) -> I2 {
        v
    }

    memory_ops! {
        fn load(p: *const f32) -> F2 = [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))];
        fn store(p: *mut f32, v: F2) -> () = {
            let [a, b] = v;
            _mm256_storeu_ps(p, a);
            _mm256_storeu_ps(p.add(8), b);
        };
        fn load_f16(p: *const u16) -> F2 = [
            _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast())),
        ];
        fn load_bf16(p: *const u16) -> F2 = {
            let v = [_mm_loadu_si128(p.cast()), _mm_loadu_si128(p.add(8).cast())];
            let v = both!(_mm256_cvtepu16_epi32; v);
            let v = both!(_mm256_slli_epi32::<16>; v);
            both!(_mm256_castsi256_ps; v)
        };
        fn load_u8(p: *const u8) -> F2 = {
            let v = [_mm_loadl_epi64(p.cast()), _mm_loadl_epi64(p.add(8).cast())];
            let v = both!(_mm256_cvtepu8_epi32; v);
            both!(_mm256_cvtepi32_ps; v)
        };
        fn load_i8(p: *const u8) -> F2 = {
            let v = [_mm_loadl_epi64(p.cast()), _mm_loadl_epi64(p.add(8).cast())];
            let v = both!(_mm256_cvtepi8_epi32; v);
            both!(_mm256_cvtepi32_ps; v)
        };
        fn splat_i(p: *const i32) -> I2 = [_mm256_set1_epi32(p.read_unaligned()); 2];
        fn load_b(p: *const u8) -> I2 =
            [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())];
        fn store_b(p: *mut u8, v: I2) -> () = {
            let [a, b] = v;
            _mm256_storeu_si256(p.cast(), a);
            _mm256_storeu_si256(p.add(32).cast(), b);
        };
        fn splat_b(p: *const u8) -> I2 = [_mm256_set1_epi32(p.cast::<i32>().read_unaligned()); 2];
        fn quantize(v: F2, p: *mut i8) -> i32 = {
            let [a, b] = both!(_mm256_cvtps_epi32; v);
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
            let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(words, words));
            _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(bytes));
            let sum = _mm256_add_epi32(a, b);
            let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
            _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32::<0b10_11_00_01>(sum)))
        };
        fn store_f16(p: *mut u16, v: F2) -> () = {
            let [a, b] = both!(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>; v);
            _mm_storeu_si128(p.cast(), a);
            _mm_storeu_si128(p.add(8).cast(), b);
        };
    }
}

/// # Safety
/// AVX2 exists.
#[inline(always)]
unsafe fn pow2(n: __m256) -> __m256 {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
    }
}

/// Weights are at most 127, so that the pairs (≤ 2·127·127) fit 16 bits.
///
/// # Safety
/// AVX2 exists.
#[inline(always)]
unsafe fn dot(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let pairs = _mm256_maddubs_epi16(w, x);
        _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

/// Signed weights: |w|·(x with w's sign), pairs at most 2·128·127 = 32,512.
///
/// # Safety
/// AVX2 exists.
#[inline(always)]
unsafe fn dot_wide(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: the caller vouches for AVX2.
    unsafe { dot(acc, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w)) }
}
