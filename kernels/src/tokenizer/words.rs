//! What all kinds share while they encode: the list of ids with its limit, and a memory of words.

use hashbrown::HashMap;

use super::{TokenizerError, merge::Merger};

/// Longest stretch of text that is merged as one word. A longer one is cut; in practice only generated
/// text has stretches of a mebibyte without a single place to split.
const MAX_WORD: usize = 1 << 20;
/// Longest word that is remembered.
const MAX_REMEMBERED: usize = 48;
/// Most words that are remembered.
const MAX_WORDS: usize = 1 << 16;

/// The ids so far.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) ids: Vec<u32>,
    pub(super) limit: usize,
}

impl Ids {
    /// Refuses once there are more ids than the limit.
    pub(super) fn check(&self) -> Result<(), TokenizerError> {
        if self.ids.len() > self.limit {
            return Err(TokenizerError::TooManyTokens { at_least: self.ids.len(), limit: self.limit });
        }
        Ok(())
    }
}

/// Words seen before in the same text, each with the place of its ids.
#[derive(Debug, Default)]
pub(super) struct Words<'a> {
    seen: HashMap<&'a str, (usize, usize)>,
    merger: Merger,
}

impl<'a> Words<'a> {
    /// Appends the ids of a word, which `encode` computes if they are not known yet.
    pub(super) fn push(
        &mut self,
        word: &'a str,
        out: &mut Ids,
        encode: impl Fn(&mut Merger, &str, &mut Vec<u32>),
    ) -> Result<(), TokenizerError> {
        if word.len() > MAX_REMEMBERED {
            let mut rest = word;
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(rest.floor_char_boundary(MAX_WORD));
                encode(&mut self.merger, head, &mut out.ids);
                out.check()?;
                rest = tail;
            }
            return Ok(());
        }
        if let Some(&(from, to)) = self.seen.get(word) {
            out.ids.extend_from_within(from..to);
        } else {
            let from = out.ids.len();
            encode(&mut self.merger, word, &mut out.ids);
            if self.seen.len() < MAX_WORDS {
                self.seen.insert(word, (from, out.ids.len()));
            }
        }
        out.check()
    }
}
