//! The words of all records with a vector each: what makes "physician" find "doctor".
//!
//! Every form of a word is embedded alone, once: those that share a stem are often different words ("even" and
//! "evening", "active" and "activities"), so a question's neighbours are those of the form that it has. A question's
//! term then counts for the terms of its nearest neighbours too ([`Vocabulary::near`]), the less the further they are.
//! Neighbours are computed when they are first asked for; what gets a vector later is compared with them when they are
//! asked for again.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::{
    text::{Term, hash},
    vectors::Store,
};

/// Neighbours with a cosine below this are no kin.
const KIN: f32 = 0.6;
/// Most terms that stand in for another.
const MOST: usize = 24;
/// Most neighbours of a word: several may be forms of one.
const FORMS: usize = 64;
/// Vectors that are compared exactly in a search for them: kin stand out, so that few are enough.
const COMPARED: usize = 256;
/// The first line of the file. The number goes up when other words are taken in.
const HEADER: &str = "words 2";
/// Most words; the rarest of a larger vocabulary are names, which have no kin.
const LIMIT: usize = 200_000;

/// Words with new vectors up to which each is compared with a term's neighbours; more are searched as a whole.
const CATCH_UP: usize = 4_096;

/// A term that stands in for another, and how well: 1 is as good.
pub(super) type Kin = (Term, f32);

/// The words in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    /// Each word's number, by its hash.
    numbers: HashMap<u64, u32>,
    /// The first word of each term.
    terms: HashMap<Term, u32>,
    words: Vec<(Term, Box<str>)>,
    /// A vector per word, by its number.
    pub(super) vectors: Option<Store>,
    /// Words by number in the order in which they got their vectors, since the vectors were opened.
    fresh: Vec<u32>,
    near: Mutex<HashMap<u32, Near>>,
    /// How many words the file has; `None` when there is none of this version.
    saved: Option<usize>,
}

/// What is known of a word's neighbours.
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
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return found;
        }
        for line in lines {
            let Some((term, word)) = line.split_once('\t') else { break };
            let Ok(term) = Term::from_str_radix(term, 16) else { break };
            found.add(term, word);
        }
        found.saved = Some(found.words.len());
        found
    }

    /// Whether there is no file of it: then it lacks the words of all that was indexed before.
    pub(super) const fn is_new(&self) -> bool {
        self.saved.is_none()
    }

    /// Writes the words, when there are new ones.
    pub(super) fn text(&mut self) -> Option<String> {
        use std::fmt::Write as _;
        if self.saved == Some(self.words.len()) {
            return None;
        }
        self.saved = Some(self.words.len());
        Some(self.words.iter().fold(format!("{HEADER}\n"), |mut text, (term, word)| {
            let _ = writeln!(text, "{term:016x}\t{word}");
            text
        }))
    }

    /// Takes a word in.
    pub(super) fn add(&mut self, term: Term, word: &str) {
        if self.words.len() < LIMIT
            && let Entry::Vacant(place) = self.numbers.entry(hash(word))
        {
            let number = u32::try_from(self.words.len()).unwrap_or(u32::MAX);
            place.insert(number);
            self.terms.entry(term).or_insert(number);
            self.words.push((term, word.into()));
        }
    }

    /// Takes other vectors into use: what was near by the old ones need not be by these.
    pub(super) fn adopt(&mut self, mut vectors: Option<Store>) {
        vectors.iter_mut().for_each(|store| store.set_candidates(COMPARED));
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
    pub(super) fn saved(&self) -> usize {
        self.saved.unwrap_or(0)
    }

    /// The vectors of the words that another vocabulary has too, by the numbers they have there.
    pub(super) fn shared(&self, other: &Self) -> Result<Vec<(u32, Vec<i8>, f32)>, super::vectors::Error> {
        let Some(store) = &self.vectors else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for (number, (_, word)) in (0..).zip(&other.words) {
            if let Some(known) = self.numbers.get(&hash(word))
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

    /// The terms nearest to a word, which is of a term itself, the nearest first. A word that is not in the vocabulary
    /// has the neighbours of the first one of its term; one whose term is not there either has none.
    pub(super) fn near(&self, term: Term, word: &str) -> Vec<Kin> {
        let number = self.numbers.get(&hash(word)).or_else(|| self.terms.get(&term));
        let (Some(store), Some(number)) = (&self.vectors, number) else { return Vec::new() };
        let mut near = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        let known = near.get(number).map(|known| known.seen);
        if known != Some(self.fresh.len()) {
            // What cannot be read now is tried again with the next question.
            let Ok(Some((row, scale))) = store.get(*number) else { return Vec::new() };
            let vector: Vec<f32> = row.iter().map(|value| f32::from(*value) * scale).collect();
            let found = match near.remove(number) {
                Some(Near { seen, words }) if self.fresh.len() - seen <= CATCH_UP => {
                    self.nearer(store, words, seen, &vector)
                }
                _ => store.search(&vector, FORMS + 1, None, 1),
            };
            let Ok(mut words) = found else { return Vec::new() };
            words.retain(|(other, score)| other != number && *score > KIN);
            words.truncate(FORMS);
            near.insert(*number, Near { seen: self.fresh.len(), words });
        }
        let mut kin: Vec<Kin> = Vec::new();
        for (other, score) in near.get(number).map_or(&[][..], |known| &known.words) {
            let Some((other, _)) = self.words.get(*other as usize) else { continue };
            // Of several forms the nearest counts.
            if *other != term && !kin.iter().any(|(known, _)| known == other) {
                kin.push((*other, (score - KIN) / (1.0 - KIN)));
            }
            if kin.len() == MOST {
                break;
            }
        }
        kin
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
    fn every_form_of_a_word_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocabulary");
        let mut words = Vocabulary::default();
        words.add(hash("activ"), "activities");
        words.add(hash("activ"), "active");
        words.add(hash("tea"), "tea");
        words.add(hash("activ"), "activities");
        assert!(words.is_new());
        fs::write(&path, words.text().unwrap()).unwrap();
        assert!(words.text().is_none());
        let forms: Vec<&str> = words.words.iter().map(|(_, word)| &**word).collect();
        assert_eq!(forms, ["activities", "active", "tea"]);
        let again = Vocabulary::load(&path);
        assert_eq!((&again.words, again.saved(), again.is_new()), (&words.words, 3, false));
        fs::write(&path, "nonsense").unwrap();
        let lost = Vocabulary::load(&path);
        assert!(lost.words.is_empty() && lost.is_new());
        // One without words is known to be so.
        fs::write(&path, Vocabulary::default().text().unwrap()).unwrap();
        assert!(!Vocabulary::load(&path).is_new());
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
        let kin = words.near(hash("doctor"), "doctor");
        assert_eq!(kin.len(), 1);
        assert_eq!(kin[0].0, hash("physician"));
        assert!((kin[0].1 - 0.75).abs() < 0.02, "{kin:?}");
        assert!(words.near(hash("unheard"), "unheard").is_empty());
    }

    #[test]
    fn a_word_has_the_kin_of_its_own_form() {
        let folder = tempfile::tempdir().unwrap();
        let mut words = Vocabulary::default();
        for (stem, word) in
            [("even", "even"), ("even", "evening"), ("night", "night"), ("night", "nights"), ("fair", "fair")]
        {
            words.add(hash(stem), word);
        }
        words.adopt(Some(Store::open(folder.path(), 64, "test").unwrap()));
        let vectors = [(1.0, 0.0), (0.0, 1.0), (0.1, 0.99), (0.3, 0.95), (0.95, 0.3)];
        for ((number, (x, y)), word) in (0..).zip(vectors).zip(["even", "evening", "night", "nights", "fair"])
        {
            embed(&mut words, number, word, &vector(x, y));
        }
        let names = |word: &str| -> Vec<Term> {
            words.near(hash("even"), word).into_iter().map(|(term, _)| term).collect()
        };
        // Each term once, and never the one that is asked for.
        assert_eq!(names("evening"), [hash("night")]);
        assert_eq!(names("even"), [hash("fair")]);
        assert_eq!(names("evenings"), [hash("fair")], "a form that no text has stands as the first one does");
    }

    #[test]
    fn kin_asked_for_while_words_wait_are_completed() {
        let folder = tempfile::tempdir().unwrap();
        let list = ["doctor", "river", "physician", "medic", "nurse"];
        let mut words = vocabulary(folder.path(), &list);
        assert!(words.near(hash("doctor"), "doctor").is_empty(), "it has no vector itself");
        embed(&mut words, 0, "doctor", &vector(1.0, 0.0));
        embed(&mut words, 1, "river", &vector(0.0, 1.0));
        assert!(words.near(hash("doctor"), "doctor").is_empty());
        embed(&mut words, 2, "physician", &vector(0.9, 0.43));
        let names = |words: &Vocabulary| -> Vec<Term> {
            words.near(hash("doctor"), "doctor").into_iter().map(|(term, _)| term).collect()
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
        assert_eq!(words.near(hash("doctor"), "doctor").len(), 1);
        words.adopt(Some(Store::open(two.path(), 64, "other").unwrap()));
        assert!(words.near(hash("doctor"), "doctor").is_empty());
        embed(&mut words, 0, "doctor", &vector(1.0, 0.0));
        embed(&mut words, 1, "physician", &vector(0.0, 1.0));
        assert!(words.near(hash("doctor"), "doctor").is_empty());
        // The number is another word's by now.
        embed(&mut words, 1, "doctors", &vector(1.0, 0.0));
        assert!(words.near(hash("doctor"), "doctor").is_empty());
    }
}
