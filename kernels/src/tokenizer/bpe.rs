//! Byte-level BPE: words from a pre-tokenizer, bytes as the first symbols, merges by rank.

use hashbrown::HashMap;

use super::{
    MAX_TOKENS, TokenizerError,
    merge::{Merger, NONE, Node},
    pre::Pre,
    split::split,
    vocab::{Kind, Vocab, within},
    words::{Ids, Words},
};

/// Ranks and results of the merges.
#[derive(Debug)]
pub(super) struct Bpe {
    pre: Pre,
    /// Token of each byte, or [`NONE`].
    bytes: Vec<u32>,
    /// Rank by pair of tokens (left in the upper half).
    ranks: HashMap<u64, u32>,
    /// Resulting token by rank.
    merged: Vec<u32>,
}

impl Bpe {
    /// Reads the merges; `vocab` holds tokens as plain bytes. Merges that name unknown tokens never apply.
    pub(super) fn new(
        vocab: &Vocab,
        merges: &[Box<[u8]>],
        pre: Pre,
        warnings: &mut Vec<String>,
    ) -> Result<Self, TokenizerError> {
        within("number of merges", merges.len() as u64, 4 * MAX_TOKENS as u64)?;
        let bytes: Vec<u32> = (0..=u8::MAX).map(|b| vocab.find(&[b]).unwrap_or(NONE)).collect();
        // C0, C1 and F5 to FF never occur in UTF-8.
        let used = |b: usize| b < 0xc0 || (0xc2..0xf5).contains(&b);
        let lost = bytes.iter().enumerate().filter(|&(b, &id)| used(b) && id == NONE).count();
        if lost > 0 {
            warnings.push(format!("{lost} bytes have no token; text that needs them loses them"));
        }
        let mut this = Self {
            pre,
            bytes,
            ranks: HashMap::with_capacity(merges.len()),
            merged: Vec::with_capacity(merges.len()),
        };
        let mut ignored = 0usize;
        let mut buffer = Vec::new();
        for merge in merges {
            let rank = u32::try_from(this.merged.len()).unwrap_or(NONE);
            let found = this.resolve(vocab, merge, &mut buffer);
            this.merged.push(found.map_or(NONE, |(_, merged)| merged));
            match found {
                // Of duplicates the first counts.
                Some((pair, _)) => _ = this.ranks.entry(pair).or_insert(rank),
                None => ignored += 1,
            }
        }
        if ignored > 0 {
            warnings
                .push(format!("{ignored} of {} merges name unknown tokens and are ignored", merges.len()));
        }
        Ok(this)
    }

    fn resolve(&self, vocab: &Vocab, merge: &[u8], buffer: &mut Vec<u8>) -> Option<(u64, u32)> {
        // A space inside a token is written as another character, so the first one separates.
        let gap = merge.iter().skip(1).position(|&b| b == b' ')? + 1;
        let (left, right) = (merge.get(..gap)?, merge.get(gap + 1..)?);
        buffer.clear();
        let left = append_bytes(left, buffer).then(|| vocab.find(buffer)).flatten()?;
        let middle = buffer.len();
        let right_ok = append_bytes(right, buffer);
        let right = buffer.get(middle..).filter(|_| right_ok).and_then(|right| vocab.find(right))?;
        Some((pair_key(left, right), vocab.find(buffer)?))
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, out: &mut Ids) -> Result<(), TokenizerError> {
        let mut words = Words::default();
        split(self.pre.rules, text, &mut |word| {
            words.push(word, out, |merger, word, ids| self.word(vocab, merger, word, ids))
        })
    }

    fn word(&self, vocab: &Vocab, merger: &mut Merger, word: &str, ids: &mut Vec<u32>) {
        if self.pre.ignore_merges
            && let Some(id) = vocab.find(word.as_bytes())
        {
            ids.push(id);
            return;
        }
        merger.clear();
        for (at, &byte) in word.as_bytes().iter().enumerate() {
            let id = self.bytes.get(usize::from(byte)).copied().unwrap_or(NONE);
            merger.push(id, at, at + 1);
        }
        let pair = |left: &Node, right: &Node| {
            let rank = *self.ranks.get(&pair_key(left.id, right.id))?;
            Some((rank, *self.merged.get(rank as usize)?))
        };
        ids.extend(merger.run(pair).iter().map(|node| node.id).filter(|&id| id != NONE));
    }
}

fn pair_key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// GPT-2's way to write any byte as a visible character, backwards.
fn byte_of(c: char) -> Option<u8> {
    let n = u32::from(c);
    let byte = match n {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => n,
        0x100..=0x120 => n - 0x100,
        0x121..=0x142 => n - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// Appends the bytes that a token's text stands for; false if it is not written in that alphabet.
fn append_bytes(text: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let before = out.len();
    for c in text.chars() {
        match byte_of(c) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(before);
                return false;
            }
        }
    }
    true
}

/// A token's bytes: the decoded ones for text, the name for special tokens.
pub(super) fn token_bytes(text: &[u8], kind: Kind) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let plain = matches!(kind, Kind::Normal | Kind::Unused);
    if plain && append_bytes(text, &mut bytes) { bytes } else { text.to_vec() }
}
