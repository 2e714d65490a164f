//! A text as the indexes take it: its terms, its passages' terms, and the pieces that get a vector each.

use super::{lexicon::Counts, passages, record::MAX_ROWS, table::Parts, text::Analyzer};

/// What a text is to the indexes.
#[derive(Clone, Debug, Default)]
pub(super) struct Digested {
    pub(super) record: Counts,
    pub(super) passages: Vec<Counts>,
    pub(super) parts: Parts,
}

/// Digests a text; a text that is gone leaves an empty digest of the same shape.
pub(super) fn digest(analyzer: &mut Analyzer, text: &str) -> Digested {
    let ranges = passages::split(text);
    let mut count = |text: &str| {
        let mut terms = Vec::new();
        analyzer.terms(text, |term| terms.push(term));
        Counts::of(terms)
    };
    let record = count(text);
    let passages: Vec<Counts> =
        ranges.iter().map(|range| count(text.get(range.clone()).unwrap_or_default())).collect();
    let parts = Parts { passages: short(passages.len()), pieces: short(pieces(text).len()) };
    Digested { record, passages, parts }
}

/// The pieces of a text that get a vector each: the whole, then its passages.
pub(super) fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = vec![text];
    pieces.extend(passages::split(text).into_iter().filter_map(|range| text.get(range)));
    pieces.truncate(MAX_ROWS);
    pieces
}

fn short(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
