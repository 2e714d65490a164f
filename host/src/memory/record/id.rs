//! Names: of records, of machines, of contents; and signatures.

use std::fmt;
use std::str::FromStr;

use minicbor::decode::{Decode, Decoder, Error as DecodeError};
use minicbor::encode::{Encode, Encoder, Error as EncodeError, Write};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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
        Uuid::parse_str(text.trim()).map(Self).map_err(|_| IdError::Record(text.chars().take(64).collect()))
    }
}

/// A text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not the id of a record.
    #[error("{0:?} is no id of a memory: use one as recall shows it, 32 hexadecimal digits with hyphens")]
    Record(String),
    /// Not hexadecimal, or not of the right length.
    #[error("{text:?} is not {bytes} bytes in hexadecimal: use {} digits from 0 to 9 and a to f", bytes * 2)]
    Hex {
        /// What was read, cut at 64 characters.
        text: String,
        /// How many bytes were expected.
        bytes: usize,
    },
}

/// Bytes as lower-case hexadecimal digits.
fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Exactly `N` bytes of hexadecimal digits.
fn read_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let fail = || IdError::Hex { text: text.chars().take(64).collect(), bytes: N };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return Err(fail());
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(*high).ok_or_else(fail)? << 4) | digit(*low).ok_or_else(fail)?;
    }
    Ok(bytes)
}

/// A newtype over fixed bytes: hexadecimal as text and in JSON, a byte string in CBOR.
macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $n:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $n]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                write_hex(&self.0, f)?;
                f.write_str(")")
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                read_hex(text.trim()).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                fixed(d).map(Self)
            }
        }
    };
}

/// A CBOR byte string of exactly `N` bytes.
fn fixed<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], DecodeError> {
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
        fixed(d).map(Self::from_bytes)
    }
}

fixed_bytes!(
    /// A machine: its ed25519 public key, 32 bytes, hexadecimal as text.
    NodeId, 32
);
fixed_bytes!(
    /// A BLAKE3 hash, 32 bytes, hexadecimal as text.
    Digest, 32
);
fixed_bytes!(
    /// An ed25519 signature, 64 bytes, hexadecimal as text.
    Signature, 64
);

impl Digest {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}
