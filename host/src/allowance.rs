//! A limit on the memory that one thread may take, for work whose size its input decides.
//!
//! A chat template can double a string with every instruction, and no limit on instructions stops that before the
//! machine's memory is gone. Allocation cannot be refused either: the library that renders would abort the whole
//! program. So the program's allocator counts what a thread inside [`within`] holds; when that passes the
//! allowance, the thread is stopped for good where it stands, inside its allocation, and its owner is told. The
//! thread and what it held until then are lost, which the allowance bounds; everything else goes on.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering},
};

thread_local! {
    /// Bytes this thread may still take; `None` outside [`within`].
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    /// Whom to tell when nothing is left.
    static SPENT: Cell<Option<&'static AtomicBool>> = const { Cell::new(None) };
}

/// The system's allocator with the allowance of the calling thread taken into account.
#[derive(Debug)]
pub struct Accounted;

// SAFETY: every call goes to `System` with the arguments it came with; what happens before it touches thread-local
// cells that need no allocation and no destructor, and never unwinds.
#[allow(unsafe_code, reason = "an allocator cannot be had without it")]
unsafe impl GlobalAlloc for Accounted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise about `layout` is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        give(layout.size());
        // SAFETY: the caller's promise about `ptr` and `layout` is the one that `System` asks for.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        take(new_size.saturating_sub(layout.size()));
        give(layout.size().saturating_sub(new_size));
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// Subtracts from the thread's allowance; does not return when it is spent.
fn take(bytes: usize) {
    // A thread that is going away has no cells any more, and no allowance.
    let Ok(Some(left)) = LEFT.try_with(Cell::get) else { return };
    if let Some(rest) = left.checked_sub(bytes) {
        LEFT.set(Some(rest));
        return;
    }
    LEFT.set(None);
    if let Some(spent) = SPENT.get() {
        spent.store(true, Ordering::Release);
    }
    loop {
        std::thread::park();
    }
}

fn give(bytes: usize) {
    if let Ok(Some(left)) = LEFT.try_with(Cell::get) {
        LEFT.set(Some(left.saturating_add(bytes)));
    }
}

/// Ends the allowance when the work ends, also by a panic.
struct Scope;

impl Drop for Scope {
    fn drop(&mut self) {
        LEFT.set(None);
        SPENT.set(None);
    }
}

/// Runs `work` with an allowance of `bytes` for what this thread holds at any moment. When it is spent, `spent`
/// becomes true and the call never returns: give it a thread of its own, whose end nothing waits for.
///
/// Only a program whose global allocator is [`Accounted`] enforces it.
pub fn within<T>(bytes: usize, spent: &'static AtomicBool, work: impl FnOnce() -> T) -> T {
    let _scope = Scope;
    SPENT.set(Some(spent));
    LEFT.set(Some(bytes));
    work()
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::sync_channel, time::Duration};

    use super::*;

    static WITHIN: AtomicBool = AtomicBool::new(false);
    static BEYOND: AtomicBool = AtomicBool::new(false);

    #[test]
    fn work_within_its_allowance_ends_as_it_would_without_one() {
        // Far more in all than at any moment: what is freed counts no more.
        let sum = within(1 << 20, &WITHIN, || (0..1000).map(|_| vec![1u8; 100_000].len()).sum::<usize>());
        assert_eq!(sum, 100_000_000);
        assert!(!WITHIN.load(Ordering::Acquire));
    }

    #[test]
    fn a_thread_beyond_its_allowance_is_stopped_and_its_owner_told() {
        let (sender, receiver) = sync_channel(1);
        std::thread::spawn(move || {
            let len = within(1 << 20, &BEYOND, || {
                let mut text = String::from("x");
                while text.len() < 1 << 24 {
                    text = text.clone() + text.as_str();
                }
                text.len()
            });
            sender.send(len)
        });
        assert!(receiver.recv_timeout(Duration::from_secs(2)).is_err(), "it was not stopped");
        assert!(BEYOND.load(Ordering::Acquire));
    }
}
