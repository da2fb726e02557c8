//! The spinning lock that masks interrupts.
//!
//! Everything that an interrupt handler may need as well (heap, frames, page tables, console) stands behind this lock:
//! while it is held nothing can preempt the holder, so a handler never finds it taken on its own processor.

use core::sync::atomic::{AtomicBool, Ordering};
use x86_64::instructions::interrupts;

/// Raw lock for `lock_api`. Not re-entrant.
#[derive(Debug)]
pub struct RawInterruptLock {
    locked: AtomicBool,
    /// Whether the holder had interrupts enabled; written only while `locked` is held.
    unmask: AtomicBool,
}

/// Data behind a [`RawInterruptLock`].
pub type InterruptLock<T> = lock_api::Mutex<RawInterruptLock, T>;

// SAFETY: `locked` goes from false to true for one caller at a time (atomic swap), and back only in `unlock`.
unsafe impl lock_api::RawMutex for RawInterruptLock {
    const INIT: Self = Self { locked: AtomicBool::new(false), unmask: AtomicBool::new(false) };
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            core::hint::spin_loop();
        }
    }

    fn try_lock(&self) -> bool {
        let were_enabled = interrupts::are_enabled();
        interrupts::disable();
        if self.locked.swap(true, Ordering::Acquire) {
            if were_enabled {
                interrupts::enable();
            }
            return false;
        }
        self.unmask.store(were_enabled, Ordering::Relaxed);
        true
    }

    unsafe fn unlock(&self) {
        let unmask = self.unmask.load(Ordering::Relaxed);
        self.locked.store(false, Ordering::Release);
        if unmask {
            interrupts::enable();
        }
    }
}
