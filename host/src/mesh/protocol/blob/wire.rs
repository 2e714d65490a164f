//! The messages: CBOR with numbered fields, so that fields can be added.

use std::fmt;

use minicbor::{Decode, Decoder, Encode, bytes::ByteVec, decode::Error as DecodeError};
use serde::Serialize;

use super::tree::{BLOCK, Hash};

/// Longest message of the asking side, in bytes.
pub const MAX_ASK: usize = 4 << 10;
/// Longest message of the answering side, in bytes: a block and what is around it.
pub const MAX_TELL: usize = BLOCK as usize + 256;
/// Most files in a list.
pub const MAX_ITEMS: usize = 512;
/// Longest name of a file, in bytes.
pub const MAX_NAME: usize = 200;
/// Longest words of a refusal, in bytes.
pub const MAX_WORDS: usize = 512;
/// Block hashes in one message.
pub const PAGE: usize = 8192;
/// Largest model, in bytes.
pub const MAX_SIZE: u64 = 1 << 40;
/// Largest file of every other kind, in bytes: such a file is checked as a whole.
pub const MAX_SMALL: u64 = 8 << 20;

/// What a file is, which decides what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A model, named by BLAKE3, checked by block.
    #[n(0)]
    Model,
    /// A component of a policy, named by BLAKE2b-256, checked as a whole.
    #[n(1)]
    Policy,
}

impl Kind {
    /// The largest file of this kind, in bytes.
    pub const fn most(self) -> u64 {
        match self {
            Self::Model => MAX_SIZE,
            Self::Policy => MAX_SMALL,
        }
    }
}

/// 32 bytes of a hash, hexadecimal as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct BlobId(#[cbor(with = "minicbor::bytes")] pub Hash);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl Serialize for BlobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl BlobId {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let pairs: &[[u8; 2]; 32] = pairs.try_into().ok().filter(|_| rest.is_empty())?;
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = (digit(*high)? << 4) | digit(*low)?;
        }
        Some(Self(bytes))
    }
}

/// A file that somebody has.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Item {
    /// What it is called there.
    #[n(0)]
    pub name: String,
    /// Bytes.
    #[n(1)]
    pub size: u64,
    /// SHA-256, where it is known.
    #[n(2)]
    pub sha256: Option<BlobId>,
    /// What it is named by, where that is known: computing it takes a while for a large file.
    #[n(3)]
    pub id: Option<BlobId>,
}

impl Item {
    /// Whether it can be what it says: a name that a person can read and that leads nowhere, and a size.
    pub fn is_sound(&self, kind: Kind) -> bool {
        is_name(&self.name) && (1..=kind.most()).contains(&self.size)
    }
}

/// Whether a name of another machine is one to show and to keep: parts between slashes that are not empty and do not
/// begin with a dot, of letters, digits, blanks and a few marks.
pub fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '+' | ' ' | '(' | ')');
    let part = |part: &str| {
        !part.is_empty()
            && part.trim() == part
            && !part.starts_with(['.', '-', ':'])
            && part.chars().all(fits)
    };
    name.len() <= MAX_NAME && name.split('/').all(part)
}

/// What the asking side says. The first of a stream is `List`, `Find` or `Open`.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Ask {
    /// It waits, and is there.
    #[n(0)]
    Ping,
    /// Which files are there?
    #[n(1)]
    List {
        /// Of which kind.
        #[n(0)]
        kind: Kind,
    },
    /// The file of this name is wanted; its id is computed if it is not known.
    #[n(2)]
    Find {
        /// Its kind.
        #[n(0)]
        kind: Kind,
        /// Its name there, exactly.
        #[n(1)]
        name: String,
    },
    /// The file of this id is wanted.
    #[n(3)]
    Open {
        /// Its kind.
        #[n(0)]
        kind: Kind,
        /// Its id.
        #[n(1)]
        id: BlobId,
    },
    /// Block hashes of the file, at most [`PAGE`].
    #[n(4)]
    Hashes {
        /// The number of the first.
        #[n(0)]
        from: u64,
        /// How many.
        #[n(1)]
        count: u32,
    },
    /// A block of the file. Several may be asked for before the first has come.
    #[n(5)]
    Get {
        /// Its number.
        #[n(0)]
        index: u64,
    },
}

/// What the answering side says.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Tell {
    /// It works on the answer.
    #[n(0)]
    Ping,
    /// The files that the asking side may copy. Ends the stream.
    #[n(1)]
    Listed {
        /// At most [`MAX_ITEMS`].
        #[cbor(n(0), decode_with = "few")]
        items: Vec<Item>,
        /// Whether there are more.
        #[n(1)]
        more: bool,
    },
    /// The file's id is being computed.
    #[n(2)]
    Hashing {
        /// Bytes so far.
        #[n(0)]
        done: u64,
        /// Bytes in all.
        #[n(1)]
        total: u64,
    },
    /// The file that the stream is about from now on; its id is known.
    #[n(3)]
    Found {
        /// The file.
        #[n(0)]
        item: Item,
    },
    /// Block hashes, 32 bytes each, from the first that was asked for.
    #[n(4)]
    Hashes {
        /// The number of the first.
        #[n(0)]
        from: u64,
        /// The hashes.
        #[n(1)]
        bytes: ByteVec,
    },
    /// A block.
    #[n(5)]
    Block {
        /// Its number.
        #[n(0)]
        index: u64,
        /// Its bytes.
        #[n(1)]
        bytes: ByteVec,
    },
    /// No. Ends the stream.
    #[n(6)]
    Failed {
        /// Why.
        #[n(0)]
        code: FailCode,
        /// Why, for people.
        #[n(1)]
        words: String,
    },
}

fn few<'b, C>(d: &mut Decoder<'b>, context: &mut C) -> Result<Vec<Item>, DecodeError> {
    let at = d.position();
    let count = d.array()?.and_then(|count| usize::try_from(count).ok()).filter(|&n| n <= MAX_ITEMS);
    let count = count.ok_or_else(|| DecodeError::message("too many files").at(at))?;
    (0..count).map(|_| d.decode_with(context)).collect()
}

/// Why the answering side refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum FailCode {
    /// There is no such file, or none that the asking side may copy: the two are not told apart.
    #[n(0)]
    NotFound,
    /// The asking side may copy nothing.
    #[n(1)]
    NotGranted,
    /// Too much is going on; later.
    #[n(2)]
    Busy,
    /// The file changed or cannot be read.
    #[n(3)]
    Unreadable,
    /// The node is stopping.
    #[n(4)]
    Stopping,
    /// The question makes no sense.
    #[n(5)]
    Nonsense,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::frame;

    #[test]
    fn messages_come_back_and_stay_as_they_are() {
        let id = BlobId([7; 32]);
        let item = Item { name: "u/r:Q4_0".into(), size: 9, sha256: None, id: Some(id) };
        for tell in [
            Tell::Ping,
            Tell::Listed { items: vec![item.clone()], more: false },
            Tell::Found { item },
            Tell::Block { index: 3, bytes: vec![1, 2].into() },
            Tell::Failed { code: FailCode::Busy, words: "later".into() },
        ] {
            assert_eq!(frame::decode::<Tell>(&minicbor::to_vec(&tell).unwrap()).unwrap(), tell);
        }
        // What other machines read: changing it takes a new version of the protocol.
        let ask = minicbor::to_vec(Ask::Find { kind: Kind::Model, name: "m".into() }).unwrap();
        assert_eq!(ask, [0x82, 2, 0x82, 0, 0x61, b'm']);
        assert_eq!(minicbor::to_vec(Ask::Get { index: 5 }).unwrap(), [0x82, 5, 0x81, 5]);
        let block = Tell::Block { index: u64::MAX, bytes: vec![0; BLOCK as usize].into() };
        assert!(minicbor::to_vec(&block).unwrap().len() <= MAX_TELL);
        let items = |count: usize| {
            let item = Item { name: "x".repeat(MAX_NAME), size: MAX_SIZE, sha256: Some(id), id: Some(id) };
            minicbor::to_vec(Tell::Listed { items: vec![item; count], more: true }).unwrap()
        };
        assert!(items(MAX_ITEMS).len() <= MAX_TELL);
        assert!(frame::decode::<Tell>(&items(MAX_ITEMS + 1)).is_err());
        assert!(
            minicbor::to_vec(Tell::Hashes { from: 0, bytes: vec![0; 32 * PAGE].into() }).unwrap().len()
                < MAX_TELL
        );
        assert_eq!(BlobId::parse(&id.to_string()), Some(id));
        assert_eq!(BlobId::parse("07"), None);
    }

    #[test]
    fn names_of_others_lead_nowhere() {
        for good in ["tiny", "USER/Repo-GGUF:Q4_K_M", "llama3:8b", "Modell für Anna (2)", "a.b+c", "モデル"]
        {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "a//b",
            "..",
            "../x",
            "a/../b",
            ".hidden",
            "a/.b",
            "a\\b",
            "a\0b",
            "a\nb",
            "~root",
            "a@trusted",
            "a\u{202e}b",
            " a",
            "a /b",
            "-rf",
            "%2e%2e",
            "C:\\x",
            "a*",
            "$(x)",
            "'",
            "\u{1b}[2J",
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(!is_name(&"x".repeat(MAX_NAME + 1)));
        let item = Item { name: "m".into(), size: 0, sha256: None, id: None };
        assert!(!item.is_sound(Kind::Model));
        assert!(Item { size: MAX_SIZE, ..item.clone() }.is_sound(Kind::Model));
        assert!(!Item { size: MAX_SIZE, ..item.clone() }.is_sound(Kind::Policy));
        assert!(!Item { size: u64::MAX, ..item }.is_sound(Kind::Model));
    }
}
