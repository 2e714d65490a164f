//! Files that appear whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::Error;
use super::segment;

const TEMPORARY: &str = "tmp";

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

/// Writes a file under a temporary name, makes it durable and gives it its name.
pub(super) fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), Error> {
    let temporary = path.with_extension(TEMPORARY);
    let write = || {
        step()?;
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
        fill(&mut out)?;
        out.flush()?;
        step()?;
        out.get_ref().sync_all()?;
        step()?;
        fs::rename(&temporary, path)?;
        step()?;
        sync_dir(path)
    };
    write().map_err(|source| Error::io(path, source))
}

#[cfg(unix)]
fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Elsewhere a directory cannot be opened as a file; the rename is as durable as the system makes it.
#[cfg(not(unix))]
fn sync_dir(_path: &Path) -> io::Result<()> {
    Ok(())
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

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "fails in tests")]
pub(super) fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use fault::step;

/// Lets tests end the world at any file operation.
#[cfg(test)]
pub(super) mod fault {
    use std::cell::Cell;
    use std::io;

    thread_local!(static LEFT: Cell<Option<u32>> = const { Cell::new(None) });

    /// Lets `steps` operations of this thread succeed and all later ones fail; `None` lets all succeed.
    pub(in super::super) fn after(steps: Option<u32>) {
        LEFT.set(steps);
    }

    pub(in super::super) fn step() -> io::Result<()> {
        match LEFT.get() {
            Some(0) => Err(io::Error::other("crashed")),
            left => {
                LEFT.set(left.map(|n| n - 1));
                Ok(())
            }
        }
    }
}
