//! The model that is compiled in.

/// The name of the built-in model.
pub(crate) const GUIDE: &str = "guide";

/// The built-in model's file.
pub(super) const GUIDE_BYTES: Option<&[u8]> = None;
