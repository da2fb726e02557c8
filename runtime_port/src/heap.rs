//! The heap: what the platform says about it, and allocation that may fail.
//!
//! The allocator itself is the program's `#[global_allocator]`. Sizes that come from outside are allocated through the
//! functions here, so that a lack of memory is an error and not an abort.
//!
//! The many small allocations between them cannot report failure. A program whose allocation-error handler calls [`exhausted`]
//! gets an error from those as well: what was begun is undone by its destructors, up to
//! the interface that runs it [`guarded`].

use crate::platform::platform;
use crate::unwind::{KillReason, catch_unwind_with_arg, resume_unwind};
use alloc::{boxed::Box, collections::TryReserveError, vec::Vec};

/// State of the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeapStatistics {
    /// Bytes in use.
    pub used: usize,
    /// Bytes the allocator holds, used or free.
    pub size: usize,
}

/// State of the heap, if the port can tell.
pub fn statistics() -> Option<HeapStatistics> {
    platform().heap_statistics()
}

/// An empty vector with room for `capacity` elements.
pub fn try_with_capacity<T>(capacity: usize) -> Result<Vec<T>, TryReserveError> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(capacity)?;
    Ok(vec)
}

/// A vector of `length` copies of `value`.
pub fn try_vec<T: Clone>(value: T, length: usize) -> Result<Vec<T>, TryReserveError> {
    let mut vec = try_with_capacity(length)?;
    vec.resize(length, value);
    Ok(vec)
}

/// A copy of `bytes`.
pub fn try_to_vec(bytes: &[u8]) -> Result<Vec<u8>, TryReserveError> {
    let mut vec = try_with_capacity(bytes.len())?;
    vec.extend_from_slice(bytes);
    Ok(vec)
}

/// `Box::new` that reports a failed allocation.
#[cfg(feature = "hosted")]
pub(crate) fn try_box<T>(value: T) -> Option<alloc::boxed::Box<T>> {
    const { assert!(size_of::<T>() > 0) };
    // SAFETY: the layout's size is not zero.
    let place = unsafe { alloc::alloc::alloc(core::alloc::Layout::new::<T>()) }.cast::<T>();
    // SAFETY: a fresh allocation with Box's layout, written before it becomes a box.
    (!place.is_null()).then(|| unsafe {
        place.write(value);
        alloc::boxed::Box::from_raw(place)
    })
}

/// What unwinds from an allocation that failed and cannot say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeapExhausted;

/// For allocation-error handlers: unwinds to the next [`guarded`]. The payload takes no memory; what the unwinder needs for itself
/// must be there.
pub fn exhausted() -> ! {
    platform().unwinder().resume(Box::new(HeapExhausted))
}

/// Calls `f`; an allocation in it that failed and could not say so is the error. Any other panic passes through.
pub fn guarded<R>(f: impl FnOnce() -> R) -> Result<R, HeapExhausted> {
    catch_unwind_with_arg(|()| f(), ()).map_err(|reason| {
        let exhausted = match &reason {
            KillReason::Panic(payload) if payload.is::<HeapExhausted>() => true,
            // Two crates under the compiler panic themselves: `bumpalo`, and `cranelift-bitset`, which unwraps an error.
            _ => reason.message().is_some_and(|m| m == "out of memory" || m.contains("OutOfMemory {")),
        };
        if exhausted { HeapExhausted } else { resume_unwind(reason) }
    })
}
