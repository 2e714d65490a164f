//! Which machine has lately worked on the beginning of a prompt: it may have it in its KV cache still.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crate::{
    identity::NodeId,
    job::{Input, Job},
};

/// Bytes of a block of a prompt.
const BLOCK: usize = 256;
/// Most blocks that are looked at: 16 KiB of prompt.
pub(super) const BLOCKS: usize = 64;
/// Blocks that a generation remembers; the last two generations are kept.
const GENERATION: usize = 16_384;

/// The leading blocks of prompts, and who worked on them. The key is new with each start, so that the hashes of a
/// stored decision say nothing about any text.
#[derive(Debug)]
pub(super) struct Prefixes {
    key: [u8; 32],
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    young: HashSet<(Option<NodeId>, u64)>,
    old: HashSet<(Option<NodeId>, u64)>,
}

impl Prefixes {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, known: Mutex::default() }
    }

    /// The hashes of a job's leading blocks, each over all blocks up to its own and the model.
    pub(super) fn of(&self, job: &Job) -> Vec<u64> {
        let mut blocks = Blocks::new(&self.key, &job.model);
        match &job.input {
            Input::Text { text, .. } => blocks.feed(text.as_bytes()),
            Input::Tokens(ids) => ids.iter().for_each(|id| blocks.feed(&id.to_le_bytes())),
            Input::Chat { messages, tools, .. } => {
                tools.iter().for_each(|tool| blocks.feed(tool.to_string().as_bytes()));
                for message in messages {
                    blocks.feed(message.role.as_bytes());
                    blocks.feed(message.content.as_bytes());
                    blocks.feed(b"\0");
                }
            }
        }
        blocks.hashes
    }

    /// Notes that a machine works on a prompt.
    pub(super) fn note(&self, node: Option<NodeId>, prefix: &[u64]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.young.len().saturating_add(prefix.len()) > GENERATION {
            known.old = std::mem::take(&mut known.young);
        }
        known.young.extend(prefix.iter().map(|hash| (node, *hash)));
    }

    /// How many leading blocks of a prompt a machine has lately worked on.
    pub(super) fn shared(&self, node: Option<NodeId>, prefix: &[u64]) -> u32 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let there =
            |hash: &&u64| known.young.contains(&(node, **hash)) || known.old.contains(&(node, **hash));
        u32::try_from(prefix.iter().take_while(there).count()).unwrap_or(u32::MAX)
    }
}

/// A prompt on its way through the hash.
struct Blocks {
    hasher: blake3::Hasher,
    filled: usize,
    hashes: Vec<u64>,
}

impl Blocks {
    fn new(key: &[u8; 32], model: &str) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(model.as_bytes()).update(b"\0");
        Self { hasher, filled: 0, hashes: Vec::new() }
    }

    /// Whole blocks only: the last part of a prompt is its own.
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.hashes.len() < BLOCKS {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK.saturating_sub(self.filled)));
            self.hasher.update(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == BLOCK {
                self.filled = 0;
                let mut first = [0; 8];
                self.hasher.finalize_xof().fill(&mut first);
                self.hashes.push(u64::from_le_bytes(first));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::fixture;

    fn job(text: &str) -> Job {
        Job { input: Input::Text { text: text.into(), special: false }, ..fixture::job(1) }
    }

    #[test]
    fn prompts_that_begin_alike_share_their_leading_blocks() {
        let prefixes = Prefixes::new([1; 32]);
        let common = "a".repeat(3 * BLOCK);
        let one = prefixes.of(&job(&format!("{common}{}", "b".repeat(BLOCK))));
        let two = prefixes.of(&job(&format!("{common}{}", "c".repeat(BLOCK + 9))));
        assert_eq!((one.len(), two.len()), (4, 4));
        assert_eq!(one[..3], two[..3]);
        assert_ne!(one[3], two[3]);
        prefixes.note(Some(NodeId([1; 32])), &one);
        assert_eq!(prefixes.shared(Some(NodeId([1; 32])), &two), 3);
        assert_eq!(prefixes.shared(Some(NodeId([2; 32])), &two), 0);
        assert_eq!(prefixes.shared(None, &one), 0);
        assert_ne!(Prefixes::new([2; 32]).of(&job(&common)), one[..3], "the hashes depend on the key");
        let other = Job { model: "other".into(), ..job(&common) };
        assert_ne!(prefixes.of(&other), one[..3], "and on the model");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let prefixes = Prefixes::new([1; 32]);
        let long = prefixes.of(&job(&"x".repeat(100 * BLOCK)));
        assert_eq!(long.len(), BLOCKS);
        for number in 0..5_000_u64 {
            let fresh: Vec<u64> = (0..64).map(|n| number * 64 + n).collect();
            prefixes.note(None, &fresh);
        }
        let known = prefixes.known.lock().unwrap();
        assert!(known.young.len() <= GENERATION && known.old.len() <= GENERATION);
        assert!(known.young.contains(&(None, 5_000 * 64 - 1)));
    }
}
