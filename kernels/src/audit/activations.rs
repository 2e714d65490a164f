//! Commitments to hidden states: 258 bytes for every 32 tokens.
//!
//! Of the last hidden states of 32 tokens, one after the other, the 128 largest values by magnitude are taken as points
//! (place, bits as bf16); a polynomial goes through them, and its coefficients are the commitment. A verifier evaluates
//! it at the places of its own largest values: an honest provider's bits are near its own, while elsewhere a polynomial
//! over a prime field gives noise. Source: Ong et al., "TOPLOC: A Locality Sensitive Hashing Scheme for Trustless
//! Verifiable Inference", 2025.

use half::bf16;

use super::field::{PRIME, evaluate, interpolate};

/// Tokens behind one commitment; the last of an answer may have fewer.
pub const GROUP: usize = 32;
/// Values that a commitment holds; fewer where they would be more than one in [`SHARE`], as small values say little.
pub const POINTS: usize = 128;
/// A commitment holds at most one value of so many.
const SHARE: usize = 16;
/// A commitment's size on the wire.
pub const COMMITMENT_BYTES: usize = 2 + 2 * POINTS;

/// Why there is no commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitmentError {
    /// A hidden value is NaN or infinite.
    #[error("a hidden value is not finite; the model file is damaged or its numbers overflowed")]
    NotFinite,
    /// Hidden states that are not rows of the given width, or no row at all.
    #[error("{values} hidden values are not 1 to {GROUP} rows of {width}")]
    Shape {
        /// Values given.
        values: usize,
        /// Values in a row.
        width: usize,
    },
    /// Bytes that are no commitment.
    #[error("the bytes are not a commitment: {0}")]
    Bytes(&'static str),
}

/// What a provider says of its hidden states of up to 32 tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Commitment {
    /// Places are taken modulo this, the largest number up to [`PRIME`] that keeps the provider's places apart.
    modulus: u16,
    /// Coefficients, the constant first; zeros past the last point.
    coefficients: [u16; POINTS],
}

impl std::fmt::Debug for Commitment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commitment").field("modulus", &self.modulus).finish_non_exhaustive()
    }
}

/// How well a commitment fits a verifier's own hidden states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Values compared.
    pub points: u32,
    /// Of these, with the same sign and exponent.
    pub exponents: u32,
    /// Of these, the sum of differences of mantissas (0 to 127 each).
    pub mantissas: u32,
    /// And their median, the upper one of an even number; 127 where no exponent is the same.
    pub median: u32,
}

impl Match {
    /// Exponents that are the same, of 128.
    pub fn agreement(&self) -> u32 {
        (self.exponents * 128).checked_div(self.points).unwrap_or(0)
    }

    /// Mean difference of mantissas in thousandths; 127,000 where no exponent is the same.
    pub fn mean(&self) -> u32 {
        (self.mantissas * 1000).checked_div(self.exponents).unwrap_or(127_000)
    }
}

/// A place among a group's values and its bits as bf16.
type Point = (u32, u16);

/// The largest values by magnitude, of equals the first, in the order of their places.
fn largest(hidden: &[f32], width: usize) -> Result<Vec<Point>, CommitmentError> {
    let rows = hidden.len().checked_div(width).unwrap_or(0);
    if !(1..=GROUP).contains(&rows) || rows * width != hidden.len() {
        return Err(CommitmentError::Shape { values: hidden.len(), width });
    }
    // Sign bits away, the bits of floats are in the order of their magnitudes.
    let key =
        |(place, value): (u32, &f32)| (u64::from(value.to_bits() & !(1 << 31)) << 32) | u64::from(!place);
    let mut keys: Vec<u64> = (0u32..).zip(hidden).map(key).collect();
    let infinite = u64::from(f32::INFINITY.to_bits()) << 32;
    if keys.iter().any(|key| *key >= infinite) {
        return Err(CommitmentError::NotFinite);
    }
    let points = (keys.len() / SHARE).clamp(1, POINTS);
    if keys.len() > points {
        keys.select_nth_unstable_by(points, |a, b| b.cmp(a));
        keys.truncate(points);
    }
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    let mut places: Vec<u32> = keys.into_iter().map(|key| !(key as u32)).collect();
    places.sort_unstable();
    let bits = |place: u32| {
        let value = hidden.get(place as usize).copied().unwrap_or(0.0);
        // The largest finite values would round to infinity; one below is as near as it gets.
        let bits = bf16::from_f32(value).to_bits();
        (place, if bits & 0x7fff == 0x7f80 { bits - 1 } else { bits })
    };
    Ok(places.into_iter().map(bits).collect())
}

/// The largest modulus that keeps all places apart.
fn modulus(points: &[Point]) -> Option<u16> {
    let mut seen = vec![0u32; PRIME as usize];
    (1..=PRIME)
        .rev()
        .find(|&modulus| {
            points.iter().all(|(place, _)| {
                let Some(seen) = seen.get_mut((place % modulus) as usize) else { return false };
                std::mem::replace(seen, modulus) != modulus
            })
        })?
        .try_into()
        .ok()
}

/// A commitment to the hidden states of 1 to 32 tokens, rows of `width` values.
///
/// # Errors
/// [`CommitmentError`] for values that are not finite or no rows.
pub fn commit(hidden: &[f32], width: usize) -> Result<Commitment, CommitmentError> {
    let points = largest(hidden, width)?;
    // There is one: PRIME itself where there are fewer values, and otherwise the 8,128 differences of places have too
    // few divisors near PRIME to rule out all of them.
    let modulus = modulus(&points).ok_or(CommitmentError::Shape { values: hidden.len(), width })?;
    let reduced: Vec<(u32, u32)> =
        points.iter().map(|&(place, bits)| (place % u32::from(modulus), u32::from(bits))).collect();
    let mut coefficients = [0; POINTS];
    for (to, from) in coefficients.iter_mut().zip(interpolate(&reduced)) {
        *to = u16::try_from(from).unwrap_or(0);
    }
    Ok(Commitment { modulus, coefficients })
}

impl Commitment {
    /// How well it fits a verifier's own hidden states of the same tokens.
    ///
    /// # Errors
    /// As [`commit`], about the verifier's own values.
    pub fn compare(&self, hidden: &[f32], width: usize) -> Result<Match, CommitmentError> {
        let points = largest(hidden, width)?;
        let mut errors = Vec::with_capacity(points.len());
        for &(place, own) in &points {
            let theirs = evaluate(&self.coefficients, place % u32::from(self.modulus));
            let own = u32::from(own);
            if theirs >> 7 == own >> 7 {
                errors.push((theirs & 127).abs_diff(own & 127));
            }
        }
        errors.sort_unstable();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Match {
            points: count(points.len()),
            exponents: count(errors.len()),
            mantissas: errors.iter().sum(),
            median: errors.get(errors.len() / 2).copied().unwrap_or(127),
        })
    }

    /// The modulus and the coefficients, 16 bits each, the low byte first.
    pub fn to_bytes(&self) -> [u8; COMMITMENT_BYTES] {
        let mut bytes = [0; COMMITMENT_BYTES];
        let words = std::iter::once(self.modulus).chain(self.coefficients);
        for (to, word) in bytes.chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Commitment::to_bytes`] wrote, from anybody.
    ///
    /// # Errors
    /// [`CommitmentError::Bytes`] for another length or numbers that no commitment has.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CommitmentError> {
        let (words, rest) = bytes.as_chunks::<2>();
        if bytes.len() != COMMITMENT_BYTES || !rest.is_empty() {
            return Err(CommitmentError::Bytes("it has another length"));
        }
        let mut words = words.iter().copied().map(u16::from_le_bytes);
        let modulus = words.next().unwrap_or(0);
        let mut coefficients = [0; POINTS];
        coefficients.iter_mut().zip(words).for_each(|(to, word)| *to = word);
        if modulus == 0 || u32::from(modulus) > PRIME {
            return Err(CommitmentError::Bytes("its modulus is out of range"));
        }
        if coefficients.iter().any(|&c| u32::from(c) >= PRIME) {
            return Err(CommitmentError::Bytes("a coefficient is out of range"));
        }
        Ok(Self { modulus, coefficients })
    }
}

/// Collects hidden states while an answer is made.
#[derive(Clone, Debug)]
pub struct Committer {
    width: usize,
    rows: Vec<f32>,
    done: Vec<Commitment>,
}

impl Committer {
    /// For a model of this width.
    pub const fn new(width: usize) -> Self {
        Self { width, rows: Vec::new(), done: Vec::new() }
    }

    /// Takes the hidden state whose logits gave the next token of the answer. The state that gave the token that ended
    /// it is not part of it.
    ///
    /// # Errors
    /// [`CommitmentError`] for a row of another width, or values that are not finite.
    pub fn push(&mut self, row: &[f32]) -> Result<(), CommitmentError> {
        if row.len() != self.width || row.is_empty() {
            return Err(CommitmentError::Shape { values: row.len(), width: self.width });
        }
        self.rows.extend_from_slice(row);
        if self.rows.len() >= GROUP * self.width {
            self.flush()?;
        }
        Ok(())
    }

    /// All commitments, the last one over what is left.
    ///
    /// # Errors
    /// As [`Committer::push`].
    pub fn finish(mut self) -> Result<Vec<Commitment>, CommitmentError> {
        if !self.rows.is_empty() {
            self.flush()?;
        }
        Ok(self.done)
    }

    fn flush(&mut self) -> Result<(), CommitmentError> {
        let commitment = commit(&self.rows, self.width)?;
        self.rows.clear();
        self.done.push(commitment);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
