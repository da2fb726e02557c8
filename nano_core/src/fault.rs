//! Faults that the kernel cannot go on after, on request (`fault=KIND`): to see that each ends in a report and not in a reset.
//!
//! Exceptions of native code otherwise end only the call that catches them (`check/native_faults.rs`); here they come with interrupts masked,
//! as in code that nothing can interrupt without harm.

use core::{arch::asm, hint::black_box};
use runtime_port::{
    bare_metal::timer,
    platform,
    task::TaskError,
    trap::{ExceptionAction, ExceptionContext},
};
use x86_64::{
    instructions::{
        interrupts,
        tables::{lidt, sidt},
    },
    structures::DescriptorTablePointer,
};

/// A kind of fault, and how to cause it.
type Fault = (&'static str, fn());

/// Every kind.
const FAULTS: [Fault; 12] = [
    ("double", double),
    ("nmi", nmi),
    ("gp", general_protection),
    ("pf", page_fault),
    ("ud", invalid_opcode),
    ("stack", stack_overflow),
    ("handler", in_a_handler),
    ("panic", panic_without_unwinding),
    ("breakpoint", breakpoint),
    ("x87", x87_error),
    ("machine", machine_check),
    ("vector", unknown_vector),
];

/// Names of the kinds.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    FAULTS.iter().map(|(name, _)| *name)
}

/// Causes a fault of this kind in a task of its own, so that the report has a name to show. Returns only when the kernel has
/// survived, which is wrong. `None`: no such kind.
pub fn cause(kind: &str) -> Option<Result<(), TaskError>> {
    /// Bytes of stack: an overflow should not take long.
    const STACK: usize = 64 << 10;
    let (kind, fault) = *FAULTS.iter().find(|(name, _)| *name == kind)?;
    let tasks = platform().tasks();
    let body = move || {
        if !matches!(kind, "nmi" | "panic") {
            interrupts::disable();
        }
        fault();
    };
    Some(tasks.spawn("faulty", STACK, alloc::boxed::Box::new(body)).and_then(|id| tasks.join(id)))
}

/// A page fault whose delivery fails too: its gate, and that of the fault which this causes, lie beyond the table's limit.
fn double() {
    /// Bytes of a gate, and gates up to that of the double fault (8).
    const GATES_KEPT: u16 = 16 * 9;
    let table = sidt();
    // SAFETY: the same table, shorter; the system is to end here.
    unsafe { lidt(&DescriptorTablePointer { limit: GATES_KEPT - 1, base: table.base }) };
    page_fault();
}

fn nmi() {
    // SAFETY: the kernel has gates for it, and is to end here.
    if !unsafe { timer::send_nmi() } {
        // SAFETY: as above; the same gate without a controller that could send it.
        unsafe { asm!("int 2") };
    }
    // It arrives at an instruction boundary soon.
    for i in 0..1_000_000 {
        black_box(i);
    }
}

fn general_protection() {
    read(1 << 63);
}

fn page_fault() {
    read(0x10);
}

fn read(address: usize) {
    // SAFETY: not safe at all: the system is to end here.
    unsafe { asm!("mov {0}, [{0}]", inout(reg) address => _) };
}

fn invalid_opcode() {
    // SAFETY: as above.
    unsafe { asm!("ud2") };
}

fn stack_overflow() {
    descend(usize::MAX);
}

#[inline(never)]
fn descend(depth: usize) -> usize {
    let block = black_box([depth as u8; 256]);
    let below = if depth > 0 { descend(depth - 1) } else { 0 };
    below + usize::from(black_box(&block)[7])
}

fn in_a_handler() {
    fn handler(_: &mut ExceptionContext) -> ExceptionAction {
        invalid_opcode();
        ExceptionAction::NotMine
    }
    if platform().traps().install_handler(handler).is_ok() {
        page_fault();
    }
}

fn panic_without_unwinding() {
    extern "C" fn refuses_to_unwind() {
        panic!("asked for on the command line");
    }
    refuses_to_unwind();
}

fn breakpoint() {
    // SAFETY: as above.
    unsafe { asm!("int3") };
}

/// 1 / 0 with that exception unmasked, at the next instruction of the x87 that waits for it.
fn x87_error() {
    let control: u16 = 0x37b;
    // SAFETY: as above.
    unsafe { asm!("fldcw [{0}]", "fld1", "fldz", "fdivp", "fwait", in(reg) &raw const control) };
}

/// By its gate: no emulator has a broken processor.
fn machine_check() {
    // SAFETY: as above.
    unsafe { asm!("int 18") };
}

/// An interrupt that no gate is for.
fn unknown_vector() {
    // SAFETY: as above.
    unsafe { asm!("int 200") };
}
