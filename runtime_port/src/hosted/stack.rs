//! A thread's own stack and its alternate stack.

use super::memory::errno;
use alloc::{format, string::String};
use kernel_config::memory::PAGE_SIZE;
use kernel_config::task::{ALTERNATE_STACK, RED_RESERVE, YELLOW_ZONE};

/// Most bytes of the main thread's stack that are used; it is bounded by a resource limit that may be infinite.
const MAIN_STACK_MAX: usize = 64 << 20;

/// Least bytes of stack that must be left for cells above the yellow zone.
const USABLE_MIN: usize = 64 << 10;

/// Where the yellow zone of a stack lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct StackZone {
    pub start: usize,
    /// End of the zone: the lowest address wasm code may use.
    pub end: usize,
    pub stack_top: usize,
}

impl StackZone {
    /// Finds the place on the current thread's stack. On the main thread, whose stack grows on demand, extends the
    /// mapping down to the zone first.
    pub fn of_current_thread() -> Result<StackZone, String> {
        let bounds = StackBounds::of_current_thread()?;
        if !is_main_thread() {
            return bounds.zone(bounds.bottom);
        }
        let mut size = (bounds.top - bounds.bottom).min(MAIN_STACK_MAX);
        loop {
            let bottom = bounds.top.saturating_sub(size).next_multiple_of(PAGE_SIZE).max(bounds.bottom);
            let zone = bounds.zone(bottom)?;
            if touch(bottom) {
                return Ok(zone);
            }
            // Something else was mapped where the stack would grow to.
            size /= 2;
        }
    }

    /// Makes the zone accessible or not; an error number on failure.
    pub fn set_accessible(&self, accessible: bool) -> Result<(), i32> {
        match set_accessible(self.start, self.end, accessible) {
            0 => Ok(()),
            e => Err(e),
        }
    }
}

/// Changes the protection of `start..end`. Returns an error number or 0. Async-signal-safe.
pub(super) fn set_accessible(start: usize, end: usize, accessible: bool) -> i32 {
    let protection = if accessible { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_NONE };
    // SAFETY: the range is the yellow zone of the calling thread's stack, which is not in use: the stack pointer is
    // above it when it is closed, and opening harms nobody.
    match unsafe { libc::mprotect(start as *mut _, end - start, protection) } {
        0 => 0,
        _ => errno(),
    }
}

/// Usable addresses of a stack.
#[derive(Debug)]
struct StackBounds {
    bottom: usize,
    top: usize,
}

impl StackBounds {
    fn of_current_thread() -> Result<StackBounds, String> {
        // SAFETY: the attribute object is initialised by `pthread_getattr_np` and destroyed once.
        unsafe {
            let mut attributes: libc::pthread_attr_t = core::mem::zeroed();
            let r = libc::pthread_getattr_np(libc::pthread_self(), &mut attributes);
            if r != 0 {
                return Err(format!("the stack's bounds are unknown (errno {r})"));
            }
            let (mut low, mut size, mut guard) = (core::ptr::null_mut(), 0, 0);
            let r = libc::pthread_attr_getstack(&attributes, &mut low, &mut size)
                | libc::pthread_attr_getguardsize(&attributes, &mut guard);
            libc::pthread_attr_destroy(&mut attributes);
            if r != 0 {
                return Err(format!("the stack's bounds are unknown (errno {r})"));
            }
            let low = low as usize;
            // Before version 2.27 glibc counted the guard as part of the stack; leaving it out costs a page elsewhere.
            Ok(StackBounds { bottom: (low + guard).next_multiple_of(PAGE_SIZE), top: low + size })
        }
    }

    /// The zone of a stack that is used down to `bottom`.
    fn zone(&self, bottom: usize) -> Result<StackZone, String> {
        let start = bottom + RED_RESERVE;
        let end = start + YELLOW_ZONE;
        if crate::task::stack_pointer() < end + USABLE_MIN {
            let needed = (RED_RESERVE + YELLOW_ZONE + USABLE_MIN) >> 10;
            return Err(format!(
                "{} KiB of stack are too few, or in use; {needed} KiB are needed",
                (self.top - bottom) >> 10
            ));
        }
        Ok(StackZone { start, end, stack_top: self.top })
    }
}

fn is_main_thread() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::getpid() == libc::gettid() }
}

/// Makes the main thread's stack mapping reach down to `address`, by letting the kernel write there: unlike a store, a
/// system call reports an address that cannot be written.
fn touch(address: usize) -> bool {
    /// Bytes of the kernel's signal set.
    const SIGNAL_SET: usize = 8;
    let nothing = core::ptr::null::<u8>();
    // SAFETY: `address` is below the stack pointer (checked by `zone`), so nothing lives there; without a new set the
    // call only writes the current signal mask to it.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, nothing, address, SIGNAL_SET) == 0 }
}

/// A signal stack of the calling thread, with a guard page below. The one before is put back on drop.
#[derive(Debug)]
pub(super) struct AlternateStack {
    mapping: *mut libc::c_void,
    previous: libc::stack_t,
}

impl AlternateStack {
    const MAPPING: usize = ALTERNATE_STACK + PAGE_SIZE;

    pub fn install() -> Result<AlternateStack, String> {
        let failed = |what: &str| format!("{what} failed (errno {})", errno());
        // SAFETY: a new mapping, whose upper part becomes the signal stack; it lives as long as this object.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let mapping = libc::mmap(core::ptr::null_mut(), Self::MAPPING, libc::PROT_NONE, flags, -1, 0);
            if mapping == libc::MAP_FAILED {
                return Err(failed("mmap of the alternate stack"));
            }
            let stack = mapping.byte_add(PAGE_SIZE);
            let new = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: ALTERNATE_STACK };
            let mut previous: libc::stack_t = core::mem::zeroed();
            if libc::mprotect(stack, ALTERNATE_STACK, libc::PROT_READ | libc::PROT_WRITE) != 0
                || libc::sigaltstack(&new, &mut previous) != 0
            {
                let e = failed("setting up the alternate stack");
                libc::munmap(mapping, Self::MAPPING);
                return Err(e);
            }
            Ok(AlternateStack { mapping, previous })
        }
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        // SAFETY: runs on the thread that installed the stack, not on that stack. The previous one is put back only
        // if ours is still in force: std frees its own, and switches signal stacks off, before thread locals end.
        unsafe {
            let mut now: libc::stack_t = core::mem::zeroed();
            libc::sigaltstack(core::ptr::null(), &mut now);
            if now.ss_sp == self.mapping.byte_add(PAGE_SIZE) {
                libc::sigaltstack(&self.previous, core::ptr::null_mut());
            }
            libc::munmap(self.mapping, Self::MAPPING);
        }
    }
}
