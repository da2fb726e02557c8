//! The symbols of the unwinder's interface (psABI, 6.2): `_Unwind_RaiseException` and the others.
//!
//! They are *hidden*: all code linked into this executable or library statically, std's included, uses this unwinder, and
//! nobody else in the process notices. They are weak, so that two copies of this crate can be linked together.
//!
//! Routines that start or go on with unwinding save the callee-saved registers of their caller and call their Rust half; the accessors
//! are loads and stores. A context that another unwinder made has the same layout, but registers by reference.

use super::context::Context;
use super::two_phase::{self, ReasonCode, UnwindException};
use core::arch::global_asm;

unsafe extern "C-unwind" {
    /// Goes on in the frame of the context.
    fn planks_install_context(context: *mut u8) -> !;
    /// Whether an exception raised here would get as far as this stack address.
    safe fn planks_is_clear(up_to: usize) -> bool;
    /// Raises an exception (psABI, 6.2.2). Returns the reason when nobody handles it.
    ///
    /// # Safety
    /// It must live until it is caught or destroyed.
    #[link_name = "_Unwind_RaiseException"]
    pub fn raise_exception(exception: *mut UnwindException) -> ReasonCode;
}

/// Whether unwinding from here would get as far as the stack address `up_to`: every frame on the way has unwind info that is what
/// it was when it was registered. Personality routines are not asked.
pub fn is_clear(up_to: usize) -> bool {
    planks_is_clear(up_to)
}

/// Goes on in the frame that the context describes, with the registers it has.
///
/// # Safety
/// A personality routine has set the context.
pub(super) unsafe fn install(context: &mut Context) -> ! {
    // SAFETY: by the caller. Everything below the frame's stack pointer is given up.
    unsafe { planks_install_context((&raw mut *context).cast()) }
}

/// Unwinding that cannot go on in phase 2: frames have run their destructors, there is no way back.
#[cold]
pub(super) fn lost(code: ReasonCode) -> ! {
    #[cfg(feature = "hosted")]
    crate::hosted::unwind::lost(code);
    #[cfg(not(feature = "hosted"))]
    crate::bare_metal::fatal(format_args!("unwinding cannot go on (reason {code}): damaged unwind info"));
}

global_asm!(
    r#"
    .pushsection .text.planks_unwind,"ax",@progbits
    .macro planks_symbol name
    .p2align 4
    .weak \name
    .hidden \name
    .type \name,@function
\name:
    .cfi_startproc
    .endm

    .macro planks_end name
    .cfi_endproc
    .size \name, . - \name
    .endm

    .macro planks_unwinding name, saved, routine
    planks_symbol \name
    sub rsp, 72
    .cfi_def_cfa_offset 80
    mov [rsp], rbx
    mov [rsp + 8], rbp
    mov [rsp + 16], r12
    mov [rsp + 24], r13
    mov [rsp + 32], r14
    mov [rsp + 40], r15
    lea rax, [rsp + 80]
    mov [rsp + 48], rax
    mov rax, [rsp + 72]
    mov [rsp + 56], rax
    mov \saved, rsp
    call \routine
    add rsp, 72
    .cfi_def_cfa_offset 8
    ret
    planks_end \name
    .endm

    planks_unwinding _Unwind_RaiseException, rsi, {raise}
    planks_unwinding _Unwind_Resume, rsi, {resume}
    planks_unwinding _Unwind_Resume_or_Rethrow, rsi, {rethrow}
    planks_unwinding _Unwind_ForcedUnwind, rcx, {force}
    planks_unwinding _Unwind_Backtrace, rdx, {backtrace}

    planks_unwinding planks_is_clear, rsi, {clear}

    planks_symbol planks_install_context
    mov rax, [rdi]
    mov rdx, [rdi + 8]
    mov rbx, [rdi + 24]
    mov rbp, [rdi + 48]
    mov r12, [rdi + 96]
    mov r13, [rdi + 104]
    mov r14, [rdi + 112]
    mov r15, [rdi + 120]
    mov rcx, [rdi + 152]
    mov rsi, [rdi + 208]
    mov rsp, [rdi + 56]
    add rsp, rsi
    jmp rcx
    planks_end planks_install_context

    planks_symbol _Unwind_DeleteException
    mov rax, [rdi + 8]
    test rax, rax
    jz 2f
    mov rsi, rdi
    mov edi, 1
    jmp rax
2:  ret
    planks_end _Unwind_DeleteException

    planks_symbol _Unwind_FindEnclosingFunction
    jmp {enclosing}
    planks_end _Unwind_FindEnclosingFunction

    planks_symbol _Unwind_GetIP
    mov rax, [rdi + 152]
    ret
    planks_end _Unwind_GetIP

    planks_symbol _Unwind_GetIPInfo
    mov rax, [rdi + 192]
    shr rax, 63
    mov [rsi], eax
    mov rax, [rdi + 152]
    ret
    planks_end _Unwind_GetIPInfo

    planks_symbol _Unwind_SetIP
    mov [rdi + 152], rsi
    ret
    planks_end _Unwind_SetIP

    planks_symbol _Unwind_GetGR
    cmp esi, 17
    ja 3f
    mov eax, esi
    bt qword ptr [rdi + 192], 62
    jnc 2f
    cmp byte ptr [rdi + rax + 216], 0
    je 2f
    mov rax, [rdi + rax * 8]
    ret
2:  mov rax, [rdi + rax * 8]
    mov rax, [rax]
    ret
3:  xor eax, eax
    ret
    planks_end _Unwind_GetGR

    planks_symbol _Unwind_SetGR
    cmp esi, 17
    ja 3f
    mov eax, esi
    bt qword ptr [rdi + 192], 62
    jnc 2f
    cmp byte ptr [rdi + rax + 216], 0
    je 2f
    mov [rdi + rax * 8], rdx
    ret
2:  mov rax, [rdi + rax * 8]
    mov [rax], rdx
3:  ret
    planks_end _Unwind_SetGR

    planks_symbol _Unwind_GetCFA
    mov rax, [rdi + 144]
    ret
    planks_end _Unwind_GetCFA

    planks_symbol _Unwind_GetLanguageSpecificData
    mov rax, [rdi + 160]
    ret
    planks_end _Unwind_GetLanguageSpecificData

    planks_symbol _Unwind_GetTextRelBase
    mov rax, [rdi + 168]
    ret
    planks_end _Unwind_GetTextRelBase

    planks_symbol _Unwind_GetDataRelBase
    mov rax, [rdi + 176]
    ret
    planks_end _Unwind_GetDataRelBase

    planks_symbol _Unwind_GetRegionStart
    mov rax, [rdi + 184]
    ret
    planks_end _Unwind_GetRegionStart

    .purgem planks_symbol
    .purgem planks_end
    .purgem planks_unwinding
    .popsection
    "#,
    raise = sym two_phase::raise,
    resume = sym two_phase::resume,
    rethrow = sym two_phase::resume_or_rethrow,
    force = sym two_phase::force,
    backtrace = sym two_phase::backtrace,
    clear = sym two_phase::is_clear,
    enclosing = sym two_phase::enclosing_function,
);
