//! Locks.
//!
//! [`Mutex`], [`RwLock`] and [`WaitQueue`] put a waiting task to sleep (Theseus: `sync_block`). The spinning ones of
//! crate `spin` are for short sections, and for exception context; [`IrqSafeMutex`] also keeps interrupts off while it
//! is held (Theseus: `irq_safety::MutexIrqSafe`). None of them poisons: data behind a lock is left whole before a panic.

mod mutex;
mod raw_irq_safe;
mod rw_lock;
#[cfg(test)]
#[cfg(feature = "hosted")]
mod tests;
mod wait_queue;

pub use mutex::RawMutex;
pub use raw_irq_safe::RawIrqSafeMutex;
pub use rw_lock::RawRwLock;
pub use spin::{LazyLock, Mutex as SpinMutex, Once, RwLock as SpinRwLock};
pub use wait_queue::WaitQueue;

/// A mutex whose waiters sleep.
pub type Mutex<T> = lock_api::Mutex<RawMutex, T>;

/// What [`Mutex::lock`](lock_api::Mutex::lock) returns.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawMutex, T>;

/// A lock for many readers or one writer; waiters sleep, and a waiting writer keeps new readers out. A reader that
/// asks again while a writer waits would wait for itself.
pub type RwLock<T> = lock_api::RwLock<RawRwLock, T>;

/// A spinning mutex that keeps the platform's interrupts off while it is held.
pub type IrqSafeMutex<T> = lock_api::Mutex<RawIrqSafeMutex, T>;
