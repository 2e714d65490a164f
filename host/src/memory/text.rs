//! Text into terms: the words that the lexical legs index and ask for.
//!
//! Words are runs of letters and digits, lower case, without diacritics, reduced by the Snowball stemmer for
//! English (which leaves words of other languages mostly alone). Scripts written without spaces become
//! overlapping pairs of characters. A term is kept as a 64-bit hash: a collision among a vocabulary of ten
//! million has a chance of one in 370,000.

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Longest word in characters; what lies beyond is not looked at, since nobody asks for it.
const WORD: usize = 64;

/// The hash of a term.
pub type Term = u64;

/// Words that say nothing about what a text is about. Sorted.
pub const STOP_WORDS: &[&str] = &[
    "a", "about", "above", "after", "again", "all", "also", "am", "an", "and", "any", "are", "aren't", "as",
    "at", "be", "because", "been", "before", "being", "between", "both", "but", "by", "can", "can't",
    "could", "couldn't", "did", "didn't", "do", "does", "doesn't", "doing", "don't", "done", "down",
    "during", "each", "else", "ever", "few", "for", "from", "further", "get", "gets", "getting", "got",
    "had", "has", "have", "having", "he", "he'll", "her", "here", "hers", "him", "his", "how", "i", "i'd",
    "i'll", "i'm", "i've", "if", "in", "into", "is", "isn't", "it", "it's", "its", "itself", "just", "let",
    "me", "might", "more", "most", "my", "myself", "no", "nor", "not", "now", "of", "off", "on", "once",
    "only", "or", "other", "our", "ours", "out", "over", "own", "please", "same", "shall", "she", "she'll",
    "should", "so", "some", "such", "than", "that", "the", "their", "theirs", "them", "then", "there",
    "these", "they", "they'd", "they'll", "they're", "this", "those", "through", "to", "too", "under",
    "until", "up", "us", "very", "was", "wasn't", "we", "we'd", "we'll", "we're", "we've", "weren't", "what",
    "when", "where", "whether", "which", "while", "who", "whom", "whose", "why", "will", "with", "won't",
    "would", "wouldn't", "you", "you'd", "you're", "you've", "your", "yours", "yourself",
];

/// Words that frame a question ("how many", "remind me") and are not what it asks for. Sorted.
pub const FRAME_WORDS: &[&str] = &[
    "advice",
    "ago",
    "first",
    "idea",
    "ideas",
    "last",
    "long",
    "many",
    "mention",
    "mentioned",
    "much",
    "number",
    "often",
    "passed",
    "past",
    "recommend",
    "recommendation",
    "recommendations",
    "remember",
    "remind",
    "suggest",
    "suggestion",
    "suggestions",
    "tip",
    "tips",
    "total",
];

/// Whether a lower-case word is a stop word.
pub fn is_stop(word: &str) -> bool {
    STOP_WORDS.binary_search(&word).is_ok()
}

/// The stemmer with its buffers; make one per batch, not per text.
pub struct Analyzer {
    stemmer: Stemmer,
    word: String,
}

impl std::fmt::Debug for Analyzer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Analyzer")
    }
}

impl Default for Analyzer {
    fn default() -> Self {
        Self { stemmer: Stemmer::create(Algorithm::English), word: String::new() }
    }
}

impl Analyzer {
    /// Calls `emit` with every word of the text as it is compared: lower case, folded, not yet stemmed.
    pub fn words(&mut self, text: &str, mut emit: impl FnMut(&Stemmer, &str)) {
        let Self { stemmer, word } = self;
        word.clear();
        let mut length = 0;
        let mut dense: Option<char> = None;
        let mut dense_run = 0;
        let mut flush = |word: &mut String, length: &mut usize| {
            let bare = word.trim_end_matches('\'');
            let bare = bare.strip_suffix("'s").unwrap_or(bare);
            if !bare.is_empty() {
                emit(stemmer, bare);
            }
            word.clear();
            *length = 0;
        };
        for c in text.nfkd() {
            if is_combining_mark(c) {
                continue;
            }
            if matches!(c, '\'' | '’') && !word.is_empty() && dense.is_none() {
                // "don't" is one word.
                word.push('\'');
                continue;
            }
            if !c.is_alphanumeric() {
                if let (Some(last), 1) = (dense, dense_run) {
                    word.push(last);
                }
                (dense, dense_run) = (None, 0);
                flush(word, &mut length);
            } else if is_dense(c) {
                if dense.is_none() {
                    flush(word, &mut length);
                }
                if let Some(last) = dense {
                    word.push(last);
                    word.push(c);
                    flush(word, &mut length);
                }
                (dense, dense_run) = (Some(c), dense_run + 1);
            } else {
                if let (Some(last), 1) = (dense, dense_run) {
                    word.push(last);
                    flush(word, &mut length);
                }
                (dense, dense_run) = (None, 0);
                if length < WORD {
                    word.extend(c.to_lowercase());
                    length += 1;
                }
            }
        }
        if let (Some(last), 1) = (dense, dense_run) {
            word.push(last);
        }
        flush(word, &mut length);
    }

    /// Calls `emit` with the term of every word that is not a stop word, in order.
    pub fn terms(&mut self, text: &str, mut emit: impl FnMut(Term)) {
        self.words(text, |stemmer, word| {
            if !is_stop(word) {
                emit(hash(&stemmer.stem(word)));
            }
        });
    }

    /// The terms that a question asks for, each once, in order: without stop words and without what frames a
    /// question, unless nothing else is left.
    pub fn query_terms(&mut self, text: &str) -> Vec<Term> {
        self.query_words(text).into_iter().map(|(term, _)| term).collect()
    }

    /// [`query_terms`](Self::query_terms), each with the first of its words in the question.
    pub fn query_words(&mut self, text: &str) -> Vec<(Term, String)> {
        let is_frame = |word: &str| FRAME_WORDS.binary_search(&word).is_ok();
        let mut kept: [Vec<(Term, String)>; 3] = Default::default();
        self.words(text, |stemmer, word| {
            let term = hash(&stemmer.stem(word));
            for (list, keep) in kept.iter_mut().zip([!is_stop(word) && !is_frame(word), !is_stop(word), true])
            {
                if keep && !list.iter().any(|(known, _)| *known == term) {
                    list.push((term, word.to_owned()));
                }
            }
        });
        kept.into_iter().find(|list| !list.is_empty()).unwrap_or_default()
    }
}

/// Whether a script is written without spaces between words.
const fn is_dense(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}'     // Thai, Lao
        | '\u{1000}'..='\u{109f}'   // Burmese
        | '\u{1780}'..='\u{17ff}'   // Khmer
        | '\u{3040}'..='\u{30ff}'   // Kana
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}') // Han
}

/// FNV-1a, 64 bits: stable across versions and machines, since it is stored.
pub fn hash(term: &str) -> Term {
    term.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        Analyzer::default().words(text, |_, word| all.push(word.to_owned()));
        all
    }

    #[test]
    fn stop_words_are_sorted() {
        assert!(STOP_WORDS.is_sorted() && FRAME_WORDS.is_sorted());
        assert!(is_stop("the") && !is_stop("potluck"));
    }

    #[test]
    fn words_are_folded() {
        assert_eq!(words("Don't CAFÉ-bar, naïve ﬁsh №5"), ["don't", "cafe", "bar", "naive", "fish", "no5"]);
        assert_eq!(words("x".repeat(100).as_str()), ["x".repeat(64)]);
        assert_eq!(words(" \n\t.,"), Vec::<String>::new());
    }

    #[test]
    fn scripts_without_spaces_become_pairs() {
        assert_eq!(words("東京都 a 日b"), ["東京", "京都", "a", "日", "b"]);
    }

    #[test]
    fn inflections_meet() {
        let mut analyzer = Analyzer::default();
        assert_eq!(analyzer.query_terms("running runs"), analyzer.query_terms("run"));
        assert_eq!(analyzer.query_terms("the dogs of the user's dog").len(), 2);
        assert_eq!(analyzer.query_terms("who am I").len(), 3);
    }
}
