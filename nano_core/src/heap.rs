//! The kernel heap: `talc` over a window of address space that grows page by page from the frame allocator.
//!
//! A failed allocation is a null pointer, as everywhere: fallible callers get an error. The others get [`out_of_memory`], which
//! unwinds to the interface that was called, and that returns its error. Steps that must not fail have the reserve behind the heap
//! (`runtime_port::heap`).

use core::{alloc::Layout, ptr::NonNull};
#[cfg(feature = "inject")]
use injector::heap::FailingAllocator;
use kernel_config::{
    bare_metal::{HEAP, HEAP_STEP},
    memory::PAGE_SIZE,
};
use runtime_port::{
    bare_metal::{lock::RawInterruptLock, memory::commit_heap},
    heap::{HeapStatistics, Reserve, exhausted},
};
use talc::{
    TalcLock,
    base::{Talc, binning::Binning},
    source::Source,
};

type Growing = TalcLock<RawInterruptLock, Growth>;

const fn empty() -> Growing {
    TalcLock::new(Growth { end: HEAP.start, claimed: None })
}

#[cfg(not(feature = "inject"))]
#[global_allocator]
static HEAP_ALLOCATOR: Reserve<Growing> = Reserve::behind(empty());

/// With an allocator in between that refuses what a campaign wants refused.
#[cfg(feature = "inject")]
#[global_allocator]
static HEAP_ALLOCATOR: Reserve<FailingAllocator<Growing>> = Reserve::behind(FailingAllocator::new(empty()));

fn growing() -> &'static Growing {
    #[cfg(not(feature = "inject"))]
    return HEAP_ALLOCATOR.allocator();
    #[cfg(feature = "inject")]
    return HEAP_ALLOCATOR.allocator().allocator();
}

/// An allocation failed whose caller cannot be told.
#[alloc_error_handler]
fn out_of_memory(_: Layout) -> ! {
    exhausted()
}

/// State of the heap.
pub fn statistics() -> HeapStatistics {
    let heap = growing().lock();
    HeapStatistics { used: heap.counters().allocated_bytes, size: heap.source.end - HEAP.start }
}

/// Gives the allocator more memory when it runs out.
#[derive(Debug)]
struct Growth {
    /// End of what is mapped.
    end: usize,
    /// End of what `talc` manages, as it reported it; `None` before the first growth.
    claimed: Option<NonNull<u8>>,
}

// SAFETY: the pointer is only used under the allocator's lock.
unsafe impl Send for Growth {}

// SAFETY: `acquire` calls nothing that allocates from the heap.
unsafe impl Source for Growth {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        /// For the allocator's own words around an allocation, and its bins at the start.
        const OVERHEAD: usize = 2 * PAGE_SIZE;
        let needed = layout.size().checked_add(layout.align()).and_then(|n| n.checked_add(OVERHEAD)).ok_or(())?;
        let needed = needed.checked_next_multiple_of(PAGE_SIZE).ok_or(())?;
        let start = talc.source.end;
        let mut grown = Err(());
        for size in [needed.max(HEAP_STEP), needed] {
            let end = start.checked_add(size).filter(|end| *end <= HEAP.end).ok_or(())?;
            // SAFETY: page-aligned, in the heap's window, behind everything mapped so far.
            if unsafe { commit_heap(start..end) }.is_ok() {
                grown = Ok(end);
                break;
            }
        }
        let end = grown?;
        talc.source.end = end;
        // SAFETY: `start..end` is fresh memory that nobody else uses, adjacent to the heap claimed before.
        talc.source.claimed = unsafe {
            match talc.source.claimed {
                None => talc.claim(start as *mut u8, end - start),
                Some(heap_end) => Some(talc.extend(heap_end, end as *mut u8)),
            }
        };
        talc.source.claimed.map(|_| ()).ok_or(())
    }
}
