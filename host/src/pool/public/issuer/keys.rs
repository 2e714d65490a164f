//! The secret keys of an issuer: three for each epoch, in a file of their own.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use blind_rsa_signatures::{BlindSignature, DefaultRng, KeyPair, PSS, Randomized, Sha384};
use parity_scale_codec::{Decode, Encode};
use potluck_primitives::{Account, Bounded, UnixMillis};

use super::super::token::{
    Catalogue, Denomination, Epoch, MODULUS, Residue, RsaSecret, Schedule, TokenError,
};

/// Bits of a key.
const BITS: usize = MODULUS * 8;
/// Most bytes of a file of keys.
const MAX_FILE: u64 = 16 << 10;
/// What such a file is called after its epoch.
const EXTENSION: &str = "keys";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system refuses.
    #[error("{}: {source}; check the free space and the permissions of its folder", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not a file of keys.
    #[error("{} holds no keys of an issuer: restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Tokens were sold with keys that are not here.
    #[error(
        "the keys of epoch {epoch} are missing ({}), and tokens were sold with them: restore them from a backup; new ones would be evidence against this issuer",
        path.display()
    )]
    Lost {
        /// The epoch.
        epoch: u32,
        /// Where they should be.
        path: PathBuf,
    },
    /// A key could not be made.
    #[error("a new RSA key could not be made")]
    Make,
    /// They make no catalogue.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// The keys of one epoch.
pub(crate) struct EpochKeys {
    pub(crate) epoch: Epoch,
    secrets: [RsaSecret; 3],
}

impl std::fmt::Debug for EpochKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EpochKeys").field(&self.epoch.number).finish()
    }
}

impl EpochKeys {
    /// The blind signature of a message; the same one every time.
    ///
    /// # Errors
    /// [`TokenError::Forged`] for a number that is not below the modulus.
    pub(crate) fn sign(&self, value: Denomination, message: &Residue) -> Result<Residue, TokenError> {
        let [hundred, thousand, ten_thousand] = &self.secrets;
        let key = match value {
            Denomination::Hundred => hundred,
            Denomination::Thousand => thousand,
            Denomination::TenThousand => ten_thousand,
        };
        let BlindSignature(signed) = key.blind_sign(message).map_err(|_| TokenError::Forged)?;
        Residue::try_from(signed).map_err(|_| TokenError::Forged)
    }
}

/// All keys that are needed now.
#[derive(Debug)]
pub(crate) struct KeyRing {
    folder: PathBuf,
    schedule: Schedule,
    epochs: BTreeMap<u32, Arc<EpochKeys>>,
}

impl KeyRing {
    /// The keys in a folder; reads nothing yet.
    pub(crate) fn new(folder: PathBuf, schedule: Schedule) -> Self {
        Self { folder, schedule, epochs: BTreeMap::new() }
    }

    /// Reads or makes the keys that are needed at a time, and forgets those that are not; says whether anything
    /// changed. `sold` are the epochs whose tokens were sold: their keys are never made anew. Takes seconds.
    pub(crate) fn turn(&mut self, now: UnixMillis, sold: &[u32]) -> Result<bool, KeyError> {
        let present = self.schedule.at(now);
        let needed = [present.checked_sub(1), Some(present), present.checked_add(1)];
        let mut changed = false;
        for number in needed.into_iter().flatten() {
            if self.epochs.contains_key(&number) {
                continue;
            }
            let path = self.path(number);
            let found = match load(&path)? {
                Some(secrets) => secrets,
                None if sold.contains(&number) => return Err(KeyError::Lost { epoch: number, path }),
                // What nobody bought needs no keys any more.
                None if number < present => continue,
                None => make(&path)?,
            };
            let keys = self.keys(number, found, &path)?;
            self.epochs.insert(number, Arc::new(keys));
            changed = true;
        }
        let ended: Vec<u32> =
            self.epochs.keys().copied().filter(|number| self.schedule.ends(*number) <= now).collect();
        for number in ended {
            self.epochs.remove(&number);
            let _ = fs::remove_file(self.path(number));
            changed = true;
        }
        Ok(changed)
    }

    /// The keys of an epoch.
    pub(crate) fn epoch(&self, number: u32) -> Option<Arc<EpochKeys>> {
        self.epochs.get(&number).cloned()
    }

    /// The public halves.
    pub(crate) fn catalogue(&self, issuer: Account) -> Result<Catalogue, TokenError> {
        Catalogue::new(issuer, self.epochs.values().map(|keys| keys.epoch.clone()).collect())
    }

    fn keys(&self, number: u32, secrets: [RsaSecret; 3], path: &Path) -> Result<EpochKeys, KeyError> {
        let damaged = || KeyError::Damaged { path: path.to_owned() };
        let modulus = |key: &RsaSecret| Residue::try_from(key.components().n()).map_err(|_| damaged());
        let [a, b, c] = &secrets;
        let epoch = Epoch {
            number,
            opens: self.schedule.opens(number),
            closes: self.schedule.closes(number),
            ends: self.schedule.ends(number),
            keys: [modulus(a)?, modulus(b)?, modulus(c)?],
        };
        Ok(EpochKeys { epoch, secrets })
    }

    fn path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("epoch-{number}.{EXTENSION}"))
    }
}

/// What a file holds: each key as PKCS#8.
type Held = Bounded<Vec<u8>, 3>;

fn load(path: &Path) -> Result<Option<[RsaSecret; 3]>, KeyError> {
    let damaged = || KeyError::Damaged { path: path.to_owned() };
    let bytes = match fs::metadata(path) {
        Ok(found) if found.len() <= MAX_FILE => fs::read(path),
        Ok(_) => return Err(damaged()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    };
    let bytes = bytes.map_err(|source| KeyError::Io { path: path.to_owned(), source })?;
    let held = Held::decode(&mut bytes.as_slice()).map_err(|_| damaged())?;
    let keys: Result<Vec<RsaSecret>, _> = held.iter().map(|der| RsaSecret::from_der(der)).collect();
    keys.map_err(|_| damaged())?.try_into().map(Some).map_err(|_| damaged())
}

fn make(path: &Path) -> Result<[RsaSecret; 3], KeyError> {
    let one = || KeyPair::<Sha384, PSS, Randomized>::generate(&mut DefaultRng, BITS).map(|pair| pair.sk);
    let fresh = || one().map_err(|_| KeyError::Make);
    let keys = [fresh()?, fresh()?, fresh()?];
    save(path, &keys).map_err(|source| KeyError::Io { path: path.to_owned(), source })?;
    Ok(keys)
}

/// Writes keys; they are on disk before anything is signed with them.
pub(crate) fn save(path: &Path, keys: &[RsaSecret; 3]) -> io::Result<()> {
    let ders: Result<Vec<_>, _> = keys.iter().map(|key| key.to_der()).collect();
    let ders = ders.map_err(|error| io::Error::other(error.to_string()))?;
    let held = Held::new(ders).map_err(|error| io::Error::other(error.to_string()))?;
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    crate::atomic::write(path, |out| {
        out.get_ref().set_permissions(fs::Permissions::from_mode(0o600))?;
        out.write_all(&held.encode())
    })
}
