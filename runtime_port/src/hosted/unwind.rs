//! The process's own unwinder: libgcc's registry of `.eh_frame` sections and std's panics.

use crate::unwind::{UnwindError, UnwindPort};
use alloc::boxed::Box;
use core::any::Any;
use core::ops::Range;
use std::panic::AssertUnwindSafe;

#[link(name = "gcc_s")]
unsafe extern "C" {
    /// Makes a whole `.eh_frame` section known (libgcc, `unwind-dw2-fde.c`). It ends at a zero length word.
    fn __register_frame(eh_frame: *const u8);
    /// Start of the function that has unwind info for this address (libgcc, `unwind-dw2.c`); null if there is none.
    fn _Unwind_FindEnclosingFunction(pc: *const u8) -> *const u8;
    /// Undoes `__register_frame` for the same address.
    fn __deregister_frame(eh_frame: *const u8);
}

/// The hosted unwind port.
#[derive(Debug)]
pub struct HostedUnwinder;

// SAFETY: libgcc's `_Unwind_Find_FDE` consults every registered section, for every frame of every thread.
unsafe impl UnwindPort for HostedUnwinder {
    unsafe fn register(&self, _text: Range<usize>, eh_frame: Range<usize>) -> Result<u64, UnwindError> {
        // SAFETY: the caller keeps the section mapped until `deregister`, and it ends with a zero word.
        unsafe { __register_frame(eh_frame.start as *const u8) };
        Ok(eh_frame.start as u64)
    }

    unsafe fn deregister(&self, handle: u64) {
        // SAFETY: the handle is the address given to `__register_frame`, deregistered once.
        unsafe { __deregister_frame(handle as usize as *const u8) };
    }

    unsafe fn catch(&self, f: unsafe extern "C-unwind" fn(*mut u8), data: *mut u8) -> Result<(), Box<dyn Any + Send>> {
        // SAFETY: the caller says that `f` may be called with `data`.
        std::panic::catch_unwind(AssertUnwindSafe(|| unsafe { f(data) }))
    }

    fn covers(&self, pc: usize) -> bool {
        // SAFETY: looks the address up and does not follow it.
        unsafe { !_Unwind_FindEnclosingFunction(pc as *const u8).is_null() }
    }

    fn resume(&self, payload: Box<dyn Any + Send>) -> ! {
        std::panic::resume_unwind(payload)
    }
}

/// Calls `f`; the payload of a panic that leaves it is the error.
#[inline(always)]
pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    std::panic::catch_unwind(AssertUnwindSafe(f))
}
