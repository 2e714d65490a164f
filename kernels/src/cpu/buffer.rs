//! Page-aligned memory for weights, activations and caches.

use std::fmt;

use memmap2::MmapMut;

use crate::backend::BackendError;

/// From this size on huge pages are asked for.
const HUGE: usize = 2 << 20;

/// Zeroed memory of its own pages, shared between threads by pointer.
pub(crate) struct Buffer {
    map: MmapMut,
    bytes: usize,
}

impl Buffer {
    /// `bytes` zero bytes, aligned to a page; `what` is for the error.
    pub(crate) fn zeroed(bytes: usize, what: &str) -> Result<Self, BackendError> {
        // The slack keeps 64-byte loads of a last partial vector inside the map.
        let length = bytes.saturating_add(128);
        let map = MmapMut::map_anon(length).map_err(|error| BackendError::OutOfMemory {
            backend: "cpu",
            what: what.to_owned(),
            bytes: bytes as u64,
            reason: error.to_string(),
        })?;
        #[cfg(target_os = "linux")]
        if length >= HUGE {
            // Only a hint: kernels without transparent huge pages refuse it.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { map, bytes })
    }

    /// Grows to at least `bytes`, without keeping the contents.
    pub(crate) fn reserve(&mut self, bytes: usize, what: &str) -> Result<(), BackendError> {
        if bytes > self.bytes {
            *self = Self::zeroed(bytes.max(self.bytes + self.bytes / 2), what)?;
        }
        Ok(())
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.map.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.map.as_mut_ptr()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// A pointer that may go to other threads; its user vouches that they write to different places.
pub(crate) struct Shared<T>(*mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: sharing the address is harmless; every dereference is an unsafe block that argues for itself.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(p: *mut T) -> Self {
        Self(p)
    }

    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}
