//! `ImageMapping`: text, rodata and a private data block at fixed distances in one reservation.
//!
//! What one instance of a cell occupies. Text and rodata are shared frames, so a second instance costs a fresh data
//! block and the page tables. An image that is dropped stays mapped for a while as an idle image of its frames: the next
//! instance then costs clearing the data. An idle image is owned by the frames; when they go, it is released, or the port keeps both.

use super::{
    MemoryError, PteFlags, SharedFrames, VirtualAddress, committed, mapped::check_frames, mapped::check_range,
};
use crate::platform::platform;
use kernel_config::memory::PAGE_SIZE;

/// Sizes of an image's parts, each a multiple of the page size. They lie one after the other: text, rodata, data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRanges {
    /// Bytes of text, from offset 0 of the frames.
    pub text: usize,
    /// Bytes of rodata, behind the text in the frames.
    pub rodata: usize,
    /// Bytes of the data block, private to the image, zero at first.
    pub data: usize,
}

impl ImageRanges {
    /// Size of the whole image, which is that of a mapped one.
    pub const fn total(&self) -> usize {
        self.text + self.rodata + self.data
    }

    /// Size of the whole image; an error when it overflows or a part is not page-aligned.
    fn checked_total(&self) -> Result<usize, MemoryError> {
        for part in [self.text, self.rodata, self.data] {
            if !part.is_multiple_of(PAGE_SIZE) {
                return Err(MemoryError::NotPageAligned(part));
            }
        }
        let sum = self.text.checked_add(self.rodata).and_then(|n| n.checked_add(self.data));
        sum.filter(|n| *n > 0).ok_or(MemoryError::OutOfAddressSpace(0))
    }
}

/// A mapped image. Unmapped on drop, or kept idle for the next image of the same frames.
#[derive(Debug)]
pub struct ImageMapping {
    start: usize,
    ranges: ImageRanges,
    frames: SharedFrames,
}

/// Data blocks up to this many bytes are cleared by writing; larger ones get fresh frames.
const CLEAR_BY_WRITING: usize = 16 * PAGE_SIZE;

impl ImageMapping {
    /// Maps an image: text executable, rodata readable, data writable and zero.
    pub fn new(frames: &SharedFrames, ranges: ImageRanges) -> Result<ImageMapping, MemoryError> {
        let total = ranges.checked_total()?;
        check_range(0, Some(ranges.text + ranges.rodata), frames.size_in_bytes())?;
        if let Some(idle) = frames.take_idle(|i| i.ranges == ranges) {
            if !idle.is_clear {
                idle.clear_data()?;
            }
            let image = ImageMapping { start: idle.start, ranges, frames: frames.clone() };
            core::mem::forget(idle);
            return Ok(image);
        }
        let start = platform().memory().reserve_for_code(total)?;
        map_parts(start, frames, ranges).inspect_err(|_| {
            // SAFETY: the reservation was made above and never handed out.
            unsafe { platform().memory().release(start, total) }
        })?;
        committed::add(ranges.data);
        Ok(ImageMapping { start, ranges, frames: frames.clone() })
    }

    /// First address, where the text starts.
    pub fn start_address(&self) -> VirtualAddress {
        VirtualAddress::new_canonical(self.start)
    }

    /// Sizes of the parts.
    pub fn ranges(&self) -> ImageRanges {
        self.ranges
    }

    /// The frames of text and rodata.
    pub fn frames(&self) -> &SharedFrames {
        &self.frames
    }

    /// The text and rodata bytes.
    pub fn shared_bytes(&self) -> &[u8] {
        let size = self.ranges.text + self.ranges.rodata;
        // SAFETY: text and rodata are mapped readable while `self` lives and are written by nobody.
        unsafe { core::slice::from_raw_parts(self.start as *const u8, size) }
    }

    /// Address of the data block.
    pub fn data_address(&self) -> VirtualAddress {
        self.start_address() + (self.ranges.text + self.ranges.rodata)
    }

    /// The data block. To be used before code of the image runs; afterwards the code writes it too.
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: the data block is mapped writable while `self` lives, and the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.data_address().value() as *mut u8, self.ranges.data) }
    }

    /// Unmaps now, without keeping the image idle.
    pub fn unmap(self) {
        self.into_idle().0.release();
    }

    /// The frames, without returning or keeping what is mapped: the caller does.
    pub(super) fn into_parts(self) -> SharedFrames {
        let (idle, frames) = self.into_idle();
        core::mem::forget(idle);
        frames
    }

    fn into_idle(self) -> (IdleImage, SharedFrames) {
        let me = core::mem::ManuallyDrop::new(self);
        let idle = IdleImage { start: me.start, ranges: me.ranges, is_clear: false };
        // SAFETY: `me` is never used or dropped again, so the share moves out exactly once.
        (idle, unsafe { core::ptr::read(&me.frames) })
    }
}

impl Drop for ImageMapping {
    fn drop(&mut self) {
        let idle = IdleImage { start: self.start, ranges: self.ranges, is_clear: false };
        if let Err(idle) = self.frames.keep_idle(idle) {
            idle.release();
        }
    }
}

/// Maps the three parts into a reservation.
fn map_parts(start: usize, frames: &SharedFrames, ranges: ImageRanges) -> Result<(), MemoryError> {
    let memory = platform().memory();
    let text = PteFlags::VALID | PteFlags::EXECUTABLE;
    let shared = [(0, ranges.text, text), (ranges.text, ranges.rodata, PteFlags::VALID)];
    for (offset, size, flags) in shared.into_iter().filter(|p| p.1 > 0) {
        check_frames(frames, offset, size, flags)?;
        // SAFETY: the caller reserved the range; the part of the frames was checked, and the image keeps a share.
        unsafe { memory.map_frames(start + offset, frames.handle(), offset, size, flags)? };
    }
    if ranges.data > 0 {
        let flags = PteFlags::VALID | PteFlags::WRITABLE;
        // SAFETY: the range is the unmapped rest of the caller's reservation.
        unsafe { memory.commit(start + ranges.text + ranges.rodata, ranges.data, flags)? };
    }
    Ok(())
}

/// An image nobody uses; still mapped. It must be released or used again: dropping it does the former.
#[derive(Debug)]
pub(super) struct IdleImage {
    start: usize,
    ranges: ImageRanges,
    /// Its data reads zero.
    is_clear: bool,
}

impl IdleImage {
    /// An image that the port gave out, mapped at `start`, its data zero.
    pub(super) fn mapped(start: usize, ranges: ImageRanges) -> IdleImage {
        committed::add(ranges.data);
        IdleImage { start, ranges, is_clear: true }
    }

    /// Leaves the image, with its frames, to the port, or unmaps it: then it returns `false`, and the frames stay with the caller.
    ///
    /// # Safety
    /// It is the only mapping of the frames, `size` bytes, and nobody uses them afterwards when they were left.
    pub(super) unsafe fn leave_to_port(self, frames: u64, size: usize) -> bool {
        // SAFETY: an idle image owns its reservation, mapped as this module does, and nobody refers to it; the rest by the caller.
        let left = unsafe { platform().memory().keep_image(self.start, self.ranges, frames, size) };
        if left {
            committed::subtract(self.ranges.data);
            core::mem::forget(self);
        }
        left
    }

    /// Unmaps and returns the reservation.
    pub(super) fn release(self) {
        drop(self);
    }

    /// Makes the data read zero again.
    fn clear_data(&self) -> Result<(), MemoryError> {
        let data = self.start + self.ranges.text + self.ranges.rodata;
        if self.ranges.data <= CLEAR_BY_WRITING {
            // SAFETY: the data block is mapped writable and nobody else refers to an idle image.
            unsafe { core::ptr::write_bytes(data as *mut u8, 0, self.ranges.data) };
            return Ok(());
        }
        let memory = platform().memory();
        // SAFETY: nobody refers to an idle image; after `decommit` the range is reserved and unmapped.
        unsafe {
            memory.decommit(data, self.ranges.data);
            memory.commit(data, self.ranges.data, PteFlags::VALID | PteFlags::WRITABLE)
        }
    }
}

impl Drop for IdleImage {
    fn drop(&mut self) {
        let total = self.ranges.total();
        committed::subtract(self.ranges.data);
        // SAFETY: an idle image owns its reservation and nobody refers to it.
        unsafe { platform().memory().release(self.start, total) }
    }
}
