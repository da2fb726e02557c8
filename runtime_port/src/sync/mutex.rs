//! The mutex whose waiters sleep: one word, no system call unless someone waits.

use crate::platform::platform;
use core::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may sleep on it.
const AWAITED: u32 = 2;

/// Times to look again before going to sleep; short sections end within these.
const SPINS: u32 = 64;

/// Raw mutex for `lock_api`.
#[derive(Debug)]
pub struct RawMutex {
    state: AtomicU32,
}

// SAFETY: the state leaves `FREE` for one caller only (compare-exchange or swap that saw `FREE`), with acquire and
// release ordering, and returns to it only in `unlock`.
unsafe impl lock_api::RawMutex for RawMutex {
    const INIT: RawMutex = RawMutex { state: AtomicU32::new(FREE) };
    type GuardMarker = lock_api::GuardNoSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.lock_slowly();
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        if self.state.swap(FREE, Ordering::Release) == AWAITED {
            platform().tasks().wake(&self.state, 1);
        }
    }

    fn is_locked(&self) -> bool {
        self.state.load(Ordering::Relaxed) != FREE
    }
}

impl RawMutex {
    #[cold]
    fn lock_slowly(&self) {
        for _ in 0..SPINS {
            if self.state.load(Ordering::Relaxed) == FREE && lock_api::RawMutex::try_lock(self) {
                return;
            }
            core::hint::spin_loop();
        }
        while self.state.swap(AWAITED, Ordering::Acquire) != FREE {
            platform().tasks().wait(&self.state, AWAITED, None);
        }
    }
}
