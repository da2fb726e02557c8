//! The kernel's clocks.

use crate::time::ClockPort;

/// The hosted clock port.
#[derive(Debug)]
pub struct HostedClock;

impl ClockPort for HostedClock {
    fn monotonic_ns(&self) -> u64 {
        read(libc::CLOCK_MONOTONIC).unwrap_or(0)
    }

    fn wall_ns(&self) -> Option<u64> {
        read(libc::CLOCK_REALTIME)
    }
}

fn read(clock: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is valid for writes.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return None;
    }
    u64::try_from(time.tv_sec).ok()?.checked_mul(1_000_000_000)?.checked_add(u64::try_from(time.tv_nsec).ok()?)
}
