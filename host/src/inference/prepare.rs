//! From a job to what the scheduler takes: rendered, counted, checked.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use potluck_kernels::{
    gguf::Metadata,
    sample::{Sampler, SamplingError},
    tokenizer::{EncodeOptions, Tokenizer, TokenizerError},
};
use tokio::sync::{Semaphore, oneshot};

use super::{
    grammar::{Advanced, Grammar, GrammarFactory},
    scheduler::text::{MAX_STOP_LEN, MAX_STOPS, TextOut},
    template::{ChatTemplate, TemplateError, Words},
};
use crate::{
    allowance,
    job::{FinishReason, Format, Input, Job, JobError},
};

/// How long a prompt may be prepared.
const PREPARE_LIMIT: Duration = Duration::from_secs(60);
/// Most memory that preparing one prompt may hold, in bytes.
const PREPARE_MEMORY: usize = 256 << 20;
/// How often a waiting request looks whether the memory is spent.
const PREPARE_CHECK: Duration = Duration::from_millis(50);

/// What of a model is needed to prepare jobs for it. Shared by all its jobs.
#[derive(Debug)]
pub(super) struct Frontend {
    name: String,
    tokenizer: Arc<Tokenizer>,
    template: Result<ChatTemplate, TemplateError>,
    /// Tokens per request.
    context: usize,
    /// Width of the logits.
    vocab: usize,
    bos_text: String,
    grammars: OnceLock<Result<GrammarFactory, String>>,
    /// Prompts of this model that are prepared at the same time: a template that takes for ever holds up its own
    /// model only.
    permits: Arc<Semaphore>,
    /// Whether a prompt took more than [`PREPARE_MEMORY`]. Its thread is lost then, so no other is risked.
    spent: &'static AtomicBool,
}

/// A job that can be queued.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The prompt, and of the answer what was made elsewhere.
    pub(super) tokens: Vec<u32>,
    /// How many of them are the prompt.
    pub(super) prompt: usize,
    pub(super) limit: usize,
    pub(super) sampler: Sampler,
    pub(super) text: TextOut,
    /// The text of what was made elsewhere.
    pub(super) said: String,
    /// With what was made elsewhere the answer has ended.
    pub(super) ended: Option<FinishReason>,
    pub(super) grammar: Option<(Grammar, Vec<u32>)>,
}

impl Frontend {
    /// Reads tokenizer and template.
    ///
    /// # Errors
    /// In words, when the tokenizer cannot be used.
    pub(super) fn new(name: &str, metadata: &Metadata, context: usize, vocab: usize) -> Result<Self, String> {
        let tokenizer = Tokenizer::from_metadata(metadata).map_err(|e| e.to_string())?;
        tokenizer.warnings().iter().for_each(|w| tracing::warn!(model = name, "{w}"));
        let text = |id: Option<u32>| id.map_or_else(String::new, |id| tokenizer.token_text(id).into_owned());
        let controls = tokenizer.tokens().filter_map(|(id, bytes, control)| {
            let text = std::str::from_utf8(bytes).ok()?;
            (control || tokenizer.is_eog(id) || is_marker(text)).then(|| text.to_owned())
        });
        let words =
            Words { bos: text(tokenizer.bos()), eos: text(tokenizer.eos()), controls: controls.collect() };
        let source = metadata.str("tokenizer.chat_template").ok();
        let template = ChatTemplate::new(source, &words);
        if let Err(error) = &template {
            tracing::warn!(model = name, %error, "chat is not possible with this model");
        }
        Ok(Self {
            name: name.to_owned(),
            tokenizer: Arc::new(tokenizer),
            template,
            context,
            vocab,
            bos_text: words.bos,
            grammars: OnceLock::new(),
            permits: Arc::new(Semaphore::new(
                std::thread::available_parallelism().map_or(2, usize::from).max(2),
            )),
            // One byte per loaded model that is never freed: a thread that is stopped may look at it for ever.
            spent: Box::leak(Box::new(AtomicBool::new(false))),
        })
    }

    pub(super) fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    pub(super) fn chats(&self) -> bool {
        self.template.is_ok()
    }

    pub(super) fn context(&self) -> usize {
        self.context
    }

    /// Runs work on prompts on a thread of its own, not for ever and not with all of the memory.
    ///
    /// # Errors
    /// The work's, or [`JobError::ModelUnusable`] when it takes too long or too much.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, JobError> {
        tokio::time::timeout(PREPARE_LIMIT, self.clone().watched(work)).await.unwrap_or_else(|_| {
            Err(self.unusable("its chat template or tokenizer takes too long to prepare a prompt"))
        })
    }

    async fn watched<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, JobError> {
        let internal = |reason: String| JobError::Internal { reason };
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| JobError::ShuttingDown)?;
        if self.spent.load(Ordering::Acquire) {
            return Err(self.too_much());
        }
        let (sender, mut receiver) = oneshot::channel();
        let this = self.clone();
        let thread = std::thread::Builder::new().name("prepare".into()).spawn(move || {
            let _permit = permit;
            // Nobody listens any more when the request is gone.
            let _ = sender.send(allowance::within(PREPARE_MEMORY, this.spent, || work(&this)));
        });
        thread.map_err(|e| internal(format!("no thread to prepare the prompt on: {e}")))?;
        loop {
            match tokio::time::timeout(PREPARE_CHECK, &mut receiver).await {
                Ok(Ok(done)) => return done,
                Ok(Err(_)) => return Err(internal("preparing the prompt broke off".into())),
                Err(_) if self.spent.load(Ordering::Acquire) => return Err(self.too_much()),
                Err(_) => {}
            }
        }
    }

    fn too_much(&self) -> JobError {
        let mib = PREPARE_MEMORY >> 20;
        self.unusable(&format!("its chat template took more than {mib} MiB of memory for one prompt"))
    }

    fn unusable(&self, reason: &str) -> JobError {
        JobError::ModelUnusable { model: self.name.clone(), reason: reason.to_owned() }
    }

    /// Everything that can be refused before the job waits. Takes time: see [`Self::blocking`].
    ///
    /// # Errors
    /// [`JobError::Invalid`], [`JobError::ContextLengthExceeded`], [`JobError::ModelUnusable`].
    pub(super) fn prepare(&self, job: &Job) -> Result<Prepared, JobError> {
        let stops = self.stops(job)?;
        let mut sampling = job.sampling.clone();
        sampling.top_logprobs = job.logprobs.map_or(0, usize::from);
        let sampler = Sampler::new(sampling, self.vocab).map_err(|e| refuse_sampling(&e))?;
        let mut tokens = self.tokens(job, self.context)?;
        let prompt = tokens.len();
        let most = job.max_tokens.map(|n| n as usize);
        self.check_resume(job, most)?;
        let needed = prompt.saturating_add(most.unwrap_or(1).max(job.resume.len()));
        if prompt >= self.context || needed > self.context {
            return Err(self.too_long(needed.max(prompt + 1)));
        }
        let limit = most.map_or(self.context, |n| prompt + n);
        let grammar = self.grammar(&job.format)?;
        let fresh = match &job.input {
            Input::Chat { .. } => true,
            Input::Text { text, .. } => text.is_empty(),
            Input::Tokens(_) => false,
        };
        let mut text = TextOut::new(self.tokenizer.clone(), fresh, stops, job.logprobs.is_some());
        let (said, stopped) = text.replay(&job.resume);
        tokens.extend_from_slice(&job.resume);
        // In the order in which a running answer looks at them.
        let ended = if stopped {
            Some(FinishReason::Stop)
        } else {
            (tokens.len() >= limit).then_some(FinishReason::Length)
        };
        let mut prepared = Prepared { tokens, prompt, limit, sampler, text, said, ended, grammar };
        if ended.is_none() && !job.resume.is_empty() {
            prepared.resume_grammar(&job.resume)?;
        }
        Ok(prepared)
    }

    fn check_resume(&self, job: &Job, most: Option<usize>) -> Result<(), JobError> {
        if let Some(id) = job.resume.iter().find(|&&id| id as usize >= self.vocab) {
            let reason = format!("token {id} is not in the vocabulary of {} tokens", self.vocab);
            return Err(invalid("resume", &reason));
        }
        if most.is_some_and(|most| job.resume.len() > most) {
            return Err(invalid("resume", "it has more tokens than max_tokens allows"));
        }
        Ok(())
    }

    /// The prompt's tokens, at most `most` of them.
    pub(super) fn tokens(&self, job: &Job, most: usize) -> Result<Vec<u32>, JobError> {
        let tokens = match &job.input {
            Input::Chat { messages, tools, template_vars } => {
                if messages.is_empty() {
                    return Err(invalid("messages", "there must be at least one message"));
                }
                let template = self.template.as_ref().map_err(|e| self.refuse_template(e.clone()))?;
                let rendered =
                    template.render(messages, tools, template_vars).map_err(|e| self.refuse_template(e))?;
                let begins = rendered.parts.first().is_some_and(|p| p.starts_with(&self.bos_text));
                let bos = !begins || self.bos_text.is_empty();
                self.encode(rendered.parts.iter().map(|p| (p.as_str(), true)), bos, most)?
            }
            Input::Text { text, special } => {
                self.encode([(text.as_str(), *special)].into_iter(), true, most)?
            }
            Input::Tokens(ids) => {
                if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab) {
                    let reason = format!("token {id} is not in the vocabulary of {} tokens", self.vocab);
                    return Err(invalid("prompt", &reason));
                }
                if ids.len() > most {
                    return Err(self.too_long(ids.len()));
                }
                ids.clone()
            }
        };
        if tokens.is_empty() {
            return Err(invalid("prompt", "it has no tokens, and this model has no token to begin with"));
        }
        Ok(tokens)
    }

    fn encode<'a>(
        &self,
        parts: impl Iterator<Item = (&'a str, bool)>,
        bos: bool,
        most: usize,
    ) -> Result<Vec<u32>, JobError> {
        let mut ids: Vec<u32> = Vec::new();
        ids.extend(self.tokenizer.bos().filter(|_| bos && self.tokenizer.adds_bos()));
        for (text, parse_special) in parts {
            let options = EncodeOptions { add_special: false, parse_special };
            let left = most.saturating_sub(ids.len());
            match self.tokenizer.encode_limited(text, options, left) {
                Ok(more) => ids.extend(more),
                Err(TokenizerError::TooManyTokens { at_least, .. }) => {
                    return Err(self.too_long(ids.len() + at_least.max(left + 1)));
                }
                Err(error) => return Err(invalid("prompt", &error.to_string())),
            }
        }
        Ok(ids)
    }

    fn grammar(&self, format: &Format) -> Result<Option<(Grammar, Vec<u32>)>, JobError> {
        if *format == Format::Text {
            return Ok(None);
        }
        let factory = self.grammars.get_or_init(|| GrammarFactory::new(&self.tokenizer));
        factory.as_ref().map_err(|reason| invalid("response_format", reason))?.compile(format)
    }

    fn stops(&self, job: &Job) -> Result<Vec<String>, JobError> {
        if job.stop.len() > MAX_STOPS {
            return Err(invalid("stop", &format!("at most {MAX_STOPS} stop sequences are allowed")));
        }
        if job.stop.iter().any(|s| s.len() > MAX_STOP_LEN) {
            return Err(invalid("stop", &format!("a stop sequence may have at most {MAX_STOP_LEN} bytes")));
        }
        Ok(job.stop.iter().filter(|s| !s.is_empty()).cloned().collect())
    }

    fn too_long(&self, needed: usize) -> JobError {
        JobError::ContextLengthExceeded {
            model: self.name.clone(),
            needed: needed as u64,
            available: self.context as u64,
        }
    }

    fn refuse_template(&self, error: TemplateError) -> JobError {
        match error {
            TemplateError::Refused(_) | TemplateError::Failed(_) => invalid("messages", &error.to_string()),
            TemplateError::Syntax(_) | TemplateError::Runaway(_) => {
                JobError::ModelUnusable { model: self.name.clone(), reason: error.to_string() }
            }
        }
    }
}

impl Prepared {
    /// Takes the grammar to where the answer is.
    fn resume_grammar(&mut self, made: &[u32]) -> Result<(), JobError> {
        let Some((grammar, _)) = self.grammar.take() else { return Ok(()) };
        match grammar.replay(made) {
            Advanced::Allowed(grammar, mask) => self.grammar = Some((grammar, mask)),
            Advanced::Complete => self.ended = Some(FinishReason::Stop),
            Advanced::Failed(reason) => {
                return Err(invalid("resume", &format!("the tokens do not follow the format: {reason}")));
            }
        }
        Ok(())
    }
}

/// Tokens that separate turns, in files that do not call them control tokens. `<think>` and the like are left to
/// the messages.
fn is_marker(text: &str) -> bool {
    (text.len() > 4 && text.starts_with("<|") && text.ends_with("|>"))
        || matches!(text, "<start_of_turn>" | "<end_of_turn>" | "[INST]" | "[/INST]" | "<s>" | "</s>")
}

fn invalid(field: &str, reason: &str) -> JobError {
    JobError::Invalid { field: field.into(), reason: reason.into() }
}

fn refuse_sampling(error: &SamplingError) -> JobError {
    match error {
        SamplingError::Parameter { name, value, range } => {
            invalid(name, &format!("it is {value}; it must be {range}"))
        }
        SamplingError::BiasToken { .. } => invalid("logit_bias", &error.to_string()),
        _ => JobError::Internal { reason: error.to_string() },
    }
}
