//! What a model's file says about itself.

use std::collections::BTreeMap;

use potluck_kernels::gguf::{Gguf, Metadata, Value};
use serde_json::{Map, Value as Json};

use super::{ModelDetails, ModelEntry};

/// The capability of encoders.
pub(super) const EMBEDDING: &str = "embedding";
/// Longest text shown as metadata, in bytes.
const MAX_TEXT: usize = 2048;

/// Reads the details from an opened file.
pub(super) fn read(entry: ModelEntry, gguf: &Gguf) -> ModelDetails {
    let meta = gguf.metadata();
    let text = |key: &str| meta.str(key).ok().map(str::to_owned);
    let architecture = text("general.architecture").unwrap_or_default();
    let number = |key: &str| meta.u64(&format!("{architecture}.{key}")).unwrap_or(0);
    let template = text("tokenizer.chat_template");
    let parameters = gguf.tensors().iter().map(|t| t.elements() as u64).sum();
    let mut capabilities = Vec::new();
    if architecture.contains("bert") {
        capabilities.push(EMBEDDING.to_owned());
    } else {
        capabilities.push("completion".to_owned());
        if template.as_deref().is_some_and(|t| t.contains("tools")) {
            capabilities.push("tools".to_owned());
        }
    }
    ModelDetails {
        parameters,
        quantization: quantization(gguf),
        context: number("context_length"),
        embedding: number("embedding_length"),
        capabilities,
        template,
        license: text("general.license"),
        metadata: scalars(meta),
        architecture,
        entry,
    }
}

/// The type that most matrix elements have.
fn quantization(gguf: &Gguf) -> String {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for tensor in gguf.tensors().iter().filter(|t| t.dims.len() > 1) {
        *counts.entry(tensor.dtype.name()).or_default() += tensor.elements();
    }
    let most = counts.into_iter().max_by_key(|&(_, count)| count);
    most.map_or_else(|| "unknown".to_owned(), |(name, _)| name.to_owned())
}

fn scalars(meta: &Metadata) -> Map<String, Json> {
    let mut out = Map::new();
    for (key, value) in meta.iter() {
        let json = match value {
            Value::Unsigned(v) => Json::from(*v),
            Value::Signed(v) => Json::from(*v),
            Value::Float(v) => Json::from(*v),
            Value::Bool(v) => Json::from(*v),
            Value::String(v) if v.len() <= MAX_TEXT => Json::from(v.as_str()),
            Value::String(_) | Value::Array(_) => continue,
        };
        out.insert(key.to_owned(), json);
    }
    out
}
