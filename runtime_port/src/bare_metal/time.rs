//! The clock: the time stamp counter, whose rate the processor says or a timer measures at boot.
//!
//! Assumes a counter of constant rate on one processor (SDM vol. 3, 17.17.1).

use super::cpu;
use crate::time::ClockPort;
use core::{
    arch::x86_64::_rdtsc,
    sync::atomic::{AtomicU64, Ordering},
};
use x86_64::instructions::port::Port;

/// Input of the interval timer (Intel 8254), in Hz.
pub(super) const PIT_HZ: u64 = 1_193_182;
/// Counts of the interval timer to measure over: 10 ms.
const PIT_COUNTS: u64 = PIT_HZ / 100;
/// Assumed counter rate when nothing tells it, in Hz.
const ASSUMED_HZ: u64 = 1_000_000_000;
/// Equal reads of the interval timer after which it counts as absent: it changes every microsecond, which is at most a few.
const PATIENCE: u32 = 10_000;
/// Power of two by which [`SCALE`] is scaled.
const SHIFT: u32 = 32;

static HZ: AtomicU64 = AtomicU64::new(ASSUMED_HZ);
static START: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds of one step of the counter, times 2^[`SHIFT`].
static SCALE: AtomicU64 = AtomicU64::new(scale(ASSUMED_HZ));

/// Where the counter's rate is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateSource {
    /// CPUID leaf 15H.
    Processor,
    /// Measured against the interval timer.
    IntervalTimer,
    /// Measured against the ACPI power management timer.
    PowerManagementTimer,
    /// There is nothing to measure against.
    Assumed,
}

/// Finds the counter's rate and returns it in Hz. `pm_timer` is the port of the ACPI power management timer, if it is known.
pub fn calibrate(pm_timer: Option<u16>) -> (u64, RateSource) {
    let stated = || stated_hz().map(|hz| (hz, RateSource::Processor));
    let by_pit = || Some((measure(PIT_HZ, PIT_COUNTS, 16, &mut IntervalTimer::start())?, RateSource::IntervalTimer));
    let by_pm = || {
        /// Rate of the ACPI timer in Hz, of which 24 bits are sure to count (ACPI 6.4, 4.8.2.1).
        const PM_HZ: u64 = 3_579_545;
        let hz = measure(PM_HZ, PM_HZ / 100, 24, &mut PmTimer(Port::new(pm_timer?)))?;
        Some((hz, RateSource::PowerManagementTimer))
    };
    let (hz, source) = stated().or_else(by_pit).or_else(by_pm).unwrap_or((ASSUMED_HZ, RateSource::Assumed));
    HZ.store(hz, Ordering::Relaxed);
    SCALE.store(scale(hz), Ordering::Relaxed);
    START.store(counter(), Ordering::Relaxed);
    (hz, source)
}

const fn scale(hz: u64) -> u64 {
    ((1_000_000_000 << SHIFT) / hz as u128) as u64
}

/// What the processor says about its counter (SDM vol. 2, CPUID leaf 15H): crystal rate times a ratio.
fn stated_hz() -> Option<u64> {
    let leaf = cpu::leaf(0x15, 0);
    let crystal = u64::from(leaf.ecx) * u64::from(leaf.ebx);
    crystal.checked_div(u64::from(leaf.eax)).filter(|hz| *hz > 1_000_000)
}

/// A timer that counts up.
pub(super) trait Reference {
    /// Its count.
    fn read(&mut self) -> u64;
}

/// The counter's rate by a timer of `bits` bits and known rate, over `counts` of it. `None` if the timer stands still.
fn measure(timer_hz: u64, counts: u64, bits: u32, timer: &mut dyn Reference) -> Option<u64> {
    let (passed, counter) = compare(timer, bits, &|passed, _| passed >= counts)?;
    let hz = u128::from(counter) * u128::from(timer_hz) / u128::from(passed);
    u64::try_from(hz).ok().filter(|hz| *hz > 1_000_000)
}

/// Steps of a timer of `bits` bits and of the counter over the same time, which ends when they are `enough`. `None` if the timer
/// stands still.
///
/// Steps in which an emulator's host did something else for long are left out: a timer of few bits may have wrapped, unseen.
pub(super) fn compare(timer: &mut dyn Reference, bits: u32, enough: &dyn Fn(u64, u64) -> bool) -> Option<(u64, u64)> {
    /// How much longer than the shortest a step between two looks may be. The shortest takes about a microsecond, and the
    /// interval timer wraps after 55,000.
    const STALL: u64 = 1000;
    /// Steps after which the comparison ends whatever was counted.
    const MOST: u32 = 1_000_000;
    let mask = (1 << bits) - 1;
    let (mut last, mut shortest, mut unchanged) = (sample(timer), u64::MAX, 0);
    let (mut passed, mut counted) = (0, 0);
    for _ in 0..MOST {
        if enough(passed, counted) || unchanged > PATIENCE {
            break;
        }
        let now = sample(timer);
        let (step, counter) = (now.0.wrapping_sub(last.0) & mask, now.1.saturating_sub(last.1));
        last = now;
        shortest = shortest.min(counter.max(1));
        if counter <= shortest.saturating_mul(STALL) {
            passed += step;
            counted += counter;
        }
        unchanged = if step == 0 { unchanged + 1 } else { 0 };
    }
    (unchanged <= PATIENCE && passed > 0 && counted > 0).then_some((passed, counted))
}

/// The counter's rate in Hz.
pub(super) fn counter_hz() -> u64 {
    HZ.load(Ordering::Relaxed)
}

/// The timer and the counter at about one moment: of a few reads the one that took least, so that none is used during
/// which something else ran.
fn sample(timer: &mut dyn Reference) -> (u64, u64) {
    let samples = [(); 3].map(|()| {
        let before = counter();
        let value = timer.read();
        let after = counter();
        (after - before, value, before + (after - before) / 2)
    });
    let (_, value, counter) = samples.into_iter().min().unwrap_or_default();
    (value, counter)
}

/// Channel 0 of the interval timer, counting down through all 16 bits. Its output is not looked at, so that its interrupt is
/// not needed, and neither is port 61H, which not every machine has.
struct IntervalTimer {
    command: Port<u8>,
    channel: Port<u8>,
}

impl IntervalTimer {
    fn start() -> Self {
        let mut this = Self { command: Port::new(0x43), channel: Port::new(0x40) };
        // SAFETY: the interval timer's ports on a PC; without one the writes go nowhere. Channel 0, both bytes, mode 2; a
        // count of 0 means 65536.
        unsafe {
            this.command.write(0x34);
            this.channel.write(0);
            this.channel.write(0);
        }
        this
    }
}

impl Reference for IntervalTimer {
    fn read(&mut self) -> u64 {
        // SAFETY: latches the count of channel 0 and reads it.
        let count = unsafe {
            self.command.write(0);
            u16::from_le_bytes([self.channel.read(), self.channel.read()])
        };
        u64::from(u16::MAX - count)
    }
}

struct PmTimer(Port<u32>);

impl Reference for PmTimer {
    fn read(&mut self) -> u64 {
        // SAFETY: the firmware's tables name this port as the timer's; reading it has no effect.
        u64::from(unsafe { self.0.read() } & 0x00ff_ffff)
    }
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
    ((u128::from(elapsed) * u128::from(SCALE.load(Ordering::Relaxed))) >> SHIFT) as u64
}
