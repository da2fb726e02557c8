//! Address space near the program's own code, for what cells consist of.
//!
//! Processors keep the targets of jumps in fewer bits than addresses have, and jumps that go farther take longer to predict. On Zen 5 a
//! call and its return take 2.2 ns instead of 1.4 between pieces of code whose addresses differ above the lowest 37 bits, as those of an
//! executable and of what the system maps by itself do. So reservations that may hold a cell's code are asked for in the program's own
//! region of that size, at a random distance from the program. They work as well elsewhere, when there is no room.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use kernel_config::{limits::CELL_BYTES, memory::PAGE_SIZE};

/// Within such a range, aligned to its size, calls are fast.
const REGION: usize = 1 << 37;

/// Where the window begins at the earliest, counted from the program: its heap grows into what lies before.
const DISTANCE: usize = 16 << 30;

/// Where it begins at the latest: so much farther.
const SPREAD: usize = 16 << 30;

/// Bytes of the window.
const WINDOW: usize = 32 << 30;

const _: () = assert!(DISTANCE + SPREAD + WINDOW <= REGION / 2, "there is room on one side of the program");

/// Largest reservation that is made here: the largest that a cell's code can be in, with what belongs to it.
const LARGEST: usize = CELL_BYTES;

/// Places that are tried before the system may choose.
const TRIES: usize = 8;

/// The window's next free place; 0 before it was chosen.
#[derive(Debug, Default)]
pub struct NearPlaces {
    next: AtomicUsize,
    start: AtomicUsize,
}

impl NearPlaces {
    /// A window that is chosen when the first place is asked for.
    pub const fn new() -> NearPlaces {
        NearPlaces { next: AtomicUsize::new(0), start: AtomicUsize::new(0) }
    }

    /// Maps inaccessible pages at a place near the program. `None` when it cannot be, or need not.
    pub fn map(&self, size: usize) -> Option<usize> {
        if size > LARGEST {
            return None;
        }
        (0..TRIES).find_map(|_| map_at(self.place(size), size))
    }

    /// A place for so many bytes that was not asked for yet, as long as there is one.
    fn place(&self, size: usize) -> usize {
        if self.start.load(Relaxed) == 0 {
            let start = window(NearPlaces::new as *const () as usize, random());
            // Whoever comes first.
            let _ = self.start.compare_exchange(0, start, Relaxed, Relaxed);
        }
        let start = self.start.load(Relaxed);
        let advance = |next: usize| {
            let fits = next >= start && next + size <= start + WINDOW;
            Some(if fits { next + size } else { start + size })
        };
        // The update gives the value before it; the place is what lies before the value after it.
        let before = self.next.fetch_update(Relaxed, Relaxed, advance).unwrap_or_default();
        advance(before).unwrap_or(start + size) - size
    }
}

/// Where the window of a program with code at this address begins.
fn window(code: usize, random: usize) -> usize {
    let distance = DISTANCE + random % SPREAD;
    let up = code % REGION < REGION / 2;
    let start = if up { code + distance } else { code - distance - WINDOW };
    start & !(PAGE_SIZE - 1)
}

/// Random bits that the system gave the process.
fn random() -> usize {
    let mut bytes = [0; size_of::<usize>()];
    // SAFETY: the array is valid for writes. When it is not filled, the window begins at its earliest.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    usize::from_le_bytes(bytes)
}

/// Maps inaccessible pages at this place, if it is free.
fn map_at(place: usize, size: usize) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a new mapping; what is mapped there already stays (systems before Linux 4.17 choose another place then).
    let p = unsafe { libc::mmap(place as *mut libc::c_void, size, libc::PROT_NONE, flags, -1, 0) };
    (p != libc::MAP_FAILED).then_some(p as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_window_lies_in_the_programs_region_wherever_that_is() {
        for code in [0x40_0000, REGION / 2 - 1, REGION / 2, REGION - 1, 0x55c9_4d3c_7000, 0x7fff_ffff_f000] {
            for random in [0, SPREAD - 1, usize::MAX] {
                let start = window(code, random);
                assert_eq!(start / REGION, code / REGION, "{code:#x}");
                assert_eq!((start + WINDOW - 1) / REGION, code / REGION, "{code:#x}");
                assert!(start.abs_diff(code) >= DISTANCE - PAGE_SIZE, "{code:#x}");
                assert_eq!(start % PAGE_SIZE, 0);
            }
        }
    }

    #[test]
    fn places_are_apart_until_the_window_is_used_up() {
        let near = NearPlaces::new();
        let places: Vec<usize> = (0..WINDOW / LARGEST).map(|_| near.place(LARGEST)).collect();
        assert!(places.windows(2).all(|w| w[0] + LARGEST == w[1]), "{places:x?}");
        assert_eq!(near.place(PAGE_SIZE), places[0]);
        assert_eq!(near.map(LARGEST + 1), None);
    }
}
