use parity_scale_codec::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{MicroCredits, MilliTokensPerSecond};

/// The machine that would serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Its class, a word the pool agreed on, such as `cpu-8` or `gpu-24g`. At most 256 bytes.
    pub class: String,
    /// Measured prompt tokens per second with this model.
    pub prefill: MilliTokensPerSecond,
    /// Measured tokens per second of one answer with this model.
    pub decode: MilliTokensPerSecond,
    /// Parameters of the model, in millions.
    pub parameters: u64,
    /// Bits per weight, in thousandths: 4500 for 4.5.
    pub bits: u32,
}

/// How much is asked for and offered now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Market {
    /// Jobs that wait for this model.
    pub waiting: u64,
    /// Jobs that are answered now.
    pub running: u64,
    /// Jobs that could be answered at the same time.
    pub capacity: u64,
    /// Share of the capacity that was used in the last hour, in millionths.
    pub used: u32,
    /// Least that may be asked for a thousand tokens of an answer.
    pub floor: MicroCredits,
    /// Most that may be asked for a thousand tokens of an answer.
    pub ceiling: MicroCredits,
    /// What was last paid for a thousand tokens of an answer; `None`: nothing yet.
    pub last: Option<MicroCredits>,
}

/// A price.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// For the job as such.
    pub start: MicroCredits,
    /// For a thousand tokens of the prompt.
    pub per_thousand_prompt: MicroCredits,
    /// For a thousand tokens of the answer.
    pub per_thousand_answer: MicroCredits,
    /// For how long it holds, in milliseconds.
    pub valid_ms: u64,
    /// Why, in a few words, for people. At most 1,024 bytes.
    pub note: String,
}

impl Price {
    /// What a job costs: the start, and for each token its thousandth, rounded up once at the end. `None`: more than
    /// there is room for.
    pub fn total(&self, prompt_tokens: u64, answer_tokens: u64) -> Option<MicroCredits> {
        let part = |tokens: u64, price: u64| u128::from(tokens).checked_mul(price.into());
        let parts = part(prompt_tokens, self.per_thousand_prompt)?
            .checked_add(part(answer_tokens, self.per_thousand_answer)?)?;
        let total = u128::from(self.start).checked_add(parts.div_ceil(1000))?;
        total.try_into().ok()
    }
}
