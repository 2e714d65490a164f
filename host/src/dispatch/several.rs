//! What this machine answers members with: its own engines and the servers that it shares, as one.

use std::sync::{Arc, PoisonError, RwLock};

use super::{
    load::{LoadSource, ModelLoad},
    provider::{BoxFuture, Offer, Provider, SharedProvider},
};
use crate::job::{Job, JobError, Mode, Reply};

/// A provider and what is loaded behind it.
#[derive(Clone, Debug)]
pub struct Part {
    /// Answers jobs.
    pub provider: SharedProvider,
    /// What is loaded.
    pub load: Arc<dyn LoadSource>,
}

/// Several providers as one. A model that more than one has is the first one's.
#[derive(Clone, Debug)]
pub struct Several {
    node: String,
    parts: Arc<RwLock<Arc<Vec<Part>>>>,
}

impl Several {
    /// Puts them together, the preferred one first.
    pub fn new(node: String, parts: Vec<Part>) -> Self {
        Self { node, parts: Arc::new(RwLock::new(Arc::new(parts))) }
    }

    /// Puts one more behind the others.
    pub fn add(&self, part: Part) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        *parts = Arc::new(parts.iter().cloned().chain([part]).collect());
    }

    /// Takes one out again.
    pub fn remove(&self, part: &Part) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        let others = parts.iter().filter(|other| !Arc::ptr_eq(&other.load, &part.load));
        *parts = Arc::new(others.cloned().collect());
    }

    fn parts(&self) -> Arc<Vec<Part>> {
        Arc::clone(&self.parts.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn start(&self, job: Job) -> Result<Reply, JobError> {
        for part in self.parts().iter() {
            if part.load.now().await.iter().any(|model| model.name == job.model) {
                return part.provider.submit(job).await;
            }
        }
        // Nobody has it under this name; the first may know what is meant.
        match self.parts().first() {
            Some(part) => part.provider.submit(job).await,
            None => Err(JobError::ModelNotFound { model: job.model }),
        }
    }
}

impl Provider for Several {
    fn circle(&self) -> Mode {
        Mode::Local
    }

    fn node(&self) -> &str {
        &self.node
    }

    fn offers(&self) -> BoxFuture<'_, Vec<Offer>> {
        Box::pin(async {
            let mut all: Vec<Offer> = Vec::new();
            for part in self.parts().iter() {
                for offer in part.provider.offers().await {
                    if !all.iter().any(|known| known.model == offer.model) {
                        all.push(offer);
                    }
                }
            }
            all
        })
    }

    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>> {
        Box::pin(self.start(job))
    }
}

impl LoadSource for Several {
    fn now(&self) -> BoxFuture<'_, Vec<ModelLoad>> {
        Box::pin(async {
            let mut all: Vec<ModelLoad> = Vec::new();
            for part in self.parts().iter() {
                for model in part.load.now().await {
                    if !all.iter().any(|known| known.name == model.name) {
                        all.push(model);
                    }
                }
            }
            all
        })
    }
}
