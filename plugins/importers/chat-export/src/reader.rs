//! One file: conversation by conversation, each turned into entries and problems.

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Read,
};

use potluck_importer::{Entry, Problem, problem};

use super::{
    chatgpt, claude,
    exchange::{self, Conversation},
    json::Fields,
    pieces::{Piece, Pieces},
};

/// Bytes of the longest conversation. Reading one takes about three times as much memory.
const LONGEST: usize = 32 << 20;
/// Most bytes of a file's name in a source.
const NAME: usize = 80;
/// Most bytes of a conversation's id in a source.
const ID: usize = 40;

/// What a file gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Something to remember.
    Entry(Entry),
    /// Something that could not be read.
    Problem(Problem),
}

/// The entries and problems of one file, in its order.
pub struct Reader<R> {
    pieces: Pieces<R>,
    file: String,
    /// Conversations seen.
    count: usize,
    ready: VecDeque<Item>,
    /// Notes that were given: every conversation carries the custom instructions again.
    known: HashSet<u64>,
    over: bool,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("file", &self.file).field("count", &self.count).finish_non_exhaustive()
    }
}

impl<R: Read> Reader<R> {
    /// Reads a file that is called so.
    pub fn new(input: R, name: &str) -> Self {
        let file = name.get(name.ceil_char_boundary(name.len().saturating_sub(NAME))..).unwrap_or_default();
        Self {
            pieces: Pieces::new(input, LONGEST),
            file: file.to_owned(),
            count: 0,
            ready: VecDeque::new(),
            known: HashSet::new(),
            over: false,
        }
    }

    fn fill(&mut self) {
        let piece = match self.pieces.next() {
            Ok(Some(piece)) => piece,
            Ok(None) => {
                self.over = true;
                return;
            }
            Err(error) => {
                self.over = true;
                self.tell(&self.file.clone(), format!("reading failed: {error}"));
                return;
            }
        };
        self.count += 1;
        let place = format!("{}, conversation {}", self.file, self.count);
        match piece {
            Piece::Whole(bytes) => match conversation(&bytes) {
                Ok((service, conversation)) => self.take(service, &conversation, place),
                Err(reason) => self.tell(&place, reason),
            },
            Piece::Long => self.tell(&place, format!("the conversation has more than {} MiB", LONGEST >> 20)),
            Piece::Cut => self.tell(&place, "the file ends in the middle of the conversation".into()),
        }
    }

    fn take(&mut self, service: &str, conversation: &Conversation, mut place: String) {
        let id = conversation.id.as_str();
        if !id.is_empty() && id.len() <= ID {
            place = format!("{place} ({id})");
        }
        for entry in exchange::entries(conversation, service, &place) {
            let is_note = !entry.tags.iter().any(|tag| tag == "chat");
            if !is_note || self.known.insert(hash(&entry.content)) {
                self.ready.push_back(Item::Entry(entry));
            }
        }
        for reason in &conversation.problems {
            self.tell(&place, reason.clone());
        }
    }

    fn tell(&mut self, place: &str, reason: String) {
        self.ready.push_back(Item::Problem(problem(place, reason)));
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        while self.ready.is_empty() && !self.over {
            self.fill();
        }
        self.ready.pop_front()
    }
}

/// Reads a conversation, whosever it is.
fn conversation(bytes: &[u8]) -> Result<(&'static str, Conversation), String> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| format!("the conversation is not UTF-8: {error}"))?;
    let fields = Fields::read(text).map_err(|reason| format!("the conversation {reason}"))?;
    if fields.has("mapping") {
        chatgpt::read(&fields).map(|conversation| ("chatgpt", conversation))
    } else if fields.has("chat_messages") {
        claude::read(&fields).map(|conversation| ("claude", conversation))
    } else {
        Err("this is no conversation of ChatGPT or Claude".into())
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
