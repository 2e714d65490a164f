//! Recall: several legs look for records in their own way, and their scores are fused.
//!
//! Words (BM25 over whole records and over passages) find what is named; vectors find what is meant. Each leg's
//! scores are brought to the same scale and added with fixed weights; what the question says about time is a soft
//! boost. Nothing here knows a language model.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;

use super::{
    MemoryError,
    engine::{Engine, State},
    lexicon::{Bm25, Lexicon, Weighted},
    record::Millis,
    request::{Explain, Filter, RecallRequest},
    table::{NEVER, moment},
    text::Analyzer,
};

pub(super) mod time;

/// Whole records: long ones are marked down, repeated words count.
const RECORD: Bm25 = Bm25 { k1: 1.2, b: 0.75 };
/// Passages are of like length.
const PASSAGE: Bm25 = Bm25 { k1: 1.2, b: 0.5 };
/// What each leg counts.
const WEIGHTS: Weights = Weights { record: 0.25, passage: 0.25, dense: 0.5 };
/// Cosines below this say nothing: unrelated texts have them too.
const FLOOR: f32 = 0.1;
/// How much a record of the time that the question names gains.
const TIME: f32 = 0.25;
/// Best units of each leg that are looked at.
const DEPTH: usize = 200;
/// Most vectors found by the scan.
const NEAREST: usize = 400;
/// Threads that scan vectors.
const THREADS: usize = 2;

struct Weights {
    record: f32,
    passage: f32,
    dense: f32,
}

/// A record found, by ordinal.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) ordinal: u32,
    pub(super) score: f32,
    pub(super) explain: Option<Explain>,
}

/// One leg's scores by ordinal.
type Scores = HashMap<u32, f32>;

/// Who may be found.
struct Allowed {
    /// `None`: everyone who is live.
    only: Option<RoaringBitmap>,
    now: i64,
}

/// The best records for a question whose vector is `vector`, best first.
pub(super) fn recall(
    engine: &Engine,
    request: &RecallRequest,
    vector: Option<&[f32]>,
) -> Result<Vec<Hit>, MemoryError> {
    let now = moment(request.now);
    let keyword = engine.keyword();
    let indexed = if request.filter == Filter::default() { None } else { keyword.filter(&request.filter)? };
    let next = keyword.next();
    let mut analyzer = Analyzer::default();
    let terms: Vec<Weighted> =
        analyzer.query_terms(&request.query).into_iter().map(|term| Weighted { term, weight: 1.0 }).collect();
    let unknown = unknown_words(engine, &mut analyzer, &request.query);
    let state = engine.read();
    let Some(allowed) = allowed(&state, request, indexed, next, now) else { return Ok(Vec::new()) };
    let mut legs: Vec<(&'static str, f32, Scores)> = Vec::new();
    legs.push((
        "lexical_record",
        WEIGHTS.record,
        lexical(&state, &state.records, &terms, RECORD, &allowed, |unit| Some(unit)),
    ));
    let passages =
        lexical(&state, &state.passages, &terms, PASSAGE, &allowed, |unit| state.table.passage_owner(unit));
    legs.push(("lexical_passage", WEIGHTS.passage, with_whole(&state, passages, &legs)));
    if let Some(vector) = vector {
        legs.push(("dense", WEIGHTS.dense, dense(&state, vector, &allowed)?));
    }
    complete(&state, &mut legs, vector);
    if !unknown.is_empty() {
        let found = keyword.search(&unknown, DEPTH)?;
        let found = found.into_iter().filter(|ordinal| allowed.fits(&state, *ordinal));
        legs.push((
            "keyword",
            WEIGHTS.record,
            (1_u16..).zip(found).map(|(rank, ordinal)| (ordinal, 1.0 / f32::from(rank))).collect(),
        ));
    }
    let spans = time::mentioned(&request.query, now);
    let limit = request.limit.unwrap_or(10);
    Ok(fuse(&state, &legs, &spans, limit, request.explain))
}

/// Words of the question that no record has: perhaps they are misspelt.
fn unknown_words(engine: &Engine, analyzer: &mut Analyzer, query: &str) -> Vec<String> {
    let state = engine.read();
    let mut unknown = Vec::new();
    analyzer.words(query, |stemmer, word| {
        let term = super::text::hash(&stemmer.stem(word));
        if word.chars().count() > 3 && !super::text::is_stop(word) && state.records.frequency(term) == 0 {
            unknown.push(word.to_owned());
        }
    });
    unknown
}

impl Allowed {
    fn fits(&self, state: &State, ordinal: u32) -> bool {
        let known = match &self.only {
            Some(only) => only.contains(ordinal),
            None => state.table.live().contains(ordinal),
        };
        known && state.table.row(ordinal).is_some_and(|row| row.valid_until > self.now)
    }
}

/// Who may be found; `None` when nobody can.
fn allowed(
    state: &State,
    request: &RecallRequest,
    indexed: Option<RoaringBitmap>,
    next: u32,
    now: Millis,
) -> Option<Allowed> {
    let table = &state.table;
    let at = request.as_of.unwrap_or(now);
    let filter = table.known(&request.filter)?;
    let only = match (indexed, request.as_of) {
        (None, None) => None,
        (indexed, as_of) => {
            // What the text index does not hold yet is looked at one by one.
            let mut fitting = indexed.unwrap_or_else(|| (0..next).collect());
            fitting.extend((next..table.len()).filter(|ordinal| table.fits(*ordinal, &filter)));
            match as_of {
                None => fitting &= table.live(),
                Some(as_of) => {
                    fitting = fitting.iter().filter(|ordinal| stood(state, *ordinal, as_of.0)).collect();
                }
            }
            Some(fitting)
        }
    };
    Some(Allowed { only, now: at.0 })
}

/// Whether a version was there and stood at a moment.
fn stood(state: &State, ordinal: u32, at: i64) -> bool {
    state.table.row(ordinal).is_some_and(|row| {
        row.created <= at
            && (row.ended == NEVER || row.ended > at)
            && !row.tombstone
            && !row.erased
            && !row.duplicate
    })
}

/// The best records of a lexical leg; a record scores as its best unit does.
fn lexical(
    state: &State,
    lexicon: &Lexicon,
    terms: &[Weighted],
    bm25: Bm25,
    allowed: &Allowed,
    owner: impl Fn(u32) -> Option<u32>,
) -> Scores {
    let mut scores = Vec::new();
    lexicon.score(terms, bm25, &mut scores);
    let mut best = Scores::new();
    let mut floor = 0.0;
    let mut kept: Vec<f32> = Vec::new();
    for (unit, score) in (0_u32..).zip(&scores) {
        if *score <= floor {
            continue;
        }
        let Some(ordinal) = owner(unit).filter(|ordinal| allowed.fits(state, *ordinal)) else { continue };
        let slot = best.entry(ordinal).or_insert(0.0);
        if *score > *slot {
            *slot = *score;
            kept.push(*score);
        }
        // Raises the floor now and then, so that most units are passed over at a glance.
        if kept.len() >= 4 * DEPTH {
            kept.sort_unstable_by(|a, b| b.total_cmp(a));
            kept.truncate(DEPTH);
            floor = kept.last().copied().unwrap_or(0.0);
        }
    }
    best
}

/// A record that is one passage scores as a passage as it does as a record.
fn with_whole(state: &State, mut passages: Scores, legs: &[(&'static str, f32, Scores)]) -> Scores {
    for (ordinal, score) in legs.first().into_iter().flat_map(|(_, _, scores)| scores) {
        if state.table.row(*ordinal).is_some_and(|row| row.parts.passages == 0) {
            passages.insert(*ordinal, *score);
        }
    }
    passages
}

/// The records with the nearest pieces.
fn dense(state: &State, vector: &[f32], allowed: &Allowed) -> Result<Scores, MemoryError> {
    let Some(store) = &state.vectors else { return Ok(Scores::new()) };
    let pieces: Option<RoaringBitmap> = allowed.only.as_ref().map(|only| {
        let rows = only.iter().filter_map(|ordinal| state.table.row(ordinal));
        rows.flat_map(|row| row.first_piece..row.first_piece + u32::from(row.parts.pieces)).collect()
    });
    let found = store
        .search(vector, NEAREST, pieces.as_ref(), THREADS)
        .map_err(|error| MemoryError::Failed { reason: error.to_string() })?;
    let mut scores = Scores::new();
    for (piece, score) in found {
        let Some(ordinal) = state.table.piece_owner(piece) else { continue };
        if allowed.fits(state, ordinal) {
            let best = scores.entry(ordinal).or_insert(score);
            *best = best.max(score);
        }
    }
    Ok(scores)
}

/// Gives records that only words found their vectors' score too.
fn complete(state: &State, legs: &mut [(&'static str, f32, Scores)], vector: Option<&[f32]>) {
    let (Some(vector), Some(store)) = (vector, &state.vectors) else { return };
    let words: Vec<u32> =
        legs.iter().filter(|leg| leg.0 != "dense").flat_map(|leg| top(&leg.2, DEPTH)).collect();
    let Some((_, _, dense)) = legs.iter_mut().find(|leg| leg.0 == "dense") else { return };
    for ordinal in words {
        if dense.contains_key(&ordinal) {
            continue;
        }
        let Some(row) = state.table.row(ordinal) else { continue };
        let pieces = row.first_piece..row.first_piece + u32::from(row.parts.pieces);
        let best = pieces.filter_map(|piece| store.get(piece).ok().flatten()).map(|(row, scale)| {
            row.iter().zip(vector).map(|(value, query)| f32::from(*value) * query).sum::<f32>() * scale
        });
        if let Some(best) = best.max_by(f32::total_cmp) {
            dense.insert(ordinal, best);
        }
    }
}

fn top(scores: &Scores, most: usize) -> Vec<u32> {
    let mut all: Vec<(u32, f32)> = scores.iter().map(|(ordinal, score)| (*ordinal, *score)).collect();
    all.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(most);
    all.into_iter().map(|(ordinal, _)| ordinal).collect()
}

/// Adds the legs up.
fn fuse(
    state: &State,
    legs: &[(&'static str, f32, Scores)],
    spans: &[time::Span],
    limit: usize,
    explain: bool,
) -> Vec<Hit> {
    let mut fused: HashMap<u32, f32> = HashMap::new();
    for (name, weight, scores) in legs {
        let floor = if *name == "dense" { FLOOR } else { 0.0 };
        let most = scores.values().copied().fold(floor, f32::max);
        if most > floor {
            for (ordinal, score) in scores {
                *fused.entry(*ordinal).or_insert(0.0) += weight * (score - floor).max(0.0) / (most - floor);
            }
        }
    }
    if !spans.is_empty() {
        for (ordinal, score) in &mut fused {
            let at = state.table.row(*ordinal).map_or(0, |row| row.at);
            *score *= 1.0 + TIME * time::closeness(spans, Millis(at));
        }
    }
    let mut hits: Vec<Hit> =
        fused.into_iter().map(|(ordinal, score)| Hit { ordinal, score, explain: None }).collect();
    // Between equals the later one: it was said more recently.
    hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(b.ordinal.cmp(&a.ordinal)));
    hits.truncate(limit);
    if explain {
        for hit in &mut hits {
            hit.explain = Some(explanation(state, legs, spans, hit.ordinal));
        }
    }
    hits
}

fn explanation(
    state: &State,
    legs: &[(&'static str, f32, Scores)],
    spans: &[time::Span],
    ordinal: u32,
) -> Explain {
    let mut ranks = BTreeMap::new();
    for (name, _, scores) in legs {
        if let Some(mine) = scores.get(&ordinal) {
            let before = scores.values().filter(|other| *other > mine).count();
            ranks.insert((*name).to_owned(), u32::try_from(before + 1).unwrap_or(u32::MAX));
        }
    }
    let mut boosts = BTreeMap::new();
    if !spans.is_empty() {
        let at = state.table.row(ordinal).map_or(0, |row| row.at);
        boosts.insert("time".to_owned(), 1.0 + TIME * time::closeness(spans, Millis(at)));
    }
    Explain { ranks, boosts }
}

/// The texts whose vectors together stand for a question.
pub(super) fn query_texts(query: &str) -> Vec<String> {
    let mut analyzer = Analyzer::default();
    let mut words = Vec::new();
    analyzer.words(query, |_, word| {
        if !super::text::is_stop(word) {
            words.push(word.to_owned());
        }
    });
    if words.is_empty() { vec![query.to_owned()] } else { vec![query.to_owned(), words.join(" ")] }
}

/// One unit vector from those of [`query_texts`].
pub(super) fn query_vector(vectors: &[Vec<f32>]) -> Option<Vec<f32>> {
    let mut sum = vectors.first()?.clone();
    for vector in vectors.iter().skip(1) {
        for (sum, value) in sum.iter_mut().zip(vector) {
            *sum += value;
        }
    }
    let norm = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
    (norm > 0.0).then(|| sum.iter().map(|value| value / norm).collect())
}
