//! The kernels for x86-64.

use std::arch::x86_64::*;

use super::{GROUP, Hit, PLANES, WORD, Word, reduce};

/// Bytes ahead of the current group that are asked for early: the hardware stops at the end of a page.
const CODES_AHEAD: usize = 6144;

/// Rows ahead of the current one that are asked for early.
const AHEAD: usize = 8;

/// Words of a code of 384 dimensions, which get a loop of their own with all query words in registers.
const USUAL: usize = 6;

/// The caller has checked that the processor has AVX-512 F, BW and VPOPCNTDQ.
pub(super) fn scan_avx512(words: &[Word], codes: &[u8], limit: u32, hits: &mut Vec<Hit>) {
    if words.len() == USUAL {
        // SAFETY: the instructions exist, as the caller checked.
        unsafe { avx512::<USUAL>(words, codes, limit, hits) }
    } else {
        // SAFETY: as above.
        unsafe { avx512::<0>(words, codes, limit, hits) }
    }
}

/// The caller has checked that the processor has AVX2.
pub(super) fn scan_avx2(words: &[Word], codes: &[u8], limit: u32, hits: &mut Vec<Hit>) {
    if words.len() == USUAL {
        // SAFETY: the instructions exist, as the caller checked.
        unsafe { avx2::<USUAL>(words, codes, limit, hits) }
    } else {
        // SAFETY: as above.
        unsafe { avx2::<0>(words, codes, limit, hits) }
    }
}

/// The caller has checked that the processor has AVX-512 F and BW, and that every position has a row.
pub(super) fn dot_avx512(query: &[f32], rows: &[u8], positions: &[u32], products: &mut Vec<f32>) {
    for (i, &position) in positions.iter().enumerate() {
        prefetch_row(query.len(), rows, positions.get(i + AHEAD));
        // SAFETY: the instructions exist, as the caller checked.
        products.push(unsafe { product_avx512(query, row(query.len(), rows, position)) });
    }
}

/// The caller has checked that the processor has AVX2 and that every position has a row.
pub(super) fn dot_avx2(query: &[f32], rows: &[u8], positions: &[u32], products: &mut Vec<f32>) {
    for (i, &position) in positions.iter().enumerate() {
        prefetch_row(query.len(), rows, positions.get(i + AHEAD));
        // SAFETY: the instructions exist, as the caller checked.
        products.push(unsafe { product_avx2(query, row(query.len(), rows, position)) });
    }
}

fn row(dims: usize, rows: &[u8], position: u32) -> &[u8] {
    &rows[position as usize * dims..][..dims]
}

fn prefetch_row(dims: usize, rows: &[u8], position: Option<&u32>) {
    if let Some(&position) = position {
        for line in row(dims, rows, position).chunks(64) {
            prefetch(line.as_ptr());
        }
    }
}

fn prefetch(address: *const u8) {
    // SAFETY: a prefetch of any address is harmless; SSE is part of x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

/// `WORDS` is the number of words, or 0 where it is not known beforehand.
#[target_feature(enable = "avx512f,avx512bw,avx512vpopcntdq")]
fn avx512<const WORDS: usize>(words: &[Word], codes: &[u8], limit: u32, hits: &mut Vec<Hit>) {
    let words = if WORDS == 0 { words } else { &words[..WORDS] };
    let most = _mm512_set1_epi64(i64::from(limit));
    for (group, bytes) in codes.chunks_exact(words.len() * WORD).enumerate() {
        prefetch_group(bytes);
        let mut counts = [_mm512_setzero_si512(); PLANES];
        for (word, lanes) in words.iter().zip(bytes.as_chunks::<WORD>().0) {
            // SAFETY: `lanes` has 64 bytes.
            let code = unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) };
            let signs = _mm512_set1_epi64(word.signs as i64);
            for (count, &plane) in counts.iter_mut().zip(&word.planes) {
                // 0x28: (code ^ signs) & plane.
                let differ = _mm512_ternarylogic_epi64::<0x28>(code, signs, _mm512_set1_epi64(plane as i64));
                *count = _mm512_add_epi64(*count, _mm512_popcnt_epi64(differ));
            }
        }
        let [one, two, four] = counts;
        let high = _mm512_add_epi64(two, _mm512_slli_epi64::<1>(four));
        let distances = _mm512_add_epi64(one, _mm512_slli_epi64::<1>(high));
        let found = _mm512_cmple_epu64_mask(distances, most);
        if found != 0 {
            let mut values = [0u64; GROUP];
            // SAFETY: `values` has 64 bytes.
            unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), distances) };
            push(group, u32::from(found), &values, hits);
        }
    }
}

#[target_feature(enable = "avx2")]
fn avx2<const WORDS: usize>(words: &[Word], codes: &[u8], limit: u32, hits: &mut Vec<Hit>) {
    let words = if WORDS == 0 { words } else { &words[..WORDS] };
    let above = _mm256_set1_epi64x(i64::from(limit) + 1);
    for (group, bytes) in codes.chunks_exact(words.len() * WORD).enumerate() {
        prefetch_group(bytes);
        for half in 0..2 {
            let mut counts = [_mm256_setzero_si256(); PLANES];
            for (word, lanes) in words.iter().zip(bytes.as_chunks::<WORD>().0) {
                // SAFETY: each half of `lanes` has 32 bytes.
                let code = unsafe { _mm256_loadu_si256(lanes.as_ptr().add(half * 32).cast()) };
                let differ = _mm256_xor_si256(code, _mm256_set1_epi64x(word.signs as i64));
                for (count, &plane) in counts.iter_mut().zip(&word.planes) {
                    let differ = _mm256_and_si256(differ, _mm256_set1_epi64x(plane as i64));
                    // A byte gains at most 8 per word and a code has at most 30 words: no overflow.
                    *count = _mm256_add_epi8(*count, bits_of_bytes(differ));
                }
            }
            let [one, two, four] = counts.map(|count| _mm256_sad_epu8(count, _mm256_setzero_si256()));
            let high = _mm256_add_epi64(two, _mm256_slli_epi64::<1>(four));
            let distances = _mm256_add_epi64(one, _mm256_slli_epi64::<1>(high));
            let found = _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(above, distances)));
            if found != 0 {
                let mut values = [0u64; GROUP];
                // SAFETY: `values` has 64 bytes, 32 in each half.
                unsafe { _mm256_storeu_si256(values.as_mut_ptr().add(half * 4).cast(), distances) };
                push(group, (found as u32) << (half * 4), &values, hits);
            }
        }
    }
}

/// The number of one bits in each byte.
#[target_feature(enable = "avx2")]
fn bits_of_bytes(v: __m256i) -> __m256i {
    let table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    let nibble = _mm256_set1_epi8(0x0f);
    let low = _mm256_shuffle_epi8(table, _mm256_and_si256(v, nibble));
    let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(v), nibble));
    _mm256_add_epi8(low, high)
}

/// Few groups have a hit, so that this need not be fast.
#[cold]
fn push(group: usize, mut found: u32, distances: &[u64; GROUP], hits: &mut Vec<Hit>) {
    while found != 0 {
        let lane = found.trailing_zeros() as usize;
        hits.push(Hit { position: (group * GROUP + lane) as u32, distance: distances[lane] as u32 });
        found &= found - 1;
    }
}

#[inline]
fn prefetch_group(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        prefetch(line.as_ptr().wrapping_add(CODES_AHEAD));
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn product_avx512(query: &[f32], row: &[u8]) -> f32 {
    let mut sums = [_mm512_setzero_ps(); 2];
    for (values, bytes) in query.as_chunks::<32>().0.iter().zip(row.as_chunks::<32>().0) {
        for (half, sum) in sums.iter_mut().enumerate() {
            // SAFETY: each half of `values` has 16 floats and each half of `bytes` 16 bytes.
            let (value, byte) = unsafe {
                let byte = _mm_loadu_si128(bytes.as_ptr().add(half * 16).cast());
                (_mm512_loadu_ps(values.as_ptr().add(half * 16)), byte)
            };
            let byte = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(byte));
            *sum = _mm512_add_ps(*sum, _mm512_mul_ps(value, byte));
        }
    }
    let sixteen = _mm512_add_ps(sums[0], sums[1]);
    // In the order of `reduce`: the upper half onto the lower, again and again.
    let eight =
        _mm512_castps512_ps256(_mm512_add_ps(sixteen, _mm512_shuffle_f32x4::<0b1110>(sixteen, sixteen)));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

#[target_feature(enable = "avx2")]
fn product_avx2(query: &[f32], row: &[u8]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    for (values, bytes) in query.as_chunks::<32>().0.iter().zip(row.as_chunks::<32>().0) {
        for (quarter, sum) in sums.iter_mut().enumerate() {
            // SAFETY: each quarter of `values` has 8 floats and each quarter of `bytes` 8 bytes.
            let (value, byte) = unsafe {
                let byte = _mm_loadl_epi64(bytes.as_ptr().add(quarter * 8).cast());
                (_mm256_loadu_ps(values.as_ptr().add(quarter * 8)), byte)
            };
            let byte = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(byte));
            *sum = _mm256_add_ps(*sum, _mm256_mul_ps(value, byte));
        }
    }
    let mut lanes = [0.0f32; 16];
    for (half, part) in lanes.chunks_exact_mut(8).enumerate() {
        // SAFETY: `part` has 8 floats.
        unsafe { _mm256_storeu_ps(part.as_mut_ptr(), _mm256_add_ps(sums[half], sums[half + 2])) };
    }
    reduce(lanes)
}
