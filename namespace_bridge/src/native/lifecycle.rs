//! Code of a cell that runs when it is loaded and unloaded: `.init_array`, `.fini_array`, and what C++ registers meanwhile.

use alloc::{string::String, vec::Vec};
use core::ffi::{c_char, c_int, c_void};
use runtime_port::unwind::{KillReason, catch_unwind_with_arg};
use spin::Mutex;

/// A function of `.init_array`; what it is given is what a C library would give it, for a program without arguments.
type Initialiser = extern "C-unwind" fn(c_int, *const *const c_char, *const *const c_char);
/// A function of `.fini_array`.
type Finaliser = extern "C-unwind" fn();
/// A function registered with `__cxa_atexit`.
type ExitFunction = extern "C-unwind" fn(*mut c_void);

/// Functions that cells want to run when they go: the cell's handle, the function, its argument.
static AT_EXIT: Mutex<Vec<(usize, usize, usize)>> = Mutex::new(Vec::new());

/// Runs an initialiser. The error is the message of its panic.
///
/// # Safety
/// `address` must be an initialiser of a cell that is linked.
pub(super) unsafe fn initialise(address: usize) -> Result<(), String> {
    // SAFETY: the caller's promise.
    let function: Initialiser = unsafe { core::mem::transmute(address) };
    let empty: [*const c_char; 1] = [core::ptr::null()];
    let run = |f: Initialiser| f(0, empty.as_ptr(), empty.as_ptr());
    catch_unwind_with_arg(run, function).map_err(message)
}

/// Runs what a cell registered, last first, and its finalisers. Panics end the one that panics.
///
/// # Safety
/// The addresses must be finalisers of the cell, which must still be mapped; `handle` is its `__dso_handle`.
pub(super) unsafe fn finalise(cell: &str, handle: usize, finalisers: &[usize]) {
    let report = |reason: KillReason| log::error!("cell `{cell}`: a finaliser panicked: {}", message(reason));
    loop {
        let mut registered = AT_EXIT.lock();
        let last = registered.iter().rposition(|r| r.0 == handle).map(|i| registered.remove(i));
        drop(registered);
        let Some((_, function, argument)) = last else { break };
        // SAFETY: the cell registered it with `__cxa_atexit`.
        let function: ExitFunction = unsafe { core::mem::transmute(function) };
        if let Err(reason) = catch_unwind_with_arg(|f: ExitFunction| f(argument as *mut c_void), function) {
            report(reason);
        }
    }
    for address in finalisers {
        // SAFETY: the caller's promise.
        let function: Finaliser = unsafe { core::mem::transmute(*address) };
        if let Err(reason) = catch_unwind_with_arg(|f: Finaliser| f(), function) {
            report(reason);
        }
    }
}

fn message(reason: KillReason) -> String {
    reason.message().map_or_else(|| alloc::format!("{reason:?}"), String::from)
}

/// `__cxa_atexit` of cells (Itanium C++ ABI, 3.3.6.3): the function runs when the cell with this handle is unloaded, not when
/// the system ends. Returns 0, or -1 without memory.
pub(super) extern "C" fn at_exit(function: usize, argument: usize, handle: usize) -> c_int {
    let mut registered = AT_EXIT.lock();
    if registered.try_reserve(1).is_err() {
        return -1;
    }
    registered.push((handle, function, argument));
    0
}

/// Forgets what a cell registered that never came to be.
pub(super) fn forget(handle: usize) {
    AT_EXIT.lock().retain(|r| r.0 != handle);
}
