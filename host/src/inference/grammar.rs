//! Answers that must be JSON: which tokens a schema allows next.
//!
//! The grammar library is `llguidance`. A schema is compiled once per job, with limits on its size and on the
//! work; advancing it by a token happens on a thread of its own, so that one job's grammar does not hold up the
//! others' steps.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use llguidance::{
    Matcher, ParserFactory,
    api::{ParserLimits, TopLevelGrammar},
    toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie},
};
use potluck_kernels::tokenizer::Tokenizer;
use serde_json::{Value as Json, json};

use crate::job::{Format, JobError};

/// Largest schema, in bytes of JSON.
const MAX_SCHEMA: usize = 256 << 10;
/// Longest token that the library takes, in bytes; longer ones are left out.
const MAX_TOKEN: usize = 250;

/// A grammar at some place in an answer.
pub(super) struct Grammar {
    matcher: Box<Matcher>,
    ends: Arc<SimpleVob>,
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

/// What became of a grammar after a token.
#[derive(Debug)]
pub(super) enum Advanced {
    /// These tokens may follow, one bit each.
    Allowed(Grammar, Vec<u32>),
    /// Nothing may follow.
    Complete,
    /// The grammar broke, e.g. by passing a limit.
    Failed(String),
}

/// Compiles grammars for one vocabulary.
pub(super) struct GrammarFactory {
    factory: ParserFactory,
    ends: Arc<SimpleVob>,
}

impl std::fmt::Debug for GrammarFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarFactory").finish_non_exhaustive()
    }
}

impl GrammarFactory {
    /// Builds the library's view of a vocabulary.
    ///
    /// # Errors
    /// In words, when the vocabulary has no token that ends an answer or the library refuses it.
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self, String> {
        let words: Vec<Vec<u8>> = tokenizer
            .tokens()
            .map(|(_, bytes, control)| match control {
                _ if bytes.len() > MAX_TOKEN => Vec::new(),
                true => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
                false => bytes.to_vec(),
            })
            .collect();
        let count = u32::try_from(words.len()).map_err(|e| e.to_string())?;
        let ends: Vec<u32> = tokenizer.eog_tokens().iter().copied().filter(|&id| id < count).collect();
        let Some(&eos) = ends.first() else {
            return Err(
                "the model has no token that ends an answer, so its answers cannot be constrained".into()
            );
        };
        // The library asserts what it expects of a vocabulary.
        let built = catch_unwind(AssertUnwindSafe(|| {
            let trie = TokTrie::from(&TokRxInfo::new(count, eos), &words).with_eos_tokens(&ends);
            let set = trie.eos_token_set();
            let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            ParserFactory::new(&environment, InferenceCapabilities::default(), &slices()).map(|f| (f, set))
        }));
        let (mut factory, set) = match built {
            Ok(Ok(built)) => built,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the model's vocabulary cannot be used for constrained answers".into()),
        };
        factory.quiet();
        *factory.limits_mut() =
            ParserLimits { max_lexer_states: 20_000, verbose_errors: false, ..ParserLimits::default() };
        Ok(Self { factory, ends: Arc::new(set) })
    }

    /// The grammar of a format with the tokens that may come first; `None` for free text.
    ///
    /// # Errors
    /// [`JobError::Invalid`] when the schema is too large, malformed or uses what is not supported.
    pub(super) fn compile(&self, format: &Format) -> Result<Option<(Grammar, Vec<u32>)>, JobError> {
        let schema = match format {
            Format::Text => return Ok(None),
            Format::JsonObject => json!({ "type": "object" }),
            Format::JsonSchema(schema) => schema.clone(),
        };
        let schema = styled(schema).map_err(|reason| invalid(reason.into()))?;
        let compiled = catch_unwind(AssertUnwindSafe(|| {
            Matcher::new(self.factory.create_parser(TopLevelGrammar::from_json_schema(schema)))
        }));
        let matcher = compiled.map_err(|_| invalid("the schema cannot be compiled".into()))?;
        let mut grammar = Grammar { matcher: Box::new(matcher), ends: self.ends.clone() };
        if let Some(error) = grammar.matcher.get_error() {
            return Err(invalid(first_line(&error)));
        }
        match grammar.matcher.compute_mask() {
            Ok(mask) => Ok(Some((grammar, mask.as_slice().to_vec()))),
            Err(error) => Err(invalid(first_line(&error.to_string()))),
        }
    }
}

/// Slices speed up masks inside JSON strings.
fn slices() -> Vec<String> {
    llguidance::earley::SlicedBiasComputer::json_slices()
}

fn invalid(reason: String) -> JobError {
    JobError::Invalid { field: "response_format".into(), reason }
}

fn first_line(error: &str) -> String {
    error.lines().next().unwrap_or_default().chars().take(300).collect()
}

/// The schema with our writing style: no free white space, which weak models would go on with for ever.
fn styled(schema: Json) -> Result<Json, &'static str> {
    let mut fields = match schema {
        Json::Object(fields) => fields,
        Json::Bool(true) => serde_json::Map::new(),
        _ => return Err("the schema must be a JSON object"),
    };
    if serde_json::to_vec(&fields).map_or(usize::MAX, |bytes| bytes.len()) > MAX_SCHEMA {
        return Err("the schema is larger than 256 KiB");
    }
    let style = json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " });
    fields.insert("x-guidance".into(), style);
    Ok(Json::Object(fields))
}

impl Grammar {
    /// Takes the tokens that an answer has already, at least one.
    pub(super) fn replay(mut self, tokens: &[u32]) -> Advanced {
        let Some((&last, before)) = tokens.split_last() else {
            return Advanced::Failed("an answer of no tokens was to be resumed".into());
        };
        let result = catch_unwind(AssertUnwindSafe(|| self.matcher.consume_tokens(before)));
        match result {
            Ok(Ok(())) => self.advance(last),
            Ok(Err(error)) => Advanced::Failed(first_line(&error.to_string())),
            Err(_) => Advanced::Failed("the grammar library failed".into()),
        }
    }

    /// Takes a token of the answer.
    fn advance(mut self, token: u32) -> Advanced {
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.matcher.consume_token(token)?;
            if self.matcher.is_stopped() {
                return Ok(None);
            }
            self.matcher.compute_mask().map(Some)
        }));
        match result {
            Ok(Ok(None)) => match self.matcher.get_error() {
                Some(error) => Advanced::Failed(first_line(&error)),
                None => Advanced::Complete,
            },
            Ok(Ok(Some(mask))) => {
                let only_ends = mask.as_slice().iter().zip(self.ends.as_slice()).all(|(m, e)| m & !e == 0);
                if only_ends { Advanced::Complete } else { Advanced::Allowed(self, mask.as_slice().to_vec()) }
            }
            Ok(Err(error)) => Advanced::Failed(first_line(&error.to_string())),
            Err(_) => Advanced::Failed("the grammar library failed".into()),
        }
    }
}

/// The thread that advances the grammars of one scheduler; started when the first job needs it.
#[derive(Debug)]
pub(super) struct GrammarWorker {
    /// Jobs that may be in flight.
    most: usize,
    link: Option<Link>,
    /// What was done here because there is no thread.
    done: VecDeque<(u64, Advanced)>,
}

#[derive(Debug)]
struct Link {
    todo: SyncSender<(u64, Grammar, u32)>,
    done: Receiver<(u64, Advanced)>,
}

impl GrammarWorker {
    pub(super) fn new(most: usize) -> Self {
        Self { most, link: None, done: VecDeque::new() }
    }

    /// Advances a job's grammar by a token; the result comes from [`Self::poll`] or [`Self::wait`].
    pub(super) fn advance(&mut self, id: u64, grammar: Grammar, token: u32) {
        if self.link.is_none() {
            self.link = start(self.most);
        }
        let rest = match &self.link {
            Some(link) => link.todo.try_send((id, grammar, token)).err().map(|e| match e {
                std::sync::mpsc::TrySendError::Full(job)
                | std::sync::mpsc::TrySendError::Disconnected(job) => job,
            }),
            None => Some((id, grammar, token)),
        };
        if let Some((id, grammar, token)) = rest {
            self.done.push_back((id, grammar.advance(token)));
        }
    }

    /// A result, if one is there.
    pub(super) fn poll(&mut self) -> Option<(u64, Advanced)> {
        self.done.pop_front().or_else(|| self.link.as_ref()?.done.try_recv().ok())
    }

    /// Waits for a result.
    pub(super) fn wait(&mut self, time: Duration) -> Option<(u64, Advanced)> {
        self.done.pop_front().or_else(|| self.link.as_ref()?.done.recv_timeout(time).ok())
    }
}

fn start(most: usize) -> Option<Link> {
    let (todo, jobs) = sync_channel::<(u64, Grammar, u32)>(most + 1);
    let (results, done) = sync_channel(most + 1);
    let work = move || {
        while let Ok((id, grammar, token)) = jobs.recv() {
            if results.send((id, grammar.advance(token))).is_err() {
                return;
            }
        }
    };
    match std::thread::Builder::new().name("grammar".into()).spawn(work) {
        Ok(_) => Some(Link { todo, done }),
        Err(error) => {
            tracing::warn!(%error, "no thread for grammars; they are advanced between steps");
            None
        }
    }
}
