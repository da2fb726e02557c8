//! Clocks.
//!
//! Times are whole nanoseconds: a `u64` counts 584 years of them.

use crate::platform::platform;
use core::{sync::atomic::AtomicU32, time::Duration};

/// What a port knows of time.
pub trait ClockPort: Sync {
    /// Nanoseconds since some fixed moment; never goes back.
    fn monotonic_ns(&self) -> u64;

    /// Nanoseconds since 1970-01-01 00:00 UTC, if the port has such a clock.
    fn wall_ns(&self) -> Option<u64>;
}

/// A moment on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// This moment.
    pub fn now() -> Instant {
        Instant(platform().clock().monotonic_ns())
    }

    /// Time since this moment.
    pub fn elapsed(self) -> Duration {
        Instant::now().duration_since(self)
    }

    /// Time from `earlier` to this moment; zero if `earlier` is later.
    pub fn duration_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment on the port's scale, in nanoseconds.
    pub fn as_nanos(self) -> u64 {
        self.0
    }
}

/// Lets at least `duration` pass; other tasks run meanwhile.
pub fn sleep(duration: Duration) {
    let start = Instant::now();
    let never = AtomicU32::new(0);
    while let Some(left) = duration.checked_sub(start.elapsed()).filter(|d| !d.is_zero()) {
        let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        platform().tasks().wait(&never, 0, Some(left));
    }
}
