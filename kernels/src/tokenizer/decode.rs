//! Ids back to text, all at once or one by one without ever splitting a character.

use std::sync::Arc;

use super::Tokenizer;

/// Bytes that are not a whole character yet. What it lets through, put together, is exactly
/// `String::from_utf8_lossy` of all bytes.
#[derive(Clone, Debug, Default)]
struct Utf8 {
    held: Vec<u8>,
}

impl Utf8 {
    /// Takes bytes and returns the characters that are complete now. At most 3 bytes stay behind.
    fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    rest = after;
                    // No length: a character has begun and may still be completed.
                    let Some(bad) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = rest.get(bad..).unwrap_or_default();
                }
            }
        }
        self.held = rest.to_vec();
        text
    }

    fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.held);
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// Removes the space that SPM and WordPiece put before the first word, once.
#[derive(Clone, Copy, Debug)]
struct Lead {
    pending: bool,
}

impl Lead {
    fn strip<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if !self.pending || bytes.is_empty() {
            return bytes;
        }
        self.pending = false;
        bytes.strip_prefix(b" ").unwrap_or(bytes)
    }
}

impl Tokenizer {
    /// The text of some ids, without control tokens if `skip_special` is set. Bytes that are not UTF-8
    /// become U+FFFD; ids that the vocabulary does not have are left out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut lead = Lead { pending: self.strips_first_space() };
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            bytes.extend_from_slice(lead.strip(self.shown(id, skip_special)));
        }
        match String::from_utf8_lossy(&bytes) {
            std::borrow::Cow::Borrowed(_) => String::from_utf8(bytes).unwrap_or_default(),
            std::borrow::Cow::Owned(text) => text,
        }
    }

    fn shown(&self, id: u32, skip_special: bool) -> &[u8] {
        if skip_special && self.is_control(id) { &[] } else { self.vocab.bytes(id).unwrap_or_default() }
    }
}

/// Turns ids into text one by one. The pieces, put together, are what [`Tokenizer::decode`] gives.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    lead: Lead,
    utf8: Utf8,
}

impl Detokenizer {
    /// For a text that starts with the first id.
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Self {
        let lead = Lead { pending: tokenizer.strips_first_space() };
        Self { tokenizer, skip_special, lead, utf8: Utf8::default() }
    }

    /// For ids that continue a text (a model's answer to a prompt): a space at the start is text.
    pub fn continuing(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Self {
        Self { lead: Lead { pending: false }, ..Self::new(tokenizer, skip_special) }
    }

    /// Takes an id and returns the text that is complete now; empty while a character is not.
    pub fn push(&mut self, id: u32) -> String {
        let bytes = self.lead.strip(self.tokenizer.shown(id, self.skip_special));
        self.utf8.push(bytes)
    }

    /// Returns what is left: U+FFFD if the last character never became whole.
    pub fn finish(&mut self) -> String {
        self.utf8.finish()
    }
}
