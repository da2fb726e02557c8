//! Frames with something to clean up, that two unwinders in one process can be led through: this system's and libgcc's.
//!
//! The landing pads of compiled Rust go on with the `_Unwind_Resume` that they were linked with, so behind the first of them it is always
//! the same unwinder that works. The frames here are written by hand and go on with the one that was asked. What they have in common
//! with compiled ones: std's personality routine, a table of call sites, saved registers, and a destructor that counts.
#![allow(unsafe_code)]

use runtime_port::unwind::{ReasonCode, UnwindException, raise_exception};
use std::arch::global_asm;
use std::ffi::{CStr, c_void};
use std::io;

/// One of the unwinders, and an exception to raise with it. The assembly knows the first four fields.
#[repr(C)]
pub struct Unwinder {
    exception: *mut UnwindException,
    raise: Raise,
    resume: Resume,
    destructors: u64,
    object: Box<UnwindException>,
}

type Raise = unsafe extern "C-unwind" fn(*mut UnwindException) -> ReasonCode;
type Resume = unsafe extern "C-unwind" fn(*mut UnwindException) -> !;

/// Class of exceptions that are of no language: "PLANKSBE".
const CLASS: u64 = u64::from_be_bytes(*b"PLANKSBE");

unsafe extern "C-unwind" {
    /// Ours: it is linked statically, and hidden.
    #[link_name = "_Unwind_Resume"]
    fn resume_exception(exception: *mut UnwindException) -> !;
    /// Makes `depth` frames with a destructor each, raises the exception and catches it. 1: caught; 0: nobody did.
    fn planks_bench_unwind(depth: u64, unwinder: *mut c_void) -> u64;
}

impl Unwinder {
    /// The unwinder that this executable is linked with.
    pub fn own() -> Unwinder {
        Unwinder::new(raise_exception, resume_exception)
    }

    /// libgcc's.
    ///
    /// # Errors
    /// There is no libgcc that could be loaded.
    pub fn libgcc() -> io::Result<Unwinder> {
        let (raise, resume) = (libgcc(c"_Unwind_RaiseException")?, libgcc(c"_Unwind_Resume")?);
        // SAFETY: the functions of these names have these types (psABI, 6.2).
        Ok(unsafe {
            Unwinder::new(
                std::mem::transmute::<*mut c_void, Raise>(raise),
                std::mem::transmute::<*mut c_void, Resume>(resume),
            )
        })
    }

    fn new(raise: Raise, resume: Resume) -> Unwinder {
        let mut object = Box::new(UnwindException::new(CLASS));
        Unwinder { exception: &raw mut *object, raise, resume, destructors: 0, object }
    }

    /// Raises an exception under `depth` frames with destructors, and catches it above them. Returns how many destructors have run.
    ///
    /// # Errors
    /// Nobody handled it.
    pub fn unwind(&mut self, depth: u64) -> io::Result<u64> {
        self.destructors = 0;
        *self.object = UnwindException::new(CLASS);
        self.exception = &raw mut *self.object;
        // SAFETY: the exception lives as long as `self`; unwinding ends at the routine's own handler.
        match unsafe { planks_bench_unwind(depth, (&raw mut *self).cast()) } {
            1 => Ok(self.destructors),
            _ => Err(io::Error::other("the exception was not handled")),
        }
    }
}

/// A function of libgcc's, not ours of the same name.
fn libgcc(name: &CStr) -> io::Result<*mut c_void> {
    // SAFETY: terminated names.
    let address = unsafe {
        let library = libc::dlopen(c"libgcc_s.so.1".as_ptr(), libc::RTLD_NOW);
        if library.is_null() { library } else { libc::dlsym(library, name.as_ptr()) }
    };
    if address.is_null() { Err(io::Error::other("there is no libgcc to compare with")) } else { Ok(address) }
}

/// The same with compiled frames, whose destructors are Rust's: a panic payload, thrown and caught. Returns the number of destructors.
pub fn resume_and_catch(depth: u64) -> u64 {
    let mut destructors = 0;
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| descend(depth, &raw mut destructors)));
    drop(caught);
    destructors
}

struct Counts(*mut u64);

impl Drop for Counts {
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: the counter in `resume_and_catch`, which is above all frames.
        unsafe { *self.0 += 1 };
    }
}

#[inline(never)]
fn descend(depth: u64, destructors: *mut u64) {
    if depth == 0 {
        std::panic::resume_unwind(Box::new(()));
    }
    let counts = Counts(destructors);
    descend(depth - 1, destructors);
    std::hint::black_box(&counts);
}

global_asm!(
    r#"
    .pushsection .text.planks_bench_unwind,"ax",@progbits
    .p2align 4
    .type planks_bench_frame,@function
planks_bench_frame:
    .cfi_startproc
    .cfi_personality 0x1b, rust_eh_personality
    .cfi_lsda 0x1b, .Lplanks_bench_frame_lsda
    push rbx
    .cfi_def_cfa_offset 16
    .cfi_offset rbx, -16
    push r14
    .cfi_def_cfa_offset 24
    .cfi_offset r14, -24
    push r15
    .cfi_def_cfa_offset 32
    .cfi_offset r15, -32
    mov rbx, rsi
    test rdi, rdi
    jz 2f
    dec rdi
.Lplanks_bench_call:
    call planks_bench_frame
.Lplanks_bench_called:
    jmp 3f
2:  mov rdi, [rbx]
.Lplanks_bench_raise:
    call [rbx + 8]
3:  pop r15
    .cfi_def_cfa_offset 24
    pop r14
    .cfi_def_cfa_offset 16
    pop rbx
    .cfi_def_cfa_offset 8
    ret
    .cfi_def_cfa_offset 32
.Lplanks_bench_clean_up:
    inc qword ptr [rbx + 24]
    mov rdi, rax
    call [rbx + 16]
    ud2
.Lplanks_bench_frame_end:
    .cfi_endproc
    .size planks_bench_frame, . - planks_bench_frame

    .p2align 4
    .globl planks_bench_unwind
    .hidden planks_bench_unwind
    .type planks_bench_unwind,@function
planks_bench_unwind:
    .cfi_startproc
    .cfi_personality 0x1b, rust_eh_personality
    .cfi_lsda 0x1b, .Lplanks_bench_unwind_lsda
    push rbx
    .cfi_def_cfa_offset 16
    .cfi_offset rbx, -16
.Lplanks_bench_first:
    call planks_bench_frame
.Lplanks_bench_first_end:
    xor eax, eax
    pop rbx
    .cfi_def_cfa_offset 8
    ret
    .cfi_def_cfa_offset 16
.Lplanks_bench_caught:
    mov eax, 1
    pop rbx
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
    .size planks_bench_unwind, . - planks_bench_unwind
    .popsection

    .pushsection .gcc_except_table.planks_bench_unwind,"a",@progbits
    .p2align 2
.Lplanks_bench_frame_lsda:
    .byte 0xff, 0xff, 1
    .uleb128 2f - 1f
1:  .uleb128 .Lplanks_bench_call - planks_bench_frame
    .uleb128 .Lplanks_bench_called - .Lplanks_bench_call
    .uleb128 .Lplanks_bench_clean_up - planks_bench_frame
    .uleb128 0
    .uleb128 .Lplanks_bench_called - planks_bench_frame
    .uleb128 .Lplanks_bench_frame_end - .Lplanks_bench_called
    .uleb128 0
    .uleb128 0
2:
    .p2align 2
.Lplanks_bench_unwind_lsda:
    .byte 0xff, 0xff, 1
    .uleb128 2f - 1f
1:  .uleb128 .Lplanks_bench_first - planks_bench_unwind
    .uleb128 .Lplanks_bench_first_end - .Lplanks_bench_first
    .uleb128 .Lplanks_bench_caught - planks_bench_unwind
    .uleb128 1
2:  .byte 1, 0
    .p2align 2
    .popsection
    "#
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_destructor_runs_whoever_unwinds() {
        for depth in [0, 1, 20, 300] {
            assert_eq!(Unwinder::own().unwind(depth).unwrap(), depth);
            assert_eq!(Unwinder::libgcc().unwrap().unwind(depth).unwrap(), depth);
            assert_eq!(resume_and_catch(depth), depth);
        }
    }
}
