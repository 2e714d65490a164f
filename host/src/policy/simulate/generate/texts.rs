//! What is said: conversations, and the texts of applications that prompts begin with.

use super::super::{
    number::{Random, mix_all},
    trace::BLOCK,
};

/// Applications, each with its own beginning of prompts.
const APPS: u64 = 40;
/// Longest conversation, in tokens and turns.
const MOST: u64 = 5_000;
const TURNS: u32 = 12;
/// Blocks that a node looks at.
const BLOCKS: u64 = 64;

/// One job's text.
pub(super) struct Text {
    pub(super) model: u32,
    pub(super) prompt: u32,
    pub(super) answer: u32,
    pub(super) prefix: Vec<[u64; 2]>,
}

#[derive(Clone, Copy)]
struct Conversation {
    number: u64,
    model: u32,
    app: Option<u64>,
    tokens: u64,
    turns: u32,
}

/// What each asker has said last.
pub(super) struct Texts {
    last: Vec<Option<Conversation>>,
    count: u64,
}

impl Texts {
    pub(super) fn new(askers: usize) -> Self {
        Self { last: vec![None; askers], count: 0 }
    }

    /// What an asker says next: more of the same, every other time, or something new.
    pub(super) fn next(
        &mut self,
        from: u32,
        model: impl FnOnce(&mut Random) -> u32,
        random: &mut Random,
    ) -> Text {
        let said = random.log_normal(120.0, 1.2, 4, 3_000);
        let answer = random.log_normal(160.0, 0.9, 1, 2_000);
        let last = self.last.get(from as usize).copied().flatten();
        let going = last.filter(|it| it.tokens + said < MOST && it.turns < TURNS && random.happens(600_000));
        let before = going.unwrap_or_else(|| {
            self.count += 1;
            // Some applications are used more than others.
            let app = random.happens(700_000).then(|| random.below(APPS).min(random.below(APPS)));
            Conversation { number: 1_000_000 + self.count, model: model(random), app, tokens: 0, turns: 0 }
        });
        let opening = before.app.map_or(0, |app| 64 + mix_all(&[6, app]) % 1_200);
        let own = before.tokens + said;
        let blocks = (opening / BLOCK).min(BLOCKS);
        let prefix = [(before.app.unwrap_or(0), blocks), (before.number, (own / BLOCK).min(BLOCKS - blocks))];
        let prefix =
            prefix.into_iter().filter(|(_, blocks)| *blocks > 0).map(|(text, blocks)| [text, blocks]);
        let after = Conversation { tokens: own + answer, turns: before.turns + 1, ..before };
        if let Some(last) = self.last.get_mut(from as usize) {
            *last = Some(after);
        }
        Text {
            model: before.model,
            prompt: u32::try_from(opening + own).unwrap_or(u32::MAX),
            answer: u32::try_from(answer).unwrap_or(u32::MAX),
            prefix: prefix.collect(),
        }
    }
}
