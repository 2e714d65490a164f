//! Compiled code on disk, so that a start does not compile everything again.
//!
//! Compiled code is trusted by the engine as the program itself is: whoever can change it runs what they like. It
//! therefore lies in a folder that only this user can enter, under the names of the component and of the engine's
//! version and settings, and each file carries a keyed hash over all of these. A file that was spoiled, exchanged or
//! made by a stranger is not even looked at; it is compiled anew instead.

use std::{
    fmt,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use wasmtime::component::Component;

use super::{PolicyHash, hash::hex};

/// Most files that are kept.
const MAX_FILES: usize = 64;
/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 64 << 20;
/// How a file begins.
const MAGIC: &[u8; 8] = b"plkcode1";
const MAC: usize = 32;
const ENDING: &str = "cwasm";

/// Where compiled code is kept, and the key that its hashes are made with.
#[derive(Clone)]
pub struct CacheConfig {
    /// The folder. Made if it is not there; only the user may enter it afterwards.
    pub dir: PathBuf,
    /// A secret of this node that others cannot know, for this purpose only.
    pub key: [u8; 32],
}

impl fmt::Debug for CacheConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheConfig").field("dir", &self.dir).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Cache {
    config: CacheConfig,
    /// The engine's version, settings and target.
    engine: [u8; 8],
}

impl Cache {
    pub(crate) fn open(config: &CacheConfig, engine: &wasmtime::Engine) -> io::Result<Self> {
        fs::create_dir_all(&config.dir)?;
        private(&config.dir)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { config: config.clone(), engine: hasher.finish().to_le_bytes() })
    }

    fn path(&self, hash: PolicyHash) -> PathBuf {
        self.config.dir.join(format!("{hash}-{}.{ENDING}", hex(&self.engine)))
    }

    fn mac(&self, hash: PolicyHash, code: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.config.key);
        hasher.update(MAGIC).update(hash.as_bytes()).update(&self.engine).update(code);
        hasher.finalize()
    }

    /// The compiled code of a component, if it is there and unspoiled.
    pub(crate) fn get(&self, engine: &wasmtime::Engine, hash: PolicyHash) -> Option<Component> {
        let path = self.path(hash);
        match self.read(&path, hash, engine) {
            Ok(component) => Some(component),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled code is not used and made anew");
                None
            }
        }
    }

    fn read(&self, path: &Path, hash: PolicyHash, engine: &wasmtime::Engine) -> io::Result<Component> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        let spoiled =
            || io::Error::new(io::ErrorKind::InvalidData, "it was spoiled, or made with another key");
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(spoiled)?;
        let (mac, code) = rest.split_first_chunk::<MAC>().ok_or_else(spoiled)?;
        // Compares in constant time.
        if self.mac(hash, code) != blake3::Hash::from_bytes(*mac) {
            return Err(spoiled());
        }
        #[allow(
            unsafe_code,
            reason = "the bytes in memory are, by a keyed hash, those that this node compiled"
        )]
        // SAFETY: `code` was made by `Component::serialize` of an engine with the same version and settings: the keyed
        // hash over it, the component's hash and the engine's was made by `put` with a key that only this node has.
        let component = unsafe { Component::deserialize(engine, code) };
        component.map_err(|error| io::Error::other(format!("{error:#}")))
    }

    /// Keeps the compiled code of a component.
    pub(crate) fn put(&self, hash: PolicyHash, code: &[u8]) -> io::Result<()> {
        let path = self.path(hash);
        let temporary = path.with_extension(format!("tmp{}", std::process::id()));
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(MAGIC)?;
            file.write_all(self.mac(hash, code).as_bytes())?;
            file.write_all(code)
        });
        let kept = written.and_then(|()| fs::rename(&temporary, &path));
        if kept.is_err() {
            // It may not be there at all.
            let _ = fs::remove_file(&temporary);
        }
        kept?;
        self.forget_oldest()
    }

    fn forget_oldest(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.config.dir)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|ending| ending == ENDING) {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(MAX_FILES);
        files.iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

#[cfg(unix)]
fn private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // Fails where the folder belongs to someone else, and that is what it should do.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// Elsewhere a folder in the user's own is private by its place.
#[cfg(not(unix))]
fn private(_dir: &Path) -> io::Result<()> {
    Ok(())
}
