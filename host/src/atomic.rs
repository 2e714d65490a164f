//! Files that appear whole or not at all, also when the power goes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// What a file is called, after its last dot, until it is whole.
pub(crate) const TEMPORARY: &str = "tmp";

/// Writes a file under a temporary name, makes it durable and gives it its name.
pub(crate) fn write(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = path.with_extension(TEMPORARY);
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

/// Where tests may end the world.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "fails in tests")]
pub(crate) fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use fault::step;

/// Lets tests end the world at any file operation.
#[cfg(test)]
pub(crate) mod fault {
    use std::cell::Cell;
    use std::io;

    thread_local!(static LEFT: Cell<Option<u32>> = const { Cell::new(None) });

    /// Lets `steps` operations of this thread succeed and all later ones fail; `None` lets all succeed.
    pub(crate) fn after(steps: Option<u32>) {
        LEFT.set(steps);
    }

    pub(crate) fn step() -> io::Result<()> {
        match LEFT.get() {
            Some(0) => Err(io::Error::other("crashed")),
            left => {
                LEFT.set(left.map(|n| n - 1));
                Ok(())
            }
        }
    }
}
