//! Finding the vectors nearest to a query.
//!
//! The codes of all large segments are scanned for the candidates that lie nearest by weighted distance.
//! These and all vectors of small segments and of the tail are then compared exactly.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use roaring::RoaringBitmap;

use potluck_kernels::scan::{GROUP, Hit, SignQuery, dot_rows, group_bytes, scan_codes};

use super::error::Error;
use super::segment::Segment;
use super::{Part, Store};

/// A filter that allows at most this many units is compared exactly, without a scan.
const DIRECT: u64 = 20_000;

/// Segments with at most this many vectors are compared exactly: their codes lie around a mean of few.
const SMALL: u32 = 1024;

/// Vectors from which on a search uses more than one thread: their codes are some megabytes.
const PARALLEL: u64 = 60_000;

/// Groups of codes between two looks at the limit: 2,048 codes.
const CHUNK: usize = 256;

/// Vectors that one thread compares exactly in the time that another takes to start.
const ALONE: usize = 4096;

/// For each result that is asked for, at least this many candidates are compared.
const PER_RESULT: usize = 4;

/// A vector that was compared exactly.
#[derive(Clone, Copy, Debug)]
struct Found {
    score: f32,
    unit: u32,
    /// The segment and the position in it, for vectors that lie on disk.
    place: Option<(u32, u32)>,
}

/// A code that lies near enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    part: u32,
    position: u32,
    key: u32,
}

/// A search that several threads may work on at once.
#[derive(Debug)]
pub struct Search<'a> {
    store: &'a Store,
    query: Vec<f32>,
    limit: usize,
    /// What lies in memory, compared already.
    found: Vec<Found>,
    /// What is compared without a scan.
    chosen: Vec<Candidate>,
    scan: Option<Scan<'a>>,
}

impl Search<'_> {
    /// Whether a second thread is worth its start.
    pub fn is_large(&self) -> bool {
        self.scan.is_some() && self.store.len() > PARALLEL
    }

    /// Scans until nothing is left to scan. Threads that call it together share the work; one that comes later
    /// takes a part of what is left.
    pub fn work(&self) {
        if let Some(scan) = &self.scan {
            scan.work();
        }
    }

    /// What was found, once all threads are back from [`Search::work`]. At most so many threads compare.
    ///
    /// # Errors
    ///
    /// As [`Store::search`].
    pub fn finish(self, threads: usize) -> Result<Vec<(u32, f32)>, Error> {
        let Self { store, query, limit, mut found, mut chosen, scan } = self;
        if let Some(scan) = scan {
            chosen.extend(scan.finish()?);
        }
        chosen.sort_unstable();
        found.extend(store.compare(&query, &chosen, threads)?);
        store.best(found, limit)
    }
}

impl Store {
    /// The `limit` units whose vectors lie nearest to `query`, with their cosines, the nearest first and
    /// equal ones by unit. With `allow`, only units in it are found. Large stores are searched on up to
    /// `threads` threads; their number does not change the result.
    ///
    /// A score is exact for the vector as stored. Beyond some thousand vectors the choice of what to compare
    /// is not, so that now and then one of the nearest is missed; see [`Store::set_candidates`].
    ///
    /// # Errors
    ///
    /// [`Error::Query`] for a query of another number of dimensions or without a direction, [`Error::Rows`]
    /// when a row that would be a result is damaged: [`Store::verify`] then takes such rows out.
    pub fn search(
        &self,
        query: &[f32],
        limit: usize,
        allow: Option<&RoaringBitmap>,
        threads: usize,
    ) -> Result<Vec<(u32, f32)>, Error> {
        let search = self.begin(query, limit, allow)?;
        let threads = if search.is_large() { threads.max(1) } else { 1 };
        on_threads(threads, |_| search.work());
        search.finish(threads)
    }

    /// Prepares what [`Store::search`] does, for callers that have threads to work on it.
    ///
    /// # Errors
    ///
    /// [`Error::Query`].
    pub fn begin<'a>(
        &'a self,
        query: &[f32],
        limit: usize,
        allow: Option<&'a RoaringBitmap>,
    ) -> Result<Search<'a>, Error> {
        let query = self.normalised(query)?;
        let mut found = Vec::new();
        self.search_tails(&query, allow, &mut found)?;
        let keep = self.candidates.max(limit.saturating_mul(PER_RESULT));
        let direct = allow.is_some_and(|allow| allow.len() <= DIRECT);
        let (scanned, compared): (Vec<_>, Vec<_>) = (0u32..)
            .zip(&self.parts)
            .partition(|(_, part)| !direct && part.segment.count() > SMALL && part.live() > keep as u64);
        let mut chosen = Vec::new();
        for (number, part) in compared {
            let all = positions(part, allow);
            chosen.extend(all.map(|position| Candidate { part: number, position, key: 0 }));
        }
        let scan =
            if scanned.is_empty() { None } else { Some(Scan::new(self, &query, scanned, allow, keep)?) };
        Ok(Search { store: self, query, limit, found, chosen, scan })
    }

    fn normalised(&self, query: &[f32]) -> Result<Vec<f32>, Error> {
        let norm = query.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if query.len() != self.shape.dims || !norm.is_finite() || norm == 0.0 {
            return Err(Error::Query { len: query.len(), dims: self.shape.dims });
        }
        Ok(query.iter().map(|value| (f64::from(*value) / norm) as f32).collect())
    }

    /// Compares the query with all that only memory holds.
    fn search_tails(
        &self,
        query: &[f32],
        allow: Option<&RoaringBitmap>,
        found: &mut Vec<Found>,
    ) -> Result<(), Error> {
        let none = RoaringBitmap::new();
        let frozen = self.frozen.as_ref().map(|frozen| (&*frozen.rows, &frozen.dead));
        for (tail, dead) in frozen.into_iter().chain([(&self.tail, &none)]) {
            let counts = |unit: u32| !dead.contains(unit) && allow.is_none_or(|allow| allow.contains(unit));
            let (units, positions): (Vec<u32>, Vec<u32>) =
                tail.units().iter().copied().zip(0u32..).filter(|(unit, _)| counts(*unit)).unzip();
            let mut products = Vec::new();
            dot_rows(query, tail.rows(), &positions, &mut products)?;
            for ((unit, position), product) in units.into_iter().zip(positions).zip(products) {
                found.extend(tail.scale(position).map(|scale| Found {
                    score: product * scale,
                    unit,
                    place: None,
                }));
            }
        }
        Ok(())
    }

    /// Compares the query with the chosen vectors, which are in the order of their places.
    fn compare(&self, query: &[f32], chosen: &[Candidate], threads: usize) -> Result<Vec<Found>, Error> {
        let share = chosen.len().div_ceil(threads).max(ALONE);
        let shares: Vec<&[Candidate]> = chosen.chunks(share).collect();
        let results = on_threads(shares.len(), |number| match shares.get(number) {
            Some(share) => self.compare_here(query, share),
            None => Ok(Vec::new()),
        });
        let mut found = Vec::with_capacity(chosen.len());
        for result in results {
            found.extend(result?);
        }
        Ok(found)
    }

    fn compare_here(&self, query: &[f32], chosen: &[Candidate]) -> Result<Vec<Found>, Error> {
        let mut found = Vec::with_capacity(chosen.len());
        let (mut places, mut products) = (Vec::new(), Vec::new());
        for run in chosen.chunk_by(|a, b| a.part == b.part) {
            let number = run.first().map_or(0, |candidate| candidate.part);
            let Some(Part { segment, .. }) = self.parts.get(number as usize) else { continue };
            places.clear();
            products.clear();
            places.extend(run.iter().map(|candidate| candidate.position));
            dot_rows(query, segment.rows(), &places, &mut products)?;
            for (&position, product) in places.iter().zip(&products) {
                if let (Some(unit), Some(scale)) = (segment.unit(position), segment.scale(position)) {
                    found.push(Found { score: product * scale, unit, place: Some((number, position)) });
                }
            }
        }
        Ok(found)
    }

    /// The best `limit` of what was found, after a look at their checksums.
    fn best(&self, mut found: Vec<Found>, limit: usize) -> Result<Vec<(u32, f32)>, Error> {
        let order = |a: &Found, b: &Found| b.score.total_cmp(&a.score).then(a.unit.cmp(&b.unit));
        if limit < found.len() {
            found.select_nth_unstable_by(limit, order);
            found.truncate(limit);
        }
        found.sort_unstable_by(order);
        for (unit, (number, position)) in found.iter().filter_map(|f| Some((f.unit, f.place?))) {
            if let Some(Part { segment, .. }) = self.parts.get(number as usize)
                && segment.checked_row(position).is_none()
            {
                return Err(Error::Rows { path: segment.file().to_owned(), units: vec![unit] });
            }
        }
        Ok(found.into_iter().map(|found| (found.unit, found.score)).collect())
    }
}

/// Where the vectors of a segment are that count and are allowed.
fn positions<'a>(part: &'a Part, allow: Option<&'a RoaringBitmap>) -> Box<dyn Iterator<Item = u32> + 'a> {
    let live = |unit: &u32| !part.dead.contains(*unit);
    match allow {
        Some(allow) if allow.len() < u64::from(part.segment.count()) => {
            Box::new(allow.iter().filter(live).filter_map(|unit| part.segment.position(unit)))
        }
        _ => {
            let allowed = move |unit: &u32| allow.is_none_or(|allow| allow.contains(*unit));
            let counting = move |(unit, _): &(u32, u32)| live(unit) && allowed(unit);
            Box::new(part.segment.units().zip(0u32..).filter(counting).map(|(_, position)| position))
        }
    }
}

/// A segment to scan.
#[derive(Debug)]
struct Scanned<'a> {
    number: u32,
    segment: &'a Segment,
    dead: &'a RoaringBitmap,
    /// How a distance in this segment becomes a key that compares with those of the others:
    /// `bias + ratio · distance`.
    bias: f32,
    ratio: f32,
}

impl Scanned<'_> {
    fn key(&self, distance: u32) -> u32 {
        (self.bias + self.ratio * distance as f32) as u32
    }

    /// The largest distance whose key may be within `limit`, if any.
    fn distance(&self, limit: u32) -> Option<u32> {
        let room = (f64::from(limit) + 1.0 - f64::from(self.bias)) / f64::from(self.ratio);
        (room >= 0.0).then_some(room as u32)
    }
}

/// A scan of the codes of large segments.
#[derive(Debug)]
struct Scan<'a> {
    query: SignQuery,
    group: usize,
    parts: Vec<Scanned<'a>>,
    allow: Option<&'a RoaringBitmap>,
    keep: usize,
    /// Keys are below this.
    keys: usize,
    /// All chunks of all segments.
    chunks: usize,
    /// The next one to scan.
    next: AtomicUsize,
    /// What each thread found.
    shares: Mutex<Vec<Result<Selection, Error>>>,
}

impl<'a> Scan<'a> {
    fn new(
        store: &'a Store,
        query: &[f32],
        parts: Vec<(u32, &'a Part)>,
        allow: Option<&'a RoaringBitmap>,
        keep: usize,
    ) -> Result<Self, Error> {
        let mut rotated = query.to_vec();
        store.rotation.apply(&mut rotated);
        let query_codes = SignQuery::new(&rotated)?;
        let reach = parts.iter().map(|(_, part)| part.segment.reach()).fold(f32::MIN_POSITIVE, f32::max);
        let sums: f32 = rotated.iter().map(|value| value.abs()).sum();
        // A cosine is about its segment's mean · query + reach · (sums − 2 · step · distance).
        let unit = 2.0 * query_codes.step() * reach;
        let height = |part: &Part| {
            let mean: f32 = part.segment.mean().iter().zip(query).map(|(a, b)| a * b).sum();
            mean + part.segment.reach() * sums
        };
        let top = parts.iter().map(|(_, part)| height(part)).fold(f32::NEG_INFINITY, f32::max);
        let most = query_codes.max_distance();
        let scanned = parts.iter().map(|(number, part)| Scanned {
            number: *number,
            segment: &part.segment,
            dead: &part.dead,
            bias: ((top - height(part)) / unit).clamp(0.0, most as f32),
            ratio: (part.segment.reach() / reach).clamp(1e-3, 1.0),
        });
        let group = group_bytes(query.len());
        let mut scan = Self {
            parts: scanned.collect(),
            query: query_codes,
            group,
            allow,
            keep,
            keys: most as usize * 2 + 2,
            chunks: 0,
            next: AtomicUsize::new(0),
            shares: Mutex::new(Vec::new()),
        };
        scan.chunks = scan.parts.iter().map(|part| scan.chunks_of(part)).sum();
        Ok(scan)
    }

    /// The candidates: the `keep` nearest codes, and those as near as the last of them.
    fn finish(mut self) -> Result<Vec<Candidate>, Error> {
        // What nobody has scanned yet, which is nothing unless nobody worked.
        self.work();
        let mut all = Selection::new(self.keep, self.keys);
        let shares = self.shares.get_mut().unwrap_or_else(PoisonError::into_inner);
        for selection in shares.drain(..) {
            let selection = selection?;
            all.candidates.extend(selection.candidates);
            all.counts.iter_mut().zip(&selection.counts).for_each(|(all, count)| *all += count);
        }
        all.tighten();
        Ok(all.candidates)
    }

    /// Scans chunks until none is left.
    fn work(&self) {
        let mut chunk = self.next.fetch_add(1, Ordering::Relaxed);
        if chunk >= self.chunks {
            return;
        }
        let mut selection = Selection::new(self.keep, self.keys);
        let scanned = self.scan_share(&mut chunk, &mut selection).map(|()| selection);
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).push(scanned);
    }

    fn scan_share(&self, chunk: &mut usize, selection: &mut Selection) -> Result<(), Error> {
        let mut hits = Vec::new();
        let mut before = 0;
        for part in &self.parts {
            let codes = part.segment.codes();
            let chunks = self.chunks_of(part);
            while *chunk < before + chunks {
                let start = (*chunk - before) * CHUNK;
                let end = (start + CHUNK) * self.group;
                let bytes = codes.get(start * self.group..end.min(codes.len())).unwrap_or_default();
                if let Some(distance) = part.distance(selection.limit) {
                    hits.clear();
                    scan_codes(&self.query, bytes, distance, &mut hits)?;
                    self.select(part, start * GROUP, &hits, selection);
                }
                *chunk = self.next.fetch_add(1, Ordering::Relaxed);
            }
            before += chunks;
        }
        Ok(())
    }

    fn chunks_of(&self, part: &Scanned<'_>) -> usize {
        part.segment.codes().len().div_ceil(CHUNK * self.group)
    }

    fn select(&self, part: &Scanned<'_>, start: usize, hits: &[Hit], selection: &mut Selection) {
        let unfiltered = part.dead.is_empty() && self.allow.is_none();
        for hit in hits {
            let position = start as u32 + hit.position;
            let key = part.key(hit.distance);
            // The last group is filled up with codes of no vector, which have no unit.
            let Some(unit) = part.segment.unit(position) else { continue };
            let counts = || !part.dead.contains(unit) && self.allow.is_none_or(|allow| allow.contains(unit));
            if key <= selection.limit && (unfiltered || counts()) {
                selection.add(Candidate { part: part.number, position, key });
            }
        }
        if selection.candidates.len() >= self.keep + self.keep / 2 {
            selection.tighten();
        }
    }
}

/// The nearest candidates so far.
#[derive(Debug)]
struct Selection {
    keep: usize,
    /// Candidates with each key.
    counts: Vec<u32>,
    candidates: Vec<Candidate>,
    /// Larger keys cannot be among the nearest any more.
    limit: u32,
}

impl Selection {
    fn new(keep: usize, keys: usize) -> Self {
        let limit = keys.saturating_sub(1) as u32;
        Self { keep, counts: vec![0; keys], candidates: Vec::new(), limit }
    }

    fn add(&mut self, candidate: Candidate) {
        if let Some(count) = self.counts.get_mut(candidate.key as usize) {
            *count += 1;
            self.candidates.push(candidate);
        }
    }

    /// Lowers the limit to the smallest key within which there are enough candidates, and drops the others.
    fn tighten(&mut self) {
        let mut within = 0;
        for (key, count) in (0u32..).zip(&mut self.counts) {
            if within >= self.keep {
                *count = 0;
                continue;
            }
            within += *count as usize;
            if within >= self.keep {
                self.limit = key;
            }
        }
        let limit = self.limit;
        self.candidates.retain(|candidate| candidate.key <= limit);
    }
}

/// Runs `job(0..threads)` and returns the results in order. A thread that does not start is done without.
fn on_threads<T: Send>(threads: usize, job: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if threads <= 1 {
        return (0..threads).map(job).collect();
    }
    let numbers = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(threads));
    let work = || loop {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        if number >= threads {
            break;
        }
        let result = job(number);
        results.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if std::thread::Builder::new().name("vectors".to_owned()).spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}
