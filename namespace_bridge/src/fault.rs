//! CPU exceptions of wasm code become traps.
//!
//! The handler runs in exception context: it looks the program counter up, walks the stack into the innermost catch's
//! preallocated backtrace, and rewrites the saved context. Execution goes on at the catch, or, when native frames are in
//! between, in a routine that unwinds on the task's own stack.
//!
//! What is not ours (native code, and wasm code at an address that no trap site explains) is left to the port. That
//! includes native code that a guest called close to the limit and that runs into the yellow zone: the port opens the
//! zone for it. It is closed again when a host closure returns to wasm (which traps when that is impossible, because the
//! guest itself is too close), and before the next call into wasm.

use crate::call::{self, Start, Way};
use crate::code::LoadedCode;
use crate::text_index::TEXT;
use kernel_config::memory::PAGE_SIZE;
use kernel_config::task::{RED_RESERVE, YELLOW_ZONE};
use runtime_port::platform;
use runtime_port::task::TaskLocals;
use runtime_port::trap::{Exception, ExceptionAction, ExceptionContext};
use wasm_cell::trap::TrapCode;

/// Direction flag of `rflags`, clear at every function boundary (System V psABI, 3.2.1).
const DIRECTION_FLAG: usize = 1 << 10;

/// Installs the handler. A port without room for it is reported; wasm still runs, but its faults are fatal.
pub(crate) fn install() {
    if let Err(e) = platform().traps().install_handler(handle) {
        log::error!("faults of wasm code cannot be caught: {e}");
    }
}

/// Decides about an exception.
pub(crate) fn handle(context: &mut ExceptionContext) -> ExceptionAction {
    match try_handle(context) {
        Some(()) => ExceptionAction::Resume,
        None => ExceptionAction::NotMine,
    }
}

fn try_handle(context: &mut ExceptionContext) -> Option<()> {
    let task = call::tasks_if_ready()?.current();
    let reader = TEXT.read();
    let text = reader.find(context.rip);
    let in_zone = context.fault_address.is_some_and(|a| is_stack_guard(task, a));
    if text.is_none() && !call::is_enter(context.rip) {
        if in_zone {
            // The port opens the zone now.
            call::note_open_zone(task);
        }
        return None;
    }
    let code = text.and_then(|t| t.code()).map(|c| &**c);
    let trap = match context.exception {
        Exception::Interrupt => return None,
        _ if in_zone => TrapCode::StackOverflow,
        _ => code.and_then(|c| site(c, context.rip))?,
    };
    let catch = call::innermost(task);
    if catch.is_null() {
        return None;
    }
    let start = start_of_walk(context, code, readable_from(task, context, in_zone));
    // SAFETY: the innermost catch of the interrupted task, whose stack is mapped from the yellow zone's end up.
    let way = unsafe { call::walk(&reader, catch, trap as u32, start) };
    context.rflags &= !DIRECTION_FLAG;
    match way {
        Way::Jump => {
            // SAFETY: invariants 1 to 3 of `call`; `rsp` is not 0, or the walk would not have said so.
            context.rsp = unsafe { (*catch).rsp };
            context.rdi = catch as usize;
            context.rip = call::planks_land as *const () as usize;
        }
        Way::Unwind => {
            context.rax = trap as usize;
            context.rsi = context.rip.wrapping_add(1);
            context.rip = call::planks_raise_unwinding as *const () as usize;
        }
    }
    Some(())
}

/// The trap site at exactly this address.
fn site(code: &LoadedCode, pc: usize) -> Option<TrapCode> {
    let offset = u32::try_from(pc.checked_sub(code.text().start)?).ok()?;
    code.metadata().traps.lookup(offset).map(|s| s.code)
}

/// Whether an address lies in the yellow zone of the task's stack, or in what is below it: where wasm arrives when the zone is open.
fn is_stack_guard(task: &TaskLocals, address: usize) -> bool {
    let limit = task.stack_limit.get();
    limit != 0 && address < limit && address >= limit.saturating_sub(YELLOW_ZONE + RED_RESERVE + PAGE_SIZE)
}

/// Lowest stack address that can be read: the stack pointer, or the first page above a stack fault.
fn readable_from(task: &TaskLocals, context: &ExceptionContext, in_zone: bool) -> usize {
    let Some(fault) = context.fault_address.filter(|_| in_zone) else { return context.rsp };
    let limit = task.stack_limit.get();
    let zone = limit.saturating_sub(YELLOW_ZONE);
    // Below the zone, the zone is open; in it, all of it is closed.
    context.rsp.max(if fault < zone { (fault & !(PAGE_SIZE - 1)) + PAGE_SIZE } else { limit })
}

/// Finds the innermost complete frame, wherever in a prologue or epilogue the code stopped.
fn start_of_walk(context: &ExceptionContext, code: Option<&LoadedCode>, low: usize) -> Start {
    let mut start = Start { pc: context.rip, exact: true, pending_return: None, frame: context.rbp, low };
    let Some(code) = code else { return start };
    // SAFETY: `low` is the lowest readable address, and all that is read lies above it and below the catch.
    let word = |at: usize| (at >= low).then(|| unsafe { *(at as *const usize) });
    match shape_at(code, context.rip) {
        FrameShape::Complete => {}
        FrameShape::NoFrame => start.pending_return = word(context.rsp),
        FrameShape::FramePushed => start.pending_return = word(context.rsp + 8),
        FrameShape::Moving(by) => {
            // Both words lie above the faulting address; `rbp` has moved to where nothing is yet.
            let old = context.rsp.wrapping_add(by);
            if let (Some(frame), Some(pc)) = (word(old), word(old + 8)) {
                start.frame = frame;
                start.pending_return = Some(pc);
            }
        }
    }
    start
}

/// How much of a function's frame exists at an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameShape {
    /// `rbp` is the function's frame.
    Complete,
    /// The return address is on top of the stack and `rbp` the caller's: first instruction, or `ret`.
    NoFrame,
    /// As before, below the saved `rbp`: second instruction.
    FramePushed,
    /// The frame is being moved down to make room for a tail call's stack arguments; it is still whole this many bytes above `rsp`.
    Moving(usize),
}

fn shape_at(code: &LoadedCode, pc: usize) -> FrameShape {
    let Some(offset) = pc.checked_sub(code.text().start).and_then(|o| u32::try_from(o).ok()) else {
        return FrameShape::Complete;
    };
    let metadata = code.metadata();
    let function = metadata
        .func_at(offset)
        .and_then(|f| metadata.funcs.get((f as usize).checked_sub(metadata.imported_funcs.len())?));
    let Some(function) = function else { return FrameShape::NoFrame };
    let into = offset - function.offset;
    // SAFETY: the bytes of this function's code up to `pc`, and one at it; text is mapped and never changes.
    let bytes = unsafe {
        core::slice::from_raw_parts((code.text().start + function.offset as usize) as *const u8, into as usize + 1)
    };
    match (into, bytes) {
        (0, _) => FrameShape::NoFrame,
        // `push rbp` is one byte.
        (1, _) => FrameShape::FramePushed,
        // `ret`, `ret imm16`
        (_, [.., 0xc3 | 0xc2]) => FrameShape::NoFrame,
        // `mov r11, [rsp + disp8]`, `mov r11, [rsp + disp32]`, each before `mov [rsp], r11`
        (_, [.., 0x4c, 0x8b, 0x5c, 0x24, d, 0x4c]) => FrameShape::Moving(usize::from(*d)),
        (_, [.., 0x4c, 0x8b, 0x9c, 0x24, a, b, c, d, 0x4c]) if into < 40 => {
            FrameShape::Moving(u32::from_le_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => FrameShape::Complete,
    }
}
