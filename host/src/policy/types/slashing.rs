use parity_scale_codec::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::MicroCredits;

/// What an audit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer is what the model gives.
    Passed,
    /// It is not.
    Failed,
    /// It could not be told.
    Unclear,
}

/// How an audit was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The answer was computed again in one pass and its tokens compared with what the sampler would take.
    Forced,
    /// The activations were compared with what the provider committed to.
    Activations,
    /// Another machine computed the same bits.
    Exact,
    /// The answer was known beforehand.
    Canary,
    /// Receipts or counts contradict each other.
    Accounts,
}

/// One audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Which verifier made it.
    pub verifier: u64,
    /// How.
    pub method: Method,
    /// What it found.
    pub outcome: Outcome,
    /// How far off, in millionths of the method's own threshold: 1,000,000 is just at it.
    pub distance: u64,
    /// Tokens it looked at.
    pub tokens: u64,
    /// When, in milliseconds since 1970.
    pub time: u64,
}

/// Everything that is known in one case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Who is accused.
    pub provider: u64,
    /// Audits of the provider, the oldest first. At most 4,096.
    pub audits: Vec<Audit>,
    /// Verifiers that were drawn for this case.
    pub drawn: u32,
    /// How many of them must agree.
    pub quorum: u32,
    /// What the provider has at stake.
    pub stake: MicroCredits,
    /// What it earned with the jobs of this case.
    pub earned: MicroCredits,
    /// Verdicts against it so far.
    pub convictions: u32,
    /// Jobs it has served since it came.
    pub served: u64,
}

/// The judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Nothing wrong was found: the case is closed.
    Acquit,
    /// More audits are needed.
    Undecided,
    /// This share of the stake is lost, in millionths: 1 to 1,000,000.
    Convict(u32),
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The judgement.
    pub judgement: Judgement,
    /// Why, in words that the accused can check. At most 1,024 bytes.
    pub reason: String,
}
