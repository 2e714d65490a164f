//! What can be seen of a sentence without understanding it: whether it asks for something, and whether it tells when
//! something happened.
//!
//! A question is answered by a statement, not by another question; and a question about a time is answered by a
//! sentence that bears one. Recall looks at many spans, so each has its marks as one byte in memory. The file they
//! are kept in spares the next start reading every text again; lost, damaged or of another version, it is made anew
//! from the log.

use std::{path::Path, sync::LazyLock};

use regex::Regex;

use super::table::{Parts, Table};

/// The sentence is a question or a request.
pub(super) const ASKS: u8 = 1;
/// It tells of what has just happened, on the day it is told.
pub(super) const NOW: u8 = 2;
/// It says when something happened.
pub(super) const DATED: u8 = 4;

/// The first bytes of the file. The number goes up when sentences are cut or marked in another way.
const MAGIC: &[u8; 8] = b"PTLKMRK1";
/// Bytes before the marks: magic, versions, checksum of all that follows it.
const HEADER: usize = 16;

/// The marks of a sentence.
pub(super) fn of(sentence: &str) -> u8 {
    let asks = if ASKING.is_match(sentence) { ASKS } else { 0 };
    let time = match (TELLING.is_match(sentence), DATING.is_match(sentence)) {
        (true, _) => NOW | DATED,
        (false, true) => DATED,
        (false, false) => 0,
    };
    asks | time
}

/// The marks of all versions in order of arrival: of each a byte for the whole, then one for each of its spans.
#[derive(Debug, Default)]
pub(super) struct Marks {
    bytes: Vec<u8>,
    versions: u32,
    saved: u32,
}

impl Marks {
    /// Reads the marks of the versions that the table has; why they cannot be used, when they cannot.
    pub(super) fn load(path: &Path, table: &Table) -> Result<Self, &'static str> {
        let Ok(file) = std::fs::read(path) else { return Ok(Self::default()) };
        let (header, bytes) = file.split_at_checked(HEADER).ok_or("it is too short")?;
        let word = |at: usize| -> u32 {
            header.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
        };
        if !header.starts_with(MAGIC) {
            return Err("it is no file of marks of this version");
        }
        let versions = word(8);
        if checksum(versions, bytes) != word(12) {
            return Err("its checksum is wrong");
        }
        if table.spans_before(versions).map(|spans| place(versions, spans)) != Some(bytes.len()) {
            return Err("it is of other versions");
        }
        Ok(Self { bytes: bytes.to_vec(), versions, saved: versions })
    }

    /// What the file should hold, when it does not.
    pub(super) fn unsaved(&mut self) -> Option<Vec<u8>> {
        if self.saved == self.versions {
            return None;
        }
        self.saved = self.versions;
        let mut file = Vec::with_capacity(HEADER + self.bytes.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&self.versions.to_le_bytes());
        file.extend_from_slice(&checksum(self.versions, &self.bytes).to_le_bytes());
        file.extend_from_slice(&self.bytes);
        Some(file)
    }

    /// Versions whose marks are known; it is the first ones that are.
    pub(super) const fn versions(&self) -> u32 {
        self.versions
    }

    /// Takes in the marks of the next version; a text that is gone has none.
    pub(super) fn push(&mut self, parts: Parts, marks: &[u8]) {
        let spans = 1 + usize::from(parts.spans);
        self.bytes.extend(marks.iter().copied().chain(std::iter::repeat(0)).take(spans));
        self.versions += 1;
    }

    /// Forgets the marks of a version whose text was erased.
    pub(super) fn erase(&mut self, ordinal: u32, first_span: u32, parts: Parts) {
        let from = place(ordinal, first_span);
        if let Some(marks) = self.bytes.get_mut(from..from + 1 + usize::from(parts.spans)) {
            marks.fill(0);
        }
    }

    /// The marks of a version's whole text.
    pub(super) fn whole(&self, ordinal: u32, first_span: u32) -> u8 {
        self.bytes.get(place(ordinal, first_span)).copied().unwrap_or(0)
    }

    /// The marks of a span of a version, by the span's number among all.
    pub(super) fn span(&self, ordinal: u32, span: u32) -> u8 {
        self.bytes.get(place(ordinal, span) + 1).copied().unwrap_or(0)
    }
}

/// Where the marks lie of the version with this ordinal, before which there are so many spans.
const fn place(ordinal: u32, spans: u32) -> usize {
    ordinal as usize + spans as usize
}

fn checksum(versions: u32, bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&versions.to_le_bytes());
    sum.update(bytes);
    sum.finalize()
}

/// A pattern of this program; tests make sure that each compiles.
pub(super) fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|_| NOTHING.clone())
}

/// What a pattern becomes that does not compile: it matches nothing.
pub(super) static NOTHING: LazyLock<Regex> = LazyLock::new(|| pattern("[a&&b]"));

/// How requests and questions look.
static ASKING: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?i)\?\s*["')]*$|^(?:can|could|would|will|do|does|did|what|which|how|where|when|who|why|are|is|should|any)\b|\b(?:can|could|would) you\b|\b(?:i['’]m|i am|i was|we['’]re) (?:also |just |really )?(?:looking|hoping|trying|planning|thinking|considering|wondering|interested|curious|not sure)\b|\b(?:i['’]ll|i will|i['’]d|i would|i need|i want|let me|please|help me)\b"#,
    )
});

/// How what has just happened is told.
static TELLING: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)\b(?:today|tonight|yesterday|just|this (?:morning|afternoon|evening))\b"));

/// How else it is told when something happened.
static DATING: LazyLock<Regex> = LazyLock::new(|| {
    let weekday = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day";
    let month = r"(?:january|february|march|april|may|june|july|august|september|october|november|december)";
    pattern(&format!(
        r"(?i)\b(?:this (?:week|weekend|month)|recently|lately|(?:days?|weeks?|months?) ago|last (?:night|week|weekend|month|{weekday})|(?:on|in) (?:{month}|{weekday})|{month} \d)\b"
    ))
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::record::RecordId;

    #[test]
    fn the_patterns_compile() {
        for found in [&ASKING, &TELLING, &DATING] {
            assert_ne!(found.as_str(), NOTHING.as_str());
        }
        assert!(!NOTHING.is_match("a"));
    }

    #[test]
    fn sentences_bear_what_they_say() {
        for (sentence, marks) in [
            ("The kettle is in the kitchen.", 0),
            ("Where is the kettle?", ASKS),
            ("Can you find me a kettle, please", ASKS),
            ("I'm looking for a kettle.", ASKS),
            ("I bought a kettle today.", NOW | DATED),
            ("I've just been to the dentist.", NOW | DATED),
            ("THIS MORNING it rained.", NOW | DATED),
            ("Did you see what I bought yesterday?", ASKS | NOW | DATED),
            ("I went there two weeks ago.", DATED),
            ("We met last Tuesday.", DATED),
            ("We met on Friday.", DATED),
            ("It opened in March.", DATED),
            ("It opened on May 5th.", DATED),
            ("I have been sleeping badly lately.", DATED),
            ("He is an adjusted, injust man.", 0),
            ("Justice in marching bands lasts.", 0),
            ("She may come.", 0),
            ("The day agoraphobia began.", 0),
        ] {
            assert_eq!(of(sentence), marks, "{sentence}");
        }
    }

    fn table(spans: &[u16]) -> Table {
        let mut table = Table::default();
        for (number, spans) in (1_u128..).zip(spans) {
            table.reserve(RecordId(uuid::Uuid::from_u128(number)), Parts { passages: 0, spans: *spans });
        }
        table
    }

    #[test]
    fn each_span_has_its_byte_and_so_has_a_whole_without_spans() {
        let table = table(&[2, 0, 3]);
        let mut marks = Marks::default();
        for (ordinal, bytes) in (0..).zip([&[0, 1, 2][..], &[4], &[0, 5]]) {
            marks.push(table.row(ordinal).unwrap().parts, bytes);
        }
        let first = |ordinal| table.row(ordinal).unwrap().first_span;
        assert_eq!((marks.span(0, 0), marks.span(0, 1)), (1, 2));
        assert_eq!(marks.whole(1, first(1)), 4);
        // What was not said is not marked.
        assert_eq!([2, 3, 4].map(|span| marks.span(2, span)), [5, 0, 0]);
        assert_eq!((marks.whole(3, 5), marks.span(9, 9)), (0, 0));
        marks.erase(0, first(0), table.row(0).unwrap().parts);
        assert_eq!((marks.span(0, 0), marks.span(0, 1), marks.whole(1, first(1))), (0, 0, 4));
    }

    #[test]
    fn a_file_that_does_not_fit_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marks");
        let all = table(&[2, 0, 3]);
        assert_eq!(Marks::load(&path, &all).unwrap().versions(), 0);
        let mut marks = Marks::default();
        marks.push(Parts { passages: 0, spans: 2 }, &[0, 1, 2]);
        marks.push(Parts::default(), &[4]);
        let bytes = marks.unsaved().unwrap();
        assert!(marks.unsaved().is_none());
        std::fs::write(&path, &bytes).unwrap();
        let again = Marks::load(&path, &all).unwrap();
        assert_eq!((again.versions(), again.whole(1, 2), again.span(0, 1)), (2, 4, 2));
        assert!(Marks::load(&path, &table(&[2])).is_err());
        assert!(Marks::load(&path, &table(&[1, 0, 3])).is_err());
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 4;
            std::fs::write(&path, &wrong).unwrap();
            assert!(Marks::load(&path, &all).is_err(), "byte {at}");
            std::fs::write(&path, &bytes[..at]).unwrap();
            assert!(Marks::load(&path, &all).is_err(), "{at} bytes");
        }
    }
}
