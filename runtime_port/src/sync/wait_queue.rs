//! Sleeping until a condition holds.

use crate::{platform::platform, time::Instant};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

/// Where tasks sleep until somebody who changed something notifies them (Theseus: crate `wait_queue`).
///
/// The condition is looked at again after every notification; it may do so without need, never too seldom.
#[derive(Debug, Default)]
pub struct WaitQueue {
    /// Counts notifications, so that one between looking and sleeping is not lost.
    notifications: AtomicU32,
}

impl WaitQueue {
    /// A queue nobody waits on.
    pub const fn new() -> WaitQueue {
        WaitQueue { notifications: AtomicU32::new(0) }
    }

    /// Sleeps until the condition gives a value.
    pub fn wait_until<R>(&self, mut condition: impl FnMut() -> Option<R>) -> R {
        loop {
            let seen = self.notifications.load(Ordering::Acquire);
            if let Some(value) = condition() {
                return value;
            }
            platform().tasks().wait(&self.notifications, seen, None);
        }
    }

    /// Sleeps until the condition gives a value or the time is over.
    pub fn wait_until_timeout<R>(&self, timeout: Duration, mut condition: impl FnMut() -> Option<R>) -> Option<R> {
        let start = Instant::now();
        loop {
            let seen = self.notifications.load(Ordering::Acquire);
            if let Some(value) = condition() {
                return Some(value);
            }
            let left = timeout.checked_sub(start.elapsed()).filter(|d| !d.is_zero())?;
            let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
            platform().tasks().wait(&self.notifications, seen, Some(left));
        }
    }

    /// Lets one sleeper look at its condition. To be called after the change that may make it true.
    pub fn notify_one(&self) {
        self.notify(1);
    }

    /// Lets all sleepers look at their conditions.
    pub fn notify_all(&self) {
        self.notify(u32::MAX);
    }

    fn notify(&self, count: u32) {
        self.notifications.fetch_add(1, Ordering::Release);
        platform().tasks().wake(&self.notifications, count);
    }
}
