//! CPU exceptions of native code end what the nearest catch encloses, and nothing else.

use super::{
    Check, Outcome, catch,
    cells::{TRAPS, load, text},
    expect, expect_eq,
    tasks::join,
};
use alloc::{boxed::Box, format, string::String, sync::Arc};
use core::{
    arch::asm,
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
};
use namespace_bridge::{CrateNamespace, catch_trap};
use runtime_port::{bare_metal::memory::frame_use, platform, unwind::KillReason};
use spin::Mutex;
use wasm_cell::trap::TrapCode;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    ("every_exception_of_native_code_unwinds_to_its_catch", every_exception_of_native_code_unwinds_to_its_catch),
    ("what_an_exception_unwinds_is_cleaned_up", what_an_exception_unwinds_is_cleaned_up),
    ("a_native_stack_overflow_unwinds_any_number_of_times", a_native_stack_overflow_unwinds_any_number_of_times),
    ("an_exception_of_native_code_ends_only_its_task", an_exception_of_native_code_ends_only_its_task),
    ("an_exception_of_the_host_unwinds_through_a_cell", an_exception_of_the_host_unwinds_through_a_cell),
    ("tasks_that_fault_leave_no_memory_behind", tasks_that_fault_leave_no_memory_behind),
];

/// Name, what causes it, and its vector.
type Fault = (&'static str, fn(), u8);

#[rustfmt::skip] // a table
const FAULTS: [Fault; 8] = [
    ("a read of page zero", || read(0x10), 14),
    ("a write to read-only data", write_to_constant, 14),
    ("a division by zero", divide, 0),
    ("an invalid opcode", invalid_opcode, 6),
    ("a read of a non-canonical address", || read(1 << 63), 13),
    ("a call of address zero", || call(0), 14),
    ("a call of data", || call(CONSTANT.as_ptr() as usize), 14),
    ("a call of a non-canonical address", || call(1 << 63), 13),
];

static CONSTANT: [u8; 64] = [0xc3; 64];

#[inline(never)]
fn read(address: usize) {
    // SAFETY: not safe at all: it is to fault.
    unsafe { asm!("mov {0}, [{0}]", inout(reg) address => _) };
}

#[inline(never)]
fn write_to_constant() {
    // SAFETY: as above.
    unsafe { asm!("mov byte ptr [{0}], 1", in(reg) CONSTANT.as_ptr()) };
}

#[inline(never)]
fn divide() {
    // SAFETY: as above.
    unsafe { asm!("div {0:e}", in(reg) 0, inout("eax") 7 => _, inout("edx") 0 => _) };
}

#[inline(never)]
fn invalid_opcode() {
    // SAFETY: as above.
    unsafe { asm!("ud2") };
}

#[inline(never)]
fn call(address: usize) {
    // SAFETY: as above.
    let function: extern "C-unwind" fn() = unsafe { core::mem::transmute(black_box(address)) };
    function();
    black_box(address);
}

/// Counts its drops.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The number of the exception that `f` ends with.
fn vector_of(f: impl FnOnce()) -> Result<u8, String> {
    match catch(f) {
        Err(KillReason::Exception(vector)) => Ok(vector),
        other => Err(format!("{other:?} instead of an exception")),
    }
}

fn every_exception_of_native_code_unwinds_to_its_catch() -> Outcome {
    for (name, fault, vector) in FAULTS {
        for _ in 0..20 {
            expect_eq(name, vector_of(fault)?, vector)?;
        }
    }
    expect("interrupts are masked afterwards", x86_64::instructions::interrupts::are_enabled())
}

#[inline(never)]
fn below(depth: usize, drops: &AtomicUsize, fault: fn()) -> usize {
    let _counted = Counted(drops);
    match depth {
        0 => fault(),
        _ => {
            black_box(below(depth - 1, drops, fault));
        }
    }
    drops.load(Ordering::Relaxed)
}

fn what_an_exception_unwinds_is_cleaned_up() -> Outcome {
    let lock = Mutex::new(0);
    for (name, fault, vector) in FAULTS {
        let drops = AtomicUsize::new(0);
        let caught = vector_of(|| {
            let _guard = lock.lock();
            below(20, &drops, fault);
        });
        expect_eq(name, caught?, vector)?;
        expect_eq(&format!("{name}: drops"), drops.load(Ordering::Relaxed), 21)?;
        expect(&format!("{name}: a lock stayed taken"), lock.try_lock().is_some())?;
    }
    Ok(())
}

/// Uses up the stack. Counts how many frames it has made, and how many were cleaned up.
#[inline(never)]
fn descend(made: &AtomicUsize, drops: &AtomicUsize) -> usize {
    let counted = Counted(drops);
    made.fetch_add(1, Ordering::Relaxed);
    let block = black_box([made.load(Ordering::Relaxed) as u8; 256]);
    let below = if black_box(true) { descend(made, drops) } else { 0 };
    drop(counted);
    below + usize::from(black_box(&block)[7])
}

fn overflow() -> Outcome {
    let (made, drops) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let vector = vector_of(|| {
        black_box(descend(&made, &drops));
    })?;
    expect_eq("vector", vector, 14)?;
    let (made, drops) = (made.into_inner(), drops.into_inner());
    expect(&format!("{made} frames"), made > 100)?;
    // The innermost one may have faulted where nothing was called.
    expect(&format!("{drops} of {made} frames were cleaned up"), drops + 1 >= made)
}

fn a_native_stack_overflow_unwinds_any_number_of_times() -> Outcome {
    (0..3).try_for_each(|_| overflow())?;
    // In a task that runs cells too, whose yellow zone native code opens on the way.
    let outcome = Arc::new(Mutex::new(Err(String::from("it did not come to that"))));
    let its = outcome.clone();
    let body = move || *its.lock() = overflow_with_a_cell();
    let id = platform().tasks().spawn("deep", 256 << 10, Box::new(body)).map_err(text)?;
    join([id])?;
    outcome.lock().clone()
}

fn overflow_with_a_cell() -> Outcome {
    let cell = load(&*super::cells::namespace()?, "traps", TRAPS)?;
    let trap = cell.typed_func::<(), ()>("stack_overflow").map_err(text)?;
    for _ in 0..5 {
        overflow()?;
        let code = trap.call(()).err().map(|t| t.code());
        expect_eq("overflow in the cell", code, Some(TrapCode::StackOverflow))?;
    }
    Ok(())
}

fn an_exception_of_native_code_ends_only_its_task() -> Outcome {
    for (name, fault, _) in FAULTS {
        let dropped = Arc::new(AtomicUsize::new(0));
        let its = dropped.clone();
        let body = move || {
            let _counted = Counted(&its);
            fault();
        };
        let id = platform().tasks().spawn("faulty", 64 << 10, Box::new(body)).map_err(text)?;
        join([id])?;
        expect_eq(name, dropped.load(Ordering::Relaxed), 1)?;
    }
    Ok(())
}

fn an_exception_of_the_host_unwinds_through_a_cell() -> Outcome {
    for (name, fault, vector) in FAULTS {
        let drops = Arc::new(AtomicUsize::new(0));
        let its = drops.clone();
        let namespace = CrateNamespace::new("faults", None);
        let host = move || -> () {
            let _counted = Counted(&its);
            fault();
        };
        namespace.define("host", "fail", host).map_err(text)?;
        let cell = load(&namespace, "traps", TRAPS)?;
        let calls = cell.typed_func::<(), ()>("host_error").map_err(text)?;
        // Not a trap: what is wrong is the host.
        let caught = vector_of(|| drop(catch_trap(|| drop(black_box(calls.call(()))))));
        expect_eq(name, caught?, vector)?;
        expect_eq(&format!("{name}: drops"), drops.load(Ordering::Relaxed), 1)?;
        let other = cell.typed_func::<(), ()>("division_by_zero").map_err(text)?;
        let code = other.call(()).err().map(|t| t.code());
        expect_eq("the cell's next call", code, Some(TrapCode::IntegerDivisionByZero))?;
    }
    Ok(())
}

fn tasks_that_fault_leave_no_memory_behind() -> Outcome {
    let round = || {
        let id = platform().tasks().spawn("faulty", 64 << 10, Box::new(|| drop(overflow()))).map_err(text)?;
        join([id])?;
        let id = platform().tasks().spawn("faulty", 64 << 10, Box::new(|| read(0x10))).map_err(text)?;
        join([id])
    };
    round()?;
    let before = frame_use();
    (0..50).try_for_each(|_| round())?;
    expect_eq("frames in use", frame_use(), before)
}
