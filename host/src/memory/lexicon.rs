//! BM25 over our own postings: which texts hold a term, how often, and how long they are.
//!
//! A unit is a text with a dense number. Postings lie in an immutable, mapped segment and in a tail in memory that
//! makes a text searchable at once; a merge turns both into a new segment. Scores are exact BM25 over whole-number
//! term counts; lengths above 64 terms are rounded to 1/16 of an octave.

use std::{collections::HashMap, fmt, path::Path, sync::Arc};

mod rank;
mod segment;

pub use segment::{Segment, SegmentError};

use super::text::Term;

/// The two constants of BM25 (Robertson & Zaragoza 2009): how soon a repeated term saturates, and how much long
/// texts are marked down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bm25 {
    /// Saturation.
    pub k1: f32,
    /// Length normalisation, 0 to 1.
    pub b: f32,
}

impl Default for Bm25 {
    /// The values that most systems use, and that were best here.
    fn default() -> Self {
        Self { k1: 1.2, b: 0.75 }
    }
}

/// The postings of one term: parallel columns, units ascending.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postings<'a> {
    /// Units that hold the term.
    pub units: &'a [u32],
    /// How often, at most 255.
    pub counts: &'a [u8],
    /// Their lengths as [`length_code`]s.
    pub lengths: &'a [u8],
}

/// Postings in memory.
#[derive(Clone, Debug, Default)]
struct List {
    units: Vec<u32>,
    counts: Vec<u8>,
    lengths: Vec<u8>,
}

/// Postings of the units that no segment holds yet.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    lists: HashMap<Term, List>,
    units: u32,
    tokens: u64,
    postings: usize,
}

/// Counts of one text's terms, ready to be added to a tail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    terms: Vec<(Term, u8)>,
    length: u32,
}

impl Counts {
    /// The counts of these terms; `length` counts repetitions.
    pub fn of(mut terms: Vec<Term>) -> Self {
        let length = u32::try_from(terms.len()).unwrap_or(u32::MAX);
        terms.sort_unstable();
        let mut counted: Vec<(Term, u8)> = Vec::with_capacity(terms.len());
        for term in terms {
            match counted.last_mut() {
                Some((last, count)) if *last == term => *count = count.saturating_add(1),
                _ => counted.push((term, 1)),
            }
        }
        Self { terms: counted, length }
    }

    /// The distinct terms, sorted.
    pub fn terms(&self) -> impl ExactSizeIterator<Item = Term> + '_ {
        self.terms.iter().map(|(term, _)| *term)
    }
}

impl Tail {
    /// Adds the next unit; units come in ascending order.
    pub fn push(&mut self, unit: u32, counts: &Counts) {
        let length = length_code(counts.length);
        for (term, count) in &counts.terms {
            let list = self.lists.entry(*term).or_default();
            list.units.push(unit);
            list.counts.push(*count);
            list.lengths.push(length);
        }
        self.postings += counts.terms.len();
        self.units += 1;
        self.tokens += u64::from(counts.length);
    }

    fn get(&self, term: Term) -> Postings<'_> {
        self.lists.get(&term).map_or_else(Postings::default, |list| Postings {
            units: &list.units,
            counts: &list.counts,
            lengths: &list.lengths,
        })
    }
}

/// All postings: at most one segment, a tail that is being merged into it, and the tail that grows.
#[derive(Clone, Default)]
pub struct Lexicon {
    segment: Option<Arc<Segment>>,
    frozen: Option<Arc<Tail>>,
    tail: Tail,
}

impl fmt::Debug for Lexicon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lexicon").field("units", &self.units()).finish_non_exhaustive()
    }
}

/// A term to look for, and those that may stand in for it with how well they do: each occurrence of such a one
/// counts as that share of an occurrence of the term.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// The term.
    pub term: Term,
    /// Its stand-ins.
    pub kin: Vec<(Term, f32)>,
}

impl From<Term> for Asked {
    fn from(term: Term) -> Self {
        Self { term, kin: Vec::new() }
    }
}

impl Lexicon {
    /// Starts from a segment.
    pub fn with_segment(segment: Option<Segment>) -> Self {
        Self { segment: segment.map(Arc::new), frozen: None, tail: Tail::default() }
    }

    /// Units indexed.
    pub fn units(&self) -> u32 {
        let frozen = self.frozen.as_ref().map_or(0, |tail| tail.units);
        self.segment.as_ref().map_or(0, |segment| segment.units()) + frozen + self.tail.units
    }

    /// Units in the tails.
    pub fn unmerged(&self) -> u32 {
        self.tail.units + self.frozen.as_ref().map_or(0, |tail| tail.units)
    }

    /// Units that the segment holds.
    pub fn merged(&self) -> u32 {
        self.segment.as_ref().map_or(0, |segment| segment.units())
    }

    fn tokens(&self) -> u64 {
        let frozen = self.frozen.as_ref().map_or(0, |tail| tail.tokens);
        self.segment.as_ref().map_or(0, |segment| segment.tokens()) + frozen + self.tail.tokens
    }

    /// Adds the next unit.
    pub fn push(&mut self, unit: u32, counts: &Counts) {
        self.tail.push(unit, counts);
    }

    fn parts(&self, term: Term) -> [Postings<'_>; 3] {
        [
            self.segment.as_ref().map_or_else(Postings::default, |segment| segment.get(term)),
            self.frozen.as_ref().map_or_else(Postings::default, |tail| tail.get(term)),
            self.tail.get(term),
        ]
    }

    /// How many units hold the term.
    pub fn frequency(&self, term: Term) -> u32 {
        self.parts(term).iter().map(|part| u32::try_from(part.units.len()).unwrap_or(u32::MAX)).sum()
    }

    /// BM25's inverse document frequency of a term (the form that is never negative); 0 for an unknown one.
    pub fn idf(&self, term: Term) -> f32 {
        let frequency = self.frequency(term) as f32;
        if frequency == 0.0 { 0.0 } else { idf(self.units() as f32, frequency) }
    }

    /// Freezes the growing tail so that it can be merged while new units come in; `None` when there is nothing to
    /// merge or a merge is under way.
    pub fn freeze(&mut self) -> Option<(Option<Arc<Segment>>, Arc<Tail>)> {
        if self.frozen.is_some() || self.tail.units == 0 {
            return None;
        }
        let frozen = Arc::new(std::mem::take(&mut self.tail));
        self.frozen = Some(Arc::clone(&frozen));
        Some((self.segment.clone(), frozen))
    }

    /// What was frozen and not merged yet: a merge that failed is tried again.
    pub fn unfinished(&self) -> Option<(Option<Arc<Segment>>, Arc<Tail>)> {
        self.frozen.as_ref().map(|tail| (self.segment.clone(), Arc::clone(tail)))
    }

    /// Takes the outcome of a merge of what [`Lexicon::freeze`] gave.
    pub fn thaw(&mut self, merged: Segment) {
        self.segment = Some(Arc::new(merged));
        self.frozen = None;
    }
}

/// Writes the union of a segment and a tail as a new segment.
///
/// # Errors
/// [`SegmentError::Io`].
pub fn merge(path: &Path, base: Option<&Segment>, tail: &Tail) -> Result<Segment, SegmentError> {
    let mut terms: Vec<Term> = tail.lists.keys().copied().collect();
    terms.sort_unstable();
    segment::write(path, base, tail, &terms)
}

fn idf(units: f32, frequency: f32) -> f32 {
    (1.0 + (units - frequency + 0.5) / (frequency + 0.5)).ln()
}

/// A length in terms as one byte: exact up to 64, then 16 steps per octave.
pub fn length_code(length: u32) -> u8 {
    if length <= 64 {
        return length as u8;
    }
    (64.0 + (length as f32 / 64.0).log2() * 16.0).round().min(255.0) as u8
}

fn decode_length(code: u8) -> f32 {
    if code <= 64 { f32::from(code) } else { 64.0 * ((f32::from(code) - 64.0) / 16.0).exp2() }
}

#[cfg(test)]
mod tests;
