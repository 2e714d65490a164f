//! A copy of a model that answers are audited with: on the CPU, whose bits are the same on every machine, and apart from
//! the models that answer jobs.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use potluck_kernels::{
    audit::{Answer, AuditError, Auditor, Request, Score, Verdict},
    backend::{PAGE, PageId},
    cpu::CpuBackend,
    engine::{EngineError, Generator, generator},
    model::{Decoder, LoadOptions, decoder::weights_bytes},
};

use super::{ModelEntry, engine, prepare::Frontend};
use crate::job::{Format, Job, JobError};

/// Longest prompt and answer together that are audited, in tokens.
const POSITIONS: usize = 8_192;
/// Tokens in one step: jobs of the same machine wait for no more than that.
const STEP: usize = 64;

/// Why an answer is not audited. It says nothing about who gave it.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The file cannot be used.
    #[error("the model cannot be loaded to audit answers: {0}")]
    Unusable(String),
    /// The job cannot be replayed.
    #[error("the job cannot be replayed: {0}")]
    Job(String),
    /// The prompt cannot be made.
    #[error(transparent)]
    Prompt(#[from] JobError),
    /// The replay failed.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The thread of it ended.
    #[error("the audit broke off")]
    Broken,
}

impl From<EngineError> for CopyError {
    fn from(error: EngineError) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// A model in memory, for audits alone. Dropping it frees the memory.
pub struct ModelCopy {
    name: String,
    frontend: Arc<Frontend>,
    auditor: Auditor,
    context: usize,
    pages: Vec<PageId>,
    model: Mutex<Box<dyn Generator>>,
}

impl fmt::Debug for ModelCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelCopy").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ModelCopy {
    /// Loads a model's file; takes long.
    ///
    /// # Errors
    /// [`CopyError::Unusable`].
    pub(super) fn open(entry: &ModelEntry) -> Result<Self, CopyError> {
        let gguf = engine::open(entry).map_err(CopyError::Unusable)?;
        let backend = CpuBackend::new(1, None).map_err(|error| CopyError::Unusable(error.to_string()))?;
        let config = potluck_kernels::model::DecoderConfig::from_gguf(&gguf)
            .map_err(|e| CopyError::Unusable(e.to_string()))?;
        let context = config.context.min(POSITIONS);
        let pages = context.div_ceil(PAGE).max(1);
        let options = LoadOptions { max_batch_tokens: STEP, max_outputs: STEP, cache_pages: pages };
        let decoder = Decoder::load(&gguf, backend, options, &mut |_, _| {})
            .map_err(|error| CopyError::Unusable(error.to_string()))?;
        let model = generator(decoder, weights_bytes(&gguf));
        let frontend = Frontend::new(&entry.name, gguf.metadata(), context, config.vocab)
            .map_err(CopyError::Unusable)?;
        let auditor = Auditor { ends: frontend.tokenizer().eog_tokens().to_vec() };
        gguf.release_pages();
        Ok(Self {
            name: entry.name.clone(),
            frontend: Arc::new(frontend),
            auditor,
            context,
            pages: (0..u32::try_from(pages).unwrap_or(u32::MAX)).collect(),
            model: Mutex::new(model),
        })
    }

    /// The name that this machine knows the model by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it takes turns of a conversation.
    pub fn chats(&self) -> bool {
        self.frontend.chats()
    }

    /// Replays an answer to a job in one pass and judges it by the limits for the arithmetic that it claims. One answer
    /// is replayed at a time.
    ///
    /// # Errors
    /// [`CopyError`]; nothing in it is the doing of who answered.
    pub async fn examine(self: &Arc<Self>, job: Job, answer: Answer) -> Result<(Score, Verdict), CopyError> {
        let unfit = |why: &str| Err(CopyError::Job(why.into()));
        if !job.stop.is_empty() || job.format != Format::Text {
            return unfit("stop sequences and formats are not part of an audit");
        }
        if !job.resume.is_empty() {
            return unfit("it goes on with an answer that another machine began");
        }
        let (params, most, context) = (job.sampling.clone(), job.max_tokens, self.context);
        let prompt = self.frontend.blocking(move |frontend| frontend.tokens(&job, context)).await?;
        let room = u32::try_from(context.saturating_sub(prompt.len())).unwrap_or(u32::MAX);
        let request = Request { prompt, params, limit: most.unwrap_or(room).min(room) };
        let this = Arc::clone(self);
        let replay = move || {
            let mut model = this.model.lock().unwrap_or_else(PoisonError::into_inner);
            this.auditor.score(model.as_mut(), &this.pages, &request, &answer)
        };
        Ok(tokio::task::spawn_blocking(replay).await.map_err(|_| CopyError::Broken)??)
    }
}
