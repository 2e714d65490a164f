//! Frames: how messages lie on a stream. A length of four bytes (big endian), then a CBOR message of that length.

use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Why a frame cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Io(#[from] std::io::Error),
    /// Longer than its protocol allows.
    #[error("a frame of {length} bytes, where at most {cap} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The most allowed.
        cap: usize,
    },
    /// Not the message that belongs here.
    #[error("a frame that is no such message: {0}")]
    Malformed(String),
    /// The stream ended where a frame should be.
    #[error("the stream ended before the next frame")]
    Ended,
}

/// Reads the bytes of a frame of at most `cap` bytes; `None` when the stream ended before it. Not cancel-safe.
///
/// # Errors
/// [`FrameError::Io`], [`FrameError::TooLong`], or [`FrameError::Ended`] in the middle of a frame.
pub async fn read_bytes<S: AsyncRead + Unpin>(
    stream: &mut S,
    cap: usize,
) -> Result<Option<Vec<u8>>, FrameError> {
    let mut length = [0_u8; 4];
    let mut have = 0;
    while let Some(rest) = length.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(FrameError::Ended),
            n => have += n,
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > cap {
        return Err(FrameError::TooLong { length, cap });
    }
    // Grows with what arrives: a length alone reserves nothing.
    let mut bytes = Vec::new();
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length { Err(FrameError::Ended) } else { Ok(Some(bytes)) }
}

/// Reads a message of at most `cap` bytes; `None` when the stream ended before it. Not cancel-safe.
///
/// # Errors
/// Any [`FrameError`].
pub async fn read<T, S>(stream: &mut S, cap: usize) -> Result<Option<T>, FrameError>
where
    T: for<'b> Decode<'b, ()>,
    S: AsyncRead + Unpin,
{
    let Some(bytes) = read_bytes(stream, cap).await? else { return Ok(None) };
    decode(&bytes).map(Some)
}

/// Reads a message that must be there.
///
/// # Errors
/// Any [`FrameError`]; [`FrameError::Ended`] when the stream ended before it.
pub async fn expect<T, S>(stream: &mut S, cap: usize) -> Result<T, FrameError>
where
    T: for<'b> Decode<'b, ()>,
    S: AsyncRead + Unpin,
{
    read(stream, cap).await?.ok_or(FrameError::Ended)
}

/// The message that `bytes` are; nothing may follow it.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, FrameError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let message = decoder.decode().map_err(|error| FrameError::Malformed(error.to_string()))?;
    if decoder.position() == bytes.len() {
        Ok(message)
    } else {
        Err(FrameError::Malformed("bytes follow the message".into()))
    }
}

/// Writes a frame and flushes it.
///
/// # Errors
/// [`FrameError::Io`], or [`FrameError::TooLong`] for a message that the other side would refuse.
pub async fn write<T, S>(stream: &mut S, message: &T, cap: usize) -> Result<(), FrameError>
where
    T: Encode<()>,
    S: AsyncWrite + Unpin,
{
    // One buffer and one write, so that a frame is one packet where it fits.
    let mut bytes = vec![0; 4];
    minicbor::encode(message, &mut bytes).map_err(|error| FrameError::Malformed(error.to_string()))?;
    let length = bytes.len() - 4;
    let prefix = u32::try_from(length).ok().filter(|_| length <= cap);
    let prefix = prefix.ok_or(FrameError::TooLong { length, cap })?;
    bytes.splice(..4, prefix.to_be_bytes());
    stream.write_all(&bytes).await?;
    Ok(stream.flush().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_as_they_were() {
        let (mut a, mut b) = tokio::io::duplex(64);
        write(&mut a, &(7_u8, "x".to_owned()), 16).await.unwrap();
        assert_eq!(expect::<(u8, String), _>(&mut b, 16).await.unwrap(), (7, "x".to_owned()));
        assert!(matches!(
            write(&mut a, &"y".repeat(20), 16).await,
            Err(FrameError::TooLong { length: 21, cap: 16 })
        ));
        a.write_all(&[0, 0, 0, 2, 1]).await.unwrap();
        drop(a);
        assert!(matches!(read::<u8, _>(&mut b, 16).await, Err(FrameError::Ended)));
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        for (bytes, says) in [
            (vec![0xff, 0, 0, 0], "at most"),
            (vec![0, 0, 0, 2, 1, 1], "follow"),
            (vec![0, 0, 0, 1, 0x61], "no such message"),
            (vec![0, 0], "ended"),
        ] {
            let error = read::<u8, _>(&mut bytes.as_slice(), 1024).await.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(read::<u8, _>(&mut [].as_slice(), 9).await.unwrap().is_none());
    }
}
