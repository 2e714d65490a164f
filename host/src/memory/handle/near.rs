//! Records that say nearly the same as a new one, by the words they share.

use std::collections::HashSet;

use crate::memory::{
    digest::digest,
    engine::Engine,
    lexicon::{Asked, Bm25},
    record::RecordId,
    text::Analyzer,
    writer::Prepared,
};

/// Share of all distinct terms that two records must have in common (Jaccard's index).
const ALIKE: f32 = 0.8;
/// Records that are compared.
const CANDIDATES: usize = 8;
/// The rarest terms of the new text look for candidates.
const TERMS: usize = 12;
/// Postings read at most: a write must not wait for a look at a large part of the index.
const POSTINGS: u32 = 50_000;

/// Living records of the same project that share most of their words with the draft.
pub(super) fn find(engine: &Engine, prepared: &Prepared) -> Vec<RecordId> {
    let mine: HashSet<_> = prepared.digested.record.terms().collect();
    let found: Vec<u32> = {
        let state = engine.read();
        let mut rare: Vec<_> = mine.iter().map(|term| (state.records.frequency(*term), *term)).collect();
        rare.retain(|(frequency, _)| *frequency > 0);
        rare.sort_unstable();
        let mut read = 0;
        rare.retain(|(frequency, _)| {
            read += frequency;
            read <= POSTINGS
        });
        let terms: Vec<_> = rare.iter().take(TERMS).map(|(_, term)| Asked::from(*term)).collect();
        let mut best: Vec<(u32, f32)> = Vec::new();
        state.records.rank(&terms, Bm25::default(), |found| {
            let living = found.iter().filter(|(ordinal, _)| state.table.live().contains(*ordinal));
            best.extend(living);
            best.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            best.truncate(CANDIDATES);
            best.get(CANDIDATES - 1).map_or(0.0, |(_, score)| *score)
        });
        best.into_iter().map(|(ordinal, _)| ordinal).collect()
    };
    let mut analyzer = Analyzer::default();
    let alike = |ordinal: &u32| -> Option<RecordId> {
        let version = engine.version_of(*ordinal).ok()?;
        if version.header.project != prepared.draft.project {
            return None;
        }
        let theirs: HashSet<_> = digest(&mut analyzer, version.body.as_deref()?).record.terms().collect();
        let shared = mine.intersection(&theirs).count() as f32;
        let all = mine.union(&theirs).count() as f32;
        (all > 0.0 && shared / all >= ALIKE).then_some(version.header.id)
    };
    found.iter().filter_map(alike).collect()
}
