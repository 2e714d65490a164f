use std::{fmt, time::Duration};

use super::Fault;
use crate::policy::Kind;

/// Why a call of a policy gave no decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// A policy of one kind was asked a question of another.
    #[error("a {policy} policy cannot answer a {asked} question; ask one of that kind")]
    WrongKind {
        /// What the policy decides.
        policy: Kind,
        /// What was asked.
        asked: Kind,
    },
    /// The question is beyond a bound of the interface. The policy was not asked.
    #[error("the policy was not asked, since the question is out of bounds: {0}")]
    Question(Fault),
    /// All instances were in use for too long.
    #[error(
        "no instance came free within {} ms, since too many decisions are made at once; try again",
        .0.as_millis()
    )]
    Busy(Duration),
    /// It computed for too long.
    #[error("the policy used up its {budget} units of fuel; it loops, or does too much for one decision")]
    Fuel {
        /// Fuel of one call.
        budget: u64,
    },
    /// It took too long by the clock.
    #[error("the policy was stopped after {} ms; it does too much, or this machine is overloaded", .0.as_millis())]
    Time(Duration),
    /// It wanted more memory than it may have.
    #[error(
        "the policy wanted more than the {limit} bytes of memory, or more table elements, than it may have"
    )]
    Memory {
        /// Bytes that one instance may have.
        limit: u64,
    },
    /// It called too deeply.
    #[error("the policy's calls nested deeper than its {limit} bytes of stack; it recurses without an end")]
    Stack {
        /// Bytes of stack.
        limit: u64,
    },
    /// It broke off: it panicked, or read beyond its memory.
    #[error("the policy broke off: {0}; its author can find the cause with `potluck policy try`")]
    Trap(String),
    /// It answered more than may be copied out of it.
    #[error("the policy's answer is larger than {limit} bytes and was not read")]
    TooMuch {
        /// Bytes of one answer.
        limit: u64,
    },
    /// Its answer is not of the form that the interface describes.
    #[error(
        "the policy's answer cannot be read: {0}; it was built with tools that do not follow the interface"
    )]
    Malformed(String),
    /// Its answer is beyond a bound of the interface.
    #[error("the policy's answer is out of bounds and does not count: {0}")]
    Answer(Fault),
    /// It refused in words. That is an answer and no failure.
    #[error("the policy refuses: {0}")]
    Refused(String),
}

impl CallError {
    /// The error in one word, for counting.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::WrongKind { .. } | Self::Question(_) => Reason::Question,
            Self::Busy(_) => Reason::Busy,
            Self::Fuel { .. } => Reason::Fuel,
            Self::Time(_) => Reason::Time,
            Self::Memory { .. } => Reason::Memory,
            Self::Stack { .. } => Reason::Stack,
            Self::Trap(_) => Reason::Trap,
            Self::TooMuch { .. } => Reason::TooMuch,
            Self::Malformed(_) => Reason::Malformed,
            Self::Answer(_) => Reason::Answer,
            Self::Refused(_) => Reason::Refused,
        }
    }

    /// Whether the policy itself is at fault, so that it counts towards setting it aside.
    pub const fn blames_policy(&self) -> bool {
        self.reason().blames_policy()
    }
}

/// Why there was no decision, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The question was out of bounds or of another kind.
    Question,
    /// No instance was free.
    Busy,
    /// Out of fuel.
    Fuel,
    /// Out of time.
    Time,
    /// Too much memory.
    Memory,
    /// Too deep calls.
    Stack,
    /// Broke off.
    Trap,
    /// Answered too much.
    TooMuch,
    /// Answered in a wrong form.
    Malformed,
    /// Answered out of bounds.
    Answer,
    /// Refused in words.
    Refused,
}

impl Reason {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Question,
        Self::Busy,
        Self::Fuel,
        Self::Time,
        Self::Memory,
        Self::Stack,
        Self::Trap,
        Self::TooMuch,
        Self::Malformed,
        Self::Answer,
        Self::Refused,
    ];

    /// The word used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::Busy => "busy",
            Self::Fuel => "fuel",
            Self::Time => "time",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::Trap => "trap",
            Self::TooMuch => "too_much",
            Self::Malformed => "malformed",
            Self::Answer => "answer",
            Self::Refused => "refused",
        }
    }

    /// Whether the policy itself is at fault.
    pub const fn blames_policy(self) -> bool {
        !matches!(self, Self::Question | Self::Busy | Self::Refused)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
