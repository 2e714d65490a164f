//! The key of a machine: what it signs its entries with.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use super::{NodeId, Signature};

/// The signing key of this machine. Its public half is the machine's [`NodeId`].
#[derive(Clone)]
pub struct Signer(SigningKey);

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The file cannot be read or written.
    #[error(
        "the key of this machine at {} cannot be used: check that the folder exists and can be \
         written",
        path.display()
    )]
    Io {
        /// The file of the key.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file has not the length of a key.
    #[error(
        "the key of this machine at {} is damaged (it should have 32 bytes): restore it from a backup, or move it \
         away to become a new machine",
        path.display()
    )]
    Damaged {
        /// The file of the key.
        path: PathBuf,
    },
    /// Others can read the file.
    #[error(
        "the key of this machine at {} can be read by others (mode {mode:03o}): run chmod 600 on \
         it",
        path.display()
    )]
    Exposed {
        /// The file of the key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system gives no randomness.
    #[error("the system gives no random bytes for a new key: {0}")]
    Random(getrandom::Error),
}

impl Signer {
    /// The key of a seed of 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The key kept in the file at `path`; makes one, readable by its owner only, if there is none. The file
    /// appears complete or not at all, and when two programs make one at once both get the same.
    ///
    /// # Errors
    /// [`SignerError`] if the file cannot be used, is damaged, or can be read by others.
    pub fn load_or_create(path: &Path) -> Result<Self, SignerError> {
        let io = |source| SignerError::Io { path: path.to_owned(), source };
        match Self::load(path) {
            Err(SignerError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(SignerError::Random)?;
        create(path, &seed).map_err(io)?;
        // Whoever was first: theirs is the key.
        Self::load(path)
    }

    /// The key kept in the file at `path`.
    ///
    /// # Errors
    /// [`SignerError`] if the file is missing, is damaged, or can be read by others.
    pub fn load(path: &Path) -> Result<Self, SignerError> {
        let io = |source| SignerError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SignerError::Exposed { path: path.to_owned(), mode });
        }
        let mut bytes = Vec::with_capacity(33);
        file.take(33).read_to_end(&mut bytes).map_err(io)?;
        let seed = bytes.try_into().map_err(|_| SignerError::Damaged { path: path.to_owned() })?;
        Ok(Self::from_seed(seed))
    }

    /// The seed the key was made of: whoever has it is this machine.
    pub(crate) fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The machine this key speaks for.
    pub fn node(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// The signature of `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.node())
    }
}

/// Whether `node` signed `message`.
pub(super) fn signed_by(node: NodeId, message: &[u8], signature: Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    VerifyingKey::from_bytes(&node.0).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

/// Writes `seed` to a new file at `path`, atomically; leaves alone what is there already.
fn create(path: &Path, seed: &[u8; 32]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.tmp", uuid::Uuid::now_v7()));
    let fresh = folder.join(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let written = file.write_all(seed).and_then(|()| file.sync_all());
    // A link, unlike a rename, does not replace a key that appeared meanwhile.
    let linked = written.and_then(|()| match fs::hard_link(&fresh, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    fs::remove_file(&fresh)?;
    linked.and_then(|()| File::open(folder)?.sync_all())
}
