//! `AllocatedPages`: address space that one owner holds.
//!
//! Nothing is accessible in it; holding it without mapping makes a guard. It can be split and merged, and goes back
//! to the port when dropped. Not `Clone`: two owners of one range cannot exist.

use super::{MemoryError, VirtualAddress, round_up_to_page};
use crate::platform::platform;
use core::ops::Range;
use kernel_config::memory::PAGE_SIZE;

/// An exclusive reservation of whole pages, returned on drop.
#[derive(Debug)]
pub struct AllocatedPages {
    start: usize,
    size: usize,
}

/// Reserves `pages` pages (Theseus: `page_allocator::allocate_pages`).
pub fn allocate_pages(pages: usize) -> Option<AllocatedPages> {
    AllocatedPages::reserve(pages.checked_mul(PAGE_SIZE)?).ok()
}

/// Reserves at least `bytes` bytes (Theseus: `page_allocator::allocate_pages_by_bytes`).
pub fn allocate_pages_by_bytes(bytes: usize) -> Option<AllocatedPages> {
    AllocatedPages::reserve(bytes).ok()
}

impl AllocatedPages {
    /// No pages.
    pub const fn empty() -> AllocatedPages {
        AllocatedPages { start: 0, size: 0 }
    }

    /// Reserves at least `bytes` bytes, rounded up to whole pages.
    pub fn reserve(bytes: usize) -> Result<AllocatedPages, MemoryError> {
        Self::reserve_with(bytes, |size| platform().memory().reserve(size))
    }

    /// The same, for code and what it addresses: where the port keeps all of that within reach of 32 bits.
    pub fn reserve_for_code(bytes: usize) -> Result<AllocatedPages, MemoryError> {
        Self::reserve_with(bytes, |size| platform().memory().reserve_for_code(size))
    }

    /// The same, with addresses that fit into 31 bits.
    pub fn reserve_low(bytes: usize) -> Result<AllocatedPages, MemoryError> {
        Self::reserve_with(bytes, |size| platform().memory().reserve_low(size))
    }

    fn reserve_with(
        bytes: usize,
        reserve: impl FnOnce(usize) -> Result<usize, MemoryError>,
    ) -> Result<AllocatedPages, MemoryError> {
        let size = round_up_to_page(bytes).ok_or(MemoryError::OutOfAddressSpace(bytes))?;
        if size == 0 {
            return Ok(AllocatedPages::empty());
        }
        Ok(AllocatedPages { start: reserve(size)?, size })
    }

    /// First address.
    pub fn start_address(&self) -> VirtualAddress {
        VirtualAddress::new_canonical(self.start)
    }

    /// Size in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.size
    }

    /// Size in pages.
    pub fn size_in_pages(&self) -> usize {
        self.size / PAGE_SIZE
    }

    /// The addresses, end exclusive.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.size
    }

    /// Offset of `address` from the start, if it lies inside.
    pub fn offset_of_address(&self, address: VirtualAddress) -> Option<usize> {
        let offset = address.value().checked_sub(self.start)?;
        (offset < self.size).then_some(offset)
    }

    /// Address at `offset` from the start, if it lies inside.
    pub fn address_at_offset(&self, offset: usize) -> Option<VirtualAddress> {
        (offset < self.size).then(|| VirtualAddress::new_canonical(self.start + offset))
    }

    /// Splits in two after `offset` bytes, a multiple of the page size and at most the size.
    pub fn split(self, offset: usize) -> Result<(AllocatedPages, AllocatedPages), (MemoryError, AllocatedPages)> {
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err((MemoryError::NotPageAligned(offset), self));
        }
        if offset > self.size {
            return Err((MemoryError::OutOfRange { start: offset, len: 0, size: self.size }, self));
        }
        let (start, size) = self.into_raw();
        Ok((AllocatedPages { start, size: offset }, AllocatedPages { start: start + offset, size: size - offset }))
    }

    /// Appends (or prepends) an adjacent reservation; gives it back when it is not adjacent.
    pub fn merge(&mut self, other: AllocatedPages) -> Result<(), (MemoryError, AllocatedPages)> {
        if other.size == 0 {
            return Ok(());
        }
        if self.size == 0 {
            *self = other;
            return Ok(());
        }
        if self.start + self.size == other.start {
            self.size += other.into_raw().1;
        } else if other.start + other.size == self.start {
            let (start, size) = other.into_raw();
            (self.start, self.size) = (start, self.size + size);
        } else {
            return Err((MemoryError::NotMergeable, other));
        }
        Ok(())
    }

    /// Gives up ownership without returning the pages.
    pub(super) fn into_raw(self) -> (usize, usize) {
        let parts = (self.start, self.size);
        core::mem::forget(self);
        parts
    }
}

impl Drop for AllocatedPages {
    fn drop(&mut self) {
        if self.size > 0 {
            // SAFETY: this object owns the range and ends here; `MappedPages` ended every borrow of it before.
            unsafe { platform().memory().release(self.start, self.size) };
        }
    }
}
