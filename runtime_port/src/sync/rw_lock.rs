//! The readers-writer lock whose waiters sleep.

use crate::platform::platform;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// Value of the state while a writer is inside; otherwise it counts readers.
const WRITER: u32 = u32::MAX;

/// Raw lock for `lock_api`.
#[derive(Debug)]
pub struct RawRwLock {
    state: AtomicU32,
    /// Writers that wait: new readers stay out.
    writers: AtomicU32,
    /// Tasks that may sleep on the state.
    sleepers: AtomicU32,
}

impl RawRwLock {
    /// Tries until it works; sleeps while the state stays as a failed attempt saw it.
    fn acquire(&self, mut attempt: impl FnMut(u32) -> bool) {
        loop {
            let seen = self.state.load(SeqCst);
            if attempt(seen) {
                return;
            }
            // A holder that leaves changes the state first and looks for sleepers then; in this order either the wait
            // sees another state or the holder sees this sleeper.
            self.sleepers.fetch_add(1, SeqCst);
            let again = attempt(self.state.load(SeqCst));
            if !again {
                let now = self.state.load(SeqCst);
                match now {
                    0 => platform().tasks().yield_now(), // a writer is about to enter
                    _ => _ = platform().tasks().wait(&self.state, now, None),
                }
            }
            self.sleepers.fetch_sub(1, SeqCst);
            if again {
                return;
            }
        }
    }

    fn try_read(&self, seen: u32) -> bool {
        let free = seen < WRITER - 1 && self.writers.load(SeqCst) == 0;
        free && self.state.compare_exchange(seen, seen + 1, SeqCst, SeqCst).is_ok()
    }

    fn wake_sleepers(&self) {
        if self.sleepers.load(SeqCst) > 0 {
            platform().tasks().wake(&self.state, u32::MAX);
        }
    }
}

// SAFETY: the state becomes `WRITER` only from 0 and grows by a reader only below `WRITER`, both by compare-exchange;
// it goes back only in the unlock functions.
unsafe impl lock_api::RawRwLock for RawRwLock {
    const INIT: RawRwLock =
        RawRwLock { state: AtomicU32::new(0), writers: AtomicU32::new(0), sleepers: AtomicU32::new(0) };
    type GuardMarker = lock_api::GuardNoSend;

    fn lock_shared(&self) {
        self.acquire(|seen| self.try_read(seen));
    }

    fn try_lock_shared(&self) -> bool {
        loop {
            let seen = self.state.load(SeqCst);
            if seen >= WRITER - 1 || self.writers.load(SeqCst) > 0 {
                return false;
            }
            if self.try_read(seen) {
                return true;
            }
        }
    }

    unsafe fn unlock_shared(&self) {
        if self.state.fetch_sub(1, SeqCst) == 1 {
            self.wake_sleepers();
        }
    }

    fn lock_exclusive(&self) {
        if self.try_lock_exclusive() {
            return;
        }
        self.writers.fetch_add(1, SeqCst);
        self.acquire(|_| self.try_lock_exclusive());
        self.writers.fetch_sub(1, SeqCst);
    }

    fn try_lock_exclusive(&self) -> bool {
        self.state.compare_exchange(0, WRITER, SeqCst, SeqCst).is_ok()
    }

    unsafe fn unlock_exclusive(&self) {
        self.state.store(0, SeqCst);
        self.wake_sleepers();
    }

    fn is_locked(&self) -> bool {
        self.state.load(SeqCst) != 0
    }
}
