//! x86-64 ring 0 without an operating system.
//!
//! The kernel that links this port brings the processor into 64-bit mode, owns the descriptor tables and the exception
//! entries, provides a global allocator that grows by [`memory::commit_heap`], and calls the `init` functions:
//! console, [`memory::init`], [`unwind::init`], [`task::init_boot_task`], and then [`install`]. Exceptions
//! go through [`trap::dispatch`]. The files are named like those of the hosted port. One processor.

mod address_space;
pub mod console;
pub mod context;
pub mod cpu;
mod frames;
pub mod lock;
pub mod memory;
pub mod native_fault;
mod page_table;
pub mod random;
pub mod task;
pub mod time;
pub mod timer;
pub mod trap;
pub mod unwind;

use crate::{
    Platform, console::ConsolePort, heap::HeapStatistics, memory::MemoryPort, random::RandomPort, task::TaskPort,
    time::ClockPort, trap::TrapPort, unwind::UnwindPort,
};
use core::fmt::Arguments;
use x86_64::instructions::{hlt, interrupts};

/// The port.
#[derive(Debug)]
pub struct BareMetal;

impl Platform for BareMetal {
    fn name(&self) -> &'static str {
        "bare_metal"
    }

    fn memory(&self) -> &dyn MemoryPort {
        &memory::BareMemory
    }

    fn traps(&self) -> &dyn TrapPort {
        &trap::BareTraps
    }

    fn unwinder(&self) -> &dyn UnwindPort {
        &unwind::BareUnwinder
    }

    fn tasks(&self) -> &dyn TaskPort {
        &task::BareTasks
    }

    fn clock(&self) -> &dyn ClockPort {
        &time::BareClock
    }

    fn random(&self) -> &dyn RandomPort {
        &random::BareRandom
    }

    fn console(&self) -> &dyn ConsolePort {
        &console::BareConsole
    }

    fn heap_statistics(&self) -> Option<HeapStatistics> {
        KERNEL.get().map(|kernel| (kernel.heap_statistics)())
    }

    fn disable_interrupts(&self) -> bool {
        let were_on = interrupts::are_enabled();
        interrupts::disable();
        were_on
    }

    fn restore_interrupts(&self, were_on: bool) {
        if were_on {
            interrupts::enable();
        }
    }
}

/// What the port asks the kernel for.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Reports why the system cannot go on, and ends it.
    pub fatal: fn(Arguments<'_>) -> !,
    /// State of the kernel's heap.
    pub heap_statistics: fn() -> HeapStatistics,
}

static KERNEL: spin::Once<Kernel> = spin::Once::new();

/// Makes this the platform in use.
pub fn install(kernel: Kernel) {
    KERNEL.call_once(|| kernel);
    crate::install(&BareMetal);
}

/// Ends the system with a report.
pub fn fatal(report: Arguments<'_>) -> ! {
    match KERNEL.get() {
        Some(kernel) => (kernel.fatal)(report),
        None => loop {
            interrupts::disable();
            hlt();
        },
    }
}
