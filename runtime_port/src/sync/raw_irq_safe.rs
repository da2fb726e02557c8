//! The spinning mutex that keeps interrupts off.

use crate::platform::platform;
use core::sync::atomic::{AtomicBool, Ordering};

/// Raw mutex for `lock_api`.
#[derive(Debug)]
pub struct RawIrqSafeMutex {
    locked: AtomicBool,
    /// Whether interrupts were on before; belongs to the holder.
    were_on: AtomicBool,
}

// SAFETY: `locked` becomes true for one caller only, by an atomic swap, and false only in `unlock`.
unsafe impl lock_api::RawMutex for RawIrqSafeMutex {
    const INIT: RawIrqSafeMutex = RawIrqSafeMutex { locked: AtomicBool::new(false), were_on: AtomicBool::new(false) };
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            while self.locked.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        }
    }

    fn try_lock(&self) -> bool {
        let were_on = platform().disable_interrupts();
        if self.locked.swap(true, Ordering::Acquire) {
            platform().restore_interrupts(were_on);
            return false;
        }
        self.were_on.store(were_on, Ordering::Relaxed);
        true
    }

    unsafe fn unlock(&self) {
        let were_on = self.were_on.load(Ordering::Relaxed);
        self.locked.store(false, Ordering::Release);
        platform().restore_interrupts(were_on);
    }

    fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }
}
