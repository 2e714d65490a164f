//! The node's embedder as the memory sees it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    dispatch::provider::BoxFuture,
    inference::{Inference, Lane},
    memory::{Embedder, Lane as Urgency},
};

/// How long it is taken for granted whether an embedder is installed.
const FRESH: Duration = Duration::from_millis(500);

/// Embeds with the installed encoder.
#[derive(Debug)]
pub(super) struct Local {
    inference: Inference,
    seen: Mutex<Option<(Instant, Option<String>)>>,
}

impl Local {
    pub(super) const fn new(inference: Inference) -> Self {
        Self { inference, seen: Mutex::new(None) }
    }
}

impl Embedder for Local {
    fn model(&self) -> Option<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, model)) = &*seen
            && when.elapsed() < FRESH
        {
            return model.clone();
        }
        let model = self.inference.embedder().map(|info| info.model_id);
        *seen = Some((Instant::now(), model.clone()));
        model
    }

    fn embed(&self, texts: Vec<String>, lane: Urgency) -> BoxFuture<'_, Result<Vec<Vec<f32>>, String>> {
        let lane = match lane {
            Urgency::Interactive => Lane::Interactive,
            Urgency::Background => Lane::Background,
        };
        Box::pin(async move {
            let found = self.inference.embed("embedder", texts, lane).await;
            found.map(|found| found.vectors).map_err(|error| error.to_string())
        })
    }
}
