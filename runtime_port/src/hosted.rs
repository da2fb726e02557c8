//! The hosted port: a Linux process on x86-64.
//!
//! Address space comes from `mmap`, CPU exceptions arrive as signals, tasks are threads, the unwinder is the process's
//! own. It installs itself on the first use of [`platform()`](crate::platform()).

mod arena;
pub mod console;
mod definitions;
mod elf_file;
pub mod fs;
mod inspect;
mod kept_images;
pub mod memory;
mod near;
#[cfg(test)]
mod noun_tests;
pub mod process;
pub mod random;
mod stack;
pub mod symbols;
pub mod task;
#[cfg(test)]
mod tests;
mod ticks;
pub mod time;
pub mod trap;
pub mod unwind;

use crate::{
    backtrace::SymbolSource, console::ConsolePort, fs::DirRef, heap::HeapStatistics, memory::MemoryPort,
    platform::Platform, random::RandomPort, task::TaskPort, time::ClockPort, trap::TrapPort, unwind::UnwindPort,
};

/// The port. There is one, because it stands for the process.
#[derive(Debug)]
pub struct Hosted {
    memory: memory::HostedMemory,
    traps: trap::HostedTraps,
    unwinder: unwind::HostedUnwinder,
    tasks: task::HostedTasks,
}

/// The process.
pub static HOSTED: Hosted = Hosted {
    memory: memory::HostedMemory::new(),
    traps: trap::HostedTraps,
    unwinder: unwind::HostedUnwinder,
    tasks: task::HostedTasks,
};

impl Platform for Hosted {
    fn name(&self) -> &'static str {
        "hosted"
    }

    fn memory(&self) -> &dyn MemoryPort {
        &self.memory
    }

    fn traps(&self) -> &dyn TrapPort {
        &self.traps
    }

    fn unwinder(&self) -> &dyn UnwindPort {
        &self.unwinder
    }

    fn tasks(&self) -> &dyn TaskPort {
        &self.tasks
    }

    fn clock(&self) -> &dyn ClockPort {
        &time::HostedClock
    }

    fn random(&self) -> &dyn RandomPort {
        &random::HostedRandom
    }

    fn console(&self) -> &dyn ConsolePort {
        &console::HostedConsole
    }

    fn files(&self) -> Option<DirRef> {
        Some(fs::directory(std::path::Path::new("/")))
    }

    fn symbols(&self) -> Option<&dyn SymbolSource> {
        Some(&symbols::HostedSymbols)
    }

    fn heap_statistics(&self) -> Option<HeapStatistics> {
        // SAFETY: no arguments; glibc locks its arenas itself.
        let info = unsafe { libc::mallinfo2() };
        Some(HeapStatistics { used: info.uordblks + info.hblkhd, size: info.arena + info.hblkhd })
    }
}
