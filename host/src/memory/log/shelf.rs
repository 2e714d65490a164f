//! Which entries lie where: kept in memory, a few bytes for every 64 KiB of log.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::record::NodeId;
use super::error::Gap;

/// Runs are cut when they get this long, in bytes, so that reading one is cheap.
const RUN_BYTES: u64 = 64 << 10;

/// Where an entry lies. Holds as long as this log stays open, also across [`super::Log::erase`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file, by the number it has while the log is open.
    pub segment: u32,
    /// The length of the entry, in bytes.
    pub len: u32,
    /// Where its frame starts in the file, in bytes.
    pub offset: u64,
}

/// An open file of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) origin: NodeId,
    /// The first sequence, as its name says.
    pub(super) first: u64,
}

/// Entries that follow one another both in sequence and in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) segment: u32,
    pub(super) offset: u64,
    pub(super) end: u64,
}

/// All files and runs.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) segments: Vec<Arc<Segment>>,
    /// The runs of each machine, by their first sequence; none overlap.
    pub(super) runs: BTreeMap<NodeId, Vec<Run>>,
}

impl Shelf {
    /// Adds a file and returns its number.
    pub(super) fn add(&mut self, segment: Segment) -> u32 {
        let number = u32::try_from(self.segments.len()).unwrap_or(u32::MAX);
        self.segments.push(Arc::new(segment));
        number
    }

    /// The file of a number.
    pub(super) fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.segments.get(usize::try_from(number).ok()?).cloned()
    }

    /// Notes one entry; a sequence that is known already is left out and `false` returned.
    pub(super) fn note(&mut self, origin: NodeId, sequence: u64, at: Location) -> bool {
        let end = at.offset.saturating_add(super::frame::FRAME as u64).saturating_add(u64::from(at.len));
        let runs = self.runs.entry(origin).or_default();
        let place = runs.partition_point(|run| run.first <= sequence);
        if let Some(run) = place.checked_sub(1).and_then(|before| runs.get_mut(before)) {
            if sequence <= run.last {
                return false;
            }
            let follows = run.last.saturating_add(1) == sequence && run.segment == at.segment;
            if follows && run.end == at.offset && end.saturating_sub(run.offset) <= RUN_BYTES {
                run.last = sequence;
                run.end = end;
                return true;
            }
        }
        let run = Run { first: sequence, last: sequence, segment: at.segment, offset: at.offset, end };
        runs.insert(place, run);
        true
    }

    /// The file that holds an entry.
    pub(super) fn holder(&self, origin: NodeId, sequence: u64) -> Option<u32> {
        let runs = self.runs.get(&origin)?;
        let before = runs.partition_point(|run| run.first <= sequence).checked_sub(1)?;
        runs.get(before).filter(|run| sequence <= run.last).map(|run| run.segment)
    }

    /// Whether an entry is here.
    pub(super) fn has(&self, origin: NodeId, sequence: u64) -> bool {
        self.holder(origin, sequence).is_some()
    }

    /// The highest sequence of a machine; 0 without any.
    pub(super) fn highest(&self, origin: NodeId) -> u64 {
        self.runs.get(&origin).and_then(|runs| runs.last()).map_or(0, |run| run.last)
    }

    /// For each machine the sequence up to which everything is here.
    pub(super) fn version_vector(&self) -> BTreeMap<NodeId, u64> {
        let contiguous = |runs: &[Run]| {
            runs.iter()
                .try_fold(
                    0_u64,
                    |last, run| if run.first == last.saturating_add(1) { Ok(run.last) } else { Err(last) },
                )
                .unwrap_or_else(|last| last)
        };
        self.runs.iter().map(|(origin, runs)| (*origin, contiguous(runs))).collect()
    }

    /// Where the last entry of a file ends to which entries may still be appended; `None` for other files.
    pub(super) fn growing_end(&self, segment: u32) -> Option<u64> {
        let run = self.runs.values().find_map(|runs| runs.last().filter(|run| run.segment == segment))?;
        Some(run.end)
    }

    /// What is missing before what is here.
    pub(super) fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for (origin, runs) in &self.runs {
            let mut next = 1_u64;
            for run in runs {
                if run.first > next {
                    gaps.push(Gap { origin: *origin, first: next, last: run.first.saturating_sub(1) });
                }
                next = run.last.saturating_add(1);
            }
        }
        gaps
    }
}
