//! What listings say of each model besides its name. Files are opened once and remembered.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};

use crate::{
    api::Desk,
    inference::{ModelDetails, ModelEntry},
};

/// Most models that are remembered.
const REMEMBERED: usize = 4096;

/// The files seen so far: by name, size and time of change.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    known: Mutex<HashMap<(String, u64, u64), Value>>,
}

impl Summaries {
    /// Ollama's `details` of a listed model; empty words for a file that cannot be read.
    pub(super) async fn of(&self, desk: &dyn Desk, entry: &ModelEntry) -> Value {
        let key = (entry.name.clone(), entry.size, entry.modified);
        let found = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(found) = found {
            return found;
        }
        let details = desk.details(entry.name.clone()).await.ok();
        let value = summary(details.as_ref());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, value.clone());
        value
    }
}

/// Ollama's `details`.
pub(super) fn summary(details: Option<&ModelDetails>) -> Value {
    let Some(details) = details else {
        return json!({
            "parent_model": "", "format": "gguf", "family": "", "families": [],
            "parameter_size": "", "quantization_level": "",
        });
    };
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": details.architecture,
        "families": [details.architecture],
        "parameter_size": count(details.parameters),
        "quantization_level": details.quantization,
    })
}

/// A number of weights as model cards write it: `494.0M`, `1.2B`.
fn count(parameters: u64) -> String {
    let number = parameters as f64;
    match parameters {
        0..1_000_000 => format!("{:.1}K", number / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}M", number / 1e6),
        _ => format!("{:.1}B", number / 1e9),
    }
}
