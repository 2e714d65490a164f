//! The words that policies are asked and answer with, as the host speaks them.
//!
//! They mirror the newest WIT in `wit/policy`, whose documentation has the last word; [`super::abi`] translates from
//! and to each version of it. Every number is an integer, so that the SCALE bytes of an [`Input`] and of the
//! [`Output`] it leads to are the same on every machine: they are what is stored, compared and re-executed anywhere.

mod pricing;
mod routing;
mod slashing;

use parity_scale_codec::{Decode, DecodeAll, Encode};
use serde::{Deserialize, Serialize};

pub use pricing::{Hardware, Market, Price};
pub use routing::{Candidate, Choice, Circle, Health, Job, Path, Ranking};
pub use slashing::{Audit, Evidence, Judgement, Method, Outcome, Verdict};

use super::Kind;

/// Millionths of a credit. One credit is one hour of the reference machine.
pub type MicroCredits = u64;

/// Thousandths of a token per second.
pub type MilliTokensPerSecond = u64;

/// What a policy says of itself. Shown to people; nothing follows from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Its name: lower case letters, digits and dashes.
    pub name: String,
    /// Its own version, as its author counts.
    pub version: String,
    /// What it does, in one or two sentences.
    pub summary: String,
    /// Under which licence it may be used, as an SPDX expression.
    pub licence: String,
}

/// All that a decision depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Input {
    /// Who serves a job?
    Routing {
        /// The job.
        job: Job,
        /// Machines that have the model.
        candidates: Vec<Candidate>,
        /// Milliseconds since 1970.
        now: u64,
        /// Random, new for each job.
        seed: u64,
    },
    /// What does a job cost?
    Pricing {
        /// The job.
        job: Job,
        /// The machine that would serve.
        hardware: Hardware,
        /// How much is asked for and offered.
        market: Market,
        /// Milliseconds since 1970.
        now: u64,
    },
    /// Did someone cheat?
    Slashing {
        /// What is known.
        evidence: Evidence,
        /// Milliseconds since 1970.
        now: u64,
    },
}

impl Input {
    /// Which kind of policy can answer it.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Routing { .. } => Kind::Routing,
            Self::Pricing { .. } => Kind::Pricing,
            Self::Slashing { .. } => Kind::Slashing,
        }
    }

    /// Reads SCALE bytes.
    ///
    /// # Errors
    /// The bytes are no input, or more than one.
    pub fn from_scale(bytes: &[u8]) -> Result<Self, parity_scale_codec::Error> {
        Self::decode_all(&mut &*bytes)
    }
}

/// What a policy answered: a decision, or its refusal in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(tag = "kind", content = "answer", rename_all = "lowercase")]
pub enum Output {
    /// An order of the candidates.
    Routing(Result<Ranking, String>),
    /// A price.
    Pricing(Result<Price, String>),
    /// A verdict.
    Slashing(Result<Verdict, String>),
}

impl Output {
    /// Which kind of policy gave it.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Routing(_) => Kind::Routing,
            Self::Pricing(_) => Kind::Pricing,
            Self::Slashing(_) => Kind::Slashing,
        }
    }

    /// The policy's refusal in words, where it refused.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Routing(Err(words)) | Self::Pricing(Err(words)) | Self::Slashing(Err(words)) => Some(words),
            Self::Routing(Ok(_)) | Self::Pricing(Ok(_)) | Self::Slashing(Ok(_)) => None,
        }
    }

    /// Reads SCALE bytes.
    ///
    /// # Errors
    /// The bytes are no output, or more than one.
    pub fn from_scale(bytes: &[u8]) -> Result<Self, parity_scale_codec::Error> {
        Self::decode_all(&mut &*bytes)
    }
}

#[cfg(test)]
mod tests;
