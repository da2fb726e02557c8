//! What the protocol of a gate needs from below: atomics, a lock, sleeping and waking, and the two halves of an asymmetric fence.
//!
//! The model check of the tests compiles `protocol.rs` with another file in this place.
#![deny(unsafe_code)]

pub(super) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use runtime_port::platform;
pub(super) use runtime_port::sync::Mutex;

/// Times a waiter looks before it sleeps: about what a short call in front of it takes.
pub(super) const SPINS: u32 = 64;

/// Sleeps while the word has this value; may return for no reason.
pub(super) fn wait(word: &AtomicU32, expected: u32, timeout_ns: Option<u64>) {
    platform().tasks().wait(word, expected, timeout_ns);
}

/// Wakes who sleeps on the word.
pub(super) fn wake(word: &AtomicU32) {
    platform().tasks().wake(word, 1);
}

/// The costly half of the fence: every running task passes a full barrier.
pub(super) fn heavy_barrier() {
    platform().tasks().barrier();
}

/// The other half, which costs nothing: the compiler keeps the order, `heavy_barrier` of others does the rest.
#[inline(always)]
pub(super) fn light_barrier() {
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// Lets the task that holds something for a few instructions finish.
pub(super) fn relax() {
    platform().tasks().yield_now();
}

/// One turn of a bounded spin.
pub(super) fn spin() {
    core::hint::spin_loop();
}
