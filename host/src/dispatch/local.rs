//! This machine's own engine as a provider.

use super::provider::{BoxFuture, Offer, Provider};
use crate::{
    inference::Inference,
    job::{Job, JobError, Mode, Reply},
};

/// Answers jobs with the models on this machine.
#[derive(Clone, Debug)]
pub struct LocalProvider {
    node: String,
    inference: Inference,
}

impl LocalProvider {
    /// A provider over this handle; `node` is the node's name.
    pub fn new(node: String, inference: Inference) -> Self {
        Self { node, inference }
    }
}

impl Provider for LocalProvider {
    fn circle(&self) -> Mode {
        Mode::Local
    }

    fn node(&self) -> &str {
        &self.node
    }

    fn offers(&self) -> BoxFuture<'_, Vec<Offer>> {
        Box::pin(async {
            let loaded = self.inference.loaded();
            let context = |name: &str| loaded.iter().find(|m| m.entry.name == name).map_or(0, |m| m.context);
            let models = self.inference.models().await;
            models.into_iter().map(|m| Offer { context: context(&m.name), model: m.name }).collect()
        })
    }

    fn submit(&self, job: Job) -> BoxFuture<'_, Result<Reply, JobError>> {
        Box::pin(self.inference.submit(job))
    }
}
