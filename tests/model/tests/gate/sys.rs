//! What the protocol needs, as loom has it: every interleaving and every order of memory accesses that C11 allows is run.
//!
//! A barrier that all tasks pass on behalf of one is modelled by a fence on both sides, which is what it amounts to: either the other task's
//! accesses before the barrier come first, or those behind it come after.

use loom::sync::Condvar;
pub(super) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};

/// As the platform's mutex: no poison.
pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

loom::lazy_static! {
    static ref SLEEPERS: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
}

pub(super) const SPINS: u32 = 0;

pub(super) fn wait(word: &AtomicU32, expected: u32, _timeout_ns: Option<u64>) {
    let guard = SLEEPERS.0.lock();
    if word.load(Ordering::SeqCst) == expected {
        drop(SLEEPERS.1.wait(guard).unwrap());
    }
}

pub(super) fn wake(_word: &AtomicU32) {
    let _guard = SLEEPERS.0.lock();
    SLEEPERS.1.notify_all();
}

pub(super) fn heavy_barrier() {
    fence(Ordering::SeqCst);
}

pub(super) fn light_barrier() {
    fence(Ordering::SeqCst);
}

pub(super) fn relax() {
    loom::thread::yield_now();
}

pub(super) fn spin() {
    loom::thread::yield_now();
}
