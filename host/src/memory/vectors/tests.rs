//! The store against a plain model of it, with crashes and damage.

mod crash;
mod model;

use std::fs;

use proptest::prelude::*;
use roaring::RoaringBitmap;
use tempfile::TempDir;

use self::model::{DIMS, Model, Vectors, row};
use super::*;

fn open(dir: &TempDir) -> Store {
    Store::open(dir.path(), DIMS, "test").unwrap()
}

fn filled(dir: &TempDir, units: impl Iterator<Item = u32>) -> (Store, Model) {
    let (mut store, mut model) = (open(dir), Model::default());
    for unit in units {
        let (values, scale) = row(u64::from(unit));
        store.push(unit, &values, scale).unwrap();
        model.push(unit, &values, scale);
    }
    (store, model)
}

fn segment_files(dir: &TempDir) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| segment::id(path).is_some()).collect();
    paths.sort();
    paths
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn small_stores_are_exact() {
    let dir = TempDir::new().unwrap();
    let (mut store, model) = filled(&dir, (0..900).map(|unit| unit * 3));
    for _ in 0..2 {
        model.assert_same(&store, None);
        store.seal().unwrap();
    }
    drop(store);
    let store = open(&dir);
    assert!(store.lost().is_empty() && store.damage().is_empty());
    model.assert_same(&store, None);
    assert_eq!(store.get(3).unwrap(), Some(row(3)));
    assert_eq!(store.get(4).unwrap(), None);
}

#[test]
fn scans_find_nearly_all_and_all_with_enough_candidates() {
    let dir = TempDir::new().unwrap();
    let (mut store, model) = filled(&dir, 0..6000);
    store.seal().unwrap();
    store.set_candidates(600);
    let (mut found, mut all) = (0, 0);
    for seed in 0..30 {
        let query = Vectors(seed + 77).query();
        let best = model.search(&query, 10, None);
        let got = store.search(&query, 10, None, 2).unwrap();
        found += best.iter().filter(|b| got.iter().any(|g| g.0 == b.0)).count();
        all += best.len();
    }
    // Random vectors have no near neighbours, which is the hardest case.
    assert!(found * 10 >= all * 8, "{found} of {all}");
    store.set_candidates(6000);
    model.assert_same(&store, None);
}

#[test]
fn filters_hold() {
    let dir = TempDir::new().unwrap();
    let (mut store, model) = filled(&dir, 0..3000);
    store.seal().unwrap();
    for unit in 3000..3050 {
        let (values, scale) = row(u64::from(unit));
        store.push(unit, &values, scale).unwrap();
    }
    let mut model = model;
    (3000..3050).for_each(|unit| model.push(unit, &row(u64::from(unit)).0, row(u64::from(unit)).1));
    for allow in [(5..9).collect(), (2900..3040).collect(), RoaringBitmap::new(), (0..90_000).collect()] {
        store.set_candidates(3050);
        model.assert_same(&store, Some(&allow));
        store.set_candidates(40);
        let got = store.search(&Vectors(1).query(), 20, Some(&allow), 1).unwrap();
        assert!(got.iter().all(|(unit, _)| allow.contains(*unit)));
    }
}

#[test]
fn segments_stay_few() {
    let dir = TempDir::new().unwrap();
    let (mut store, mut model) = (open(&dir), Model::default());
    for unit in 0..640u32 {
        let (values, scale) = row(u64::from(unit));
        store.push(unit, &values, scale).unwrap();
        model.push(unit, &values, scale);
        if unit % 5 == 4 {
            store.seal().unwrap();
            assert!(store.segments() <= 8, "{}", store.segments());
            assert_eq!(segment_files(&dir).len(), store.segments());
        }
    }
    model.assert_same(&store, None);
}

#[test]
fn removed_vectors_are_dropped_by_the_next_merge() {
    let dir = TempDir::new().unwrap();
    let (mut store, mut model) = filled(&dir, 0..100);
    store.seal().unwrap();
    let before = store.file_bytes();
    for unit in 10..60 {
        assert!(store.remove(unit));
        assert!(!store.remove(unit));
        model.remove(unit);
    }
    model.assert_same(&store, None);
    store.seal().unwrap();
    assert!(store.file_bytes() < before * 2 / 3);
    drop(store);
    model.assert_same(&open(&dir), None);
}

#[test]
fn pushes_and_removals_during_a_seal_count() {
    let dir = TempDir::new().unwrap();
    let (mut store, mut model) = filled(&dir, 0..50);
    store.seal().unwrap();
    for unit in 50..90 {
        store.push(unit, &row(u64::from(unit)).0, row(u64::from(unit)).1).unwrap();
        model.push(unit, &row(u64::from(unit)).0, row(u64::from(unit)).1);
    }
    store.set_mark(90);
    let sealing = store.begin_seal().unwrap();
    assert!(matches!(store.begin_seal(), Err(Error::Sealing)));
    for unit in [3, 60] {
        assert!(store.remove(unit));
        model.remove(unit);
    }
    for unit in [4, 61, 200] {
        let (values, scale) = row(u64::from(unit) + 5000);
        store.push(unit, &values, scale).unwrap();
        model.push(unit, &values, scale);
    }
    store.set_mark(95);
    model.assert_same(&store, None);
    let built = sealing.write().unwrap();
    model.assert_same(&store, None);
    store.finish_seal(built).unwrap();
    model.assert_same(&store, None);
    assert!(store.lost().is_empty());
    drop(store);
    // The tail is gone with the process, and with it the vectors that replaced two others.
    let mut store = open(&dir);
    assert_eq!(store.mark(), 90);
    assert_eq!(store.lost(), [4..=4, 61..=61]);
    for unit in [4, 61, 200] {
        let (values, scale) = row(u64::from(unit) + 5000);
        store.push(unit, &values, scale).unwrap();
    }
    model.assert_same(&store, None);
}

#[test]
fn cancelled_seals_leave_all_as_it_was() {
    let dir = TempDir::new().unwrap();
    let (mut store, mut model) = filled(&dir, 0..50);
    let sealing = store.begin_seal().unwrap();
    store.remove(7);
    model.remove(7);
    store.cancel_seal();
    model.assert_same(&store, None);
    let stale = sealing.write().unwrap();
    assert!(matches!(store.finish_seal(stale), Err(Error::Sealing)));
    store.seal().unwrap();
    drop(store);
    model.assert_same(&open(&dir), None);
}

#[test]
fn wrong_input_is_refused() {
    let dir = TempDir::new().unwrap();
    assert!(matches!(Store::open(dir.path(), 65, "test"), Err(Error::Dims { dims: 65 })));
    let (mut store, _) = filled(&dir, 0..3);
    assert!(matches!(Store::open(dir.path(), DIMS, "test"), Err(Error::Locked { .. })));
    let (values, scale) = row(1);
    assert!(matches!(store.push(1, &values[1..], scale), Err(Error::Row { unit: 1, .. })));
    assert!(matches!(store.push(1, &[0; DIMS], scale), Err(Error::Row { .. })));
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(matches!(store.push(1, &values, scale), Err(Error::Row { .. })));
    }
    assert!(matches!(store.push_f32(1, &[0.0; DIMS]), Err(Error::Row { .. })));
    assert!(matches!(store.push_f32(1, &[f32::NAN; DIMS]), Err(Error::Row { .. })));
    for query in [vec![0.0; DIMS], vec![f32::NAN; DIMS], vec![1.0; DIMS - 1]] {
        assert!(matches!(store.search(&query, 1, None, 1), Err(Error::Query { .. })));
    }
    assert!(store.search(&[1.0; DIMS], 0, None, 1).unwrap().is_empty());
    store.seal().unwrap();
    drop(store);
    assert!(matches!(Store::open(dir.path(), DIMS, "other"), Err(Error::Model { .. })));
    assert!(matches!(Store::open(dir.path(), DIMS * 2, "test"), Err(Error::Model { .. })));
    assert_eq!(open(&dir).len(), 3);
    Store::wipe(dir.path()).unwrap();
    assert!(Store::open(dir.path(), DIMS, "other").unwrap().is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Push(u32, u64),
    Remove(u32),
    Seal,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u32..60, any::<u64>()).prop_map(|(unit, seed)| Step::Push(unit, seed)),
        4 => (0u32..60).prop_map(Step::Remove),
        2 => Just(Step::Seal),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_sequence_matches_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let dir = TempDir::new().unwrap();
        let (mut store, mut model) = (open(&dir), Model::default());
        let mut durable = model.clone();
        for step in steps {
            match step {
                Step::Push(unit, seed) => {
                    let (values, scale) = row(seed);
                    store.push(unit, &values, scale).unwrap();
                    model.push(unit, &values, scale);
                }
                Step::Remove(unit) => prop_assert_eq!(store.remove(unit), model.remove(unit)),
                Step::Seal => {
                    store.seal().unwrap();
                    durable = model.clone();
                }
                Step::Reopen => {
                    drop(store);
                    store = open(&dir);
                    model = durable.clone();
                }
            }
            model.assert_same(&store, None);
        }
        prop_assert!(store.lost().is_empty() && store.damage().is_empty());
        prop_assert!(store.verify().is_empty());
    }
}
