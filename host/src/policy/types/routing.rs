use parity_scale_codec::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{MicroCredits, MilliTokensPerSecond};

/// Which circle a job may run in. A local job meets no policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Circle {
    /// Machines of one trusted pool.
    #[default]
    Trusted,
    /// Strangers, paid in credits.
    Public,
}

/// A job, without a word of what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The model's name as it was asked for. At most 256 bytes.
    pub model: String,
    /// Where it may run.
    pub circle: Circle,
    /// Fewest tokens the prompt can have.
    pub prompt_least: u64,
    /// Most tokens the prompt can have.
    pub prompt_most: u64,
    /// Tokens for which the answer must have room.
    pub answer_room: u64,
    /// Tokens the answer is expected to have.
    pub answer_expected: u64,
    /// Tokens another machine has already made of this answer.
    pub resumed: u64,
    /// Keyed hashes of the prompt's leading blocks, the first block first, each over all blocks up to its own. At
    /// most 64.
    pub prefix: Vec<u64>,
    /// The most the one who asks will pay for the whole job; `None`: nothing was said.
    pub max_price: Option<MicroCredits>,
}

/// The way to a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// No way is needed: it is the machine that decides.
    Own,
    /// A connection of our own.
    #[default]
    Direct,
    /// Through a third machine.
    Relayed,
}

/// What was seen of a machine with this model.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// A token came back lately.
    Healthy,
    /// Nothing is known.
    #[default]
    Unknown,
    /// The last job failed.
    Failed,
    /// It failed so often that it should not be asked for now.
    Paused,
}

/// A machine that has the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// A number that stays the same for a machine as long as it keeps its key.
    pub machine: u64,
    /// The way to it.
    pub path: Path,
    /// Round trip, in microseconds; `None`: not measured.
    pub round_trip: Option<u64>,
    /// What was seen.
    pub health: Health,
    /// Failures in a row.
    pub failures: u32,
    /// Longest context, in tokens; 0: not known.
    pub context: u64,
    /// Whether the model is in memory.
    pub loaded: bool,
    /// Jobs it answers at the same time.
    pub slots: u32,
    /// Jobs that it answers now.
    pub running: u32,
    /// Jobs that wait there.
    pub queued: u32,
    /// Jobs of ours that are there now.
    pub in_flight: u32,
    /// Tokens for which there is room in its KV cache.
    pub free_tokens: u64,
    /// Prompt tokens per second, as it says itself; 0: it does not say.
    pub claimed_prefill: MilliTokensPerSecond,
    /// Tokens per second of one answer, as it says itself; 0: it does not say.
    pub claimed_decode: MilliTokensPerSecond,
    /// Prompt tokens per second, as seen from here, waiting included.
    pub seen_prefill: Option<MilliTokensPerSecond>,
    /// Tokens per second of one answer, as seen from here.
    pub seen_decode: Option<MilliTokensPerSecond>,
    /// From asking to the first token, in microseconds, as seen from here.
    pub seen_first: Option<u64>,
    /// How many leading blocks of the job's prefix it has lately worked on for us.
    pub prefix_blocks: u32,
    /// What it asks for the whole job; `None`: nothing, it is a member.
    pub price: Option<MicroCredits>,
    /// What it has at stake.
    pub stake: MicroCredits,
    /// Audits it has passed.
    pub audits_passed: u32,
    /// Audits it has failed.
    pub audits_failed: u32,
}

/// One candidate in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Its index in the list that was passed.
    pub candidate: u32,
    /// How good it is; only compared with others of the same answer, and shown.
    pub score: i64,
}

/// An order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Ranking {
    /// The best first. A candidate that is left out is not asked. Each at most once.
    pub order: Vec<Choice>,
    /// Why, in a few words, for people. At most 1,024 bytes.
    pub note: String,
}
