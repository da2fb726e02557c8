//! Who waits on which address of a shared memory (threads proposal, "Wait and Notify").
//!
//! One queue per address, first come first served. A waiter sleeps on a word of its own with the port's primitive, so a
//! notification wakes exactly those it counted.
#![deny(unsafe_code)]

use alloc::{collections::VecDeque, sync::Arc};
use core::sync::atomic::{AtomicU32, Ordering};
use hashbrown::HashMap;
use runtime_port::{platform, time::Instant};
use spin::Mutex;

struct Waiter {
    /// 0 while waiting, 1 once woken.
    woken: AtomicU32,
}

/// The queues of one memory.
pub(crate) struct Waiters(Mutex<HashMap<u64, VecDeque<Arc<Waiter>>>>);

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitResult {
    Woken,
    NotEqual,
    TimedOut,
    Killed,
}

impl Waiters {
    pub(crate) fn new() -> Waiters {
        Waiters(Mutex::new(HashMap::new()))
    }

    /// Waits at `address` if `still_equal` holds once nobody can notify unseen. `timeout_ns < 0` waits for ever.
    pub(crate) fn wait(&self, address: u64, still_equal: impl FnOnce() -> bool, timeout_ns: i64) -> WaitResult {
        let waiter = Arc::new(Waiter { woken: AtomicU32::new(0) });
        {
            let mut queues = self.0.lock();
            if !still_equal() {
                return WaitResult::NotEqual;
            }
            queues.entry(address).or_default().push_back(waiter.clone());
        }
        let ended = self.sleep(&waiter, u64::try_from(timeout_ns).ok());
        let mut queues = self.0.lock();
        if waiter.woken.load(Ordering::Acquire) == 1 {
            return WaitResult::Woken;
        }
        if let Some(queue) = queues.get_mut(&address) {
            queue.retain(|w| !Arc::ptr_eq(w, &waiter));
            if queue.is_empty() {
                queues.remove(&address);
            }
        }
        ended
    }

    /// Sleeps until woken, out of time or asked to stop.
    fn sleep(&self, waiter: &Waiter, timeout_ns: Option<u64>) -> WaitResult {
        let tasks = platform().tasks();
        let start = Instant::now().as_nanos();
        loop {
            if waiter.woken.load(Ordering::Acquire) == 1 {
                return WaitResult::Woken;
            }
            if tasks.current().kill_requested.load(Ordering::Relaxed) != 0 {
                return WaitResult::Killed;
            }
            let left = timeout_ns.map(|t| t.saturating_sub(Instant::now().as_nanos().saturating_sub(start)));
            if left == Some(0) {
                return WaitResult::TimedOut;
            }
            // It may wake for no reason; then the loop decides.
            tasks.wait(&waiter.woken, 0, left);
        }
    }

    /// Wakes up to `count` waiters of `address`; returns how many.
    pub(crate) fn notify(&self, address: u64, count: u32) -> u32 {
        let mut woken = 0;
        let mut queues = self.0.lock();
        let Some(queue) = queues.get_mut(&address) else { return 0 };
        while woken < count {
            let Some(waiter) = queue.pop_front() else { break };
            waiter.woken.store(1, Ordering::Release);
            platform().tasks().wake(&waiter.woken, 1);
            woken += 1;
        }
        if queue.is_empty() {
            queues.remove(&address);
        }
        woken
    }
}
