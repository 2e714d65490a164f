//! A file that is not whole yet, and what is known of it: `ID.part` with the blocks in their places, `ID.tree` with the
//! block hashes, and `ID.have`, to which the number of each block that was written is appended.
//!
//! None of them is believed. After a break the blocks that `ID.have` names are read and checked again, so that it does
//! not matter in which order the three reached the disk, or whether they did.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    blob::{
        BlobId,
        trees::{Head, Stamp, Tree},
    },
    mesh::protocol::blob::tree::{self, BLOCK},
};

/// The unfinished copy of one file.
#[derive(Debug)]
pub(super) struct Partial {
    tree: Arc<Tree>,
    base: PathBuf,
    files: Mutex<Files>,
}

#[derive(Debug)]
struct Files {
    part: File,
    have: File,
    /// Nothing is written any more: a block that comes a second time must not touch a file that others read.
    whole: bool,
}

impl Partial {
    /// The hashes of an earlier try, if they are still there.
    pub(super) fn tree(base: &Path, id: BlobId, size: u64) -> Option<Tree> {
        let (tree, _) = Tree::read(&base.with_extension("tree"))?;
        (tree.id == id && tree.size == size).then_some(tree)
    }

    /// Opens the file, and says which blocks are there. Reads all that are said to be.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open(base: &Path, tree: Arc<Tree>) -> io::Result<(Self, Vec<bool>)> {
        let kept = base.with_extension("tree");
        tree.write(&kept, &Head::new(&tree, base, Stamp::default()))?;
        let mut part = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(base.with_extension("part"))?;
        let journal = base.with_extension("have");
        let said = match fs::read(&journal) {
            Ok(said) => said,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut have = vec![false; tree.hashes.len()];
        let mut buffer = Vec::with_capacity(BLOCK as usize);
        // The last number may have been cut off.
        let mut said: Vec<u32> =
            said.as_chunks::<4>().0.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect();
        said.sort_unstable();
        said.dedup();
        for index in said {
            let Some(place) = have.get_mut(index as usize) else { continue };
            buffer.clear();
            part.seek(SeekFrom::Start(u64::from(index) * BLOCK))?;
            (&mut part).take(tree::length(tree.size, index.into())).read_to_end(&mut buffer)?;
            *place = tree.fits(index.into(), &buffer);
        }
        if part.metadata()?.len() > tree.size {
            part.set_len(tree.size)?;
        }
        crate::atomic::write(&journal, |file| {
            let there = (0_u32..).zip(&have).filter(|(_, have)| **have);
            there.map(|(index, _)| index.to_be_bytes()).try_for_each(|number| file.write_all(&number))
        })?;
        let files =
            Mutex::new(Files { part, have: OpenOptions::new().append(true).open(&journal)?, whole: false });
        Ok((Self { tree, base: base.to_owned(), files }, have))
    }

    /// Keeps a block; false if it is not the one that belongs there.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn put(&self, index: u64, bytes: &[u8]) -> io::Result<bool> {
        if !self.tree.fits(index, bytes) {
            return Ok(false);
        }
        let number = u32::try_from(index).map_err(io::Error::other)?;
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.whole {
            return Ok(true);
        }
        files.part.seek(SeekFrom::Start(index.saturating_mul(BLOCK)))?;
        files.part.write_all(bytes)?;
        files.have.write_all(&number.to_be_bytes())?;
        Ok(true)
    }

    /// Makes the whole file durable; returns where it is.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn finish(&self) -> io::Result<PathBuf> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.whole = true;
        files.part.sync_all()?;
        for extension in ["have", "tree"] {
            let _ = fs::remove_file(self.base.with_extension(extension));
        }
        Ok(self.base.with_extension("part"))
    }
}

/// Throws away what there is of a copy.
pub(super) fn discard(base: &Path) {
    for extension in ["part", "have", "tree"] {
        let _ = fs::remove_file(base.with_extension(extension));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::tests::{file, tree_of};

    #[test]
    fn what_is_there_after_a_break_is_what_was_written_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("x");
        let bytes = file(1, 4 * BLOCK as usize + 77);
        let tree = Arc::new(tree_of(&bytes));
        let block =
            |index: usize| &bytes[index * BLOCK as usize..bytes.len().min((index + 1) * BLOCK as usize)];
        let (partial, have) = Partial::open(&base, tree.clone()).unwrap();
        assert_eq!(have, [false; 5]);
        assert!(partial.put(4, block(4)).unwrap() && partial.put(1, block(1)).unwrap());
        assert!(!partial.put(0, block(1)).unwrap() && !partial.put(9, block(1)).unwrap());
        assert!(!partial.put(2, &block(2)[1..]).unwrap());
        assert!(partial.put(3, block(3)).unwrap());
        drop(partial);
        // The journal says more than is true, and its end is torn.
        let mut journal = fs::read(base.with_extension("have")).unwrap();
        journal.extend([0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        fs::write(base.with_extension("have"), journal).unwrap();
        // One block was damaged on the disk.
        let mut part = File::options().write(true).open(base.with_extension("part")).unwrap();
        part.seek(SeekFrom::Start(3 * BLOCK)).unwrap();
        part.write_all(b"rot").unwrap();
        part.set_len(bytes.len() as u64 + 5).unwrap();
        drop(part);
        assert_eq!(Partial::tree(&base, tree.id, tree.size).unwrap(), *tree);
        assert_eq!(Partial::tree(&base, tree.id, tree.size + 1), None);
        let (partial, have) = Partial::open(&base, tree.clone()).unwrap();
        assert_eq!(have, [false, true, false, false, true]);
        for index in [0, 2, 3] {
            assert!(partial.put(index as u64, block(index)).unwrap());
        }
        let path = partial.finish().unwrap();
        assert!(fs::read(&path).unwrap() == bytes);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        discard(&base);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
