//! Weights as the kernels want them: quants, high bits and scales of each row apart from each other, in
//! 32-bit words. GGUF blocks of 18, 34 or 210 bytes cannot be read by words on a GPU.
#![allow(clippy::indexing_slicing, reason = "blocks are cut to their exact size by chunks_exact")]

use crate::dtype::DType;

use super::bits::{Format, Scales};

/// The layout that weights of `dtype` get.
pub(crate) const fn format_of(dtype: DType) -> Format {
    let (bits, high, offset, scales) = match dtype {
        DType::F32 => (32, 0, 0, Scales::None),
        DType::F16 | DType::BF16 => (16, 0, 0, Scales::None),
        DType::Q8_0 => (8, 0, 128, Scales::Half),
        DType::Q4_0 => (4, 0, 8, Scales::Half),
        DType::Q4_1 => (4, 0, 0, Scales::HalfMin),
        DType::Q5_0 => (4, 1, 16, Scales::Half),
        DType::Q5_1 => (4, 1, 0, Scales::HalfMin),
        DType::Q4_K => (4, 0, 0, Scales::Super32),
        DType::Q5_K => (4, 1, 0, Scales::Super32),
        DType::Q6_K => (4, 2, 32, Scales::Super16),
    };
    Format { bits, bf16: matches!(dtype, DType::BF16), high, offset, scales }
}

/// Rows of one format, packed.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    /// Words of quants, row after row.
    pub(crate) quants: Vec<u32>,
    /// Words of high bits, row after row.
    pub(crate) high: Vec<u32>,
    /// Words of scales, row after row.
    pub(crate) scales: Vec<u32>,
}

/// One row while it is packed.
struct Row<'a> {
    quants: &'a mut [u32],
    high: &'a mut [u32],
    scales: &'a mut [u32],
}

impl Row<'_> {
    /// Sets quant `i` of `4 + high` or 8 bits.
    fn set(&mut self, format: Format, i: usize, q: u32) {
        if format.bits == 8 {
            self.quants[i / 4] |= q << (i % 4 * 8);
            return;
        }
        self.quants[i / 8] |= (q & 15) << (i % 8 * 4);
        match format.high {
            1 => self.high[i / 32] |= (q >> 4) << (i % 32),
            2 => self.high[i / 16] |= (q >> 4) << (i % 16 * 2),
            _ => {}
        }
    }

    /// Sets half `i` of the scale words.
    fn set_half(&mut self, i: usize, half: u16) {
        self.scales[i / 2] |= u32::from(half) << (i % 2 * 16);
    }

    /// Sets byte `i` of the scale words.
    fn set_byte(&mut self, i: usize, byte: u8) {
        self.scales[i / 4] |= u32::from(byte) << (i % 4 * 8);
    }
}

/// Packs whole rows of `cols` weights. `data` is whole rows, `cols` whole blocks (the caller checked).
pub(crate) fn pack(dtype: DType, cols: usize, data: &[u8]) -> Packed {
    let format = format_of(dtype);
    let octets = cols.div_ceil(8);
    let row_bytes = dtype.bytes_for(cols).unwrap_or(0).max(1);
    let rows = data.len() / row_bytes;
    let (q, h, s) = (octets * format.octet_words(), format.high_words(octets), format.scale_words(octets));
    let mut packed = Packed { quants: vec![0; rows * q], high: vec![0; rows * h], scales: vec![0; rows * s] };
    for (i, bytes) in data.chunks_exact(row_bytes).enumerate() {
        let mut row = Row {
            quants: &mut packed.quants[i * q..(i + 1) * q],
            high: &mut packed.high[i * h..(i + 1) * h],
            scales: &mut packed.scales[i * s..(i + 1) * s],
        };
        pack_row(dtype, format, bytes, &mut row);
    }
    packed
}

fn half_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The half at `at` as the bits of an f32.
fn float_bits(block: &[u8], at: usize) -> u32 {
    half::f16::from_bits(half_at(block, at)).to_f32().to_bits()
}

fn pack_row(dtype: DType, format: Format, bytes: &[u8], row: &mut Row<'_>) {
    match dtype {
        DType::F32 => {
            for (i, b) in bytes.chunks_exact(4).enumerate() {
                row.quants[i] = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        DType::F16 | DType::BF16 => {
            for (i, b) in bytes.chunks_exact(2).enumerate() {
                row.quants[i / 2] |= u32::from(half_at(b, 0)) << (i % 2 * 16);
            }
        }
        DType::Q8_0 => {
            for (g, block) in bytes.chunks_exact(34).enumerate() {
                row.set_half(g, half_at(block, 0));
                for (i, &q) in block[2..].iter().enumerate() {
                    // Two's complement and an offset of 128 differ in the top bit.
                    row.set(format, g * 32 + i, u32::from(q ^ 0x80));
                }
            }
        }
        DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 => {
            let minimum = matches!(dtype, DType::Q4_1 | DType::Q5_1);
            let scale_bytes = if minimum { 4 } else { 2 };
            for (g, block) in bytes.chunks_exact(dtype.block_bytes()).enumerate() {
                if minimum {
                    row.set_half(2 * g, half_at(block, 0));
                    row.set_half(2 * g + 1, half_at(block, 2));
                } else {
                    row.set_half(g, half_at(block, 0));
                }
                let rest = &block[scale_bytes..];
                let (fifth, quants) = if format.high == 1 {
                    (u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]), &rest[4..])
                } else {
                    (0, rest)
                };
                for (i, &b) in quants.iter().enumerate() {
                    let (low, high) = (u32::from(b & 15), u32::from(b >> 4));
                    row.set(format, g * 32 + i, low | ((fifth >> i) & 1) << 4);
                    row.set(format, g * 32 + 16 + i, high | ((fifth >> (i + 16)) & 1) << 4);
                }
            }
        }
        DType::Q4_K | DType::Q5_K => {
            for (sb, block) in bytes.chunks_exact(dtype.block_bytes()).enumerate() {
                let start = sb * format.super_words();
                row.scales[start] = float_bits(block, 0);
                row.scales[start + 1] = float_bits(block, 2);
                for g in 0..8 {
                    let (scale, min) = six_bit_pair(&block[4..16], g);
                    row.set_byte((start + 2) * 4 + 2 * g, scale);
                    row.set_byte((start + 2) * 4 + 2 * g + 1, min);
                }
                let (fifth, quants) = if format.high == 1 {
                    (&block[16..48], &block[48..])
                } else {
                    (&block[..0], &block[16..])
                };
                for (i, &b) in quants.iter().enumerate() {
                    // Byte 32p + j holds element 64p + j (low nibble) and 64p + 32 + j (high nibble).
                    let (p, j) = (i / 32, i % 32);
                    let bits = fifth.get(j).map_or(0, |&h| u32::from(h));
                    let low = u32::from(b & 15) | ((bits >> (2 * p)) & 1) << 4;
                    let high = u32::from(b >> 4) | ((bits >> (2 * p + 1)) & 1) << 4;
                    row.set(format, sb * 256 + p * 64 + j, low);
                    row.set(format, sb * 256 + p * 64 + 32 + j, high);
                }
            }
        }
        DType::Q6_K => {
            for (sb, block) in bytes.chunks_exact(210).enumerate() {
                let start = sb * format.super_words();
                row.scales[start] = float_bits(block, 208);
                for (g, &scale) in block[192..208].iter().enumerate() {
                    row.set_byte((start + 1) * 4 + g, scale);
                }
                for half in 0..2 {
                    let low = &block[half * 64..half * 64 + 64];
                    let high = &block[128 + half * 32..128 + half * 32 + 32];
                    for (j, &h) in high.iter().enumerate() {
                        let (a, b, h) = (u32::from(low[j]), u32::from(low[j + 32]), u32::from(h));
                        let base = sb * 256 + half * 128 + j;
                        row.set(format, base, a & 15 | (h & 3) << 4);
                        row.set(format, base + 32, b & 15 | (h >> 2 & 3) << 4);
                        row.set(format, base + 64, a >> 4 | (h >> 4 & 3) << 4);
                        row.set(format, base + 96, b >> 4 | (h >> 6) << 4);
                    }
                }
            }
        }
    }
}

/// Scale and minimum of sub-block `g` from the 12 bytes of a K block.
fn six_bit_pair(bytes: &[u8], g: usize) -> (u8, u8) {
    if g < 4 {
        (bytes[g] & 63, bytes[g + 4] & 63)
    } else {
        (bytes[g + 4] & 15 | bytes[g - 4] >> 6 << 4, bytes[g + 4] >> 4 | bytes[g] >> 6 << 4)
    }
}
