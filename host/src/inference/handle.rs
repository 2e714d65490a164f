//! The shared state behind [`super::Inference`].

use std::{path::PathBuf, time::Duration};

use tokio::sync::mpsc;

use super::{
    Counters, InferenceConfig, LoadedModel, ModelDetails, ModelEntry, PullError, PullProgress, StoreError,
    caches::CacheRoots, counters::Cells, store::Store,
};
use crate::job::{Job, JobError, KeepAlive, Reply};

#[derive(Debug)]
pub(super) struct Inner {
    config: InferenceConfig,
    store: Store,
    cells: Cells,
}
const SOON: &str = "not built yet";
#[allow(clippy::unused_async)]
impl Inner {
    pub(super) async fn bind(config: InferenceConfig) -> Result<std::sync::Arc<Self>, StoreError> {
        let roots = config.caches.then(CacheRoots::from_env);
        let store = Store::open(&config.home, &config.models, roots)?;
        Ok(std::sync::Arc::new(Self { config, store, cells: Cells::default() }))
    }
    pub(super) async fn submit(&self, _job: Job) -> Result<Reply, JobError> {
        Err(JobError::Internal { reason: SOON.into() })
    }
    pub(super) async fn count(&self, _job: Job) -> Result<u64, JobError> {
        Err(JobError::Internal { reason: SOON.into() })
    }
    pub(super) async fn models(&self) -> Vec<ModelEntry> {
        self.store.list().to_vec()
    }
    pub(super) async fn resolve(&self, name: &str) -> Result<ModelEntry, StoreError> {
        self.store.resolve(name)
    }
    pub(super) async fn show(&self, name: &str) -> Result<ModelDetails, StoreError> {
        Err(StoreError::NotFound { name: name.into() })
    }
    pub(super) fn loaded(&self) -> Vec<LoadedModel> {
        Vec::new()
    }
    pub(super) async fn load(&self, _: &str, _: Option<KeepAlive>) -> Result<Duration, JobError> {
        Err(JobError::Internal { reason: SOON.into() })
    }
    pub(super) async fn unload(&self, _name: &str) -> Result<bool, JobError> {
        Ok(false)
    }
    pub(super) async fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.store.remove(name).map(drop)
    }
    pub(super) fn pull(&self, _: &str) -> mpsc::Receiver<Result<PullProgress, PullError>> {
        mpsc::channel(1).1
    }
    pub(super) fn counters(&self) -> Counters {
        self.cells.snapshot()
    }
    pub(super) async fn shutdown(&self, _grace: Duration) {
        let _ = (&self.config, PathBuf::new());
    }
}
