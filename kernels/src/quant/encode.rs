//! Encoding of single blocks.

use half::f16;

use crate::dtype::DType;

/// Encodes one block of a quantised type.
pub(super) fn block(dtype: DType, x: &[f32], out: &mut Vec<u8>) {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => {}
        DType::Q8_0 => {
            let top = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let d = push_half(top / 127.0, out);
            out.extend(x.iter().map(|v| (v * inverse(d)).round().clamp(-127.0, 127.0) as i8 as u8));
        }
        DType::Q4_0 | DType::Q5_0 => symmetric(dtype, x, out),
        DType::Q4_1 | DType::Q5_1 => affine(dtype, x, out),
        DType::Q4_K | DType::Q5_K => k_affine(dtype, x, out),
        DType::Q6_K => k_symmetric(x, out),
    }
}

/// Appends the f16 nearest to `v` and returns what it decodes to.
fn push_half(v: f32, out: &mut Vec<u8>) -> f32 {
    let half = f16::from_f32(v);
    out.extend(half.to_le_bytes());
    half.to_f32()
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn level(v: f32, top: u8) -> u8 {
    v.round().clamp(0.0, f32::from(top)) as u8
}

/// `d·(q − half)`: the value largest in magnitude gets the lowest level.
fn symmetric(dtype: DType, x: &[f32], out: &mut Vec<u8>) {
    let middle = if dtype == DType::Q4_0 { 8u8 } else { 16 };
    let extreme = x.iter().fold(0.0f32, |m, v| if v.abs() > m.abs() { *v } else { m });
    let d = push_half(extreme / -f32::from(middle), out);
    let q: Vec<u8> = x.iter().map(|v| level(v * inverse(d) + f32::from(middle), 2 * middle - 1)).collect();
    legacy_levels(dtype == DType::Q5_0, &q, out);
}

/// `d·q + m`.
fn affine(dtype: DType, x: &[f32], out: &mut Vec<u8>) {
    let top = if dtype == DType::Q4_1 { 15u8 } else { 31 };
    let (low, high) = x.iter().fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    let d = push_half((high - low) / f32::from(top), out);
    let m = push_half(low, out);
    let q: Vec<u8> = x.iter().map(|v| level((v - m) * inverse(d), top)).collect();
    legacy_levels(dtype == DType::Q5_1, &q, out);
}

/// Levels of a block of 32: fifth bits first, then low nibbles with element i + 16 in the high half.
fn legacy_levels(five: bool, q: &[u8], out: &mut Vec<u8>) {
    if five {
        out.extend(q.chunks(8).map(|c| c.iter().rev().fold(0u8, |bits, v| (bits << 1) | (v >> 4))));
    }
    let (low, high) = q.split_at(q.len() / 2);
    out.extend(low.iter().zip(high).map(|(a, b)| (a & 15) | ((b & 15) << 4)));
}

/// Scale and minimum (`x ≈ scale·q − min`, both ≥ 0) of one sub-block: least squares, weighted by magnitude,
/// over a range of trial steps.
fn fit(x: &[f32], top: u8) -> (f32, f32) {
    let (low, high) = x.iter().fold((0.0f32, f32::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    if high <= low {
        return (0.0, -low);
    }
    let rms = (x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32).sqrt();
    let error = |scale: f32, min: f32| -> f32 {
        let terms = x.iter().map(|v| {
            let q = f32::from(level((v + min) * inverse(scale), top));
            (rms + v.abs()) * (scale * q - min - v).powi(2)
        });
        terms.sum()
    };
    let mut best = ((high - low) / f32::from(top), -low);
    let mut best_error = error(best.0, best.1);
    for step in 0..=20 {
        let trial = (f32::from(top) - 1.0 + 0.1 * step as f32) / (high - low);
        let (mut w, mut wq, mut wqq, mut wx, mut wxq) = (0.0f32, 0.0f32, 0.0f32, 0.0f32, 0.0f32);
        for v in x {
            let q = f32::from(level((v - low) * trial, top));
            let weight = rms + v.abs();
            w += weight;
            wq += weight * q;
            wqq += weight * q * q;
            wx += weight * v;
            wxq += weight * v * q;
        }
        let determinant = w * wqq - wq * wq;
        if determinant <= 0.0 {
            continue;
        }
        let mut scale = (w * wxq - wx * wq) / determinant;
        let mut min = -(wqq * wx - wq * wxq) / determinant;
        if min < 0.0 {
            min = 0.0;
            scale = wxq / wqq;
        }
        if scale > 0.0 {
            let error = error(scale, min);
            if error < best_error {
                (best, best_error) = ((scale, min), error);
            }
        }
    }
    best
}

/// `Q4_K` and `Q5_K`.
fn k_affine(dtype: DType, x: &[f32], out: &mut Vec<u8>) {
    let top = if dtype == DType::Q4_K { 15u8 } else { 31 };
    let fits: Vec<(f32, f32)> = x.chunks(32).map(|sub| fit(sub, top)).collect();
    let (scale, min) = fits.iter().fold((0.0f32, 0.0f32), |(a, b), f| (a.max(f.0), b.max(f.1)));
    let d = push_half(scale / 63.0, out);
    let dmin = push_half(min / 63.0, out);
    let scales: Vec<u8> = fits.iter().map(|f| level(f.0 * inverse(d), 63)).collect();
    let mins: Vec<u8> = fits.iter().map(|f| level(f.1 * inverse(dmin), 63)).collect();
    let mut packed = [0u8; 12];
    for j in 0..4 {
        packed[j] = scales[j] | ((scales[j + 4] >> 4) << 6);
        packed[j + 4] = mins[j] | ((mins[j + 4] >> 4) << 6);
        packed[j + 8] = (scales[j + 4] & 15) | ((mins[j + 4] & 15) << 4);
    }
    out.extend(packed);
    let mut q = [0u8; 256];
    for (i, (q, v)) in q.iter_mut().zip(x).enumerate() {
        let (scale, min) = (d * f32::from(scales[i / 32]), dmin * f32::from(mins[i / 32]));
        *q = level((v + min) * inverse(scale), top);
    }
    if dtype == DType::Q5_K {
        out.extend((0..32).map(|l| (0..8).fold(0u8, |bits, sub| bits | ((q[32 * sub + l] >> 4) << sub))));
    }
    for pair in q.chunks(64) {
        out.extend((0..32).map(|l| (pair[l] & 15) | ((pair[l + 32] & 15) << 4)));
    }
}

/// Best symmetric scale of 16 values for levels `-32..32`.
fn fit_symmetric(x: &[f32]) -> f32 {
    let extreme = x.iter().fold(0.0f32, |m, v| if v.abs() > m.abs() { *v } else { m });
    if extreme == 0.0 {
        return 0.0;
    }
    let mut best = (extreme / -32.0, f32::MAX);
    for step in -9..=9 {
        let trial = -(32.0 + 0.1 * step as f32) / extreme;
        let (mut xq, mut qq) = (0.0f32, 0.0f32);
        for v in x {
            let q = (v * trial).round().clamp(-32.0, 31.0);
            xq += v.abs() * v * q;
            qq += v.abs() * q * q;
        }
        let scale = xq / qq;
        let error: f32 =
            x.iter().map(|v| (scale * (v / scale).round().clamp(-32.0, 31.0) - v).powi(2) * v.abs()).sum();
        if error < best.1 {
            best = (scale, error);
        }
    }
    best.0
}

fn k_symmetric(x: &[f32], out: &mut Vec<u8>) {
    let fits: Vec<f32> = x.chunks(16).map(fit_symmetric).collect();
    let extreme = fits.iter().fold(0.0f32, |m, v| if v.abs() > m.abs() { *v } else { m });
    let d = f16::from_f32(extreme / -128.0);
    let step = d.to_f32();
    let scales: Vec<i8> =
        fits.iter().map(|s| (s * inverse(step)).round().clamp(-128.0, 127.0) as i8).collect();
    let mut q = [0u8; 256];
    for (i, (q, v)) in q.iter_mut().zip(x).enumerate() {
        *q = level(v * inverse(step * f32::from(scales[i / 16])) + 32.0, 63);
    }
    for half in q.chunks(128) {
        out.extend((0..64).map(|l| (half[l] & 15) | ((half[l + 64] & 15) << 4)));
    }
    for half in q.chunks(128) {
        out.extend((0..32).map(|l| (0..4).fold(0u8, |b, i| b | ((half[32 * i + l] >> 4) << (2 * i)))));
    }
    out.extend(scales.iter().map(|s| s.cast_unsigned()));
    out.extend(d.to_le_bytes());
}
