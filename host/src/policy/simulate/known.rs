//! What one machine remembers of the beginnings of prompts, and for how long.

use std::collections::{BTreeMap, HashMap};

use super::{
    job::{learnt, shared},
    trace::{BLOCK, Job},
};

/// Blocks that a generation of what an asking machine remembers has; the last two are kept.
const GENERATION: u64 = 16_384;

/// Who has lately worked on which texts for one asking machine.
#[derive(Debug, Default)]
pub(super) struct Known {
    young: HashMap<(u32, u64), u64>,
    old: HashMap<(u32, u64), u64>,
    blocks: u64,
}

impl Known {
    /// How many leading blocks of a job a machine has worked on.
    pub(super) fn shared(&self, machine: u32, job: &Job) -> u32 {
        let find = |text| {
            let found = |map: &HashMap<_, u64>| map.get(&(machine, text)).copied().unwrap_or(0);
            Some(found(&self.young).max(found(&self.old)))
        };
        u32::try_from(shared(job, find)).unwrap_or(u32::MAX)
    }

    /// A machine has worked on a job. What it answered is no part of what was asked of it.
    pub(super) fn learn(&mut self, machine: u32, job: &Job) {
        for (text, blocks) in learnt(job, 0) {
            let known = self.young.entry((machine, text)).or_default();
            self.blocks += blocks.saturating_sub(*known);
            *known = blocks.max(*known);
        }
        if self.blocks > GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.blocks = 0;
        }
    }
}

/// The beginnings that are in a machine's KV cache still, in the room that running jobs leave.
#[derive(Debug, Default)]
pub(super) struct Cache {
    texts: BTreeMap<u64, Text>,
    blocks: u64,
    turn: u64,
}

#[derive(Debug)]
struct Text {
    model: u32,
    blocks: u64,
    used: u64,
}

impl Cache {
    /// Tokens of a job's prompt that need not be computed. The last token is always computed.
    pub(super) fn find(&mut self, job: &Job) -> u64 {
        self.turn += 1;
        let (texts, turn) = (&mut self.texts, self.turn);
        let find = |key: u64| {
            let text = texts.get_mut(&key)?;
            text.used = turn;
            Some(text.blocks)
        };
        (shared(job, find) * BLOCK).min(u64::from(job.prompt).saturating_sub(1))
    }

    /// A job and its answer were worked on; what was not used for longest makes room.
    pub(super) fn keep(&mut self, job: &Job, answer: u32, room: u64) {
        self.turn += 1;
        for (key, blocks) in learnt(job, answer) {
            let text = self.texts.entry(key).or_insert(Text { model: job.model, blocks: 0, used: 0 });
            self.blocks += blocks.saturating_sub(text.blocks);
            (text.blocks, text.used) = (text.blocks.max(blocks), self.turn);
        }
        self.shrink(room);
    }

    /// Gives back what is beyond the room, in tokens.
    pub(super) fn shrink(&mut self, room: u64) {
        while self.blocks.saturating_mul(BLOCK) > room {
            let oldest = self.texts.iter().min_by_key(|(key, text)| (text.used, **key)).map(|(key, _)| *key);
            let Some(text) = oldest.and_then(|key| self.texts.remove(&key)) else { break };
            self.blocks = self.blocks.saturating_sub(text.blocks);
        }
    }

    /// A model is not in memory any more.
    pub(super) fn forget(&mut self, model: u32) {
        self.texts.retain(|_, text| text.model != model);
        self.blocks = self.texts.values().map(|text| text.blocks).sum();
    }

    /// The machine was away.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
