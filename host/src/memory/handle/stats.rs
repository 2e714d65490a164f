//! Counts and sizes.

use std::{collections::BTreeMap, fs, sync::atomic::Ordering};

use crate::memory::{
    Stats,
    engine::{Engine, Part, path},
    vectors::Store,
};

/// Takes stock.
pub(super) fn stats(engine: &Engine) -> Stats {
    let state = engine.read();
    let table = &state.table;
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let mut projects: BTreeMap<u32, u64> = BTreeMap::new();
    for ordinal in table.live() {
        let Some(row) = table.row(ordinal) else { continue };
        *kinds.entry(row.kind.name().to_owned()).or_default() += 1;
        *projects.entry(row.project).or_default() += 1;
    }
    let projects = projects
        .into_iter()
        .map(|(number, count)| (table.projects.name(number).unwrap_or_default().to_owned(), count))
        .collect();
    let size = |part| fs::metadata(path(&engine.folder, part)).map_or(0, |data| data.len());
    let keyword = engine.keyword();
    let stores = [&state.vectors, &state.spans, &state.vocabulary.vectors];
    let bytes = BTreeMap::from([
        ("log".to_owned(), engine.log_bytes.load(Ordering::Relaxed)),
        ("text_index".to_owned(), keyword.bytes()),
        ("postings".to_owned(), size(Part::Records) + size(Part::Passages)),
        ("vectors".to_owned(), stores.into_iter().flatten().map(Store::file_bytes).sum()),
        ("arrivals".to_owned(), size(Part::Arrivals)),
    ]);
    Stats {
        versions: u64::from(table.len()),
        live: table.live().len(),
        kinds,
        projects,
        conflicts: table.conflicts_in_all(),
        embedder: state.model.clone(),
        pending: state.pending(),
        overlay: u64::from(table.len().saturating_sub(engine.indexed.load(Ordering::Acquire))),
        bytes,
        redactions: state.redactions.clone(),
        repairs: engine.repairs.clone(),
    }
}
