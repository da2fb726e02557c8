//! Exceptions: entry, delivery to the runtime's handlers, and the report when nobody wants one.
//!
//! The entry saves all integer registers and the x87/SSE state, so a handler may be any Rust code. What it changes in the
//! context is what the interrupted code goes on with, on its own stack: the exception stack is free again before
//! anything unwinds.

use crate::{
    descriptors::VECTORS,
    exit::{Status, exit},
    symbols::Place,
};
use core::{
    fmt::Write,
    sync::atomic::{AtomicBool, Ordering},
};
use kernel_config::bare_metal::{
    INTERRUPT_VECTOR, INTERVAL_TIMER_LINE, PIC_VECTOR, RESCHEDULE_VECTOR, SPURIOUS_VECTOR, TIMER_VECTOR,
};
use runtime_port::{
    bare_metal::{
        console::{self, Console},
        context::{Registers, XSAVE_COMPONENTS},
        memory::{commit_on_fault, is_present, page_flags},
        native_fault,
        task::{self, VECTOR_STATE},
        timer,
        trap::dispatch,
    },
    trap::{Exception, ExceptionAction},
    unwind::{Asker, Context, Stop},
};
use x86_64::registers::control::{Cr2, Cr3};

/// Vectors for which the processor pushes an error code (SDM vol. 3, table 6-1; AMD's 29 and 30).
const WITH_ERROR_CODE: u32 =
    1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

/// Bytes between two entries.
const ENTRY_SIZE: usize = 16;

// The processor aligns the stack to 16 and pushes 40 bytes; error code, vector and 15 registers make it 176: aligned for the
// call. What is on the stack then is `Registers`. The handler may exchange it for another task's, with the vector state.
core::arch::global_asm!(
    ".section .text.exception_entries, \"ax\", @progbits",
    ".balign 16",
    ".globl exception_entries",
    "exception_entries:",
    ".set vector, 0",
    ".rept {vectors}",
    ".balign 16",
    ".if (({with_error_code} >> vector) & 1) && (vector < 32)",
    ".else",
    "push 0",
    ".endif",
    "push vector",
    "jmp exception_common",
    ".set vector, vector + 1",
    ".endr",
    ".balign 16",
    "exception_common:",
    "push rax",
    "push rbx",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rbp",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "cld",
    "mov rdi, rsp",
    "xor edx, edx",
    "mov eax, [rip + {components}]",
    "mov rcx, [rip + {vector_state}]",
    "test eax, eax",
    "jz 1f",
    "xsave64 [rcx]",
    "call {handle}",
    "xor edx, edx",
    "mov eax, [rip + {components}]",
    "mov rcx, [rip + {vector_state}]",
    "xrstor64 [rcx]",
    "jmp 2f",
    "1: fxsave64 [rcx]",
    "call {handle}",
    "mov rcx, [rip + {vector_state}]",
    "fxrstor64 [rcx]",
    "2:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rbp",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rbx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    ".text",
    vectors = const VECTORS,
    with_error_code = const WITH_ERROR_CODE,
    handle = sym handle,
    components = sym XSAVE_COMPONENTS,
    vector_state = sym VECTOR_STATE,
);

unsafe extern "C" {
    safe fn exception_entries();
}

/// Address of the entry for a vector.
pub fn entry(vector: usize) -> usize {
    exception_entries as *const () as usize + vector * ENTRY_SIZE
}

/// Set while a handler runs: a second exception on the same stack has overwritten the first one's frame.
static HANDLING: AtomicBool = AtomicBool::new(false);

extern "C" fn handle(registers: &mut Registers) {
    if HANDLING.swap(true, Ordering::Relaxed) {
        report(registers, "while another one was being handled");
    }
    match u8::try_from(registers.vector).unwrap_or(u8::MAX) {
        RESCHEDULE_VECTOR => task::on_yield(registers),
        TIMER_VECTOR | TICK_LINE => {
            let vector = registers.vector as u8;
            timer::acknowledge(vector);
            console::receive();
            task::on_tick(registers);
            // The registers may be those of another task now.
            timer::arm_next(vector);
        }
        // Only the serial port's line gets through; a request that went away finds nothing to do.
        vector @ PIC_VECTOR..=PIC_LAST => {
            timer::acknowledge(vector);
            console::receive();
            task::on_interrupt(registers);
        }
        SPURIOUS_VECTOR => {}
        _ => exception(registers),
    }
    HANDLING.store(false, Ordering::Relaxed);
}

const TICK_LINE: u8 = PIC_VECTOR + INTERVAL_TIMER_LINE;
const PIC_LAST: u8 = PIC_VECTOR + 7;

fn exception(registers: &mut Registers) {
    let Some(exception) = kind(registers.vector) else { report(registers, "which nobody handles") };
    let fault_address = (exception == Exception::PageFault).then(Cr2::read_raw).map(|a| a as usize);
    // Only a page that is not there can be one that waits for its frame.
    if registers.error & 1 == 0 && fault_address.is_some_and(commit_on_fault) {
        return;
    }
    if dispatch(exception, fault_address, registers) == ExceptionAction::Resume {
        return;
    }
    let interrupted = *registers;
    match native_fault::recover(registers, fault_address) {
        true => note(&interrupted, fault_address),
        false => report(&interrupted, "and no handler took it"),
    }
}

/// Says on the console that an exception of native code ends what its task is doing.
fn note(frame: &Registers, fault_address: Option<usize>) {
    let (task, id) = task::current_name();
    // Output that fails is dropped: unwinding goes on.
    let _ =
        write!(Console, "{} (vector {}) in task `{task}` ({id}) at {:#x}", name(frame.vector), frame.vector, frame.rip);
    let _ = match fault_address {
        Some(address) => writeln!(Console, " {}: access to {address:#x}", Place(frame.rip)),
        None => writeln!(Console, " {}", Place(frame.rip)),
    };
}

/// The exceptions that running code can cause.
fn kind(vector: usize) -> Option<Exception> {
    const INTERRUPT: usize = INTERRUPT_VECTOR as usize;
    match vector {
        0 => Some(Exception::DivideError),
        1 | 3 => Some(Exception::Breakpoint),
        6 => Some(Exception::InvalidOpcode),
        // A non-canonical address is #SS when rsp or rbp is its base, else #GP.
        12 | 13 => Some(Exception::GeneralProtection),
        14 => Some(Exception::PageFault),
        INTERRUPT => Some(Exception::Interrupt),
        _ => None,
    }
}

fn name(vector: usize) -> &'static str {
    const NAMES: [&str; 22] = [
        "divide error",
        "debug exception",
        "non-maskable interrupt",
        "breakpoint",
        "overflow",
        "bound range exceeded",
        "invalid opcode",
        "device not available",
        "double fault",
        "coprocessor segment overrun",
        "invalid task state",
        "segment not present",
        "stack-segment fault",
        "general protection",
        "page fault",
        "reserved exception",
        "x87 floating-point error",
        "alignment check",
        "machine check",
        "SIMD floating-point error",
        "virtualization exception",
        "control protection",
    ];
    NAMES.get(vector).copied().unwrap_or("reserved exception")
}

/// Set while a report is written: what goes wrong then is not reported at length again.
static REPORTING: AtomicBool = AtomicBool::new(false);

/// Reports a fatal exception and ends the system.
fn report(frame: &Registers, why: &str) -> ! {
    if REPORTING.swap(true, Ordering::Relaxed) {
        // A console that fails leaves nothing to do but to end.
        let _ = writeln!(Console, "\n… and a {} at {:#x} while that was reported", name(frame.vector), frame.rip);
        exit(Status::Fatal);
    }
    // SAFETY: the interrupted code does not go on.
    unsafe { console::seize() };
    // A console that fails leaves nothing to do but to end.
    let _ = write_report(frame, why);
    exit(Status::Fatal)
}

fn write_report(f: &Registers, why: &str) -> core::fmt::Result {
    let mut out = Console;
    writeln!(out, "\nFATAL: {} (vector {}, error code {:#x}), {why}", name(f.vector), f.vector, f.error)?;
    if f.vector == 14 {
        let access = match f.error {
            e if e & 16 != 0 => "execution",
            e if e & 2 != 0 => "write",
            _ => "read",
        };
        let (address, present) = (Cr2::read_raw(), if f.error & 1 != 0 { "protected" } else { "unmapped" });
        writeln!(out, "  {access} of {present} {address:#x}, page flags {:?}", page_flags(address as usize))?;
    }
    let (name, id) = task::current_name();
    let stack = task::current_stack();
    let full = f.vector == 14 && task::is_stack_guard(Cr2::read_raw() as usize);
    writeln!(
        out,
        "  in task `{name}` ({id}), stack {:#x}..{:#x}{}",
        stack.start,
        stack.end,
        if full { ": it has overflowed" } else { "" }
    )?;
    writeln!(out, "  rip {:016x}  rflags {:x}  cs {:x}  ss {:x}", f.rip, f.rflags, f.cs, f.ss)?;
    writeln!(out, "  rsp {:016x}  rbp {:016x}  cr3 {:?}", f.rsp, f.rbp, Cr3::read().0.start_address())?;
    writeln!(out, "  rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}", f.rax, f.rbx, f.rcx, f.rdx)?;
    writeln!(out, "  rsi {:016x}  rdi {:016x}  r8  {:016x}  r9  {:016x}", f.rsi, f.rdi, f.r8, f.r9)?;
    writeln!(out, "  r10 {:016x}  r11 {:016x}  r12 {:016x}  r13 {:016x}", f.r10, f.r11, f.r12, f.r13)?;
    writeln!(out, "  r14 {:016x}  r15 {:016x}", f.r14, f.r15)?;
    write!(out, "  code at rip:")?;
    for at in f.rip..f.rip.saturating_add(16) {
        match peek::<u8>(at) {
            Some(byte) => write!(out, " {byte:02x}")?,
            None => write!(out, " ??")?,
        }
    }
    writeln!(out, "\n  called from:")?;
    write_frames(f)
}

/// Walks the stack by unwind info; where that ends early, looks for what may be return addresses.
fn write_frames(f: &Registers) -> core::fmt::Result {
    /// Most frames that are shown.
    const FRAMES: usize = 32;
    /// Words of the stack that are looked at.
    const DEPTH: usize = 512;
    let mut out = Console;
    writeln!(out, "    {:#x} {}", f.rip, Place(f.rip))?;
    let mut context = Context::at(f.rip, f.rsp, f.rbp, true, Asker::Exception);
    let mut end = Ok(());
    for _ in 0..FRAMES {
        // What a damaged frame pointer leads to may not be readable.
        let readable =
            [context.stack_pointer(), context.frame_pointer()].into_iter().all(|a| a == 0 || is_present(a & !7));
        end = if readable { context.step_out() } else { Err(Stop::Damaged) };
        if end.is_err() || context.pc() == 0 {
            break;
        }
        writeln!(out, "    {:#x} {}", context.pc(), Place(context.pc() - 1))?;
    }
    if end != Err(Stop::Damaged) {
        return Ok(());
    }
    writeln!(out, "  the stack cannot be followed; return addresses on it (some may be stale):")?;
    let base = crate::image::text();
    let stack = task::current_stack();
    let from = if f.rsp < stack.start { stack.start } else { f.rsp & !7 };
    let words = (0..DEPTH).map_while(|i| peek::<usize>(from.wrapping_add(8 * i)));
    for address in words.filter(|w| (base.0..base.1).contains(w)).take(24) {
        writeln!(out, "    {address:#x} {}", Place(address - 1))?;
    }
    Ok(())
}

/// Reads memory if it is mapped.
fn peek<T: Copy>(address: usize) -> Option<T> {
    let last = address.checked_add(size_of::<T>() - 1)?;
    if !address.is_multiple_of(align_of::<T>()) || !is_present(address) || !is_present(last) {
        return None;
    }
    // SAFETY: the pages are mapped, and reading ordinary memory has no effect.
    Some(unsafe { (address as *const T).read_volatile() })
}
