//! A store as one would write it without a thought for speed.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::super::Store;

pub(super) const DIMS: usize = 128;

/// A source of vectors.
pub(super) struct Vectors(pub(super) u64);

impl Vectors {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ z >> 32
    }

    pub(super) fn query(&mut self) -> Vec<f32> {
        (0..DIMS).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.4).collect()
    }
}

/// The row of a seed, with a scale that makes its length 1.
pub(super) fn row(seed: u64) -> (Vec<i8>, f32) {
    let mut source = Vectors(seed.wrapping_mul(31) + 7);
    let row: Vec<i8> = (0..DIMS).map(|_| (source.next() >> 57) as i8 - 50).collect();
    let square: f32 = row.iter().map(|&v| f32::from(v) * f32::from(v)).sum();
    (row, square.sqrt().recip())
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model(pub(super) BTreeMap<u32, (Vec<i8>, f32)>);

impl Model {
    pub(super) fn push(&mut self, unit: u32, row: &[i8], scale: f32) {
        self.0.insert(unit, (row.to_vec(), scale));
    }

    pub(super) fn remove(&mut self, unit: u32) -> bool {
        self.0.remove(&unit).is_some()
    }

    pub(super) fn search(
        &self,
        query: &[f32],
        limit: usize,
        allow: Option<&RoaringBitmap>,
    ) -> Vec<(u32, f64)> {
        let norm = query.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let allowed = self.0.iter().filter(|(unit, _)| allow.is_none_or(|allow| allow.contains(**unit)));
        let mut found: Vec<(u32, f64)> = allowed
            .map(|(&unit, (row, scale))| {
                let dot: f64 = row.iter().zip(query).map(|(&v, q)| f64::from(v) * f64::from(*q)).sum();
                (unit, dot * f64::from(*scale) / norm)
            })
            .collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found.truncate(limit);
        found
    }

    /// The store has the same vectors and finds the same ones, which near ties may swap.
    pub(super) fn assert_same(&self, store: &Store, allow: Option<&RoaringBitmap>) {
        assert_eq!(store.len(), self.0.len() as u64);
        for seed in [3, 4] {
            let query = Vectors(seed).query();
            for limit in [1, 10, self.0.len() + 1] {
                let best = self.search(&query, limit, allow);
                let found = store.search(&query, limit, allow, 2).unwrap();
                assert_eq!(found.len(), best.len());
                for ((unit, score), (_, wanted)) in found.iter().zip(&best) {
                    assert!((f64::from(*score) - wanted).abs() < 1e-5, "{score} for {wanted}");
                    assert!(self.0.contains_key(unit));
                }
                assert!(found.is_sorted_by(|a, b| a.1 > b.1 || a.1 == b.1 && a.0 < b.0));
            }
        }
        let (inside, outside) = (self.0.keys().next(), (0..).find(|unit| !self.0.contains_key(unit)));
        assert!(
            inside.is_none_or(|unit| store.contains(*unit))
                && outside.is_none_or(|unit| !store.contains(unit))
        );
        assert!(inside.is_none_or(|unit| store.get(*unit).unwrap().as_ref() == self.0.get(unit)));
    }
}
