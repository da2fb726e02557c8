//! Raising a trap: the Rust half of the routine that trap stubs jump to.

use super::walk::{Owner, Start, Way, walk};
use super::{BACKTRACE_FRAMES, Catch, LOOK, Raised, current_task, enter, innermost, recent, resume};
use crate::gate::chain;
use crate::kill;
use crate::text_index::TEXT;
use crate::trap::Trap;
use alloc::boxed::Box;
use core::mem::MaybeUninit;
use wasm_cell::trap::TrapCode;

/// Address of the raise routine, for the data blocks' headers (docs/CELL_ABI.md).
pub fn raise_routine() -> usize {
    enter::planks_raise as *const () as usize
}

/// Address of code that any entry may lead to when its function is gone: traps `FunctionGone` in the caller.
pub fn gone_routine() -> usize {
    enter::planks_gone as *const () as usize
}

/// Raises trap `code` whose site returns to `pc`, in the frame `frame`. Returns the catch to land at, or unwinds.
pub(super) extern "C-unwind" fn raise(code: u32, pc: usize, frame: usize) -> *mut Catch {
    let here = 0usize;
    let task = current_task();
    // A builtin may have stopped because of it, and wasm took that for a trap of its own.
    let code = if kill::requested(task) { TrapCode::Killed as u32 } else { code };
    let catch = innermost(task);
    if catch.is_null() {
        // Called by a raw entry, outside of any catch.
        unwind_bare(code, pc, false);
    }
    let low = &raw const here as usize;
    let start = Start { pc, exact: false, pending_return: None, pending_stack: low, frame, low };
    // SAFETY: this runs on the task's stack, below everything that is walked; the task is inside of the code at `pc`.
    let way = unsafe { walk(|| recent::find(task, pc), |pc| Owner::find(&TEXT.read(), pc), catch, code, start) };
    match way {
        Way::Jump => {
            chain::release_to(task, catch as usize);
            catch
        }
        Way::Unwind => unwind(catch),
    }
}

/// Unwinds from a faulting instruction at `after - 1`; the handler has filled the catch's backtrace.
pub(super) extern "C-unwind" fn unwind_from_fault(code: u32, after: usize) -> ! {
    let catch = innermost(current_task());
    if catch.is_null() {
        unwind_bare(code, after.wrapping_sub(1), true);
    }
    unwind(catch)
}

/// Unwinds to the platform's `catch` under this catch, or to a native `catch_unwind` before it. When damaged unwind info is in
/// the way, it lands at the catch at once: what native frames own leaks then, which is better than the end of the system.
#[cold]
fn unwind(catch: *mut Catch) -> ! {
    // SAFETY: invariants 1 and 3 of `call`.
    let can_land = unsafe { (*catch).rsp } != 0;
    if can_land && !runtime_port::platform().unwinder().is_clear(catch as usize) {
        chain::release_to(current_task(), catch as usize);
        // SAFETY: invariant 2 of `call`.
        unsafe { enter::land(catch) }
    }
    // SAFETY: invariants 1 and 3 of `call`. The catch is left as if nothing was raised: native code may stop the panic.
    let trap = unsafe {
        let trap = Trap::raised(&mut (*catch).raised, (*catch).error.take());
        (*catch).raised.code = if (*catch).raised.look { LOOK } else { 0 };
        trap
    };
    resume(Box::new(trap))
}

/// Unwinds outside of any catch.
#[cold]
fn unwind_bare(code: u32, pc: usize, exact: bool) -> ! {
    if code == TrapCode::Killed as u32 {
        kill::done(current_task());
    }
    let mut pcs = [MaybeUninit::uninit(); BACKTRACE_FRAMES];
    let [first, ..] = &mut pcs;
    *first = MaybeUninit::new(pc);
    let mut raised =
        Raised { code, look: false, exact, mixed: true, first: core::ptr::null(), frames: 1, inlined: 0, pcs };
    resume(Box::new(Trap::raised(&mut raised, None)))
}

/// Notes a host function's error for the trap that is about to be raised; gives the code to raise it with.
/// A [`Trap`] as error (wasm that the host function called trapped) keeps its code.
pub(crate) fn fail(error: crate::trap::HostError) -> u32 {
    let catch = innermost(current_task());
    let code = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.code(),
        None => TrapCode::HostError,
    };
    if catch.is_null() {
        resume(Box::new(Trap::host(error)))
    }
    note_error(error);
    code as u32
}

/// Notes the error of a trap of this code that is about to be raised. Outside of any catch, unwinds with it.
pub(crate) fn note(code: TrapCode, error: crate::trap::HostError) {
    if innermost(current_task()).is_null() {
        resume(Box::new(Trap::with_error(code, error)))
    }
    note_error(error);
}

/// Notes the error for the trap that is about to be raised. Outside of any catch it is lost.
pub(crate) fn note_error(error: crate::trap::HostError) {
    let catch = innermost(current_task());
    if !catch.is_null() {
        // SAFETY: invariants 1 and 3 of `call`.
        unsafe { (*catch).error = Some(error) };
    }
}
