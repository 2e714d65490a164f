//! What happens in a simulation: models, machines and jobs, as lines of JSON.
//!
//! The first line is the head, then come the models, the machines and the jobs, one in each line:
//!
//! ```text
//! {"trace":{"version":1,"note":"Tuesday in our pool"}}
//! {"model":{"name":"guide-8b","parameters":8000,"bits":4500}}
//! {"machine":{"class":"gpu-24g","prefill":9000000,"decode":250000,"slots":8,"kv_tokens":65536,"context":16384,"models":[0]}}
//! {"job":{"at_us":1500000,"from":0,"model":0,"prompt":412,"answer":180,"prefix":[[7,4],[91,2]]}}
//! ```
//!
//! Models and machines are named by their place, from 0. Times count from the beginning of the trace.

mod check;
mod read;

use std::io;

use serde::{Deserialize, Serialize};

/// Longest line, in bytes.
pub const MAX_LINE: usize = 64 << 10;
/// Most models.
pub const MAX_MODELS: usize = 1024;
/// Most machines.
pub const MAX_PEERS: usize = 10_000;
/// Most jobs.
pub const MAX_JOBS: usize = 2_000_000;
/// The version of the format that is written and read.
pub(super) const VERSION: u32 = 1;
/// Tokens of a block of a prompt's beginning: a block has 256 bytes in a node, and a token about four.
pub(super) const BLOCK: u64 = 64;

/// The first line of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceHead {
    /// The version of the format: 1.
    pub version: u32,
    /// Where it comes from, for people. At most 1,024 bytes.
    #[serde(default)]
    pub note: String,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name. At most 256 bytes.
    pub name: String,
    /// Parameters, in millions.
    pub parameters: u64,
    /// Bits per weight, in thousandths.
    pub bits: u32,
}

/// A machine. Each can ask for jobs; one that has models also answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// What kind of machine it is, in a word.
    pub class: String,
    /// Prompt tokens per second with a model of 1,000 million parameters, in thousandths. With others it is inversely
    /// proportional to their parameters.
    pub prefill: u64,
    /// Tokens per second of one answer, likewise.
    pub decode: u64,
    /// What it says of its speeds, in millionths of what they are.
    #[serde(default = "million")]
    pub claims: u32,
    /// Jobs that it answers at the same time.
    pub slots: u32,
    /// By how much each answer beside it slows an answer down, in millionths of the time it takes alone.
    #[serde(default)]
    pub crowding: u32,
    /// Tokens of its KV cache.
    pub kv_tokens: u64,
    /// Longest context, in tokens.
    pub context: u64,
    /// Models that it has room for in memory at the same time.
    #[serde(default = "one")]
    pub resident: u32,
    /// Microseconds to load a model, for each 1,000 million parameters.
    #[serde(default)]
    pub load_us: u64,
    /// The models that it has. Those that come first are in memory at the beginning, as many as there is room for.
    pub models: Vec<u32>,
    /// Where it is, in microseconds of light and wire: two machines are as far from each other as these say.
    #[serde(default)]
    pub place: [u32; 2],
    /// Microseconds from it to the net and back.
    #[serde(default)]
    pub access_us: u32,
    /// Whether it cannot be reached from outside: two of these meet through a third machine only.
    #[serde(default)]
    pub walled: bool,
    /// Jobs that fail there, in millionths.
    #[serde(default)]
    pub faults: u32,
    /// What it has at stake, in micro-credits.
    #[serde(default)]
    pub stake: u64,
    /// Audits that it passed.
    #[serde(default)]
    pub audits_passed: u32,
    /// Audits that it failed.
    #[serde(default)]
    pub audits_failed: u32,
    /// When it is away, from and to, in microseconds; in order. At most 256 times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub away: Vec<[u64; 2]>,
}

/// A job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// When it is asked for, in microseconds. No job comes before the one in the line above it.
    pub at_us: u64,
    /// The machine that asks.
    pub from: u32,
    /// The model that it asks for.
    pub model: u32,
    /// Tokens of the prompt. At most a million.
    pub prompt: u32,
    /// Tokens of the answer. At most a million.
    pub answer: u32,
    /// The limit that the one who asks has set; without it nobody knows how long the answer will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// What the prompt begins with: texts by a number and with how many blocks of 64 tokens. Prompts that begin with
    /// the same texts share these blocks. At most 8 texts and 64 blocks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefix: Vec<[u64; 2]>,
    /// The most that may be paid for it, in micro-credits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price: Option<u64>,
}

const fn million() -> u32 {
    1_000_000
}

const fn one() -> u32 {
    1
}

/// Everything that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Its first line.
    pub head: TraceHead,
    /// Models.
    pub models: Vec<Model>,
    /// Machines.
    pub machines: Vec<Machine>,
    /// Jobs, the earliest first.
    pub jobs: Vec<Job>,
}

impl Trace {
    /// When the last job is asked for, in microseconds.
    pub fn span(&self) -> u64 {
        self.jobs.last().map_or(0, |job| job.at_us)
    }
}

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Trace(TraceHead),
    Model(Model),
    Machine(Machine),
    Job(Job),
}

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The disk failed.
    #[error("line {line} of the trace cannot be read: {source}")]
    Read {
        /// The line, from 1.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// The disk failed.
    #[error("the trace cannot be written: {0}")]
    Write(#[source] io::Error),
    /// A line without an end.
    #[error(
        "line {line} of the trace has more than {MAX_LINE} bytes; write one model, machine or job in each line"
    )]
    Long {
        /// The line, from 1.
        line: u64,
    },
    /// No JSON, or other fields.
    #[error(
        "line {line} of the trace cannot be understood: {reason}; docs/simulator.md describes the format"
    )]
    Malformed {
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A line where it cannot be.
    #[error(
        "line {line} of the trace is a {found} and comes too late; the order is: trace, models, machines, jobs"
    )]
    Order {
        /// The line, from 1.
        line: u64,
        /// What it is.
        found: &'static str,
    },
    /// It does not begin with a head.
    #[error(
        "the trace does not begin with {{\"trace\":{{\"version\":1}}}}; it is something else, or its head is lost"
    )]
    Headless,
    /// Too many lines of a kind.
    #[error(
        "line {line} of the trace is one too many: at most {most} {what} are simulated; give it a part of them"
    )]
    Many {
        /// The line, from 1.
        line: u64,
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// A value that cannot be.
    #[error("line {line} of the trace: {field} {reason}; correct it or leave the line out")]
    Value {
        /// The line, from 1.
        line: u64,
        /// Of which field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Something is missing altogether.
    #[error("the trace has no {0}; a simulation needs models, machines and jobs")]
    Empty(&'static str),
}
