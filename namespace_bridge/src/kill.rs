//! Killing: a task is asked to stop its call into wasm, wherever it is.
//!
//! A request ends the task's *outermost* call into wasm with [`TrapCode::Killed`]. It acts at once when the task is in wasm
//! code. When it is in native code (a host function, a builtin, the call path itself) it stays pending, whatever a
//! host function catches, and acts at the next of these: a host function returns to wasm, native code calls wasm, a
//! trap is raised, a bulk operation begins, one MiB of it is done, or the port interrupts the task again while wasm code runs.
//! Wasm code cannot see or catch it.
//!
//! A request that finds the task outside of wasm ends its next call. The task can [`withdraw`] it, which is what code
//! that limits the time of a call does once the call has returned.

use crate::call;
use crate::trap::Trap;
use core::sync::atomic::Ordering;
use runtime_port::platform;
use runtime_port::task::{TaskError, TaskLocals};
use wasm_cell::trap::TrapCode;

/// Asks a task to stop what it does in wasm. The number is that of its [`TaskLocals`].
///
/// Fails when there is no such task, or when the port cannot promise further interrupts.
pub fn kill_task(id: u64) -> Result<(), TaskError> {
    platform().tasks().request_kill(id)
}

/// Takes back a request that has not acted on the current task. Returns whether there was one.
pub fn withdraw() -> bool {
    call::current_task().kill_requested.swap(0, Ordering::AcqRel) != 0
}

/// Whether the current task was asked to stop and has not yet: a host function that works for long looks here and returns
/// when it is so.
pub fn is_pending() -> bool {
    let task = call::current_task();
    let pending = requested(task);
    if pending {
        // The request can be seen before its interrupt arrives; what was seen here acts at the next return to wasm.
        call::stop_before_wasm(task);
    }
    pending
}

/// Whether the task was asked to stop.
#[inline(always)]
pub(crate) fn requested(task: &TaskLocals) -> bool {
    task.kill_requested.load(Ordering::Relaxed) != 0
}

/// The request has ended the task's outermost call.
pub(crate) fn done(task: &TaskLocals) {
    task.kill_requested.store(0, Ordering::Release);
}

/// What a call gets that was to begin, or to go on, while a request is pending.
#[cold]
pub(crate) fn refuse(task: &TaskLocals) -> Trap {
    if call::innermost(task).is_null() {
        done(task);
    }
    Trap::new(TrapCode::Killed)
}
