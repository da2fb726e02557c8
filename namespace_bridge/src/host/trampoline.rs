//! From wasm to a host closure: the assembly that every thunk jumps to.
//!
//! `planks_host` spills the argument registers, calls [`host_call`], and loads the result registers. It pops the stack arguments,
//! as the convention wants of a callee, by moving its own frame up over them. When the closure failed it takes its frame down
//! and jumps to the raise routine, as if the caller's call instruction were the trap site: no native frame is left.

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
    /// Expects a `*const Environment` in `r11`, otherwise the wasm convention.
    pub(super) fn planks_host();
    /// First byte behind it.
    static planks_host_end: u8;
}

/// Whether an address lies in the trampoline.
pub(crate) fn is_host_trampoline(pc: usize) -> bool {
    (planks_host as *const () as usize..&raw const planks_host_end as usize).contains(&pc)
}

/// Runs the closure. Returns 0, or the trap code to raise.
///
/// # Safety
/// Called by `planks_host` only: `registers` and `stack` hold the arguments.
unsafe extern "C-unwind" fn host_call(env: *const Environment, registers: *mut Registers, stack: *mut u64) -> u32 {
    // SAFETY: the thunk keeps the environment while calls arrive; `registers` lies in the frame of `planks_host`.
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
    .p2align 6
    .globl planks_host
    .hidden planks_host
    .type planks_host,@function
planks_host:
    .cfi_startproc
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    sub rsp, 208
    mov [rbp - 8], r11
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
    test eax, eax
    jnz 3f
    mov r11, [rbp - 8]
    mov r11, [r11]
    test r11, r11
    jz 2f
    /* Move saved rbp and return address up over the stack arguments. */
    mov rax, [rbp]
    mov rcx, [rbp + 8]
    add rbp, r11
    mov [rbp], rax
    mov [rbp + 8], rcx
2:  mov rax, [rsp]
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
    .size planks_host, . - planks_host
    .globl planks_host_end
    .hidden planks_host_end
planks_host_end:
    .popsection
    "#,
    host_call = sym host_call,
    raise = sym crate::call::planks_raise,
);
