//! Crashes at any file operation, and files that changed behind the store's back.

use super::super::files::fault;
use super::*;

/// Ends a seal at each file operation in turn: what is opened afterwards is the state before or after it.
#[test]
fn a_crash_leaves_the_state_before_or_after() {
    let mut ended_before = 0;
    let mut ended_after = 0;
    for steps in 0.. {
        let dir = TempDir::new().unwrap();
        let (mut store, mut before) = filled(&dir, 0..40);
        store.seal().unwrap();
        assert!(store.remove(39) && before.remove(39));
        store.push(100, &row(100).0, row(100).1).unwrap();
        before.push(100, &row(100).0, row(100).1);
        store.set_mark(1);
        store.seal().unwrap();
        let mut after = before.clone();
        for unit in 30..70 {
            let (values, scale) = row(u64::from(unit) + 9000);
            store.push(unit, &values, scale).unwrap();
            after.push(unit, &values, scale);
        }
        assert!(store.remove(2) && after.remove(2));
        store.set_mark(2);
        fault::after(Some(steps));
        let result = store.seal();
        // In this process nothing is lost either way.
        after.assert_same(&store, None);
        drop(store);
        fault::after(None);
        let mut store = open(&dir);
        assert!(store.damage().is_empty() && store.lost().is_empty());
        if store.mark() == 1 {
            before.assert_same(&store, None);
            assert!(result.is_err());
            ended_before += 1;
        } else {
            after.assert_same(&store, None);
            ended_after += 1;
        }
        assert_eq!(segment_files(&dir).len(), store.segments());
        assert!(store.verify().is_empty());
        if result.is_ok() && steps > 30 {
            break;
        }
    }
    assert!(ended_before >= 8 && ended_after >= 2, "{ended_before} before, {ended_after} after");
}

/// After a failed seal, a later one writes everything.
#[test]
fn a_failed_seal_is_made_up_for() {
    for steps in 0..14 {
        let dir = TempDir::new().unwrap();
        let (mut store, model) = filled(&dir, 0..40);
        fault::after(Some(steps));
        let failed = store.seal().is_err();
        fault::after(None);
        assert!(failed || steps > 8);
        store.seal().unwrap();
        drop(store);
        model.assert_same(&open(&dir), None);
    }
}

#[test]
fn leftovers_are_deleted_and_foreign_files_stay() {
    let dir = TempDir::new().unwrap();
    let (mut store, model) = filled(&dir, 0..40);
    store.seal().unwrap();
    drop(store);
    let leftovers = ["0000000000000009.tmp", "manifest.tmp", "0000000000000009.segment"];
    for name in leftovers {
        fs::write(dir.path().join(name), b"half").unwrap();
    }
    fs::write(dir.path().join("notes.txt"), b"mine").unwrap();
    model.assert_same(&open(&dir), None);
    assert!(leftovers.iter().all(|name| !dir.path().join(name).exists()));
    assert!(dir.path().join("notes.txt").exists());
}

/// Two segments: units 0..64 and 100..116.
fn two_segments(dir: &TempDir) -> (Vec<PathBuf>, Model) {
    let (mut store, mut model) = filled(dir, 0..64);
    store.seal().unwrap();
    for unit in 100..116 {
        store.push(unit, &row(u64::from(unit)).0, row(u64::from(unit)).1).unwrap();
        model.push(unit, &row(u64::from(unit)).0, row(u64::from(unit)).1);
    }
    store.seal().unwrap();
    assert_eq!(store.segments(), 2);
    (segment_files(dir), model)
}

/// The store reports units 100..=115 as lost, keeps saying so, and is whole again once they are pushed.
fn assert_recovers(dir: &TempDir, model: &Model) {
    for _ in 0..2 {
        let mut store = open(dir);
        assert_eq!(store.lost(), [100..=115]);
        assert_eq!(store.len(), 64);
        store.seal().unwrap();
    }
    let mut store = open(dir);
    assert_eq!(store.lost(), [100..=115]);
    for unit in 100..116 {
        store.push(unit, &row(u64::from(unit)).0, row(u64::from(unit)).1).unwrap();
    }
    store.seal().unwrap();
    drop(store);
    let store = open(dir);
    assert!(store.lost().is_empty() && store.damage().is_empty());
    model.assert_same(&store, None);
}

#[test]
fn missing_truncated_and_swapped_segments_are_lost() {
    let damages: [fn(&[PathBuf]); 5] = [
        |paths| fs::remove_file(&paths[1]).unwrap(),
        |paths| fs::write(&paths[1], b"").unwrap(),
        |paths| {
            let bytes = fs::read(&paths[1]).unwrap();
            fs::write(&paths[1], &bytes[..bytes.len() - 1]).unwrap();
        },
        |paths| assert!(fs::copy(&paths[0], &paths[1]).unwrap() > 0),
        |paths| {
            // The same units under another model.
            let other = TempDir::new().unwrap();
            let mut store = Store::open(other.path(), DIMS, "another").unwrap();
            store.push(100, &row(1).0, row(1).1).unwrap();
            store.seal().unwrap();
            fs::copy(segment_files(&other).first().unwrap(), &paths[1]).unwrap();
        },
    ];
    for damage in damages {
        let dir = TempDir::new().unwrap();
        let (paths, model) = two_segments(&dir);
        damage(&paths);
        assert_recovers(&dir, &model);
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let dir = TempDir::new().unwrap();
    let (paths, model) = two_segments(&dir);
    let len = fs::metadata(&paths[1]).unwrap().len();
    let rows = len - 16 * DIMS as u64;
    for at in (0..len).step_by(37).chain([rows - 1, rows, len - 1]) {
        flip(&paths[1], at);
        let mut store = open(&dir);
        if store.segments() == 2 {
            let units = store.verify();
            if at >= rows {
                let unit = 100 + ((at - rows) / DIMS as u64) as u32;
                assert_eq!(units, [unit..=unit]);
                assert!(!store.contains(unit));
            } else {
                // Bytes between two sections mean nothing.
                assert!(units.is_empty(), "{at}");
                model.assert_same(&store, None);
            }
        } else {
            assert!(at < rows && store.lost() == [100..=115] && store.damage().len() == 1);
        }
        drop(store);
        flip(&paths[1], at);
    }
    model.assert_same(&open(&dir), None);
}

#[test]
fn damaged_rows_are_errors_in_searches_and_left_out_of_merges() {
    let dir = TempDir::new().unwrap();
    let (paths, _) = two_segments(&dir);
    flip(&paths[1], fs::metadata(&paths[1]).unwrap().len() - 1);
    let mut store = open(&dir);
    assert!(matches!(store.search(&Vectors(1).query(), 80, None, 1), Err(Error::Rows { .. })));
    assert!(matches!(store.get(115), Err(Error::Rows { .. })));
    for unit in 200..216 {
        store.push(unit, &row(u64::from(unit)).0, row(u64::from(unit)).1).unwrap();
    }
    assert_eq!(store.seal().unwrap(), [115..=115]);
    assert_eq!(store.lost(), [115..=115]);
    drop(store);
    let mut store = open(&dir);
    assert_eq!(store.lost(), [115..=115]);
    assert_eq!(store.search(&Vectors(1).query(), 200, None, 1).unwrap().len(), 64 + 15 + 16);
    assert!(!store.remove(115));
    assert!(store.lost().is_empty());
}

#[test]
fn a_damaged_or_missing_manifest_means_an_empty_store() {
    for damage in 0..3 {
        let dir = TempDir::new().unwrap();
        two_segments(&dir);
        let path = manifest::path(dir.path());
        match damage {
            0 => flip(&path, 70),
            1 => fs::write(&path, b"PL").unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        let store = open(&dir);
        assert!(store.is_empty() && store.mark() == 0);
        assert!(store.damage().iter().any(|damage| damage.units.is_none()));
        assert!(segment_files(&dir).is_empty());
    }
}
