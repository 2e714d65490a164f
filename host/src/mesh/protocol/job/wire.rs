//! How jobs and answers are written: CBOR with numbered fields, so that fields can be added.
//!
//! Values of JSON travel as their text. Every list has a limit of its own, because an empty element takes one byte
//! of a frame and a hundred of memory.

use minicbor::{Decode, Decoder, Encode, bytes::ByteVec, decode::Error as DecodeError};

/// Longest request, in bytes.
pub const MAX_REQUEST: usize = 16 << 20;
/// Longest frame of an answer, in bytes.
pub const MAX_FRAME: usize = 256 << 10;
/// Longest receipt, in bytes.
pub const MAX_RECEIPT: usize = 16 << 10;
/// Most turns of a conversation.
pub const MAX_MESSAGES: usize = 65_536;
/// Most tool definitions.
pub const MAX_TOOLS: usize = 4096;
/// Most token ids in a list.
pub const MAX_TOKENS: usize = 1 << 20;
/// Most stop sequences.
pub const MAX_STOPS: usize = 64;
/// Most entries of a logit bias.
pub const MAX_BIASES: usize = 4096;
/// Most JSON text in a request, in bytes: parsed it takes many times as much.
pub const MAX_JSON: usize = 4 << 20;
/// Most tokens with log-probabilities in a frame.
const MAX_LOGPROBS: usize = 65_536;
/// Most alternatives of a token.
const MAX_TOP: usize = 256;

/// A list of at most `N` elements.
fn at_most<'b, T: Decode<'b, C>, C, const N: usize>(
    d: &mut Decoder<'b>,
    context: &mut C,
) -> Result<Vec<T>, DecodeError> {
    let at = d.position();
    let count = d.array()?.ok_or_else(|| DecodeError::message("a list without a length").at(at))?;
    let count = usize::try_from(count).ok().filter(|&count| count <= N);
    let count = count.ok_or_else(|| DecodeError::message("a list that is too long").at(at))?;
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(d.decode_with(context)?);
    }
    Ok(list)
}

/// A job as a machine asks another for it. Nothing in it tells who of the asking machine's users wants it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Ask {
    /// Its id, 16 bytes.
    #[n(0)]
    pub id: ByteVec,
    /// The model's name.
    #[n(1)]
    pub model: String,
    /// What to continue.
    #[n(2)]
    pub input: Input,
    /// How tokens are drawn.
    #[n(3)]
    pub sampling: Sampling,
    /// Most tokens to produce.
    #[n(4)]
    pub max_tokens: Option<u32>,
    /// The answer ends before the first of these.
    #[cbor(n(5), decode_with = "at_most::<_, _, MAX_STOPS>")]
    pub stop: Vec<String>,
    /// What the answer must look like.
    #[n(6)]
    pub format: Format,
    /// How many alternatives to report with log-probabilities.
    #[n(7)]
    pub logprobs: Option<u8>,
    /// How long the model is wanted, in milliseconds; -1: for ever. A wish: the server decides.
    #[n(8)]
    pub keep_alive_ms: Option<i64>,
    /// Tokens of the answer that exist already.
    #[cbor(n(9), decode_with = "at_most::<_, _, MAX_TOKENS>")]
    pub resume: Vec<u32>,
    /// Asked only to see whether a token comes back.
    #[n(10)]
    pub probe: bool,
}

/// What to continue.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Input {
    /// Turns of a conversation.
    #[n(0)]
    Chat {
        /// The turns.
        #[cbor(n(0), decode_with = "at_most::<_, _, MAX_MESSAGES>")]
        messages: Vec<Message>,
        /// Tool definitions, each as JSON text.
        #[cbor(n(1), decode_with = "at_most::<_, _, MAX_TOOLS>")]
        tools: Vec<ByteVec>,
        /// Template variables: a JSON object as text; empty: none.
        #[n(2)]
        vars: ByteVec,
    },
    /// Text.
    #[n(1)]
    Text {
        /// The text.
        #[n(0)]
        text: String,
        /// Whether text that looks like a special token is one.
        #[n(1)]
        special: bool,
    },
    /// Token ids.
    #[n(2)]
    Tokens {
        /// The ids.
        #[cbor(n(0), decode_with = "at_most::<_, _, MAX_TOKENS>")]
        ids: Vec<u32>,
    },
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    #[n(0)]
    pub role: String,
    /// The text.
    #[n(1)]
    pub content: String,
    /// Further fields: a JSON object as text; empty: none.
    #[n(2)]
    pub extra: ByteVec,
}

/// How tokens are drawn; the fields mean what they mean to the sampler.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[allow(missing_docs, reason = "named as in potluck_kernels::sample::SamplingParams")]
pub struct Sampling {
    #[n(0)]
    pub temperature: f32,
    #[n(1)]
    pub top_k: u32,
    #[n(2)]
    pub top_p: f32,
    #[n(3)]
    pub min_p: f32,
    #[n(4)]
    pub repeat_penalty: f32,
    #[n(5)]
    pub repeat_last_n: u32,
    #[n(6)]
    pub presence_penalty: f32,
    #[n(7)]
    pub frequency_penalty: f32,
    #[cbor(n(8), decode_with = "at_most::<_, _, MAX_BIASES>")]
    pub logit_bias: Vec<(u32, f32)>,
    #[n(9)]
    pub seed: u64,
    #[n(10)]
    pub top_logprobs: u32,
}

/// What the answer must look like.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Format {
    /// Free text.
    #[n(0)]
    Text,
    /// Any JSON object.
    #[n(1)]
    JsonObject,
    /// What a schema accepts.
    #[n(2)]
    JsonSchema {
        /// The schema as JSON text.
        #[n(0)]
        schema: ByteVec,
    },
}

/// What the asking side sends.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum ToServer {
    /// The job; the first message and sent once.
    #[n(0)]
    Ask {
        /// The job.
        #[n(0)]
        ask: Box<Ask>,
    },
    /// Still there.
    #[n(1)]
    Ping,
    /// The receipt with both signatures; the last message.
    #[n(2)]
    Receipt {
        /// The receipt.
        #[n(0)]
        bytes: ByteVec,
    },
}

/// What the answering side sends.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum ToAsker {
    /// Still there; nothing new.
    #[n(0)]
    Ping,
    /// The job has its place.
    #[n(1)]
    Accepted {
        /// What the answering machine calls itself.
        #[n(0)]
        node: String,
        /// Longest context it takes, in tokens; 0: not known.
        #[n(1)]
        context: u64,
    },
    /// New text.
    #[n(2)]
    Text {
        /// The text.
        #[n(0)]
        text: String,
        /// One entry per token, when asked for.
        #[cbor(n(1), decode_with = "at_most::<_, _, MAX_LOGPROBS>")]
        logprobs: Vec<Logprob>,
        /// Ids of the tokens.
        #[cbor(n(2), decode_with = "at_most::<_, _, MAX_LOGPROBS>")]
        tokens: Vec<u32>,
    },
    /// The answer is complete.
    #[n(3)]
    Done {
        /// Why it ended.
        #[n(0)]
        reason: Reason,
        /// What it took.
        #[n(1)]
        usage: Usage,
    },
    /// Refused, or broken off. The last message.
    #[n(4)]
    Failed {
        /// Why.
        #[n(0)]
        failure: Failure,
    },
    /// The receipt with the answering machine's signature; after `Done`.
    #[n(5)]
    Receipt {
        /// The receipt.
        #[n(0)]
        bytes: ByteVec,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Reason {
    /// The model ended it, or a stop sequence was met.
    #[n(0)]
    Stop,
    /// A limit was reached.
    #[n(1)]
    Length,
}

/// What a job took; times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[allow(missing_docs, reason = "named as in crate::job::Usage")]
pub struct Usage {
    #[n(0)]
    pub prompt_tokens: u32,
    #[n(1)]
    pub cached_tokens: u32,
    #[n(2)]
    pub completion_tokens: u32,
    #[n(3)]
    pub load_us: u64,
    #[n(4)]
    pub prompt_us: u64,
    #[n(5)]
    pub decode_us: u64,
    #[n(6)]
    pub total_us: u64,
}

/// Log-probability of one token.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Logprob {
    /// Its bytes.
    #[n(0)]
    pub bytes: ByteVec,
    /// Its text, where that is not its bytes lossily decoded.
    #[n(1)]
    pub text: Option<String>,
    /// Natural logarithm of its probability.
    #[n(2)]
    pub logprob: f32,
    /// The likeliest tokens at this place, best first.
    #[cbor(n(3), decode_with = "at_most::<_, _, MAX_TOP>")]
    pub top: Vec<Top>,
}

/// An alternative of a token.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Top {
    /// Its bytes.
    #[n(0)]
    pub bytes: ByteVec,
    /// Its text, where that is not its bytes lossily decoded.
    #[n(1)]
    pub text: Option<String>,
    /// Natural logarithm of its probability.
    #[n(2)]
    pub logprob: f32,
}

/// Why a job was refused or broke off. Which fields count follows from the code; a code that is not known is an
/// internal failure with `message` as its reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// What happened: see [`super::convert`].
    #[n(0)]
    pub code: u16,
    /// The error in words.
    #[n(1)]
    pub message: String,
    /// A model or a field.
    #[n(2)]
    pub what: Option<String>,
    /// Why.
    #[n(3)]
    pub reason: Option<String>,
    /// Tokens needed, or jobs in the queue.
    #[n(4)]
    pub needed: Option<u64>,
    /// Tokens that fit, or milliseconds until another try makes sense.
    #[n(5)]
    pub available: Option<u64>,
}
