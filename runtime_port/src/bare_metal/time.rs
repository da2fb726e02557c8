//! The clock: the time stamp counter, measured against the interval timer at boot.
//!
//! Assumes a counter of constant rate on one processor (SDM vol. 3, 17.17.1).

use crate::time::ClockPort;
use core::{
    arch::x86_64::_rdtsc,
    sync::atomic::{AtomicU64, Ordering},
};
use x86_64::instructions::port::Port;

/// Input of the interval timer (Intel 8254), in Hz.
const PIT_HZ: u64 = 1_193_182;
/// Ticks of the interval timer to measure over: 10 ms.
const PIT_TICKS: u16 = (PIT_HZ / 100) as u16;
/// Assumed counter rate when there is no interval timer, in Hz.
const ASSUMED_HZ: u64 = 1_000_000_000;
/// Reads of the timer's output after which it counts as absent. One read takes 1 µs on hardware, far less in emulation.
const PATIENCE: u32 = 20_000_000;

static START: AtomicU64 = AtomicU64::new(0);
static HZ: AtomicU64 = AtomicU64::new(ASSUMED_HZ);

/// Measures the counter's rate. Returns it in Hz, or `None` when there is no interval timer; then 1 GHz is assumed.
pub fn calibrate() -> Option<u64> {
    START.store(counter(), Ordering::Relaxed);
    let hz = measure()?;
    HZ.store(hz, Ordering::Relaxed);
    Some(hz)
}

/// Counts down on channel 2, whose output port 0x61 shows, so that no interrupt is needed.
fn measure() -> Option<u64> {
    let mut control = Port::<u8>::new(0x61);
    let mut mode = Port::<u8>::new(0x43);
    let mut channel = Port::<u8>::new(0x42);
    // SAFETY: the interval timer's ports on a PC; without one the writes go nowhere.
    unsafe {
        let off = control.read() & !3;
        control.write(off | 1); // gate on, speaker off
        mode.write(0xb0); // channel 2, both bytes, mode 0: the output goes high at zero
        channel.write(PIT_TICKS as u8);
        channel.write((PIT_TICKS >> 8) as u8);
        let start = counter();
        for _ in 0..PATIENCE {
            let value = control.read();
            if value == 0xff {
                return None; // nothing answers at this port
            }
            if value & 0x20 != 0 {
                let elapsed = counter() - start;
                return Some(elapsed.saturating_mul(PIT_HZ) / u64::from(PIT_TICKS)).filter(|hz| *hz > 1_000_000);
            }
        }
    }
    None
}

/// The raw counter.
pub fn counter() -> u64 {
    // SAFETY: every x86-64 processor has a time stamp counter, and ring 0 may read it.
    unsafe { _rdtsc() }
}

/// The port's clock. It does not know the date.
#[derive(Debug)]
pub struct BareClock;

impl ClockPort for BareClock {
    fn monotonic_ns(&self) -> u64 {
        now_ns()
    }

    fn wall_ns(&self) -> Option<u64> {
        None
    }
}

/// Nanoseconds since [`calibrate`].
pub fn now_ns() -> u64 {
    let elapsed = counter().wrapping_sub(START.load(Ordering::Relaxed));
    (u128::from(elapsed) * 1_000_000_000 / u128::from(HZ.load(Ordering::Relaxed))) as u64
}
