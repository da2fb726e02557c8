//! CPU exceptions of wasm code become traps.
//!
//! The handler runs in exception context: it looks the program counter up, walks the stack into the innermost catch's
//! preallocated backtrace, and rewrites the saved context. Execution goes on at the catch, or, when native frames are in
//! between, in a routine that unwinds on the task's own stack.
//!
//! An exception in wasm code at an address that no trap site explains means that the code, or something it relies on, has
//! changed ([`integrity`](crate::integrity)): it is a trap too, `Corrupted`. So is a jump from wasm code to where no code is, and
//! an exception of native code under a cell whose code is proven to have changed.
//!
//! Other exceptions of native code are left to the port. That includes native code that a guest called close to the limit and that runs into the yellow zone: the port opens the
//! zone for it. It is closed again when a host closure returns to wasm (which traps when that is impossible, because the
//! guest itself is too close), and before the next call into wasm.

mod damaged;

use crate::call::{self, Owner, Start, Way, stack_arguments};
use crate::code::LoadedCode;
use crate::gate::{self, chain, is_gate, leaves_gates};
use crate::kill;
use crate::text_index::{Reader, TEXT};
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
    if context.exception == Exception::Interrupt {
        return interrupted(task, context);
    }
    let reader = TEXT.read();
    let text = reader.find(context.rip);
    let in_zone = context.fault_address.is_some_and(|a| is_stack_guard(task, a));
    let is_entry = |pc| call::is_enter(pc) || is_gate(pc) && !leaves_gates(pc);
    if text.is_none() && !(in_zone && is_entry(context.rip)) {
        if in_zone {
            // The port opens the zone now.
            call::stop_before_wasm(task);
            return None;
        }
        return damaged::native(task, context, &reader);
    }
    let code = text.and_then(|t| t.code()).map(|c| &**c);
    // No site is a breakpoint, and the address is not that of the instruction.
    let at_site = context.exception != Exception::Breakpoint;
    let trap = match code.filter(|_| at_site).and_then(|c| site(c, context.rip)) {
        _ if in_zone => TrapCode::StackOverflow,
        Some(trap) if damaged::stack_is_sane(task, context) => trap,
        _ => return damaged::wasm(task, context, &reader, code?),
    };
    let low = readable_from(task, context, in_zone);
    leave_wasm(task, context, &reader, code, trap, low)
}

/// A request to kill or a tick: the task stops if it is in wasm code, otherwise before it is next.
fn interrupted(task: &TaskLocals, context: &mut ExceptionContext) -> Option<()> {
    if !kill::requested(task) {
        return None;
    }
    // Also when it stops at once: the calls further out are to stop too.
    call::stop_before_wasm(task);
    let reader = TEXT.read();
    let code = reader.find(context.rip)?.code()?;
    leave_wasm(task, context, &reader, Some(code), TrapCode::Killed, context.rsp)
}

/// Rewrites the context so that it goes on at the catch, or unwinds to it. `low` is the lowest address of the stack that
/// can be read.
fn leave_wasm(
    task: &TaskLocals,
    context: &mut ExceptionContext,
    reader: &Reader<'_>,
    code: Option<&LoadedCode>,
    trap: TrapCode,
    low: usize,
) -> Option<()> {
    let catch = call::innermost(task);
    let stop = Stop::new(context, code, low);
    let way = match catch.is_null() {
        // Called by a raw entry, outside of any catch.
        true => Way::Unwind,
        // SAFETY: the innermost catch of the interrupted task, whose stack is mapped from the yellow zone's end up. What the
        // reader finds lives as long as the reader.
        false => unsafe {
            let find = |pc| Owner::find(reader, pc);
            call::walk(|| find(stop.start.pc), find, catch, trap as u32, stop.start)
        },
    };
    context.rflags &= !DIRECTION_FLAG;
    match way {
        Way::Jump => {
            // SAFETY: invariants 1 to 3 of `call`; `rsp` is not 0, or the walk would not have said so.
            context.rsp = unsafe { (*catch).rsp };
            context.rdi = catch as usize;
            context.rip = call::planks_land as *const () as usize;
            if let Some(record) = chain::plausible_below(task, catch as usize) {
                // The gates are left first, by ordinary code, above which their records must stay whole.
                context.rsp = record;
                context.rip = gate::planks_leave_gates as *const () as usize;
            }
        }
        Way::Unwind => {
            context.rax = trap as usize;
            (context.rsi, context.rsp) = stop.unwind_from(context);
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

/// Where wasm code stopped: at any instruction, so anywhere in a prologue or epilogue too.
///
/// The stack pointer says most of it. Wasm code keeps it a multiple of 16 while it has a frame (frames, stack arguments and what
/// a callee pops are multiples of 16), so it is not one exactly from a call to the `push rbp` behind it and from the
/// `pop rbp` of the epilogue to the next function's `push rbp`: in stubs and entries, in the moving of the return address before a tail
/// call, at `ret`. No byte of the code, which a module's author has a say in, needs to be looked at for that.
struct Stop {
    start: Start,
    shape: FrameShape,
}

impl Stop {
    /// Finds the innermost complete frame.
    fn new(context: &ExceptionContext, code: Option<&LoadedCode>, low: usize) -> Stop {
        let mut start = Start {
            pc: context.rip,
            exact: true,
            pending_return: None,
            pending_stack: context.rsp.wrapping_add(8),
            frame: context.rbp,
            low,
        };
        // SAFETY: `low` is the lowest readable address, and all that is read lies above it and below the catch.
        let word = |at: usize| (at >= low).then(|| unsafe { *(at as *const usize) });
        let Some(code) = code else {
            // The first push of a gate's routine.
            if is_gate(context.rip) && !context.rsp.is_multiple_of(16) {
                start.pending_return = word(context.rsp);
            }
            return Stop { start, shape: FrameShape::Complete };
        };
        let shape = FrameShape::at(code, context);
        match shape {
            FrameShape::Complete => {}
            FrameShape::NoFrame => {
                start.pending_return = word(context.rsp);
                start.pending_stack = start.pending_stack.wrapping_add(popped(code, context.rip));
            }
            FrameShape::FramePushed => {
                start.pending_return = word(context.rsp + 8);
                start.pending_stack = context.rsp.wrapping_add(16 + arguments(code, context.rip));
            }
            FrameShape::Moving(by) => {
                // Both words lie above the faulting address; `rbp` has moved to where nothing is yet.
                let old = context.rsp.wrapping_add(by);
                if let (Some(frame), Some(pc)) = (word(old), word(old + 8)) {
                    start.frame = frame;
                    start.pending_return = Some(pc);
                    start.pending_stack = old.wrapping_add(16 + arguments(code, context.rip));
                }
            }
        }
        Stop { start, shape }
    }

    /// Return address and stack pointer to unwind with. The cell's unwind rows are right at every instruction that has a
    /// frame, and in prologues; there are none for what is behind `pop rbp`, so that is unwound from the caller.
    fn unwind_from(&self, context: &ExceptionContext) -> (usize, usize) {
        let here = context.rip.wrapping_add(1);
        match (self.shape, self.start.pending_return) {
            (FrameShape::NoFrame, Some(caller)) => (caller, self.start.pending_stack),
            // An epilogue has moved the stack pointer up already, but the rows find the registers where they were saved.
            (FrameShape::Complete, _) => (here, context.rsp.min(context.rbp.wrapping_sub(SAVED_REGISTERS))),
            _ => (here, context.rsp),
        }
    }
}

/// Bytes of stack arguments above the return address of code without a frame: at the first instruction of a function, and at `ret`.
/// 0 elsewhere: where a tail call moves them nobody knows.
fn popped(code: &LoadedCode, rip: usize) -> usize {
    if function_at(code, rip).is_some_and(|(_, start)| start == rip) {
        return arguments(code, rip);
    }
    // SAFETY: the address of an instruction of a registered text, which is mapped; `ret imm16` has three bytes.
    unsafe {
        match *(rip as *const u8) {
            0xc2 => usize::from((rip as *const u8).add(1).cast::<u16>().read_unaligned()),
            _ => 0,
        }
    }
}

/// Bytes of stack arguments of the function that an address lies in.
fn arguments(code: &LoadedCode, pc: usize) -> usize {
    let ty = function_at(code, pc).and_then(|(function, _)| code.metadata().func_type(function));
    ty.map_or(0, stack_arguments)
}

/// Index and address of the function that an address lies in.
fn function_at(code: &LoadedCode, pc: usize) -> Option<(u32, usize)> {
    let (text, metadata) = (code.text(), code.metadata());
    let offset = pc.checked_sub(text.start).and_then(|at| u32::try_from(at).ok())?;
    let function = metadata.func_at(offset)?;
    let defined = metadata.funcs.get((function as usize).checked_sub(metadata.imported_funcs.len())?)?;
    Some((function, text.start + defined.offset as usize))
}

/// Bytes below `rbp` that can hold callee-saved registers: `rbx` and `r12` to `r15`, rounded up to 16.
const SAVED_REGISTERS: usize = 48;

/// How much of a function's frame exists at an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameShape {
    /// `rbp` is the function's frame.
    Complete,
    /// The return address is on top of the stack and `rbp` the caller's.
    NoFrame,
    /// As before, below the saved `rbp`: second instruction.
    FramePushed,
    /// The frame is being moved down to make room for a tail call's stack arguments; it is still whole this many bytes above `rsp`.
    Moving(usize),
}

impl FrameShape {
    fn at(code: &LoadedCode, context: &ExceptionContext) -> FrameShape {
        if !context.rsp.is_multiple_of(16) {
            return FrameShape::NoFrame;
        }
        let text = code.text();
        let Some(at) = context.rip.checked_sub(text.start) else { return FrameShape::Complete };
        // `push rbp` is one byte.
        if function_at(code, context.rip).is_some_and(|(_, start)| start + 1 == context.rip) {
            return FrameShape::FramePushed;
        }
        if context.rbp != context.rsp {
            return FrameShape::Complete;
        }
        // SAFETY: text is mapped and never changes.
        let text = unsafe { core::slice::from_raw_parts(text.start as *const u8, text.len()) };
        moved_by(text, at).map_or(FrameShape::Complete, FrameShape::Moving)
    }
}

/// By how many bytes the function moves its frame down, if the instruction is one of the four that do:
///
/// ```text
/// mov rbp, rsp
/// mov r11, [rsp + by];      mov [rsp], r11
/// mov r11, [rsp + by + 8];  mov [rsp + 8], r11
/// ```
fn moved_by(text: &[u8], at: usize) -> Option<usize> {
    /// Displacement and length of a `mov r11, [rsp + …]`.
    fn load(text: &[u8], at: usize) -> Option<(usize, usize)> {
        match text.get(at..)? {
            [0x4c, 0x8b, 0x5c, 0x24, d, ..] => Some((usize::from(*d), 5)),
            [0x4c, 0x8b, 0x9c, 0x24, a, b, c, d, ..] => Some((u32::from_le_bytes([*a, *b, *c, *d]) as usize, 8)),
            _ => None,
        }
    }
    let moves = |first: usize| {
        let (by, len) = load(text, first)?;
        let store = first + len;
        let (next, len) = load(text, store + 4)?;
        let last = store + 4 + len;
        let whole = text.get(first.checked_sub(3)?..first)? == [0x48, 0x89, 0xe5]
            && text.get(store..store + 4)? == [0x4c, 0x89, 0x1c, 0x24]
            && text.get(last..last + 5)? == [0x4c, 0x89, 0x5c, 0x24, 0x08]
            && next == by + 8
            && [first, store, store + 4, last].contains(&at);
        whole.then_some(by)
    };
    // The first of the four is at most two loads and a store before.
    (0..=20).find_map(|back| moves(at.checked_sub(back)?))
}
