//! Weights as the kernels want them: packed when a model is loaded, decoded row by row for embeddings.

#![allow(clippy::indexing_slicing, reason = "offsets follow from the layout in `format`")]

use half::{bf16, f16};

use super::buffer::{Buffer, Shared};
use super::format::{group_bytes, level_bytes, place};
use super::isa::LANES;
use super::pool::Pool;
use crate::backend::{BackendError, RawMatrix};
use crate::dtype::DType;
use crate::quant::{Block, weight};

/// Rows of one type within a matrix.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) dtype: DType,
    /// Where its rows start in the matrix.
    pub(crate) first: usize,
    /// Rows without padding.
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Bytes of a group of 16 rows.
    pub(crate) stride: usize,
    data: Buffer,
}

/// Stacked weights, packed for the processor.
#[derive(Debug)]
pub struct CpuMatrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) segments: Vec<Segment>,
}

impl CpuMatrix {
    /// Packs the parts one below the other.
    pub(crate) fn pack(pool: &mut Pool, parts: &[RawMatrix<'_>]) -> Result<Self, BackendError> {
        let cols = parts.first().map_or(0, |part| part.cols);
        let mut matrix = Self { rows: 0, cols, segments: Vec::with_capacity(parts.len()) };
        for part in parts {
            part.check()?;
            if part.cols != cols {
                return Err(BackendError::Shape {
                    op: "matrix",
                    expected: format!("parts with {cols} columns"),
                    got: format!("{} columns", part.cols),
                });
            }
            matrix.segments.push(Segment::pack(pool, part, matrix.rows)?);
            matrix.rows += part.rows;
        }
        if matrix.rows == 0 {
            return Err(BackendError::Shape {
                op: "matrix",
                expected: "at least one part".to_owned(),
                got: "none".to_owned(),
            });
        }
        Ok(matrix)
    }

    /// Bytes that the packed weights take.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(|s| s.groups() * s.stride).sum()
    }

    /// Decodes one row; `out` has `cols` values. Rows past the end give zeros.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        match self.segments.iter().find(|s| (s.first..s.first + s.rows).contains(&row)) {
            Some(segment) => segment.row(row - segment.first, out),
            None => out.fill(0.0),
        }
    }
}

impl Segment {
    fn pack(pool: &mut Pool, part: &RawMatrix<'_>, first: usize) -> Result<Self, BackendError> {
        let (dtype, rows, cols) = (part.dtype, part.rows, part.cols);
        let blocks = cols / 32;
        let stride = if dtype.is_float() {
            (cols * LANES * dtype.block_bytes()).next_multiple_of(64)
        } else {
            group_bytes(dtype, blocks)
        };
        let groups = rows.div_ceil(LANES);
        let bytes = stride.checked_mul(groups).unwrap_or(usize::MAX / 2);
        let mut data = Buffer::zeroed(bytes, "a weight matrix")?;
        let target = Shared::new(data.as_mut_ptr());
        let row_bytes = part.data.len() / rows;
        let step = (groups / (pool.threads() * 8)).max(1);
        pool.each(groups, step, |_, range| {
            for group in range {
                // SAFETY: groups do not overlap, lie in `data`, and each is given to one thread.
                let out = unsafe { std::slice::from_raw_parts_mut(target.get().add(group * stride), stride) };
                let start = group * LANES;
                let raw = &part.data[start * row_bytes..(start + LANES).min(rows) * row_bytes];
                for (lane, raw) in raw.chunks_exact(row_bytes).enumerate() {
                    if dtype.is_float() {
                        pack_floats(dtype.block_bytes(), raw, lane, out);
                    } else {
                        pack_blocks(dtype, raw, lane, blocks, out);
                    }
                }
            }
        });
        Ok(Self { dtype, first, rows, cols, stride, data })
    }

    pub(crate) fn groups(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Where a group starts.
    pub(crate) fn group(&self, group: usize) -> *const u8 {
        debug_assert!(group < self.groups());
        self.data.as_ptr().wrapping_add(group * self.stride)
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        let (dtype, lane) = (self.dtype, row % LANES);
        // SAFETY: the group lies in `data`, whole.
        let group = unsafe { std::slice::from_raw_parts(self.group(row / LANES), self.stride) };
        match dtype {
            DType::F32 => {
                for (value, b) in out.iter_mut().zip(group.chunks_exact(64)) {
                    let b = &b[4 * lane..];
                    *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            DType::F16 => {
                for (value, b) in out.iter_mut().zip(group.chunks_exact(32)) {
                    *value = f16::from_le_bytes([b[2 * lane], b[2 * lane + 1]]).to_f32();
                }
            }
            DType::BF16 => {
                for (value, b) in out.iter_mut().zip(group.chunks_exact(32)) {
                    *value = bf16::from_le_bytes([b[2 * lane], b[2 * lane + 1]]).to_f32();
                }
            }
            _ => {
                for (b, out) in out.chunks_exact_mut(32).enumerate() {
                    let (levels_at, scales_at, index) = place(dtype, self.cols / 32, b);
                    let levels = &group[levels_at..];
                    let (d, m, subs, min) = read_scales(dtype, &group[scales_at..], index, lane);
                    for (k, value) in out.iter_mut().enumerate() {
                        *value = weight(
                            dtype,
                            d,
                            m,
                            read_level(dtype, levels, k, lane),
                            subs[k / 16],
                            subs[0],
                            min,
                        );
                    }
                }
            }
        }
    }
}

/// Puts a row of floats of `size` bytes into its lane.
fn pack_floats(size: usize, raw: &[u8], lane: usize, out: &mut [u8]) {
    if size == 4 {
        for (value, out) in raw.chunks_exact(4).zip(out.chunks_exact_mut(64)) {
            out[4 * lane..4 * lane + 4].copy_from_slice(value);
        }
    } else {
        for (value, out) in raw.chunks_exact(2).zip(out.chunks_exact_mut(32)) {
            out[2 * lane..2 * lane + 2].copy_from_slice(value);
        }
    }
}

/// Puts a row of quantised blocks into its lane of a group of `blocks` blocks of 32.
fn pack_blocks(dtype: DType, raw: &[u8], lane: usize, blocks: usize, out: &mut [u8]) {
    let mut block = Block::new();
    let per_block = dtype.block() / 32;
    for (number, bytes) in raw.chunks_exact(dtype.block_bytes()).enumerate() {
        block.read(dtype, bytes);
        let (levels_at, scales_at, index) = place(dtype, blocks, number * per_block);
        let levels = out[levels_at..].chunks_exact_mut(level_bytes(dtype));
        for (values, out) in block.levels[..dtype.block()].chunks_exact(32).zip(levels) {
            pack_levels(dtype, values, lane, out);
        }
        pack_scales(dtype, &block, index, lane, &mut out[scales_at..]);
    }
}

/// Puts 32 levels of a row into a packed block.
#[inline]
fn pack_levels(dtype: DType, values: &[u8], lane: usize, out: &mut [u8]) {
    let at = 4 * lane;
    if dtype == DType::Q8_0 {
        for (quad, values) in values.chunks_exact(4).enumerate() {
            out[64 * quad + at..64 * quad + at + 4].copy_from_slice(values);
        }
        return;
    }
    for (pair, values) in values.chunks_exact(8).enumerate() {
        for k in 0..4 {
            out[64 * pair + at + k] = (values[k] & 15) | ((values[k + 4] & 15) << 4);
        }
    }
    match dtype {
        DType::Q5_0 | DType::Q5_1 | DType::Q5_K => {
            for k in 0..4 {
                out[256 + at + k] = (0..8).fold(0, |bits, quad| bits | ((values[4 * quad + k] >> 4) << quad));
            }
        }
        DType::Q6_K => {
            for (plane, values) in values.chunks_exact(16).enumerate() {
                for k in 0..4 {
                    out[256 + 64 * plane + at + k] =
                        (0..4).fold(0, |bits, quad| bits | ((values[4 * quad + k] >> 4) << (2 * quad)));
                }
            }
        }
        _ => {}
    }
}

/// Level of column `k` of a packed block.
fn read_level(dtype: DType, levels: &[u8], k: usize, lane: usize) -> u8 {
    let (quad, at) = (k / 4, 4 * lane + k % 4);
    if dtype == DType::Q8_0 {
        return levels[64 * quad + at];
    }
    let low = (levels[64 * (quad / 2) + at] >> (4 * (quad % 2))) & 15;
    let high = match dtype {
        DType::Q5_0 | DType::Q5_1 | DType::Q5_K => (levels[256 + at] >> quad) & 1,
        DType::Q6_K => (levels[256 + 64 * (quad / 4) + at] >> (2 * (quad % 4))) & 3,
        _ => 0,
    };
    low | (high << 4)
}

/// Writes the scales of a block of the file: of 32 columns, number `index` of its record, or of the whole record.
fn pack_scales(dtype: DType, block: &Block, index: usize, lane: usize, out: &mut [u8]) {
    let mut half = |at: usize, bits: u16| {
        out[at + 2 * lane..at + 2 * lane + 2].copy_from_slice(&bits.to_le_bytes());
    };
    match dtype {
        DType::Q4_1 | DType::Q5_1 => {
            half(64 * index, block.d);
            half(64 * index + 32, block.m);
        }
        DType::Q4_K | DType::Q5_K => {
            half(0, block.d);
            // Negated, so that the minimum is added.
            half(32, block.m ^ 0x8000);
            for (sub, (scale, min)) in block.scales.iter().zip(block.mins).enumerate() {
                out[64 + 32 * sub + lane] = *scale;
                out[64 + 32 * sub + 16 + lane] = min;
            }
        }
        DType::Q6_K => {
            half(0, block.d);
            for (sub, scale) in block.scales.iter().enumerate() {
                out[32 + 16 * sub + lane] = *scale;
            }
        }
        _ => half(32 * index, block.d),
    }
}

/// d, m, the scales of the block's two halves, and the sub-block's minimum, of block `b` of a record.
fn read_scales(dtype: DType, scales: &[u8], b: usize, lane: usize) -> (f32, f32, [u8; 2], u8) {
    let half = |at: usize| f16::from_le_bytes([scales[at + 2 * lane], scales[at + 2 * lane + 1]]).to_f32();
    match dtype {
        DType::Q4_1 | DType::Q5_1 => (half(64 * b), half(64 * b + 32), [0; 2], 0),
        DType::Q4_K | DType::Q5_K => {
            let sub = 64 + 32 * b + lane;
            (half(0), -half(32), [scales[sub]; 2], scales[sub + 16])
        }
        DType::Q6_K => {
            let sub = 32 + 32 * b + lane;
            (half(0), 0.0, [scales[sub], scales[sub + 16]], 0)
        }
        _ => (half(32 * b), 0.0, [0; 2], 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{dequantize_row, quantize_row};

    #[test]
    fn packed_rows_decode_to_what_the_file_says() {
        let mut pool = Pool::new(2);
        let cols = 512;
        for dtype in DType::ALL {
            for rows in [1, 17, 33] {
                let mut raw = Vec::new();
                let values: Vec<f32> =
                    (0..rows * cols).map(|i| ((i * 7919 % 1009) as f32 / 1009.0 - 0.4) * 3.0).collect();
                for row in values.chunks(cols) {
                    quantize_row(dtype, row, &mut raw).unwrap();
                }
                let parts = [RawMatrix { dtype, rows, cols, data: &raw }];
                let matrix = CpuMatrix::pack(&mut pool, &[parts[0], parts[0]]).unwrap();
                assert_eq!(matrix.rows, 2 * rows);
                let row_bytes = dtype.bytes_for(cols).unwrap();
                for row in 0..2 * rows {
                    let (mut expected, mut got) = (vec![0.0; cols], vec![0.0; cols]);
                    let at = row % rows * row_bytes;
                    dequantize_row(dtype, &raw[at..at + row_bytes], &mut expected).unwrap();
                    matrix.row(row, &mut got);
                    assert_eq!(expected, got, "{dtype} row {row}");
                }
            }
        }
    }

    #[test]
    fn packed_weights_are_about_as_small_as_the_file() {
        let mut pool = Pool::new(1);
        for dtype in DType::ALL {
            let bytes = dtype.bytes_for(64 * 1024).unwrap();
            let data = vec![0; bytes];
            let matrix =
                CpuMatrix::pack(&mut pool, &[RawMatrix { dtype, rows: 64, cols: 1024, data: &data }])
                    .unwrap();
            assert!(matrix.bytes() * 100 <= bytes * 103, "{dtype}: {} for {bytes}", matrix.bytes());
        }
    }
}
