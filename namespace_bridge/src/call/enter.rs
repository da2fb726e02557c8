//! The assembly of the call path: entering wasm, landing at a catch, and the routine that trap stubs jump to.
//!
//! `planks_enter_*` make a frame with every callee-saved register in it, note `rsp` in the [`Catch`](super::Catch) record and call the
//! entry. Wasm code preserves callee-saved registers, so a normal return restores only what the routine itself used; `planks_land`
//! restores all of them, and MXCSR and the x87 control word (System V psABI, 3.2.1: callee-saved) as the task had them at its first
//! call. Wasm code never changes those; this guards against a native function that does and does not put them back.
//!
//! Every routine keeps `CFA = rbp + 16` from its second instruction on, so unwinding through it needs no more.

use core::arch::global_asm;

unsafe extern "C-unwind" {
    /// Enters with up to two integer arguments. The argument is a `*mut Catch`.
    pub(super) fn planks_enter_pair(catch: *mut u8);
    /// Enters with integer registers only.
    pub(super) fn planks_enter_integers(catch: *mut u8);
    /// Enters with integer and vector registers.
    pub(super) fn planks_enter_registers(catch: *mut u8);
    /// Enters with registers and stack arguments, and stores all result registers.
    pub(super) fn planks_enter_full(catch: *mut u8);
    /// First byte behind the `planks_enter` routines.
    static planks_enter_end: u8;
    /// Where traps land: `rdi` = the catch, `rsp` = its `rsp`.
    pub(crate) fn planks_land();
    /// Entry of a function that is gone: traps in its caller.
    pub(super) fn planks_gone();
    /// What trap stubs jump to: `eax` = code, `[rsp]` = return address of the trap site, `rbp` = its frame.
    pub(crate) fn planks_raise();
    /// Unwinds from a faulting instruction: `eax` = code, `rsi` = its address + 1, `rsp` and `rbp` as they were. Pushes
    /// `rsi` as return address itself, so that a fault of the push is one of native code that needs stack.
    pub(crate) fn planks_raise_unwinding();
    /// First byte behind all of these.
    static planks_call_end: u8;
}

/// Lands at a catch.
///
/// # Safety
/// It is the task's innermost one, and its `rsp` is not 0.
pub(super) unsafe fn land(catch: *mut super::Catch) -> ! {
    // SAFETY: by the caller; `rsp` is the first word of the record.
    unsafe {
        core::arch::asm!("mov rsp, [rdi]", "jmp {land}", in("rdi") catch, land = sym planks_land, options(noreturn))
    }
}

/// MXCSR, and above it the x87 control word.
pub(super) fn control_state() -> usize {
    let (mut mxcsr, mut x87) = (0u32, 0u16);
    // SAFETY: stores the two registers to the two variables.
    unsafe {
        core::arch::asm!("stmxcsr [{}]", "fnstcw [{}]", in(reg) &raw mut mxcsr, in(reg) &raw mut x87, options(nostack));
    }
    // Without the status flags of earlier operations, which are nobody's to restore.
    (mxcsr & !0x3f) as usize | usize::from(x87) << 32
}

/// Whether a return address lies in one of the `planks_enter` routines.
#[inline]
pub(crate) fn is_enter(pc: usize) -> bool {
    let start = planks_enter_pair as *const () as usize;
    let end = &raw const planks_enter_end as usize;
    pc.wrapping_sub(start) < end - start
}

/// Whether an address lies in one of the routines of this file.
pub(crate) fn is_call_routine(pc: usize) -> bool {
    (planks_enter_pair as *const () as usize..&raw const planks_call_end as usize).contains(&pc)
}

global_asm!(
    r#"
    .pushsection .text.planks_enter,"ax",@progbits
    .macro planks_frame
    .cfi_startproc
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push rdi
    .cfi_offset rbx, -24
    .cfi_offset r12, -32
    .cfi_offset r13, -40
    .cfi_offset r14, -48
    .cfi_offset r15, -56
    mov [rdi], rsp
    .endm

    .macro planks_load_pair
    mov rsi, [rdi + 56]
    mov rdi, [rdi + 48]
    .endm

    .macro planks_load_integers
    mov rdx, [rdi + 64]
    mov rcx, [rdi + 72]
    mov r8, [rdi + 80]
    mov r9, [rdi + 88]
    planks_load_pair
    .endm

    .macro planks_load_floats
    movaps xmm0, [rdi + 112]
    movaps xmm1, [rdi + 128]
    movaps xmm2, [rdi + 144]
    movaps xmm3, [rdi + 160]
    movaps xmm4, [rdi + 176]
    movaps xmm5, [rdi + 192]
    movaps xmm6, [rdi + 208]
    movaps xmm7, [rdi + 224]
    .endm

    .macro planks_leave
    leave
    .cfi_remember_state
    .cfi_def_cfa rsp, 8
    ret
    .cfi_restore_state
    .cfi_endproc
    .endm

    .p2align 6
    .globl planks_enter_pair
    .hidden planks_enter_pair
    .type planks_enter_pair,@function
planks_enter_pair:
    planks_frame
    mov r11, [rdi + 16]
    planks_load_pair
    call r11
    mov rdx, [rbp - 48]
    mov [rdx + 48], rax
    movaps [rdx + 112], xmm0
    planks_leave
    .size planks_enter_pair, . - planks_enter_pair

    .p2align 6
    .globl planks_enter_integers
    .hidden planks_enter_integers
    .type planks_enter_integers,@function
planks_enter_integers:
    planks_frame
    mov r11, [rdi + 16]
    planks_load_integers
    call r11
    mov rdx, [rbp - 48]
    mov [rdx + 48], rax
    movaps [rdx + 112], xmm0
    planks_leave
    .size planks_enter_integers, . - planks_enter_integers

    .p2align 6
    .globl planks_enter_registers
    .hidden planks_enter_registers
    .type planks_enter_registers,@function
planks_enter_registers:
    planks_frame
    mov r11, [rdi + 16]
    planks_load_floats
    planks_load_integers
    call r11
    mov rdx, [rbp - 48]
    mov [rdx + 48], rax
    movaps [rdx + 112], xmm0
    planks_leave
    .size planks_enter_registers, . - planks_enter_registers

    .p2align 6
    .globl planks_enter_full
    .hidden planks_enter_full
    .type planks_enter_full,@function
planks_enter_full:
    planks_frame
    mov r8, rdi
    mov rcx, [rdi + 32]
    mov rsi, [rdi + 24]
    mov rax, rcx
    /* One page at a time, so that a guard below the stack is met and not jumped over. */
2:  cmp rax, 4096
    jb 3f
    sub rsp, 4096
    test qword ptr [rsp], rsp
    sub rax, 4096
    jmp 2b
3:  sub rsp, rax
    mov rdi, rsp
    shr rcx, 3
    cld
    rep movsq
    mov rdi, r8
    mov r11, [rdi + 16]
    planks_load_floats
    planks_load_integers
    call r11
    mov r11, [rbp - 48]
    mov [r11 + 48], rax
    mov [r11 + 56], rcx
    mov [r11 + 64], rdx
    mov [r11 + 72], rsi
    mov [r11 + 80], rdi
    mov [r11 + 88], r8
    mov [r11 + 96], r9
    mov [r11 + 104], r10
    movaps [r11 + 112], xmm0
    movaps [r11 + 128], xmm1
    movaps [r11 + 144], xmm2
    movaps [r11 + 160], xmm3
    movaps [r11 + 176], xmm4
    movaps [r11 + 192], xmm5
    movaps [r11 + 208], xmm6
    movaps [r11 + 224], xmm7
    planks_leave
    .size planks_enter_full, . - planks_enter_full
    .globl planks_enter_end
    .hidden planks_enter_end
planks_enter_end:

    .p2align 4
    .globl planks_land
    .hidden planks_land
    .type planks_land,@function
planks_land:
    .cfi_startproc
    .cfi_def_cfa rsp, 64
    .cfi_offset rbp, -16
    .cfi_offset rbx, -24
    .cfi_offset r12, -32
    .cfi_offset r13, -40
    .cfi_offset r14, -48
    .cfi_offset r15, -56
    cld
    /* From `planks_raise`, which has cleared the direction flag. */
2:  lea rbp, [rsp + 48]
    ldmxcsr [rdi + 8]
    fldcw [rdi + 12]
    pop rdi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    .cfi_def_cfa rsp, 8
    /* The calls that are jumped over are on the processor's own stack of return addresses: a `ret` would be mispredicted. */
    pop rcx
    .cfi_def_cfa_offset 0
    .cfi_register rip, rcx
    jmp rcx
    .cfi_endproc
    .size planks_land, . - planks_land

    .p2align 4
    .globl planks_gone
    .hidden planks_gone
    .type planks_gone,@function
planks_gone:
    .cfi_startproc
    mov eax, {gone}
    jmp planks_raise
    .cfi_endproc
    .size planks_gone, . - planks_gone

    .p2align 4
    .globl planks_raise
    .hidden planks_raise
    .type planks_raise,@function
planks_raise:
    .cfi_startproc
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    and rsp, -16
    cld
    mov edi, eax
    mov rsi, [rbp + 8]
    mov rdx, [rbp]
    call {raise}
    mov rdi, rax
    mov rsp, [rax]
    .cfi_def_cfa rsp, 64
    jmp 2b
    .cfi_endproc
    .size planks_raise, . - planks_raise

    .p2align 4
    .globl planks_raise_unwinding
    .hidden planks_raise_unwinding
    .type planks_raise_unwinding,@function
planks_raise_unwinding:
    .cfi_startproc
    .cfi_def_cfa_offset 0
    .cfi_undefined rip
    push rsi
    .cfi_def_cfa_offset 8
    .cfi_offset rip, -8
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    and rsp, -16
    cld
    mov edi, eax
    call {unwind}
    ud2
    .cfi_endproc
    .size planks_raise_unwinding, . - planks_raise_unwinding
    .globl planks_call_end
    .hidden planks_call_end
planks_call_end:
    .purgem planks_frame
    .purgem planks_leave
    .purgem planks_load_pair
    .purgem planks_load_integers
    .purgem planks_load_floats
    .popsection
    "#,
    raise = sym super::raise::raise,
    unwind = sym super::raise::unwind_from_fault,
    gone = const wasm_cell::trap::TrapCode::FunctionGone as u32,
);
