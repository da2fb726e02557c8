//! Counts the instructions of calls, traps and swaps (word `measure`, `cargo xtask boot --measure`).
//!
//! Under QEMU's `-icount shift=0` the time stamp counter counts the instructions that were executed, so the numbers are exact and the same in
//! each run. Without it they would be times, and are refused. Each is of one operation: the instructions of many, less those of a loop that
//! does the same without it. The timer's interrupts are masked, except for swaps, of which the least counts.

use crate::exit::Status;
use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{arch::x86_64::_rdtsc, fmt::Display, hint::black_box};
use namespace_bridge::{
    CrateNamespace, LoadOptions, Trap, TypedFunc, catch_trap, compile_module,
    swap::{Phases, StatePlan, SwapRequest},
};
use runtime_port::{println, time::Instant};
use wasm_cell::types::{FuncType, ValType};
use x86_64::instructions::interrupts;

const PEER: [&[u8]; 2] = [
    include_bytes!(concat!(env!("OUT_DIR"), "/measured.wasm")),
    include_bytes!(concat!(env!("OUT_DIR"), "/measured_too.wasm")),
];
const USER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/measuring.wasm"));

/// Operations of one row.
const ROUNDS: u64 = 1000;
/// Swaps of one row.
const SWAPS: usize = 64;

/// A number, and what it must not exceed: about a third more than was measured when it was written.
struct Row {
    name: &'static str,
    count: u64,
    most: u64,
}

fn text<E: Display>(error: E) -> String {
    error.to_string()
}

/// Measures, if the command line asks for that. `None`: it asks for something else.
pub fn asked(line: &str) -> Option<Status> {
    (line.trim() == "measure").then(|| match run() {
        Ok(()) => Status::Success,
        Err(error) => {
            println!("error: {error}");
            Status::Failure
        }
    })
}

/// Measures and prints everything.
///
/// # Errors
/// The counter does not count instructions; something is refused; a number exceeds what it may.
fn run() -> Result<(), String> {
    counts_instructions()?;
    let bed = Bed::new()?;
    let mut rows = bed.calls()?;
    rows.extend(bed.traps()?);
    rows.extend(bed.swaps()?);
    let mut beyond = Vec::new();
    for Row { name, count, most } in &rows {
        println!("{count:>8} instructions  {name}");
        if count > most {
            beyond.push(format!("{name}: {count}, at most {most}"));
        }
    }
    println!("{} passed, {} failed", rows.len() - beyond.len(), beyond.len());
    if beyond.is_empty() { Ok(()) } else { Err(format!("more instructions than there may be: {}", beyond.join("; "))) }
}

fn counter() -> u64 {
    // SAFETY: reads a counter that every processor of the architecture has.
    unsafe { _rdtsc() }
}

/// An error unless the counter counts instructions: 2,000 of them are 2,000.
fn counts_instructions() -> Result<(), String> {
    let looped = interrupts::without_interrupts(|| {
        let start = counter();
        // SAFETY: two instructions on one register.
        unsafe { core::arch::asm!("2: dec {0}", "jnz 2b", inout(reg) ROUNDS => _, options(nomem, nostack)) };
        counter() - start
    });
    let expected = 2 * ROUNDS;
    match (expected..expected + 16).contains(&looped) {
        true => Ok(()),
        false => Err(format!(
            "{expected} instructions count as {looped}: boot with `-icount shift=0` (`cargo xtask boot --measure`)"
        )),
    }
}

/// Instructions of `ROUNDS` calls of `f` in a loop.
#[inline(never)]
fn loops(mut f: impl FnMut(u64)) -> u64 {
    let mut all = |rounds| {
        let start = counter();
        (0..rounds).for_each(|round| f(black_box(round)));
        counter() - start
    };
    interrupts::without_interrupts(|| {
        all(ROUNDS / 10);
        all(ROUNDS)
    })
}

/// Instructions of one call of `f`.
fn each(f: impl FnMut(u64)) -> u64 {
    let empty = loops(|round| {
        black_box(round);
    });
    (loops(f).saturating_sub(empty) + ROUNDS / 2) / ROUNDS
}

/// A namespace with a cell that is called, a cell that calls it and the host, and a host.
struct Bed {
    namespace: Arc<CrateNamespace>,
}

extern "C-unwind" fn next(x: i64) -> i64 {
    x + 1
}

impl Bed {
    fn new() -> Result<Bed, String> {
        let namespace = CrateNamespace::new("measure", None);
        namespace.define("host", "next", |x: i64| x + 1).map_err(text)?;
        let ty = FuncType::new([ValType::I64], [ValType::I64]);
        // SAFETY: the function has this type and stays.
        unsafe { namespace.define_native("host", "direct", ty, next as *const () as usize) }.map_err(text)?;
        namespace.load_wasm("peer", PEER[0], LoadOptions::default()).map_err(text)?;
        namespace.load_wasm("user", USER, LoadOptions::default()).map_err(text)?;
        Ok(Bed { namespace })
    }

    fn function(&self, cell: &str, name: &str) -> Result<TypedFunc<(i64,), i64>, String> {
        self.namespace.get_crate(cell).ok_or("no cell")?.typed_func(name).map_err(text)
    }

    /// Instructions of one round of a function that takes the number of its rounds.
    fn round(&self, function: &str) -> Result<u64, String> {
        let function = self.function("user", function)?;
        let count = |rounds: u64| -> Result<u64, Trap> {
            interrupts::without_interrupts(|| {
                let start = counter();
                function.call((rounds as i64,))?;
                Ok(counter() - start)
            })
        };
        let (few, many) = (count(1).and_then(|_| count(1)).map_err(text)?, count(1 + ROUNDS).map_err(text)?);
        Ok((many.saturating_sub(few) + ROUNDS / 2) / ROUNDS)
    }

    fn calls(&self) -> Result<Vec<Row>, String> {
        let cell = self.namespace.get_crate("peer").ok_or("no cell `peer`")?;
        // SAFETY: the function's type; it does not trap, and the task is attached by the typed calls below.
        let entry: extern "C-unwind" fn(i64) -> i64 = unsafe { cell.entry("next") }.map_err(text)?;
        let typed = self.function("peer", "next")?;
        typed.call((1,)).map_err(text)?;
        let pointer: extern "C-unwind" fn(i64) -> i64 = black_box(next);
        let by_pointer = |pointer: extern "C-unwind" fn(i64) -> i64| {
            move |round: u64| {
                black_box(pointer(round as i64));
            }
        };
        let native = each(by_pointer(pointer));
        let plain = each(by_pointer(black_box(entry)));
        let caught = each(|round| {
            let _ = black_box(catch_trap(|| entry(round as i64)));
        });
        let by_handle = each(|round| {
            let _ = black_box(typed.call((round as i64,)));
        });
        let inline = self.round("inline")?;
        let of_cell = self.round("to_cell")?.saturating_sub(inline);
        let of_host = self.round("to_host")?.saturating_sub(inline);
        let of_native = self.round("to_native")?.saturating_sub(inline);
        Ok(alloc::vec![
            Row { name: "native to native, through a pointer", count: native, most: 6 },
            Row { name: "native to cell, through a pointer", count: plain, most: 12 },
            Row { name: "native to cell, through a pointer, with a catch", count: caught, most: 150 },
            Row { name: "native to cell, typed call", count: by_handle, most: 205 },
            Row { name: "cell to cell", count: of_cell, most: 16 },
            Row { name: "cell to native, a function that is described", count: of_native, most: 16 },
            Row { name: "cell to native, a function or closure of the host", count: of_host, most: 120 },
        ])
    }

    fn traps(&self) -> Result<Vec<Row>, String> {
        let (stub, fault) = (self.function("peer", "stop")?, self.function("user", "load")?);
        let mut ended = 0;
        let mut trap = |function: &TypedFunc<(i64,), i64>, argument: i64| {
            each(|_| ended += u64::from(black_box(function.call((argument,))).is_err()))
        };
        let (by_stub, by_fault) = (trap(&stub, 0), trap(&fault, 1 << 31));
        let expected = 2 * (ROUNDS + ROUNDS / 10);
        if ended != expected {
            return Err(format!("{ended} of {expected} calls trapped"));
        }
        Ok(alloc::vec![
            Row { name: "call that traps by a stub, to its Err, backtrace included", count: by_stub, most: 1250 },
            Row {
                name: "call that traps by a page fault, to its Err, backtrace included",
                count: by_fault,
                most: 3700
            },
        ])
    }

    fn swaps(&self) -> Result<Vec<Row>, String> {
        let compile = |bytes: &&[u8]| compile_module("peer", bytes, &LoadOptions::default());
        let versions: Vec<_> = PEER.iter().map(compile).collect::<Result<_, _>>().map_err(text)?;
        let looks = |_| {
            let start = Instant::now();
            start.elapsed().as_nanos() as u64
        };
        let clock = (0..SWAPS).map(looks).min().unwrap_or_default();
        let least = |figure: fn(&Phases) -> u64| -> Result<u64, String> {
            let mut least = u64::MAX;
            for number in 1..=SWAPS {
                let version = &versions[number % versions.len()];
                let request = SwapRequest::new("peer").with_module(version).state(StatePlan::Fresh).keep_old(false);
                let report = self.namespace.swap(request).map_err(text)?;
                least = least.min(figure(&report.phases));
            }
            Ok(least.saturating_sub(clock))
        };
        let commit = |phases: &Phases| phases.commit.as_nanos() as u64;
        let (one, whole) = (least(commit)?, least(|phases| phases.total().as_nanos() as u64)?);
        for number in 1..100 {
            self.namespace.load_wasm(&format!("user{number}"), USER, LoadOptions::default()).map_err(text)?;
        }
        let hundred = least(commit)?;
        Ok(alloc::vec![
            Row { name: "swap of a compiled module, all phases", count: whole, most: 125_000 },
            Row { name: "commit of a swap, one dependent", count: one, most: 750 },
            Row { name: "commit of a swap, 100 dependents", count: hundred, most: 750 },
        ])
    }
}
