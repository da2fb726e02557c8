//! Exceptions: delivered to handlers, recovered from by a rewritten context.

use super::{Check, Outcome, expect};

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    ("a_page_fault_is_recovered_from", a_page_fault_is_recovered_from),
    ("a_divide_error_is_recovered_from", a_divide_error_is_recovered_from),
    ("an_invalid_opcode_is_recovered_from", an_invalid_opcode_is_recovered_from),
    ("a_general_protection_fault_is_recovered_from", a_general_protection_fault_is_recovered_from),
    ("registers_survive_a_recovered_exception", registers_survive_a_recovered_exception),
];

fn a_page_fault_is_recovered_from() -> Outcome {
    for _ in 0..1000 {
        expect("an unmapped address can be read", !probe::read(0x7000_0000_0000))?;
    }
    Ok(())
}

fn a_divide_error_is_recovered_from() -> Outcome {
    expect("7 / 2 is an error", probe::divide(7, 2) == Some(3))?;
    expect("7 / 0 is no error", probe::divide(7, 0).is_none())?;
    expect("7 / 0 is no error the second time", probe::divide(7, 0).is_none())
}

fn an_invalid_opcode_is_recovered_from() -> Outcome {
    expect("ud2 is no error", !probe::invalid_opcode())?;
    expect("ud2 is no error the second time", !probe::invalid_opcode())
}

fn a_general_protection_fault_is_recovered_from() -> Outcome {
    expect("a non-canonical address can be read", !probe::read(0x8000_0000_0000_0000))
}

fn registers_survive_a_recovered_exception() -> Outcome {
    let sum = probe::sum_across_a_fault([1, 2, 4, 8, 16, 32, 64, 128]);
    expect("a register changed its value", sum == 255)
}

/// Instructions that may fault, with a handler that goes on behind them.
pub mod probe {
    use core::{
        arch::asm,
        sync::atomic::{AtomicUsize, Ordering},
    };
    use runtime_port::{
        platform,
        trap::{Exception, ExceptionAction, ExceptionContext},
    };

    /// Where to go on; 0 when no fault is expected.
    static RECOVERY: AtomicUsize = AtomicUsize::new(0);

    fn handler(context: &mut ExceptionContext) -> ExceptionAction {
        if context.exception == Exception::Interrupt {
            return ExceptionAction::NotMine;
        }
        match RECOVERY.swap(0, Ordering::Relaxed) {
            0 => ExceptionAction::NotMine,
            recovery => {
                context.rip = recovery;
                context.rax = 1;
                ExceptionAction::Resume
            }
        }
    }

    fn arm() -> *const AtomicUsize {
        platform().traps().install_handler(handler).expect("the table has places");
        &raw const RECOVERY
    }

    /// Runs one instruction; evaluates to whether it went through. `rax` is 0 before, 1 after a fault.
    macro_rules! attempt {
        ($($instruction:literal),+ ; $($operands:tt)*) => {{
            let faulted: usize;
            // SAFETY: a fault of the instruction goes on at label 2; the operands say what it touches.
            unsafe {
                asm!(
                    "lea {recovery}, [rip + 2f]",
                    "mov [{armed}], {recovery}",
                    "xor eax, eax",
                    $($instruction),+,
                    "2:",
                    "mov qword ptr [{armed}], 0",
                    recovery = out(reg) _,
                    armed = in(reg) arm(),
                    out("rax") faulted,
                    $($operands)*
                );
            }
            faulted == 0
        }};
    }

    /// Whether a word at `address` can be read.
    pub fn read(address: usize) -> bool {
        attempt!("mov {value}, [{address}]"; address = in(reg) address, value = out(reg) _)
    }

    /// Whether the byte at `address` can be written (with 0xc3, a `ret`).
    pub fn write(address: usize) -> bool {
        attempt!("mov byte ptr [{address}], 0xc3"; address = in(reg) address)
    }

    /// Whether the code at `address`, a `ret`, can be executed. The stack pointer is put right after a fault.
    pub fn execute(address: usize) -> bool {
        let faulted: usize;
        // SAFETY: as in `attempt`; the call pushes one word, which a fault leaves there.
        unsafe {
            asm!(
                "mov r12, rsp",
                "lea {recovery}, [rip + 2f]",
                "mov [{armed}], {recovery}",
                "xor eax, eax",
                "call {address}",
                "2:",
                "mov rsp, r12",
                "mov qword ptr [{armed}], 0",
                recovery = out(reg) _,
                armed = in(reg) arm(),
                address = in(reg) address,
                out("rax") faulted,
                out("r12") _,
            );
        }
        faulted == 0
    }

    /// `dividend / divisor`, `None` on a divide error.
    pub fn divide(dividend: u32, divisor: u32) -> Option<u32> {
        let mut quotient = dividend;
        let fine = attempt!(
            "mov eax, {quotient:e}", "xor edx, edx", "div {divisor:e}", "mov {quotient:e}, eax", "xor eax, eax";
            quotient = inout(reg) quotient, divisor = in(reg) divisor, out("rdx") _);
        fine.then_some(quotient)
    }

    /// Whether `ud2` goes through.
    pub fn invalid_opcode() -> bool {
        attempt!("ud2";)
    }

    /// Adds eight numbers held in registers, half of them in SSE registers, across a fault.
    pub fn sum_across_a_fault(n: [u64; 8]) -> u64 {
        let (mut a, mut b, mut c, mut d) = (n[0], n[1], n[2], n[3]);
        let mut floats = [n[4] as f64, n[5] as f64, n[6] as f64, n[7] as f64];
        let [e, f, g, h] = &mut floats;
        let _ = attempt!("ud2";
            inout("r8") a, inout("r9") b, inout("r14") c, inout("r15") d,
            inout("xmm0") *e, inout("xmm7") *f, inout("xmm8") *g, inout("xmm15") *h);
        a + b + c + d + floats.iter().map(|f| *f as u64).sum::<u64>()
    }
}
