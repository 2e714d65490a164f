//! The kernels for AArch64.

use std::arch::aarch64::*;

use super::{GROUP, Hit, PLANES, WORD, Word, reduce};

pub(super) fn scan(words: &[Word], codes: &[u8], limit: u32, hits: &mut Vec<Hit>) {
    for (group, bytes) in codes.chunks_exact(words.len() * WORD).enumerate() {
        // SAFETY: every AArch64 processor that std supports has NEON.
        let distances = unsafe { group_distances(words, bytes) };
        for (lane, &distance) in distances.iter().enumerate() {
            if distance <= u64::from(limit) {
                hits.push(Hit { position: (group * GROUP + lane) as u32, distance: distance as u32 });
            }
        }
    }
}

#[target_feature(enable = "neon")]
fn group_distances(words: &[Word], bytes: &[u8]) -> [u64; GROUP] {
    let mut distances = [0u64; GROUP];
    for (pair, out) in distances.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let mut counts = [vdupq_n_u8(0); PLANES];
        for (word, lanes) in words.iter().zip(bytes.as_chunks::<WORD>().0) {
            // SAFETY: each quarter of `lanes` has 16 bytes.
            let code = unsafe { vld1q_u8(lanes.as_ptr().add(pair * 16)) };
            let differ = veorq_u8(code, vreinterpretq_u8_u64(vdupq_n_u64(word.signs)));
            for (count, &plane) in counts.iter_mut().zip(&word.planes) {
                let differ = vandq_u8(differ, vreinterpretq_u8_u64(vdupq_n_u64(plane)));
                // A byte gains at most 8 per word and a code has at most 30 words: no overflow.
                *count = vaddq_u8(*count, vcntq_u8(differ));
            }
        }
        let [one, two, four] = counts.map(|count| vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(count))));
        let high = vaddq_u64(two, vshlq_n_u64::<1>(four));
        let sum = vaddq_u64(one, vshlq_n_u64::<1>(high));
        *out = [vgetq_lane_u64::<0>(sum), vgetq_lane_u64::<1>(sum)];
    }
    distances
}

/// The caller has checked that every position has a row.
pub(super) fn dot(query: &[f32], rows: &[u8], positions: &[u32], products: &mut Vec<f32>) {
    for &position in positions {
        let row = &rows[position as usize * query.len()..][..query.len()];
        // SAFETY: every AArch64 processor that std supports has NEON.
        products.push(unsafe { product(query, row) });
    }
}

#[target_feature(enable = "neon")]
fn product(query: &[f32], row: &[u8]) -> f32 {
    let mut sums = [[vdupq_n_f32(0.0); 4]; 2];
    for (values, bytes) in query.as_chunks::<32>().0.iter().zip(row.as_chunks::<32>().0) {
        for (half, sums) in sums.iter_mut().enumerate() {
            // SAFETY: each half of `bytes` has 16 bytes.
            let bytes = unsafe { vld1q_s8(bytes.as_ptr().add(half * 16).cast()) };
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            let wide = [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ];
            for (quarter, (sum, byte)) in sums.iter_mut().zip(wide).enumerate() {
                // SAFETY: each quarter of a half of `values` has 4 floats.
                let value = unsafe { vld1q_f32(values.as_ptr().add(half * 16 + quarter * 4)) };
                *sum = vaddq_f32(*sum, vmulq_f32(value, vcvtq_f32_s32(byte)));
            }
        }
    }
    let mut lanes = [0.0f32; 16];
    let [low, high] = sums;
    for (out, (low, high)) in lanes.as_chunks_mut::<4>().0.iter_mut().zip(low.into_iter().zip(high)) {
        // SAFETY: `out` has 4 floats.
        unsafe { vst1q_f32(out.as_mut_ptr(), vaddq_f32(low, high)) };
    }
    reduce(lanes)
}
