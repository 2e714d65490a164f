//! A stream of frames whose both directions are served by one task.
//!
//! Reading and writing here can be given up at any await and taken up again, so that a task may wait for a frame,
//! for room to write and for a clock all at once.

use std::fmt;

use minicbor::{Decode, Encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::mesh::{
    frame::{self, FrameError},
    streams::Stream,
};

/// Bytes read at a time.
const CHUNK: usize = 16 << 10;
/// A buffer of more bytes is given back once it is empty.
const KEPT: usize = 64 << 10;

/// The reading half.
pub struct Reader {
    stream: ReadHalf<Stream>,
    cap: usize,
    chunk: Box<[u8]>,
    /// What has arrived and is not read yet.
    have: Vec<u8>,
}

/// The writing half.
pub struct Writer {
    stream: WriteHalf<Stream>,
    cap: usize,
    /// What is to be written.
    rest: Vec<u8>,
    /// How much of it is written.
    at: usize,
    flushed: bool,
}

/// Both halves of a stream; `cap` bytes are the longest frame that is read, or written, at first.
pub fn split(stream: Stream, cap: usize) -> (Reader, Writer) {
    let (read, write) = tokio::io::split(stream);
    let reader = Reader { stream: read, cap, chunk: vec![0; CHUNK].into(), have: Vec::new() };
    (reader, Writer { stream: write, cap, rest: Vec::new(), at: 0, flushed: true })
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("cap", &self.cap).finish_non_exhaustive()
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("cap", &self.cap).finish_non_exhaustive()
    }
}

impl Reader {
    /// Changes the longest frame that is read, in bytes.
    pub fn cap(&mut self, cap: usize) {
        self.cap = cap;
    }

    /// The next message; `None` when the stream ended before it. May be given up and called again.
    ///
    /// # Errors
    /// Any [`FrameError`].
    pub async fn next<T: for<'b> Decode<'b, ()>>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match self.stream.read(&mut self.chunk).await? {
                0 if self.have.is_empty() => return Ok(None),
                0 => return Err(FrameError::Ended),
                // Grows with what arrives: a length alone reserves nothing.
                n => self.have.extend_from_slice(self.chunk.get(..n).unwrap_or_default()),
            }
        }
    }

    /// A message that is there as a whole.
    fn take<T: for<'b> Decode<'b, ()>>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(prefix) = self.have.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > self.cap {
            return Err(FrameError::TooLong { length, cap: self.cap });
        }
        let Some(bytes) = self.have.get(4..4 + length) else { return Ok(None) };
        let message = frame::decode(bytes)?;
        self.have.drain(..4 + length);
        if self.have.is_empty() && self.have.capacity() > KEPT {
            self.have = Vec::new();
        }
        Ok(Some(message))
    }
}

impl Writer {
    /// Whether all that was put in is on its way.
    pub fn is_clear(&self) -> bool {
        self.flushed
    }

    /// Changes the longest frame that is written, in bytes.
    pub fn cap(&mut self, cap: usize) {
        self.cap = cap;
    }

    /// Puts a message in; [`Self::drive`] writes it. Whoever puts in more without waiting for
    /// [`Self::is_clear`] gives up the bound on what waits.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] for a message that the other side would refuse.
    pub fn put<T: Encode<()>>(&mut self, message: &T) -> Result<(), FrameError> {
        let start = self.rest.len();
        self.rest.extend_from_slice(&[0; 4]);
        let encoded = minicbor::encode(message, &mut self.rest);
        let length = self.rest.len() - start - 4;
        let prefix = u32::try_from(length).ok().filter(|_| encoded.is_ok() && length <= self.cap);
        let Some(prefix) = prefix else {
            self.rest.truncate(start);
            return Err(FrameError::TooLong { length, cap: self.cap });
        };
        if let Some(place) = self.rest.get_mut(start..start + 4) {
            place.copy_from_slice(&prefix.to_be_bytes());
        }
        self.flushed = false;
        Ok(())
    }

    /// Writes what was put in. May be given up and called again.
    ///
    /// # Errors
    /// [`FrameError::Io`].
    pub async fn drive(&mut self) -> Result<(), FrameError> {
        while let Some(rest) = self.rest.get(self.at..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest).await? {
                0 => return Err(FrameError::Io(std::io::ErrorKind::WriteZero.into())),
                n => self.at += n,
            }
        }
        self.rest.clear();
        self.at = 0;
        if self.rest.capacity() > KEPT {
            self.rest = Vec::new();
        }
        self.stream.flush().await?;
        self.flushed = true;
        Ok(())
    }

    /// Puts a message in and writes it.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] or [`FrameError::Io`].
    pub async fn send<T: Encode<()>>(&mut self, message: &T) -> Result<(), FrameError> {
        self.put(message)?;
        self.drive().await
    }

    /// Writes what was put in and says that no more will come.
    ///
    /// # Errors
    /// [`FrameError::Io`].
    pub async fn finish(&mut self) -> Result<(), FrameError> {
        self.drive().await?;
        Ok(self.stream.shutdown().await?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_frame_survives_being_given_up_at_any_byte() {
        let (a, b) = tokio::io::duplex(3);
        let (_, mut out) = split(Box::new(a), 100);
        let (mut into, _) = split(Box::new(b), 100);
        for word in ["one", "a longer word than the stream holds"] {
            out.put(&word.to_owned()).unwrap();
            let mut got = None;
            while got.is_none() {
                tokio::select! {
                    biased;
                    done = out.drive(), if !out.is_clear() => done.unwrap(),
                    next = into.next::<String>() => got = next.unwrap(),
                    () = tokio::time::sleep(Duration::from_millis(1)) => {}
                }
            }
            assert_eq!(got.unwrap(), word);
        }
        assert!(matches!(out.put(&"x".repeat(101)), Err(FrameError::TooLong { length: 103, cap: 100 })));
        assert!(out.is_clear());
        out.finish().await.unwrap();
        assert!(into.next::<String>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_length_that_is_too_long_is_refused_before_it_is_read() {
        let (mut a, b) = tokio::io::duplex(64);
        let (mut into, _) = split(Box::new(b), 10);
        tokio::io::AsyncWriteExt::write_all(&mut a, &[0, 0, 0, 11]).await.unwrap();
        assert!(matches!(into.next::<u8>().await, Err(FrameError::TooLong { length: 11, cap: 10 })));
    }
}
