//! The port in use.

use crate::{
    backtrace::SymbolSource, console::ConsolePort, fs::DirRef, heap::HeapStatistics, memory::MemoryPort,
    random::RandomPort, task::TaskPort, time::ClockPort, trap::TrapPort, unwind::UnwindPort,
};

/// An implementation of the platform for one environment: gives out one object per noun.
pub trait Platform: Sync {
    /// Name of the port, for reports.
    fn name(&self) -> &'static str;
    /// Address space and frames.
    fn memory(&self) -> &dyn MemoryPort;
    /// CPU exceptions.
    fn traps(&self) -> &dyn TrapPort;
    /// The unwinder.
    fn unwinder(&self) -> &dyn UnwindPort;
    /// Tasks.
    fn tasks(&self) -> &dyn TaskPort;
    /// Clocks.
    fn clock(&self) -> &dyn ClockPort;
    /// Randomness.
    fn random(&self) -> &dyn RandomPort;
    /// The console.
    fn console(&self) -> &dyn ConsolePort;

    /// The root of the platform's files, if it has any.
    fn files(&self) -> Option<DirRef> {
        None
    }

    /// Names of the platform's own native code, if it knows them.
    fn symbols(&self) -> Option<&dyn SymbolSource> {
        None
    }

    /// State of the heap, if the platform can tell.
    fn heap_statistics(&self) -> Option<HeapStatistics> {
        None
    }

    /// Keeps this processor from being interrupted; returns whether it could be before. Platforms whose interrupts
    /// never run code of the system have nothing to do.
    fn disable_interrupts(&self) -> bool {
        false
    }

    /// Undoes `disable_interrupts`, with its result.
    fn restore_interrupts(&self, were_on: bool) {
        let _ = were_on;
    }
}

static PLATFORM: spin::Once<&'static dyn Platform> = spin::Once::new();

/// Installs the port. The first call wins; later ones return `false` and change nothing.
pub fn install(platform: &'static dyn Platform) -> bool {
    let mut first = false;
    PLATFORM.call_once(|| {
        first = true;
        platform
    });
    first
}

/// The port in use, if there is one already.
#[cfg_attr(feature = "hosted", expect(dead_code, reason = "the hosted port finds itself"))]
pub(crate) fn installed() -> Option<&'static dyn Platform> {
    PLATFORM.get().copied()
}

/// The port in use. With feature `hosted` the hosted port installs itself on first use.
///
/// # Panics
/// When no port was installed: a defect of the embedder, found at its first call.
pub fn platform() -> &'static dyn Platform {
    match PLATFORM.get() {
        Some(p) => *p,
        None => no_platform(),
    }
}

#[cold]
#[cfg(feature = "hosted")]
fn no_platform() -> &'static dyn Platform {
    *PLATFORM.call_once(|| &crate::hosted::HOSTED)
}

#[cold]
#[cfg(not(feature = "hosted"))]
fn no_platform() -> &'static dyn Platform {
    panic!("runtime_port: no platform installed; call runtime_port::install first")
}
