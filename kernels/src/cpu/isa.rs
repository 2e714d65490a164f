//! What a kernel needs from a processor: vectors of 16 lanes, whatever their number of registers.
//!
//! Every kernel is written once, generic over [`Isa`]. All operations are IEEE-exact or integer, so the
//! implementations give the same bits; a kernel therefore does too.

#![allow(clippy::indexing_slicing, reason = "fixed arrays of 16 lanes")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use std::fmt;

/// Lanes of a vector; also the rows of a packed group.
pub(crate) const LANES: usize = 16;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Simd {
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512Vnni,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AArch64 with its base vector instructions.
    Neon,
    /// Plain code: right on every machine, and slow.
    Scalar,
}

impl Simd {
    /// Every variant, the fastest first.
    pub const ALL: [Self; 4] = [Self::Avx512Vnni, Self::Avx2, Self::Neon, Self::Scalar];

    /// Whether this processor can run it.
    pub fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            Self::Scalar => true,
            #[allow(unreachable_patterns, reason = "which variants are left depends on the architecture")]
            _ => false,
        }
    }

    /// The fastest one that this processor can run.
    pub fn detect() -> Self {
        Self::ALL.into_iter().find(|simd| simd.available()).unwrap_or(Self::Scalar)
    }

    /// Name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "AVX-512 VNNI",
            Self::Avx2 => "AVX2",
            Self::Neon => "NEON",
            Self::Scalar => "scalar",
        }
    }
}

impl fmt::Display for Simd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Vectors of 16 lanes on one instruction set.
///
/// The methods are safe because a value of an implementing type proves that the instructions exist; those that
/// take pointers are not. All are inlined into functions compiled for the instruction set by [`run`].
pub(crate) trait Isa: Copy + Send + Sync + 'static {
    /// 16 × f32.
    type F: Copy;
    /// 16 × i32.
    type I: Copy;
    /// 16 × 4 bytes.
    type B: Copy;

    /// Tokens in a tile of the integer matrix product, at least 4 and at most 6.
    const TILE_TOKENS: usize;
    /// Row groups in a tile of a matrix product, 1 or 2.
    const TILE_GROUPS: usize;
    /// Tokens in a tile of the float matrix product, at least 4 and at most 12.
    const FLOAT_TOKENS: usize;
    /// How many tokens share weights in registers when these are used straight from memory; at most 8.
    const DIRECT_TOKENS: usize;
    /// How much `dot_wide` has added to each weight: 0 or 128.
    const WIDE_OFFSET: i32;

    fn splat(self, x: f32) -> Self::F;
    /// # Safety
    /// 16 values are readable at `p`, as for all loads below; stores write as many.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// 16 values are writable at `p`.
    unsafe fn store(self, p: *mut f32, v: Self::F);
    /// # Safety
    /// 16 f16 are readable at `p`.
    unsafe fn load_f16(self, p: *const u16) -> Self::F;
    /// # Safety
    /// 16 bf16 are readable at `p`.
    unsafe fn load_bf16(self, p: *const u16) -> Self::F;
    /// # Safety
    /// 16 bytes are readable at `p`.
    unsafe fn load_u8(self, p: *const u8) -> Self::F;
    /// # Safety
    /// 16 bytes are readable at `p`.
    unsafe fn load_i8(self, p: *const u8) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a·b + c` rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a > b ? a : b`.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? a : b`.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `a < b ? yes : no` per lane.
    fn select_lt(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// `2^n` for integral n in −126..=127.
    fn pow2(self, n: Self::F) -> Self::F;

    /// # Safety
    /// An i32 is readable at `p`.
    unsafe fn splat_i(self, p: *const i32) -> Self::I;
    fn zero_i(self) -> Self::I;
    fn to_f(self, v: Self::I) -> Self::F;

    /// # Safety
    /// 64 bytes are readable at `p`.
    unsafe fn load_b(self, p: *const u8) -> Self::B;
    /// # Safety
    /// 64 bytes are writable at `p`.
    unsafe fn store_b(self, p: *mut u8, v: Self::B);
    /// The 4 bytes at `p` in all lanes.
    /// # Safety
    /// 4 bytes are readable at `p`.
    unsafe fn splat_b(self, p: *const u8) -> Self::B;
    /// `v & mask` in each byte.
    fn mask(self, v: Self::B, mask: u8) -> Self::B;
    fn or(self, a: Self::B, b: Self::B) -> Self::B;
    /// Shifts right in words; bits cross bytes, mask afterwards.
    fn shr<const N: u32>(self, v: Self::B) -> Self::B;
    /// Shifts left in words; bits cross bytes, mask afterwards.
    fn shl<const N: u32>(self, v: Self::B) -> Self::B;
    /// Prepares signed 8-bit weights for `dot_wide`.
    fn widen(self, v: Self::B) -> Self::B;
    /// `acc + Σ w·x` over each lane's four bytes, for weights 0..=127 and x in −127..=127.
    fn dot(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I;
    /// `acc + Σ (w + WIDE_OFFSET)·x` for weights from `widen`.
    fn dot_wide(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I;

    /// Rounds 16 values within ±127 (ties to even), writes them as i8 and returns their sum.
    ///
    /// # Safety
    /// 16 bytes are writable at `p`.
    unsafe fn quantize(self, v: Self::F, p: *mut i8) -> i32;
    /// Rounds 16 values to f16, ties to even.
    ///
    /// # Safety
    /// 16 f16 are writable at `p`.
    unsafe fn store_f16(self, p: *mut u16, v: Self::F);
    /// Asks for the cache line at `p` in L2; any address will do.
    fn prefetch(self, p: *const u8);

    /// The first `n` of 16 values, the others 0.
    ///
    /// # Safety
    /// `n` values are readable at `p`.
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::F {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the caller vouches for n readable values; lanes has room for 16.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n.min(LANES));
            self.load(lanes.as_ptr())
        }
    }

    /// Stores the first `n` of 16 values.
    ///
    /// # Safety
    /// `n` values are writable at `p`.
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, n: usize, v: Self::F) {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the caller vouches for n writable values; lanes has room for 16.
        unsafe {
            self.store(lanes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n.min(LANES));
        }
    }

    /// Sum over the lanes in a fixed tree: halves added to halves.
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        let mut a = [0.0f32; LANES];
        // SAFETY: a has 16 values.
        unsafe { self.store(a.as_mut_ptr(), v) };
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                a[i] += a[i + width];
            }
            width /= 2;
        }
        a[0]
    }

    /// Largest lane.
    #[inline(always)]
    fn highest(self, v: Self::F) -> f32 {
        let mut a = [0.0f32; LANES];
        // SAFETY: a has 16 values.
        unsafe { self.store(a.as_mut_ptr(), v) };
        a.into_iter().fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m })
    }
}

/// A computation that is compiled for each instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Isa>(self, s: S) -> Self::Output;
}

/// Runs a kernel compiled for `simd`.
pub(crate) fn run<K: Kernel>(simd: Simd, kernel: K) -> K::Output {
    match simd {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `CpuBackend` only keeps an instruction set that `Simd::available` has found.
        Simd::Avx512Vnni => unsafe { run_avx512(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Simd::Avx2 => unsafe { run_avx2(kernel) },
        #[cfg(target_arch = "aarch64")]
        Simd::Neon => kernel.run(neon::Neon),
        _ => kernel.run(scalar::Scalar),
    }
}

/// # Safety
/// The processor has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller has checked the features.
    kernel.run(unsafe { avx512::Avx512::assume() })
}

/// # Safety
/// The processor has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller has checked the features.
    kernel.run(unsafe { avx2::Avx2::assume() })
}
