//! Which addresses are reserved.
//!
//! A sorted list of free ranges, first fit, neighbours merged. Reserving takes no frames and no page tables, so a
//! reservation of 4 GiB and its guard costs as much as one of a page.

use alloc::vec::Vec;
use core::ops::Range;
use kernel_config::memory::PAGE_SIZE;

/// Free ranges of a window.
pub(super) struct AddressSpace {
    window: Range<usize>,
    /// Sorted, disjoint, not adjacent; empty before the first use (the heap comes up later than this static).
    free: Vec<Range<usize>>,
    started: bool,
    reserved: usize,
}

/// Room for so many more free ranges is made with each reservation, so that putting ranges back needs no memory.
const SPARE_ENTRIES: usize = 64;

impl AddressSpace {
    pub(super) const fn new(window: Range<usize>) -> Self {
        Self { window, free: Vec::new(), started: false, reserved: 0 }
    }

    /// Takes `size` bytes, which are not none, out of the free ranges.
    pub(super) fn reserve(&mut self, size: usize) -> Option<usize> {
        self.free.try_reserve(SPARE_ENTRIES).ok()?;
        if !self.started {
            self.free.push(self.window.clone());
            self.started = true;
        }
        if size == 0 {
            return None;
        }
        let size = size.checked_next_multiple_of(PAGE_SIZE)?;
        let index = self.free.iter().position(|r| r.len() >= size)?;
        let range = &mut self.free[index];
        let start = range.start;
        range.start += size;
        if range.start == range.end {
            self.free.remove(index);
        }
        self.reserved += size;
        Some(start)
    }

    /// Puts a range back. If there is no memory to note one more free range its addresses stay unused for ever: that takes
    /// [`SPARE_ENTRIES`] separate ranges put back since the last reservation, and a heap that is exhausted.
    pub(super) fn release(&mut self, start: usize, size: usize) {
        let end = start + size.next_multiple_of(PAGE_SIZE);
        debug_assert!(self.window.start <= start && end <= self.window.end);
        self.reserved -= end - start;
        let index = self.free.partition_point(|r| r.end < start);
        match self.free.get_mut(index) {
            Some(range) if range.end == start => {
                range.end = end;
                if self.free.get(index + 1).is_some_and(|next| next.start == end) {
                    self.free[index].end = self.free[index + 1].end;
                    self.free.remove(index + 1);
                }
            }
            Some(range) if range.start == end => range.start = start,
            _ => {
                if self.free.try_reserve(1).is_ok() {
                    self.free.insert(index, start..end);
                }
            }
        }
    }

    /// Bytes reserved now.
    pub(super) fn reserved(&self) -> usize {
        self.reserved
    }
}
