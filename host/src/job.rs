//! The domain words: what a request is once no API's shape is left on it, and what comes back.
//!
//! Nothing here does I/O. An API surface turns its own request into a [`Job`]; a provider answers it with a
//! [`Reply`], a bounded stream of [`Event`]s. Dropping the reply cancels the job.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use potluck_kernels::sample::SamplingParams;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::inference::Vouch;

/// Where a job may run. A job never leaves the circle its mode names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// On this machine only; opens no socket beyond loopback.
    #[default]
    Local,
    /// On this machine or a member of a trusted pool.
    Trusted,
    /// Anywhere, strangers included.
    Public,
}

impl Mode {
    /// The word used in headers, model suffixes and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Trusted => "trusted",
            Self::Public => "public",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a mode; use local, trusted or public")]
pub struct UnknownMode(pub String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word.trim().to_ascii_lowercase().as_str() {
            "local" => Ok(Self::Local),
            "trusted" => Ok(Self::Trusted),
            "public" => Ok(Self::Public),
            _ => Err(UnknownMode(word.to_owned())),
        }
    }
}

/// One turn of a conversation. `content` is text; other parts are refused by the API surfaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`, as the model's template knows them.
    pub role: String,
    /// The text.
    pub content: String,
    /// Further fields that templates read (`name`, `tool_calls`, `tool_call_id`), passed through.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// What the model is to continue.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Turns, rendered with the model's own template.
    Chat {
        /// The turns so far.
        messages: Vec<Message>,
        /// Tool definitions for templates that take them.
        tools: Vec<serde_json::Value>,
        /// More variables for the template (`enable_thinking`, …).
        template_vars: serde_json::Map<String, serde_json::Value>,
    },
    /// Text continued as it is; special tokens in it are parsed only when `special`.
    Text {
        /// The text.
        text: String,
        /// Whether text that looks like a special token is one.
        special: bool,
    },
    /// Token ids continued as they are.
    Tokens(Vec<u32>),
}

/// What the answer must look like.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Format {
    /// Free text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema accepts.
    JsonSchema(serde_json::Value),
}

/// How long a model stays loaded after the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// For this long after its last use; zero unloads at once.
    For(Duration),
    /// Until it is unloaded by hand.
    Forever,
}

/// A request, free of any API's shape.
#[derive(Clone, Debug)]
pub struct Job {
    /// Unique, ordered by time.
    pub id: Uuid,
    /// The model's name without mode suffix.
    pub model: String,
    /// Where it may run.
    pub mode: Mode,
    /// What to continue.
    pub input: Input,
    /// How tokens are drawn. Surfaces put [`random_seed`] there when the caller gave no seed.
    pub sampling: SamplingParams,
    /// Most tokens to produce; `None`: until the model stops or the context is full.
    pub max_tokens: Option<u32>,
    /// The answer ends before the first of these; they are not part of it.
    pub stop: Vec<String>,
    /// What the answer must look like.
    pub format: Format,
    /// `Some(n)`: report each token's log-probability and the n likeliest alternatives.
    pub logprobs: Option<u8>,
    /// `None`: the node's default.
    pub keep_alive: Option<KeepAlive>,
    /// Tokens of the answer that exist already, made elsewhere. The answer goes on after them as if they had been
    /// made here; they count against `max_tokens`. Its text begins at the beginning again, so that whoever asks
    /// can check it and pass over what they have; its token ids and log-probabilities do not.
    pub resume: Vec<u32>,
    /// What it may cost, where it costs something.
    pub spend: Spend,
}

/// What a job may cost in the public pool. It stays on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spend {
    /// Most that is paid for the whole job, in micro-credits; `None`: what the configuration says.
    pub max_price: Option<u64>,
    /// Whose budget pays: the name of an API key; `None`: the owner's.
    pub key: Option<String>,
}

/// What a public answer costs. What is not known yet comes when the answer is complete.
#[derive(Clone, Debug, Default)]
pub struct Bill(Arc<OnceLock<Billed>>);

/// A bill that is made out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Billed {
    /// What was paid, in micro-credits.
    pub cost: u64,
    /// How well the provider is known to answer as it should: `new`, `audited`, `trusted`, or `own` for this machine.
    pub audit: String,
    /// The receipt with both signatures, SCALE in hexadecimal; empty where there is none.
    pub receipt: String,
}

impl Bill {
    /// Makes it out; only the first time counts.
    pub fn make_out(&self, billed: Billed) {
        let _ = self.0.set(billed);
    }

    /// What it says, once it is made out.
    pub fn get(&self) -> Option<&Billed> {
        self.0.get()
    }
}

impl PartialEq for Bill {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Bill {}

/// Log-probability of one token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenLogprob {
    /// Its text, lossily decoded.
    pub token: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens at this place, best first.
    pub top: Vec<(String, Vec<u8>, f32)>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop sequence was met.
    Stop,
    /// The token limit or the end of the context was reached.
    Length,
}

/// What a job took. Counts are the tokenizer's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt, template and special tokens included.
    pub prompt_tokens: u32,
    /// Prompt tokens found in the prefix cache.
    pub cached_tokens: u32,
    /// Tokens produced, the ending token included when there was one.
    pub completion_tokens: u32,
    /// Time spent loading the model for this job.
    pub load: Duration,
    /// Time spent on the prompt.
    pub prompt: Duration,
    /// Time spent producing.
    pub decode: Duration,
    /// From submission to the end.
    pub total: Duration,
}

/// One step of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// New text; may be empty when only log-probabilities are new. Never splits a character.
    Text {
        /// The text since the last event.
        text: String,
        /// One entry per token, when asked for.
        logprobs: Vec<TokenLogprob>,
        /// The ids of the tokens that `logprobs` is or would be about. All ids given so far are what
        /// [`Job::resume`] takes. Empty where the ids are not known, then nothing can be resumed.
        tokens: Vec<u32>,
    },
    /// The end; nothing follows.
    Done {
        /// Why it ended.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
}

/// Why a job was refused or broke off. Every variant says what happened and what to do next.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JobError {
    /// No such model.
    #[error("model `{model}` is not here; `potluck models` lists what is, `potluck pull` gets more")]
    ModelNotFound {
        /// The name asked for.
        model: String,
    },
    /// The embedder is not installed.
    #[error("`{model}`: no embedding model is installed; get it with `potluck pull embedder`")]
    EmbedderMissing {
        /// The name asked for.
        model: String,
    },
    /// The model is there but cannot be loaded.
    #[error("model `{model}` cannot be loaded: {reason}")]
    ModelUnusable {
        /// The name asked for.
        model: String,
        /// Why.
        reason: String,
    },
    /// The prompt and the answer do not fit the model's context.
    #[error(
        "the request needs {needed} tokens but the context of `{model}` holds {available}; shorten the prompt or lower max_tokens"
    )]
    ContextLengthExceeded {
        /// The model.
        model: String,
        /// Tokens of the prompt (a lower bound when counting was broken off) plus what must be produced.
        needed: u64,
        /// Tokens the context holds.
        available: u64,
    },
    /// A field has a value that makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// The queue is full.
    #[error("the node is busy: {queued} requests are waiting; try again in {} s", retry_after.as_secs().max(1))]
    Busy {
        /// Requests in the queue.
        queued: usize,
        /// A good time to try again.
        retry_after: Duration,
    },
    /// The mode asks for a pool that is not there.
    #[error("mode `{mode}` is not available: {reason}")]
    ModeUnavailable {
        /// The mode.
        mode: Mode,
        /// Why.
        reason: String,
    },
    /// It costs more than may be paid, or cannot be paid.
    #[error("{reason}")]
    Payment {
        /// What it costs, what may be paid, and what to do.
        reason: String,
    },
    /// The caller went away.
    #[error("the request was cancelled")]
    Cancelled,
    /// The node is stopping.
    #[error("the node is shutting down; send the request again when it is back")]
    ShuttingDown,
    /// No machine of the pool gave the answer.
    #[error("nobody in the pool answers: {reason}")]
    Unanswered {
        /// What the machines asked said, or what became of them.
        reason: String,
    },
    /// Something broke that the caller cannot mend.
    #[error("the node failed: {reason}")]
    Internal {
        /// What broke.
        reason: String,
    },
}

/// Events that may wait for a slow reader before production pauses.
pub const REPLY_BUFFER: usize = 64;

/// A running answer. Dropping it cancels the job.
#[derive(Debug)]
pub struct Reply {
    /// Which node answers.
    pub node: String,
    /// Which mode it runs in.
    pub mode: Mode,
    /// Which job it answers; nil until it is known to whoever asked.
    pub job: Uuid,
    /// What it costs; `None`: nothing.
    pub bill: Option<Bill>,
    /// What shows where it came from, where that was asked for.
    pub vouch: Option<Vouch>,
    events: mpsc::Receiver<Result<Event, JobError>>,
}

/// Where an answer comes from, and to which job: what replies are labelled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Which node answers.
    pub node: String,
    /// Which mode it runs in.
    pub mode: Mode,
    /// Which job it answers.
    pub job: Uuid,
    /// What it costs; `None`: nothing.
    pub bill: Option<Bill>,
}

impl Reply {
    /// A reply and the sender that feeds it.
    pub fn channel(node: String, mode: Mode) -> (mpsc::Sender<Result<Event, JobError>>, Self) {
        let (sender, events) = mpsc::channel(REPLY_BUFFER);
        (sender, Self { node, mode, job: Uuid::nil(), bill: None, vouch: None, events })
    }

    /// The same reply, as that of a job.
    pub fn of(self, job: Uuid) -> Self {
        Self { job, ..self }
    }

    /// Where it comes from.
    pub fn origin(&self) -> Origin {
        Origin { node: self.node.clone(), mode: self.mode, job: self.job, bill: self.bill.clone() }
    }

    /// The next event; `None` once `Done` or an error was given.
    pub async fn next(&mut self) -> Option<Result<Event, JobError>> {
        self.events.recv().await
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// The job's error, or [`JobError::Internal`] when it ended without one.
    pub async fn collect(mut self) -> Result<Answer, JobError> {
        let mut answer = Answer::default();
        while let Some(event) = self.next().await {
            match event? {
                Event::Text { text, logprobs, tokens } => {
                    answer.text.push_str(&text);
                    answer.tokens.extend(tokens);
                    answer.logprobs.extend(logprobs);
                }
                Event::Done { reason, usage } => {
                    answer.reason = reason;
                    answer.usage = usage;
                    return Ok(answer);
                }
            }
        }
        Err(JobError::Internal { reason: "the answer broke off without saying why".into() })
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// All text.
    pub text: String,
    /// One entry per token, when asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// The ids of its tokens, where they are known; the ending one is left out.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub reason: FinishReason,
    /// What it took.
    pub usage: Usage,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            text: String::new(),
            logprobs: Vec::new(),
            tokens: Vec::new(),
            reason: FinishReason::Stop,
            usage: Usage::default(),
        }
    }
}

/// A seed for jobs that ask for none: different each time, from the system's own randomness.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
