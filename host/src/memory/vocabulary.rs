//! The words of all records with a vector each: what makes "physician" find "doctor".
//!
//! A word is embedded alone, once, by the form that was met first: a shorter one that shares its stem is often another
//! word ("active" for "activities"). A question's term then counts for its nearest neighbours too
//! ([`Vocabulary::near`]), the less the further they are. Neighbours are computed when they are first asked for; what
//! gets a vector later is compared with them when they are asked for again.

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

/// Words with new vectors up to which each is compared with a term's neighbours; more are searched as a whole.
const CATCH_UP: usize = 4_096;

/// A term that stands in for another, and how well: 1 is as good.
pub(super) type Kin = (Term, f32);

/// The words in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    terms: HashMap<Term, u32>,
    words: Vec<(Term, Box<str>)>,
    /// A vector per word, by its number.
    pub(super) vectors: Option<Store>,
    /// Words by number in the order in which they got their vectors, since the vectors were opened.
    fresh: Vec<u32>,
    near: Mutex<HashMap<Term, Near>>,
    saved: usize,
}

/// What is known of a term's neighbours.
#[derive(Debug, Default)]
struct Near {
    /// How many of the fresh words were looked at.
    seen: usize,
    /// Neighbours by number with their cosines, the nearest first.
    words: Vec<(u32, f32)>,
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
        if !self.terms.contains_key(&term) && self.words.len() < LIMIT {
            let number = u32::try_from(self.words.len()).unwrap_or(u32::MAX);
            self.terms.insert(term, number);
            self.words.push((term, word.into()));
        }
    }

    /// Takes other vectors into use: what was near by the old ones need not be by these.
    pub(super) fn adopt(&mut self, vectors: Option<Store>) {
        self.vectors = vectors;
        self.fresh.clear();
        self.near.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Takes in the vector of a word, unless its number has become another word's meanwhile.
    pub(super) fn embed(
        &mut self,
        number: u32,
        word: &str,
        values: &[i8],
        scale: f32,
    ) -> Result<(), super::vectors::Error> {
        let same = self.words.get(number as usize).is_some_and(|(_, known)| **known == *word);
        if let Some(store) = self.vectors.as_mut().filter(|_| same) {
            store.push(number, values, scale)?;
            self.fresh.push(number);
        }
        Ok(())
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
        let mut near = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        let known = near.get(&term).map(|known| known.seen);
        if known != Some(self.fresh.len()) {
            // What cannot be read now is tried again with the next question.
            let Ok(Some((row, scale))) = store.get(*number) else { return Vec::new() };
            let vector: Vec<f32> = row.iter().map(|value| f32::from(*value) * scale).collect();
            let found = match near.remove(&term) {
                Some(Near { seen, words }) if self.fresh.len() - seen <= CATCH_UP => {
                    self.nearer(store, words, seen, &vector)
                }
                _ => store.search(&vector, MOST + 1, None, 1),
            };
            let Ok(mut words) = found else { return Vec::new() };
            words.retain(|(other, score)| other != number && *score > KIN);
            words.truncate(MOST);
            near.insert(term, Near { seen: self.fresh.len(), words });
        }
        let words = near.get(&term).map_or(&[][..], |known| &known.words);
        let kin = |(other, score): &(u32, f32)| {
            Some((self.words.get(*other as usize)?.0, (score - KIN) / (1.0 - KIN)))
        };
        words.iter().filter_map(kin).collect()
    }

    /// Neighbours and those of the words that got their vectors since, the nearest first.
    fn nearer(
        &self,
        store: &Store,
        mut words: Vec<(u32, f32)>,
        seen: usize,
        vector: &[f32],
    ) -> Result<Vec<(u32, f32)>, super::vectors::Error> {
        for other in self.fresh.get(seen..).unwrap_or_default() {
            let cosine = store.product(*other, vector)?;
            words.extend(cosine.map(|cosine| (*other, cosine)));
        }
        words.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::text::hash;

    #[test]
    fn words_are_kept_by_the_form_met_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocabulary");
        let mut words = Vocabulary::default();
        words.add(hash("activ"), "activities");
        words.add(hash("activ"), "active");
        words.add(hash("tea"), "tea");
        fs::write(&path, words.text().unwrap()).unwrap();
        assert!(words.text().is_none());
        assert_eq!(&*words.words[0].1, "activities");
        let again = Vocabulary::load(&path);
        assert_eq!(again.words, words.words);
        fs::write(&path, "nonsense").unwrap();
        assert!(Vocabulary::load(&path).words.is_empty());
    }

    fn vector(x: f32, y: f32) -> Vec<f32> {
        let mut all = vec![0.0; 64];
        (all[0], all[1]) = (x, y);
        all
    }

    /// A vocabulary whose words have no vectors yet.
    fn vocabulary(folder: &Path, list: &[&str]) -> Vocabulary {
        let mut words = Vocabulary::default();
        list.iter().for_each(|word| words.add(hash(word), word));
        words.adopt(Some(Store::open(folder, 64, "test").unwrap()));
        words
    }

    fn embed(words: &mut Vocabulary, number: u32, word: &str, vector: &[f32]) {
        let super::super::record::Row { scale, values } = super::super::keeper::quantise(vector);
        words.embed(number, word, &values, scale).unwrap();
    }

    #[test]
    fn kin_are_near_and_known() {
        let folder = tempfile::tempdir().unwrap();
        let mut words = vocabulary(folder.path(), &["doctor", "physician", "river"]);
        embed(&mut words, 0, "doctor", &vector(1.0, 0.0));
        embed(&mut words, 1, "physician", &vector(0.9, 0.43));
        assert_eq!(words.waiting(9), [(2, "river".to_owned())]);
        embed(&mut words, 2, "river", &vector(0.0, 1.0));
        let kin = words.near(hash("doctor"));
        assert_eq!(kin.len(), 1);
        assert_eq!(kin[0].0, hash("physician"));
        assert!((kin[0].1 - 0.75).abs() < 0.02, "{kin:?}");
        assert!(words.near(hash("unheard")).is_empty());
    }

    #[test]
    fn kin_asked_for_while_words_wait_are_completed() {
        let folder = tempfile::tempdir().unwrap();
        let list = ["doctor", "river", "physician", "medic", "nurse"];
        let mut words = vocabulary(folder.path(), &list);
        assert!(words.near(hash("doctor")).is_empty(), "it has no vector itself");
        embed(&mut words, 0, "doctor", &vector(1.0, 0.0));
        embed(&mut words, 1, "river", &vector(0.0, 1.0));
        assert!(words.near(hash("doctor")).is_empty());
        embed(&mut words, 2, "physician", &vector(0.9, 0.43));
        let names = |words: &Vocabulary| -> Vec<Term> {
            words.near(hash("doctor")).into_iter().map(|(term, _)| term).collect()
        };
        assert_eq!(names(&words), [hash("physician")]);
        embed(&mut words, 3, "medic", &vector(0.99, 0.1));
        embed(&mut words, 4, "nurse", &vector(0.8, 0.6));
        let all = ["medic", "physician", "nurse"].map(hash);
        assert_eq!(names(&words), all);
        assert_eq!(names(&words), all, "and stay so");
        words.near.lock().unwrap().clear();
        assert_eq!(names(&words), all, "as they are when they are asked for once, at the end");
    }

    #[test]
    fn kin_by_other_vectors_are_forgotten() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut words = vocabulary(one.path(), &["doctor", "physician"]);
        embed(&mut words, 0, "doctor", &vector(1.0, 0.0));
        embed(&mut words, 1, "physician", &vector(0.9, 0.43));
        assert_eq!(words.near(hash("doctor")).len(), 1);
        words.adopt(Some(Store::open(two.path(), 64, "other").unwrap()));
        assert!(words.near(hash("doctor")).is_empty());
        embed(&mut words, 0, "doctor", &vector(1.0, 0.0));
        embed(&mut words, 1, "physician", &vector(0.0, 1.0));
        assert!(words.near(hash("doctor")).is_empty());
        // The number is another word's by now.
        embed(&mut words, 1, "doctors", &vector(1.0, 0.0));
        assert!(words.near(hash("doctor")).is_empty());
    }
}
