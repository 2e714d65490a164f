//! One direction of a stream of cells: its key, and how far it has come.

use std::io;

use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit, Nonce};

use super::{CELL, CellError, DATA, HEAD, TAG};

/// Bound into every cell, so that one of another protocol or version never opens.
const CONTEXT: &[u8] = b"potluck cell 1";

/// What a cell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Data, never none.
    Data = 0,
    /// The last one, with or without data.
    End = 1,
}

/// One direction.
pub(super) struct Half {
    cipher: ChaCha20Poly1305,
    next: u64,
}

impl Half {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self { cipher: ChaCha20Poly1305::new(key.into()), next: 0 }
    }

    /// The number of the next cell.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = [0; 12];
        if let Some(counter) = nonce.last_chunk_mut() {
            *counter = self.next.to_be_bytes();
        }
        nonce.into()
    }

    /// Appends a cell with `data` (at most [`DATA`] bytes) to `out`.
    pub(super) fn seal(&mut self, kind: Kind, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let length = u16::try_from(data.len()).ok().filter(|_| data.len() <= DATA);
        let length = length.ok_or_else(|| io::Error::other("more data than a cell holds"))?;
        let at = out.len();
        out.push(kind as u8);
        out.extend(length.to_be_bytes());
        out.extend_from_slice(data);
        out.resize(at + CELL - TAG, 0);
        let plain = out.get_mut(at..).unwrap_or_default();
        let sealed = self.cipher.encrypt_in_place_detached(&self.nonce(), CONTEXT, plain);
        let tag = sealed.map_err(|_| io::Error::other("a cell could not be sealed"))?;
        out.extend_from_slice(&tag);
        self.next += 1;
        Ok(())
    }

    /// Opens a cell where it lies; the data follows its first [`HEAD`] bytes.
    pub(super) fn open(&mut self, cell: &mut [u8]) -> Result<(Kind, usize), CellError> {
        let number = self.next;
        let altered = CellError::Altered { cell: number };
        let (plain, tag) = cell.split_last_chunk_mut::<TAG>().ok_or(altered)?;
        let opened = self.cipher.decrypt_in_place_detached(&self.nonce(), CONTEXT, plain, (&*tag).into());
        opened.map_err(|_| altered)?;
        self.next += 1;
        content(plain).ok_or(CellError::Malformed { cell: number })
    }
}

/// What an opened cell says of itself; `None` if that is not valid.
fn content(plain: &[u8]) -> Option<(Kind, usize)> {
    let ([kind, high, low], rest) = plain.split_first_chunk::<HEAD>()?;
    let kind = match kind {
        0 => Kind::Data,
        1 => Kind::End,
        _ => return None,
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let padding = rest.get(length..)?;
    padding.iter().all(|byte| *byte == 0).then_some((kind, length))
}

#[cfg(test)]
impl Half {
    /// Seals any content at all.
    pub(super) fn raw(&mut self, mut plain: Vec<u8>) -> Vec<u8> {
        let tag = self.cipher.encrypt_in_place_detached(&self.nonce(), CONTEXT, &mut plain).unwrap();
        self.next += 1;
        plain.extend_from_slice(&tag);
        plain
    }
}
