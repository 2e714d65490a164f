//! Recall: several legs look for records in their own way, and their scores are fused.
//!
//! Words (BM25 over whole records and over passages) find what is named; vectors find what is meant. Each leg's
//! scores are brought to the same scale and added with fixed weights; what the question says about time is a soft
//! boost. Nothing here knows a language model.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::{
    MemoryError,
    engine::{Engine, State},
    lexicon::{Asked, Bm25, Lexicon},
    record::Millis,
    request::{Explain, Filter, RecallRequest},
    table::{NEVER, moment},
    text::Analyzer,
    vectors::{Search, Store},
};

mod circle;
pub(super) mod question;
pub(super) mod time;

use question::Question;

/// What each leg counts.
const WEIGHTS: Weights = Weights { record: 0.3, passage: 0.2, dense: 0.5, keyword: 0.2 };
/// Of whole records: what most systems use, and what was best here.
const RECORD: Bm25 = Bm25 { k1: 1.2, b: 0.75 };
/// Of passages, which are of about one length: a word that comes again says less, and so does length.
const PASSAGE: Bm25 = Bm25 { k1: 0.6, b: 0.4 };
/// Cosines below this say nothing: unrelated texts have them too.
const FLOOR: f32 = 0.1;
/// How much a record of the time that the question names gains.
const TIME: f32 = 0.25;
/// How near to that time a record counts of which it is not known when it happened.
const UNKNOWN: f32 = 0.5;
/// How far ahead of the question a record's clock may be, in milliseconds.
const DAY: i64 = 86_400_000;
/// Best units of a lexical leg that are kept.
const DEPTH: usize = 200;
/// Best records of words, and as many nearest records, whose spans are compared with the question.
const CANDIDATES: usize = 64;
/// Vectors that the scan gives.
const NEAREST: usize = 128;
/// Threads that compare vectors, where there are very many to compare.
const THREADS: usize = 2;
/// Records from which on words and vectors are looked at by a thread each.
const SIDE_BY_SIDE: u32 = 30_000;

struct Weights {
    record: f32,
    passage: f32,
    dense: f32,
    keyword: f32,
}

/// A record found, by ordinal.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) ordinal: u32,
    pub(super) score: f32,
    pub(super) explain: Option<Explain>,
}

/// Scores by ordinal.
type Scores = HashMap<u32, f32>;

/// One way to look for records, and what it found.
struct Leg {
    name: &'static str,
    weight: f32,
    /// Scores up to this count as nothing.
    floor: f32,
    scores: Scores,
}

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
    let question = Question::of(&request.query);
    let mut analyzer = Analyzer::default();
    let unknown = unknown_words(engine, &mut analyzer, &question.text);
    let misspelt = if unknown.is_empty() { Vec::new() } else { keyword.search(&unknown, CANDIDATES)? };
    let state = engine.read();
    let Some(allowed) = allowed(&state, request, indexed, next, now) else { return Ok(Vec::new()) };
    let terms: Vec<Asked> = analyzer
        .query_words(&question.text)
        .into_iter()
        .map(|(term, word)| Asked {
            term,
            kin: if vector.is_some() { state.vocabulary.near(term, &word) } else { Vec::new() },
        })
        .collect();
    let words = || {
        let records = lexical(&state, &state.records, (&terms, RECORD), &allowed, Some);
        let owner = |unit| state.table.passage_owner(unit);
        let passages = lexical(&state, &state.passages, (&terms, PASSAGE), &allowed, owner);
        let passages = with_whole(&state, passages, &records);
        (records, passages)
    };
    let search = nearest(&state, vector, &allowed)?;
    let (records, passages) = match &search {
        Some(search) if state.table.len() > SIDE_BY_SIDE => side_by_side(words, search),
        _ => words(),
    };
    let mut legs = vec![
        Leg { name: "lexical_record", weight: WEIGHTS.record, floor: 0.0, scores: records },
        Leg { name: "lexical_passage", weight: WEIGHTS.passage, floor: 0.0, scores: passages },
    ];
    let misspelt = (1_u16..).zip(misspelt.into_iter().filter(|ordinal| allowed.fits(&state, *ordinal)));
    let scores: Scores = misspelt.map(|(rank, ordinal)| (ordinal, 1.0 / f32::from(rank))).collect();
    if !scores.is_empty() {
        legs.push(Leg { name: "keyword", weight: WEIGHTS.keyword, floor: 0.0, scores });
    }
    if let Some(vector) = vector {
        let near = search.map_or(Ok(Vec::new()), |search| search.finish(THREADS))?;
        let near = near.into_iter().map(|(ordinal, _)| ordinal);
        let near = near.filter(|ordinal| allowed.fits(&state, *ordinal)).take(CANDIDATES).collect();
        let scores = dense(&state, (&question, vector), near, &legs)?;
        legs.push(Leg { name: "dense", weight: WEIGHTS.dense, floor: FLOOR, scores });
    }
    let times = Times { spans: time::mentioned(&request.query, now), now: now.0 };
    Ok(fuse(&state, &legs, &times, request.limit.unwrap_or(10), request.explain))
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
        match &self.only {
            Some(only) => {
                only.contains(ordinal)
                    && state.table.row(ordinal).is_some_and(|row| row.valid_until > self.now)
            }
            None => state.table.finds(ordinal, self.now),
        }
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
        row.created <= at && (row.ended == NEVER || row.ended > at) && !row.tombstone && !row.erased
    })
}

/// The best records of a lexical leg; a record scores as its best unit does.
fn lexical(
    state: &State,
    lexicon: &Lexicon,
    (terms, bm25): (&[Asked], Bm25),
    allowed: &Allowed,
    owner: impl Fn(u32) -> Option<u32>,
) -> Scores {
    let mut best = Best::default();
    lexicon.rank(terms, bm25, |found| {
        for (unit, score) in found {
            if let Some(ordinal) = owner(*unit).filter(|ordinal| allowed.fits(state, *ordinal)) {
                best.take(ordinal, *score);
            }
        }
        best.settle()
    });
    best.kept.into_iter().collect()
}

/// The best records of a leg, and some more. A record's units come one after the other.
#[derive(Default)]
struct Best {
    kept: Vec<(u32, f32)>,
    /// Nothing up to this is among the best any more.
    floor: f32,
}

impl Best {
    fn take(&mut self, ordinal: u32, score: f32) {
        match self.kept.last_mut() {
            Some((last, best)) if *last == ordinal => *best = best.max(score),
            _ => self.kept.push((ordinal, score)),
        }
    }

    /// Raises the floor now and then, so that most units need no look; what it is now.
    fn settle(&mut self) -> f32 {
        if self.kept.len() >= 4 * DEPTH {
            // The last one stays the last: the next unit may be its.
            let last = self.kept.pop();
            self.kept.select_nth_unstable_by(DEPTH - 1, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            self.kept.truncate(DEPTH);
            self.floor = self.kept.last().map_or(0.0, |(_, score)| *score);
            self.kept.extend(last);
        }
        self.floor
    }
}

/// A record that is one passage scores as a passage as it does as a record.
fn with_whole(state: &State, mut passages: Scores, records: &Scores) -> Scores {
    for (ordinal, score) in records {
        if state.table.row(*ordinal).is_some_and(|row| row.parts.passages == 0) {
            passages.insert(*ordinal, *score);
        }
    }
    passages
}

/// The search for the records whose whole vectors are nearest to the question's.
fn nearest<'a>(
    state: &'a State,
    vector: Option<&[f32]>,
    allowed: &'a Allowed,
) -> Result<Option<Search<'a>>, MemoryError> {
    let (Some(records), Some(vector)) = (&state.vectors, vector) else { return Ok(None) };
    Ok(Some(records.begin(vector, NEAREST, allowed.only.as_ref())?))
}

/// Looks at words while another thread scans vectors, and then helps it.
fn side_by_side<A>(words: impl FnOnce() -> A, search: &Search<'_>) -> A {
    std::thread::scope(|scope| {
        // A thread that does not start is done without: whoever finishes the search scans what is left.
        let _ = std::thread::Builder::new().name("recall".to_owned()).spawn_scoped(scope, || search.work());
        let found = words();
        search.work();
        found
    })
}

/// Compares the question with every span of the records that words or whole vectors (`near`) brought up. Looking at
/// these alone finds what looking at every span of every record finds, at a hundredth of the cost.
fn dense(
    state: &State,
    (question, vector): (&Question<'_>, &[f32]),
    near: Vec<u32>,
    legs: &[Leg],
) -> Result<Scores, MemoryError> {
    let (Some(records), Some(spans)) = (&state.vectors, &state.spans) else { return Ok(Scores::new()) };
    let mut candidates = near;
    candidates.extend(top(&sum(legs), CANDIDATES));
    candidates.sort_unstable();
    candidates.dedup();
    let mut scores = Scores::new();
    let mut products = Vec::new();
    for ordinal in candidates {
        let Some(row) = state.table.row(ordinal) else { continue };
        products.clear();
        // The vector of a whole text speaks for a text of one span only: it blurs longer ones.
        let store = if row.parts.spans == 0 {
            records.products(ordinal..ordinal + 1, vector, &mut products)?;
            let marks = state.marks.whole(ordinal, row.first_span);
            products.iter_mut().for_each(|(_, product)| *product += question.favour(marks));
            records
        } else {
            let all = row.first_span..row.first_span + u32::from(row.parts.spans);
            spans.products(all, vector, &mut products)?;
            for (span, product) in &mut products {
                *product += question.favour(state.marks.span(ordinal, *span));
            }
            spans
        };
        scores.extend(best_sound(store, &mut products).map(|best| (ordinal, best)));
    }
    Ok(scores)
}

/// The best of the scores of these units whose vectors are as they were written.
fn best_sound(store: &Store, scores: &mut Vec<(u32, f32)>) -> Option<f32> {
    loop {
        let (at, (unit, best)) =
            scores.iter().copied().enumerate().max_by(|(_, (_, a)), (_, (_, b))| a.total_cmp(b))?;
        match store.check(unit) {
            Ok(()) => return Some(best),
            Err(error) => tracing::warn!(%error, "a vector is left out of recall"),
        }
        scores.swap_remove(at);
    }
}

fn top(scores: &Scores, most: usize) -> Vec<u32> {
    let mut all: Vec<(u32, f32)> = scores.iter().map(|(ordinal, score)| (*ordinal, *score)).collect();
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(b.0.cmp(&a.0));
    if all.len() > most {
        all.select_nth_unstable_by(most, order);
        all.truncate(most);
    }
    all.sort_unstable_by(order);
    all.into_iter().map(|(ordinal, _)| ordinal).collect()
}

/// The legs' scores on one scale, added up.
fn sum(legs: &[Leg]) -> Scores {
    let mut fused = Scores::new();
    for Leg { weight, floor, scores, .. } in legs {
        let most = scores.values().copied().fold(*floor, f32::max);
        if most > *floor {
            for (ordinal, score) in scores {
                *fused.entry(*ordinal).or_insert(0.0) += weight * (score - floor).max(0.0) / (most - floor);
            }
        }
    }
    fused
}

/// Adds the legs up, boosts what is of the time named, and lets records that are alike lend each other weight.
fn fuse(state: &State, legs: &[Leg], times: &Times, limit: usize, explain: bool) -> Vec<Hit> {
    let mut fused = sum(legs);
    if legs.iter().any(|leg| leg.name == "dense") {
        // What was only just written has no vector yet; words speak for it with the weight of both.
        let words = WEIGHTS.record + WEIGHTS.passage;
        for (_, score) in fused.iter_mut().filter(|(ordinal, _)| !state.embedded.contains(**ordinal)) {
            *score *= (words + WEIGHTS.dense) / words;
        }
    }
    if !times.spans.is_empty() {
        for (ordinal, score) in &mut fused {
            *score *= times.boost(state, *ordinal);
        }
    }
    let best = top(&fused, circle::MOST.max(limit));
    let mut hits: Vec<Hit> = best
        .into_iter()
        .map(|ordinal| Hit { ordinal, score: fused.get(&ordinal).copied().unwrap_or(0.0), explain: None })
        .collect();
    circle::lend(state, &mut hits);
    // Between equals the later one: it was said more recently.
    hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(b.ordinal.cmp(&a.ordinal)));
    hits.truncate(limit);
    if explain {
        for hit in &mut hits {
            hit.explain = Some(explanation(state, legs, times, hit.ordinal));
        }
    }
    hits
}

fn explanation(state: &State, legs: &[Leg], times: &Times, ordinal: u32) -> Explain {
    let mut ranks = BTreeMap::new();
    for Leg { name, scores, .. } in legs {
        if let Some(mine) = scores.get(&ordinal) {
            let before = scores.values().filter(|other| *other > mine).count();
            ranks.insert((*name).to_owned(), u32::try_from(before + 1).unwrap_or(u32::MAX));
        }
    }
    let mut boosts = BTreeMap::new();
    if !times.spans.is_empty() {
        boosts.insert("time".to_owned(), times.boost(state, ordinal));
    }
    Explain { ranks, boosts }
}

/// The times that a question names.
struct Times {
    spans: Vec<time::Span>,
    /// When it is asked.
    now: i64,
}

impl Times {
    /// What a record's score is multiplied by for being of these times.
    fn boost(&self, state: &State, ordinal: u32) -> f32 {
        let close = state.table.row(ordinal).map_or(0.0, |row| {
            // One without a date of its own that was written down after the question says nothing of when it happened:
            // it must not fall behind those that do.
            if row.at == row.created && row.at > self.now + DAY {
                UNKNOWN
            } else {
                time::closeness(&self.spans, Millis(row.at))
            }
        });
        1.0 + TIME * close
    }
}
