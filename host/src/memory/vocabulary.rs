//! The words of all records with a vector each: what makes "physician" find "doctor".
//!
//! A word is embedded alone, once, by its shortest form. A question's term then counts for its nearest neighbours
//! too ([`Vocabulary::near`]), the less the further they are. Neighbours are computed when they are first asked for
//! and kept until the vocabulary has grown by a tenth.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::{text::Term, vectors::Store};

/// Neighbours with a cosine below this are no kin.
const KIN: f32 = 0.6;
/// Most neighbours of a term.
const MOST: usize = 24;
/// Most words; the rarest of a larger vocabulary are names, which have no kin.
const LIMIT: usize = 200_000;

/// A term that stands in for another, and how well: 1 is as good.
pub(super) type Kin = (Term, f32);

/// The words in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    terms: HashMap<Term, u32>,
    words: Vec<(Term, Box<str>)>,
    /// A vector per word, by its number.
    pub(super) vectors: Option<Store>,
    kin: Mutex<HashMap<Term, (usize, Vec<Kin>)>>,
    saved: usize,
}

impl Vocabulary {
    /// Reads the words from a file; what is not as it should be ends the list.
    pub(super) fn load(path: &Path) -> Self {
        let mut found = Self::default();
        let text = fs::read_to_string(path).unwrap_or_default();
        for line in text.lines() {
            let Some((term, word)) = line.split_once('\t') else { break };
            let Ok(term) = Term::from_str_radix(term, 16) else { break };
            found.add(term, word);
        }
        found.saved = found.words.len();
        found
    }

    /// Writes the words, when there are new ones.
    pub(super) fn text(&mut self) -> Option<String> {
        use std::fmt::Write as _;
        if self.saved == self.words.len() {
            return None;
        }
        self.saved = self.words.len();
        Some(self.words.iter().fold(String::new(), |mut text, (term, word)| {
            let _ = writeln!(text, "{term:016x}\t{word}");
            text
        }))
    }

    /// Takes a word in.
    pub(super) fn add(&mut self, term: Term, word: &str) {
        match self.terms.get(&term) {
            Some(number) => {
                let embedded = self.vectors.as_ref().is_some_and(|store| store.contains(*number));
                if let Some((_, known)) = self.words.get_mut(*number as usize)
                    && !embedded
                    && word.len() < known.len()
                {
                    *known = word.into();
                }
            }
            None if self.words.len() < LIMIT => {
                let number = u32::try_from(self.words.len()).unwrap_or(u32::MAX);
                self.terms.insert(term, number);
                self.words.push((term, word.into()));
            }
            None => {}
        }
    }

    /// Words that the file has; vectors on disk are numbered by it.
    pub(super) const fn saved(&self) -> usize {
        self.saved
    }

    /// The vectors of the words that another vocabulary has too, by the numbers they have there.
    pub(super) fn shared(&self, other: &Self) -> Result<Vec<(u32, Vec<i8>, f32)>, super::vectors::Error> {
        let Some(store) = &self.vectors else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for (number, (term, _)) in (0..).zip(&other.words) {
            if let Some(known) = self.terms.get(term)
                && let Some((row, scale)) = store.get(*known)?
            {
                found.push((number, row, scale));
            }
        }
        Ok(found)
    }

    /// Words without a vector.
    pub(super) fn lacking(&self) -> u64 {
        self.vectors.as_ref().map_or(0, |store| (self.words.len() as u64).saturating_sub(store.len()))
    }

    /// The next words without a vector, by number.
    pub(super) fn waiting(&self, most: usize) -> Vec<(u32, String)> {
        let Some(store) = self.vectors.as_ref().filter(|_| self.lacking() > 0) else { return Vec::new() };
        let from = |start: usize| -> Vec<(u32, String)> {
            let lacking = (0..).zip(&self.words).skip(start).filter(|(number, _)| !store.contains(*number));
            lacking.take(most).map(|(number, (_, word))| (number, word.to_string())).collect()
        };
        // Words get their vectors in order, so that those that lack one are the last, unless a file was lost.
        let last = from(usize::try_from(store.len()).unwrap_or(usize::MAX));
        if last.is_empty() { from(0) } else { last }
    }

    /// The nearest kin of a term, the nearest first; none for a term that is no word of the vocabulary.
    pub(super) fn near(&self, term: Term) -> Vec<Kin> {
        let (Some(store), Some(number)) = (&self.vectors, self.terms.get(&term)) else { return Vec::new() };
        let size = store.len() as usize;
        let mut kept = self.kin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, kin)) = kept.get(&term)
            && then + then / 10 >= size
        {
            return kin.clone();
        }
        let Ok(Some((row, scale))) = store.get(*number) else { return Vec::new() };
        let vector: Vec<f32> = row.iter().map(|value| f32::from(*value) * scale).collect();
        let found = store.search(&vector, MOST + 1, None, 1).unwrap_or_default();
        let kin: Vec<Kin> = found
            .into_iter()
            .filter(|(other, score)| other != number && *score > KIN)
            .filter_map(|(other, score)| {
                Some((self.words.get(other as usize)?.0, (score - KIN) / (1.0 - KIN)))
            })
            .take(MOST)
            .collect();
        kept.insert(term, (size, kin.clone()));
        kin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::text::hash;

    #[test]
    fn words_are_kept_by_their_shortest_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocabulary");
        let mut words = Vocabulary::default();
        words.add(hash("kettl"), "kettles");
        words.add(hash("kettl"), "kettle");
        words.add(hash("tea"), "tea");
        fs::write(&path, words.text().unwrap()).unwrap();
        assert!(words.text().is_none());
        let again = Vocabulary::load(&path);
        assert_eq!(again.words, words.words);
        fs::write(&path, "nonsense").unwrap();
        assert!(Vocabulary::load(&path).words.is_empty());
    }

    #[test]
    fn kin_are_near_and_known() {
        let folder = tempfile::tempdir().unwrap();
        let mut words = Vocabulary::default();
        for word in ["doctor", "physician", "river"] {
            words.add(hash(word), word);
        }
        let mut store = Store::open(folder.path(), 64, "test").unwrap();
        let vector = |x: f32, y: f32| {
            let mut all = vec![0.0; 64];
            (all[0], all[1]) = (x, y);
            all
        };
        store.push_f32(0, &vector(1.0, 0.0)).unwrap();
        store.push_f32(1, &vector(0.9, 0.43)).unwrap();
        words.vectors = Some(store);
        assert_eq!(words.waiting(9), [(2, "river".to_owned())]);
        words.vectors.as_mut().unwrap().push_f32(2, &vector(0.0, 1.0)).unwrap();
        let kin = words.near(hash("doctor"));
        assert_eq!(kin.len(), 1);
        assert_eq!(kin[0].0, hash("physician"));
        assert!((kin[0].1 - 0.75).abs() < 0.02, "{kin:?}");
        assert!(words.near(hash("unheard")).is_empty());
    }
}
