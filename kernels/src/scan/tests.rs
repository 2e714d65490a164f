//! Every level gives the bits of the plain code, and wrong shapes are refused.

use super::*;

fn bytes(n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

fn floats(n: usize, seed: u64) -> Vec<f32> {
    bytes(n, seed).into_iter().map(|b| (f32::from(b) - 127.5) / 50.0).collect()
}

#[test]
fn levels_agree() {
    for dims in [64, 384, 1920] {
        let query = SignQuery::new(&floats(dims, 3)).unwrap();
        let codes = bytes(group_bytes(dims) * 40, 5);
        let rows = bytes(dims * 50, 7);
        let positions = [0, 49, 3, 3, 17, 20, 1, 2, 40, 33, 12];
        for limit in [0, dims as u32, dims as u32 * 3 / 2, query.max_distance()] {
            let mut plain = Vec::new();
            scan_codes_at(Level::Plain, &query, &codes, limit, &mut plain).unwrap();
            assert!(limit < query.max_distance() || plain.len() == 40 * GROUP);
            for level in Level::ALL.into_iter().filter(|level| level.available()) {
                let mut hits = Vec::new();
                scan_codes_at(level, &query, &codes, limit, &mut hits).unwrap();
                assert_eq!(hits, plain, "{level:?}, {dims} dimensions, limit {limit}");
            }
        }
        let mut plain = Vec::new();
        dot_rows_at(Level::Plain, &floats(dims, 11), &rows, &positions, &mut plain).unwrap();
        for level in Level::ALL.into_iter().filter(|level| level.available()) {
            let mut products = Vec::new();
            dot_rows_at(level, &floats(dims, 11), &rows, &positions, &mut products).unwrap();
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&products), bits(&plain), "{level:?}, {dims} dimensions");
        }
    }
}

#[test]
fn distance_weighs_each_dimension() {
    let values = floats(64, 9);
    let query = SignQuery::new(&values).unwrap();
    let mut group = vec![0; group_bytes(64)];
    group[..8].copy_from_slice(&query.words[0].signs.to_le_bytes());
    group[8..16].copy_from_slice(&(!query.words[0].signs).to_le_bytes());
    let mut hits = Vec::new();
    scan_codes(&query, &group, u32::MAX, &mut hits).unwrap();
    let weights: f32 = values.iter().map(|v| (v.abs() / query.step() + 0.5).floor().min(7.0)).sum();
    assert_eq!(hits[0], Hit { position: 0, distance: 0 });
    assert_eq!(hits[1], Hit { position: 1, distance: weights as u32 });
}

#[test]
fn wrong_shapes_are_refused() {
    for dims in [0, 63, 1984] {
        assert_eq!(SignQuery::new(&floats(dims, 1)).unwrap_err(), ScanError::Dims(dims));
    }
    let query = SignQuery::new(&[0.0; 64]).unwrap();
    assert_eq!(scan_codes(&query, &[0; 65], 9, &mut Vec::new()), Err(ScanError::Codes(65)));
    let rows = bytes(640, 1);
    let wrong = dot_rows(&[0.5; 64], &rows, &[9, 10], &mut Vec::new());
    assert_eq!(wrong, Err(ScanError::Position { position: 10, bytes: 640 }));
}
