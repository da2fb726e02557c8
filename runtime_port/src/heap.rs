//! The heap: what the platform says about it, allocation that may fail, and what happens when one fails that may not.
//!
//! The allocator itself is the program's `#[global_allocator]`. Sizes that come from outside are allocated through the
//! functions here, so that a lack of memory is an error and not an abort.
//!
//! The many small allocations between them cannot report failure: Rust calls the program's allocation-error handler. A handler
//! that calls [`exhausted`] makes errors of those as well: what was begun is undone by its destructors, up to the interface that runs
//! it [`guarded`]. Kernels have such a handler (`#[alloc_error_handler]`; nano_core does), programs over std where the compiler lets
//! them (`std::alloc::set_alloc_error_hook`; `planks` does). Without one, Rust's default ends the program.
//!
//! What cannot be given up half-way, such as the commit of a swap and the undoing itself, runs [`without_failing`]: its allocations
//! may use a [`Reserve`], which the program puts behind its allocator.

mod reserve;

pub use reserve::{Reserve, served_by_reserve, without_failing};

use crate::platform::platform;
use crate::unwind::{KillReason, catch_unwind_with_arg, resume_unwind};
use alloc::{boxed::Box, collections::TryReserveError, vec::Vec};
use core::any::Any;

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

/// An allocation failed that could not say so, and what was begun is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeapExhausted;

/// What unwinds from such an allocation. It takes no memory itself; while it is there, its task may use the reserve.
struct Exhaustion(());

/// The most allocations of a task that fail while others unwind from one that failed: each in the destructors of the one before.
const DEEPEST: u32 = 64;

/// For allocation-error handlers: unwinds to the next [`guarded`].
pub fn exhausted() -> ! {
    if reserve::begin() > DEEPEST {
        // Not even the reserve is left, and every attempt to undo something needs more.
        lost()
    }
    platform().unwinder().resume(Box::new(Exhaustion(())))
}

impl Drop for Exhaustion {
    fn drop(&mut self) {
        reserve::end();
    }
}

/// Whether a panic's payload says that the heap is [`exhausted`].
pub fn is_exhaustion(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Exhaustion>()
}

/// Calls `f`; an allocation in it that failed and could not say so is the error. Any other panic passes through. What may fail does
/// not use the reserve, whoever asks for it.
pub fn guarded<R>(f: impl FnOnce() -> R) -> Result<R, HeapExhausted> {
    let _suspended = reserve::suspend();
    catch_unwind_with_arg(|()| f(), ()).map_err(|reason| {
        let exhausted = match &reason {
            KillReason::Panic(payload) if is_exhaustion(&**payload) => true,
            // Two crates under the compiler panic themselves: `bumpalo`, and `cranelift-bitset`, which unwraps an error.
            _ => reason.message().is_some_and(|m| m == "out of memory" || m.contains("OutOfMemory {")),
        };
        if exhausted { HeapExhausted } else { resume_unwind(reason) }
    })
}

/// There is no memory to go on with, and none to give up with.
#[cold]
fn lost() -> ! {
    #[cfg(feature = "hosted")]
    {
        std::eprintln!("fatal: out of memory, and nothing left of the reserve");
        std::process::abort()
    }
    #[cfg(all(feature = "bare_metal", not(feature = "hosted")))]
    crate::bare_metal::fatal(format_args!("out of memory, and nothing left of the reserve"));
    #[cfg(not(any(feature = "hosted", feature = "bare_metal")))]
    panic!("out of memory, and nothing left of the reserve")
}
