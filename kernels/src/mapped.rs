//! Files as memory.

use std::{fs::File, io, ops::Deref};

/// A file mapped for reading.
///
/// The owner promises that nobody shortens or rewrites the file while it is mapped: Potluck's files are written
/// once under another name and renamed into place, in a folder that one process holds a lock on.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps a file whole.
    ///
    /// # Errors
    /// The system's.
    pub fn map(file: &File) -> io::Result<Self> {
        // SAFETY: see the type: the file does not change under the map.
        #[allow(unsafe_code, reason = "a file can be mapped in no other way")]
        let map = unsafe { memmap2::Mmap::map(file) }?;
        Ok(Self(map))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
