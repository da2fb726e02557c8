//! CPU exceptions of native code: they unwind like panics (Theseus: `unwind_exceptions`, which is off there).
//!
//! An exception that no handler takes ends what the nearest catch encloses, with
//! [`KillReason::Exception`] and the vector's number; every task has a catch around all it does. Destructors of
//! the callers run. Those of the function that faulted run only if it stopped at a call, because compilers describe what is to be
//! cleaned up for calls alone: what the function owns otherwise leaks, and a spinning lock that it holds stays taken.
//!
//! Some exceptions cannot be left this way, and end the kernel with a report: with interrupts masked (the code holds a lock that handlers
//! need, or is a handler), outside of any catch, and on a stack that is not the task's.
//!
//! The handler decides in exception context, without locks or allocation, and rewrites the registers; raising happens on the task's own
//! stack. When that is full, the lowest part of it is opened, which is kept inaccessible for this purpose.

use super::{context::Registers, task};
use crate::unwind::{Context, KillReason, UnwindException, covers, finds_handler, resume_unwind};
use core::arch::global_asm;
use kernel_config::task::OVERFLOW_RESERVE;
use x86_64::registers::rflags::RFlags;

/// Bytes of stack that raising and the first destructors may need; with less, the reserve is opened first.
const ROOM: usize = OVERFLOW_RESERVE / 2;

/// Has the interrupted code go on by unwinding, if that is possible. `fault_address`: of a page fault.
///
/// Called in exception context, when no handler has taken the exception.
pub fn recover(registers: &mut Registers, fault_address: Option<usize>) -> bool {
    if registers.rflags & RFlags::INTERRUPT_FLAG.bits() as usize == 0 {
        return false;
    }
    let stack = task::current_stack();
    if !stack.contains(&registers.rsp) {
        return false;
    }
    let (mut pc, mut rsp) = (registers.rip, registers.rsp);
    if fault_address.is_none_or(|a| a == pc) && !covers(pc) {
        // A call of what is no code: it has pushed its return address. The address before is inside of the call.
        let Some(caller) = task::word_of_stack(rsp).filter(|caller| covers(caller.wrapping_sub(1))) else {
            return false;
        };
        (pc, rsp) = (caller - 1, rsp + size_of::<usize>());
    }
    let interrupted = Registers { rip: pc, rsp, ..*registers };
    let frame = Context::interrupted(pc, &interrupted.in_dwarf_order(), stack.end);
    let mut probe = UnwindException::new(super::unwind::CLASS);
    if !finds_handler(frame, &mut probe) {
        return false;
    }
    let is_full = rsp - stack.start < OVERFLOW_RESERVE + ROOM;
    if is_full && !task::open_overflow_reserve() {
        return false;
    }
    registers.rdi = registers.vector;
    registers.rsi = pc;
    registers.rsp = rsp;
    registers.rip = planks_native_fault as *const () as usize;
    registers.rflags &= !(RFlags::DIRECTION_FLAG.bits() as usize);
    true
}

/// Raises the exception on the task's own stack.
extern "C-unwind" fn raise(vector: usize) -> ! {
    resume_unwind(KillReason::Exception(vector as u8))
}

unsafe extern "C" {
    /// Where interrupted code goes on: `rdi` = the vector's number, `rsi` = where it was interrupted, all else as it was.
    safe fn planks_native_fault();
}

// Its caller is a frame that was interrupted, at the address that is pushed.
global_asm!(
    ".section .text.planks_native_fault, \"ax\", @progbits",
    ".globl planks_native_fault",
    ".type planks_native_fault, @function",
    "planks_native_fault:",
    ".cfi_startproc",
    ".cfi_signal_frame",
    ".cfi_def_cfa_offset 0",
    ".cfi_undefined rip",
    "push rsi",
    ".cfi_def_cfa_offset 8",
    ".cfi_offset rip, -8",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "and rsp, -16",
    "call {raise}",
    "ud2",
    ".cfi_endproc",
    ".size planks_native_fault, . - planks_native_fault",
    ".text",
    raise = sym raise,
);
