//! Opening: what lies in the folder, what of it can be read, and what a crash left behind.
//!
//! First everything is read and nothing is touched, so that a log of a newer program stays as it is. Then
//! tails that a crash tore off are cut from the last file of each machine, where alone appending goes on.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::super::record::{ENTRY_FORMAT, NodeId};
use super::error::{Damage, LogError, Recovery, Torn};
use super::frame::{self, HEADER, Header, SEGMENT_FORMAT, Step, Walk};
use super::shelf::{Location, Segment, Shelf};
use super::write::Cursor;
use super::{beside, sync_dir};

/// What is in a log's folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) shelf: Shelf,
    pub(super) cursors: BTreeMap<NodeId, Cursor>,
    pub(super) recovery: Recovery,
}

/// One file, read through.
#[derive(Debug)]
struct Scanned {
    path: PathBuf,
    first: u64,
    number: u32,
    len: u64,
    damage: Vec<Damage>,
    /// Where an unreadable end starts, the sequence it starts with, and whether it has the length of an
    /// entry.
    tail: Option<(u64, u64, bool)>,
}

/// Reads the folder of a log through and mends what a crash left behind.
pub(super) fn run(dir: &Path) -> Result<Found, LogError> {
    let mut found = Found::default();
    let mut scanned = Vec::new();
    for (origin, folder) in origins(dir)? {
        let (files, unfinished) = segments(&folder)?;
        found.recovery.unfinished.extend(unfinished);
        let mut of_origin = Vec::new();
        for (first, path) in files {
            of_origin.push(scan(origin, first, path, &mut found)?);
        }
        scanned.push((origin, folder, of_origin));
    }
    // Nothing was touched up to here.
    for path in &found.recovery.unfinished {
        fs::remove_file(path).map_err(LogError::io(path))?;
    }
    for (origin, folder, files) in scanned {
        mend(origin, &folder, files, &mut found)?;
    }
    found.recovery.segments = found.shelf.segments.len() as u64;
    found.recovery.gaps = found.shelf.gaps();
    Ok(found)
}

/// The folders of machines.
fn origins(dir: &Path) -> Result<Vec<(NodeId, PathBuf)>, LogError> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).map_err(LogError::io(dir))? {
        let path = item.map_err(LogError::io(dir))?.path();
        let origin = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        if let Some(origin) = origin.filter(|_| path.is_dir()) {
            found.push((origin, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Files with the first sequence that their names state.
type Files = Vec<(u64, PathBuf)>;

/// The segments of a machine in the order of their first sequence, and unfinished copies of some.
fn segments(folder: &Path) -> Result<(Files, Vec<PathBuf>), LogError> {
    let (mut files, mut unfinished) = (Vec::new(), Vec::new());
    for item in fs::read_dir(folder).map_err(LogError::io(folder))? {
        let path = item.map_err(LogError::io(folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if let Some(first) = name.strip_suffix(".log").and_then(first_sequence) {
            files.push((first, path));
        } else if name.strip_suffix(".log.tmp").and_then(first_sequence).is_some() {
            unfinished.push(path);
        }
    }
    files.sort_unstable();
    Ok((files, unfinished))
}

/// The sequence a file's name (without its ending) states: 20 digits, then perhaps a hyphen and a number.
fn first_sequence(stem: &str) -> Option<u64> {
    let (digits, number) =
        stem.split_once('-').map_or((stem, None), |(digits, number)| (digits, Some(number)));
    if digits.len() != 20 || number.is_some_and(|number| number.parse::<u32>().is_err()) {
        return None;
    }
    digits.parse().ok().filter(|first| *first > 0)
}

/// Reads one file through and notes its entries.
fn scan(origin: NodeId, first: u64, path: PathBuf, found: &mut Found) -> Result<Scanned, LogError> {
    let bytes = fs::read(&path).map_err(LogError::io(&path))?;
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(LogError::io(&path))?;
    let mut damage = Vec::new();
    let mut lose = |offset: usize, end: usize, lost| {
        let (file, len) = (path.clone(), end.saturating_sub(offset) as u64);
        damage.push(Damage { file, offset: offset as u64, len, lost });
    };
    match frame::read_header(&bytes) {
        Header::Future { found } => return Err(LogError::Future { path, found, known: SEGMENT_FORMAT }),
        Header::Valid { origin: other, .. } if other != origin => {
            return Err(LogError::Misplaced { path, origin: other });
        }
        Header::Valid { first: stated, .. } if stated == first => {}
        // The folder and the name say all that is needed to read on.
        _ if bytes.len() >= HEADER => lose(0, HEADER, None),
        _ => {}
    }
    if bytes.len() < HEADER {
        // Without even a header it holds nothing, and it may have to go.
        return Ok(Scanned { path, first, number: u32::MAX, len: bytes.len() as u64, damage, tail: None });
    }
    let number = found.shelf.add(Segment { path: path.clone(), file, origin, first });
    let mut last = first.saturating_sub(1);
    let mut tail = None;
    for step in Walk::new(&bytes, origin, first) {
        match step {
            Step::Frame { offset, frame, peek } => {
                let len = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
                let at = Location { segment: number, len, offset: offset as u64 };
                if found.shelf.note(origin, peek.sequence, at) {
                    found.recovery.entries = found.recovery.entries.saturating_add(1);
                }
                last = peek.sequence;
            }
            Step::Unreadable { offset, end, next: Some(next) } => {
                lose(offset, end, Some((last.saturating_add(1), next.saturating_sub(1))));
            }
            Step::Unreadable { offset, .. } => {
                let complete = frame::extent(&bytes, offset).is_some();
                tail = Some((offset as u64, last.saturating_add(1), complete));
            }
            Step::Future { found } => {
                return Err(LogError::Future {
                    path,
                    found: u32::from(found),
                    known: u32::from(ENTRY_FORMAT),
                });
            }
        }
    }
    Ok(Scanned { path, first, number, len: bytes.len() as u64, damage, tail })
}

/// Cuts a torn tail of the last file of a machine and finds where its next entry goes; reports the rest.
fn mend(origin: NodeId, folder: &Path, mut files: Vec<Scanned>, found: &mut Found) -> Result<(), LogError> {
    let Some(mut newest) = files.pop() else { return Ok(()) };
    let highest = found.shelf.highest(origin);
    let next = highest.saturating_add(1).max(newest.first);
    // Older files were complete before a newer one was begun: what is unreadable there is damage.
    let starts: Vec<u64> = files.iter().skip(1).map(|file| file.first).chain([newest.first]).collect();
    for (file, following) in files.into_iter().zip(starts) {
        found.recovery.damage.extend(file.damage);
        let short = (file.len < HEADER as u64).then_some((0, file.first, false));
        if let Some((offset, first, _)) = file.tail.or(short) {
            let lost = Some((first, following.saturating_sub(1).max(first)));
            let len = file.len.saturating_sub(offset);
            found.recovery.damage.push(Damage { file: file.path, offset, len, lost });
        }
    }
    if newest.len < HEADER as u64 {
        // Not even the header was written, so nothing was acknowledged.
        let kept = beside(&newest.path, "torn");
        fs::rename(&newest.path, &kept).map_err(LogError::io(&newest.path))?;
        sync_dir(folder)?;
        let (file, len) = (newest.path, newest.len);
        found.recovery.torn.push(Torn { file, offset: 0, len, kept, complete: false });
        found.cursors.insert(origin, Cursor { segment: None, next });
        return Ok(());
    }
    if let Some((offset, _, complete)) = newest.tail {
        let kept = cut(&newest.path, folder, offset)?;
        let len = newest.len.saturating_sub(offset);
        found.recovery.torn.push(Torn { file: newest.path.clone(), offset, len, kept, complete });
        newest.len = offset;
    }
    // A file with damage inside is left as it is: the next entry begins a new one.
    let segment = newest.damage.is_empty().then_some((newest.number, newest.len));
    found.cursors.insert(origin, Cursor { segment, next });
    found.recovery.damage.append(&mut newest.damage);
    Ok(())
}

/// Moves what follows `offset` in a file into one beside it, and returns that one's path.
fn cut(path: &Path, folder: &Path, offset: u64) -> Result<PathBuf, LogError> {
    let bytes = fs::read(path).map_err(LogError::io(path))?;
    let tail = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
    let kept = beside(path, "torn");
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&kept)?;
        file.write_all(tail)?;
        file.sync_all()
    };
    write().map_err(LogError::io(&kept))?;
    sync_dir(folder)?;
    let shorten = |file: File| file.set_len(offset).and_then(|()| file.sync_all());
    OpenOptions::new().write(true).open(path).and_then(shorten).map_err(LogError::io(path))?;
    Ok(kept)
}
