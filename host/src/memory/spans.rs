//! The pieces of a text that get a vector of their own: sentences, and the clauses of statements.
//!
//! A question is answered by one thing somebody said in passing more often than by a text as a whole, and a vector
//! of a whole text hides it. Sentences that ask for something are not cut further: what they hold is a question,
//! not an answer. The cut is a function of the text alone; [`SPLIT`] names it wherever vectors are stored.

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

use super::{marks, passages};

/// The name of this way to cut, part of a vector's model name: vectors of another cut do not fit.
pub(super) const SPLIT: &str = "s1";
/// Most spans of a record. The rest of its text is found through the record as a whole, and through words.
pub(super) const MOST: usize = 1_000;
/// A sentence shorter than this many bytes belongs to its neighbour.
const SENTENCE: usize = 20;
/// A clause shorter than this many bytes belongs to its neighbour.
const CLAUSE: usize = 30;
/// Longest span in bytes; the embedder reads about as much.
const LONGEST: usize = 1_200;

/// A span and what its sentence looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Where it lies, in bytes.
    pub(super) range: Range<usize>,
    /// The [`marks`] of the sentence it is of.
    pub(super) marks: u8,
}

/// The spans of a text, in order; none when the text is a single one.
pub(super) fn split(text: &str) -> Vec<Span> {
    let whole = passages::split(text);
    let alone = std::iter::once(0..text.len()).filter(|_| whole.is_empty());
    let mut spans = Vec::new();
    for passage in alone.chain(whole.iter().cloned()) {
        for sentence in sentences(text, passage) {
            let Some(words) = text.get(sentence.clone()) else { continue };
            let marks = marks::of(words);
            let lead = LEAD.find(words).map_or(0, |found| found.end());
            let start = if lead < words.len() { sentence.start + lead } else { sentence.start };
            let stripped = start..sentence.end;
            let asks = marks & marks::ASKS != 0;
            let clauses = if asks { Vec::new() } else { clauses(text, stripped.clone()) };
            spans.push(Span { range: stripped, marks });
            if clauses.len() > 1 {
                spans.extend(clauses.into_iter().map(|range| Span { range, marks }));
            }
            if spans.len() >= MOST {
                spans.truncate(MOST);
                return spans;
            }
        }
    }
    if spans.len() < 2 { Vec::new() } else { spans }
}

/// Sentences: after a full stop, question or exclamation mark, and at the ends of lines.
fn sentences(text: &str, passage: Range<usize>) -> Vec<Range<usize>> {
    let Some(inside) = text.get(passage.clone()) else { return Vec::new() };
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    let mut put = |range: Range<usize>| {
        let Some(words) = inside.get(range.clone()) else { return };
        let from = range.start + (words.len() - words.trim_start().len());
        let to = from + words.trim().len();
        if from >= to {
            return;
        }
        let range = passage.start + from..passage.start + to;
        match found.last_mut() {
            Some(last)
                if (range.len() < SENTENCE || last.len() < SENTENCE) && range.end - last.start <= LONGEST =>
            {
                last.end = range.end;
            }
            _ => found.push(range),
        }
    };
    let mut ended = false;
    for (at, c) in inside.char_indices() {
        let full = at - start >= LONGEST && c.is_whitespace();
        if c == '\n' || ended && c.is_whitespace() || full {
            put(start..at);
            start = at;
        }
        ended =
            matches!(c, '.' | '!' | '?' | '。' | '！' | '？') || ended && matches!(c, '"' | '\'' | ')' | ']');
    }
    put(start..inside.len());
    found
}

/// Clauses that could stand alone.
fn clauses(text: &str, sentence: Range<usize>) -> Vec<Range<usize>> {
    let Some(inside) = text.get(sentence.clone()) else { return Vec::new() };
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    let mut put = |range: Range<usize>| {
        let range = sentence.start + range.start..sentence.start + range.end;
        match found.last_mut() {
            Some(last) if range.len() < CLAUSE || last.len() < CLAUSE => last.end = range.end,
            _ => found.push(range),
        }
    };
    for joint in JOINT.captures_iter(inside) {
        // What follows the joint belongs to the next clause.
        let (Some(all), Some(gap)) = (joint.get(0), joint.name("gap").or_else(|| joint.name("gap2"))) else {
            continue;
        };
        if all.start() > start {
            put(start..all.start());
        }
        start = gap.end();
    }
    put(start..inside.len());
    found
}

/// Words that lead over to what is said.
static LEAD: LazyLock<Regex> = LazyLock::new(|| {
    marks::pattern(
        r"(?i)^(?:(?:by the way|btw|oh|also|anyway|actually|speaking of (?:which|that)|that being said|on another note|in fact|and|but|so|well)[,!:]?\s+)+",
    )
});

/// Where one clause ends and another begins.
static JOINT: LazyLock<Regex> = LazyLock::new(|| {
    marks::pattern(
        r"(?i)(?P<gap>(?:,|;|\s[-–—]+)\s+)(?:and|but|so|which|where|who|because|since|especially|specifically|including|like|i'm|i've|i|it|my|we|they|he|she|then|as|after|while|when)\b|(?P<gap2>\s+)(?:and|but|so|because)\s+(?:i'm|i've|i|my|we|it's|it|he|she|they)\b",
    )
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans(text: &str) -> Vec<&str> {
        split(text).into_iter().map(|span| &text[span.range]).collect()
    }

    #[test]
    fn statements_are_cut_into_clauses_and_requests_are_not() {
        let text = "By the way, I graduated in Business Administration, and I started at the bank in May 2019. \
                    Can you suggest a book, because I like to read on the train?";
        assert_eq!(
            spans(text),
            [
                "I graduated in Business Administration, and I started at the bank in May 2019.",
                "I graduated in Business Administration",
                "and I started at the bank in May 2019.",
                "Can you suggest a book, because I like to read on the train?",
            ]
        );
    }

    #[test]
    fn a_single_sentence_is_the_record() {
        assert!(spans("The kettle is in the kitchen.").is_empty());
        assert!(spans("").is_empty());
    }

    #[test]
    fn the_patterns_compile() {
        for found in [&LEAD, &JOINT] {
            assert_ne!(found.as_str(), marks::NOTHING.as_str());
        }
    }

    proptest! {
        #[test]
        fn spans_lie_within_the_text(text in "(\\PC{0,40}[ .?!,\\n]{0,3}(and i|but it|so)? ?){0,40}") {
            for Span { range, .. } in split(&text) {
                prop_assert!(!range.is_empty() && text.get(range).is_some());
            }
        }
    }
}
