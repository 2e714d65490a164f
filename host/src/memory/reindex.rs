//! Every index of words anew from the log, while the memory goes on answering.
//!
//! It happens when it is asked for, and after texts were erased: words of theirs must not stay behind in an index.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc;

use super::{
    MemoryError,
    digest::digest,
    engine::{DIMS, Engine, Part, path, spare},
    keyword::{Document, Keyword},
    lexicon::Lexicon,
    marks::Marks,
    record::Millis,
    text::Analyzer,
    vectors::Store,
    vocabulary::Vocabulary,
};

/// Versions that are read between two reports.
const STEP: u32 = 2_000;

/// Rebuilds the postings, the vocabulary, the marks and the text index. Reports (done, all).
pub(super) fn reindex(engine: Arc<Engine>) -> mpsc::Receiver<Result<(u64, u64), MemoryError>> {
    let (send, receive) = mpsc::channel(64);
    tokio::task::spawn_blocking(move || {
        // A reader that went away does not stop the work half-way.
        let outcome = rebuild(&engine, |done, all| {
            let _ = send.blocking_send(Ok((done, all)));
            true
        });
        if let Err(error) = outcome {
            let _ = send.blocking_send(Err(error));
        }
    });
    receive
}

/// The indexes of words as they are being rebuilt.
struct Fresh {
    analyzer: Analyzer,
    records: Lexicon,
    passages: Lexicon,
    vocabulary: Vocabulary,
    marks: Marks,
    keyword: Arc<Keyword>,
    next: u32,
}

impl Fresh {
    /// Takes in the next versions, up to `upto`.
    fn step(&mut self, engine: &Engine, upto: u32) -> Result<(), MemoryError> {
        let mut documents = Vec::new();
        for ordinal in self.next..upto {
            let Some(row) = engine.read().table.row(ordinal).cloned() else { continue };
            let version = engine.version_of(ordinal)?;
            let mut digested = digest(&mut self.analyzer, version.body.as_deref().unwrap_or_default());
            // An erased text keeps its numbers, so that those after it stay what they are.
            digested.passages.resize_with(usize::from(row.parts.passages), Default::default);
            self.records.push(ordinal, &digested.record);
            for (passage, counts) in (row.first_passage..).zip(&digested.passages) {
                self.passages.push(passage, counts);
            }
            self.marks.push(row.parts, &digested.marks);
            digested.words.iter().for_each(|(term, word)| self.vocabulary.add(*term, word));
            documents.extend(Document::of(ordinal, version, Millis(row.at)));
        }
        self.next = upto;
        Ok(self.keyword.add(&documents)?)
    }
}

/// Rebuilds, and calls `report` with (versions done, versions in all) as it goes; what is begun is dropped when it
/// says that it is enough, or when something is erased meanwhile: then the keeper rebuilds once more.
pub(super) fn rebuild(engine: &Engine, report: impl Fn(u64, u64) -> bool) -> Result<(), MemoryError> {
    static BUILT: AtomicU64 = AtomicU64::new(0);
    let _keeping = engine.keeping.lock().unwrap_or_else(PoisonError::into_inner);
    let next_spare = || spare(&engine.folder, BUILT.fetch_add(1, Ordering::Relaxed));
    let folder = next_spare();
    let mut fresh = Fresh {
        analyzer: Analyzer::default(),
        records: Lexicon::default(),
        passages: Lexicon::default(),
        vocabulary: Vocabulary::default(),
        marks: Marks::default(),
        keyword: Arc::new(Keyword::open(&folder)?),
        next: 0,
    };
    let erased = engine.read().table.erasures();
    loop {
        let len = engine.read().table.len();
        let upto = len.min(fresh.next + STEP);
        fresh.step(engine, upto)?;
        let enough = !report(u64::from(upto), u64::from(len));
        if enough || engine.read().table.erasures() != erased {
            drop(fresh);
            let _ = fs::remove_dir_all(&folder);
            return Ok(());
        }
        if upto == len
            && let Some(old) = finish(engine, &mut fresh, (&folder, next_spare()), erased)?
        {
            let _ = fs::remove_dir_all(&old);
            return Ok(());
        }
    }
}

/// Puts what was rebuilt in its place, unless something came meanwhile; gives the old text index's folder.
fn finish(
    engine: &Engine,
    fresh: &mut Fresh,
    (folder, old): (&Path, PathBuf),
    erased: u64,
) -> Result<Option<PathBuf>, MemoryError> {
    let mut state = engine.write();
    if state.table.len() > fresh.next || state.table.erasures() != erased {
        return Ok(None);
    }
    let io = |error: std::io::Error| MemoryError::io(folder, &error);
    let text = path(&engine.folder, Part::Text);
    fs::rename(&text, &old).and_then(|()| fs::rename(folder, &text)).map_err(io)?;
    for part in [Part::Records, Part::Passages, Part::Marks] {
        // What is mapped stays readable until the last question about it is answered.
        let _ = fs::remove_file(path(&engine.folder, part));
    }
    state.records = std::mem::take(&mut fresh.records);
    state.passages = std::mem::take(&mut fresh.passages);
    state.marks = std::mem::take(&mut fresh.marks);
    let model = state.model.clone();
    let vocabulary = std::mem::take(&mut fresh.vocabulary);
    replace_vocabulary(engine, &mut state.vocabulary, vocabulary, model.as_deref())?;
    let keyword = Arc::clone(&fresh.keyword);
    *engine.keyword.write().unwrap_or_else(PoisonError::into_inner) = keyword;
    engine.indexed.store(fresh.next, Ordering::Release);
    engine.freshened();
    Ok(Some(old))
}

/// Puts a new list of words in the place of the old one, with the vectors of the words that both have.
fn replace_vocabulary(
    engine: &Engine,
    place: &mut Vocabulary,
    mut fresh: Vocabulary,
    model: Option<&str>,
) -> Result<(), MemoryError> {
    let (words, list) = (path(&engine.folder, Part::Words), path(&engine.folder, Part::Vocabulary));
    let known = place.shared(&fresh)?;
    place.adopt(None);
    // The list goes first: vectors without it are wiped at the next start.
    let _ = fs::remove_file(&list);
    if let Some(model) = model {
        Store::wipe(&words)?;
        let mut store = Store::open(&words, DIMS, model)?;
        for (number, row, scale) in known {
            store.push(number, &row, scale)?;
        }
        fresh.adopt(Some(store));
    }
    *place = fresh;
    Ok(())
}
