//! Long texts into passages: blank lines first, then length.
//!
//! A record is found through any of its passages. The split is a function of the text alone, so that every machine
//! that holds a record numbers its passages alike and vectors computed elsewhere fit.

use std::ops::Range;

use super::record::MAX_ROWS;

/// Longest passage in bytes: about the 256 tokens that the embedder reads.
const LONGEST: usize = 1_000;
/// A paragraph shorter than this many bytes joins the one after it.
const SHORTEST: usize = 24;
/// Most passages of one record; the rest of its text is found through the record as a whole.
pub const MOST: usize = MAX_ROWS - 1;

/// The passages of a text as byte ranges, in order. A text that is one passage gives none: the record is it.
pub fn split(text: &str) -> Vec<Range<usize>> {
    let mut passages = Vec::new();
    let mut pending: Option<Range<usize>> = None;
    for paragraph in paragraphs(text) {
        let joined = match pending.take() {
            Some(short) => short.start..paragraph.end,
            None => paragraph,
        };
        if joined.len() < SHORTEST {
            pending = Some(joined);
        } else {
            cut(text, joined, &mut passages);
        }
    }
    if let Some(short) = pending {
        match passages.last_mut() {
            Some(last) if short.end - last.start <= LONGEST => last.end = short.end,
            _ => passages.push(short),
        }
    }
    passages.truncate(MOST);
    if passages.len() < 2 { Vec::new() } else { passages }
}

/// The runs of lines between blank lines, without surrounding white space.
fn paragraphs(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let mut found: Option<Range<usize>> = None;
        for line in text.get(rest..)?.split_inclusive('\n') {
            let from = rest;
            rest += line.len();
            let trimmed = line.trim();
            if trimmed.is_empty() {
                if found.is_some() {
                    return found;
                }
                continue;
            }
            let start = from + (line.len() - line.trim_start().len());
            let end = start + trimmed.len();
            found = Some(found.map_or(start, |range| range.start)..end);
        }
        found
    })
}

/// Cuts a paragraph into pieces of at most [`LONGEST`] bytes and about equal length: after a sentence where
/// there is one, else between words, else between characters.
fn cut(text: &str, paragraph: Range<usize>, passages: &mut Vec<Range<usize>>) {
    let mut from = paragraph.start;
    while from < paragraph.end {
        let left = paragraph.end - from;
        if left <= LONGEST {
            passages.push(from..paragraph.end);
            return;
        }
        let share = left.div_ceil(left.div_ceil(LONGEST));
        let least = text.floor_char_boundary(from + share / 2);
        let most = text.floor_char_boundary((from + share).min(paragraph.end));
        let window = text.get(least..most).unwrap_or_default();
        let end = sentence_end(window).or_else(|| word_end(window)).map_or(most, |at| least + at);
        let end = if end > from { end } else { paragraph.end };
        passages.push(from..end);
        let skipped = text.get(end..paragraph.end).map_or(0, |rest| rest.len() - rest.trim_start().len());
        from = end + skipped;
        if passages.len() >= MOST {
            return;
        }
    }
}

/// Where the last sentence of a text ends, if one does.
fn sentence_end(text: &str) -> Option<usize> {
    let mut found = None;
    let mut ended = false;
    for (at, c) in text.char_indices() {
        if ended && c.is_whitespace() || c == '\n' {
            found = Some(at);
        }
        ended = matches!(c, '.' | '!' | '?' | '。' | '！' | '？' | ';')
            || ended && matches!(c, '"' | '\'' | ')' | '”');
        if matches!(c, '。' | '！' | '？') {
            found = Some(at + c.len_utf8());
        }
    }
    found.filter(|at| *at > 0)
}

fn word_end(text: &str) -> Option<usize> {
    text.rfind(char::is_whitespace).filter(|at| *at > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        split(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn blank_lines_come_first() {
        assert_eq!(
            pieces("The first turn of the talk.\n\nThe second turn of the talk."),
            ["The first turn of the talk.", "The second turn of the talk."]
        );
        let text =
            " A list of things:\n- one and two\n \t\r\n\nThanks!\n\nAnd now for something else entirely.\n";
        assert_eq!(
            pieces(text),
            ["A list of things:\n- one and two", "Thanks!\n\nAnd now for something else entirely."]
        );
    }

    #[test]
    fn one_passage_is_the_record() {
        assert!(split("Short and simple.").is_empty());
        assert!(split("").is_empty());
        assert!(split("\n\n  \n").is_empty());
    }

    #[test]
    fn length_comes_second() {
        let sentence = "A sentence of some forty bytes, or nearly. ";
        let text = sentence.repeat(60);
        let pieces = pieces(&text);
        assert_eq!(pieces.len(), 3);
        assert!(
            pieces.iter().all(|piece| piece.ends_with('.') && piece.starts_with("A sentence")),
            "{pieces:?}"
        );
        let text = "x".repeat(5_000);
        assert_eq!(split(&text).len(), 5);
    }

    proptest! {
        #[test]
        fn passages_lie_in_order_within_the_text(text in "(\\PC{0,60}[ .\\n]{0,3}){0,60}") {
            let mut end = 0;
            for range in split(&text) {
                prop_assert!(range.start >= end && range.len() <= LONGEST + SHORTEST && !range.is_empty());
                prop_assert!(text.get(range.clone()).is_some());
                end = range.end;
            }
            prop_assert!(end <= text.len());
        }

        #[test]
        fn no_word_is_lost(words in prop::collection::vec("[a-z]{1,12}", 0..600), gaps in prop::collection::vec(0..4_usize, 600)) {
            let mut text = String::new();
            for (word, gap) in words.iter().zip(gaps) {
                text.push_str(word);
                text.push_str([" ", ". ", "\n", "\n\n"][gap]);
            }
            let ranges = split(&text);
            if !ranges.is_empty() {
                let found: Vec<&str> = ranges.iter().flat_map(|range| text[range.clone()].split_whitespace()).collect();
                let wanted: Vec<&str> = text.split_whitespace().collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }
}
