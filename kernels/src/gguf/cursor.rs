//! A reading position in untrusted bytes.

use super::GgufError;

/// Reads little-endian values; every read is checked against what is left.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.position as u64
    }

    pub(super) fn total(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Fails unless `needed` bytes are left.
    pub(super) fn need(&self, what: &'static str, needed: u64) -> Result<(), GgufError> {
        let available = (self.bytes.len() - self.position) as u64;
        if needed <= available {
            return Ok(());
        }
        Err(GgufError::Truncated { what, offset: self.position(), needed, available })
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, what: &'static str, n: u64) -> Result<&'a [u8], GgufError> {
        self.need(what, n)?;
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        let slice = self.bytes.get(self.position..self.position + n).unwrap_or_default();
        self.position += n;
        Ok(slice)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(what, N as u64)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A u64 that must not pass `limit`.
    pub(super) fn count(&mut self, what: &'static str, limit: u64) -> Result<u64, GgufError> {
        let value = self.u64(what)?;
        if value <= limit { Ok(value) } else { Err(GgufError::TooLarge { what, value, limit }) }
    }

    /// A length-prefixed byte string of at most `limit` bytes.
    pub(super) fn bytes(&mut self, what: &'static str, limit: u64) -> Result<&'a [u8], GgufError> {
        let len = self.count(what, limit)?;
        self.take(what, len)
    }

    /// A length-prefixed UTF-8 string of at most `limit` bytes.
    pub(super) fn string(&mut self, what: &'static str, limit: u64) -> Result<String, GgufError> {
        let offset = self.position();
        let bytes = self.bytes(what, limit)?;
        let text = std::str::from_utf8(bytes).map_err(|_| GgufError::Utf8 { what, offset })?;
        Ok(text.to_owned())
    }
}
