//! Norms and element-wise functions over rows.

use super::buffer::Shared;
use super::isa::{Isa, Kernel, LANES};
use super::math;

/// Calls `$full` for each whole vector at offset `$at` and `$rest` for what is left, `$n` values.
macro_rules! vectors {
    ($width:expr, |$at:ident| $full:expr, |$rest_at:ident, $n:ident| $rest:expr) => {{
        let width = $width;
        let mut at = 0;
        while at + LANES <= width {
            let $at = at;
            $full;
            at += LANES;
        }
        if at < width {
            let ($rest_at, $n) = (at, width - at);
            $rest;
        }
    }};
}

/// `out = x / √(mean(x²) + eps) · weight` on rows; `out` may be `x`.
pub(crate) struct RmsNorm {
    pub(crate) x: Shared<f32>,
    pub(crate) out: Shared<f32>,
    pub(crate) weight: Shared<f32>,
    /// Distance between rows of x and of out.
    pub(crate) steps: (usize, usize),
    pub(crate) width: usize,
    pub(crate) eps: f32,
    pub(crate) rows: std::ops::Range<usize>,
}

impl Kernel for RmsNorm {
    type Output = ();
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let width = self.width;
        for row in self.rows {
            // SAFETY: whoever made the kernel vouches for rows of `width` values and a weight as wide.
            unsafe {
                let x = self.x.get().add(row * self.steps.0);
                let out = self.out.get().add(row * self.steps.1);
                let weight = self.weight.get();
                let mut squares = s.splat(0.0);
                vectors!(
                    width,
                    |at| {
                        let v = s.load(x.add(at));
                        squares = s.fma(v, v, squares);
                    },
                    |at, n| {
                        let v = s.load_n(x.add(at), n);
                        squares = s.fma(v, v, squares);
                    }
                );
                let factor = s.splat(1.0 / (s.sum(squares) / width as f32 + self.eps).sqrt());
                vectors!(
                    width,
                    |at| {
                        let v = s.mul(s.mul(s.load(x.add(at)), factor), s.load(weight.add(at)));
                        s.store(out.add(at), v);
                    },
                    |at, n| {
                        let v = s.mul(s.mul(s.load_n(x.add(at), n), factor), s.load_n(weight.add(at), n));
                        s.store_n(out.add(at), n, v);
                    }
                );
            }
        }
    }
}

/// `x = (x − mean) / √(var + eps) · weight + bias` on rows.
pub(crate) struct LayerNorm {
    pub(crate) x: Shared<f32>,
    pub(crate) weight: Shared<f32>,
    pub(crate) bias: Shared<f32>,
    pub(crate) width: usize,
    pub(crate) eps: f32,
    pub(crate) rows: std::ops::Range<usize>,
}

impl Kernel for LayerNorm {
    type Output = ();
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let width = self.width;
        for row in self.rows {
            // SAFETY: whoever made the kernel vouches for rows of `width` values, weight and bias as wide.
            unsafe {
                let x = self.x.get().add(row * width);
                let (weight, bias) = (self.weight.get(), self.bias.get());
                let mut sums = s.splat(0.0);
                vectors!(width, |at| sums = s.add(sums, s.load(x.add(at))), |at, n| sums =
                    s.add(sums, s.load_n(x.add(at), n)));
                let mean = s.splat(s.sum(sums) / width as f32);
                let mut squares = s.splat(0.0);
                vectors!(
                    width,
                    |at| {
                        let v = s.sub(s.load(x.add(at)), mean);
                        s.store(x.add(at), v);
                        squares = s.fma(v, v, squares);
                    },
                    |at, n| {
                        s.store_n(x.add(at), n, s.sub(s.load_n(x.add(at), n), mean));
                        let v = s.load_n(x.add(at), n);
                        squares = s.fma(v, v, squares);
                    }
                );
                let factor = s.splat(1.0 / (s.sum(squares) / width as f32 + self.eps).sqrt());
                vectors!(
                    width,
                    |at| {
                        let v = s.mul(s.load(x.add(at)), factor);
                        s.store(x.add(at), s.fma(v, s.load(weight.add(at)), s.load(bias.add(at))));
                    },
                    |at, n| {
                        let v = s.mul(s.load_n(x.add(at), n), factor);
                        let v = s.fma(v, s.load_n(weight.add(at), n), s.load_n(bias.add(at), n));
                        s.store_n(x.add(at), n, v);
                    }
                );
            }
        }
    }
}

/// `out = silu(gate) · up` on rows of `[gate | up]`.
pub(crate) struct SwiGlu {
    pub(crate) gate_up: Shared<f32>,
    pub(crate) out: Shared<f32>,
    pub(crate) width: usize,
    pub(crate) rows: std::ops::Range<usize>,
}

impl Kernel for SwiGlu {
    type Output = ();
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let width = self.width;
        for row in self.rows {
            // SAFETY: whoever made the kernel vouches for rows of 2 · width values, and of width in out.
            unsafe {
                let gate = self.gate_up.get().add(row * 2 * width);
                let (up, out) = (gate.add(width), self.out.get().add(row * width));
                vectors!(
                    width,
                    |at| {
                        let v = math::silu(s, s.load(gate.add(at)));
                        s.store(out.add(at), s.mul(v, s.load(up.add(at))));
                    },
                    |at, n| {
                        let v = math::silu(s, s.load_n(gate.add(at), n));
                        s.store_n(out.add(at), n, s.mul(v, s.load_n(up.add(at), n)));
                    }
                );
            }
        }
    }
}

/// `x = x·Φ(x)` on a run of values.
pub(crate) struct Gelu {
    pub(crate) x: Shared<f32>,
    pub(crate) values: usize,
}

impl Kernel for Gelu {
    type Output = ();
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        // SAFETY: whoever made the kernel vouches for the values.
        unsafe {
            let x = self.x.get();
            vectors!(self.values, |at| s.store(x.add(at), math::gelu(s, s.load(x.add(at)))), |at, n| s
                .store_n(x.add(at), n, math::gelu(s, s.load_n(x.add(at), n))));
        }
    }
}
