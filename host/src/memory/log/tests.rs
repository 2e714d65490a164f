//! Tests of the log: what was acknowledged is there, whatever happens to the files.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::clock::Stamp;
use super::super::record::{Context, Draft, Forget, Millis, RecordId, Row, Signer, Vectors, Version};
use super::*;

const SMALL: Options = Options { segment_bytes: 4 << 10 };

fn signer(n: u8) -> Signer {
    Signer::from_seed([n; 32])
}

fn id(node: u8, sequence: u64) -> RecordId {
    let mut random = [node; 10];
    random[2..].copy_from_slice(&sequence.to_le_bytes());
    RecordId::new(Millis(1_700_000_000_000), random)
}

fn place(node: u8, sequence: u64) -> Context {
    Context { id: id(node, sequence), stamp: Stamp::new(1_700_000_000_000, 0), sequence }
}

fn text(node: u8, sequence: u64, content: String) -> Entry {
    let draft = Draft { content, ..Draft::default() };
    Entry::Version(Box::new(Version::seal(draft, place(node, sequence), &signer(node)).unwrap()))
}

fn version(node: u8, sequence: u64) -> Entry {
    text(node, sequence, format!("memory {sequence} of {node}"))
}

fn vectors(node: u8, sequence: u64, of: RecordId) -> Entry {
    let rows = vec![Row { scale: 0.5, values: vec![3; 384] }];
    let stamp = Stamp::new(1_700_000_000_000, 1);
    Entry::Vectors(Box::new(
        Vectors::seal(of, ("m".to_owned(), 384), rows, (stamp, sequence), &signer(node)).unwrap(),
    ))
}

fn open(dir: &Path) -> (Log, Recovery) {
    Log::open(dir, SMALL).unwrap()
}

fn all(log: &Log) -> Vec<Entry> {
    let mut found = Vec::new();
    let damage = log.for_each(None, 0, |location, entry| {
        assert_eq!(log.read_at(location).unwrap(), entry);
        found.push(entry);
        ControlFlow::Continue(())
    });
    assert_eq!(damage.unwrap(), []);
    found
}

/// The sequences of machine 1 that can be read.
fn sequences(log: &Log) -> Vec<u64> {
    all(log).iter().map(Entry::sequence).collect()
}

fn file(dir: &Path, node: u8, first: u64) -> PathBuf {
    folder(dir, signer(node).node()).join(format!("{first:020}.log"))
}

/// A log of `count` entries of machine 1, the bytes of its one file, and where each frame starts and the last
/// ends.
fn written(count: u64) -> (TempDir, Vec<u8>, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, recovery) = Log::open(dir.path(), Options::default()).unwrap();
    assert_eq!(recovery, Recovery::default());
    let entries: Vec<Entry> = (1..=count).map(|sequence| version(1, sequence)).collect();
    let locations = log.append(&entries).unwrap();
    let mut starts: Vec<usize> = locations.iter().map(|at| at.offset as usize).collect();
    let bytes = fs::read(file(dir.path(), 1, 1)).unwrap();
    starts.push(bytes.len());
    (dir, bytes, starts)
}

/// Opens a log whose one file of machine 1 has these bytes.
fn with_bytes(bytes: &[u8]) -> (TempDir, Log, Recovery) {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 1, 1);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    let (log, recovery) = open(dir.path());
    (dir, log, recovery)
}

#[test]
fn what_was_appended_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let batch = [version(1, 1), version(2, 1), vectors(1, 2, id(1, 1)), version(2, 2), version(1, 3)];
    let locations = log.append(&batch).unwrap();
    for (location, entry) in locations.iter().zip(&batch) {
        assert_eq!(&log.read_at(*location).unwrap(), entry);
    }
    let before = all(&log);
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.is_clean());
    assert_eq!((recovery.entries, recovery.segments), (5, 2));
    assert_eq!(all(&log), before);
    assert_eq!(log.version_vector(), [(signer(1).node(), 3), (signer(2).node(), 2)].into());
    assert_eq!(log.next_sequence(signer(1).node()), 4);
    assert_eq!(log.next_sequence(signer(3).node()), 1);
    let report = log.verify().unwrap();
    assert!(report.is_clean());
    assert_eq!((report.versions, report.vectors, report.segments), (4, 1, 2));
}

#[test]
fn files_roll_and_reading_starts_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let entries: Vec<Entry> = (1..=100).map(|sequence| version(1, sequence)).collect();
    log.append(&entries[..70]).unwrap();
    for entry in &entries[70..] {
        log.append(std::slice::from_ref(entry)).unwrap();
    }
    let files = fs::read_dir(folder(dir.path(), signer(1).node())).unwrap();
    let sizes: Vec<u64> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() > 3 && sizes.iter().all(|size| *size <= 4 << 10), "{sizes:?}");
    for reopened in [false, true] {
        if reopened {
            drop(log);
            log = open(dir.path()).0;
        }
        assert_eq!(all(&log), entries);
        let mut found = Vec::new();
        let visit = |_, entry: Entry| {
            found.push(entry.sequence());
            if found.len() == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        log.for_each(Some(signer(1).node()), 61, visit).unwrap();
        assert_eq!(found, [61, 62, 63, 64, 65]);
    }
}

#[test]
fn a_log_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let error = Log::open(dir.path(), SMALL).unwrap_err();
    assert!(matches!(&error, LogError::InUse { path } if *path == dir.path().join("lock")), "{error}");
    drop(log);
    open(dir.path());
}

#[test]
fn entries_follow_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let origin = signer(1).node();
    assert!(matches!(log.append(&[version(1, 2)]), Err(LogError::Gap { expected: 1, found: 2, .. })));
    assert!(matches!(log.append(&[version(1, 1), version(1, 3)]), Err(LogError::Gap { expected: 2, .. })));
    assert_eq!(all(&log), [], "all or nothing");
    log.append(&[version(1, 1), version(1, 2)]).unwrap();
    assert!(matches!(log.append(&[version(1, 2)]), Err(LogError::Known { sequence: 2, expected: 3, .. })));
    log.skip_to(origin, 5);
    assert!(matches!(log.append(&[version(1, 3), version(1, 3)]), Err(LogError::Known { .. })));
    log.append(&[version(1, 5), version(1, 3)]).unwrap();
    assert_eq!(log.gaps(), [Gap { origin, first: 4, last: 4 }]);
    assert_eq!(log.version_vector()[&origin], 3);
    log.append(&[version(1, 4), version(1, 6)]).unwrap();
    assert_eq!(log.gaps(), []);
    assert_eq!(sequences(&log), [1, 2, 3, 4, 5, 6]);
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.is_clean(), "{recovery:?}");
    assert_eq!(sequences(&log), [1, 2, 3, 4, 5, 6]);
    assert!(log.verify().unwrap().is_clean());
}

#[test]
fn holes_stay_in_one_file_and_are_filled_with_few() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), Options::default()).unwrap();
    let (odd, even): (Vec<u64>, Vec<u64>) = (1..=100).partition(|sequence| sequence % 2 == 1);
    let entries = |of: &[u64]| of.iter().map(|sequence| version(1, *sequence)).collect::<Vec<_>>();
    log.append_sparse(&entries(&odd[..20])).unwrap();
    log.append_sparse(&entries(&odd[20..])).unwrap();
    assert_eq!(log.gaps().len(), 49);
    assert_eq!((sequences(&log), log.next_sequence(signer(1).node())), (odd.clone(), 100));
    drop(log);
    let (mut log, recovery) = Log::open(dir.path(), Options::default()).unwrap();
    assert_eq!((recovery.segments, recovery.torn, recovery.damage), (1, vec![], vec![]));
    assert_eq!(sequences(&log), odd);
    log.append_sparse(&entries(&even[..30])).unwrap();
    assert!(matches!(log.append_sparse(&entries(&even[29..])), Err(LogError::Known { sequence: 60, .. })));
    log.append_sparse(&entries(&even[30..])).unwrap();
    assert_eq!(log.gaps(), []);
    log.append(&[version(1, 101)]).unwrap();
    drop(log);
    let (mut log, recovery) = Log::open(dir.path(), Options::default()).unwrap();
    assert!(recovery.is_clean() && recovery.segments == 3, "{recovery:?}");
    log.append(&[version(1, 102)]).unwrap();
    assert_eq!(sequences(&log), (1..=102).collect::<Vec<_>>());
    assert!(log.verify().unwrap().is_clean());
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&[version(1, 1)]).unwrap();
    let snapshot = || {
        let read = |node| fs::read(file(dir.path(), node, 1)).ok();
        (read(1), read(2))
    };
    let before = snapshot();
    for budget in [0, 1, 7, 8, 100, 400, 500] {
        log.budget = Some(budget);
        let error = log.append(&[version(1, 2), version(2, 1), version(1, 3)]).unwrap_err();
        assert!(matches!(error, LogError::Full { .. }), "{error}");
        assert_eq!(snapshot(), before);
        assert_eq!(log.next_sequence(signer(1).node()), 2);
    }
    log.budget = None;
    log.append(&[version(1, 2), version(2, 1)]).unwrap();
    assert!(log.verify().unwrap().is_clean());
    log.budget = Some(10);
    assert!(matches!(log.erase(&[id(1, 1)]), Err(LogError::Full { .. })));
    log.budget = None;
    assert_eq!(all(&log).len(), 3);
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.is_clean() && recovery.unfinished.is_empty());
    assert!(all(&log).iter().all(|entry| !entry.is_erased()));
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_kept() {
    let (_dir, bytes, starts) = written(4);
    for end in 0..bytes.len() {
        let (dir, mut log, recovery) = with_bytes(&bytes[..end]);
        let whole = starts[1..].iter().filter(|start| **start <= end).count() as u64;
        assert_eq!(sequences(&log), (1..=whole).collect::<Vec<_>>(), "cut at {end}");
        if starts.contains(&end) {
            assert!(recovery.is_clean(), "cut at {end}");
        } else {
            let [torn] = recovery.torn.as_slice() else { panic!("cut at {end}: {recovery:?}") };
            assert_eq!(fs::read(&torn.kept).unwrap(), bytes[torn.offset as usize..end]);
            assert!(recovery.damage.is_empty() && !torn.complete);
        }
        log.append(&[version(1, whole + 1)]).unwrap();
        drop(log);
        let (log, recovery) = open(dir.path());
        assert!(recovery.is_clean(), "cut at {end}: {recovery:?}");
        assert_eq!(sequences(&log), (1..=whole + 1).collect::<Vec<_>>());
    }
}

/// Flips a bit of a log of four entries and checks that only the entry that holds it is lost, and reported.
fn flip(bytes: &[u8], starts: &[usize], at: usize, bit: u8) {
    let mut flipped = bytes.to_vec();
    flipped[at] ^= 1 << bit;
    let (dir, mut log, recovery) = with_bytes(&flipped);
    let hit =
        starts.windows(2).position(|pair| (pair[0]..pair[1]).contains(&at)).map(|index| index as u64 + 1);
    let left: Vec<u64> = (1..=4).filter(|sequence| Some(*sequence) != hit).collect();
    assert_eq!(sequences(&log), left, "bit {bit} of byte {at}");
    assert!(!recovery.is_clean());
    let next = log.next_sequence(signer(1).node());
    match hit {
        None => assert_eq!(recovery.damage[0].lost, None),
        Some(4) => assert_eq!((recovery.torn.len(), recovery.torn[0].offset as usize), (1, starts[3])),
        Some(hit) => {
            assert_eq!(recovery.damage.len(), 1);
            assert_eq!(recovery.damage[0].lost, Some((hit, hit)));
            assert_eq!((recovery.gaps.len(), recovery.gaps[0].first), (1, hit));
            assert_eq!(fs::read(file(dir.path(), 1, 1)).unwrap(), flipped, "nothing is deleted");
        }
    }
    // What is lost comes back from another machine, and new entries follow the highest.
    if let Some(hit) = hit.filter(|hit| *hit < 4) {
        log.append(&[version(1, next), version(1, hit)]).unwrap();
        drop(log);
        let (log, recovery) = open(dir.path());
        assert_eq!(recovery.gaps, []);
        assert_eq!(sequences(&log), [1, 2, 3, 4, 5]);
        assert_eq!(log.next_sequence(signer(1).node()), 6);
    }
}

#[test]
fn a_flipped_bit_costs_one_entry_and_is_reported() {
    let (_dir, bytes, starts) = written(4);
    for at in 0..bytes.len() {
        flip(&bytes, &starts, at, (at % 8) as u8);
    }
}

#[test]
fn any_flipped_bit_before_a_payload_costs_one_entry() {
    let (_dir, bytes, starts) = written(4);
    let heads = (0..64).chain(starts[..4].iter().flat_map(|start| *start..start + 18));
    for (at, bit) in heads.flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        flip(&bytes, &starts, at, bit);
    }
}

#[test]
fn a_text_that_holds_a_frame_is_not_taken_for_one() {
    // A whole frame of another machine inside a damaged text: well-formed, but not this machine's.
    let mut inner = Vec::new();
    frame::push(&mut inner, &version(2, 2).encode().unwrap(), 0).unwrap();
    let (_dir, bytes, starts) = written(3);
    let mut damaged = bytes.clone();
    damaged[starts[1] + 3] = 0xff;
    let at = starts[1] + 20;
    damaged.splice(at..at, inner);
    let (_dir, log, recovery) = with_bytes(&damaged);
    assert_eq!(sequences(&log), [1, 3]);
    assert_eq!(recovery.damage[0].lost, Some((2, 2)));
}

#[test]
fn damage_while_open_is_reported_by_readers() {
    let (dir, bytes, starts) = written(4);
    let (log, _) = open(dir.path());
    let mut flipped = bytes;
    flipped[starts[1] + 40] ^= 1;
    fs::write(file(dir.path(), 1, 1), &flipped).unwrap();
    let mut found = Vec::new();
    let visit = |_, entry: Entry| {
        found.push(entry.sequence());
        ControlFlow::Continue(())
    };
    let damage = log.for_each(None, 0, visit).unwrap();
    assert_eq!(found, [1, 3, 4]);
    assert_eq!(damage[0].lost, Some((2, 2)));
    let at = Location { segment: 0, offset: starts[1] as u64, len: (starts[2] - starts[1] - 8) as u32 };
    assert!(matches!(log.read_at(at), Err(LogError::Unreadable { .. })));
    assert!(matches!(log.read_at(Location { segment: 9, ..at }), Err(LogError::NoSegment { segment: 9 })));
    assert!(matches!(log.read_at(Location { len: u32::MAX, ..at }), Err(LogError::Unreadable { .. })));
    let report = log.verify().unwrap();
    assert!(matches!(report.problems[0].trouble, Trouble::Unreadable { .. }));
}

#[test]
fn a_log_of_the_future_is_left_alone() {
    let (_dir, bytes, starts) = written(2);
    let mut segment = bytes.clone();
    segment[8] = 2;
    let crc = crc32fast::hash(&segment[..60]);
    segment[60..64].copy_from_slice(&crc.to_le_bytes());
    let mut entry = bytes[..starts[2]].to_vec();
    let mut payload = version(1, 3).encode().unwrap();
    payload[0] = 2;
    frame::push(&mut entry, &payload, 0).unwrap();
    for mut future in [segment, entry] {
        future.extend_from_slice(b"torn");
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), 1, 1);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &future).unwrap();
        assert!(matches!(Log::open(dir.path(), SMALL), Err(LogError::Future { found: 2, known: 1, .. })));
        assert_eq!(fs::read(&path).unwrap(), future);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}

#[test]
fn a_file_in_the_wrong_folder_is_refused() {
    let (_dir, bytes, _) = written(1);
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 2, 1);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(Log::open(dir.path(), SMALL), Err(LogError::Misplaced { .. })));
}

#[test]
fn damage_in_an_older_file_spares_the_newer() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let entries: Vec<Entry> = (1..=30).map(|sequence| version(1, sequence)).collect();
    log.append(&entries).unwrap();
    drop(log);
    let older = file(dir.path(), 1, 1);
    let bytes = fs::read(&older).unwrap();
    fs::write(&older, &bytes[..bytes.len() - 5]).unwrap();
    let (mut log, recovery) = open(dir.path());
    assert!(recovery.torn.is_empty());
    let (first, last) = recovery.damage[0].lost.unwrap();
    assert_eq!(first, last);
    assert_eq!(sequences(&log), (1..=30).filter(|n| *n != first).collect::<Vec<_>>());
    log.append(&[version(1, first), version(1, 31)]).unwrap();
    assert_eq!(sequences(&log), (1..=31).collect::<Vec<_>>());
}

#[test]
fn a_hard_forget_takes_the_text_and_leaves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let secret = "the password is hunter2";
    let mut entries: Vec<Entry> = (1..=40).map(|sequence| version(1, sequence)).collect();
    entries[4] = text(1, 5, secret.to_owned());
    entries[20] = vectors(1, 21, id(1, 5));
    let forget = Forget { targets: vec![id(1, 5)], hard: true, ..Forget::default() };
    entries.push(Entry::Version(Box::new(Version::forget(forget, place(1, 41), &signer(1)).unwrap())));
    let locations = log.append(&entries).unwrap();
    let reader = log.reader();
    let erased = log.erase(&[id(1, 5), id(1, 41), id(9, 9)]).unwrap();
    assert_eq!((erased.versions, erased.vectors, erased.segments), (1, 1, 2));
    assert_eq!(erased.without, [id(1, 41), id(9, 9)]);
    for item in fs::read_dir(folder(dir.path(), signer(1).node())).unwrap() {
        let bytes = fs::read(item.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
    for (number, (location, entry)) in locations.iter().zip(&entries).enumerate() {
        let found = reader.read_at(*location).unwrap();
        found.verify().unwrap();
        let gone = number == 4 || number == 20;
        assert_eq!(found, if gone { entry.clone().erased() } else { entry.clone() });
    }
    assert_eq!(log.erase(&[id(1, 5)]).unwrap().segments, 0, "there is nothing left to erase");
    log.append(&[version(1, 42)]).unwrap();
    drop(log);
    let (log, recovery) = open(dir.path());
    assert!(recovery.is_clean());
    assert_eq!(all(&log).len(), 42);
    let report = log.verify().unwrap();
    assert!(report.is_clean());
    assert_eq!(report.erased, 2);
}

#[test]
fn an_unfinished_copy_is_removed() {
    let (dir, bytes, _) = written(2);
    let copy = file(dir.path(), 1, 1).with_extension("log.tmp");
    fs::write(&copy, &bytes[..100]).unwrap();
    let (log, recovery) = open(dir.path());
    assert_eq!(recovery.unfinished, std::slice::from_ref(&copy));
    assert!(!copy.exists());
    assert_eq!(sequences(&log), [1, 2]);
}

#[test]
fn a_check_finds_what_a_checksum_does_not() {
    let Entry::Version(mut forged) = version(1, 2) else { unreachable!() };
    forged.header.source = Some("someone else".to_owned());
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&[version(1, 1), Entry::Version(forged), version(1, 3)]).unwrap();
    let report = log.verify().unwrap();
    assert_eq!((report.versions, report.problems.len()), (2, 1));
    assert!(matches!(report.problems[0], Problem { sequence: Some(2), trouble: Trouble::Entry(_), .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Batches of several machines, the disk filling up and crashes tearing tails: what was acknowledged
    /// stays.
    #[test]
    fn what_was_acknowledged_stays(
        steps in prop::collection::vec(
            (prop::collection::vec((1u8..4, 1usize..900), 1..8), 0u64..4000, 0usize..60),
            1..14,
        )
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut acknowledged: Vec<Entry> = Vec::new();
        for (batch, budget, garbage) in steps {
            let (mut log, recovery) = open(dir.path());
            prop_assert!(recovery.damage.is_empty() && recovery.gaps.is_empty());
            let mut next: BTreeMap<u8, u64> = BTreeMap::new();
            let entries: Vec<Entry> = batch.iter().map(|(node, len)| {
                let sequence = next.entry(*node).or_insert_with(|| log.next_sequence(signer(*node).node()));
                *sequence += 1;
                text(*node, *sequence - 1, "x".repeat(*len))
            }).collect();
            log.budget = (budget < 3000).then_some(budget);
            if log.append(&entries).is_ok() {
                acknowledged.extend(entries);
            }
            acknowledged.sort_by_key(|entry| (entry.origin(), entry.sequence()));
            prop_assert_eq!(&all(&log), &acknowledged);
            drop(log);
            // A crash while something was written behind the acknowledged end of the newest file.
            let newest = (1u8..4).filter_map(|node| {
                let files = fs::read_dir(folder(dir.path(), signer(node).node())).ok()?;
                files.map(|file| file.unwrap().path()).filter(|path| path.extension().unwrap() == "log").max()
            });
            for path in newest {
                let mut bytes = fs::read(&path).unwrap();
                bytes.extend(vec![garbage as u8; garbage]);
                fs::write(&path, bytes).unwrap();
            }
        }
    }
}
