//! The port in use.

use crate::{memory::MemoryPort, task::TaskPort, trap::TrapPort, unwind::UnwindPort};

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
