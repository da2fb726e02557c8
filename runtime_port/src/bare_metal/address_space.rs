//! Which addresses are reserved.
//!
//! A sorted list of free ranges, first fit, neighbours merged. Reserving takes no frames and no page tables, so a
//! reservation of 4 GiB and its guard costs as much as one of a page.

use crate::memory::MemoryError;
use alloc::vec::Vec;
use core::ops::Range;
use kernel_config::{bare_metal::RESERVATIONS, memory::PAGE_SIZE};

/// Free ranges of [`RESERVATIONS`].
pub(super) struct AddressSpace {
    /// Sorted, disjoint, not adjacent; empty before the first use (the heap comes up later than this static).
    free: Vec<Range<usize>>,
    started: bool,
    reserved: usize,
}

impl AddressSpace {
    pub(super) const fn new() -> Self {
        Self { free: Vec::new(), started: false, reserved: 0 }
    }

    /// Takes `size` bytes out of the free ranges.
    pub(super) fn reserve(&mut self, size: usize) -> Result<usize, MemoryError> {
        let error = MemoryError::OutOfAddressSpace(size);
        if !self.started {
            self.free.try_reserve(64).map_err(|_| error)?;
            self.free.push(RESERVATIONS);
            self.started = true;
        }
        if size == 0 {
            return Err(error);
        }
        let size = size.checked_next_multiple_of(PAGE_SIZE).ok_or(error)?;
        let index = self.free.iter().position(|r| r.len() >= size).ok_or(error)?;
        let range = &mut self.free[index];
        let start = range.start;
        range.start += size;
        if range.start == range.end {
            self.free.remove(index);
        }
        self.reserved += size;
        Ok(start)
    }

    /// Puts a range back. If there is no memory to note one more free range its addresses stay unused for ever,
    /// which in a window of 96 TiB harms nobody.
    pub(super) fn release(&mut self, start: usize, size: usize) {
        let end = start + size.next_multiple_of(PAGE_SIZE);
        debug_assert!(RESERVATIONS.start <= start && end <= RESERVATIONS.end);
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
