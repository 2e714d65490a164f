//! Comparing all that two machines have: by sums over ranges, halved where they differ until the entry is found.
//!
//! A difference in number means that something is missing on one side, which the ordinary exchange brings. The same
//! number with different sums means that one number stands for two entries: a key is used by two machines.

use super::super::record::NodeId;
use super::{
    catalogue::{Catalogue, Sum},
    message::{AuditRow, MAX_ROWS},
    runs::Run,
    scope::Reach,
};

/// Parts that a range is cut into.
const PARTS: u64 = 16;
/// Entries that are added up for one message at most.
const MAX_SUMMED: u64 = 1 << 22;

/// What a comparison found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Entries that differ.
    pub(super) forks: Vec<(NodeId, u64)>,
    /// Whether one side lacks something.
    pub(super) missing: bool,
    /// Our sums over parts of ranges that differ.
    pub(super) closer: Vec<AuditRow>,
}

/// The sums to begin with: over all entries of each machine that are within reach, project by project where that is not
/// everything.
pub(super) fn opening(catalogue: &Catalogue, reach: &Reach) -> Vec<Vec<AuditRow>> {
    let projects: Vec<Option<String>> = match reach {
        Reach::All => vec![None],
        Reach::Projects(names) => names.iter().cloned().map(Some).collect(),
    };
    let mut rows = Vec::new();
    for origin in catalogue.origins() {
        let run = Run { first: 1, last: catalogue.next(origin).saturating_sub(1).max(1) };
        for project in &projects {
            let sum = catalogue.sum(origin, run, &only(project.as_ref()));
            if sum.count > 0 {
                rows.push(AuditRow::new(origin, run, project.clone(), sum));
            }
        }
    }
    rows.chunks(MAX_ROWS / 2).map(<[_]>::to_vec).collect()
}

/// Compares sums of a peer with ours.
pub(super) fn compare(catalogue: &Catalogue, rows: &[AuditRow], reach: &Reach) -> Found {
    let mut found = Found::default();
    let mut summed = 0_u64;
    for row in rows {
        let allowed = match &row.project {
            None => *reach == Reach::All,
            Some(name) => reach.covers(Some(name)),
        };
        let run = Run { first: row.first.max(1), last: row.last };
        if !allowed || run.last < run.first {
            continue;
        }
        let within = only(row.project.as_ref());
        let run = Run { first: run.first, last: run.last.min(catalogue.next(row.origin).max(run.first)) };
        let ours = catalogue.sum(row.origin, run, &within);
        summed = summed.saturating_add(ours.count);
        if summed > MAX_SUMMED {
            break;
        }
        if ours == row.sum() {
            continue;
        }
        if ours.count != row.count {
            found.missing = true;
        } else if run.first == run.last {
            found.forks.push((row.origin, run.first));
        } else if found.closer.len() < MAX_ROWS / 2 {
            let parts = parts(run).map(|part| (part, catalogue.sum(row.origin, part, &within)));
            let parts = parts.filter(|(_, sum)| *sum != Sum::default());
            found
                .closer
                .extend(parts.map(|(part, sum)| AuditRow::new(row.origin, part, row.project.clone(), sum)));
        }
    }
    found
}

/// A range in parts.
fn parts(run: Run) -> impl Iterator<Item = Run> {
    let step = run.len().div_ceil(PARTS).max(1);
    let starts = (0..PARTS).map_while(move |part| run.first.checked_add(step.checked_mul(part)?));
    starts
        .take_while(move |first| *first <= run.last)
        .map(move |first| Run { first, last: first.saturating_add(step - 1).min(run.last) })
}

fn only(project: Option<&String>) -> Reach {
    project.map_or(Reach::All, |name| Reach::Projects([name.clone()].into()))
}
