//! Weight matrices on the device: segments of one format each, cut by rows to the device's buffer size.

use cubecl::bytes::Bytes;
use cubecl::server::Handle;

use super::CubeBackend;
use super::bits::Format;
use super::pack::{Packed, format_of, pack};
use crate::backend::{BackendError, RawMatrix};

/// Words that may wait in staging memory while weights are uploaded (256 MiB).
const MOST_STAGED: usize = 64 << 20;

/// Words on the device.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    pub(crate) handle: Handle,
    /// In words of 32 bits.
    pub(crate) len: usize,
}

/// Rows of one format in one set of buffers.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) format: Format,
    pub(crate) first: usize,
    pub(crate) rows: usize,
    pub(crate) quants: Words,
    pub(crate) high: Words,
    pub(crate) scales: Words,
}

/// A packed matrix on the device.
#[derive(Debug)]
pub struct CubeMatrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) shards: Vec<Shard>,
}

impl CubeMatrix {
    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of kernel launches that one product takes.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|s| (s.quants.len + s.high.len + s.scales.len) * 4).sum()
    }
}

/// Rows that are being gathered for one shard.
struct Pending {
    format: Format,
    first: usize,
    rows: usize,
    packed: Packed,
}

impl CubeBackend {
    pub(crate) fn upload_matrix(&mut self, parts: &[RawMatrix<'_>]) -> Result<CubeMatrix, BackendError> {
        let cols = parts.first().map_or(0, |p| p.cols);
        let mut matrix = CubeMatrix { rows: 0, cols, shards: Vec::new() };
        let mut pending: Option<Pending> = None;
        for part in parts {
            part.check()?;
            if part.cols != cols {
                return Err(BackendError::Shape {
                    op: "matrix",
                    expected: format!("{cols} columns in every part"),
                    got: format!("{} columns", part.cols),
                });
            }
            let format = format_of(part.dtype);
            let octets = cols.div_ceil(8);
            let row_words = octets * format.octet_words();
            let most = self.cap_words() / row_words;
            if most == 0 {
                return Err(BackendError::OutOfMemory {
                    backend: "gpu",
                    what: "one row of weights".to_owned(),
                    bytes: row_words as u64 * 4,
                    reason: format!("a buffer is at most {} bytes", self.cap_words() * 4),
                });
            }
            let row_bytes = part.dtype.bytes_for(cols).unwrap_or(0).max(1);
            let mut left = part.data;
            while !left.is_empty() {
                // A shard is closed when its format ends or it is full.
                if pending.as_ref().is_some_and(|p| p.format != format || p.rows >= most)
                    && let Some(full) = pending.take()
                {
                    self.flush(full, &mut matrix)?;
                }
                let at = pending.get_or_insert_with(|| Pending {
                    format,
                    first: matrix.rows,
                    rows: 0,
                    packed: Packed::default(),
                });
                let take = (most - at.rows).min(left.len() / row_bytes);
                let (now, rest) = left.split_at(take * row_bytes);
                let mut packed = pack(part.dtype, cols, now);
                if at.rows == 0 {
                    at.packed = packed;
                } else {
                    at.packed.quants.append(&mut packed.quants);
                    at.packed.high.append(&mut packed.high);
                    at.packed.scales.append(&mut packed.scales);
                }
                at.rows += take;
                matrix.rows += take;
                left = rest;
            }
        }
        if let Some(last) = pending {
            self.flush(last, &mut matrix)?;
        }
        if matrix.rows == 0 {
            return Err(BackendError::Shape {
                op: "matrix",
                expected: "at least one row".to_owned(),
                got: "none".to_owned(),
            });
        }
        Ok(matrix)
    }

    fn flush(&mut self, pending: Pending, matrix: &mut CubeMatrix) -> Result<(), BackendError> {
        let Pending { format, first, rows, packed } = pending;
        let quants = self.upload_words(packed.quants, "weights")?;
        let high = self.upload_words(packed.high, "weights")?;
        let scales = self.upload_words(packed.scales, "weights")?;
        matrix.shards.push(Shard { format, first, rows, quants, high, scales });
        Ok(())
    }

    /// Copies words to memory that stays theirs. Nothing becomes the shared placeholder.
    pub(crate) fn upload_words(&mut self, words: Vec<u32>, what: &str) -> Result<Words, BackendError> {
        if words.is_empty() {
            return Ok(Words { handle: self.nothing.clone(), len: 1 });
        }
        let len = words.len();
        let handle = self.persistent(|client| client.create(Bytes::from_elems(words)));
        self.allocated(&handle, what, len as u64 * 4)?;
        // Copies wait in staging memory until they are submitted and done.
        self.staged += len;
        if self.staged > MOST_STAGED {
            self.staged = 0;
            self.sync()?;
        }
        Ok(Words { handle, len })
    }

    /// Memory for `len` words, zero or not.
    pub(crate) fn reserve_words(&mut self, len: usize, what: &str) -> Result<Words, BackendError> {
        if len > self.limit_words {
            return Err(BackendError::OutOfMemory {
                backend: "gpu",
                what: what.to_owned(),
                bytes: len as u64 * 4,
                reason: format!("a buffer of this device is at most {} bytes", self.limit_words as u64 * 4),
            });
        }
        let handle = self.persistent(|client| client.empty(len.max(1) * 4));
        self.allocated(&handle, what, len as u64 * 4)?;
        Ok(Words { handle, len: len.max(1) })
    }
}
