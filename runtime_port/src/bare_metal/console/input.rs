//! What was received: from the serial port's interrupt to who reads.
//!
//! The interrupt (and every tick, for machines whose interrupt lines do not reach the processor) moves bytes from the port to
//! a ring; when that is full they stay in the port, which then holds the other side up. With a filter ([`set_filtered`]) there are two
//! rings: from the first a task takes what was received ([`next_received`]), and gives what readers are to see to the second
//! ([`deliver`]). Control-C for the foreground task passes no filter.

use super::super::lock::InterruptLock;
use crate::{platform::platform, time::Instant};
use core::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// Entries of a ring.
const CAPACITY: usize = 1024;

/// Control-C.
const INTERRUPT: u8 = 3;

/// A byte from the serial port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// The byte.
    pub byte: u8,
    /// What the port says was wrong with it: bits 1 to 4 of its line status register (overrun, parity, framing, break).
    pub errors: u8,
}

struct Ring<T> {
    entries: [T; CAPACITY],
    first: usize,
    len: usize,
}

impl<T: Copy> Ring<T> {
    const fn new(empty: T) -> Self {
        Self { entries: [empty; CAPACITY], first: 0, len: 0 }
    }

    fn is_full(&self) -> bool {
        self.len == CAPACITY
    }

    /// Appends to a ring that is not full.
    fn push(&mut self, entry: T) {
        self.entries[(self.first + self.len) % CAPACITY] = entry;
        self.len += 1;
    }

    fn pop(&mut self) -> Option<T> {
        let entry = (self.len > 0).then(|| self.entries[self.first])?;
        self.first = (self.first + 1) % CAPACITY;
        self.len -= 1;
        Some(entry)
    }
}

/// What readers see.
static BYTES: InterruptLock<Ring<u8>> = InterruptLock::new(Ring::new(0));

/// What the filter has not seen yet.
static UNFILTERED: InterruptLock<Ring<Received>> = InterruptLock::new(Ring::new(Received { byte: 0, errors: 0 }));

/// Count what was put into either ring, and what was taken from the first, for who sleeps on it.
static BYTES_CAME: AtomicU32 = AtomicU32::new(0);
static UNFILTERED_CAME: AtomicU32 = AtomicU32::new(0);
static BYTES_TAKEN: AtomicU32 = AtomicU32::new(0);

static FILTERED: AtomicBool = AtomicBool::new(false);

/// The task that Control-C stops; 0: none, then it is a byte like others.
static FOREGROUND: AtomicU64 = AtomicU64::new(0);

/// Names the task that Control-C asks to stop (`TaskPort::request_kill`), or with 0 none.
pub fn set_foreground(task: u64) {
    FOREGROUND.store(task, Ordering::Release);
}

/// Says whether a task filters what is received, and returns what was the case. What was received before stays where it is.
pub fn set_filtered(on: bool) -> bool {
    FILTERED.swap(on, Ordering::AcqRel)
}

/// Moves what the port has to a ring. To be called from the interrupt of the serial port, and from that of the timer.
pub fn receive() {
    let filtered = FILTERED.load(Ordering::Acquire);
    let mut came = false;
    while let Some(received) = next_from_port(filtered) {
        let foreground = FOREGROUND.load(Ordering::Acquire);
        if received.byte == INTERRUPT && foreground != 0 {
            // It may have ended just now, which is as good.
            let _ = platform().tasks().request_kill(foreground);
            continue;
        }
        // There was room, and only this handler fills this ring.
        match filtered {
            true => UNFILTERED.lock().push(received),
            false => BYTES.lock().push(received.byte),
        }
        came = true;
    }
    if came {
        announce(if filtered { &UNFILTERED_CAME } else { &BYTES_CAME });
    }
}

/// What the port has, if there is room for it.
fn next_from_port(filtered: bool) -> Option<Received> {
    let full = if filtered { UNFILTERED.lock().is_full() } else { BYTES.lock().is_full() };
    if full { None } else { super::try_read() }
}

/// Wakes who sleeps on a count. No lock is held.
fn announce(count: &AtomicU32) {
    count.fetch_add(1, Ordering::Release);
    platform().tasks().wake(count, u32::MAX);
}

/// Waits for something that a filter has not seen, and takes it.
pub fn next_received() -> Received {
    loop {
        if let Some(received) = wait_for(&UNFILTERED_CAME, None, || UNFILTERED.lock().pop()) {
            return received;
        }
    }
}

/// Gives readers a byte, when there is room for it.
pub fn deliver(byte: u8) {
    let push = || {
        let mut bytes = BYTES.lock();
        (!bytes.is_full()).then(|| bytes.push(byte))
    };
    while wait_for(&BYTES_TAKEN, None, push).is_none() {}
    announce(&BYTES_CAME);
}

/// Fills a part of the buffer with what was received, waiting for at least one byte, at most this long. Returns how many bytes;
/// none when the time is over. Wakes for nothing else.
pub fn read_within(buffer: &mut [u8], timeout: Option<Duration>) -> usize {
    if buffer.is_empty() {
        return 0;
    }
    let taken = wait_for(&BYTES_CAME, timeout, || Some(take(buffer)).filter(|taken| *taken > 0));
    if taken.is_some() {
        announce(&BYTES_TAKEN);
    }
    taken.unwrap_or(0)
}

fn take(buffer: &mut [u8]) -> usize {
    let mut bytes = BYTES.lock();
    buffer.iter_mut().map_while(|to| bytes.pop().map(|byte| *to = byte)).count()
}

/// Tries until there is a result or the time is over, sleeping on the count in between.
fn wait_for<T>(count: &AtomicU32, timeout: Option<Duration>, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let seen = count.load(Ordering::Acquire);
        let result = attempt();
        let left = timeout.map(|t| t.saturating_sub(start.elapsed()));
        if result.is_some() || left.is_some_and(|left| left.is_zero()) {
            return result;
        }
        platform().tasks().wait(count, seen, left.map(|left| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)));
    }
}
