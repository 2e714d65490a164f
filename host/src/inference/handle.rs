//! The shared state behind [`super::Inference`].

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::spawn_blocking,
};

use super::{
    Counters, InferenceConfig, LoadedModel, ModelDetails, ModelEntry, PULL_BUFFER, PullError, PullProgress,
    StoreError,
    caches::CacheRoots,
    counters::{Cells, add},
    details,
    embed::{self, EmbedRequest, Embedded, EmbedderInfo, Embeds},
    engine::{self, Files, Loader},
    keeper::Keeper,
    pull::{Members, Progress, Puller},
    runner::{Sent, Shared},
    scheduler::Work,
    shelf::{Computing, Shelf},
    store::Store,
    verify::{CopyError, ModelCopy},
    vouch::Vouch,
};
use crate::{
    blob::{
        BlobId, Occupied,
        fetch::Fetcher,
        source::BlobSource,
        trees::{Making, Trees},
    },
    job::{Job, JobError, KeepAlive, Mode, Reply},
    mesh::streams::BoxFuture,
};

#[derive(Debug)]
pub(super) struct Inner {
    node: String,
    store: Arc<Store>,
    keeper: Arc<Keeper>,
    embeds: Embeds,
    cells: Arc<Cells>,
    puller: Arc<Puller>,
    trees: Trees,
    occupied: Arc<dyn Occupied>,
    stop: watch::Sender<bool>,
}

impl Inner {
    pub(super) async fn bind(config: InferenceConfig) -> Result<Arc<Self>, StoreError> {
        let budget = config.memory_budget.unwrap_or_else(engine::default_budget);
        let loader = Arc::new(Files::new(&config, budget));
        let roots = config.caches.then(CacheRoots::from_env);
        Self::with(config, budget, loader, roots).await
    }

    /// With a loader and caches of the caller's choice.
    pub(super) async fn with(
        config: InferenceConfig,
        budget: u64,
        loader: Arc<dyn Loader>,
        roots: Option<CacheRoots>,
    ) -> Result<Arc<Self>, StoreError> {
        let (home, models) = (config.home.clone(), config.models.clone());
        let embeds = Embeds::new(config.device, config.threads);
        let store = blocking(move || Store::open(&home, &models, roots)).await?;
        let cells = Arc::new(Cells::default());
        let shared = Shared {
            loader,
            cells: cells.clone(),
            idle: Arc::new(Notify::new()),
            parallel: config.parallel.clamp(1, 512),
            max_queue: config.max_queue.min(65_536),
        };
        let keeper = Arc::new(Keeper::new(shared, budget, config.max_loaded, config.keep_alive));
        tokio::spawn(Keeper::reap(Arc::downgrade(&keeper)));
        let store = Arc::new(store);
        let occupied: Arc<dyn Occupied> = Arc::new(Computing(Arc::clone(&keeper)));
        Ok(Arc::new(Self {
            node: config.node,
            keeper,
            embeds,
            cells,
            trees: Trees::new(store.trees(), Arc::clone(&occupied)),
            occupied,
            puller: Arc::new(Puller::from_env(store.clone(), config.offline)),
            store,
            stop: watch::channel(false).0,
        }))
    }

    pub(super) async fn submit(&self, job: Job, vouch: Option<Vouch>) -> Result<Reply, JobError> {
        add(&self.cells.requests, 1);
        let result = self.start(job, vouch).await;
        match &result {
            Ok(_) => {}
            Err(JobError::Busy { .. }) => add(&self.cells.busy, 1),
            Err(_) => add(&self.cells.refused, 1),
        }
        result
    }

    async fn start(&self, job: Job, vouch: Option<Vouch>) -> Result<Reply, JobError> {
        let submitted = Instant::now();
        let entry = self.find_writer(&job.model).await?;
        let job = Arc::new(job);
        // A second try when the engine broke between being found and being given the job.
        for _ in 0..2 {
            let (runner, lease, load) = self.keeper.acquire(&entry, job.keep_alive).await?;
            let asked = job.clone();
            let prepared = runner.frontend.blocking(move |f| f.prepare(&asked)).await?;
            let (events, mut reply) = Reply::channel(self.node.clone(), Mode::Local);
            reply.vouch.clone_from(&vouch);
            let (tokenizer, vouch) = (runner.frontend.tokenizer().clone(), vouch.clone());
            let work = Work { prepared, tokenizer, events, lease, submitted, load, vouch };
            match runner.send(work) {
                Sent::Queued => return Ok(reply),
                Sent::Full => return Err(JobError::Busy { queued: 0, retry_after: Duration::from_secs(1) }),
                Sent::Ended => {}
            }
        }
        Err(JobError::Internal { reason: "the engine ended twice before it took the job".into() })
    }

    pub(super) async fn count(&self, job: Job) -> Result<u64, JobError> {
        let entry = self.find_writer(&job.model).await?;
        let (runner, _lease, _) = self.keeper.acquire(&entry, job.keep_alive).await?;
        runner.frontend.blocking(move |f| f.tokens(&job, usize::MAX).map(|tokens| tokens.len() as u64)).await
    }

    pub(super) async fn embed(&self, request: EmbedRequest) -> Result<Embedded, JobError> {
        add(&self.cells.requests, 1);
        let result = match self.find(&request.model).await {
            Ok(entry) => self.embeds.embed(entry, request).await,
            Err(error) => Err(error),
        };
        match &result {
            Ok(done) => {
                add(&self.cells.completed, 1);
                add(&self.cells.prompt_tokens, usize::try_from(done.tokens).unwrap_or(usize::MAX));
            }
            Err(JobError::Busy { .. }) => add(&self.cells.busy, 1),
            Err(_) => add(&self.cells.refused, 1),
        }
        result
    }

    pub(super) fn embedder(&self) -> Option<EmbedderInfo> {
        let installed = self.store.embedder()?;
        let (dims, model_id) = (installed.dims, installed.model_id());
        Some(EmbedderInfo { name: embed::NAME.into(), dims, model_id })
    }

    /// A model that writes text.
    async fn find_writer(&self, name: &str) -> Result<ModelEntry, JobError> {
        let entry = self.find(name).await?;
        if entry.is_embedder() {
            let reason = format!(
                "`{}` makes vectors, it writes no text; ask /v1/embeddings or /api/embed, or name another model",
                entry.name
            );
            return Err(JobError::Invalid { field: "model".into(), reason });
        }
        Ok(entry)
    }

    async fn find(&self, name: &str) -> Result<ModelEntry, JobError> {
        self.resolve(name).await.map_err(|error| match error {
            StoreError::NotFound { name } if embed::is_alias(&name) => {
                JobError::EmbedderMissing { model: name }
            }
            StoreError::NotFound { name } => JobError::ModelNotFound { model: name },
            StoreError::Ambiguous { .. } => {
                JobError::Invalid { field: "model".into(), reason: error.to_string() }
            }
            other => JobError::ModelUnusable { model: name.to_owned(), reason: other.to_string() },
        })
    }

    pub(super) async fn models(&self) -> Vec<ModelEntry> {
        let store = self.store.clone();
        spawn_blocking(move || store.list().to_vec()).await.unwrap_or_default()
    }

    pub(super) async fn resolve(&self, name: &str) -> Result<ModelEntry, StoreError> {
        let (store, name) = (self.store.clone(), name.to_owned());
        blocking(move || store.resolve(&name)).await
    }

    pub(super) async fn show(&self, name: &str) -> Result<ModelDetails, StoreError> {
        let entry = self.resolve(name).await?;
        blocking(move || {
            let name = entry.name.clone();
            let details = if entry.is_embedder() {
                embed::describe(entry)
            } else {
                engine::open(&entry).map(|gguf| details::read(entry, &gguf))
            };
            details.map_err(|reason| StoreError::Unreadable { name, reason })
        })
        .await
    }

    pub(super) fn loaded(&self) -> Vec<LoadedModel> {
        let mut loaded: Vec<_> = self.keeper.runners().iter().map(|r| r.describe()).collect();
        loaded.extend(self.embeds.loaded());
        loaded
    }

    pub(super) async fn load(&self, name: &str, keep: Option<KeepAlive>) -> Result<Duration, JobError> {
        let entry = self.find(name).await?;
        if entry.is_embedder() {
            return self.embeds.load(entry, keep).await;
        }
        self.keeper.acquire(&entry, keep).await.map(|(_, _, time)| time)
    }

    pub(super) async fn unload(&self, name: &str) -> Result<bool, JobError> {
        let entry = self.find(name).await?;
        Ok(self.keeper.unload(&entry) | self.embeds.unload(&entry).await)
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), StoreError> {
        let (store, name) = (self.store.clone(), name.to_owned());
        let entry = blocking(move || store.remove(&name)).await?;
        self.keeper.unload(&entry);
        self.embeds.unload(&entry).await;
        Ok(())
    }

    pub(super) fn pull(&self, reference: &str) -> mpsc::Receiver<Result<PullProgress, PullError>> {
        let (puller, reference) = (self.puller.clone(), reference.to_owned());
        self.pulling(move |progress| Box::pin(async move { puller.pull(&reference, &progress).await }))
    }

    pub(super) fn pull_from(
        &self,
        fetcher: Fetcher,
        name: &str,
        from: &str,
    ) -> mpsc::Receiver<Result<PullProgress, PullError>> {
        let (puller, trees) = (self.puller.clone(), self.trees.clone());
        let (name, from) = (name.to_owned(), from.to_owned());
        self.pulling(move |progress| {
            Box::pin(async move {
                Members { puller: &puller, fetcher: &fetcher, trees: &trees }
                    .pull(&name, &from, &progress)
                    .await
            })
        })
    }

    /// Runs a pull until it ends, nobody listens any more, or the node stops.
    fn pulling(
        &self,
        pull: impl FnOnce(Progress) -> BoxFuture<'static, Result<String, PullError>>,
    ) -> mpsc::Receiver<Result<PullProgress, PullError>> {
        let (progress, steps) = mpsc::channel(PULL_BUFFER);
        let mut stop = self.stop.subscribe();
        let pull = pull(progress.clone());
        tokio::spawn(async move {
            let result = tokio::select! {
                result = pull => result,
                _ = stop.wait_for(|s| *s) => Err(PullError::Stopped),
                () = progress.closed() => return,
            };
            let last = result.map(|name| PullProgress::Success { name });
            let _ = progress.send(last).await;
        });
        steps
    }

    pub(super) fn blobs(&self) -> Arc<dyn BlobSource> {
        Arc::new(Shelf { store: self.store.clone(), trees: self.trees.clone() })
    }

    pub(super) async fn copy(&self, digest: [u8; 32]) -> Result<Option<ModelCopy>, CopyError> {
        let (store, trees) = (self.store.clone(), self.trees.clone());
        let broke = |_| CopyError::Broken;
        spawn_blocking(move || {
            // Asking for an id begins to compute it: a later call finds it. What nobody waits for is not computed.
            let has = |path: &Path| {
                let id = trees.id(path);
                if id.is_none() {
                    let mut making = trees.make(path);
                    tokio::spawn(async move {
                        let _ = making.wait_for(|made| !matches!(made, Making::Working { .. })).await;
                    });
                }
                id == Some(BlobId(digest))
            };
            let found = store.list().iter().find(|entry| entry.path.as_deref().is_some_and(has)).cloned();
            found.map(|entry| ModelCopy::open(&entry)).transpose()
        })
        .await
        .map_err(broke)?
    }

    pub(super) fn occupied(&self) -> Arc<dyn Occupied> {
        Arc::clone(&self.occupied)
    }

    pub(super) fn counters(&self) -> Counters {
        let mut counters = self.cells.snapshot();
        for model in self.loaded() {
            counters.active += model.active as u64;
            counters.queued += model.queued as u64;
        }
        counters
    }

    pub(super) async fn shutdown(&self, grace: Duration) {
        self.stop.send_replace(true);
        self.trees.stop();
        tokio::join!(self.keeper.shutdown(grace), self.embeds.shutdown(grace));
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let broke = |_| StoreError::Io { path: "models".into(), reason: "the work broke off".into() };
    spawn_blocking(work).await.map_err(broke)?
}
