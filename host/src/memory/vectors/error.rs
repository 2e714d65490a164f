//! What can go wrong with the store.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use potluck_kernels::scan::ScanError;

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another store has the directory open.
    #[error("the vector store in {} is in use", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A number of dimensions that a store cannot have.
    #[error("{dims} dimensions, where a multiple of 64 up to 1920 is expected")]
    Dims {
        /// The dimensions asked for.
        dims: usize,
    },
    /// The file was made for another model or number of dimensions.
    #[error("{} is for another model ({found} dimensions, {expected} expected)", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Dimensions of the file's vectors.
        found: usize,
        /// Dimensions of the store's vectors.
        expected: usize,
    },
    /// A vector that cannot be stored.
    #[error(
        "unit {unit}: a row of {len} values with scale {scale}, where {dims} values, not all 0, are expected"
    )]
    Row {
        /// The vector's unit.
        unit: u32,
        /// Values in the row.
        len: usize,
        /// Dimensions of the store.
        dims: usize,
        /// The row's scale.
        scale: f32,
    },
    /// A query with the wrong number of dimensions or without a direction.
    #[error("a query of {len} values, where {dims} finite values, not all 0, are expected")]
    Query {
        /// Values in the query.
        len: usize,
        /// Dimensions of the store.
        dims: usize,
    },
    /// There are segments but no manifest.
    #[error("{} is missing", path.display())]
    NoManifest {
        /// Where the manifest should be.
        path: PathBuf,
    },
    /// The manifest is damaged.
    #[error("{} is damaged: {what}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A segment is damaged as a whole.
    #[error("{} is damaged: {what}", path.display())]
    Segment {
        /// The segment's file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Rows of a segment are damaged; `Store::verify` finds all of them.
    #[error("{}: the rows of {} units are damaged", path.display(), units.len())]
    Rows {
        /// The segment's file.
        path: PathBuf,
        /// Units with damaged rows, the first ones if there are many.
        units: Vec<u32>,
    },
    /// A seal is under way, or another one than the caller believes.
    #[error("another seal is under way")]
    Sealing,
    /// A kernel refused its input.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

impl Error {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// A damaged file of a store.
#[derive(Debug)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The units between which some may be lost; none when the manifest itself was unusable.
    pub units: Option<RangeInclusive<u32>>,
    /// What is wrong.
    pub cause: Error,
}
