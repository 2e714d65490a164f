//! The token list: bytes, kinds and scores by id, and ids by bytes.

use std::{fmt, hash::BuildHasher};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{MAX_TOKEN_LEN, MAX_TOKENS, TokenizerError};
use crate::gguf::Metadata;

/// Most bytes all tokens together may have.
const MAX_BYTES: u64 = 256 << 20;

/// What a token is for, numbered as in GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl Kind {
    fn from_gguf(n: i64) -> Self {
        match n {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }

    /// Whether plain text never turns into this token.
    pub(super) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// The token list.
#[derive(Default)]
pub(super) struct Vocab {
    blob: Vec<u8>,
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    /// Ids of the tokens that text can become, by bytes.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Length of the longest of them.
    longest: usize,
}

impl fmt::Debug for Vocab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocab").field("tokens", &self.len()).field("bytes", &self.blob.len()).finish()
    }
}

impl Vocab {
    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A token's bytes: what it adds to a text, or its name for a control token.
    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = id.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |&e| e as usize);
        self.blob.get(start..end)
    }

    /// What a token is for.
    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    pub(super) fn set_kind(&mut self, id: u32, kind: Kind) {
        if let Some(slot) = self.kinds.get_mut(id as usize) {
            *slot = kind;
        }
    }

    /// All ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + use<> {
        0..u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    /// Appends a token.
    ///
    /// # Errors
    /// [`TokenizerError::TooLarge`] when a cap is passed.
    pub(super) fn push(&mut self, bytes: &[u8], kind: Kind) -> Result<(), TokenizerError> {
        within("number of tokens", self.len() as u64 + 1, MAX_TOKENS as u64)?;
        within("length of a token", bytes.len() as u64, MAX_TOKEN_LEN as u64)?;
        let total = self.blob.len() as u64 + bytes.len() as u64;
        within("size of the vocabulary", total, MAX_BYTES)?;
        self.blob.extend_from_slice(bytes);
        self.ends.push(u32::try_from(total).unwrap_or(u32::MAX));
        self.kinds.push(kind);
        Ok(())
    }

    /// Makes the tokens that `wanted` accepts findable by their bytes. Of duplicates the last one counts.
    pub(super) fn build_index(&mut self, wanted: impl Fn(u32, Kind) -> bool) {
        let mut index = std::mem::take(&mut self.index);
        index.clear();
        index.reserve(self.len(), |&id| self.hash(id));
        let mut longest = 0;
        for id in self.ids() {
            let (Some(bytes), Some(kind)) = (self.bytes(id), self.kind(id)) else { continue };
            if bytes.is_empty() || !wanted(id, kind) {
                continue;
            }
            longest = longest.max(bytes.len());
            let hash = self.hasher.hash_one(bytes);
            match index.find_mut(hash, |&other| self.bytes(other) == Some(bytes)) {
                Some(slot) => *slot = id,
                None => _ = index.insert_unique(hash, id, |&id| self.hash(id)),
            }
        }
        self.index = index;
        self.longest = longest;
    }

    /// The token with exactly these bytes, among those that text can become.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > self.longest {
            return None;
        }
        let hash = self.hasher.hash_one(bytes);
        self.index.find(hash, |&id| self.bytes(id) == Some(bytes)).copied()
    }

    fn hash(&self, id: u32) -> u64 {
        self.hasher.hash_one(self.bytes(id).unwrap_or_default())
    }
}

/// Checks a number against its cap.
pub(super) fn within(what: &'static str, value: u64, limit: u64) -> Result<(), TokenizerError> {
    if value > limit { Err(TokenizerError::TooLarge { what, value, limit }) } else { Ok(()) }
}

/// The tokens of a GGUF file as they stand there, with their kinds.
pub(super) fn raw_tokens(metadata: &Metadata) -> Result<Vec<(&[u8], Kind)>, TokenizerError> {
    let tokens = metadata.strings("tokenizer.ggml.tokens")?;
    within("number of tokens", tokens.len() as u64, MAX_TOKENS as u64)?;
    let kinds = metadata.optional("tokenizer.ggml.token_type", Metadata::integers)?;
    let count = kinds.as_ref().map_or(tokens.len(), Vec::len);
    if count < tokens.len() {
        return Err(TokenizerError::Count { what: "token types", count, tokens: tokens.len() });
    }
    let kinds = kinds.unwrap_or_default();
    let mut kinds = kinds.into_iter().map(Kind::from_gguf);
    Ok(tokens.iter().map(|token| (&**token, kinds.next().unwrap_or(Kind::Normal))).collect())
}
