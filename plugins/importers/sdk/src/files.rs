//! The files of `/in`: in a component through WASI, in tests those of a folder.
//!
//! Paths are relative to `/in` and have slashes.

use std::io::{self, BufReader, Read};

#[cfg(not(target_family = "wasm"))]
pub use native::root;

#[cfg(not(target_family = "wasm"))]
use native as on;
#[cfg(target_family = "wasm")]
use wasi as on;

/// Bytes read at once.
const PIECE: usize = 64 << 10;
/// Most bytes that [`read_to_string`] takes.
const TEXT: u64 = 16 << 20;

/// What stands in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// A file.
    File(String),
    /// A folder.
    Folder(String),
}

/// Opens a file to be read from its beginning.
///
/// # Errors
/// The file system's.
pub fn open(path: &str) -> io::Result<impl Read + use<>> {
    Ok(BufReader::with_capacity(PIECE, on::open(path)?))
}

/// A file as text, at most 16 MiB.
///
/// # Errors
/// The file system's, [`io::ErrorKind::InvalidData`] for what is not UTF-8, [`io::ErrorKind::FileTooLarge`].
pub fn read_to_string(path: &str) -> io::Result<String> {
    let mut text = String::new();
    on::open(path)?.take(TEXT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TEXT { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

/// What stands in a folder, sorted; links are left out. The empty path is `/in`.
///
/// # Errors
/// The file system's.
pub fn look(folder: &str) -> io::Result<Vec<Found>> {
    let mut found = on::look(folder)?;
    found.sort();
    Ok(found)
}

/// The names of the files in a folder, sorted.
///
/// # Errors
/// The file system's.
pub fn list(folder: &str) -> io::Result<Vec<String>> {
    let files = look(folder)?.into_iter().filter_map(|found| match found {
        Found::File(name) => Some(name),
        Found::Folder(_) => None,
    });
    Ok(files.collect())
}

#[cfg(target_family = "wasm")]
mod wasi {
    use std::io::{self, Read};

    use wasip2::{
        filesystem::{
            preopens::get_directories,
            types::{
                Descriptor, DescriptorFlags, DescriptorType, DirectoryEntry, ErrorCode, OpenFlags, PathFlags,
            },
        },
        io::streams::{InputStream, StreamError},
    };

    use super::Found;

    pub(super) struct Stream(InputStream);

    impl Read for Stream {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if buffer.is_empty() {
                return Ok(0);
            }
            match self.0.blocking_read(buffer.len() as u64) {
                Ok(bytes) => {
                    let count = bytes.len().min(buffer.len());
                    let (to, from) = (buffer.get_mut(..count), bytes.get(..count));
                    if let (Some(to), Some(from)) = (to, from) {
                        to.copy_from_slice(from);
                    }
                    Ok(count)
                }
                Err(StreamError::Closed) => Ok(0),
                Err(StreamError::LastOperationFailed(error)) => {
                    Err(io::Error::other(error.to_debug_string()))
                }
            }
        }
    }

    fn failed(code: ErrorCode) -> io::Error {
        let kind = match code {
            ErrorCode::NoEntry => io::ErrorKind::NotFound,
            ErrorCode::NotPermitted | ErrorCode::Access => io::ErrorKind::PermissionDenied,
            ErrorCode::IsDirectory => io::ErrorKind::IsADirectory,
            ErrorCode::NotDirectory => io::ErrorKind::NotADirectory,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, code.message())
    }

    fn top() -> io::Result<Descriptor> {
        let folders = get_directories();
        let found = folders.into_iter().find(|(_, path)| path == "/in").map(|(folder, _)| folder);
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no folder /in"))
    }

    fn at(path: &str, flags: OpenFlags) -> io::Result<Descriptor> {
        top()?.open_at(PathFlags::SYMLINK_FOLLOW, path, flags, DescriptorFlags::READ).map_err(failed)
    }

    pub(super) fn open(path: &str) -> io::Result<Stream> {
        at(path, OpenFlags::empty())?.read_via_stream(0).map(Stream).map_err(failed)
    }

    pub(super) fn look(folder: &str) -> io::Result<Vec<Found>> {
        let path = if folder.is_empty() { "." } else { folder };
        let stream = at(path, OpenFlags::DIRECTORY)?.read_directory().map_err(failed)?;
        let mut found = Vec::new();
        while let Some(DirectoryEntry { type_, name }) = stream.read_directory_entry().map_err(failed)? {
            match type_ {
                DescriptorType::RegularFile => found.push(Found::File(name)),
                DescriptorType::Directory => found.push(Found::Folder(name)),
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::{
        cell::RefCell,
        fs::{self, File},
        io,
        path::{Path, PathBuf},
    };

    use super::Found;

    thread_local! {
        static ROOT: RefCell<PathBuf> = RefCell::new(PathBuf::from("/in"));
    }

    /// Sets, for this thread, which folder `/in` is. Only in tests; a component has its own.
    pub fn root(folder: &Path) {
        ROOT.set(folder.to_owned());
    }

    fn place(path: &str) -> PathBuf {
        ROOT.with_borrow(|root| root.join(path))
    }

    pub(super) fn open(path: &str) -> io::Result<File> {
        File::open(place(path))
    }

    pub(super) fn look(folder: &str) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(place(folder))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_file() {
                found.push(Found::File(name));
            } else if kind.is_dir() {
                found.push(Found::Folder(name));
            }
        }
        Ok(found)
    }
}
