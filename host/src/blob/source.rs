//! What this machine has to offer.

use std::{fmt, io, sync::Arc};

use blake2::{Blake2b, Digest, digest::consts::U32};
use tokio::sync::watch;

use super::{BlobId, Item, Kind};
use crate::mesh::{
    protocol::blob::tree::{BLOCK, Hash},
    streams::BoxFuture,
};

/// Something that has files. Which member may copy which of them is not its business.
pub trait BlobSource: Send + Sync + fmt::Debug {
    /// Its files of a kind. Called often: it must be cheap, and leaves out ids that would take a while.
    fn list(&self, kind: Kind) -> BoxFuture<'_, Vec<Item>>;

    /// The file with exactly this name, with its id; where that is not known, computing it begins. `None`: there is
    /// no such file. Sources that know all ids from the start need not say more than they list.
    fn find<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Option<Finding>> {
        Box::pin(async move {
            let item = self.list(kind).await.into_iter().find(|item| item.name == name)?;
            Some(watch::channel(Found::Known(item)).1)
        })
    }

    /// The file with this id.
    fn open(&self, kind: Kind, id: BlobId) -> BoxFuture<'_, Option<Arc<dyn Blob>>>;
}

/// A file that can be read. Reading blocks the thread.
pub trait Blob: Send + Sync + fmt::Debug {
    /// Bytes.
    fn size(&self) -> u64;

    /// At most `count` block hashes from the one numbered `from`; none for a kind that is checked as a whole.
    fn hashes(&self, from: u64, count: usize) -> Vec<Hash>;

    /// The block numbered `index`.
    ///
    /// # Errors
    /// The system's, and [`io::ErrorKind::InvalidData`] when the file is not what it was any more.
    fn read(&self, index: u64) -> io::Result<Vec<u8>>;
}

/// A search for a file's id. When its sender goes away without a result, there will be none.
pub type Finding = watch::Receiver<Found>;

/// How far the search is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its bytes are being read.
    Hashing {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The file, with its id.
    Known(Item),
    /// It cannot be read.
    Failed(String),
}

/// A small file in memory.
#[derive(Clone, Debug)]
pub struct Bytes(pub Arc<[u8]>);

impl Bytes {
    /// What a component of a policy is named by: BLAKE2b-256 of its bytes.
    pub fn id(bytes: &[u8]) -> BlobId {
        BlobId(Blake2b::<U32>::digest(bytes).into())
    }
}

impl Blob for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn hashes(&self, _: u64, _: usize) -> Vec<Hash> {
        Vec::new()
    }

    fn read(&self, index: u64) -> io::Result<Vec<u8>> {
        let start = index.checked_mul(BLOCK).and_then(|start| usize::try_from(start).ok());
        let rest = start.and_then(|start| self.0.get(start..)).unwrap_or_default();
        Ok(rest.get(..BLOCK as usize).unwrap_or(rest).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_named_by_blake2b() {
        // RFC 7693's function with 32 bytes of output, as `b2sum -l 256` prints it.
        let id = Bytes::id(b"abc").to_string();
        assert_eq!(id, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
        let file = Bytes(vec![1; BLOCK as usize + 2].into());
        assert_eq!(file.size(), BLOCK + 2);
        assert_eq!([0, 1, 2, u64::MAX].map(|at| file.read(at).unwrap().len()), [BLOCK as usize, 2, 0, 0]);
    }
}
