//! The flat vector store: every vector's exact row on disk, found through a scan of sign codes.
//!
//! A vector belongs to a *unit*, a `u32` that the caller chooses. New vectors wait in memory (the *tail*),
//! where searches see them at once; [`Store::seal`] writes them to an immutable *segment* file and merges it
//! with segments of similar size, so that their number stays logarithmic. A *manifest*, replaced atomically,
//! names the segments that count. What the store holds can be made again from the caller's log: a segment
//! that is missing or damaged is left out, its units are [`lost`](Store::lost), and the caller pushes them
//! again.

mod codec;
mod error;
mod files;
mod manifest;
mod seal;
mod search;
mod segment;
mod tail;
mod write;

use std::fs::File;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use roaring::RoaringBitmap;
use sha2::{Digest, Sha256};

use potluck_kernels::scan::{DIMS_STEP, MAX_DIMS, dot_rows};

use self::codec::Rotation;
pub use self::error::{Damage, Error};
use self::manifest::{Entry, Manifest};
pub use self::seal::{Built, Sealing};
pub use self::search::Search;
use self::segment::Segment;
use self::tail::Tail;

/// How many codes a search rescores exactly unless [`Store::set_candidates`] says otherwise.
pub const CANDIDATES: usize = 1000;

/// What all files of a store have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    dims: usize,
    /// SHA-256 of the model's name.
    model: [u8; 32],
}

/// A segment and what was removed from it since it was written.
#[derive(Clone, Debug)]
struct Part {
    segment: Arc<Segment>,
    /// Units whose vectors no longer count.
    dead: RoaringBitmap,
}

impl Part {
    fn live(&self) -> u64 {
        u64::from(self.segment.count()).saturating_sub(self.dead.len())
    }

    /// Whether the segment's vector of `unit` counts.
    fn holds(&self, unit: u32) -> bool {
        !self.dead.contains(unit) && self.segment.position(unit).is_some()
    }
}

/// A row, its scale, and the segment and position where it lies on disk.
type Placed<'a> = (&'a [u8], f32, Option<(&'a Segment, u32)>);

/// A tail that is being written to a segment.
#[derive(Debug)]
struct Frozen {
    rows: Arc<Tail>,
    dead: RoaringBitmap,
    /// Number of the segment.
    id: u64,
}

/// A store of unit vectors under one directory, for one process at a time.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    shape: Shape,
    rotation: Arc<Rotation>,
    parts: Vec<Part>,
    frozen: Option<Frozen>,
    tail: Tail,
    lost: RoaringBitmap,
    damage: Vec<Damage>,
    mark: u64,
    next_id: u64,
    candidates: usize,
    /// The next seal takes along every segment that something was removed from.
    purge: bool,
    /// Holds the lock on the directory.
    _lock: File,
}

impl Store {
    /// Opens the store in `dir`, or makes an empty one, for vectors of `dims` dimensions (a multiple of 64)
    /// that the named `model` computes.
    ///
    /// Files of the store that its manifest does not name are deleted. What could not be read is listed by
    /// [`damage`](Self::damage) and [`lost`](Self::lost).
    ///
    /// # Errors
    ///
    /// [`Error::Dims`] for a number of dimensions that cannot be, [`Error::Model`] when the store was made
    /// for another model or number of dimensions (nothing is changed), [`Error::Locked`] when another store
    /// has the directory, [`Error::Io`] when the directory cannot be used.
    pub fn open(dir: &Path, dims: usize, model: &str) -> Result<Self, Error> {
        if dims == 0 || dims > MAX_DIMS || !dims.is_multiple_of(DIMS_STEP) {
            return Err(Error::Dims { dims });
        }
        let shape = Shape { dims, model: Sha256::digest(model.as_bytes()).into() };
        std::fs::create_dir_all(dir).map_err(|source| Error::io(dir, source))?;
        let lock = files::lock(dir)?;
        let mut damage = Vec::new();
        let manifest = match Manifest::read(dir, shape) {
            Ok(manifest) => manifest,
            Err(cause @ (Error::Manifest { .. } | Error::NoManifest { .. })) => {
                damage.push(Damage { path: manifest::path(dir), units: None, cause });
                Manifest::default()
            }
            Err(error) => return Err(error),
        };
        let named: Vec<u64> = manifest.entries.iter().map(|entry| entry.id).collect();
        files::sweep(dir, &named)?;
        let mut store = Self {
            dir: dir.to_owned(),
            shape,
            rotation: Arc::new(Rotation::new(dims)),
            parts: Vec::new(),
            frozen: None,
            tail: Tail::new(dims),
            lost: manifest.lost,
            damage,
            mark: manifest.mark,
            next_id: manifest.next_id,
            candidates: CANDIDATES,
            purge: false,
            _lock: lock,
        };
        let mut missing = RoaringBitmap::new();
        for entry in manifest.entries {
            missing |= store.open_segment(entry);
        }
        // A unit that another segment holds is there, whatever a damaged one may have held.
        for part in &store.parts {
            part.segment.units().filter(|unit| !part.dead.contains(*unit)).for_each(|unit| {
                missing.remove(unit);
            });
        }
        store.lost |= missing;
        Ok(store)
    }

    /// Adds a segment that the manifest names, or returns the units that were lost with it.
    fn open_segment(&mut self, entry: Entry) -> RoaringBitmap {
        let path = segment::path(&self.dir, entry.id);
        match Segment::open(&path, self.shape, &entry) {
            Ok(segment) => {
                self.parts.push(Part { segment: Arc::new(segment), dead: entry.dead });
                RoaringBitmap::new()
            }
            Err(cause) => {
                self.damage.push(Damage { path, units: Some(entry.first..=entry.last), cause });
                let mut units = RoaringBitmap::new();
                units.insert_range(entry.first..=entry.last);
                units - entry.dead
            }
        }
    }

    /// Has the next seal write every segment anew that something was removed from, so that no file has it any more.
    pub fn purge(&mut self) {
        self.purge = true;
    }

    /// Deletes every file of a store in `dir`; for a directory that was made for another model.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when a store is open there, [`Error::Io`] when a file cannot be deleted.
    pub fn wipe(dir: &Path) -> Result<(), Error> {
        let _lock = files::lock(dir)?;
        // The manifest goes first: without it nothing else counts.
        files::remove_if_there(&manifest::path(dir))?;
        files::sweep(dir, &[])
    }

    /// Puts the vector of `unit`: one signed byte per dimension, each times `scale`. It replaces the unit's
    /// former vector, if any. Searches see it at once; a crash before the next seal forgets it.
    ///
    /// # Errors
    ///
    /// [`Error::Row`] when the row has another number of dimensions, is all zero, or the scale is no positive
    /// number.
    pub fn push(&mut self, unit: u32, row: &[i8], scale: f32) -> Result<(), Error> {
        let zero = row.iter().all(|&value| value == 0);
        if row.len() != self.shape.dims || zero || !scale.is_finite() || scale <= 0.0 {
            return Err(Error::Row { unit, len: row.len(), dims: self.shape.dims, scale });
        }
        self.remove_stored(unit);
        self.lost.remove(unit);
        self.tail.put(unit, row, scale);
        Ok(())
    }

    /// [`push`](Self::push) of `values`, rounded to signed bytes.
    ///
    /// # Errors
    ///
    /// As for [`push`](Self::push).
    pub fn push_f32(&mut self, unit: u32, values: &[f32]) -> Result<(), Error> {
        let (row, scale) = codec::quantise(values);
        self.push(unit, &row, scale)
    }

    /// Removes the vector of `unit` and returns whether there was one. Also takes the unit from the lost
    /// ones: it need not come back.
    ///
    /// A crash before the next seal forgets the removal.
    pub fn remove(&mut self, unit: u32) -> bool {
        self.lost.remove(unit);
        self.tail.remove(unit) || self.remove_stored(unit)
    }

    /// Marks `unit` as dead wherever it is outside the tail.
    fn remove_stored(&mut self, unit: u32) -> bool {
        if let Some(frozen) = &mut self.frozen
            && frozen.rows.position(unit).is_some()
            && frozen.dead.insert(unit)
        {
            return true;
        }
        match self.parts.iter_mut().find(|part| part.holds(unit)) {
            Some(part) => part.dead.insert(unit),
            None => false,
        }
    }

    /// Whether `unit` has a vector.
    pub fn contains(&self, unit: u32) -> bool {
        self.tail.position(unit).is_some()
            || self.frozen.as_ref().is_some_and(|f| f.rows.position(unit).is_some() && !f.dead.contains(unit))
            || self.parts.iter().any(|part| part.holds(unit))
    }

    /// The vector of `unit`: its row of signed bytes and its scale.
    ///
    /// # Errors
    ///
    /// [`Error::Rows`] when the stored row is damaged.
    pub fn get(&self, unit: u32) -> Result<Option<(Vec<i8>, f32)>, Error> {
        let found = self.find(unit)?;
        Ok(found.map(|(row, scale)| (row.iter().map(|&byte| byte.cast_signed()).collect(), scale)))
    }

    /// The product of `query` with the vector of `unit`: their cosine when both have length 1.
    ///
    /// # Errors
    ///
    /// [`Error::Rows`] when the stored row is damaged, [`Error::Query`] for a query of another number of dimensions.
    pub fn product(&self, unit: u32, query: &[f32]) -> Result<Option<f32>, Error> {
        let mut products = Vec::with_capacity(1);
        self.products(unit..unit.saturating_add(1), query, &mut products)?;
        self.check(unit)?;
        Ok(products.first().map(|(_, product)| *product))
    }

    /// Adds the products of `query` with the vectors of those of `units` that have one, by unit. Whether a row is as it
    /// was written is not looked at: [`check`](Self::check) does that, for the few that matter.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] for a query of another number of dimensions.
    pub fn products(
        &self,
        units: Range<u32>,
        query: &[f32],
        products: &mut Vec<(u32, f32)>,
    ) -> Result<(), Error> {
        let mut one = Vec::with_capacity(1);
        for unit in units {
            if let Some((row, scale, _)) = self.place(unit) {
                one.clear();
                dot_rows(query, row, &[0], &mut one)?;
                products.extend(one.first().map(|product| (unit, product * scale)));
            }
        }
        Ok(())
    }

    /// Whether the vector of `unit`, if it has one, is as it was written.
    ///
    /// # Errors
    ///
    /// [`Error::Rows`] when it is not.
    pub fn check(&self, unit: u32) -> Result<(), Error> {
        self.find(unit).map(drop)
    }

    /// How alike the vectors of `units` are, each with each: their cosines, row by row. A unit without a vector
    /// is like nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Rows`] when a stored row is damaged.
    pub fn likeness(&self, units: &[u32]) -> Result<Vec<Vec<f32>>, Error> {
        let mut rows = Vec::with_capacity(units.len() * self.shape.dims);
        let mut scales = Vec::with_capacity(units.len());
        for unit in units {
            match self.find(*unit)? {
                Some((row, scale)) => {
                    rows.extend_from_slice(row);
                    scales.push(scale);
                }
                None => {
                    rows.resize(rows.len() + self.shape.dims, 0);
                    scales.push(0.0);
                }
            }
        }
        let all: Vec<u32> = (0..).take(units.len()).collect();
        let mut like = vec![vec![0.0; units.len()]; units.len()];
        let mut products = Vec::with_capacity(all.len());
        // Each pair once: what the first is to the second, the second is to the first.
        for (one, (row, scale)) in rows.chunks_exact(self.shape.dims).zip(&scales).enumerate() {
            let query: Vec<f32> = row.iter().map(|&byte| f32::from(byte.cast_signed()) * scale).collect();
            products.clear();
            dot_rows(&query, &rows, all.get(one..).unwrap_or_default(), &mut products)?;
            for ((other, product), scale) in (one..).zip(&products).zip(scales.iter().skip(one)) {
                for (row, column) in [(one, other), (other, one)] {
                    if let Some(place) = like.get_mut(row).and_then(|row| row.get_mut(column)) {
                        *place = product * scale;
                    }
                }
            }
        }
        Ok(like)
    }

    /// The vector of `unit`, as it was written.
    fn find(&self, unit: u32) -> Result<Option<(&[u8], f32)>, Error> {
        match self.place(unit) {
            Some((row, scale, None)) => Ok(Some((row, scale))),
            Some((_, _, Some((segment, position)))) => {
                let damaged = || Error::Rows { path: segment.file().to_owned(), units: vec![unit] };
                segment.checked_row(position).ok_or_else(damaged).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The row and scale of `unit`, and where they lie on disk if they do.
    fn place(&self, unit: u32) -> Option<Placed<'_>> {
        let frozen = self.frozen.as_ref().filter(|frozen| !frozen.dead.contains(unit));
        let waiting = self.tail.get(unit).or_else(|| frozen.and_then(|frozen| frozen.rows.get(unit)));
        if let Some((row, scale)) = waiting {
            return Some((row, scale, None));
        }
        self.parts.iter().filter(|part| !part.dead.contains(unit)).find_map(|Part { segment, .. }| {
            let position = segment.position(unit)?;
            Some((segment.row(position)?, segment.scale(position)?, Some((&**segment, position))))
        })
    }

    /// Vectors in the store.
    pub fn len(&self) -> u64 {
        let frozen = self.frozen.as_ref().map_or(0, |f| (f.rows.len() as u64).saturating_sub(f.dead.len()));
        self.parts.iter().map(Part::live).sum::<u64>() + frozen + self.tail.len() as u64
    }

    /// Whether the store has no vector.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Vectors that only memory holds; a good measure of when to seal.
    pub fn unsealed(&self) -> usize {
        self.tail.len() + self.frozen.as_ref().map_or(0, |frozen| frozen.rows.len())
    }

    /// Segment files of the store.
    pub fn segments(&self) -> usize {
        self.parts.len()
    }

    /// Bytes of all segment files.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.segment.bytes()).sum()
    }

    /// The position in the caller's log that the last seal covers; 0 in a new store.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// Says that the store has seen the caller's log up to `mark`; the next seal keeps that.
    pub fn set_mark(&mut self, mark: u64) {
        self.mark = mark;
    }

    /// Sets how many vectors a search rescores exactly; more find more of the true best and take longer.
    pub fn set_candidates(&mut self, candidates: usize) {
        self.candidates = candidates.max(1);
    }

    /// Units whose vectors went missing with a damaged file and were neither pushed nor removed since. Units
    /// that never had a vector may be among them; [`remove`](Self::remove) strikes them off. Kept by seals.
    pub fn lost(&self) -> Vec<RangeInclusive<u32>> {
        ranges(&self.lost)
    }

    /// What was found damaged since the store was opened. An entry without units means that the manifest was
    /// unusable and the store began empty: everything has to be pushed again.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Reads every byte of the segments and compares it with the checksums. Units with damaged rows become
    /// [`lost`](Self::lost) and no longer appear in searches; their ranges are returned.
    pub fn verify(&mut self) -> Vec<RangeInclusive<u32>> {
        let mut bad = RoaringBitmap::new();
        for part in &mut self.parts {
            let mut units = part.segment.damaged_rows();
            units -= &part.dead;
            if let (Some(first), Some(last)) = (units.min(), units.max()) {
                let path = part.segment.file().to_owned();
                let cause = Error::Rows { path: path.clone(), units: units.iter().take(16).collect() };
                self.damage.push(Damage { path, units: Some(first..=last), cause });
            }
            part.dead |= &units;
            bad |= units;
        }
        self.lost |= &bad;
        ranges(&bad)
    }
}

/// The runs of consecutive units in `units`.
fn ranges(units: &RoaringBitmap) -> Vec<RangeInclusive<u32>> {
    let mut runs: Vec<RangeInclusive<u32>> = Vec::new();
    for unit in units {
        match runs.last_mut() {
            Some(run) if run.end().checked_add(1) == Some(unit) => *run = *run.start()..=unit,
            _ => runs.push(unit..=unit),
        }
    }
    runs
}

#[cfg(test)]
mod tests;
