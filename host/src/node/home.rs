//! The node's folder: who owns it, the node's id, the owner's token, and where the node can be reached.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::{Signer, SignerError};

const LOCK: &str = "node.lock";
const KEY: &str = "node.key";
const TOKEN: &str = "admin-token";
const ADVERT: &str = "node.json";
/// No file read here is longer.
const LIMIT: u64 = 64 * 1024;

/// A folder that this process uses as a node.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    signer: Signer,
    node_id: String,
    admin_token: String,
    owned: bool,
    /// Released when dropped.
    _lock: File,
}

/// Where a running node can be reached; commands read it from the home folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advert {
    /// Its address for clients on this machine.
    pub url: String,
    /// Its process.
    pub pid: u32,
}

/// Why a home folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another node has it.
    #[error("the home folder {} is used by another node{who}; stop that one, or pass --home DIR for a second node", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
        /// The other node, where it is known.
        who: String,
    },
    /// The node's key cannot be used.
    #[error(transparent)]
    Key(#[from] SignerError),
    /// A file or folder in it cannot be made or read.
    #[error("{} cannot be used: {source}; check the folder's owner and permissions, or pass --home DIR", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Home {
    /// Takes the folder for this process alone, making it if need be.
    ///
    /// # Errors
    /// [`HomeError`]
    pub fn own(path: &Path) -> Result<Self, HomeError> {
        Self::open(path, true)
    }

    /// Uses the folder together with other short-lived nodes.
    ///
    /// # Errors
    /// [`HomeError`]
    pub fn share(path: &Path) -> Result<Self, HomeError> {
        Self::open(path, false)
    }

    fn open(path: &Path, owned: bool) -> Result<Self, HomeError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| HomeError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(failed(path))?;
        let path = fs::canonicalize(path).map_err(failed(path))?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .read(true)
            .open(&lock_path)
            .map_err(failed(&lock_path))?;
        let locked = if owned { lock.try_lock() } else { lock.try_lock_shared() };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let who = match Advert::read(&path) {
                    Some(advert) => format!(" (process {}, {})", advert.pid, advert.url),
                    None => " (a `potluck run` or a node that is starting)".into(),
                };
                return Err(HomeError::Taken { path, who });
            }
            Err(TryLockError::Error(source)) => return Err(HomeError::Io { path: lock_path, source }),
        }
        let signer = Signer::load_or_create(&path.join(KEY))?;
        let node_id = signer.node().to_string();
        let admin_token =
            kept(&path.join(TOKEN), || format!("pl-{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))
                .map_err(failed(&path.join(TOKEN)))?;
        Ok(Self { path, signer, node_id, admin_token, owned, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node's key.
    pub const fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The node's id, for `x-potluck-node`: its public key.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// The owner's token, with every right.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// Writes down where the node can be reached.
    ///
    /// # Errors
    /// [`HomeError::Io`]
    pub fn announce(&self, address: SocketAddr) -> Result<(), HomeError> {
        if !self.owned {
            return Ok(());
        }
        let advert = Advert { url: url_of(address), pid: std::process::id() };
        let text = serde_json::to_string(&advert).unwrap_or_default();
        let (path, fresh) = (self.path.join(ADVERT), self.path.join("node.json.new"));
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|source| HomeError::Io { path, source })
    }

    /// Takes that back.
    pub fn withdraw(&self) {
        if self.owned {
            let _ = fs::remove_file(self.path.join(ADVERT));
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl Advert {
    /// Where the node of this home folder says it can be reached.
    pub fn read(home: &Path) -> Option<Self> {
        serde_json::from_str(&read(&home.join(ADVERT)).ok()?).ok()
    }
}

/// Whether a node has a home folder.
pub fn is_used(home: &Path) -> bool {
    let lock = File::open(home.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The owner's token in a home folder, when this user may read it.
pub fn read_token(home: &Path) -> Option<String> {
    read(&home.join(TOKEN)).ok().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// The address under which clients on this machine reach a listener.
pub fn url_of(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// A word that is made once and then kept, readable by its owner only.
fn kept(path: &Path, make: impl Fn() -> String) -> io::Result<String> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(mut file) => {
            let word = make();
            writeln!(file, "{word}")?;
            Ok(word)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let word = read(path)?.trim().to_owned();
            if word.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty; delete it"));
            }
            Ok(word)
        }
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_has_one_owner_and_keeps_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let first = Home::own(dir.path()).unwrap();
        first.announce("127.0.0.1:5".parse().unwrap()).unwrap();
        let error = Home::own(dir.path()).unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:5") && error.contains("--home"), "{error}");
        assert!(Home::share(dir.path()).is_err() && is_used(dir.path()));
        let (id, token) = (first.node_id().to_owned(), first.admin_token().to_owned());
        assert_eq!(read_token(dir.path()).unwrap(), token);
        drop(first);
        assert!(!is_used(dir.path()));
        assert!(Advert::read(dir.path()).is_none());
        let (one, two) = (Home::share(dir.path()).unwrap(), Home::share(dir.path()).unwrap());
        assert_eq!((one.node_id(), two.admin_token()), (id.as_str(), token.as_str()));
    }

    #[cfg(unix)]
    #[test]
    fn the_token_is_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let _home = Home::own(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(TOKEN)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
