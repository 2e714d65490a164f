//! Files read through the page cache without a copy.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// A file's bytes, mapped read-only for as long as the value lives.
///
/// The mapping shows the file as it is, so it rests on one assumption: **nobody changes or truncates a mapped
/// file**. Its one writer finishes a file before it maps it and from then on only unlinks it (an unlinked
/// file's bytes stay mapped). A foreign process that truncates the file makes reads of the lost pages end the
/// process with `SIGBUS`; one that overwrites bytes makes them change under the reader.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the whole file at `path`.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only and, by the assumption above, nobody writes to the file while it lives.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(map))
    }

    /// Tells the system that the pages are not needed for now, so that they do not count as resident.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn release_pages(&self) -> io::Result<()> {
        #[cfg(unix)]
        // SAFETY: the map is a read-only view of a file; dropped pages are read again from it when touched.
        unsafe {
            self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed)?;
        }
        Ok(())
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A file's bytes, mapped or in memory.
#[derive(Debug)]
pub(crate) enum Bytes {
    Mapped(MappedFile),
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}
