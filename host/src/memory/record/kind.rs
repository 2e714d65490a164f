//! What a record is about.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a record is about: helps to find it, and to know how long it holds.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    minicbor::Encode,
    minicbor::Decode,
)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Kind {
    /// Something that is so.
    #[default]
    #[n(0)]
    Fact,
    /// Something that was settled, and why.
    #[n(1)]
    Decision,
    /// Something to do.
    #[n(2)]
    Task,
    /// Where something is found.
    #[n(3)]
    Reference,
    /// How someone likes things to be.
    #[n(4)]
    Preference,
}

impl Kind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 5] = [Self::Fact, Self::Decision, Self::Task, Self::Reference, Self::Preference];

    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fact => "fact",
            Self::Decision => "decision",
            Self::Task => "task",
            Self::Reference => "reference",
            Self::Preference => "preference",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of memory: use fact, decision, task, reference or preference")]
pub struct KindError(pub String);

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = text.trim();
        Self::ALL
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(wanted))
            .ok_or_else(|| KindError(text.chars().take(64).collect()))
    }
}
