//! The names of records.

use std::fmt;
use std::str::FromStr;

use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

use super::Millis;

/// The name of one version of a record: a UUID of version 7, so names sort by the time they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordId(pub Uuid);

impl RecordId {
    /// A fresh name at `at`, random beyond the time.
    pub fn generate(at: Millis) -> Self {
        let ms = u64::try_from(at.0).unwrap_or(0);
        let nanos = u32::try_from(ms % 1000).unwrap_or(0).saturating_mul(1_000_000);
        Self(Uuid::new_v7(Timestamp::from_unix(NoContext, ms / 1000, nanos)))
    }

    /// The name of a time and ten bytes of randomness.
    pub fn new(at: Millis, random: [u8; 10]) -> Self {
        let ms = u64::try_from(at.0).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
    }

    /// A name of its 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RecordId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text.trim()).map(Self).map_err(|_| IdError(text.chars().take(64).collect()))
    }
}

/// A text that is not the id of a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of a memory: use one as recall shows it, 32 hexadecimal digits with hyphens")]
pub struct IdError(pub String);

/// A CBOR byte string of 16 bytes.
fn sixteen(d: &mut Decoder<'_>) -> Result<[u8; 16], DecodeError> {
    let at = d.position();
    let bytes = d.bytes()?;
    bytes.try_into().map_err(|_| DecodeError::message("a byte string of another length").at(at))
}

impl<C> Encode<C> for RecordId {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.bytes(self.0.as_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for RecordId {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        sixteen(d).map(Self::from_bytes)
    }
}
