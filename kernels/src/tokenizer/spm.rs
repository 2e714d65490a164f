//! SentencePiece BPE as llama.cpp reads it: characters as the first symbols, neighbours merged while their
//! union is a token, the highest score first; what is no token falls back to bytes.
//!
//! Tokens are kept with a space where the file has `▁`, so a text is looked up as it is.

use super::{
    TokenizerError,
    merge::{Merger, NONE, Node},
    vocab::{Kind, Vocab},
    words::{Ids, Words},
};

/// What SentencePiece writes for a space.
pub(super) const BLANK: &str = "\u{2581}";

/// Scores and byte tokens.
#[derive(Debug)]
pub(super) struct Spm {
    /// Rank by token: the order of the scores, the highest first.
    ranks: Vec<u32>,
    /// Token of each byte, or [`NONE`].
    bytes: Vec<u32>,
    /// No token has a blank behind another character, so every such place is a border between words.
    words: bool,
}

impl Spm {
    /// `scores` by token; `bytes` by byte, [`NONE`] where there is none.
    pub(super) fn new(vocab: &Vocab, scores: &[f32], bytes: Vec<u32>) -> Self {
        // User-defined tokens are taken out of the text before.
        let spans = |id| {
            let kind = vocab.kind(id);
            matches!(kind, Some(Kind::Normal | Kind::Unused)) && vocab.bytes(id).is_some_and(has_inner_blank)
        };
        let words = !vocab.ids().any(spans);
        let ranks = (0..vocab.len()).map(|id| rank(scores.get(id).copied().unwrap_or(0.0))).collect();
        Self { ranks, bytes, words }
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        prefix: bool,
        out: &mut Ids,
    ) -> Result<(), TokenizerError> {
        let mut text = if text.contains(BLANK) { text.replace(BLANK, " ") } else { text.to_owned() };
        if prefix {
            text.insert(0, ' ');
        }
        let mut words = Words::default();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (word, tail) = rest.split_at(if self.words { border(rest) } else { rest.len() });
            words.push(word, out, |merger, word, ids| self.word(vocab, merger, word, ids))?;
            rest = tail;
        }
        Ok(())
    }

    fn word(&self, vocab: &Vocab, merger: &mut Merger, word: &str, ids: &mut Vec<u32>) {
        let bytes = word.as_bytes();
        let span = |from: u32, to: u32| bytes.get(from as usize..to as usize).unwrap_or_default();
        merger.clear();
        for (at, c) in word.char_indices() {
            let end = at + c.len_utf8();
            let id = bytes.get(at..end).and_then(|c| vocab.find(c)).unwrap_or(NONE);
            merger.push(id, at, end);
        }
        let pair = |left: &Node, right: &Node| {
            let id = vocab.find(span(left.start, right.end))?;
            Some((*self.ranks.get(id as usize)?, id))
        };
        for node in merger.run(pair) {
            if node.id == NONE {
                let fallback = span(node.start, node.end).iter().map(|&b| self.bytes.get(usize::from(b)));
                ids.extend(fallback.flatten().copied().filter(|&id| id != NONE));
            } else {
                ids.push(node.id);
            }
        }
    }
}

/// Where the next word starts: at a blank behind another character.
fn border(text: &str) -> usize {
    let bytes = text.as_bytes();
    let inner = bytes.iter().zip(bytes.iter().skip(1)).position(|(&a, &b)| a != b' ' && b == b' ');
    inner.map_or(text.len(), |at| at + 1)
}

fn has_inner_blank(bytes: &[u8]) -> bool {
    bytes.iter().zip(bytes.iter().skip(1)).any(|(&a, &b)| a != b' ' && b == b' ')
}

/// Order of the scores, the highest first; never [`NONE`].
fn rank(score: f32) -> u32 {
    let score = if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 };
    let bits = score.to_bits();
    !(if bits >> 31 == 1 { !bits } else { bits | 1 << 31 })
}

/// A token's bytes: what it adds to a text.
pub(super) fn token_bytes(text: &[u8], kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Byte => byte_token(text).map_or_else(|| text.to_vec(), |b| vec![b]),
        Kind::Control | Kind::Unknown => text.to_vec(),
        Kind::Normal | Kind::UserDefined | Kind::Unused => match std::str::from_utf8(text) {
            Ok(text) => text.replace(BLANK, " ").into_bytes(),
            Err(_) => text.to_vec(),
        },
    }
}

/// The byte of `<0xXX>`.
pub(super) fn byte_token(text: &[u8]) -> Option<u8> {
    let hex = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let hex = std::str::from_utf8(hex).ok().filter(|hex| hex.len() == 2)?;
    u8::from_str_radix(hex, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn higher_scores_rank_first() {
        let scores = [3.5, 1.0, 0.0, -0.5, -1000.0, f32::NEG_INFINITY];
        assert!(scores.is_sorted_by(|a, b| rank(*a) < rank(*b)));
        assert_eq!(rank(0.0), rank(-0.0));
        assert_eq!(rank(f32::NAN), rank(f32::NEG_INFINITY));
        assert_ne!(rank(f32::NEG_INFINITY), super::NONE);
    }
}
