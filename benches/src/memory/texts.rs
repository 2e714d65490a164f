//! As many different texts as wanted, from a few thousand real ones.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::random::Random;

/// Longest text of a speed run, in bytes: notes of agents are a few sentences.
pub const LONGEST: usize = 600;

/// Real texts, and copies of them that each begin with other words.
#[derive(Clone, Debug)]
pub struct Texts {
    base: Vec<String>,
    words: Vec<String>,
}

impl Texts {
    /// Keeps the texts of 20 to [`LONGEST`] bytes, each once, in an order drawn from the seed.
    ///
    /// # Errors
    /// When too few are left to make a million different ones.
    pub fn new(texts: impl IntoIterator<Item = String>, seed: u64) -> Result<Self> {
        let same = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let sized = |text: &String| (20..=LONGEST).contains(&text.len());
        let unique: BTreeSet<String> = texts.into_iter().map(|text| same(&text)).filter(sized).collect();
        let plain = |word: &&str| word.len() > 2 && word.chars().all(char::is_alphabetic);
        let words: BTreeSet<String> =
            unique.iter().flat_map(|text| text.split(' ')).filter(plain).map(str::to_lowercase).collect();
        let (mut base, mut words): (Vec<_>, Vec<_>) =
            (unique.into_iter().collect(), words.into_iter().collect());
        ensure!(base.len() > 1 && words.len() > 10, "too few texts of 20 to {LONGEST} bytes: {}", base.len());
        let mut random = Random::of(seed, "texts");
        random.shuffle(&mut base);
        random.shuffle(&mut words);
        Ok(Self { base, words })
    }

    /// How many real ones there are.
    pub const fn len(&self) -> usize {
        self.base.len()
    }

    /// Whether there are none, which [`Texts::new`] refuses.
    pub const fn is_empty(&self) -> bool {
        self.base.is_empty()
    }

    /// Text number `index`: a real one, or one with words before it that count which copy it is.
    pub fn text(&self, index: usize) -> String {
        let count = self.base.len().max(1);
        let base = self.base.get(index % count).map_or("", String::as_str);
        match index / count {
            0 => base.to_owned(),
            copy => self.variant(base, copy),
        }
    }

    /// Copy number `copy` (from 1) of a text. The number is written in words of the texts, as digits to that base.
    pub fn variant(&self, text: &str, copy: usize) -> String {
        let base = self.words.len().max(2);
        let (mut rest, mut said) = (copy, Vec::new());
        while rest > 0 {
            said.extend(self.words.get(rest % base).map(String::as_str));
            rest /= base;
        }
        format!("{}: {text}", said.join(" "))
    }

    /// A made-up name that stands in no other text, for facts that must be found again.
    pub fn name(number: usize) -> String {
        const PARTS: [&str; 16] = [
            "ba", "dor", "fi", "gan", "hul", "ke", "lom", "mi", "nar", "po", "qui", "ros", "su", "tev", "vu",
            "zan",
        ];
        let mut name = String::from("Xo");
        let mut rest = number;
        for _ in 0..5 {
            name.push_str(PARTS.get(rest % PARTS.len()).copied().unwrap_or_default());
            rest /= PARTS.len();
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Texts {
        let words = "apple bread candle dinner evening flower garden harbour island jacket kitchen letter";
        let sentence = |n: usize| format!("Sentence with {words} and the number {n}.");
        Texts::new((0..9).map(sentence).chain(["short".into(), "x".repeat(700)]), 1).unwrap()
    }

    #[test]
    fn every_text_differs_even_without_its_blanks() {
        let texts = texts();
        assert_eq!(texts.len(), 9);
        let all: BTreeSet<String> = (0..20_000).map(|index| texts.text(index)).collect();
        assert_eq!(all.len(), 20_000);
        assert!(texts.text(9).ends_with(&texts.text(0)));
        assert!(texts.text(3).starts_with("Sentence with"));
    }

    #[test]
    fn names_differ_and_few_texts_are_refused() {
        let names: BTreeSet<String> = (0..5000).map(Texts::name).collect();
        assert_eq!(names.len(), 5000);
        assert!(Texts::new(["short".to_owned()], 1).is_err());
    }
}
