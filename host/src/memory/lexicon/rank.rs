//! The units with the highest BM25 scores, without scoring all of them.
//!
//! Units are scored in blocks whose sums fit the processor's near caches, term after term. The terms that can add most
//! come first; once those that are left cannot lift a unit above what counts as good, only the units that have come
//! close already are looked up in them (MaxScore: Turtle & Flood 1995). Those are the frequent words, which have most
//! of the postings. Every unit's terms are added in the same order, so that equal texts have equal scores.

use std::sync::LazyLock;

use super::{Asked, Bm25, Lexicon, Postings, decode_length, idf};

/// Units that are scored together.
const BLOCK: u32 = 16_384;
/// Units of the first block, all of which that have any of the words are handed on.
const FIRST: u32 = 2_048;
/// Units that are looked at together.
const GLANCE: usize = 64;
/// What looking one unit up in one list costs, in postings that are read one after the other.
const LOOK_UP: f32 = 8.0;
/// What sums of rounded numbers may lie above their bound.
const SLACK: f32 = 1.0 + 1e-5;

/// The lengths that the codes stand for.
static LENGTHS: LazyLock<[f32; 256]> =
    LazyLock::new(|| std::array::from_fn(|code| decode_length(code as u8)));

/// One list of postings, read from front to back.
#[derive(Debug)]
struct List<'a> {
    postings: Postings<'a>,
    /// How much an occurrence counts.
    weight: f32,
    /// Postings before this were read.
    at: usize,
}

/// A term with its stand-ins.
#[derive(Debug)]
struct Sought<'a> {
    lists: Vec<List<'a>>,
    /// More than this it adds to no unit.
    most: f32,
    postings: usize,
}

/// The sums of a block.
#[derive(Debug)]
struct Sums {
    scores: Vec<f32>,
    /// Occurrences of the current term and its stand-ins; all 0 between terms.
    counts: Vec<f32>,
    /// Where those are not 0, and the codes of the units' lengths, of which so many are `noted`.
    touched: Vec<(u16, u8)>,
    noted: usize,
    /// What a length does to a count.
    norms: [f32; 256],
}

impl Lexicon {
    /// Hands the units that score above a floor to `see`, block by block in ascending order, and takes from it the
    /// floor for the next block; the first floor is 0. A term with stand-ins is as rare as they are on average, each
    /// counting as much as it stands in for the term.
    pub fn rank(&self, terms: &[Asked], bm25: Bm25, mut see: impl FnMut(&[(u32, f32)]) -> f32) {
        let units = self.units();
        let average = (self.tokens() as f32 / units.max(1) as f32).max(1.0);
        let mut sought: Vec<Sought<'_>> = terms.iter().filter_map(|asked| self.sought(asked, bm25)).collect();
        sought.sort_by(|a, b| b.most.total_cmp(&a.most));
        // By term, what it and those after it add at most.
        let mut bounds: Vec<f32> = Vec::with_capacity(sought.len());
        let mut left = 0.0;
        for term in sought.iter().rev() {
            left += term.most;
            bounds.push(left * SLACK);
        }
        bounds.reverse();
        let mut sums = Sums::new(bm25, average, units.min(BLOCK) as usize);
        let (mut close, mut found) = (Vec::new(), Vec::new());
        let mut floor = 0.0;
        let mut from = 0;
        while from < units {
            let to = units.min(from.saturating_add(if from == 0 { FIRST } else { BLOCK }));
            sums.scores.clear();
            sums.scores.resize((to - from) as usize, 0.0);
            close.clear();
            let mut narrowed = false;
            for (term, bound) in sought.iter_mut().zip(&bounds) {
                if *bound <= floor {
                    let least = floor - bound;
                    if narrowed {
                        close.retain(|unit| sums.score(*unit) > least);
                    } else {
                        sums.above(least, &mut close);
                        narrowed = true;
                    }
                    if close.is_empty() {
                        break;
                    }
                    let read = term.postings as f32 * ((to - from) as f32 / units as f32);
                    if close.len() as f32 * term.lists.len() as f32 * LOOK_UP < read {
                        term.look_up(from, &close, &mut sums);
                        continue;
                    }
                }
                term.read(from, to, &mut sums);
            }
            found.clear();
            if !narrowed {
                sums.above(floor, &mut close);
            }
            let good = close.iter().map(|unit| (from + unit, sums.score(*unit)));
            found.extend(good.filter(|(_, score)| *score > floor));
            floor = see(&found);
            from = to;
        }
    }

    /// The lists of a term and of its stand-ins, of those that there are.
    fn sought(&self, Asked { term, kin }: &Asked, bm25: Bm25) -> Option<Sought<'_>> {
        let units = self.units() as f32;
        let (mut lists, mut weights, mut idfs, mut postings) = (Vec::new(), 0.0, 0.0, 0);
        let stand_ins = kin.iter().copied().filter(|(_, weight)| *weight > 0.0);
        for (term, weight) in std::iter::once((*term, 1.0)).chain(stand_ins) {
            let parts = self.parts(term).into_iter().filter(|part| !part.units.is_empty());
            let before = postings;
            lists.extend(parts.map(|part| {
                postings += part.units.len();
                List { postings: part, weight, at: 0 }
            }));
            if postings > before {
                weights += weight;
                idfs += weight * idf(units, (postings - before) as f32);
            }
        }
        (postings > 0).then(|| Sought { lists, most: idfs / weights * (bm25.k1 + 1.0), postings })
    }
}

impl Sought<'_> {
    /// Adds the term's scores of the block's units.
    fn read(&mut self, from: u32, to: u32, sums: &mut Sums) {
        let most = self.most;
        if let [list] = self.lists.as_mut_slice() {
            list.skip(from);
            list.each(from, to, |unit, count, length| sums.add(unit, count, length, most));
            return;
        }
        for list in &mut self.lists {
            list.skip(from);
            list.each(from, to, |unit, count, length| sums.count(unit, count, length));
        }
        sums.flush(most);
    }

    /// Adds the term's scores of a few of the block's units, in ascending order.
    fn look_up(&mut self, from: u32, close: &[u32], sums: &mut Sums) {
        for place in close {
            let (mut sum, mut code) = (0.0, 0);
            for list in &mut self.lists {
                list.skip(from + place);
                if let Some((count, length)) = list.get(from + place) {
                    sum += count;
                    code = length;
                }
            }
            if sum > 0.0 {
                sums.add(*place, sum, code, self.most);
            }
        }
    }
}

impl List<'_> {
    /// Goes on to the first posting of a unit from this one on: in growing steps, then by halves.
    fn skip(&mut self, unit: u32) {
        let rest = self.postings.units.get(self.at..).unwrap_or_default();
        if rest.first().is_none_or(|first| *first >= unit) {
            return;
        }
        let mut step = 1;
        while rest.get(step).is_some_and(|other| *other < unit) {
            step *= 2;
        }
        let (low, high) = (step / 2, rest.len().min(step + 1));
        let within = rest.get(low..high).unwrap_or_default();
        self.at += low + within.partition_point(|other| *other < unit);
    }

    /// Weighted count and length of a unit, when it is the next.
    fn get(&self, unit: u32) -> Option<(f32, u8)> {
        self.postings.units.get(self.at).filter(|next| **next == unit)?;
        let count = f32::from(*self.postings.counts.get(self.at)?) * self.weight;
        Some((count, *self.postings.lengths.get(self.at)?))
    }

    /// Reads on to the end of a block; units are counted from its beginning.
    fn each(&mut self, from: u32, to: u32, mut take: impl FnMut(u32, f32, u8)) {
        let Postings { units, counts, lengths } = self.postings;
        let rest = units.get(self.at..).unwrap_or_default().iter();
        let columns = rest
            .zip(counts.get(self.at..).unwrap_or_default())
            .zip(lengths.get(self.at..).unwrap_or_default());
        let mut read = 0;
        for ((unit, count), length) in columns {
            if *unit >= to {
                break;
            }
            take(unit - from, f32::from(*count) * self.weight, *length);
            read += 1;
        }
        self.at += read;
    }
}

impl Sums {
    fn new(Bm25 { k1, b }: Bm25, average: f32, units: usize) -> Self {
        let norms = LENGTHS.map(|length| k1 * (1.0 - b + b * length / average));
        // One more, so that a place can be written down before it is known whether it is a new one.
        let touched = vec![(0, 0); units + 1];
        Self { scores: Vec::with_capacity(units), counts: vec![0.0; units], touched, noted: 0, norms }
    }

    fn score(&self, unit: u32) -> f32 {
        self.scores.get(unit as usize).copied().unwrap_or(0.0)
    }

    fn norm(&self, length: u8) -> f32 {
        // 256 lengths: a byte is always within them.
        #[allow(clippy::indexing_slicing, reason = "a byte indexes 256 entries")]
        self.norms[usize::from(length)]
    }

    /// Adds a unit's score of one term.
    #[inline]
    fn add(&mut self, unit: u32, count: f32, length: u8, most: f32) {
        let norm = self.norm(length);
        if let Some(score) = self.scores.get_mut(unit as usize) {
            *score += most * count / (count + norm);
        }
    }

    /// Adds to the occurrences of a term and its stand-ins.
    #[inline]
    fn count(&mut self, unit: u32, count: f32, length: u8) {
        let (Some(sum), Some(place)) = (self.counts.get_mut(unit as usize), self.touched.get_mut(self.noted))
        else {
            return;
        };
        // Without a branch, which nobody could foretell.
        *place = (unit as u16, length);
        self.noted += usize::from(*sum == 0.0);
        *sum += count;
    }

    /// Turns the occurrences into scores.
    fn flush(&mut self, most: f32) {
        let Self { scores, counts, touched, noted, norms } = self;
        for (unit, length) in touched.iter().take(*noted) {
            let unit = usize::from(*unit);
            if let (Some(sum), Some(score)) = (counts.get_mut(unit), scores.get_mut(unit)) {
                #[allow(clippy::indexing_slicing, reason = "a byte indexes 256 entries")]
                let norm = norms[usize::from(*length)];
                *score += most * *sum / (*sum + norm);
                *sum = 0.0;
            }
        }
        *noted = 0;
    }

    /// The units with scores above this, in ascending order.
    fn above(&self, least: f32, units: &mut Vec<u32>) {
        units.clear();
        for (first, scores) in (0_u32..).step_by(GLANCE).zip(self.scores.chunks(GLANCE)) {
            // Without a branch for each, so that scores of which none is good cost next to nothing.
            if scores.iter().fold(false, |any, score| any | (*score > least)) {
                let good = (first..).zip(scores).filter(|(_, score)| **score > least);
                units.extend(good.map(|(unit, _)| unit));
            }
        }
    }
}
