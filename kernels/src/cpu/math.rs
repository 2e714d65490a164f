//! Functions with the same bits everywhere: made of IEEE operations only, none from the system's library.

use super::isa::Isa;

/// `e^x` to about 1.5 ulp; 0 below −87, and the value at 88 above it.
#[inline(always)]
pub(crate) fn exp<S: Isa>(s: S, x: S::F) -> S::F {
    let floor = s.splat(-87.0);
    let clamped = s.max(s.min(x, s.splat(88.0)), floor);
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts: the first has few enough bits for n times it to be exact.
    let r = s.fma(n, s.splat(-0.693_359_4), clamped);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    // Cephes' expf: e^r = 1 + r + r²·p(r) on |r| ≤ ln 2 / 2.
    let mut p = s.splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let e = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    s.select_lt(x, floor, s.splat(0.0), s.mul(e, s.pow2(n)))
}

/// `x·σ(x)`.
#[inline(always)]
pub(crate) fn silu<S: Isa>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(x, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// `x·Φ(x)` with erfc after Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7).
#[inline(always)]
pub(crate) fn gelu<S: Isa>(s: S, x: S::F) -> S::F {
    let (zero, one) = (s.splat(0.0), s.splat(1.0));
    let size = s.max(x, s.sub(zero, x));
    let z = s.mul(size, s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = s.div(one, s.fma(z, s.splat(0.327_591_1), one));
    let mut p = s.splat(1.061_405_4);
    for c in [-1.453_152, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
        p = s.fma(p, t, s.splat(c));
    }
    let gauss = exp(s, s.mul(s.mul(x, x), s.splat(-0.5)));
    let tail = s.mul(s.mul(s.mul(p, t), gauss), s.splat(0.5));
    s.mul(x, s.select_lt(x, zero, tail, s.sub(one, tail)))
}

/// Sine and cosine of an angle of up to some hundred thousand radians, after fdlibm's kernels.
pub(crate) fn sin_cos(x: f64) -> (f64, f64) {
    let n = (x * std::f64::consts::FRAC_2_PI).round_ties_even();
    // π/2 in two parts: the first has 33 bits, so that n times it is exact.
    let r = (x - n * 1.570_796_326_734_125_6) - n * 6.077_100_506_506_192e-11;
    let z = r * r;
    let sin = [
        1.589_690_995_211_55e-10,
        -2.505_076_025_340_686_3e-8,
        2.755_731_370_707_006_8e-6,
        -1.984_126_982_985_795e-4,
        8.333_333_333_322_49e-3,
        -1.666_666_666_666_663_2e-1,
    ];
    let cos = [
        -1.135_964_755_778_819_5e-11,
        2.087_572_321_298_175e-9,
        -2.755_731_435_139_066_3e-7,
        2.480_158_728_947_673e-5,
        -1.388_888_888_887_411e-3,
        4.166_666_666_666_66e-2,
    ];
    let s = r + r * z * sin.into_iter().fold(0.0, |p, c| p * z + c);
    let c = 1.0 - (0.5 * z - z * z * cos.into_iter().fold(0.0, |p, c| p * z + c));
    match n.rem_euclid(4.0) as u8 {
        0 => (s, c),
        1 => (c, -s),
        2 => (-s, -c),
        _ => (-c, s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::{Kernel, LANES, Simd, run};

    struct Map {
        which: usize,
        x: [f32; LANES],
    }

    impl Kernel for Map {
        type Output = [f32; LANES];
        #[inline(always)]
        fn run<S: Isa>(self, s: S) -> [f32; LANES] {
            let mut out = [0.0; LANES];
            // SAFETY: both arrays have 16 values.
            unsafe {
                let x = s.load(self.x.as_ptr());
                let y = match self.which {
                    0 => exp(s, x),
                    1 => silu(s, x),
                    _ => gelu(s, x),
                };
                s.store(out.as_mut_ptr(), y);
            }
            out
        }
    }

    /// The error function by its series and continued fraction, in f64.
    fn phi(x: f64) -> f64 {
        let z = x.abs() / std::f64::consts::SQRT_2;
        let erfc = if z < 3.0 {
            let (mut term, mut sum) = (z, z);
            for n in 1..200 {
                term *= -z * z / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            1.0 - sum * 2.0 / std::f64::consts::PI.sqrt()
        } else {
            let tail = (1..60).rev().fold(z, |f, k| z + f64::from(k) / 2.0 / f);
            (-z * z).exp() / tail / std::f64::consts::PI.sqrt()
        };
        if x < 0.0 { erfc / 2.0 } else { 1.0 - erfc / 2.0 }
    }

    #[test]
    fn functions_are_accurate_and_equal_on_all_instruction_sets() {
        let mut i = -100_000;
        while i < 100_000 {
            let x: [f32; LANES] = std::array::from_fn(|lane| (i + lane as i32) as f32 * 1e-3);
            for which in 0..3 {
                let y = run(Simd::Scalar, Map { which, x });
                for simd in Simd::ALL.into_iter().filter(|simd| simd.available()) {
                    assert_eq!(run(simd, Map { which, x }).map(f32::to_bits), y.map(f32::to_bits), "{simd}");
                }
                for (x, y) in x.into_iter().zip(y) {
                    let wide = f64::from(x);
                    let (expected, slack) = match which {
                        0 => (wide.min(88.0).exp(), 2e-7 * wide.min(88.0).exp() + 2e-38),
                        1 => (wide / (1.0 + (-wide).exp()), 3e-7 * wide.abs() + 2e-38),
                        _ => (wide * phi(wide), 4e-7 * (1.0 + wide.abs())),
                    };
                    assert!((f64::from(y) - expected).abs() <= slack, "{which} {x} {y} {expected}");
                }
            }
            i += 37;
        }
    }

    #[test]
    fn sines_agree_with_the_library() {
        for i in 0..200_000 {
            let x = f64::from(i) * 0.777;
            let (s, c) = sin_cos(x);
            assert!((s - x.sin()).abs() < 2e-12 && (c - x.cos()).abs() < 2e-12, "{x}");
        }
    }
}
