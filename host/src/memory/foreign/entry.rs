//! What an importer gives, in the words of the memory.

use serde::Serialize;

use super::bindings::potluck::importer::types as wit;
use crate::memory::Kind;

/// Most bytes of the name of a record's source, as the memory keeps it.
const SOURCE: usize = 128;

pub(super) fn kind(kind: wit::Kind) -> Kind {
    match kind {
        wit::Kind::Fact => Kind::Fact,
        wit::Kind::Decision => Kind::Decision,
        wit::Kind::Task => Kind::Task,
        wit::Kind::Reference => Kind::Reference,
        wit::Kind::Preference => Kind::Preference,
    }
}

/// What an importer says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Its name: lower case letters, digits and dashes.
    pub name: String,
    /// Its own version, as its author counts.
    pub version: String,
    /// What it reads, in one or two sentences.
    pub summary: String,
    /// Under which licence it may be used, as an SPDX expression.
    pub licence: String,
}

/// One thing to remember.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The text, at most 1 MiB.
    pub content: String,
    /// What it is.
    pub kind: Kind,
    /// The project it belongs to, at most 256 bytes; `None`: no project.
    pub project: Option<String>,
    /// Words to find it by: at most 64 of 64 bytes.
    pub tags: Vec<String>,
    /// When it happened, in milliseconds since 1970; `None`: it is not known.
    pub occurred_at: Option<i64>,
    /// Where it was, for people, at most 256 bytes.
    pub source: String,
}

impl Entry {
    /// What a record's source says: who read it (`agent`, see [`Importer::agent`](super::Importer::agent)) and
    /// where it was. At most 128 bytes, without control characters; a long place loses its middle, because a
    /// file's name stands in front and the place in it at the end.
    pub fn provenance(&self, agent: &str) -> String {
        let place: String =
            self.source.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let whole = if place.is_empty() { agent.to_owned() } else { format!("{agent} {place}") };
        if whole.len() <= SOURCE {
            return whole;
        }
        let room = SOURCE.saturating_sub(agent.len() + " …".len());
        let tail = place.ceil_char_boundary(place.len().saturating_sub(room / 2));
        let head = place.floor_char_boundary(room - (place.len() - tail).min(room));
        let part = |range| place.get(range).unwrap_or_default();
        format!("{agent} {}…{}", part(0..head), part(tail..place.len()))
    }
}

/// Something that could not be read. The import goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where, at most 256 bytes.
    pub source: String,
    /// What is wrong, in words, at most 1,024 bytes.
    pub reason: String,
}

/// What an import gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Item {
    /// Something to remember.
    Entry(Entry),
    /// Something that could not be read.
    Problem(Problem),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(source: &str) -> Entry {
        Entry {
            content: "x".into(),
            kind: Kind::Fact,
            project: None,
            tags: Vec::new(),
            occurred_at: None,
            source: source.into(),
        }
    }

    #[test]
    fn a_source_says_who_and_where_and_fits() {
        assert_eq!(entry("a.json, line 3").provenance("chat@12"), "chat@12 a.json, line 3");
        assert_eq!(entry(" \n").provenance("chat@12"), "chat@12");
        assert_eq!(entry("a\tb\u{7}c").provenance("x"), "x a b c");
        for length in [100, 119, 120, 121, 200, 256] {
            let place = format!("{}ü#{length}", "ä".repeat(length / 2));
            let said = entry(&place).provenance("chat-export@1a2b3c4d");
            assert!(said.len() <= SOURCE, "{} bytes for {length}", said.len());
            assert!(said.ends_with(&format!("ü#{length}")), "{said}");
            assert!(said.starts_with("chat-export@1a2b3c4d ä"), "{said}");
            assert_eq!(said.contains('…'), place.len() + 21 > SOURCE, "{said}");
        }
        let name = "n".repeat(64);
        assert!(entry(&"é".repeat(128)).provenance(&format!("{name}@1a2b3c4d")).len() <= SOURCE);
    }
}
