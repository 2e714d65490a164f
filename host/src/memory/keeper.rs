//! What is done in the background: the text index takes new versions in groups, postings and vectors go to disk, and
//! versions without vectors get them.

use std::{
    collections::VecDeque,
    io::Write as _,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};

use crate::atomic;

use super::{
    MemoryError,
    arrivals::Arrivals,
    digest::pieces,
    embed::Lane,
    engine::{Engine, Part, State, model_name, open_vectors, path},
    keyword::Document,
    lexicon::{Lexicon, merge},
    log::Location,
    record::{Entry, Millis, RecordId, Row},
    reindex,
    vectors::Store,
    writer::Task,
};

/// How often the keeper looks whether there is something to do.
const TICK: Duration = Duration::from_millis(200);
/// Least time between two rebuilds after texts were erased.
const RETRY: Duration = Duration::from_secs(3);
/// Least time between two groups for the text index.
const PAUSE: Duration = Duration::from_secs(2);
/// Versions that the text index takes at once.
const GROUP: u32 = 4_000;
/// Versions at which the text index does not wait for its pause.
const EAGER: u32 = 1_000;
/// Postings are merged when the tail has this many texts, or a quarter of what is merged already.
const TAIL: u32 = 20_000;
/// Vectors in memory at which they are written.
const UNSEALED: usize = 16_384;
/// Pieces that are embedded at once.
const BATCH: usize = 48;
/// Words of the vocabulary that are embedded at once.
const WORDS: usize = 128;

/// Runs until `stop` is set, then brings to disk what makes the next start quick.
pub(super) fn run(engine: &Engine, arrivals: &Arrivals, stop: &AtomicBool) {
    {
        // A start that had to read texts for it spares the next one that.
        let _keeping = engine.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        note("the marks", save_marks(engine, arrivals));
    }
    let mut text = TextIndexer { done: engine.keyword().next(), last: Instant::now(), pause: PAUSE };
    let mut retry = Instant::now();
    while !stop.load(Ordering::Acquire) {
        std::thread::park_timeout(TICK);
        if engine.is_stale() && retry < Instant::now() {
            note("the indexes", cleanse(engine, arrivals, stop));
            text = TextIndexer { done: engine.keyword().next(), last: Instant::now(), pause: PAUSE };
            retry = Instant::now() + RETRY;
        }
        // While the indexes are rebuilt there is nothing to bring up to date.
        let Ok(_keeping) = engine.keeping.try_lock() else { continue };
        note("the text index", text.step(engine));
        note("the postings", merge_words(engine, arrivals, TAIL));
        note("the vectors", seal_all(engine, arrivals, UNSEALED));
    }
    let _keeping = engine.keeping.lock().unwrap_or_else(PoisonError::into_inner);
    note("the postings", merge_words(engine, arrivals, TAIL / 10));
    note("the vectors", seal_all(engine, arrivals, 1));
    note("the words", save_words(engine));
    note("the marks", save_marks(engine, arrivals));
    note("the order of arrival", arrivals.sync().map_err(|error| MemoryError::io(&engine.folder, &error)));
}

/// Leaves nothing of erased texts in any index: neither words nor vectors.
fn cleanse(engine: &Engine, arrivals: &Arrivals, stop: &AtomicBool) -> Result<(), MemoryError> {
    let vectors = |store: &mut Option<Store>| store.iter_mut().for_each(Store::purge);
    {
        let mut state = engine.write();
        vectors(&mut state.vectors);
        vectors(&mut state.spans);
    }
    {
        let _keeping = engine.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        seal_all(engine, arrivals, 0)?;
    }
    reindex::rebuild(engine, |_, _| !stop.load(Ordering::Acquire))
}

fn note(what: &str, outcome: Result<(), MemoryError>) {
    if let Err(error) = outcome {
        // Nothing is lost: the log has it all, and recall goes on from memory.
        tracing::warn!(%error, "{what} could not be brought up to date");
    }
}

struct TextIndexer {
    done: u32,
    last: Instant,
    pause: Duration,
}

impl TextIndexer {
    fn step(&mut self, engine: &Engine) -> Result<(), MemoryError> {
        let known = engine.read().table.len();
        let lag = known.saturating_sub(self.done);
        if lag == 0 || lag < EAGER && self.last.elapsed() < self.pause {
            return Ok(());
        }
        let started = Instant::now();
        let upto = known.min(self.done + GROUP);
        let mut documents = Vec::new();
        for ordinal in self.done..upto {
            let row = engine.read().table.row(ordinal).map(|row| (row.place, row.at));
            let Some((Some(place), at)) = row else { continue };
            documents.extend(Document::of(ordinal, engine.version(place)?, Millis(at)));
        }
        engine.keyword().add(&documents)?;
        self.done = upto;
        engine.indexed.store(upto, Ordering::Release);
        self.last = Instant::now();
        // Small groups into a large index cost more: then they come less often.
        self.pause = (started.elapsed() * 8).max(PAUSE);
        Ok(())
    }
}

fn merge_words(engine: &Engine, arrivals: &Arrivals, least: u32) -> Result<(), MemoryError> {
    for part in [Part::Records, Part::Passages] {
        let frozen = {
            let mut state = engine.write();
            let lexicon = words(&mut state, part);
            let due = lexicon.unmerged() >= least.max(lexicon.merged() / 4);
            lexicon.unfinished().or_else(|| due.then(|| lexicon.freeze()).flatten())
        };
        let Some((base, tail)) = frozen else { continue };
        arrivals.sync().map_err(|error| MemoryError::io(&engine.folder, &error))?;
        save_words(engine)?;
        save_marks(engine, arrivals)?;
        let merged = merge(&path(&engine.folder, part), base.as_deref(), &tail)?;
        words(&mut engine.write(), part).thaw(merged);
    }
    Ok(())
}

fn words(state: &mut State, part: Part) -> &mut Lexicon {
    match part {
        Part::Passages => &mut state.passages,
        _ => &mut state.records,
    }
}

/// Writes the list of words, before anything counts on their numbers.
fn save_words(engine: &Engine) -> Result<(), MemoryError> {
    let text = engine.write().vocabulary.text();
    let path = path(&engine.folder, Part::Vocabulary);
    text.map_or(Ok(()), |text| atomic::write(&path, |file| file.write_all(text.as_bytes())))
        .map_err(|error| MemoryError::io(&path, &error))
}

/// Writes the marks of all versions, unless the file has them, after the order of arrival that they lie in.
fn save_marks(engine: &Engine, arrivals: &Arrivals) -> Result<(), MemoryError> {
    let Some(bytes) = engine.write().marks.unsaved() else { return Ok(()) };
    let path = path(&engine.folder, Part::Marks);
    arrivals
        .sync()
        .and_then(|()| atomic::write(&path, |file| file.write_all(&bytes)))
        .map_err(|error| MemoryError::io(&path, &error))
}

type Of = fn(&mut State) -> Option<&mut Store>;

fn seal_all(engine: &Engine, arrivals: &Arrivals, least: usize) -> Result<(), MemoryError> {
    let stores: [Of; 3] = [
        |state| state.vectors.as_mut(),
        |state| state.spans.as_mut(),
        |state| state.vocabulary.vectors.as_mut(),
    ];
    stores.into_iter().try_for_each(|of| seal(engine, arrivals, least, of))
}

fn seal(engine: &Engine, arrivals: &Arrivals, least: usize, of: Of) -> Result<(), MemoryError> {
    let sealing = {
        let mut state = engine.write();
        match of(&mut state) {
            Some(store) if store.unsealed() >= least => store.begin_seal()?,
            _ => return Ok(()),
        }
    };
    arrivals.sync().map_err(|error| MemoryError::io(&engine.folder, &error))?;
    save_words(engine)?;
    let built = sealing.write();
    let mut state = engine.write();
    let Some(store) = of(&mut state) else { return Ok(()) };
    let outcome = built.and_then(|built| store.finish_seal(built));
    if outcome.is_err() {
        store.cancel_seal();
    }
    Ok(outcome.map(drop)?)
}

/// Computes the vectors that versions lack, until the memory is closed.
pub(super) async fn embed(engine: Arc<Engine>, tasks: mpsc::SyncSender<Task>, wake: Arc<Notify>) {
    if engine.embedder.model().is_some() && engine.read().table.len() > 0 {
        // Loads the model, so that the first question need not wait for it.
        let _ = engine.embedder.embed(vec!["ready".into()], Lane::Background).await;
    }
    loop {
        match embed_some(&engine, &tasks).await {
            Ok(true) => {}
            Ok(false) => {
                let _ = tokio::time::timeout(Duration::from_secs(1), wake.notified()).await;
            }
            Err(MemoryError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "texts could not be embedded; words find them meanwhile");
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        }
    }
}

/// Embeds the next few versions; whether there were any.
async fn embed_some(engine: &Arc<Engine>, tasks: &mpsc::SyncSender<Task>) -> Result<bool, MemoryError> {
    let Some(model) = engine.embedder.model().map(|model| model_name(&model)) else { return Ok(false) };
    if engine.read().model.as_deref() != Some(&model) {
        let (engine, model) = (Arc::clone(engine), model.clone());
        blocking(move || adopt(&engine, &model)).await?;
    }
    let wanted = waiting(engine);
    if wanted.is_empty() {
        return embed_words(engine).await;
    }
    let reader = Arc::clone(engine);
    let (texts, mut rows) = blocking(move || read_pieces(&reader, wanted)).await?;
    let mut all: VecDeque<String> = texts.iter().flat_map(|(_, pieces)| pieces).cloned().collect();
    let mut vectors = VecDeque::new();
    while !all.is_empty() {
        let batch: Vec<String> = all.drain(..all.len().min(BATCH)).collect();
        let found = engine.embedder.embed(batch, Lane::Background).await;
        vectors.extend(found.map_err(|reason| MemoryError::Failed { reason })?);
    }
    rows.extend(texts.into_iter().map(|(id, pieces)| {
        let own = vectors.drain(..pieces.len().min(vectors.len()));
        (id, own.map(|vector| quantise(&vector)).collect())
    }));
    let (answer, done) = oneshot::channel();
    let tasks = tasks.clone();
    blocking(move || tasks.send(Task::Embed { model, rows, answer }).map_err(|_| MemoryError::Closed))
        .await?;
    done.await.map_err(|_| MemoryError::Closed)??;
    Ok(true)
}

/// Embeds the next words of the vocabulary; whether there were any.
async fn embed_words(engine: &Arc<Engine>) -> Result<bool, MemoryError> {
    let waiting = engine.read().vocabulary.waiting(WORDS);
    if waiting.is_empty() {
        return Ok(false);
    }
    let words = waiting.iter().map(|(_, word)| word.clone()).collect();
    let found = engine.embedder.embed(words, Lane::Background).await;
    let vectors = found.map_err(|reason| MemoryError::Failed { reason })?;
    let mut state = engine.write();
    for ((number, word), vector) in waiting.into_iter().zip(vectors) {
        let Row { scale, values } = quantise(&vector);
        state.vocabulary.embed(number, &word, &values, scale)?;
    }
    Ok(true)
}

/// Versions that stand and lack vectors, the latest first: what was just said is asked for soonest.
fn waiting(engine: &Engine) -> Vec<(RecordId, Location)> {
    let state = engine.read();
    let mut pieces = 0;
    let lacking = state.table.live() - &state.embedded - engine.feed.spared();
    let rows = lacking.iter().rev().filter_map(|ordinal| state.table.row(ordinal));
    rows.take_while(|row| {
        let before = pieces;
        pieces += 1 + usize::from(row.parts.spans);
        before < BATCH
    })
    .filter_map(|row| Some((row.id, row.place?)))
    .collect()
}

/// Texts to embed, by the version they are of.
type Texts = Vec<(RecordId, Vec<String>)>;
/// Vectors, by the version they are of.
type Rows = Vec<(RecordId, Vec<Row>)>;

/// The pieces of these versions; for a text that has vectors already, those.
fn read_pieces(engine: &Engine, wanted: Vec<(RecordId, Location)>) -> Result<(Texts, Rows), MemoryError> {
    let (mut texts, mut rows) = (Vec::new(), Vec::new());
    for (id, place) in wanted {
        if let Some(found) = rows_of_twin(&engine.read(), id) {
            rows.push((id, found));
            continue;
        }
        let text = engine.version(place)?.body.unwrap_or_default();
        texts.push((id, pieces(&text).into_iter().map(str::to_owned).collect()));
    }
    Ok((texts, rows))
}

/// The vectors of a version with the very same text.
fn rows_of_twin(state: &State, id: RecordId) -> Option<Vec<Row>> {
    let ordinal = state.table.ordinal(id)?;
    let twin = state.table.twin(ordinal)?;
    let (records, spans) = (state.vectors.as_ref()?, state.spans.as_ref()?);
    let whole = records.get(state.table.ordinal(twin.id)?);
    let all = twin.first_span..twin.first_span + u32::from(twin.parts.spans);
    std::iter::once(whole)
        .chain(all.map(|span| spans.get(span)))
        .map(|row| row.ok().flatten().map(|(values, scale)| Row { scale, values }))
        .collect()
}

/// Takes another model into use, with the vectors of it that the log has.
fn adopt(engine: &Engine, model: &str) -> Result<(), MemoryError> {
    let mut repairs = Vec::new();
    {
        // The stores lock their folders, so the old ones go first.
        let mut state = engine.write();
        (state.vectors, state.spans) = (None, None);
        state.vocabulary.adopt(None);
    }
    let stores = open_vectors(&engine.folder, model, engine.read().vocabulary.saved(), &mut repairs)?;
    engine.write().use_model(model, stores);
    engine.reader.for_each(None, 0, |_, entry| {
        if let Entry::Vectors(vectors) = entry {
            engine.write().embed(&vectors);
        }
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(())
}

/// A vector as the log carries it: bytes, and what one step of them is worth.
pub(super) fn quantise(vector: &[f32]) -> Row {
    let largest = vector.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
    let values = vector.iter().map(|value| (value / scale).round() as i8).collect();
    Row { scale, values }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MemoryError> + Send + 'static,
) -> Result<T, MemoryError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| MemoryError::Closed)?
}
