//! A decision on paper: JSON that can be sent to anyone who wants to execute it again.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Decision;
use crate::policy::{
    CallError, Kind, Policy, PolicyHash,
    hash::{hex, unhex},
    types::{Input, Output},
};
use parity_scale_codec::Encode;

/// Longest paper that is read, in bytes.
const MAX_PAPER: usize = 4 << 20;

/// Why a paper cannot be read, or a decision not be executed again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaperError {
    /// Too long.
    #[error("the decision has {0} bytes, more than any has; ask for it again")]
    Long(usize),
    /// Not such a paper.
    #[error("this is no exported decision: {0}; `potluck policy explain JOB --json` exports one")]
    Form(String),
    /// The bytes of the question or of the answer.
    #[error("the {0} of the decision cannot be read; it was changed, or made by a newer node")]
    Bytes(&'static str),
    /// Another policy.
    #[error("the decision was made by {made}, and this policy is {this}; fetch the right one")]
    OtherPolicy {
        /// Which policy made it.
        made: PolicyHash,
        /// Which this is.
        this: PolicyHash,
    },
    /// The call failed.
    #[error("the decision cannot be executed again: {0}")]
    Call(#[from] CallError),
}

/// What executing a decision again came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The same bytes.
    Same,
    /// Another answer: whoever stored the decision did not tell what the policy said.
    Different(Output),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paper {
    version: u32,
    job: Uuid,
    kind: Kind,
    policy: PolicyHash,
    time_ms: u64,
    input: String,
    output: String,
}

impl Decision {
    /// The question.
    ///
    /// # Errors
    /// [`PaperError::Bytes`].
    pub fn question(&self) -> Result<Input, PaperError> {
        let input = Input::from_scale(&self.input).ok().filter(|input| input.kind() == self.kind);
        input.ok_or(PaperError::Bytes("question"))
    }

    /// The answer.
    ///
    /// # Errors
    /// [`PaperError::Bytes`].
    pub fn answer(&self) -> Result<Output, PaperError> {
        let output = Output::from_scale(&self.output).ok().filter(|output| output.kind() == self.kind);
        output.ok_or(PaperError::Bytes("answer"))
    }

    /// Executes the decision again, in a fresh instance, and compares the bytes.
    ///
    /// # Errors
    /// [`PaperError`]: another policy, spoiled bytes, or a failed call.
    pub fn replay(&self, policy: &Policy) -> Result<Replay, PaperError> {
        if policy.hash() != self.policy {
            return Err(PaperError::OtherPolicy { made: self.policy, this: policy.hash() });
        }
        let output = policy.decide(&self.question()?)?.output;
        Ok(if output.encode() == self.output { Replay::Same } else { Replay::Different(output) })
    }

    /// The decision as JSON, with the SCALE bytes in hexadecimal digits.
    pub fn export(&self) -> serde_json::Value {
        serde_json::json!({
            "version": 1,
            "job": self.job,
            "kind": self.kind,
            "policy": self.policy,
            "time_ms": self.time_ms,
            "input": format!("0x{}", hex(&self.input)),
            "output": format!("0x{}", hex(&self.output)),
        })
    }

    /// Reads what [`Self::export`] wrote. The bytes are only looked at when they are used.
    ///
    /// # Errors
    /// [`PaperError`]: too long, or of another form.
    pub fn import(json: &str) -> Result<Self, PaperError> {
        if json.len() > MAX_PAPER {
            return Err(PaperError::Long(json.len()));
        }
        let paper: Paper = serde_json::from_str(json).map_err(|error| PaperError::Form(error.to_string()))?;
        if paper.version != 1 {
            return Err(PaperError::Form(format!("version {} is not known", paper.version)));
        }
        let input = unhex(&paper.input).ok_or(PaperError::Bytes("question"))?;
        let output = unhex(&paper.output).ok_or(PaperError::Bytes("answer"))?;
        let (job, kind, policy, time_ms) = (paper.job, paper.kind, paper.policy, paper.time_ms);
        Ok(Self { job, kind, policy, time_ms, input, output })
    }
}
