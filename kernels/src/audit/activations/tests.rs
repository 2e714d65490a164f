use proptest::prelude::*;

use super::*;
use crate::synthetic::Random;

/// Values with a few large ones, as hidden states have.
fn hidden(seed: u64, len: usize) -> Vec<f32> {
    let random = Random::new(seed, "hidden");
    let unit = |i: u64| (random.bits(i) >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
    (0..len as u64).map(|i| unit(2 * i) * if i % 37 == 0 { 40.0 } else { 2.0 } + unit(2 * i + 1)).collect()
}

fn noisy(values: &[f32], size: f32) -> Vec<f32> {
    let noise = hidden(99, values.len());
    values.iter().zip(noise).map(|(v, n)| v * (1.0 + size * n.clamp(-1.0, 1.0))).collect()
}

#[test]
fn equal_states_match_in_every_bit() {
    // A width that a place fits the field with, and one that needs a smaller modulus.
    for (width, rows) in [(64, 32), (2048, 32), (8192, 32), (64, 5), (3, 7), (1, 1)] {
        let states = hidden(1, width * rows);
        let commitment = commit(&states, width).unwrap();
        let found = commitment.compare(&states, width).unwrap();
        let points = (width * rows / 16).clamp(1, POINTS) as u32;
        assert_eq!(found, Match { points, exponents: points, mantissas: 0, median: 0 }, "{width} × {rows}");
        assert_eq!((found.agreement(), found.mean()), (128, 0));
    }
}

#[test]
fn near_states_match_and_others_do_not() {
    let states = hidden(1, 32 * 512);
    let commitment = commit(&states, 512).unwrap();
    let near = commitment.compare(&noisy(&states, 0.005), 512).unwrap();
    assert!(near.agreement() > 115 && near.mean() < 3000, "{near:?}");
    let far = commitment.compare(&hidden(2, 32 * 512), 512).unwrap();
    assert!(far.agreement() < 64, "{far:?}");
}

#[test]
fn a_flipped_coefficient_spoils_the_match() {
    let states = hidden(3, 32 * 64);
    let mut bytes = commit(&states, 64).unwrap().to_bytes();
    bytes[100] ^= 1;
    let found = Commitment::from_bytes(&bytes).unwrap().compare(&states, 64).unwrap();
    assert!(found.agreement() < 30, "{found:?}");
}

#[test]
fn what_is_not_finite_is_refused() {
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut states = hidden(1, 64);
        states[17] = bad;
        assert_eq!(commit(&states, 64), Err(CommitmentError::NotFinite));
    }
    let mut states = hidden(1, 64);
    states[17] = f32::MAX;
    let commitment = commit(&states, 64).unwrap();
    assert_eq!(commitment.compare(&states, 64).unwrap().agreement(), 128);
}

#[test]
fn shapes_that_are_no_rows_are_refused() {
    for (values, width) in [(0, 4), (5, 4), (33 * 4, 4), (4, 0)] {
        assert_eq!(commit(&vec![1.0; values], width), Err(CommitmentError::Shape { values, width }));
    }
    assert!(Committer::new(4).push(&[1.0; 3]).is_err());
}

#[test]
fn a_committer_takes_tokens_in_groups() {
    let states = hidden(5, 70 * 16);
    let mut committer = Committer::new(16);
    states.chunks(16).for_each(|row| committer.push(row).unwrap());
    let expected: Vec<_> = states.chunks(GROUP * 16).map(|rows| commit(rows, 16).unwrap()).collect();
    assert_eq!(expected.len(), 3);
    assert_eq!(committer.finish().unwrap(), expected);
    assert!(Committer::new(16).finish().unwrap().is_empty());
}

#[test]
fn the_format_is_fixed_for_good() {
    // Two of 32 values: the points (3, 1.0) and (20, −2.0), as bf16 0x3f80 and 0xc000.
    let mut states = [0.25; 32];
    (states[3], states[20]) = (1.0, -2.0);
    let commitment = commit(&states, 32).unwrap();
    let bytes = commitment.to_bytes();
    assert_eq!(bytes.len(), 258);
    assert_eq!(u16::from_le_bytes([bytes[0], bytes[1]]), 65_497);
    assert_eq!(evaluate(&commitment.coefficients, 3), 0x3f80);
    assert_eq!(evaluate(&commitment.coefficients, 20), 0xc000);
    assert!(bytes[6..].iter().all(|byte| *byte == 0));
}

proptest! {
    #[test]
    fn anybodys_bytes_are_a_commitment_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(commitment) = Commitment::from_bytes(&bytes) {
            prop_assert_eq!(&commitment.to_bytes()[..], &bytes[..]);
        }
    }

    #[test]
    fn anybodys_commitment_compares_without_a_panic(
        modulus in 1u16..=65_497,
        words in proptest::collection::vec(0u16..65_497, POINTS),
    ) {
        let bytes: Vec<u8> = std::iter::once(modulus).chain(words).flat_map(u16::to_le_bytes).collect();
        let found = Commitment::from_bytes(&bytes).unwrap().compare(&hidden(1, 640), 64).unwrap();
        prop_assert!(found.exponents <= found.points && found.median <= 127);
    }
}
