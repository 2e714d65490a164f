//! From the tail to segments.
//!
//! A seal has three steps, so that the long one needs no access to the store: [`Store::begin_seal`] freezes
//! the tail and picks segments to merge, [`Sealing::write`] writes them to one new file,
//! [`Store::finish_seal`] makes that file count. What is pushed or removed in between is kept.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::codec::Rotation;
use super::error::Error;
use super::manifest::Manifest;
use super::segment::{Segment, row_sum};
use super::tail::Tail;
use super::write::{self, Pick, Source};
use super::{Frozen, Part, Shape, Store, files, ranges};

/// Once a seal holds half as many vectors as the next larger segment, it takes that segment along.
const GROWTH: u64 = 2;

/// A segment that lost more than one vector in this many is written anew.
const WASTE: u64 = 4;

/// A seal that was begun.
#[derive(Debug)]
pub struct Sealing {
    dir: PathBuf,
    shape: Shape,
    rotation: Arc<Rotation>,
    id: u64,
    mark: u64,
    /// The segments to merge, with what was removed from them when the seal began, and the tail.
    sources: Vec<Source>,
}

/// A seal whose segment is written but does not count yet.
#[derive(Debug)]
pub struct Built {
    sealing: Sealing,
    segment: Option<Segment>,
    lost: RoaringBitmap,
}

impl Store {
    /// Makes durable what was pushed and removed: writes the tail to a segment, together with the segments
    /// that it merges with, and replaces the manifest. Returns the units that merging found damaged; they are
    /// [`lost`](Self::lost) now.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a file cannot be written; the store is as before then, and a later seal tries
    /// again. [`Error::Sealing`] between [`begin_seal`](Self::begin_seal) and its end.
    pub fn seal(&mut self) -> Result<Vec<RangeInclusive<u32>>, Error> {
        let built = self.begin_seal()?.write().and_then(|built| self.finish_seal(built));
        built.inspect_err(|_| self.cancel_seal())
    }

    /// Begins a seal. Searches still see all vectors, and pushes go to a new tail.
    ///
    /// # Errors
    ///
    /// [`Error::Sealing`] when another one has not been finished or cancelled.
    pub fn begin_seal(&mut self) -> Result<Sealing, Error> {
        if self.frozen.is_some() {
            return Err(Error::Sealing);
        }
        let id = self.next_id;
        self.next_id += 1;
        let rows = Arc::new(std::mem::replace(&mut self.tail, Tail::new(self.shape.dims)));
        let mut sources = self.merged(rows.len() as u64);
        sources.push(Source::Tail(Arc::clone(&rows)));
        self.purge = false;
        self.frozen = Some(Frozen { rows, dead: RoaringBitmap::new(), id });
        let (dir, rotation) = (self.dir.clone(), Arc::clone(&self.rotation));
        Ok(Sealing { dir, shape: self.shape, rotation, id, mark: self.mark, sources })
    }

    /// The segments to merge with `fresh` vectors.
    fn merged(&self, fresh: u64) -> Vec<Source> {
        let most = |part: &Part| if self.purge { 0 } else { u64::from(part.segment.count()) / WASTE };
        let (mut wasted, mut sound): (Vec<&Part>, Vec<&Part>) =
            self.parts.iter().partition(|part| part.dead.len() > most(part));
        let mut held = fresh + wasted.iter().map(|part| part.live()).sum::<u64>();
        sound.sort_by_key(|part| part.live());
        for part in sound {
            if held == 0 || part.live() > held * GROWTH {
                break;
            }
            held += part.live();
            wasted.push(part);
        }
        wasted.into_iter().cloned().map(Source::Part).collect()
    }

    /// Ends a seal: from now on its segment counts, and those that went into it are deleted. Returns the
    /// units that merging found damaged.
    ///
    /// # Errors
    ///
    /// [`Error::Sealing`] when `built` is not of the seal under way, [`Error::Io`] when the manifest cannot
    /// be replaced. The seal has to be cancelled then.
    pub fn finish_seal(&mut self, built: Built) -> Result<Vec<RangeInclusive<u32>>, Error> {
        let Some(frozen) = self.frozen.as_ref().filter(|frozen| frozen.id == built.sealing.id) else {
            return Err(Error::Sealing);
        };
        let Built { sealing, segment, lost } = built;
        let mut dead = frozen.dead.clone();
        let mut gone = Vec::new();
        for source in &sealing.sources {
            let Source::Part(old) = source else { continue };
            gone.push(old.segment.file().to_owned());
            let now = self.parts.iter().find(|part| Arc::ptr_eq(&part.segment, &old.segment));
            dead |= now.map(|part| &part.dead - &old.dead).unwrap_or_default();
        }
        let kept = self.parts.iter().filter(|part| !gone.iter().any(|path| path == part.segment.file()));
        let mut parts: Vec<Part> = kept.cloned().collect();
        let mut lost_now = &self.lost | (&lost - &dead);
        if let Some(segment) = segment {
            parts.push(Part { segment: Arc::new(segment), dead });
        }
        // The manifest speaks of the time of a crash, when the present tail will be gone: a vector that was
        // replaced in it will then be missing.
        let replaced = self.tail.units().iter().filter(|&&unit| parts.iter().any(|p| p.dead.contains(unit)));
        let manifest = Manifest {
            mark: sealing.mark,
            next_id: self.next_id,
            lost: replaced.copied().collect::<RoaringBitmap>() | &lost_now,
            entries: parts.iter().map(|part| (part.segment.entry(), part)).map(Part::with_dead).collect(),
        };
        manifest.write(&self.dir, self.shape)?;
        lost_now -= self.tail.units().iter().copied().collect::<RoaringBitmap>();
        self.lost = lost_now;
        self.parts = parts;
        self.frozen = None;
        // What stays behind is deleted when the store is opened the next time.
        gone.iter().for_each(|path| drop(files::remove_if_there(path)));
        Ok(ranges(&lost))
    }

    /// Takes a seal back: its vectors are in the tail again.
    pub fn cancel_seal(&mut self) {
        if let Some(Frozen { rows, dead, .. }) = self.frozen.take() {
            self.tail.absorb(&rows, |unit| dead.contains(unit));
        }
    }
}

impl Part {
    fn with_dead((mut entry, part): (super::Entry, &Self)) -> super::Entry {
        entry.dead = part.dead.clone();
        entry
    }
}

impl Sealing {
    /// Writes the new segment. Takes some seconds for a million vectors, and needs no access to the store.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the file cannot be written. The seal has to be cancelled then.
    pub fn write(self) -> Result<Built, Error> {
        let mut lost = RoaringBitmap::new();
        let mut picks = Vec::new();
        for (number, source) in (0u32..).zip(&self.sources) {
            match source {
                Source::Part(part) => pick_part(number, part, &mut picks, &mut lost),
                Source::Tail(tail) => pick_tail(number, tail, &mut picks),
            }
        }
        picks.sort_unstable_by_key(|pick| pick.unit);
        let segment = if picks.is_empty() {
            None
        } else {
            Some(write::write(&self.dir, self.id, self.shape, &self.rotation, &self.sources, &picks)?)
        };
        Ok(Built { sealing: self, segment, lost })
    }
}

/// Picks what counts of a segment. Damaged rows must not get a new checksum: they are left out.
fn pick_part(source: u32, part: &Part, picks: &mut Vec<Pick>, lost: &mut RoaringBitmap) {
    for (position, unit) in (0u32..).zip(part.segment.units()) {
        if part.dead.contains(unit) {
            continue;
        }
        match part.segment.checked_row(position) {
            Some((row, scale)) => picks.push(Pick { unit, source, position, sum: row_sum(unit, scale, row) }),
            None => {
                lost.insert(unit);
            }
        }
    }
}

fn pick_tail(source: u32, tail: &Tail, picks: &mut Vec<Pick>) {
    for (position, &unit) in (0u32..).zip(tail.units()) {
        if let (Some(row), Some(scale)) = (tail.row(position), tail.scale(position)) {
            picks.push(Pick { unit, source, position, sum: row_sum(unit, scale, row) });
        }
    }
}
