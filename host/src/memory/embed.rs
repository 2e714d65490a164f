//! How the memory gets its vectors: through a trait, so that it knows nothing of models.

use std::fmt;

use crate::dispatch::provider::BoxFuture;

/// Who waits for an embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Somebody asked a question and waits.
    Interactive,
    /// Records are being indexed; questions go first.
    Background,
}

/// Turns texts into unit vectors.
pub trait Embedder: Send + Sync + fmt::Debug {
    /// Name and hash of the model's weights, such as `all-MiniLM-L6-v2@0123456789abcdef`; `None` while there is
    /// none. Vectors of different models are never compared.
    fn model(&self) -> Option<String>;

    /// One unit vector per text, all of one length. Long texts are cut at the model's limit.
    ///
    /// # Errors
    /// Why not, in words for the user.
    fn embed(&self, texts: Vec<String>, lane: Lane) -> BoxFuture<'_, Result<Vec<Vec<f32>>, String>>;
}
