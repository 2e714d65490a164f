//! Secrets.
use serde::{Deserialize, Serialize};

/// How many secrets of one kind were removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    /// The kind's name.
    pub kind: String,
    /// How many.
    pub count: usize,
}
