//! Versions: what is written down, once and for good.

use serde::{Deserialize, Serialize};

use super::super::clock::Stamp;
use super::draft::{check_facets, check_times};
use super::entry::VerifyError;
use super::{
    Digest, Draft, DraftError, Kind, MAX_BODY, Millis, NodeId, RecordId, Signature, Signer, body_hash,
};

/// The longest reason of a tombstone, in bytes.
pub const MAX_REASON: usize = 1024;

/// Keeps a signature of a version from being taken for one of anything else.
const DOMAIN: &[u8] = b"potluck memory version 1\0";

/// Says that the versions a version supersedes are forgotten, not replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub struct Tombstone {
    /// Why, at most [`MAX_REASON`] bytes.
    #[n(0)]
    pub reason: String,
    /// Whether their text is to be erased everywhere, too.
    #[n(1)]
    pub hard: bool,
}

/// All that is known about a version but its text. It is what is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub struct Header {
    /// The name of the version.
    #[n(0)]
    pub id: RecordId,
    /// What it is about.
    #[n(1)]
    pub kind: Kind,
    /// The project it belongs to.
    #[n(2)]
    pub project: Option<String>,
    /// Words to find it by, sorted, each once.
    #[n(3)]
    pub tags: Vec<String>,
    /// When it happened.
    #[n(4)]
    pub occurred_at: Option<Millis>,
    /// Until when it holds.
    #[n(5)]
    pub valid_until: Option<Millis>,
    /// The versions it takes the place of, or forgets; sorted, each once.
    #[n(6)]
    pub supersedes: Vec<RecordId>,
    /// Present if the version forgets what it supersedes; it then has no text of its own.
    #[n(7)]
    pub tombstone: Option<Tombstone>,
    /// Who or what said so.
    #[n(8)]
    pub source: Option<String>,
    /// When it was written, by the clock that all machines share.
    #[n(9)]
    pub stamp: Stamp,
    /// The machine that wrote it.
    #[n(10)]
    pub origin: NodeId,
    /// Its place among all entries of that machine, from 1.
    #[n(11)]
    pub sequence: u64,
    /// The hash that copies of one memory share, see [`body_hash`].
    #[n(12)]
    pub body_hash: Digest,
    /// BLAKE3 of the exact bytes of the text.
    #[n(13)]
    pub content_hash: Digest,
    /// The length of the text, in bytes.
    #[n(14)]
    pub body_len: u32,
}

/// The place of a new version in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Its name.
    pub id: RecordId,
    /// When it is written.
    pub stamp: Stamp,
    /// Its place among all entries of this machine, from 1.
    pub sequence: u64,
}

/// What to forget, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forget {
    /// The versions, at most [`super::MAX_SUPERSEDES`].
    pub targets: Vec<RecordId>,
    /// Why, at most [`MAX_REASON`] bytes.
    pub reason: String,
    /// Whether their text is to be erased everywhere, too.
    pub hard: bool,
    /// The project they belong to, so that a tombstone travels wherever they did.
    pub project: Option<String>,
    /// Who or what asked for it.
    pub source: Option<String>,
}

/// A version of a record: its header, its text, and the signature of the machine that wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub struct Version {
    /// All that is known about it but its text.
    #[n(0)]
    pub header: Header,
    /// The text; `None` once it is erased.
    #[n(1)]
    pub body: Option<String>,
    /// The signature of the origin over the header and the hash of the text.
    #[n(2)]
    pub signature: Signature,
}

impl Header {
    /// The bytes that are signed: a tag, the header as canonical CBOR, and the hash of the text.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = DOMAIN.to_vec();
        // Writing to memory cannot fail, and every field has an encoding. Were it otherwise, the short bytes
        // would verify nowhere.
        let _ = minicbor::encode(self, &mut bytes);
        bytes.extend_from_slice(&self.content_hash.0);
        bytes
    }

    /// Whether the version forgets what it supersedes.
    pub const fn is_tombstone(&self) -> bool {
        self.tombstone.is_some()
    }

    /// Whether everything in the header is within its limits.
    ///
    /// # Errors
    /// [`VerifyError`] naming the field that is not.
    pub fn check(&self) -> Result<(), VerifyError> {
        check_facets(self.project.as_deref(), self.source.as_deref(), &self.tags, self.supersedes.len())?;
        check_times(self.occurred_at, self.valid_until)?;
        if !self.tags.is_sorted_by(|a, b| a < b) || !self.supersedes.is_sorted_by(|a, b| a < b) {
            return Err(VerifyError::Unsorted);
        }
        if self.supersedes.contains(&self.id) {
            return Err(VerifyError::Itself);
        }
        if self.sequence == 0 {
            return Err(VerifyError::Sequence);
        }
        let len = usize::try_from(self.body_len).unwrap_or(usize::MAX);
        match &self.tombstone {
            Some(tombstone) => {
                check_tombstone(&tombstone.reason, self.supersedes.len())?;
                if len > 0 { Err(VerifyError::Length) } else { Ok(()) }
            }
            None if len == 0 => Err(DraftError::Empty.into()),
            None if len > MAX_BODY => Err(DraftError::Long { len }.into()),
            None => Ok(()),
        }
    }
}

impl Version {
    /// A version of what `draft` says, signed by this machine.
    ///
    /// # Errors
    /// [`DraftError`] if the draft cannot be written down.
    pub fn seal(draft: Draft, context: Context, signer: &Signer) -> Result<Self, DraftError> {
        draft.check()?;
        let len = draft.content.len();
        let header = Header {
            id: context.id,
            kind: draft.kind,
            project: draft.project,
            tags: sorted(draft.tags),
            occurred_at: draft.occurred_at,
            valid_until: draft.valid_until,
            supersedes: sorted(draft.supersedes),
            tombstone: None,
            source: draft.source,
            stamp: context.stamp,
            origin: signer.node(),
            sequence: context.sequence,
            body_hash: body_hash(&draft.content),
            content_hash: Digest::of(draft.content.as_bytes()),
            body_len: u32::try_from(len).map_err(|_| DraftError::Long { len })?,
        };
        let signature = signer.sign(&header.signed_bytes());
        Ok(Self { header, body: Some(draft.content), signature })
    }

    /// A version that forgets others, signed by this machine.
    ///
    /// # Errors
    /// [`DraftError`] if it names nothing or too much to forget, or its reason or names are too long.
    pub fn forget(forget: Forget, context: Context, signer: &Signer) -> Result<Self, DraftError> {
        let supersedes = sorted(forget.targets);
        check_facets(forget.project.as_deref(), forget.source.as_deref(), &[], supersedes.len())?;
        check_tombstone(&forget.reason, supersedes.len())?;
        let header = Header {
            id: context.id,
            kind: Kind::default(),
            project: forget.project,
            tags: Vec::new(),
            occurred_at: None,
            valid_until: None,
            supersedes,
            tombstone: Some(Tombstone { reason: forget.reason, hard: forget.hard }),
            source: forget.source,
            stamp: context.stamp,
            origin: signer.node(),
            sequence: context.sequence,
            body_hash: body_hash(""),
            content_hash: Digest::of(b""),
            body_len: 0,
        };
        let signature = signer.sign(&header.signed_bytes());
        Ok(Self { header, body: Some(String::new()), signature })
    }

    /// The version without its text; the signature still holds.
    pub fn erased(mut self) -> Self {
        self.body = None;
        self
    }

    /// Whether the version is what its origin signed, within all limits. Text that is gone is not missed.
    ///
    /// # Errors
    /// [`VerifyError`] saying what does not hold.
    pub fn verify(&self) -> Result<(), VerifyError> {
        self.header.check()?;
        if let Some(body) = &self.body {
            if u32::try_from(body.len()) != Ok(self.header.body_len) {
                return Err(VerifyError::Length);
            }
            if Digest::of(body.as_bytes()) != self.header.content_hash {
                return Err(VerifyError::Content);
            }
            if body_hash(body) != self.header.body_hash {
                return Err(VerifyError::BodyHash);
            }
        }
        let bytes = self.header.signed_bytes();
        if self.header.origin.signed(&bytes, self.signature) { Ok(()) } else { Err(VerifyError::Signature) }
    }
}

/// Whether a tombstone names something and its reason fits.
fn check_tombstone(reason: &str, targets: usize) -> Result<(), DraftError> {
    if targets == 0 {
        return Err(DraftError::NoTarget);
    }
    if reason.len() > MAX_REASON || reason.contains('\0') {
        return Err(DraftError::Reason { len: reason.len(), max: MAX_REASON });
    }
    Ok(())
}

/// Sorted, each once.
fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort_unstable();
    items.dedup();
    items
}
