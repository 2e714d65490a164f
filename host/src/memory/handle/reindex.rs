//! Every index anew from the log, while the memory goes on answering.

use std::{
    fs,
    sync::{Arc, PoisonError},
};

use tokio::sync::mpsc;

use crate::memory::{
    MemoryError,
    digest::digest,
    engine::{Engine, Part, path},
    keyword::{Document, Keyword},
    lexicon::Lexicon,
    record::Millis,
    text::Analyzer,
};

/// Versions that are read between two reports.
const STEP: u32 = 2_000;

/// Rebuilds the postings and the text index; vectors come from the log at the next start. Reports (done, all).
pub(super) fn reindex(engine: Arc<Engine>) -> mpsc::Receiver<Result<(u64, u64), MemoryError>> {
    let (send, receive) = mpsc::channel(64);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = rebuild(&engine, &send) {
            let _ = send.blocking_send(Err(error));
        }
    });
    receive
}

type Report = mpsc::Sender<Result<(u64, u64), MemoryError>>;

fn rebuild(engine: &Engine, report: &Report) -> Result<(), MemoryError> {
    let mut analyzer = Analyzer::default();
    let (mut records, mut passages) = (Lexicon::default(), Lexicon::default());
    let folder = path(&engine.folder, Part::Index).join("text.new");
    let _ = fs::remove_dir_all(&folder);
    let fresh = Keyword::open(&folder)?;
    let mut next = 0;
    loop {
        let len = engine.read().table.len();
        let upto = len.min(next + STEP);
        let mut documents = Vec::new();
        for ordinal in next..upto {
            let Some(row) = engine.read().table.row(ordinal).cloned() else { continue };
            let version = engine.version_of(ordinal)?;
            let text = version.body.unwrap_or_default();
            let mut digested = digest(&mut analyzer, &text);
            digested.passages.resize_with(usize::from(row.parts.passages), Default::default);
            records.push(ordinal, &digested.record);
            for (passage, counts) in (row.first_passage..).zip(&digested.passages) {
                passages.push(passage, counts);
            }
            if !row.tombstone && !row.erased {
                let header = version.header;
                documents.push(Document {
                    ordinal,
                    text,
                    kind: header.kind,
                    project: header.project,
                    tags: header.tags,
                    at: Millis(row.at),
                });
            }
        }
        fresh.add(&documents)?;
        next = upto;
        // A reader that went away does not stop the work half-way.
        let _ = report.blocking_send(Ok((u64::from(next), u64::from(len))));
        let mut state = engine.write();
        if state.table.len() == next {
            state.records = records;
            state.passages = passages;
            *engine.keyword.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
            return Ok(());
        }
    }
}
