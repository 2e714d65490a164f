//! The model that is compiled in.

/// The name of the built-in model.
pub(crate) const GUIDE: &str = "guide";

/// The built-in model's file: a small Llama trained on questions and answers about Potluck, and nothing else.
pub(super) const GUIDE_BYTES: Option<&[u8]> = Some(include_bytes!("../../guide/guide.gguf"));
