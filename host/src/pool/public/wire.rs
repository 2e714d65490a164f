//! What is said inside a sealed stream, as CBOR with numbered fields.
//!
//! Nothing of it says who asks. The golden test below lists every field that can travel to a provider; one that is
//! added changes that list, and whoever changes it answers for it. What people put into a prompt stays in it, of
//! course; fields beside the text that name a participant are left out by [`ask`].

use minicbor::{Decode, Decoder, Encode, bytes::ByteVec, decode::Error as DecodeError};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::meter::Rates;
use crate::{
    job::{Event, Input as JobInput, Job, JobError},
    mesh::protocol::job::{
        convert,
        wire::{
            self as job, Failure, Format, Input, Logprob, MAX_STOPS, MAX_TOKENS, Reason, Sampling, Usage,
        },
    },
};
use potluck_primitives::MicroCredits;

/// The version of these messages.
pub const VERSION: u8 = 1;
/// Longest request, in bytes.
pub const MAX_REQUEST: usize = 4 << 20;
/// Longest message to a provider after the request, in bytes: a payment.
pub const MAX_PAYMENT: usize = 64 << 10;
/// Longest message to a requester, in bytes.
pub const MAX_FRAME: usize = job::MAX_FRAME;
/// Most spend tokens in a message.
pub const MAX_SPEND: usize = 128;
/// Longest spend token, in bytes.
pub const MAX_SPEND_BYTES: usize = 512;
/// Most tokens with log-probabilities in a message.
const MAX_LOGPROBS: usize = 65_536;
/// Template variables that say how to answer; others stay here.
const VARIABLES: [&str; 4] = ["enable_thinking", "thinking", "thinking_budget", "reasoning_effort"];
/// Fields of a turn that templates need beside its text; others, such as the name of a participant, stay here.
const EXTRA: [&str; 4] = ["tool_calls", "tool_call_id", "reasoning_content", "thinking"];

/// A list of at most `N` elements.
pub(super) fn at_most<'b, T: Decode<'b, C>, C, const N: usize>(
    d: &mut Decoder<'b>,
    context: &mut C,
) -> Result<Vec<T>, DecodeError> {
    let at = d.position();
    let count = d.array()?.and_then(|count| usize::try_from(count).ok()).filter(|&count| count <= N);
    let count = count.ok_or_else(|| DecodeError::message("a list that is too long").at(at))?;
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(d.decode_with(context)?);
    }
    Ok(list)
}

/// A job as a stranger is asked for it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Ask {
    /// The version of these messages.
    #[n(0)]
    pub version: u8,
    /// A random name of 16 bytes, new for every provider that is asked.
    #[n(1)]
    pub job: ByteVec,
    /// The model, by the name in the offer.
    #[n(2)]
    pub model: String,
    /// What to continue.
    #[n(3)]
    pub input: Input,
    /// How tokens are drawn.
    #[n(4)]
    pub sampling: Sampling,
    /// Most tokens to produce.
    #[n(5)]
    pub max_tokens: Option<u32>,
    /// The answer ends before the first of these.
    #[cbor(n(6), decode_with = "at_most::<_, _, MAX_STOPS>")]
    pub stop: Vec<String>,
    /// What the answer must look like.
    #[n(7)]
    pub format: Format,
    /// How many alternatives to report with log-probabilities.
    #[n(8)]
    pub logprobs: Option<u8>,
    /// Tokens of the answer that exist already.
    #[cbor(n(9), decode_with = "at_most::<_, _, MAX_TOKENS>")]
    pub resume: Vec<u32>,
    /// Most that a thousand tokens of the prompt may cost, in micro-credits.
    #[n(10)]
    pub prompt_rate: u64,
    /// Most that a thousand tokens of the answer may cost, in micro-credits.
    #[n(11)]
    pub answer_rate: u64,
    /// An ed25519 key made for this job alone, which the receipt names.
    #[n(12)]
    pub receipt_key: ByteVec,
    /// The first payment: blind-signed tokens.
    #[cbor(n(13), decode_with = "at_most::<_, _, MAX_SPEND>")]
    pub spend: Vec<ByteVec>,
    /// Zeros, so that the length says little.
    #[n(14)]
    pub padding: ByteVec,
}

/// What the requester sends.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum ToProvider {
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
    /// A payment.
    #[n(2)]
    Pay {
        /// Blind-signed tokens.
        #[cbor(n(0), decode_with = "at_most::<_, _, MAX_SPEND>")]
        spend: Vec<ByteVec>,
    },
    /// Enough: the answer ends here, with its receipt.
    #[n(3)]
    Enough,
    /// The receipt with both signatures; the last message.
    #[n(4)]
    Receipt {
        /// The receipt.
        #[n(0)]
        bytes: ByteVec,
    },
}

/// What the provider sends.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum ToRequester {
    /// Still there; nothing new.
    #[n(0)]
    Ping,
    /// The job has its place. It is computed as soon as its prompt is paid.
    #[n(1)]
    Accepted {
        /// Tokens of the prompt, and of the answer those that came with it.
        #[n(0)]
        prompt_tokens: u32,
        /// What a thousand tokens of the prompt cost, in micro-credits.
        #[n(1)]
        prompt_rate: u64,
        /// What a thousand tokens of the answer cost, in micro-credits.
        #[n(2)]
        answer_rate: u64,
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
        /// Ids of the tokens: what is paid for.
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
    /// The receipt with the provider's signature; after `Done`.
    #[n(5)]
    Receipt {
        /// The receipt.
        #[n(0)]
        bytes: ByteVec,
    },
    /// What the provider stands for, after `Done`. Everybody gets it: who audits asks for nothing that others do not.
    #[n(6)]
    Vouched {
        /// When it began, in milliseconds since 1970.
        #[n(0)]
        started_ms: u64,
        /// Whether it was computed on a CPU, where every bit is the same everywhere.
        #[n(1)]
        exact: bool,
        /// Commitments to the last hidden states, 258 bytes for every 32 tokens.
        #[n(2)]
        commitments: ByteVec,
        /// The provider's signature of the [`Statement`](super::audit::transcript::Statement).
        #[n(3)]
        signature: ByteVec,
    },
}

/// What of a job does not come from the job itself.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The name of this attempt.
    pub job: [u8; 16],
    /// The model's name in the offer.
    pub model: String,
    /// Most that tokens may cost.
    pub rates: Rates,
    /// The key made for the receipt.
    pub receipt_key: [u8; 32],
    /// The first payment.
    pub spend: Vec<Vec<u8>>,
}

fn kept(map: &mut Map<String, Value>, names: &[&str]) {
    map.retain(|name, _| names.contains(&name.as_str()));
}

/// The job as a stranger is asked for it: nothing but what the answer depends on.
pub fn ask(job: &Job, terms: Terms) -> ToProvider {
    let mut bare = job.clone();
    if let JobInput::Chat { messages, template_vars, .. } = &mut bare.input {
        kept(template_vars, &VARIABLES);
        for message in messages {
            // The name of a tool belongs to its result; that of a person to nobody else.
            let tool = (message.role == "tool").then(|| message.extra.get("name").cloned()).flatten();
            kept(&mut message.extra, &EXTRA);
            if let Some(tool) = tool {
                message.extra.insert("name".into(), tool);
            }
        }
    }
    let plain = convert::ask(&bare, false);
    let rate = |rate: MicroCredits| u64::try_from(rate.0).unwrap_or(u64::MAX);
    let mut ask = Ask {
        version: VERSION,
        job: terms.job.to_vec().into(),
        model: terms.model,
        input: plain.input,
        sampling: plain.sampling,
        max_tokens: plain.max_tokens,
        stop: plain.stop,
        format: plain.format,
        logprobs: plain.logprobs,
        resume: plain.resume,
        prompt_rate: rate(terms.rates.prompt),
        answer_rate: rate(terms.rates.completion),
        receipt_key: terms.receipt_key.to_vec().into(),
        spend: terms.spend.into_iter().map(ByteVec::from).collect(),
        padding: Vec::new().into(),
    };
    // All but the padding, whose head is a byte as long as it is empty.
    let bare = minicbor::to_vec(&ask).map_or(0, |bytes| bytes.len()).saturating_sub(1);
    let rest = padded(bare.saturating_add(5)).saturating_sub(bare);
    ask.padding = vec![0; zeros(rest)].into();
    ToProvider::Ask { ask: Box::new(ask) }
}

/// A length that says about as much as its logarithm, at most 12 % more: Padmé (Nikitin et al., "Reducing Metadata
/// Leakage from Encrypted Files and Communication with PURBs", 2019), and at least 2 KiB.
fn padded(length: usize) -> usize {
    let length = length.max(2048);
    let exponent = length.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1_usize << exponent.saturating_sub(kept)) - 1;
    length.saturating_add(mask) & !mask
}

/// How many bytes a byte string has that takes so many with its head. A few lengths cannot be: then one more.
fn zeros(whole: usize) -> usize {
    let head = |bytes: usize| match bytes {
        0..24 => 1,
        24..256 => 2,
        256..65_536 => 3,
        _ => 5,
    };
    let fits = |bytes: &usize| bytes.saturating_add(head(*bytes)) >= whole;
    (1..=5).rev().map(|head| whole.saturating_sub(head)).find(fits).unwrap_or(whole)
}

/// A request as it is served: the job, the key of its receipt, the most that it pays, and its payment.
pub type Opened = (Job, [u8; 32], Rates, Vec<Vec<u8>>);

impl Ask {
    /// The request without its payment and padding: what the answer depends on, as CBOR.
    pub fn bare(&self) -> Vec<u8> {
        let bare = Self { spend: Vec::new(), padding: Vec::new().into(), ..self.clone() };
        minicbor::to_vec(&bare).unwrap_or_default()
    }

    /// The job that is asked for, its receipt key, and the most it may cost.
    ///
    /// # Errors
    /// [`JobError::Invalid`].
    pub fn open(self) -> Result<Opened, JobError> {
        let invalid =
            |field: &str, reason: &str| JobError::Invalid { field: field.into(), reason: reason.into() };
        if self.version != VERSION {
            return Err(invalid("version", "this provider speaks version 1"));
        }
        let key: Result<[u8; 32], _> = self.receipt_key.as_slice().try_into();
        let key = key.map_err(|_| invalid("receipt_key", "it must have 32 bytes"))?;
        let rates = Rates {
            prompt: MicroCredits(self.prompt_rate.into()),
            completion: MicroCredits(self.answer_rate.into()),
        };
        let spend = spend(self.spend).ok_or_else(|| invalid("spend", "a token of more than 512 bytes"))?;
        let job = convert::job(job::Ask {
            id: self.job,
            model: self.model,
            input: self.input,
            sampling: self.sampling,
            max_tokens: self.max_tokens,
            stop: self.stop,
            format: self.format,
            logprobs: self.logprobs,
            keep_alive_ms: None,
            resume: self.resume,
            probe: false,
        })?;
        Ok((job, key, rates, spend))
    }
}

/// Spend tokens as they came; `None`: one is too long.
pub fn spend(tokens: Vec<ByteVec>) -> Option<Vec<Vec<u8>>> {
    let short = |token: ByteVec| (token.len() <= MAX_SPEND_BYTES).then(|| token.into());
    tokens.into_iter().map(short).collect()
}

/// An event of the engine as messages, each of which fits a frame.
pub fn event(event: Event) -> Vec<ToRequester> {
    let translate = |message| match message {
        job::ToAsker::Text { text, logprobs, tokens } => Some(ToRequester::Text { text, logprobs, tokens }),
        job::ToAsker::Done { reason, usage } => Some(ToRequester::Done { reason, usage }),
        _ => None,
    };
    convert::event(event).into_iter().filter_map(translate).collect()
}

/// A random name for an attempt: it has nothing of a clock in it.
pub fn fresh_job() -> [u8; 16] {
    *Uuid::new_v4().as_bytes()
}

#[cfg(test)]
mod tests;
