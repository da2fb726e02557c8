//! The hosted port: a Linux process on x86-64.
//!
//! Address space comes from `mmap`, CPU exceptions arrive as signals, tasks are threads, the unwinder is the process's
//! own. It installs itself on the first use of [`platform()`](crate::platform()).

mod arena;
pub mod memory;
mod stack;
pub mod task;
#[cfg(test)]
mod tests;
pub mod trap;
pub mod unwind;

use crate::{memory::MemoryPort, platform::Platform, task::TaskPort, trap::TrapPort, unwind::UnwindPort};

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
}
