//! A text as the indexes take it: its terms, its passages' terms, the words in it, and the pieces that get vectors.

use std::collections::HashMap;

use super::{
    lexicon::Counts,
    marks, passages, spans,
    table::Parts,
    text::{Analyzer, Term, hash, is_stop},
};

/// Lengths in characters of words that may have neighbours in meaning.
const WORD: std::ops::RangeInclusive<usize> = 3..=24;

/// What a text is to the indexes.
#[derive(Clone, Debug, Default)]
pub(super) struct Digested {
    pub(super) record: Counts,
    pub(super) passages: Vec<Counts>,
    /// Its distinct words, each with its term.
    pub(super) words: Vec<(Term, Box<str>)>,
    pub(super) parts: Parts,
    /// The [`marks`] of the whole, then those of its spans.
    pub(super) marks: Vec<u8>,
}

/// Digests a text; a text that is gone gives an empty digest.
pub(super) fn digest(analyzer: &mut Analyzer, text: &str) -> Digested {
    let mut words: HashMap<Box<str>, Term> = HashMap::new();
    let mut terms = Vec::new();
    analyzer.words(text, |stemmer, word| {
        if is_stop(word) {
            return;
        }
        let term = hash(&stemmer.stem(word));
        terms.push(term);
        let plain = word.bytes().all(|byte| byte.is_ascii_lowercase());
        if plain && WORD.contains(&word.len()) && !words.contains_key(word) {
            words.insert(word.into(), term);
        }
    });
    let mut count = |text: &str| {
        let mut terms = Vec::new();
        analyzer.terms(text, |term| terms.push(term));
        Counts::of(terms)
    };
    let ranges = passages::split(text);
    let passages: Vec<Counts> =
        ranges.iter().map(|range| count(text.get(range.clone()).unwrap_or_default())).collect();
    let words = words.into_iter().map(|(word, term)| (term, word)).collect();
    let marks = marks(text);
    let parts = Parts { passages: short(passages.len()), spans: short(marks.len() - 1) };
    Digested { record: Counts::of(terms), passages, words, parts, marks }
}

/// The marks of a text as a whole, which count when it is its only span, then those of its spans.
pub(super) fn marks(text: &str) -> Vec<u8> {
    let spans = spans::split(text);
    let whole = if spans.is_empty() { marks::of(text.trim()) } else { 0 };
    std::iter::once(whole).chain(spans.iter().map(|span| span.marks)).collect()
}

/// The pieces of a text that get a vector each: the whole, then its spans.
pub(super) fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = vec![text];
    pieces.extend(spans::split(text).into_iter().filter_map(|span| text.get(span.range)));
    pieces
}

fn short(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
