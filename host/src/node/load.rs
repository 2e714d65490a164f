//! What this machine's engines have to offer the members of a pool.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    dispatch::{
        load::{LoadSource, ModelLoad},
        provider::BoxFuture,
    },
    inference::{Inference, LoadedModel, ModelEntry},
};

/// How long the list of files on disk is taken for true.
const FRESH: Duration = Duration::from_secs(10);

/// The engines of this machine, as others may know them.
#[derive(Debug)]
pub(super) struct Engines {
    inference: Inference,
    slots: u32,
    listed: Mutex<Option<(Instant, Vec<ModelEntry>)>>,
}

impl Engines {
    pub(super) fn new(inference: Inference, slots: usize) -> Self {
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        Self { inference, slots, listed: Mutex::default() }
    }

    async fn models(&self) -> Vec<ModelEntry> {
        let known = self.listed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((when, models)) = known
            && when.elapsed() < FRESH
        {
            return models;
        }
        let mut models = self.inference.models().await;
        models.retain(|model| !model.is_embedder());
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), models.clone()));
        models
    }

    fn report(&self, model: ModelEntry, loaded: &[LoadedModel]) -> ModelLoad {
        let running = loaded.iter().find(|other| other.entry.name == model.name);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        ModelLoad {
            name: model.name,
            digest: model.digest,
            context: running.map_or(0, |model| model.context),
            loaded: running.is_some(),
            resumes: true,
            slots: self.slots,
            running: running.map_or(0, |model| count(model.active)),
            queued: running.map_or(0, |model| count(model.queued)),
            free_tokens: running.map_or(0, |model| {
                model.context.saturating_mul(u64::from(self.slots).saturating_sub(model.active as u64))
            }),
            // Measured by those who ask.
            prefill: 0.0,
            decode: 0.0,
        }
    }
}

impl LoadSource for Engines {
    fn now(&self) -> BoxFuture<'_, Vec<ModelLoad>> {
        Box::pin(async {
            let loaded = self.inference.loaded();
            self.models().await.into_iter().map(|model| self.report(model, &loaded)).collect()
        })
    }
}
