//! Scans of sign codes and exact products with 8-bit rows, for every processor.
//!
//! A *sign code* keeps one bit per dimension. Eight codes form a *group*, stored word by word: the first 64
//! dimensions of all eight, then the next 64, and so on. A group of eight thus fills whole vector registers,
//! and a plain loop over it needs no gathers.
//!
//! The distance of a code from a [`SignQuery`] is a Hamming distance in which every dimension counts with the
//! query's magnitude there, as an integer of [`PLANES`] bits. It costs `PLANES` population counts per word
//! and ranks far better than counting all dimensions alike, while the scan stays bound by memory.
//!
//! All instruction sets give the same bits: distances are integers, and products are summed in one fixed
//! order without fused operations.

#![allow(clippy::indexing_slicing, reason = "fixed arrays, and slices whose lengths were checked on entry")]

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Codes in a group.
pub const GROUP: usize = 8;

/// Bits of a dimension's weight.
pub const PLANES: usize = 3;

/// The largest weight of a dimension; a distance is at most this times the dimensions.
pub const MAX_WEIGHT: u32 = (1 << PLANES) - 1;

/// The most dimensions that a code may have: byte-wise counters of its words must not overflow.
pub const MAX_DIMS: usize = 1920;

/// Dimensions come in multiples of this.
pub const DIMS_STEP: usize = 64;

/// Width of a weight's step, as a share of the query's root mean square.
const STEP: f32 = 0.42;

/// Bytes of a group's word: 64 dimensions of all its codes.
const WORD: usize = GROUP * 8;

/// Why a kernel did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The number of dimensions is zero, too large or no multiple of [`DIMS_STEP`].
    #[error("{0} dimensions, where a multiple of 64 up to 1920 is expected")]
    Dims(usize),
    /// Codes that are no whole number of groups.
    #[error("{0} bytes of codes are no whole number of groups")]
    Codes(usize),
    /// A row that lies outside the rows given.
    #[error("row {position} lies outside {bytes} bytes of rows")]
    Position {
        /// Number of the row.
        position: u32,
        /// Bytes of all rows.
        bytes: usize,
    },
}

/// A code found within a scan's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Number of the code, counted from the first code of the scan.
    pub position: u32,
    /// Weighted distance of the code from the query.
    pub distance: u32,
}

/// One word of a query: its signs and the bit planes of its weights.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    signs: u64,
    planes: [u64; PLANES],
}

/// A query, prepared for scans of sign codes.
#[derive(Clone, Debug)]
pub struct SignQuery {
    words: Vec<Word>,
    step: f32,
}

impl SignQuery {
    /// Prepares `values`, one per dimension, in the space in which the codes were taken.
    ///
    /// # Errors
    ///
    /// [`ScanError::Dims`] for a number of dimensions that codes cannot have.
    pub fn new(values: &[f32]) -> Result<Self, ScanError> {
        check_dims(values.len())?;
        let square: f32 = values.iter().map(|v| v * v).sum();
        let step = STEP * (square / values.len() as f32).sqrt();
        let mut words = vec![Word::default(); values.len() / 64];
        for (i, &value) in values.iter().enumerate() {
            let word = &mut words[i / 64];
            // A float-to-integer cast saturates, so that a zero step gives the largest weight or 0 (NaN).
            let weight = ((value.abs() / step + 0.5) as u32).min(MAX_WEIGHT);
            word.signs |= u64::from(value > 0.0) << (i % 64);
            for (bit, plane) in word.planes.iter_mut().enumerate() {
                *plane |= u64::from(weight >> bit & 1) << (i % 64);
            }
        }
        Ok(Self { words, step })
    }

    /// What one unit of weight stands for in the query's values.
    pub fn step(&self) -> f32 {
        self.step
    }

    /// The largest distance that a code can have.
    pub fn max_distance(&self) -> u32 {
        self.words.len() as u32 * 64 * MAX_WEIGHT
    }
}

/// Bytes of a group of codes of `dims` dimensions.
pub const fn group_bytes(dims: usize) -> usize {
    dims / 8 * GROUP
}

/// An instruction set that the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// x86-64 with AVX-512 F, BW and VPOPCNTDQ.
    Avx512,
    /// x86-64 with AVX2.
    Avx2,
    /// AArch64 with its base vector instructions.
    Neon,
    /// Plain code.
    Plain,
}

impl Level {
    /// Every level, the fastest first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Plain];

    /// Whether this processor can run it.
    pub fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vpopcntdq")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            Self::Plain => true,
            #[allow(unreachable_patterns, reason = "which levels are left depends on the architecture")]
            _ => false,
        }
    }

    /// The fastest level that this processor can run.
    pub fn detect() -> Self {
        Self::ALL.into_iter().find(|level| level.available()).unwrap_or(Self::Plain)
    }
}

/// Adds the codes within `limit` of the query to `hits`, in ascending order of position.
///
/// # Errors
///
/// [`ScanError::Codes`] when `codes` is no whole number of groups of the query's dimensions.
pub fn scan_codes(query: &SignQuery, codes: &[u8], limit: u32, hits: &mut Vec<Hit>) -> Result<(), ScanError> {
    scan_codes_at(Level::detect(), query, codes, limit, hits)
}

/// [`scan_codes`] on a chosen level; on plain code where the processor does not have it.
///
/// # Errors
///
/// As for [`scan_codes`].
pub fn scan_codes_at(
    level: Level,
    query: &SignQuery,
    codes: &[u8],
    limit: u32,
    hits: &mut Vec<Hit>,
) -> Result<(), ScanError> {
    if !codes.len().is_multiple_of(query.words.len() * WORD) {
        return Err(ScanError::Codes(codes.len()));
    }
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if level.available() => x86::scan_avx512(&query.words, codes, limit, hits),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 if level.available() => x86::scan_avx2(&query.words, codes, limit, hits),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => neon::scan(&query.words, codes, limit, hits),
        _ => scan_plain(&query.words, codes, limit, hits),
    }
    Ok(())
}

fn scan_plain(words: &[Word], codes: &[u8], limit: u32, hits: &mut Vec<Hit>) {
    for (group, bytes) in codes.chunks_exact(words.len() * WORD).enumerate() {
        let mut distances = [0u32; GROUP];
        for (word, lanes) in words.iter().zip(bytes.as_chunks::<WORD>().0) {
            for (distance, code) in distances.iter_mut().zip(lanes.as_chunks::<8>().0) {
                let differ = u64::from_le_bytes(*code) ^ word.signs;
                for (bit, plane) in word.planes.iter().enumerate() {
                    *distance += (differ & plane).count_ones() << bit;
                }
            }
        }
        for (lane, &distance) in distances.iter().enumerate() {
            if distance <= limit {
                hits.push(Hit { position: (group * GROUP + lane) as u32, distance });
            }
        }
    }
}

/// Adds to `products`, for each of `positions`, the product of `query` with that row of signed bytes.
///
/// # Errors
///
/// [`ScanError::Dims`] for a length of `query` that rows cannot have, [`ScanError::Position`] for a position
/// without a row; `products` is unchanged then.
pub fn dot_rows(
    query: &[f32],
    rows: &[u8],
    positions: &[u32],
    products: &mut Vec<f32>,
) -> Result<(), ScanError> {
    dot_rows_at(Level::detect(), query, rows, positions, products)
}

/// [`dot_rows`] on a chosen level; on plain code where the processor does not have it.
///
/// # Errors
///
/// As for [`dot_rows`].
pub fn dot_rows_at(
    level: Level,
    query: &[f32],
    rows: &[u8],
    positions: &[u32],
    products: &mut Vec<f32>,
) -> Result<(), ScanError> {
    check_dims(query.len())?;
    let count = rows.len() / query.len();
    if let Some(&position) = positions.iter().find(|&&position| position as usize >= count) {
        return Err(ScanError::Position { position, bytes: rows.len() });
    }
    products.reserve(positions.len());
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if level.available() => x86::dot_avx512(query, rows, positions, products),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 if level.available() => x86::dot_avx2(query, rows, positions, products),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => neon::dot(query, rows, positions, products),
        _ => {
            products.extend(positions.iter().map(|&p| dot_plain(query, &rows[p as usize * query.len()..])));
        }
    }
    Ok(())
}

fn dot_plain(query: &[f32], row: &[u8]) -> f32 {
    let mut sums = [[0.0f32; 16]; 2];
    for (values, bytes) in query.as_chunks::<32>().0.iter().zip(row.as_chunks::<32>().0) {
        for (lane, (&value, &byte)) in values.iter().zip(bytes).enumerate() {
            sums[lane / 16][lane % 16] += value * f32::from(byte as i8);
        }
    }
    let [mut low, high] = sums;
    low.iter_mut().zip(high).for_each(|(l, h)| *l += h);
    reduce(low)
}

/// The sum of 16 lanes, halved again and again: the same order on every processor.
fn reduce(mut lanes: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

fn check_dims(dims: usize) -> Result<(), ScanError> {
    if dims == 0 || dims > MAX_DIMS || !dims.is_multiple_of(DIMS_STEP) {
        return Err(ScanError::Dims(dims));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
