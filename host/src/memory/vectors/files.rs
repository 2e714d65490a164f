//! The files of a store: its lock, and what is left over in its folder.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use super::error::Error;
use super::segment;

#[cfg(test)]
pub(super) use crate::atomic::fault;
pub(super) use crate::atomic::step;
use crate::atomic::{self, TEMPORARY};

/// Takes the directory for this process, for as long as the returned file is open.
pub(super) fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| Error::io(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::io(&path, source)),
    }
}

/// Writes a file that appears whole or not at all.
pub(super) fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), Error> {
    atomic::write(path, fill).map_err(|source| Error::io(path, source))
}

/// Deletes the segments and temporary files in `dir` except the segments `named`. Foreign files stay.
pub(super) fn sweep(dir: &Path, named: &[u64]) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(|source| Error::io(dir, source))? {
        let path = entry.map_err(|source| Error::io(dir, source))?.path();
        let temporary = path.extension() == Some(OsStr::new(TEMPORARY));
        if temporary || segment::id(&path).is_some_and(|id| !named.contains(&id)) {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Whether `dir` has a segment file.
pub(super) fn any_segment(dir: &Path) -> Result<bool, Error> {
    let mut entries = fs::read_dir(dir).map_err(|source| Error::io(dir, source))?;
    Ok(entries.any(|entry| entry.is_ok_and(|entry| segment::id(&entry.path()).is_some())))
}

/// Deletes the file unless it is gone already.
pub(super) fn remove_if_there(path: &PathBuf) -> Result<(), Error> {
    match step().and_then(|()| fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}
