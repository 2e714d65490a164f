//! The words that restore a wallet, where words in front announce them.

use super::SecretKind;
use super::scan::{Rank, Scan};
use super::value;

/// What announces the words of a wallet.
pub(super) const ANCHORS: &[&str] = &[
    "seed phrase",
    "seed words",
    "seed_phrase",
    "seedphrase",
    "seed-phrase",
    "recovery phrase",
    "recovery words",
    "recovery_phrase",
    "recovery-phrase",
    "recovery seed",
    "mnemonic",
    "wallet phrase",
    "wallet seed",
    "wallet words",
    "backup phrase",
    "backup words",
    "secret phrase",
    "secret words",
    "secret recovery",
    "bip39",
    "bip-39",
    "12 words",
    "24 words",
    "12-word",
    "24-word",
    "twelve words",
    "wallet backup",
    "wallet recovery",
    "my seed",
    "seed is",
    "seed:",
    "seed=",
    "24 word",
    "12 word",
    "passphrase",
    "word phrase",
    "seed =",
];

/// Common words that no list of wallet words has; one of them is prose.
const NOT_IN_LIST: &[&str] = &[
    "the",
    "and",
    "for",
    "are",
    "was",
    "with",
    "from",
    "your",
    "not",
    "but",
    "its",
    "his",
    "her",
    "our",
    "which",
    "were",
    "their",
    "these",
    "been",
    "should",
    "could",
    "would",
    "words",
    "into",
    "than",
    "has",
    "had",
    "does",
    "did",
    "being",
    "because",
    "while",
    "where",
    "please",
    "must",
    "every",
    "using",
    "used",
    "uses",
    "them",
    "those",
    "phrase",
    "mnemonic",
    "bip",
    "passphrase",
    "my",
    "is",
    "what",
    "how",
    "who",
    "why",
];

/// Most bytes between the announcement and the first word.
const GAP: usize = 160;

/// Looks for words behind an announcement that ends at `end`.
pub(super) fn at(scan: &mut Scan<'_>, end: usize) {
    let window = scan.window(end, 900);
    let mut run: Vec<(usize, usize)> = Vec::new();
    for (from, word) in words(window) {
        match word {
            Some(word) if is_listed(word) => run.push((from, from + word.len())),
            _ => {
                if run.len() >= 12 {
                    break;
                }
                run.clear();
                if from > GAP {
                    return;
                }
            }
        }
    }
    // A run of 14 is a phrase of 12 and the sentence going on.
    let len = [24, 21, 18, 15, 12].into_iter().find(|len| run.len() >= *len).unwrap_or(0);
    let words = run.get(..len).unwrap_or_default();
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return };
    let exact = run.len() == len;
    let text = window.get(first.0..last.1).unwrap_or_default();
    let mut distinct: Vec<&str> = words.iter().filter_map(|(a, b)| window.get(*a..*b)).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let varied = distinct.len() * 2 >= len || text.contains("abandon");
    if varied && (exact || !value::is_prose(text)) {
        scan.push(end + first.0, end + last.1, SecretKind::SeedPhrase, Rank::Place);
    }
}

/// Whether a word has the form of a listed one: 3 to 8 small letters.
fn is_listed(word: &str) -> bool {
    (3..=8).contains(&word.len())
        && word.bytes().all(|b| b.is_ascii_lowercase())
        && !NOT_IN_LIST.contains(&word)
}

/// The words of a text with where they begin; `None` for a mark that ends a run.
fn words(text: &str) -> impl Iterator<Item = (usize, Option<&str>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = text.get(at..)?;
            let first = rest.chars().next()?;
            let start = at;
            if first.is_alphabetic() {
                let len = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
                at += len;
                return Some((start, rest.get(..len)));
            }
            let numbered = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            at += if numbered > 0 { numbered } else { first.len_utf8() };
            // Numbers, commas and quotes part listed words; the end of a sentence ends them.
            let stop = match first {
                '.' | ')' | ':' => {
                    numbered == 0
                        && !text.get(..start).is_some_and(|t| t.ends_with(|c: char| c.is_ascii_digit()))
                }
                '=' | ';' | '!' | '?' | '{' | '}' | '(' => true,
                _ => false,
            };
            if stop {
                return Some((start, None));
            }
        }
    })
}
