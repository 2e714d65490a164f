//! Special tokens: which ids have a role, which end a generation, and where their texts stand in a prompt.

use std::fmt;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::{
    TokenizerError,
    vocab::{Kind, Vocab, within},
};
use crate::gguf::{Metadata, Value};

/// Most bytes that the texts of all special tokens together may have.
const MAX_PATTERNS: u64 = 1 << 20;
/// Longest text of a special token. The search looks that far ahead for the longest of several.
const MAX_PATTERN: u64 = 512;

/// Tokens that end a turn. The first of the first group that a vocabulary has is its end-of-turn token.
const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];
const END_OF_MESSAGE: &str = "<|eom_id|>";
/// Further tokens after which nothing is generated.
const ENDS: &[&str] =
    &["<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "</s>", "[EOS]", "<eos>", "<turn|>"];
/// Fill-in-the-middle tokens: control tokens, whatever the file says.
#[rustfmt::skip]
const FILL: &[&str] = &[
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
    "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
    "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
];
/// Fill-in-the-middle tokens that also end a generation.
#[rustfmt::skip]
const FILL_ENDS: &[&str] = &[
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>",
    "<REPO>", "<reponame>", "<|file_sep|>",
];

/// Ids with a role.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) eot: Option<u32>,
    pub(super) eom: Option<u32>,
    pub(super) unk: Option<u32>,
    pub(super) sep: Option<u32>,
    pub(super) pad: Option<u32>,
    pub(super) mask: Option<u32>,
    /// Sorted.
    pub(super) ends: Vec<u32>,
}

impl Roles {
    /// Replaces the defaults in `self` by what the file says.
    pub(super) fn read(&mut self, metadata: &Metadata, vocab: &Vocab) -> Result<(), TokenizerError> {
        let tokens = vocab.len();
        for slot in
            [&mut self.bos, &mut self.eos, &mut self.unk, &mut self.sep, &mut self.pad, &mut self.mask]
        {
            *slot = slot.filter(|&id| (id as usize) < tokens);
        }
        let id_of = |key: &str| -> Result<Option<u32>, TokenizerError> {
            let key = format!("tokenizer.ggml.{key}");
            let id = match metadata.get(&key) {
                None => return Ok(None),
                Some(Value::Signed(id)) => *id,
                Some(_) => i64::try_from(metadata.u64(&key)?).unwrap_or(i64::MAX),
            };
            // Converters write -1 for "none", some of them as u32.
            if id == -1 || id == i64::from(u32::MAX) {
                return Ok(None);
            }
            let known = u32::try_from(id).ok().filter(|&id| (id as usize) < tokens);
            known.map(Some).ok_or(TokenizerError::Id { key, id, tokens })
        };
        self.bos = id_of("bos_token_id")?.or(id_of("cls_token_id")?).or(self.bos);
        for (key, slot) in [
            ("eos_token_id", &mut self.eos),
            ("eot_token_id", &mut self.eot),
            ("eom_token_id", &mut self.eom),
            ("unknown_token_id", &mut self.unk),
            // The misspelt key is the one that files carry.
            ("seperator_token_id", &mut self.sep),
            ("padding_token_id", &mut self.pad),
            ("mask_token_id", &mut self.mask),
        ] {
            *slot = id_of(key)?.or(*slot);
        }
        Ok(())
    }

    /// Finds the ends of a generation by their well-known texts, and makes control tokens of them.
    pub(super) fn detect(&mut self, vocab: &mut Vocab) {
        let mut find = |text: &str| {
            let id = vocab.find(text.as_bytes())?;
            vocab.set_kind(id, Kind::Control);
            Some(id)
        };
        for text in FILL {
            find(text);
        }
        let turns: Vec<u32> = END_OF_TURN.iter().filter_map(|text| find(text)).collect();
        let message = find(END_OF_MESSAGE);
        self.eot = self.eot.or(turns.first().copied());
        self.eom = self.eom.or(message);
        let mut ends: Vec<u32> = ENDS.iter().chain(FILL_ENDS).filter_map(|text| find(text)).collect();
        ends.extend(turns.into_iter().chain(message).chain(self.eos).chain(self.eot).chain(self.eom));
        // In the harmony and solar formats `<|end|>` closes a message, not the answer.
        let mut has = |text: &str| find(text).is_some();
        let harmony = has("<|return|>") && has("<|call|>");
        let solar = has("<|flush|>") && has("<|calls|>");
        if harmony || solar {
            let end = find("<|end|>").filter(|&id| Some(id) != self.eos);
            ends.retain(|&id| Some(id) != end);
            if self.eot == end {
                self.eot = None;
            }
        }
        ends.sort_unstable();
        ends.dedup();
        self.ends = ends;
    }
}

/// Finds the texts of special tokens in a prompt: leftmost first, the longest of those that start together.
#[derive(Debug)]
pub(super) struct Partition {
    /// Matched always.
    user_defined: Option<Matcher>,
    /// Matched when the caller asks for special tokens: control, unknown and user-defined ones.
    all: Option<Matcher>,
}

struct Matcher {
    automaton: AhoCorasick,
    /// Token and whether blanks behind it are dropped, by pattern.
    tokens: Vec<(u32, bool)>,
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher").field("patterns", &self.tokens.len()).finish()
    }
}

/// A part of a prompt.
#[derive(Debug)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Token(u32),
}

impl Partition {
    /// `eats_blanks` says whether blanks behind a token's text belong to it.
    pub(super) fn new(vocab: &Vocab, eats_blanks: impl Fn(&[u8]) -> bool) -> Result<Self, TokenizerError> {
        let collect = |wanted: &dyn Fn(Kind) -> bool| {
            let mut patterns = Vec::new();
            let mut tokens = Vec::new();
            let mut total = 0;
            for id in vocab.ids() {
                let Some(bytes) = vocab.bytes(id).filter(|b| !b.is_empty()) else { continue };
                // Only whole characters, so that a match never cuts one.
                if vocab.kind(id).is_some_and(wanted) && std::str::from_utf8(bytes).is_ok() {
                    within("length of a special token", bytes.len() as u64, MAX_PATTERN)?;
                    total += bytes.len() as u64;
                    within("size of the special tokens", total, MAX_PATTERNS)?;
                    patterns.push(bytes);
                    tokens.push((id, eats_blanks(bytes)));
                }
            }
            Matcher::new(&patterns, tokens)
        };
        Ok(Self {
            user_defined: collect(&|kind| kind == Kind::UserDefined)?,
            all: collect(&|kind| kind.is_special() || kind == Kind::UserDefined)?,
        })
    }

    /// Cuts a prompt into its parts.
    pub(super) fn parts<'a, E>(
        &self,
        text: &'a str,
        parse_special: bool,
        mut emit: impl FnMut(Part<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let matcher = if parse_special { &self.all } else { &self.user_defined };
        let mut rest = text;
        let mut done = 0;
        if let Some(matcher) = matcher {
            for found in matcher.automaton.find_iter(text) {
                let Some(&(id, eats_blanks)) = matcher.tokens.get(found.pattern().as_usize()) else {
                    continue;
                };
                // Blanks that a token ate may themselves have matched.
                let Some(before) = text.get(done..found.start()) else { continue };
                if !before.is_empty() {
                    emit(Part::Text(before))?;
                }
                emit(Part::Token(id))?;
                rest = text.get(found.end()..).unwrap_or_default();
                if eats_blanks && parse_special {
                    rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
                }
                done = text.len() - rest.len();
            }
        }
        if rest.is_empty() { Ok(()) } else { emit(Part::Text(rest)) }
    }
}

impl Matcher {
    fn new(patterns: &[&[u8]], tokens: Vec<(u32, bool)>) -> Result<Option<Self>, TokenizerError> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(patterns)
            .map_err(|error| TokenizerError::Special(error.to_string()))?;
        Ok(Some(Self { automaton, tokens }))
    }
}
