//! From vectors to sign codes.
//!
//! Vectors of a model share a mean; their signs say more once it is subtracted. A fixed random rotation then
//! spreads what is left over all dimensions, so that each bit carries about the same. It is made of sign
//! flips and Hadamard transforms, whose cost is small next to one row's read from disk.

/// Seed of the rotation; part of the file format.
const SEED: u64 = 0x706f_746c_7563_6b31;

/// The fixed rotation of vectors of one number of dimensions.
#[derive(Debug)]
pub(super) struct Rotation {
    /// Sign flips before each round of transforms.
    flips: [Vec<f32>; 2],
    /// Dimensions of a transform: the largest power of two that fits.
    block: usize,
}

impl Rotation {
    pub(super) fn new(dims: usize) -> Self {
        let mut state = SEED;
        let mut flip =
            || (0..dims).map(|_| if split_mix(&mut state) >> 63 == 0 { 1.0 } else { -1.0 }).collect();
        let flips = [flip(), flip()];
        Self { flips, block: 1 << dims.max(1).ilog2() }
    }

    /// Rotates in place; lengths and angles stay.
    pub(super) fn apply(&self, values: &mut [f32]) {
        for flips in &self.flips {
            values.iter_mut().zip(flips).for_each(|(value, flip)| *value *= flip);
            // Two blocks overlap in the middle, which mixes dimensions that one of them misses.
            let len = values.len();
            values.get_mut(..self.block).into_iter().for_each(hadamard);
            values.get_mut(len.saturating_sub(self.block)..).into_iter().for_each(hadamard);
        }
    }
}

/// The orthonormal Hadamard transform of a power of two of values.
fn hadamard(values: &mut [f32]) {
    let mut half = 1;
    while half < values.len() {
        for block in values.chunks_exact_mut(half * 2) {
            let (low, high) = block.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let norm = (values.len() as f32).sqrt().recip();
    values.iter_mut().for_each(|value| *value *= norm);
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Rounds a vector to signed bytes and their scale. Values that are not finite make the scale so too.
pub(super) fn quantise(values: &[f32]) -> (Vec<i8>, f32) {
    let largest = values
        .iter()
        .fold(0.0f32, |most, value| if value.is_nan() { f32::NAN } else { most.max(value.abs()) });
    let poisoned = values.iter().any(|value| !value.is_finite());
    let scale = if poisoned { f32::NAN } else { largest / 127.0 };
    (values.iter().map(|value| (value / scale).round() as i8).collect(), scale)
}

/// Turns rows into codes around one mean.
#[derive(Debug)]
pub(super) struct Encoder<'a> {
    rotation: &'a Rotation,
    mean: &'a [f32],
    values: Vec<f32>,
    /// Sum over the vectors of how far a vector reaches along its own signs, and their number.
    reach: (f64, u64),
}

impl<'a> Encoder<'a> {
    pub(super) fn new(rotation: &'a Rotation, mean: &'a [f32]) -> Self {
        Self { rotation, mean, values: Vec::new(), reach: (0.0, 0) }
    }

    /// The row's code: one word per 64 dimensions, the lowest bit first.
    pub(super) fn encode(&mut self, row: &[u8], scale: f32, code: &mut Vec<u64>) {
        self.values.clear();
        let centred =
            row.iter().zip(self.mean).map(|(&byte, mean)| f32::from(byte.cast_signed()) * scale - mean);
        self.values.extend(centred);
        self.rotation.apply(&mut self.values);
        let (mut square, mut sum) = (0.0f32, 0.0f32);
        for value in &self.values {
            square += value * value;
            sum += value.abs();
        }
        if sum > 0.0 && sum.is_finite() {
            self.reach.0 += f64::from(square / sum);
            self.reach.1 += 1;
        }
        code.clear();
        code.extend(
            self.values.chunks(64).map(|values| {
                values.iter().rev().fold(0u64, |word, &value| word << 1 | u64::from(value > 0.0))
            }),
        );
    }

    /// The mean length of a dimension's step from the mean along the signs: what one sign stands for.
    pub(super) fn reach(&self) -> f32 {
        if self.reach.1 == 0 { 0.0 } else { (self.reach.0 / self.reach.1 as f64) as f32 }
    }
}
