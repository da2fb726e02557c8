//! From wasm to a host closure: the assembly that every thunk jumps to.
//!
//! `planks_host` spills the argument registers, calls [`host_call`], and loads the result registers. When the closure failed it takes
//! its frame down and jumps to the raise routine, as if the caller's call instruction were the trap site: no native frame is left.
//!
//! `planks_host_stack` is for functions with stack arguments. It pops them, as the convention wants of a callee, by moving its own frame
//! up over them, also before it raises. An unwinder needs their number to find the stack pointer of a native caller below tail calls
//! (docs/CELL_ABI.md, "Functions"); it is in the frame, for an expression.

use super::HostBody;
use crate::call::{Registers, raise, ready_to_return};
use crate::caller::Caller;
use crate::instance::InstanceRecord;
use alloc::sync::Arc;
use core::arch::global_asm;
use core::mem::offset_of;

/// What a thunk hands to the trampoline in `r11`.
#[repr(C)]
pub(super) struct Environment {
    /// Bytes of stack arguments. Read by the assembly.
    pub(super) pop: usize,
    pub(super) body: Arc<dyn HostBody>,
    /// The importing instance; null for a thunk without one. Valid while calls arrive, says the thunk's maker.
    pub(super) importer: *const InstanceRecord,
}

const _: () = assert!(offset_of!(Environment, pop) == 0);
const _: () = assert!(size_of::<Registers>() == 192);

unsafe extern "C-unwind" {
    /// Expects a `*const Environment` in `r11`, otherwise the wasm convention without stack arguments.
    fn planks_host();
    /// The same with stack arguments.
    fn planks_host_stack();
    /// First byte behind it.
    static planks_host_end: u8;
}

/// The routine for functions that pop this many bytes of stack arguments.
pub(super) fn routine(pop: usize) -> usize {
    if pop == 0 { planks_host as *const () as usize } else { planks_host_stack as *const () as usize }
}

/// Whether an address lies in one of the routines.
pub(crate) fn is_host_trampoline(pc: usize) -> bool {
    (planks_host as *const () as usize..&raw const planks_host_end as usize).contains(&pc)
}

/// Runs the closure. Returns 0, or the trap code to raise.
///
/// # Safety
/// Called by the routines of this file only: `registers` and `stack` hold the arguments.
unsafe extern "C-unwind" fn host_call(env: *const Environment, registers: *mut Registers, stack: *mut u64) -> u32 {
    // SAFETY: the thunk keeps the environment while calls arrive; `registers` lies in the frame of the routine.
    let result = unsafe {
        let env = &*env;
        let caller = Caller::new(env.importer);
        env.body.call(&caller, &mut *registers, stack)
    };
    match (result, ready_to_return()) {
        (Ok(()), Ok(())) => 0,
        (Ok(()), Err(trap)) => trap.code() as u32,
        (Err(e), _) => raise::fail(e),
    }
}

global_asm!(
    r#"
    .pushsection .text.planks_host,"ax",@progbits
    .macro planks_host_routine name, stack
    .p2align 6
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
    sub rsp, 208
    mov [rbp - 8], r11
    .if \stack
    /* The CFA is what the caller's stack pointer becomes: rbp + 16 + [rbp - 16]. */
    mov rax, [r11]
    mov [rbp - 16], rax
    .cfi_escape 0x0f, 6, 0x76, 0x70, 0x06, 0x76, 0x10, 0x22
    .cfi_escape 0x10, 6, 2, 0x76, 0x00
    .cfi_escape 0x10, 16, 2, 0x76, 0x08
    .endif
    mov [rsp], rdi
    mov [rsp + 8], rsi
    mov [rsp + 16], rdx
    mov [rsp + 24], rcx
    mov [rsp + 32], r8
    mov [rsp + 40], r9
    movaps [rsp + 64], xmm0
    movaps [rsp + 80], xmm1
    movaps [rsp + 96], xmm2
    movaps [rsp + 112], xmm3
    movaps [rsp + 128], xmm4
    movaps [rsp + 144], xmm5
    movaps [rsp + 160], xmm6
    movaps [rsp + 176], xmm7
    mov rdi, r11
    mov rsi, rsp
    lea rdx, [rbp + 16]
    call {host_call}
    .if \stack
    /* Move saved rbp and return address up over the stack arguments. */
    mov r11, [rbp - 16]
    mov rdx, [rbp]
    mov rcx, [rbp + 8]
    add rbp, r11
    mov [rbp], rdx
    mov [rbp + 8], rcx
    .cfi_def_cfa rbp, 16
    .cfi_offset rbp, -16
    .cfi_offset rip, -8
    .endif
    test eax, eax
    jnz 3f
    mov rax, [rsp]
    mov rcx, [rsp + 8]
    mov rdx, [rsp + 16]
    mov rsi, [rsp + 24]
    mov rdi, [rsp + 32]
    mov r8, [rsp + 40]
    mov r9, [rsp + 48]
    mov r10, [rsp + 56]
    movaps xmm0, [rsp + 64]
    movaps xmm1, [rsp + 80]
    movaps xmm2, [rsp + 96]
    movaps xmm3, [rsp + 112]
    movaps xmm4, [rsp + 128]
    movaps xmm5, [rsp + 144]
    movaps xmm6, [rsp + 160]
    movaps xmm7, [rsp + 176]
    leave
    .cfi_remember_state
    .cfi_def_cfa rsp, 8
    ret
    .cfi_restore_state
3:  leave
    .cfi_def_cfa rsp, 8
    jmp {raise}
    .cfi_endproc
    .size \name, . - \name
    .endm

    planks_host_routine planks_host, 0
    planks_host_routine planks_host_stack, 1
    .globl planks_host_end
    .hidden planks_host_end
planks_host_end:
    .purgem planks_host_routine
    .popsection
    "#,
    host_call = sym host_call,
    raise = sym crate::call::planks_raise,
);
