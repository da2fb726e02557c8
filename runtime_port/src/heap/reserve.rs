//! The reserve: memory for steps that must not fail.
//!
//! An operation that others see half done can no longer be given up for want of memory, and neither can the undoing of one. Such
//! steps run [`without_failing`]: an allocation of theirs that the allocator refuses is made here. So are those of destructors
//! that run because an allocation failed. What is allocated here may live on, and goes back when it is freed.
//!
//! A bitmap says which granules are in use; the first run that is long enough is taken. That is slow and never fragments
//! badly, because only a few blocks are ever here, for a short time.

use crate::sync::IrqSafeMutex;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, UnsafeCell};
use core::ptr::{copy_nonoverlapping, null_mut, write_bytes};
use core::sync::atomic::{AtomicU64, Ordering};
use kernel_config::memory::{HEAP_RESERVE, PAGE_SIZE};

/// An allocator with the reserve behind it, for `#[global_allocator]`.
#[derive(Debug)]
pub struct Reserve<A>(A);

/// Unit of the bitmap, in bytes.
const GRANULE: usize = 64;

const GRANULES: usize = HEAP_RESERVE / GRANULE;

#[repr(C, align(4096))]
struct Memory(UnsafeCell<[u8; HEAP_RESERVE]>);

// SAFETY: granules belong to whoever has marked them in the bitmap.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; HEAP_RESERVE]));

/// Which granules are in use.
static IN_USE: IrqSafeMutex<[u64; GRANULES / 64]> = IrqSafeMutex::new([0; GRANULES / 64]);

/// Allocations that were made here.
static SERVED: AtomicU64 = AtomicU64::new(0);

/// How many allocations the allocator refused and the reserve made, since the system started.
pub fn served_by_reserve() -> u64 {
    SERVED.load(Ordering::Relaxed)
}

/// The current task's counter of reasons to use the reserve, if there are tasks yet.
fn reasons() -> Option<&'static Cell<u32>> {
    #[cfg(feature = "hosted")]
    let locals = Some(crate::hosted::task::locals());
    #[cfg(not(feature = "hosted"))]
    let locals = crate::platform::installed().map(|platform| platform.tasks().current());
    locals.map(|locals| &locals.reserve_use)
}

/// The current task may use the reserve until [`end`]. Returns how many reasons it has now.
pub(super) fn begin() -> u32 {
    reasons().map_or(0, |n| {
        n.set(n.get() + 1);
        n.get()
    })
}

/// Undoes [`begin`].
pub(super) fn end() {
    if let Some(n) = reasons() {
        n.set(n.get().saturating_sub(1));
    }
}

/// Takes away the current task's reasons until what this returns is dropped.
pub(super) fn suspend() -> impl Drop {
    struct Suspended(u32);
    impl Drop for Suspended {
        fn drop(&mut self) {
            if let Some(n) = reasons() {
                n.set(self.0);
            }
        }
    }
    Suspended(reasons().map_or(0, |n| n.replace(0)))
}

/// Calls `f`, whose allocations may use the program's [`Reserve`], if it has one. For steps that others see half done; not for
/// sizes that come from outside, which are to be allocated before.
pub fn without_failing<R>(f: impl FnOnce() -> R) -> R {
    struct Scope;
    impl Drop for Scope {
        fn drop(&mut self) {
            end();
        }
    }
    begin();
    let _scope = Scope;
    f()
}

fn base() -> usize {
    MEMORY.0.get() as usize
}

/// Whether it is the reserve's.
fn contains(at: *mut u8) -> bool {
    (at as usize).wrapping_sub(base()) < HEAP_RESERVE
}

/// Granules of a block.
fn granules(size: usize) -> usize {
    size.div_ceil(GRANULE).max(1)
}

/// A block of the reserve, if the task may use it and there is one.
#[cold]
fn take(layout: Layout) -> *mut u8 {
    if reasons().is_none_or(|n| n.get() == 0) || layout.align() > PAGE_SIZE {
        return null_mut();
    }
    let (wanted, step) = (granules(layout.size()), granules(layout.align()));
    let mut in_use = IN_USE.lock();
    let is_free = |bits: &[u64], i: usize| bits.get(i / 64).is_some_and(|word| word >> (i % 64) & 1 == 0);
    let mut start = 0;
    while start + wanted <= GRANULES {
        match (start..start + wanted).find(|i| !is_free(&in_use[..], *i)) {
            Some(taken) => start = (taken + 1).next_multiple_of(step),
            None => {
                mark(&mut in_use[..], start, wanted);
                SERVED.fetch_add(1, Ordering::Relaxed);
                return MEMORY.0.get().cast::<u8>().wrapping_add(start * GRANULE);
            }
        }
    }
    null_mut()
}

/// A block is free again.
#[cold]
fn give_back(at: *mut u8, layout: Layout) {
    mark(&mut IN_USE.lock()[..], (at as usize - base()) / GRANULE, granules(layout.size()));
}

/// Turns the marks of a run of granules round.
fn mark(bits: &mut [u64], start: usize, len: usize) {
    for i in start..start + len {
        if let Some(word) = bits.get_mut(i / 64) {
            *word ^= 1 << (i % 64);
        }
    }
}

impl<A> Reserve<A> {
    /// The reserve behind an allocator. There is one reserve, whatever is in front of it.
    pub const fn behind(allocator: A) -> Self {
        Reserve(allocator)
    }

    /// The allocator in front.
    pub const fn allocator(&self) -> &A {
        &self.0
    }
}

// SAFETY: blocks are the inner allocator's or the reserve's, told apart by their addresses; each goes back where it came from.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Reserve<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on.
        let block = unsafe { self.0.alloc(layout) };
        if block.is_null() { take(layout) } else { block }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if contains(at) {
            return give_back(at, layout);
        }
        // SAFETY: passed on.
        unsafe { self.0.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on.
        let mut block = unsafe { self.0.alloc_zeroed(layout) };
        if block.is_null() {
            block = take(layout);
            if !block.is_null() {
                // SAFETY: a block of this size.
                unsafe { write_bytes(block, 0, layout.size()) };
            }
        }
        block
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let own = contains(at);
        if !own {
            // SAFETY: passed on.
            let block = unsafe { self.0.realloc(at, layout, size) };
            if !block.is_null() {
                return block;
            }
        }
        // SAFETY: by the caller, the rounded size does not overflow.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // What is here already may go back to the allocator.
        // SAFETY: the caller's size is not 0.
        let block = if own { unsafe { self.alloc(new) } } else { take(new) };
        if !block.is_null() {
            // SAFETY: two blocks of at least this size; the old one is the caller's to give.
            unsafe {
                copy_nonoverlapping(at, block, layout.size().min(size));
                self.dealloc(at, layout);
            }
        }
        block
    }
}

#[cfg(test)]
#[cfg(feature = "hosted")]
mod tests {
    use super::*;

    /// Has no memory at all.
    struct Empty;

    // SAFETY: never gives a block.
    unsafe impl GlobalAlloc for Empty {
        unsafe fn alloc(&self, _: Layout) -> *mut u8 {
            null_mut()
        }
        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {
            unreachable!("a block that was never given")
        }
    }

    const RESERVE: Reserve<Empty> = Reserve::behind(Empty);

    fn bits_in_use() -> u32 {
        IN_USE.lock().iter().map(|word| word.count_ones()).sum()
    }

    // One test: there is one reserve.
    #[test]
    fn steps_that_must_not_fail_get_memory_and_others_do_not() {
        let layout = Layout::from_size_align(1000, 16).unwrap();
        // SAFETY: blocks are used within their sizes and freed once.
        unsafe {
            assert!(RESERVE.alloc(layout).is_null());
            let block = without_failing(|| RESERVE.alloc(layout));
            assert!(contains(block) && bits_in_use() == 16);
            block.write_bytes(7, 1000);
            // It may grow while it may be allocated, and keeps what is in it.
            assert!(RESERVE.realloc(block, layout, 5000).is_null());
            let block = without_failing(|| RESERVE.realloc(block, layout, 5000));
            assert_eq!((bits_in_use(), block.add(999).read()), (79, 7));
            let aligned = Layout::from_size_align(64, 4096).unwrap();
            let page = without_failing(|| RESERVE.alloc_zeroed(aligned));
            assert!((page as usize).is_multiple_of(4096) && page.read() == 0);
            RESERVE.dealloc(page, aligned);
            RESERVE.dealloc(block, Layout::from_size_align(5000, 16).unwrap());
            assert_eq!(bits_in_use(), 0);
            // All of it at once, and not a byte more.
            let all = Layout::from_size_align(HEAP_RESERVE, 64).unwrap();
            let block = without_failing(|| RESERVE.alloc(all));
            assert!(contains(block) && without_failing(|| RESERVE.alloc(aligned)).is_null());
            RESERVE.dealloc(block, all);
            assert_eq!(bits_in_use(), 0);
        }
    }
}
