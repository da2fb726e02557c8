//! Exceptions that only damage explains: changed code, changed links, a broken stack.
//!
//! Nothing the code left behind is trusted but what the task itself keeps: its stack's bounds and its innermost catch. The
//! frames in between are walked as long as they make sense; native frames among them are unwound if the chain to them is
//! whole, and given up otherwise (what they own leaks, which is better than the end of the system).
//!
//! A fault of native code is taken for a cell's only on evidence: the cell jumped there, or its code or linkage is not what
//! it was (compared in the handler: without locks, without allocation). Everything else is the native code's own.

use super::leave_wasm;
use crate::call::{self, Catch};
use crate::code::LoadedCode;
use crate::text_index::{Reader, Text};
use runtime_port::task::TaskLocals;
use runtime_port::trap::{Exception, ExceptionContext};
use wasm_cell::trap::TrapCode;

/// Words of the stack that are searched for the cell that called native code.
const SEARCHED: usize = 2048;

/// Where the stack pointer of a task with a catch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between the stack's limit and the catch, and aligned: where the code under the catch belongs.
    Below,
    /// Above the frame that entered wasm, below the catch record: wasm has returned, with registers that it had to keep
    /// changed, or to the wrong place. What the entering frame saved is still there: nothing was called since.
    Returned,
    /// Anywhere else.
    Wild,
}

/// The catch of a call into wasm, or of native code that may make some.
#[derive(Debug, Clone, Copy)]
struct Landing {
    catch: *mut Catch,
    /// Highest address of the stack that the code under the catch may use.
    top: usize,
    place: Place,
}

impl Landing {
    /// `None` outside of any catch.
    fn of(task: &TaskLocals, context: &ExceptionContext) -> Option<Landing> {
        let catch = call::innermost(task);
        if catch.is_null() {
            return None;
        }
        // SAFETY: invariants 1 to 3 of `call`.
        let entered = unsafe { (*catch).rsp };
        let top = if entered == 0 { catch as usize } else { entered };
        let (rsp, limit) = (context.rsp, task.stack_limit.get());
        let place = if rsp >= limit && rsp < top && rsp.is_multiple_of(8) {
            Place::Below
        } else if entered != 0 && rsp >= top && rsp < catch as usize {
            Place::Returned
        } else {
            Place::Wild
        };
        Some(Landing { catch, top, place })
    }

    /// Words of the stack where return addresses of the cell may be: all that is in use, or what was until it returned.
    fn words(&self, task: &TaskLocals, context: &ExceptionContext) -> impl Iterator<Item = usize> {
        let limit = task.stack_limit.get().next_multiple_of(8);
        let low = match self.place {
            Place::Below => context.rsp,
            Place::Returned | Place::Wild => limit.max(self.top.saturating_sub(8 * SEARCHED)),
        };
        // SAFETY: between the stack's limit and the catch, so mapped; a wild value is only looked up.
        (low..self.top).step_by(8).take(SEARCHED).map(|at| unsafe { *(at as *const usize) })
    }

    /// Entry of the call; 0 if there is none.
    fn entry(&self) -> usize {
        // SAFETY: invariants 1 to 3 of `call`; `entry` is initialised when `rsp` is not 0.
        unsafe { if (*self.catch).rsp == 0 { 0 } else { (*self.catch).entry } }
    }
}

/// Whether the stack pointer is where wasm code can have it. Outside of any catch nobody knows.
pub(super) fn stack_is_sane(task: &TaskLocals, context: &ExceptionContext) -> bool {
    Landing::of(task, context).is_none_or(|l| l.place == Place::Below)
}

/// An exception in a cell's code at no trap site.
pub(super) fn wasm(
    task: &TaskLocals,
    context: &mut ExceptionContext,
    reader: &Reader<'_>,
    code: &LoadedCode,
) -> Option<()> {
    code.module().suspect();
    give_up(task, context, reader, Some(code))
}

/// An exception outside of all wasm text: a cell's doing if it jumped there, or if it is not what it was.
pub(super) fn native(task: &TaskLocals, context: &mut ExceptionContext, reader: &Reader<'_>) -> Option<()> {
    let landing = Landing::of(task, context)?;
    let code = jumped_from(&landing, context, reader)
        .or_else(|| inside_image(context, reader))
        .or_else(|| damaged_cell(&landing, task, context, reader))?;
    code.module().suspect();
    give_up(task, context, reader, None)
}

/// The cell that has just called an address where no code is.
fn jumped_from<'r>(landing: &Landing, context: &ExceptionContext, reader: &'r Reader<'_>) -> Option<&'r LoadedCode> {
    let fetched = context.exception == Exception::PageFault && context.fault_address == Some(context.rip);
    if !fetched || landing.place != Place::Below {
        return None;
    }
    // SAFETY: the stack pointer lies between the stack's limit and the catch.
    let caller = unsafe { *(context.rsp as *const usize) };
    reader.find(caller)?.code().map(|c| &**c)
}

/// The cell in whose image the exception is, beside its text: nothing but entries is there, and those do not fault.
fn inside_image<'r>(context: &ExceptionContext, reader: &'r Reader<'_>) -> Option<&'r LoadedCode> {
    let near = reader.near(context.rip).into_iter().flatten().filter_map(|t| t.code());
    near.map(|c| &**c).find(|c| c.image().contains(&context.rip))
}

/// A cell that is not what it was: one with a return address on the stack, the one that was entered, or the one whose
/// entry the exception is in.
fn damaged_cell<'r>(
    landing: &Landing,
    task: &TaskLocals,
    context: &ExceptionContext,
    reader: &'r Reader<'_>,
) -> Option<&'r LoadedCode> {
    let code = |text: Text<'r>| text.code().map(|c| &**c);
    let called = landing.words(task, context).filter_map(|w| reader.find(w).and_then(code));
    let near = [context.rip, landing.entry()].into_iter().flat_map(|a| reader.near(a)).flatten().filter_map(code);
    // Most words in a row are of the same cell.
    let mut last: *const LoadedCode = core::ptr::null();
    called
        .chain(near)
        .find(|code| !core::ptr::eq(core::mem::replace(&mut last, &raw const **code), *code) && code.is_damaged())
}

/// Leaves for the catch with the trap `Corrupted`.
fn give_up(
    task: &TaskLocals,
    context: &mut ExceptionContext,
    reader: &Reader<'_>,
    code: Option<&LoadedCode>,
) -> Option<()> {
    match Landing::of(task, context).map(|l| l.place) {
        None | Some(Place::Below) => leave_wasm(task, context, reader, code, TrapCode::Corrupted, context.rsp),
        Some(Place::Returned | Place::Wild) => {
            // As if the code had no frame: the walk ends at once, at the catch.
            context.rbp = 0;
            leave_wasm(task, context, reader, None, TrapCode::Corrupted, usize::MAX)
        }
    }
}
