//! The embedding of a version, an entry of its own.

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use serde::{Deserialize, Serialize};

use super::super::clock::Stamp;
use super::entry::VerifyError;
use super::{Digest, NodeId, RecordId, Signature, Signer};

/// The longest name of a model, in bytes.
pub const MAX_MODEL: usize = 128;
/// The most numbers in one row.
pub const MAX_DIMS: u16 = 4096;
/// The most rows of one version.
pub const MAX_ROWS: usize = 4096;

/// Keeps a signature of vectors from being taken for one of anything else.
const DOMAIN: &[u8] = b"potluck memory vectors 1\0";

/// One vector: number `i` is `scale × values[i]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub struct Row {
    /// What one step of the integers is worth; finite.
    #[n(0)]
    pub scale: f32,
    /// The numbers in steps of `scale`.
    #[n(1)]
    #[cbor(encode_with = "encode_values", decode_with = "decode_values")]
    pub values: Vec<i8>,
}

/// The embedding of a version: row 0 is the whole record, the others its passages in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub struct Vectors {
    /// The version that is embedded.
    #[n(0)]
    pub version: RecordId,
    /// The model, by name and hash, at most [`MAX_MODEL`] bytes: only vectors of one model compare.
    #[n(1)]
    pub model: String,
    /// The numbers in each row, 1 to [`MAX_DIMS`].
    #[n(2)]
    pub dims: u16,
    /// When it was written, by the clock that all machines share.
    #[n(3)]
    pub stamp: Stamp,
    /// The machine that wrote it.
    #[n(4)]
    pub origin: NodeId,
    /// Its place among all entries of that machine, from 1.
    #[n(5)]
    pub sequence: u64,
    /// BLAKE3 of the rows as canonical CBOR.
    #[n(6)]
    pub content_hash: Digest,
    /// The rows, at most [`MAX_ROWS`]; `None` once they are erased: they say much about the text.
    #[n(7)]
    pub rows: Option<Vec<Row>>,
    /// The signature of the origin over all but the rows, for which their hash stands.
    #[n(8)]
    pub signature: Signature,
}

impl Vectors {
    /// The embedding of `version` by `model`, signed by this machine.
    ///
    /// # Errors
    /// [`VerifyError::Vectors`] if the rows have not all `dims` numbers, or are none or too many.
    pub fn seal(
        version: RecordId,
        (model, dims): (String, u16),
        rows: Vec<Row>,
        (stamp, sequence): (Stamp, u64),
        signer: &Signer,
    ) -> Result<Self, VerifyError> {
        let mut vectors = Self {
            version,
            model,
            dims,
            stamp,
            origin: signer.node(),
            sequence,
            content_hash: hash(&rows),
            rows: Some(rows),
            signature: Signature([0; 64]),
        };
        vectors.check()?;
        vectors.signature = signer.sign(&vectors.signed_bytes());
        Ok(vectors)
    }

    /// The bytes that are signed: a tag, all fields but the rows and the signature as CBOR.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let signed =
            (self.version, &self.model, self.dims, self.stamp, self.origin, self.sequence, self.content_hash);
        let mut bytes = DOMAIN.to_vec();
        // Writing to memory cannot fail; were it otherwise, the short bytes would verify nowhere.
        let _ = minicbor::encode(signed, &mut bytes);
        bytes
    }

    /// The entry without its rows; the signature still holds.
    pub fn erased(mut self) -> Self {
        self.rows = None;
        self
    }

    /// Whether everything is within its limits.
    fn check(&self) -> Result<(), VerifyError> {
        if self.model.is_empty() || self.model.len() > MAX_MODEL {
            return Err(VerifyError::Vectors("the name of the model is empty or too long"));
        }
        if self.dims == 0 || self.dims > MAX_DIMS {
            return Err(VerifyError::Vectors("the rows have no or too many numbers"));
        }
        if self.sequence == 0 {
            return Err(VerifyError::Sequence);
        }
        let Some(rows) = &self.rows else { return Ok(()) };
        if rows.is_empty() || rows.len() > MAX_ROWS {
            return Err(VerifyError::Vectors("there are no or too many rows"));
        }
        if rows.iter().any(|row| row.values.len() != usize::from(self.dims) || !row.scale.is_finite()) {
            return Err(VerifyError::Vectors("a row has another number of numbers, or an infinite scale"));
        }
        Ok(())
    }

    /// Whether the entry is what its origin signed, within all limits. Rows that are gone are not missed.
    ///
    /// # Errors
    /// [`VerifyError`] saying what does not hold.
    pub fn verify(&self) -> Result<(), VerifyError> {
        self.check()?;
        if self.rows.as_ref().is_some_and(|rows| hash(rows) != self.content_hash) {
            return Err(VerifyError::Content);
        }
        let signed = self.origin.signed(&self.signed_bytes(), self.signature);
        if signed { Ok(()) } else { Err(VerifyError::Signature) }
    }
}

/// BLAKE3 of the rows as canonical CBOR.
fn hash(rows: &[Row]) -> Digest {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail.
    let _ = minicbor::encode(rows, &mut bytes);
    Digest::of(&bytes)
}

/// The numbers of a row as a byte string.
fn encode_values<C, W: Write>(
    values: &[i8],
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    let bytes: Vec<u8> = values.iter().map(|value| value.cast_unsigned()).collect();
    e.bytes(&bytes)?.ok()
}

/// The numbers of a row from a byte string.
fn decode_values<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<i8>, DecodeError> {
    Ok(d.bytes()?.iter().map(|byte| byte.cast_signed()).collect())
}
