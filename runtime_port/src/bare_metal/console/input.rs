//! What was received: from the serial port's interrupt to who reads.
//!
//! The interrupt (and every tick, for machines whose interrupt lines do not reach the processor) moves bytes from the port to
//! a ring; when that is full they stay in the port, which then holds the other side up.

use super::super::lock::InterruptLock;
use crate::platform::platform;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes that wait for a reader.
const CAPACITY: usize = 1024;

/// Control-C.
const INTERRUPT: u8 = 3;

struct Ring {
    bytes: [u8; CAPACITY],
    first: usize,
    len: usize,
}

static RING: InterruptLock<Ring> = InterruptLock::new(Ring { bytes: [0; CAPACITY], first: 0, len: 0 });

/// Counts what was received, for readers to sleep on.
static RECEIVED: AtomicU32 = AtomicU32::new(0);

/// The task that Control-C stops; 0: none, then it is a byte like others.
static FOREGROUND: AtomicU64 = AtomicU64::new(0);

/// Names the task that Control-C asks to stop (`TaskPort::request_kill`), or with 0 none.
pub fn set_foreground(task: u64) {
    FOREGROUND.store(task, Ordering::Release);
}

/// Moves what the port has to the ring. To be called from the interrupt of the serial port, and from that of the timer.
pub fn receive() {
    let mut received = false;
    loop {
        // A reader is woken with no lock held.
        let mut ring = RING.lock();
        let Some(byte) = (ring.len < CAPACITY).then(super::try_read).flatten() else { break };
        let foreground = FOREGROUND.load(Ordering::Acquire);
        if byte == INTERRUPT && foreground != 0 {
            drop(ring);
            // It may have ended just now, which is as good.
            let _ = platform().tasks().request_kill(foreground);
        } else {
            let end = (ring.first + ring.len) % CAPACITY;
            ring.bytes[end] = byte;
            ring.len += 1;
            received = true;
        }
    }
    if received {
        RECEIVED.fetch_add(1, Ordering::Release);
        platform().tasks().wake(&RECEIVED, u32::MAX);
    }
}

/// Fills a part of the buffer with what was received, waiting for at least one byte. Wakes for nothing else.
pub(super) fn read(buffer: &mut [u8]) -> usize {
    if buffer.is_empty() {
        return 0;
    }
    loop {
        let seen = RECEIVED.load(Ordering::Acquire);
        let taken = take(buffer);
        if taken > 0 {
            return taken;
        }
        platform().tasks().wait(&RECEIVED, seen, None);
    }
}

fn take(buffer: &mut [u8]) -> usize {
    let mut ring = RING.lock();
    let count = buffer.len().min(ring.len);
    for byte in &mut buffer[..count] {
        *byte = ring.bytes[ring.first];
        ring.first = (ring.first + 1) % CAPACITY;
        ring.len -= 1;
    }
    count
}
