//! Who a machine is: its key, and what it signs.
//!
//! One ed25519 key names a node everywhere: in the mesh, in the pool's papers, and in what its memory writes.

use std::{fmt, str::FromStr};

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    decode::Error as DecodeError,
    encode::{Error as EncodeError, Write},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod signer;

pub use signer::{Signer, SignerError};

/// Text that is not the hexadecimal form of so many bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {bytes} bytes in hexadecimal ({} digits)", 2 * bytes)]
pub struct HexError {
    /// The text, its beginning if it is long.
    pub text: String,
    /// Bytes expected.
    pub bytes: usize,
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn read_hex<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let fail = || HexError { text: text.chars().take(64).collect(), bytes: N };
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
            type Err = HexError;

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

impl NodeId {
    /// Whether this node signed `message`.
    pub fn signed(self, message: &[u8], signature: Signature) -> bool {
        signer::signed_by(self, message, signature)
    }

    /// The first ten digits: enough to tell the machines of a pool apart.
    pub fn short(&self) -> String {
        self.to_string().chars().take(10).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_guarded() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/node.key");
        let first = Signer::load_or_create(&path).unwrap();
        assert_eq!(Signer::load_or_create(&path).unwrap().node(), first.node());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        let seed = Digest(fs::read(&path).unwrap().try_into().unwrap()).to_string();
        assert!(!format!("{first:?}").contains(&seed), "a key is never shown");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Signer::load(&path), Err(SignerError::Exposed { mode: 0o644, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, [1; 33]).unwrap();
        assert!(matches!(Signer::load_or_create(&path), Err(SignerError::Damaged { .. })));
    }

    #[test]
    fn a_name_is_hexadecimal() {
        let node = Signer::from_seed([7; 32]).node();
        assert_eq!(node.to_string().parse(), Ok(node));
        assert!("7f".parse::<NodeId>().unwrap_err().to_string().contains("64 digits"));
        let signature = Signer::from_seed([7; 32]).sign(b"yes");
        assert!(node.signed(b"yes", signature) && !node.signed(b"no", signature));
    }
}
