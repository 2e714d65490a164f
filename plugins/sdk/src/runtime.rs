//! What a component needs that imports nothing: memory, and an end for a panic.

#![allow(unsafe_code, reason = "an allocator hands out memory")]

use core::{
    alloc::{GlobalAlloc, Layout},
    arch::wasm32,
    cell::Cell,
    ptr,
};

/// Bytes of a page of WebAssembly's memory.
const PAGE: usize = 65_536;

/// Hands out memory from one end to the other, and starts over when nothing of it is in use.
///
/// A policy lives for one call, in which it reads its arguments, thinks and answers. So the fastest allocator there
/// is fits: to allocate is to add to a number. Memory is not given back one by one, but all at once, when the last
/// piece has been dropped; the newest piece can also shrink, grow and go on its own. An instance that is asked many
/// times keeps its size.
struct Arena {
    /// Where free memory begins; 0: before the first allocation.
    next: Cell<usize>,
    /// Where memory ends.
    end: Cell<usize>,
    /// Pieces in use.
    live: Cell<usize>,
}

// SAFETY: a component that imports nothing has one thread.
unsafe impl Sync for Arena {}

#[global_allocator]
static ARENA: Arena = Arena { next: Cell::new(0), end: Cell::new(0), live: Cell::new(0) };

unsafe extern "C" {
    /// The linker's symbol at which the memory begins that nothing else uses.
    static __heap_base: u8;
}

fn base() -> usize {
    // Only its address is taken; nothing is read there.
    (&raw const __heap_base).addr()
}

impl Arena {
    /// Makes sure that memory goes as far as `to`.
    fn reach(&self, to: usize) -> bool {
        if to <= self.end.get() {
            return true;
        }
        let have = wasm32::memory_size::<0>();
        let missing = to.div_ceil(PAGE).saturating_sub(have);
        if missing > 0 && wasm32::memory_grow::<0>(missing) == usize::MAX {
            return false;
        }
        self.end.set(to.div_ceil(PAGE).max(have).saturating_mul(PAGE));
        true
    }
}

// SAFETY: pieces do not overlap, since `next` only goes back over the newest piece or when there is none; alignment
// is rounded up to; what lies beyond memory's end is refused.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let from = if self.next.get() == 0 { base() } else { self.next.get() };
        let Some(start) = from.checked_next_multiple_of(layout.align()) else { return ptr::null_mut() };
        let Some(end) = start.checked_add(layout.size()) else { return ptr::null_mut() };
        if !self.reach(end) {
            return ptr::null_mut();
        }
        self.next.set(end);
        self.live.set(self.live.get().wrapping_add(1));
        ptr::with_exposed_provenance_mut(start)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let live = self.live.get().wrapping_sub(1);
        self.live.set(live);
        if live == 0 {
            self.next.set(base());
        } else if at.addr().wrapping_add(layout.size()) == self.next.get() {
            self.next.set(at.addr());
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if at.addr().wrapping_add(layout.size()) == self.next.get() {
            let Some(end) = at.addr().checked_add(size) else { return ptr::null_mut() };
            if !self.reach(end) {
                return ptr::null_mut();
            }
            self.next.set(end);
            return at;
        }
        if size <= layout.size() {
            return at;
        }
        // SAFETY: `size` is not zero and does not overflow when rounded up, as the caller promises.
        let wider = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: a new piece does not overlap the old one, which has `layout.size()` bytes.
        unsafe {
            let new = self.alloc(wider);
            if !new.is_null() {
                ptr::copy_nonoverlapping(at, new, layout.size());
                self.dealloc(at, layout);
            }
            new
        }
    }
}

/// Nobody could hear a message: the host sees that the call ended without an answer.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    wasm32::unreachable()
}
