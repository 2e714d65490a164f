//! The block formats of GGUF files: decoding them exactly, and encoding for tests and tools.
//!
//! Layouts follow `ggml-quants.c` of llama.cpp; decoding performs the same f32 operations in the same order,
//! so that both read the same weights from a file.

#![allow(clippy::indexing_slicing, reason = "block layouts are fixed and lengths are checked at the entry")]

mod encode;

use half::{bf16, f16};

use crate::dtype::DType;

/// Why a row could not be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantError {
    /// The number of elements is not a multiple of the block size.
    #[error("{dtype} rows are made of blocks of {block} elements, {elements} is no multiple of that", block = dtype.block())]
    PartialBlock {
        /// The type asked for.
        dtype: DType,
        /// The elements given.
        elements: usize,
    },
    /// Bytes and elements do not belong together.
    #[error("{elements} elements of {dtype} take {expected} bytes, not {got}")]
    Length {
        /// The type asked for.
        dtype: DType,
        /// The elements given.
        elements: usize,
        /// The bytes they take.
        expected: usize,
        /// The bytes given.
        got: usize,
    },
}

/// One block taken apart: levels in element order and the numbers that scale them.
pub(crate) struct Block {
    /// Stored levels, `0..2^bits`; two's complement for `Q8_0`. The first `dtype.block()` count.
    pub(crate) levels: [u8; 256],
    /// Scale of the block, bits of an f16.
    pub(crate) d: u16,
    /// Minimum of the block, or the factor on the sub-blocks' minima; bits of an f16.
    pub(crate) m: u16,
    /// K-quants: scale of each sub-block (`i8` bits for `Q6_K`).
    pub(crate) scales: [u8; 16],
    /// K-quants: minimum of each sub-block.
    pub(crate) mins: [u8; 8],
}

impl Block {
    pub(crate) const fn new() -> Self {
        Self { levels: [0; 256], d: 0, m: 0, scales: [0; 16], mins: [0; 8] }
    }

    /// Takes apart one block of a quantised type; `bytes` has `dtype.block_bytes()` bytes.
    #[inline]
    pub(crate) fn read(&mut self, dtype: DType, bytes: &[u8]) {
        match dtype {
            DType::F32 | DType::F16 | DType::BF16 => {}
            DType::Q8_0 => {
                self.d = half_at(bytes, 0);
                self.levels[..32].copy_from_slice(&bytes[2..34]);
            }
            DType::Q4_0 => {
                self.d = half_at(bytes, 0);
                nibbles(&bytes[2..18], &mut self.levels);
            }
            DType::Q4_1 => {
                (self.d, self.m) = (half_at(bytes, 0), half_at(bytes, 2));
                nibbles(&bytes[4..20], &mut self.levels);
            }
            DType::Q5_0 => {
                self.d = half_at(bytes, 0);
                nibbles(&bytes[6..22], &mut self.levels);
                fifth_bits(&bytes[2..6], &mut self.levels);
            }
            DType::Q5_1 => {
                (self.d, self.m) = (half_at(bytes, 0), half_at(bytes, 2));
                nibbles(&bytes[8..24], &mut self.levels);
                fifth_bits(&bytes[4..8], &mut self.levels);
            }
            DType::Q4_K => {
                self.k_scales(bytes);
                nibbles_k(&bytes[16..144], &mut self.levels);
            }
            DType::Q5_K => {
                self.k_scales(bytes);
                nibbles_k(&bytes[48..176], &mut self.levels);
                for (sub, chunk) in self.levels.chunks_exact_mut(32).enumerate() {
                    for (level, high) in chunk.iter_mut().zip(&bytes[16..48]) {
                        *level |= ((high >> sub) & 1) << 4;
                    }
                }
            }
            DType::Q6_K => {
                let (low, high) = (&bytes[..128], &bytes[128..192]);
                for half in 0..2 {
                    let (low, high) = (&low[64 * half..64 * half + 64], &high[32 * half..32 * half + 32]);
                    let out = &mut self.levels[128 * half..128 * half + 128];
                    for l in 0..32 {
                        out[l] = (low[l] & 15) | ((high[l] & 3) << 4);
                        out[l + 32] = (low[l + 32] & 15) | (((high[l] >> 2) & 3) << 4);
                        out[l + 64] = (low[l] >> 4) | (((high[l] >> 4) & 3) << 4);
                        out[l + 96] = (low[l + 32] >> 4) | ((high[l] >> 6) << 4);
                    }
                }
                self.scales.copy_from_slice(&bytes[192..208]);
                self.d = half_at(bytes, 208);
            }
        }
    }

    /// The 6-bit scales and minima of `Q4_K` and `Q5_K`.
    fn k_scales(&mut self, bytes: &[u8]) {
        (self.d, self.m) = (half_at(bytes, 0), half_at(bytes, 2));
        let s = &bytes[4..16];
        for j in 0..4 {
            self.scales[j] = s[j] & 63;
            self.mins[j] = s[j + 4] & 63;
            self.scales[j + 4] = (s[j + 8] & 15) | ((s[j] >> 6) << 4);
            self.mins[j + 4] = (s[j + 8] >> 4) | ((s[j + 4] >> 6) << 4);
        }
    }

    /// Decodes the block into `out`, `dtype.block()` values.
    fn decode(&self, dtype: DType, out: &mut [f32]) {
        let (d, m) = (f16::from_bits(self.d).to_f32(), f16::from_bits(self.m).to_f32());
        for (i, (value, &level)) in out.iter_mut().zip(&self.levels).enumerate() {
            *value = weight(dtype, d, m, level, self.scales[i / 16], self.scales[i / 32], self.mins[i / 32]);
        }
    }
}

/// One weight from its level and scales; `scale16` and `scale32` are the scales of the sub-blocks of 16 and 32.
#[inline]
pub(crate) fn weight(dtype: DType, d: f32, m: f32, level: u8, scale16: u8, scale32: u8, min: u8) -> f32 {
    let q = f32::from(level);
    match dtype {
        DType::Q8_0 => d * f32::from(level.cast_signed()),
        DType::Q4_0 => d * (q - 8.0),
        DType::Q5_0 => d * (q - 16.0),
        DType::Q4_1 | DType::Q5_1 => d * q + m,
        DType::Q4_K | DType::Q5_K => (d * f32::from(scale32)) * q - m * f32::from(min),
        DType::Q6_K => (d * f32::from(scale16.cast_signed())) * (q - 32.0),
        DType::F32 | DType::F16 | DType::BF16 => 0.0,
    }
}

/// The two bytes at `at` as the bits of an f16.
fn half_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// 16 bytes: low nibbles are elements 0..16, high ones 16..32.
fn nibbles(bytes: &[u8], out: &mut [u8; 256]) {
    for (i, byte) in bytes.iter().enumerate() {
        out[i] = byte & 15;
        out[i + 16] = byte >> 4;
    }
}

/// 128 bytes: in each 32 of them low nibbles are one sub-block, high ones the next.
fn nibbles_k(bytes: &[u8], out: &mut [u8; 256]) {
    for (chunk, out) in bytes.chunks_exact(32).zip(out.chunks_exact_mut(64)) {
        for (i, byte) in chunk.iter().enumerate() {
            out[i] = byte & 15;
            out[i + 32] = byte >> 4;
        }
    }
}

/// 4 bytes with the fifth bit of 32 elements.
fn fifth_bits(bytes: &[u8], out: &mut [u8; 256]) {
    for (i, level) in out[..32].iter_mut().enumerate() {
        *level |= ((bytes[i / 8] >> (i % 8)) & 1) << 4;
    }
}

/// Checks that `bytes` bytes hold exactly `elements` of `dtype`.
fn check(dtype: DType, elements: usize, bytes: usize) -> Result<(), QuantError> {
    let expected = dtype.bytes_for(elements).ok_or(QuantError::PartialBlock { dtype, elements })?;
    if expected == bytes {
        return Ok(());
    }
    Err(QuantError::Length { dtype, elements, expected, got: bytes })
}

/// Decodes a stored row exactly as llama.cpp's reference does.
///
/// # Errors
/// When the elements are not whole blocks or `bytes` is not as long as `out` asks for.
pub fn dequantize_row(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    check(dtype, out.len(), bytes.len())?;
    match dtype {
        DType::F32 => {
            for (value, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        DType::F16 => {
            for (value, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = f16::from_le_bytes([b[0], b[1]]).to_f32();
            }
        }
        DType::BF16 => {
            for (value, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = bf16::from_le_bytes([b[0], b[1]]).to_f32();
            }
        }
        _ => {
            let mut block = Block::new();
            for (bytes, out) in
                bytes.chunks_exact(dtype.block_bytes()).zip(out.chunks_exact_mut(dtype.block()))
            {
                block.read(dtype, bytes);
                block.decode(dtype, out);
            }
        }
    }
    Ok(())
}

/// Encodes a row and appends it to `out`. Not the fastest and not the last word in quality: it serves tests,
/// generated models and tools.
///
/// # Errors
/// When the elements are not whole blocks.
pub fn quantize_row(dtype: DType, row: &[f32], out: &mut Vec<u8>) -> Result<(), QuantError> {
    let bytes = dtype.bytes_for(row.len());
    let bytes = bytes.ok_or(QuantError::PartialBlock { dtype, elements: row.len() })?;
    out.reserve(bytes);
    match dtype {
        DType::F32 => row.iter().for_each(|v| out.extend(v.to_le_bytes())),
        DType::F16 => row.iter().for_each(|v| out.extend(f16::from_f32(*v).to_le_bytes())),
        DType::BF16 => row.iter().for_each(|v| out.extend(bf16::from_f32(*v).to_le_bytes())),
        _ => row.chunks_exact(dtype.block()).for_each(|block| encode::block(dtype, block, out)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(dtype: DType, row: &[f32]) -> Vec<f32> {
        let mut bytes = Vec::new();
        quantize_row(dtype, row, &mut bytes).unwrap();
        assert_eq!(Some(bytes.len()), dtype.bytes_for(row.len()));
        let mut back = vec![0.0; row.len()];
        dequantize_row(dtype, &bytes, &mut back).unwrap();
        back
    }

    /// Largest share of the norm that coding may lose on bell-shaped data.
    fn allowed(dtype: DType) -> f32 {
        match dtype {
            DType::F32 => 0.0,
            DType::F16 => 5e-4,
            DType::BF16 => 4e-3,
            DType::Q8_0 => 8e-3,
            DType::Q6_K => 2.5e-2,
            DType::Q5_0 | DType::Q5_1 | DType::Q5_K => 5.5e-2,
            DType::Q4_0 | DType::Q4_1 | DType::Q4_K => 1.1e-1,
        }
    }

    fn bell(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..n).map(|_| (0..6).map(|_| next()).sum::<f32>()).collect()
    }

    #[test]
    fn bell_shaped_rows_survive_each_type() {
        for dtype in DType::ALL {
            let row = bell(7, 4096);
            let back = round_trip(dtype, &row);
            let error: f32 = row.iter().zip(&back).map(|(a, b)| (a - b).powi(2)).sum();
            let norm: f32 = row.iter().map(|a| a * a).sum();
            let share = (error / norm).sqrt();
            assert!(share <= allowed(dtype), "{dtype}: {share}");
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for dtype in DType::ALL {
            let mut out = vec![0.0; 256];
            let error = dequantize_row(dtype, &[0; 3], &mut out).unwrap_err();
            assert!(matches!(error, QuantError::Length { got: 3, .. }), "{error}");
        }
        assert!(quantize_row(DType::Q4_K, &[0.0; 32], &mut Vec::new()).is_err());
        assert!(dequantize_row(DType::Q8_0, &[0; 34], &mut [0.0; 31]).is_err());
    }

    #[test]
    fn known_blocks_decode_to_the_reference_values() {
        let half = |v: f32| f16::from_f32(v).to_le_bytes();
        let mut q4 = half(0.5).to_vec();
        q4.extend((0..16u8).map(|i| i | ((15 - i) << 4)));
        let mut out = [0.0; 32];
        dequantize_row(DType::Q4_0, &q4, &mut out).unwrap();
        assert_eq!(out[..3], [-4.0, -3.5, -3.0]);
        assert_eq!(out[16..19], [3.5, 3.0, 2.5]);
        // Q4_K: d = 1, dmin = 2; sub-block 5 has scale 37 (0b100101) and minimum 22 (0b010110).
        let mut k = [half(1.0), half(2.0)].concat();
        let mut scales = [0u8; 12];
        scales[9] = 0b0110_0101;
        scales[1] = 0b10 << 6;
        scales[5] = 0b01 << 6;
        k.extend(scales);
        k.extend([0x30; 128]);
        let mut out = [0.0; 256];
        dequantize_row(DType::Q4_K, &k, &mut out).unwrap();
        assert_eq!(out[5 * 32], 37.0 * 3.0 - 2.0 * 22.0);
        assert_eq!(out[4 * 32], 0.0);
    }

    proptest! {
        #[test]
        fn any_bytes_decode(bytes in proptest::collection::vec(any::<u8>(), 420), which in 0usize..11) {
            let dtype = DType::ALL[which];
            let blocks = bytes.len() / dtype.block_bytes();
            let mut out = vec![0.0; blocks * dtype.block()];
            dequantize_row(dtype, &bytes[..blocks * dtype.block_bytes()], &mut out).unwrap();
        }

        #[test]
        fn errors_stay_within_half_a_step(row in proptest::collection::vec(-8.0f32..8.0, 256)) {
            for (dtype, levels) in [(DType::Q8_0, 127.0), (DType::Q4_0, 8.0), (DType::Q5_0, 16.0)] {
                for (chunk, back) in row.chunks(32).zip(round_trip(dtype, &row).chunks(32)) {
                    let top = chunk.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    for (a, b) in chunk.iter().zip(back) {
                        // The side opposite to the largest value has one level less.
                        prop_assert!((a - b).abs() <= top / levels * 1.01 + 1e-6, "{dtype}: {a} became {b}");
                    }
                }
            }
        }

        #[test]
        fn constants_and_scales_survive(value in -100.0f32..100.0, which in 0usize..11) {
            let dtype = DType::ALL[which];
            let back = round_trip(dtype, &[value; 256]);
            for b in back {
                prop_assert!((b - value).abs() <= value.abs() * 0.05 + 1e-4, "{dtype}: {value} became {b}");
            }
        }
    }
}
