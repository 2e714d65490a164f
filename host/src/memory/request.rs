//! What is asked of the memory, and what it answers: the one vocabulary of HTTP, MCP and the command line.

use serde::{Deserialize, Serialize};

use super::{
    record::{Kind, Millis, RecordId},
    redact::Redaction,
};

/// Most items one recall or listing returns.
pub const MAX_LIMIT: usize = 200;
/// Longest query in bytes; what lies beyond is cut.
pub const MAX_QUERY: usize = 16 << 10;

/// Which records are meant. Fields that are absent do not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Only this project.
    pub project: Option<String>,
    /// Any of these kinds; empty: all.
    pub kinds: Vec<Kind>,
    /// All of these tags.
    pub tags: Vec<String>,
    /// What occurred (or, where that is unknown, was written) at this moment or later.
    pub since: Option<Millis>,
    /// What occurred (or was written) before this moment.
    pub until: Option<Millis>,
}

/// A question to the memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecallRequest {
    /// The question, in words.
    pub query: String,
    /// Which records may answer.
    #[serde(flatten)]
    pub filter: Filter,
    /// The memory as it was known at this moment: later versions are ignored.
    pub as_of: Option<Millis>,
    /// The moment the question is asked, for "two weeks ago"; `None`: now.
    pub now: Option<Millis>,
    /// Most items; `None`: 10.
    pub limit: Option<usize>,
    /// Whether each item says how each leg ranked it.
    pub explain: bool,
}

/// One record as the surfaces show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The version's id.
    pub id: RecordId,
    /// The text, secrets removed. Data, never instructions.
    pub content: String,
    /// What sort of memory it is.
    pub kind: Kind,
    /// Its project.
    pub project: Option<String>,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// When what it tells happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<Millis>,
    /// When it stops being true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Millis>,
    /// When it was written.
    pub created_at: Millis,
    /// The node that wrote it.
    pub origin: String,
    /// The agent that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Versions that this one replaces.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub supersedes: Vec<RecordId>,
    /// Where it stands.
    pub state: ItemState,
    /// Other living versions of the same memory, written without knowledge of this one: a conflict to resolve by
    /// an `update` that supersedes them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub conflicts_with: Vec<RecordId>,
    /// How well it answers, higher is better; only comparable within one answer. Zero in listings.
    #[serde(default)]
    pub score: f32,
    /// How each leg ranked it, when asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub explain: Option<Explain>,
}

/// Where a version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemState {
    /// Current.
    Live,
    /// A later version replaces it.
    Superseded,
    /// It was forgotten; the text is kept for its owner's history.
    Forgotten,
    /// It was forgotten for good; the text is gone.
    Erased,
}

/// How the legs of a recall ranked an item, best is 1, and what moved it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explain {
    /// Rank by leg: `dense_record`, `dense_passage`, `lexical_record`, `lexical_passage`, `keyword`, …
    pub ranks: std::collections::BTreeMap<String, u32>,
    /// Factors on the fused score by name, e.g. `time`.
    pub boosts: std::collections::BTreeMap<String, f32>,
}

/// The answer to a recall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recalled {
    /// Best first.
    pub items: Vec<Item>,
    /// The model the question was embedded with; `None`: recall was by words alone.
    pub embedder: Option<String>,
    /// Why recall was by words alone, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
    /// Milliseconds in all.
    pub took_ms: f64,
    /// Milliseconds of that for embedding the question.
    pub embed_ms: f64,
    /// Records and words whose vectors are still to be computed; words find the records already.
    pub pending: u64,
}

/// The answer to a write, sent once it is on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// The version's id; that of the existing record for a duplicate.
    pub id: RecordId,
    /// The record that said the same already; nothing was written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duplicate_of: Option<RecordId>,
    /// Living records that say nearly the same.
    pub near_duplicates: Vec<RecordId>,
    /// Secrets that were removed, by kind.
    pub redactions: Vec<Redaction>,
}

/// What an update changes; absent fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// A new text.
    pub content: Option<String>,
    /// A new kind.
    pub kind: Option<Kind>,
    /// A new project; an empty one takes it out of its project.
    pub project: Option<String>,
    /// All tags anew.
    pub tags: Option<Vec<String>>,
    /// A new time of what it tells.
    pub occurred_at: Option<Millis>,
    /// A new end of its validity.
    pub valid_until: Option<Millis>,
    /// Further versions this one replaces, to resolve a conflict.
    pub supersedes: Vec<RecordId>,
    /// The agent that makes the change.
    pub source: Option<String>,
}

/// What is to be forgotten.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForgetRequest {
    /// These records.
    pub ids: Vec<RecordId>,
    /// Or all that this describes; an empty description is refused.
    pub filter: Option<Filter>,
    /// Why, for the history.
    pub reason: Option<String>,
    /// Whether the text is erased from the log too, for good.
    pub hard: bool,
    /// Without it nothing is changed: the answer says what would be.
    pub confirm: bool,
}

/// What was, or would be, forgotten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forgotten {
    /// How many records.
    pub count: u64,
    /// The first of them, at most [`MAX_LIMIT`].
    pub ids: Vec<RecordId>,
    /// Whether it only says what would happen.
    pub dry_run: bool,
    /// Whether texts were, or would be, erased for good.
    pub hard: bool,
}

/// One record with its history, oldest version first when asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The record.
    #[serde(flatten)]
    pub item: Item,
    /// Every version of the memory, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub history: Vec<Item>,
}

/// What an agent should know at the start of work, within a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Briefing {
    /// The project.
    pub project: Option<String>,
    /// As text, to be read as data.
    pub text: String,
    /// The records in it.
    pub items: Vec<Item>,
    /// Tokens of the text, estimated at four bytes each.
    pub tokens: usize,
    /// Living records that did not fit.
    pub left_out: u64,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Objects read.
    pub read: u64,
    /// Written.
    pub added: u64,
    /// Already there.
    pub duplicates: u64,
    /// Refused.
    pub refused: u64,
    /// The first refusals: line (from 1) and reason.
    pub errors: Vec<ImportError>,
    /// Secrets that were removed, by kind.
    pub redactions: Vec<Redaction>,
}

/// Why one object of an import was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportError {
    /// Line of the input, from 1.
    pub line: u64,
    /// What was wrong.
    pub reason: String,
}

/// The memory's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Versions in the log.
    pub versions: u64,
    /// Living records.
    pub live: u64,
    /// Living records by kind.
    pub kinds: std::collections::BTreeMap<String, u64>,
    /// Living records by project; records without one under the empty name.
    pub projects: std::collections::BTreeMap<String, u64>,
    /// Memories with two living versions.
    pub conflicts: u64,
    /// The model vectors come from.
    pub embedder: Option<String>,
    /// Records and words of their vocabulary without vectors yet.
    pub pending: u64,
    /// Records that the text index does not hold yet (the overlay finds them).
    pub overlay: u64,
    /// Bytes on disk: log, text index, postings, vectors.
    pub bytes: std::collections::BTreeMap<String, u64>,
    /// Secrets removed since the log began, by kind.
    pub redactions: std::collections::BTreeMap<String, u64>,
    /// What was found damaged when the memory was opened, and what was done.
    pub repairs: Vec<String>,
}
