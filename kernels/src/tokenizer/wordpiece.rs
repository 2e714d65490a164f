//! WordPiece with BERT's normaliser: words at blanks, punctuation and Chinese characters, then the longest
//! token that fits, again and again.
//!
//! Tokens are kept in the form of GGUF files: a word's first token starts with a space, the others do not.

use hashbrown::HashMap;
use unicode_normalization::char::{decompose_canonical, is_combining_mark};
use unicode_properties::{GeneralCategory as G, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::{
    TokenizerError,
    merge::NONE,
    vocab::{Kind, Vocab, within},
    words::{Ids, Words},
};

/// Longer words, in characters, are unknown (as in the reference implementation).
const MAX_WORD: usize = 100;

/// Bytes that are normalised at a time, roughly.
const BLOCK: usize = 1 << 16;

/// The normaliser's settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Normalizer {
    pub(super) lowercase: bool,
    pub(super) strip_accents: bool,
    pub(super) clean_text: bool,
    pub(super) space_chinese: bool,
}

impl Default for Normalizer {
    fn default() -> Self {
        Self { lowercase: true, strip_accents: true, clean_text: true, space_chinese: true }
    }
}

/// Most nodes the tree of tokens may have (BERT's has about 80,000).
const MAX_NODES: u64 = 16 << 20;

/// The tokens as a tree of bytes.
#[derive(Debug)]
pub(super) struct WordPiece {
    /// Child by parent and byte.
    children: HashMap<u64, u32>,
    /// Token that ends at a node, or [`NONE`].
    tokens: Vec<u32>,
    normalizer: Normalizer,
}

impl WordPiece {
    pub(super) fn new(vocab: &Vocab, normalizer: Normalizer) -> Result<Self, TokenizerError> {
        let mut this = Self { children: HashMap::new(), tokens: vec![NONE], normalizer };
        for id in vocab.ids() {
            let text = vocab.kind(id).is_some_and(|kind| !kind.is_special());
            // A longer token cannot be part of a word.
            let bytes = vocab.bytes(id).unwrap_or_default();
            if text && (1..=4 * MAX_WORD + 1).contains(&bytes.len()) {
                this.insert(bytes, id);
                within("size of the token tree", this.tokens.len() as u64, MAX_NODES)?;
            }
        }
        Ok(this)
    }

    fn insert(&mut self, bytes: &[u8], id: u32) {
        let mut node = 0;
        for &byte in bytes {
            let next = u32::try_from(self.tokens.len()).unwrap_or(NONE);
            node = *self.children.entry(edge(node, byte)).or_insert(next);
            if node == next {
                self.tokens.push(NONE);
            }
        }
        // Of duplicates the last one counts.
        if let Some(token) = self.tokens.get_mut(node as usize) {
            *token = id;
        }
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(
        &self,
        unknown: Option<u32>,
        text: &str,
        out: &mut Ids,
    ) -> Result<(), TokenizerError> {
        // Block by block, so that a text beyond the limit is not normalised in vain.
        let mut rest = text;
        while !rest.is_empty() {
            let (block, tail) = rest.split_at(block_end(rest));
            self.block(unknown, block, out)?;
            rest = tail;
        }
        Ok(())
    }

    fn block(&self, unknown: Option<u32>, text: &str, out: &mut Ids) -> Result<(), TokenizerError> {
        // Normalised words lie one after the other, so that the memory of words can borrow them.
        let (normal, ends) = self.normalizer.words(text);
        let mut words = Words::default();
        let mut start = 0;
        for end in ends {
            let word = normal.get(start..end).unwrap_or_default();
            start = end;
            if word.chars().nth(MAX_WORD + 1).is_some() {
                out.ids.extend(unknown);
                out.check()?;
            } else {
                words.push(word, out, |_, word, ids| self.word(unknown, word.as_bytes(), ids))?;
            }
        }
        Ok(())
    }

    fn word(&self, unknown: Option<u32>, word: &[u8], ids: &mut Vec<u32>) {
        let before = ids.len();
        let mut rest = word;
        while !rest.is_empty() {
            let Some((id, tail)) = self.longest(rest) else {
                ids.truncate(before);
                ids.extend(unknown);
                return;
            };
            ids.push(id);
            rest = tail;
        }
    }

    /// The longest token that `text` starts with, and what follows it.
    fn longest<'a>(&self, text: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let (mut node, mut best) = (0, None);
        for (depth, &byte) in text.iter().enumerate() {
            let Some(&child) = self.children.get(&edge(node, byte)) else { break };
            node = child;
            if let Some(&id) = self.tokens.get(node as usize).filter(|&&id| id != NONE) {
                best = Some((id, text.get(depth + 1..)?));
            }
        }
        best
    }
}

fn edge(node: u32, byte: u8) -> u64 {
    u64::from(node) << 8 | u64::from(byte)
}

/// Where a block ends: at the first blank from [`BLOCK`] on, where words end anyway. Without one for long, the
/// block is cut inside a word, which is unknown at that length.
fn block_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let blank = bytes.iter().take(16 * BLOCK).skip(BLOCK).position(u8::is_ascii_whitespace);
    blank.map_or_else(|| text.floor_char_boundary(16 * BLOCK), |at| BLOCK + at)
}

impl Normalizer {
    /// The words, each with a space before it, in one string; and where each ends.
    fn words(&self, text: &str) -> (String, Vec<usize>) {
        let mut out = Builder { text: String::with_capacity(text.len() + text.len() / 4), ends: Vec::new() };
        for c in text.chars() {
            if c.is_ascii() {
                // Most text by far.
                match c {
                    ' ' | '\t' | '\n' | '\r' => out.close(),
                    _ if c.is_ascii_control() => {
                        if !self.clean_text {
                            if c.is_whitespace() { out.close() } else { out.push(c) }
                        }
                    }
                    _ if c.is_ascii_punctuation() => out.alone(c),
                    _ => out.push(if self.lowercase { c.to_ascii_lowercase() } else { c }),
                }
                continue;
            }
            if self.clean_text && (c == '\u{fffd}' || is_control(c)) {
                continue;
            }
            if c.is_whitespace() {
                out.close();
                continue;
            }
            let chinese = self.space_chinese && is_chinese(c);
            if chinese {
                out.close();
            }
            if self.strip_accents {
                decompose_canonical(c, |d| {
                    if !(is_combining_mark(d) && d.general_category() == G::NonspacingMark) {
                        self.cased(d, &mut out);
                    }
                });
            } else {
                self.cased(c, &mut out);
            }
            if chinese {
                out.close();
            }
        }
        out.close();
        (out.text, out.ends)
    }

    fn cased(&self, c: char, out: &mut Builder) {
        let mut put = |c: char| if is_punctuation(c) { out.alone(c) } else { out.push(c) };
        if self.lowercase { c.to_lowercase().for_each(put) } else { put(c) }
    }
}

struct Builder {
    text: String,
    ends: Vec<usize>,
}

impl Builder {
    fn open(&self) -> bool {
        self.text.len() > self.ends.last().copied().unwrap_or(0)
    }

    fn push(&mut self, c: char) {
        if !self.open() {
            self.text.push(' ');
        }
        self.text.push(c);
    }

    fn close(&mut self) {
        if self.open() {
            self.ends.push(self.text.len());
        }
    }

    fn alone(&mut self, c: char) {
        self.close();
        self.push(c);
        self.close();
    }
}

fn is_control(c: char) -> bool {
    matches!(c.general_category(), G::Control | G::Format | G::PrivateUse)
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// BERT's idea of a Chinese character, with the reference implementation's gap from 2B820 to 2B91F.
fn is_chinese(c: char) -> bool {
    matches!(
        u32::from(c),
        0x4e00..=0x9fff
            | 0x3400..=0x4dbf
            | 0x2_0000..=0x2_a6df
            | 0x2_a700..=0x2_b81f
            | 0x2_b920..=0x2_ceaf
            | 0xf900..=0xfaff
            | 0x2_f800..=0x2_fa1f
    )
}

/// A token's bytes: `▁` at the start of a word's first token becomes a space.
pub(super) fn token_bytes(text: &[u8], kind: Kind) -> Vec<u8> {
    match text.strip_prefix(super::spm::BLANK.as_bytes()) {
        Some(rest) if !kind.is_special() => [b" ", rest].concat(),
        _ => text.to_vec(),
    }
}
