//! The routine behind gate stubs: takes the gate, calls the function, leaves the gate.
//!
//! `planks_gate` is for signatures without stack arguments; `planks_gate_stack` copies them below its own frame and pops them as
//! the function itself would. The frame holds the record of the entry (`chain::Record`):
//!
//! ```text
//! rbp + 8   return address
//! rbp       saved rbp
//! rbp - 8   saved rbx
//! rbp - 16  address of the stub's data     ─┐
//! rbp - 24  gate                            ├ the record
//! rbp - 32  the record further out         ─┘
//! ```
//!
//! The frame is touched before the gate is taken, and the record linked before the function is called, so a stack overflow at any
//! instruction either finds the gate not taken or the record on the chain. Kills act in wasm text only, never here. Arguments stay where
//! they are on the way in, results on the way out, so `rax`, `r10`, `r11` and `r11` alone are free, and `rbx`, once saved.
//!
//! Unwinding: the part that calls the function has a personality, which leaves the gate when a panic passes. The parts that call Rust code
//! have none: while those run the record is not linked.

use super::chain::{self, CHAIN_SLOT};
use super::protocol::{Gate, Refused, Waiter};
use super::stub::StubData;
use super::{GateError, Wait, word_of};
use crate::call::{current_task, raise, ready_to_return};
use crate::entries;
use alloc::boxed::Box;
use chain::Record;
use core::arch::global_asm;
use core::mem::offset_of;
use core::time::Duration;
use runtime_port::task::TaskLocals;
use wasm_cell::trap::TrapCode;

unsafe extern "C-unwind" {
    /// Expects the task in `rax`, the gate in `r10`, the stub's data in `r11`, otherwise the wasm convention.
    pub(super) fn planks_gate();
    /// The same for functions with stack arguments.
    pub(super) fn planks_gate_stack();
    /// The same without a task in `rax`.
    pub(super) fn planks_gate_find();
    /// The same for functions with stack arguments.
    pub(super) fn planks_gate_find_stack();
    /// Where traps go when gates are to be left before they land: `rdi` = the catch, `rsp` = the innermost record.
    pub(crate) fn planks_leave_gates();
    /// First byte behind the routines.
    static planks_gate_end: u8;
}

/// Whether a program counter or return address lies in the routines.
#[inline]
pub(crate) fn is_gate(pc: usize) -> bool {
    let start = planks_gate as *const () as usize;
    let end = &raw const planks_gate_end as usize;
    pc.wrapping_sub(start) < end - start
}

/// Whether a program counter lies where traps leave gates: native code that runs on the stack below the innermost record, and may need what
/// lies behind the limit of wasm code there.
#[inline]
pub(crate) fn leaves_gates(pc: usize) -> bool {
    let start = planks_leave_gates as *const () as usize;
    let end = &raw const planks_gate_end as usize;
    pc.wrapping_sub(start) < end - start
}

/// What the assembly does next.
#[repr(C)]
struct Next {
    what: u64,
    target: usize,
}

impl Next {
    /// The record is linked: call the target, then leave.
    fn call(target: usize) -> Next {
        Next { what: 0, target }
    }

    /// Jump to the target without a frame.
    fn go(target: usize) -> Next {
        Next { what: 1, target }
    }

    /// Raise a trap in the caller.
    fn raise(code: u32) -> Next {
        Next { what: 2, target: code as usize }
    }
}

/// The way in when the gate could not simply be taken, or something is to be looked at. `took` is 1 when it was taken.
///
/// # Safety
/// Called by the routines only: `record` lies in their frame, filled in but for the link.
unsafe extern "C-unwind" fn enter_slowly(record: *mut Record, took: u32) -> Next {
    let (task, took) = (current_task(), took == 1);
    // SAFETY: the stub's data and the gate of the record belong to a cell that the task is about to be inside of.
    let (stub, gate) = unsafe { (StubData::at((*record).stub), &*(*record).gate) };
    let Some(membership) = stub.instance().membership() else { return Next::raise(TrapCode::FunctionGone as u32) };
    // Another version has taken the place of this one, and its entry leads there already.
    let elsewhere = || {
        let entry = stub.entry();
        // SAFETY: a stable entry, which is code and is followed by more than its own length.
        let target = unsafe { entries::target_of(entry) };
        (membership.is_superseded() && target != Some(stub.stub())).then_some(entry)
    };
    if let Some(entry) = elsewhere() {
        if took {
            gate.leave();
        }
        return Next::go(entry);
    }
    let domain = membership.first_domain();
    if !took && domain.gate().is_held_by(word_of(task)) {
        // It was joined to one that the task is inside of.
        return Next::go(stub.body());
    }
    let mut wait = Wait::new(task, None);
    let from = if took { gate } else { domain.gate() };
    match from.enter(&Waiter::new(word_of(task), task.id.get()), took, &mut wait) {
        Ok(gate) => {
            gate.set_entered(core::ptr::from_ref(stub).addr());
            // SAFETY: the caller's promise.
            unsafe {
                (*record).gate = gate;
                chain::link(task, record);
            }
            if let Err(trap) = ready_to_return() {
                chain::leave_innermost(task);
                return Next::raise(trap.code() as u32);
            }
            // The call has waited for its turn: it keeps it, also when it goes by the entry.
            Next::call(elsewhere().unwrap_or_else(|| stub.body()))
        }
        Err(Refused::Cancelled) => Next::raise(TrapCode::Killed as u32),
        Err(refused) => {
            raise::note_error(Box::new(domain.error(refused, wait, Duration::MAX)));
            Next::raise(TrapCode::Deadlock as u32)
        }
    }
}

/// The way out when something is to be looked at; the record is off the chain. `left` is 1 when the gate is free already. Returns 0, or the code
/// of the trap to raise.
///
/// # Safety
/// Called by the routines only.
unsafe extern "C-unwind" fn leave_slowly(gate: *const Gate, left: u32) -> u32 {
    // SAFETY: the gate of a record, whose domain lives as long as the task is in its cell.
    let gate = unsafe { &*gate };
    match left {
        1 => gate.settle(),
        _ => chain::leave_if_last(current_task(), gate),
    }
    match ready_to_return() {
        Ok(()) => 0,
        Err(trap) => trap.code() as u32,
    }
}

/// Leaves every gate that was entered since a catch was made.
extern "C-unwind" fn leave_gates(catch: usize) {
    chain::release_to(current_task(), catch);
}

extern "C-unwind" fn find_task() -> *const TaskLocals {
    current_task()
}

/// `_UA_CLEANUP_PHASE` (Itanium C++ ABI, exception handling, 1.5.2).
const CLEANUP_PHASE: i32 = 2;
/// `_URC_CONTINUE_UNWIND` (the same, 1.2).
const CONTINUE_UNWIND: i32 = 8;

/// The personality of the routines' frames: an unwinder passes from the innermost frame outwards, so when it cleans up one of these frames, its
/// record is the innermost that is left.
extern "C" fn personality(_version: i32, actions: i32, _class: u64, _exception: *mut u8, _context: *mut u8) -> i32 {
    if actions & CLEANUP_PHASE != 0 {
        chain::leave_innermost(current_task());
    }
    CONTINUE_UNWIND
}

/// The error of an indefinite wait inside of a gate, noted for the trap that is about to be raised.
pub(crate) fn note_indefinite_wait() {
    raise::note_error(Box::new(GateError::IndefiniteWait));
}

const _: () = {
    assert!(offset_of!(Record, previous) == 0);
    assert!(offset_of!(Record, gate) == 8);
    assert!(offset_of!(Record, stub) == 16);
    assert!(offset_of!(TaskLocals, slots) == 0 && CHAIN_SLOT == 3);
};

global_asm!(
    r#"
    .pushsection .text.planks_gate,"ax",@progbits

    .macro planks_gate_frame
    .cfi_def_cfa rbp, 16
    .cfi_offset rbp, -16
    .cfi_offset rbx, -24
    .endm

    .macro planks_gate_save a, b, c, d, e, f, g, h
    sub rsp, 192
    mov [rsp], \a
    mov [rsp + 8], \b
    mov [rsp + 16], \c
    mov [rsp + 24], \d
    mov [rsp + 32], \e
    mov [rsp + 40], \f
    mov [rsp + 48], \g
    mov [rsp + 56], \h
    movaps [rsp + 64], xmm0
    movaps [rsp + 80], xmm1
    movaps [rsp + 96], xmm2
    movaps [rsp + 112], xmm3
    movaps [rsp + 128], xmm4
    movaps [rsp + 144], xmm5
    movaps [rsp + 160], xmm6
    movaps [rsp + 176], xmm7
    cld
    .endm

    .macro planks_gate_restore a, b, c, d, e, f, g, h
    mov \a, [rsp]
    mov \b, [rsp + 8]
    mov \c, [rsp + 16]
    mov \d, [rsp + 24]
    mov \e, [rsp + 32]
    mov \f, [rsp + 40]
    mov \g, [rsp + 48]
    mov \h, [rsp + 56]
    movaps xmm0, [rsp + 64]
    movaps xmm1, [rsp + 80]
    movaps xmm2, [rsp + 96]
    movaps xmm3, [rsp + 112]
    movaps xmm4, [rsp + 128]
    movaps xmm5, [rsp + 144]
    movaps xmm6, [rsp + 160]
    movaps xmm7, [rsp + 176]
    add rsp, 192
    .endm

    .macro planks_gate_routine name, stack
    .p2align 6
    .globl \name
    .hidden \name
    .type \name,@function
\name:
    .cfi_startproc
    .cfi_personality 0x1b, {personality}
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    push rbx
    .cfi_offset rbx, -24
    push r11
    push r10
    push qword ptr [rax + 24]
    mov rbx, rax
    xor eax, eax
    lock cmpxchg [r10], rbx
    jne .L\name\()_wait
    cmp dword ptr [r10 + 8], 0
    jne .L\name\()_took
    movsxd rax, dword ptr [r11]
    cmp [r11 + rax], r10
    jne .L\name\()_took
    mov [r10 + 16], r11
    mov [rbx + 24], rsp
    movsxd rax, dword ptr [r11 + 4]
    add rax, r11
.L\name\()_call:
    .if \stack
    mov r11, [rbp - 16]
    mov r11d, [r11 + 12]
    push r11
    push r11
    /* The CFA is what the caller's stack pointer becomes: rbp + 16 + [rbp - 40]. */
    .cfi_escape 0x0f, 6, 0x76, 0x58, 0x06, 0x76, 0x10, 0x22
    .cfi_escape 0x10, 6, 2, 0x76, 0x00
    .cfi_escape 0x10, 16, 2, 0x76, 0x08
    .cfi_escape 0x10, 3, 2, 0x76, 0x78
2:  push qword ptr [rbp + r11 + 8]
    sub r11, 8
    jnz 2b
    .endif
    call rax
    mov r11, [rbp - 32]
    mov [rbx + 24], r11
    mov r11, [rbp - 24]
    cmp dword ptr [r11 + 8], 0
    jne .L\name\()_leave
    mov qword ptr [r11], 0
    cmp dword ptr [r11 + 8], 0
    jne .L\name\()_settle
.L\name\()_out:
    .if \stack
    mov r11, [rbp - 16]
    mov r11d, [r11 + 12]
    mov rbx, [rbp + 8]
    mov [rbp + r11 + 8], rbx
    mov rbx, [rbp]
    mov [rbp + r11], rbx
    mov rbx, [rbp - 8]
    lea rbp, [rbp + r11]
    .cfi_def_cfa rbp, 16
    .cfi_offset rbp, -16
    .cfi_offset rip, -8
    .cfi_restore rbx
    .else
    mov rbx, [rbp - 8]
    .endif
    leave
    .cfi_def_cfa rsp, 8
    ret
    .cfi_endproc
    .size \name, . - \name

    /* Entering slowly. No personality: the record is not linked. */
    .cfi_startproc
    planks_gate_frame
.L\name\()_took:
    mov eax, 1
    jmp 3f
.L\name\()_wait:
    xor eax, eax
3:  planks_gate_save rdi, rsi, rdx, rcx, r8, r9, r10, r11
    lea rdi, [rbp - 32]
    mov esi, eax
    call {enter}
    mov r10, rax
    mov rax, rdx
    planks_gate_restore rdi, rsi, rdx, rcx, r8, r9, r11, r11
    test r10, r10
    jz .L\name\()_call
    mov rbx, [rbp - 8]
    .cfi_remember_state
    .cfi_restore rbx
    leave
    .cfi_def_cfa rsp, 8
    cmp r10, 2
    je {raise}
    jmp rax
    .cfi_restore_state

    /* Leaving slowly. */
.L\name\()_leave:
    xor r11d, r11d
    jmp 3f
.L\name\()_settle:
    mov r11d, 1
3:  planks_gate_save rax, rcx, rdx, rsi, rdi, r8, r9, r10
    mov rdi, [rbp - 24]
    mov esi, r11d
    call {leave}
    mov r11d, eax
    planks_gate_restore rax, rcx, rdx, rsi, rdi, r8, r9, r10
    test r11d, r11d
    jz .L\name\()_out
    mov eax, r11d
    mov rbx, [rbp - 8]
    .cfi_restore rbx
    leave
    .cfi_def_cfa rsp, 8
    jmp {raise}
    .cfi_endproc
    .endm

    .macro planks_gate_finder name, routine
    .p2align 4
    .globl \name
    .hidden \name
    .type \name,@function
\name:
    .cfi_startproc
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    planks_gate_save rdi, rsi, rdx, rcx, r8, r9, r10, r11
    call {find}
    planks_gate_restore rdi, rsi, rdx, rcx, r8, r9, r10, r11
    leave
    .cfi_def_cfa rsp, 8
    cmp [r10], rax
    jne \routine
    movsxd rax, dword ptr [r11 + 4]
    add rax, r11
    jmp rax
    .cfi_endproc
    .size \name, . - \name
    .endm

    planks_gate_routine planks_gate, 0
    planks_gate_routine planks_gate_stack, 1
    planks_gate_finder planks_gate_find, planks_gate
    planks_gate_finder planks_gate_find_stack, planks_gate_stack
    .p2align 4
    .globl planks_leave_gates
    .hidden planks_leave_gates
    .type planks_leave_gates,@function
planks_leave_gates:
    .cfi_startproc
    .cfi_undefined rip
    mov rbx, rdi
    xor ebp, ebp
    cld
    call {leave_gates}
    mov rdi, rbx
    mov rsp, [rbx]
    jmp {land}
    .cfi_endproc
    .size planks_leave_gates, . - planks_leave_gates
    .globl planks_gate_end
    .hidden planks_gate_end
planks_gate_end:
    .purgem planks_gate_frame
    .purgem planks_gate_save
    .purgem planks_gate_restore
    .purgem planks_gate_routine
    .purgem planks_gate_finder
    .popsection
    "#,
    personality = sym personality,
    enter = sym enter_slowly,
    leave = sym leave_slowly,
    find = sym find_task,
    raise = sym crate::call::planks_raise,
    leave_gates = sym leave_gates,
    land = sym crate::call::planks_land,
);
