//! The paged cache of keys and values, and how kernels reach into a layer of it.

use crate::backend::{BackendError, CacheShape, PAGE, PageId};
use crate::cpu::buffer::{Buffer, Shared};
use crate::cpu::isa::{Isa, LANES};

/// Keys and values of all layers as f16.
#[derive(Debug)]
pub struct CpuCache {
    pub(crate) shape: CacheShape,
    keys: Buffer,
    values: Buffer,
}

/// Channels rounded up to whole vectors.
pub(crate) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

impl CpuCache {
    pub(crate) fn new(shape: &CacheShape) -> Result<Self, BackendError> {
        let elements = |dim: usize| {
            [shape.pages, shape.kv_heads, dim, PAGE, 2]
                .into_iter()
                .try_fold(shape.layers, usize::checked_mul)
                .filter(|bytes| *bytes <= usize::MAX / 4)
                .unwrap_or(usize::MAX / 4)
        };
        Ok(Self {
            shape: shape.clone(),
            keys: Buffer::zeroed(elements(shape.head_dim), "the cache of keys")?,
            values: Buffer::zeroed(elements(padded(shape.head_dim)), "the cache of values")?,
        })
    }

    /// Copies one page to another in all layers.
    pub(crate) fn copy_page(&mut self, from: PageId, to: PageId) -> Result<(), BackendError> {
        let pages = self.shape.pages;
        let (from, to) = (from as usize, to as usize);
        if from >= pages || to >= pages {
            return Err(BackendError::Shape {
                op: "copy_page",
                expected: format!("pages below {pages}"),
                got: format!("{from} and {to}"),
            });
        }
        if from == to {
            return Ok(());
        }
        let key_page = self.shape.kv_heads * self.shape.head_dim * PAGE;
        let value_page = self.shape.kv_heads * padded(self.shape.head_dim) * PAGE;
        for layer in 0..self.shape.layers {
            for (buffer, page) in [(&mut self.keys, key_page), (&mut self.values, value_page)] {
                let base = buffer.as_mut_ptr().cast::<u16>();
                // SAFETY: both pages are below `pages`, differ, and have `page` elements in this layer.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        base.add((layer * pages + from) * page),
                        base.add((layer * pages + to) * page),
                        page,
                    );
                }
            }
        }
        Ok(())
    }

    /// The pages of one layer.
    pub(crate) fn layer(&self, layer: usize) -> Pages<u16> {
        let shape = &self.shape;
        let key_page = shape.kv_heads * shape.head_dim * PAGE;
        let value_page = shape.kv_heads * padded(shape.head_dim) * PAGE;
        Pages {
            keys: Shared::new(
                self.keys.as_ptr().cast::<u16>().wrapping_add(layer * shape.pages * key_page).cast_mut(),
            ),
            values: Shared::new(
                self.values.as_ptr().cast::<u16>().wrapping_add(layer * shape.pages * value_page).cast_mut(),
            ),
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
        }
    }
}

/// Keys and values of one layer.
#[derive(Clone, Copy)]
pub(crate) struct Pages<E> {
    pub(super) keys: Shared<E>,
    pub(super) values: Shared<E>,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl<E> Pages<E> {
    /// `[head_dim][32]` of one page and head.
    pub(super) fn key(&self, page: usize, head: usize) -> *mut E {
        self.keys.get().wrapping_add((page * self.kv_heads + head) * self.head_dim * PAGE)
    }

    /// `[32][padded head_dim]` of one page and head.
    pub(super) fn value(&self, page: usize, head: usize) -> *mut E {
        self.values.get().wrapping_add((page * self.kv_heads + head) * padded(self.head_dim) * PAGE)
    }
}

/// What keys and values are kept as.
pub(crate) trait Stored: Copy + 'static {
    /// # Safety
    /// 16 values are readable at `p`.
    unsafe fn load<S: Isa>(s: S, p: *const Self) -> S::F;
}

impl Stored for u16 {
    #[inline(always)]
    unsafe fn load<S: Isa>(s: S, p: *const Self) -> S::F {
        // SAFETY: the caller vouches for 16 values.
        unsafe { s.load_f16(p) }
    }
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<S: Isa>(s: S, p: *const Self) -> S::F {
        // SAFETY: the caller vouches for 16 values.
        unsafe { s.load(p) }
    }
}
