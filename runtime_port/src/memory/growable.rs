//! `GrowableMapping`: a reservation whose committed prefix grows in place.
//!
//! Linear memories and tables. The base address never changes, so compiled code may keep it; pages beyond the prefix
//! fault, so they are the guard. Dropping returns the whole reservation in one piece, which lets the port pool it.

use super::{MemoryError, PteFlags, VirtualAddress, committed as count, mapped::check_range, round_up_to_page};
use crate::platform::platform;
use kernel_config::memory::PAGE_SIZE;

/// A reservation of fixed size and place with a writable, zero-initialised prefix that grows.
#[derive(Debug)]
pub struct GrowableMapping {
    base: usize,
    reserved: usize,
    committed: usize,
}

impl GrowableMapping {
    /// Reserves `reserve` bytes and commits the first `committed` (both rounded up to whole pages).
    pub fn new(reserve: usize, committed: usize) -> Result<GrowableMapping, MemoryError> {
        let reserved = round_up_to_page(reserve).ok_or(MemoryError::OutOfAddressSpace(reserve))?;
        let committed = round_up_to_page(committed).ok_or(MemoryError::OutOfFrames(committed))?;
        check_range(0, Some(committed), reserved)?;
        let base = match reserved {
            0 => 0,
            _ => platform().memory().reserve_committed(reserved, committed)?,
        };
        count::add(committed);
        Ok(GrowableMapping { base, reserved, committed })
    }

    /// First address; constant. 0 for an empty reservation.
    pub fn start_address(&self) -> VirtualAddress {
        VirtualAddress::new_canonical(self.base)
    }

    /// Bytes committed, a multiple of the page size.
    pub fn len(&self) -> usize {
        self.committed
    }

    /// Whether nothing is committed.
    pub fn is_empty(&self) -> bool {
        self.committed == 0
    }

    /// Bytes reserved: what the mapping can grow to.
    pub fn reserved(&self) -> usize {
        self.reserved
    }

    /// Commits `bytes` more, zeroed, behind what is committed. Returns the length before.
    pub fn commit_more(&mut self, bytes: usize) -> Result<usize, MemoryError> {
        let more = round_up_to_page(bytes).ok_or(MemoryError::OutOfFrames(bytes))?;
        check_range(self.committed, Some(more), self.reserved)?;
        let before = self.committed;
        if more > 0 {
            let flags = PteFlags::VALID | PteFlags::WRITABLE;
            // SAFETY: the range lies in this object's reservation, behind the prefix, so it is not mapped.
            unsafe { platform().memory().commit(self.base + before, more, flags)? };
            self.committed += more;
            count::add(more);
        }
        Ok(before)
    }

    /// Shrinks the prefix to `bytes` (a multiple of the page size); the frames behind go back.
    pub fn decommit_to(&mut self, bytes: usize) -> Result<(), MemoryError> {
        if !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(MemoryError::NotPageAligned(bytes));
        }
        check_range(bytes, Some(0), self.committed)?;
        if bytes < self.committed {
            // SAFETY: the range is part of this object's prefix; the exclusive borrow shows that nobody uses it.
            unsafe { platform().memory().decommit(self.base + bytes, self.committed - bytes) };
            count::subtract(self.committed - bytes);
            self.committed = bytes;
        }
        Ok(())
    }

    /// Makes the mapping as new: `committed` bytes that read zero, at the same place.
    pub fn reset(&mut self, committed: usize) -> Result<(), MemoryError> {
        let wanted = round_up_to_page(committed).ok_or(MemoryError::OutOfFrames(committed))?;
        check_range(0, Some(wanted), self.reserved)?;
        self.decommit_to(0)?;
        self.commit_more(wanted).map(|_| ())
    }

    /// `length` bytes from `offset` on.
    pub fn as_slice(&self, offset: usize, length: usize) -> Result<&[u8], MemoryError> {
        check_range(offset, Some(length), self.committed)?;
        if length == 0 {
            return Ok(&[]);
        }
        // SAFETY: inside the committed prefix, which is mapped readable; bytes have no alignment; whoever lets code
        // write through the base address meanwhile does so in an `unsafe` block of its own and answers for it.
        Ok(unsafe { core::slice::from_raw_parts((self.base + offset) as *const u8, length) })
    }

    /// `length` bytes from `offset` on, mutable.
    pub fn as_slice_mut(&mut self, offset: usize, length: usize) -> Result<&mut [u8], MemoryError> {
        check_range(offset, Some(length), self.committed)?;
        if length == 0 {
            return Ok(&mut []);
        }
        // SAFETY: as in `as_slice`; the prefix is writable and the borrow exclusive.
        Ok(unsafe { core::slice::from_raw_parts_mut((self.base + offset) as *mut u8, length) })
    }
}

impl Drop for GrowableMapping {
    fn drop(&mut self) {
        count::subtract(self.committed);
        if self.reserved > 0 {
            // SAFETY: this object owns the reservation and ends here; exactly its prefix is mapped.
            unsafe { platform().memory().release_committed(self.base, self.reserved, self.committed) };
        }
    }
}
