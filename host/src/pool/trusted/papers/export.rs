//! The root key of a pool: its file, and the form in which its owner takes it elsewhere.
//!
//! Exported, it is sealed with XChaCha20-Poly1305 under a key that argon2id makes of a passphrase. Salt, nonce
//! and hardness are part of what is authenticated.

use std::{fmt, path::Path};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::clock::{Random, draw};
use super::{Paper, PoolId, Sealed, Statement, text};
use crate::{
    identity::{Signer, SignerError},
    mesh::frame,
};

/// How an exported key begins.
const PREFIX: &str = "potluckroot1";
/// Keeps what is sealed here from being taken for anything else.
const DOMAIN: &[u8] = b"potluck root key export 1\0";
/// Shortest passphrase, in characters.
const MIN_PASSPHRASE: usize = 8;

/// What it costs to try a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
pub struct Hardness {
    /// Memory, in KiB.
    #[n(0)]
    pub memory: u32,
    /// Rounds.
    #[n(1)]
    pub rounds: u32,
}

impl Default for Hardness {
    /// 64 MiB, 3 rounds: about a third of a second.
    fn default() -> Self {
        Self { memory: 64 << 10, rounds: 3 }
    }
}

/// The root key of a pool, with the paper that says the pool's name.
#[derive(Clone)]
pub struct RootKey {
    /// The key.
    pub signer: Signer,
    /// The signed [`Pool`](super::Pool).
    pub paper: Paper,
    seed: Zeroizing<[u8; 32]>,
}

/// Why a root key cannot be taken out or in.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Too short a passphrase.
    #[error("the passphrase is too short: take at least {MIN_PASSPHRASE} characters, better four words")]
    Passphrase,
    /// Not an exported key.
    #[error("this is no exported root key ({0}): paste all of what `potluck pool export-root` printed")]
    NotOne(String),
    /// It does not open.
    #[error("the passphrase is wrong, or the exported key was changed")]
    Wrong,
    /// No randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The file of the key.
    #[error(transparent)]
    File(#[from] SignerError),
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Outer {
    #[n(0)]
    hardness: Hardness,
    #[cbor(n(1), with = "minicbor::bytes")]
    salt: [u8; 16],
    #[cbor(n(2), with = "minicbor::bytes")]
    nonce: [u8; 24],
    #[cbor(n(3), with = "minicbor::bytes")]
    sealed: Vec<u8>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Inner {
    #[cbor(n(0), with = "minicbor::bytes")]
    seed: [u8; 32],
    #[n(1)]
    paper: Sealed,
}

impl RootKey {
    /// The root key of a seed, with the signed [`Pool`](super::Pool) of that key.
    pub fn new(seed: [u8; 32], paper: Paper) -> Option<Self> {
        let signer = Signer::from_seed(seed);
        let fits = paper.author() == signer.node() && matches!(paper.statement(), Statement::Pool(_));
        fits.then_some(Self { signer, paper, seed: Zeroizing::new(seed) })
    }

    /// The pool.
    pub fn pool(&self) -> PoolId {
        PoolId(self.signer.node())
    }

    /// Writes the key to a file of its own that only its owner can read. Leaves one that is there alone.
    ///
    /// # Errors
    /// [`SignerError`] when the file cannot be written.
    pub fn store(&self, path: &Path) -> Result<(), SignerError> {
        store(&self.seed, path).map_err(|source| SignerError::Io { path: path.to_owned(), source })
    }

    /// Seals the key under `passphrase`, as text on one line. Takes as long as `hardness` says: not for a
    /// task that others wait for.
    ///
    /// # Errors
    /// [`ExportError::Passphrase`] or [`ExportError::Random`].
    pub fn export(
        &self,
        passphrase: &str,
        hardness: Hardness,
        random: &dyn Random,
    ) -> Result<String, ExportError> {
        if passphrase.chars().count() < MIN_PASSPHRASE {
            return Err(ExportError::Passphrase);
        }
        let (salt, nonce) = (draw(random)?, draw(random)?);
        let inner = Inner { seed: *self.seed, paper: self.paper.sealed().clone() };
        let inner = Zeroizing::new(minicbor::to_vec(&inner).map_err(|_| ExportError::Wrong)?);
        let key = stretch(passphrase, &salt, hardness)?;
        let cipher = XChaCha20Poly1305::new(key.as_slice().into());
        let aad = aad(hardness, &salt);
        let sealed = cipher
            .encrypt(XNonce::from_slice(&nonce), Payload { msg: &inner, aad: &aad })
            .map_err(|_| ExportError::Wrong)?;
        let outer = Outer { hardness, salt, nonce, sealed };
        Ok(text::write(PREFIX, &minicbor::to_vec(&outer).map_err(|_| ExportError::Wrong)?))
    }

    /// Opens what [`export`](Self::export) made. Takes about as long.
    ///
    /// # Errors
    /// [`ExportError::NotOne`] for other text, [`ExportError::Wrong`] for another passphrase.
    pub fn import(printed: &str, passphrase: &str) -> Result<Self, ExportError> {
        let not_one = |what: &str| ExportError::NotOne(what.into());
        let bytes = text::read(PREFIX, printed).map_err(|error| {
            not_one(match error {
                text::TextError::Prefix => "it begins otherwise",
                text::TextError::Digit(_) => "it has a character that never occurs in one",
                text::TextError::Checksum => "its checksum differs",
            })
        })?;
        let outer: Outer = frame::decode(&bytes).map_err(|error| ExportError::NotOne(error.to_string()))?;
        let key = stretch(passphrase, &outer.salt, outer.hardness)?;
        let cipher = XChaCha20Poly1305::new(key.as_slice().into());
        let aad = aad(outer.hardness, &outer.salt);
        let opened = cipher
            .decrypt(XNonce::from_slice(&outer.nonce), Payload { msg: &outer.sealed, aad: &aad })
            .map_err(|_| ExportError::Wrong)?;
        let opened = Zeroizing::new(opened);
        let inner: Inner = frame::decode(&opened).map_err(|error| ExportError::NotOne(error.to_string()))?;
        let pool = PoolId(Signer::from_seed(inner.seed).node());
        let paper = Paper::open(inner.paper, pool).map_err(|error| ExportError::NotOne(error.to_string()))?;
        Self::new(inner.seed, paper).ok_or_else(|| not_one("its key belongs to another pool"))
    }

    /// Reads the key back from its file.
    ///
    /// # Errors
    /// [`SignerError`] when the file is missing, damaged, or can be read by others.
    pub fn load(path: &Path, paper: Paper) -> Result<Option<Self>, SignerError> {
        let signer = Signer::load(path)?;
        let seed = std::fs::read(path).map_err(|source| SignerError::Io { path: path.to_owned(), source })?;
        let seed: [u8; 32] = seed.try_into().map_err(|_| SignerError::Damaged { path: path.to_owned() })?;
        if signer.node() != paper.author() {
            return Ok(None);
        }
        Ok(Self::new(seed, paper))
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({})", self.pool())
    }
}

fn store(seed: &[u8; 32], path: &Path) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

    let folder = path.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let fresh = path.with_extension("tmp");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(seed)?;
    file.sync_all()?;
    // A link does not replace a key that is there already.
    let linked = match std::fs::hard_link(&fresh, path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    std::fs::remove_file(&fresh)?;
    linked.and_then(|()| std::fs::File::open(folder)?.sync_all())
}

/// The key that a passphrase makes. What is read from others may not ask for more than 1 GiB or 16 rounds.
fn stretch(
    passphrase: &str,
    salt: &[u8; 16],
    hardness: Hardness,
) -> Result<Zeroizing<[u8; 32]>, ExportError> {
    let refuse = |what: String| ExportError::NotOne(what);
    if hardness.memory > 1 << 20 || hardness.rounds > 16 {
        return Err(refuse("it asks for too much work".into()));
    }
    let params =
        Params::new(hardness.memory, hardness.rounds, 1, Some(32)).map_err(|e| refuse(e.to_string()))?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut())
        .map_err(|error| refuse(error.to_string()))?;
    Ok(key)
}

fn aad(hardness: Hardness, salt: &[u8; 16]) -> Vec<u8> {
    [DOMAIN, &hardness.memory.to_be_bytes(), &hardness.rounds.to_be_bytes(), salt.as_slice()].concat()
}
