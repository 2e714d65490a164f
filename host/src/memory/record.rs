//! What the memory is made of: immutable versions of records, signed by the machine that wrote them.
//!
//! A version is never changed. Writing a record again makes a new version that *supersedes* the old one;
//! forgetting makes a version without text, a *tombstone*. What is signed is the header and a hash of the
//! text, not the text: it can be erased later (a hard forget) while everyone can still check who wrote the
//! header. The embedding of a version is an entry of its own, signed in the same way, so that machines with
//! another model can make their own and drop ours.
//!
//! The bytes are the same on every machine: a byte for the format, one for the kind of entry, the sequence,
//! then CBOR in exactly one possible form. [`Entry::decode`] refuses anything else.

mod draft;
mod entry;
mod id;
mod kind;
#[cfg(test)]
mod tests;
mod time;
mod vectors;
mod version;

pub use draft::{
    Draft, DraftError, MAX_BODY, MAX_NAME, MAX_SUPERSEDES, MAX_TAG, MAX_TAGS, body_hash, normalise,
};
pub use entry::{CodecError, ENTRY_FORMAT, Entry, EntryError, Peek, VerifyError};
pub use entry::{MAX_ENTRY, MIN_ENTRY};
pub use id::{IdError, RecordId};
pub use kind::{Kind, KindError};
pub use time::{Millis, TimeError};
pub use vectors::{MAX_DIMS, MAX_MODEL, MAX_ROWS, Row, Vectors};
pub use version::{Context, Forget, Header, MAX_REASON, Tombstone, Version};

pub use crate::identity::{Digest, NodeId, Signature, Signer};
