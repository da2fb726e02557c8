//! Physical frames.
//!
//! Frames come from the ranges of usable memory (a bump pointer per range: memory that was never needed is never touched;
//! the highest range first, which leaves low memory to devices that reach no further), and from a list of returned
//! frames that is threaded through the frames themselves.
//! Both take constant time. Pages that get their frame on first touch have it promised: what is promised is given to nobody
//! else, so a touch never fails. Frames are identified by their physical address, and mapped in the window [`PHYSICAL`].

use kernel_config::{bare_metal::PHYSICAL, memory::PAGE_SIZE};

/// Most ranges of usable memory that are kept; further ones are left unused.
const MAX_RANGES: usize = 64;

/// A physical frame address; a multiple of the page size.
pub(super) type Frame = u64;

/// Where a frame can be read and written.
pub(super) fn window(frame: Frame) -> usize {
    PHYSICAL.start + frame as usize
}

#[derive(Clone, Copy)]
struct FrameRange {
    next: Frame,
    end: Frame,
}

/// The frame allocator.
pub(super) struct FrameAllocator {
    ranges: [FrameRange; MAX_RANGES],
    range_count: usize,
    /// Whether all memory is mapped; until then only the lowest range is sure to be.
    all_mapped: bool,
    /// First returned frame, 0 for none; its first word holds the next one.
    returned: Frame,
    free: usize,
    /// The least that `free` was since somebody asked.
    least_free: usize,
    /// Of the free frames, those that pages will get when they are touched.
    promised: usize,
    total: usize,
}

impl FrameAllocator {
    pub(super) const fn new() -> Self {
        Self {
            ranges: [FrameRange { next: 0, end: 0 }; MAX_RANGES],
            range_count: 0,
            all_mapped: false,
            returned: 0,
            free: 0,
            least_free: 0,
            promised: 0,
            total: 0,
        }
    }

    /// Adds the frames that lie wholly in `start..end`.
    ///
    /// # Safety
    /// The range is usable memory that nobody else uses, and is or will be mapped in the window before its
    /// frames are returned.
    pub(super) unsafe fn add_range(&mut self, start: u64, end: u64) {
        let page = PAGE_SIZE as u64;
        let (start, end) = (start.next_multiple_of(page), end & !(page - 1));
        if start >= end || self.range_count == MAX_RANGES {
            return;
        }
        self.ranges[self.range_count] = FrameRange { next: start, end };
        self.range_count += 1;
        self.free += ((end - start) / page) as usize;
        self.total += ((end - start) / page) as usize;
    }

    /// A frame with arbitrary content.
    pub(super) fn allocate(&mut self) -> Option<Frame> {
        if self.free() == 0 {
            return None;
        }
        self.take()
    }

    /// Sets frames aside; `false`, with nothing done, if there are not so many.
    pub(super) fn promise(&mut self, frames: usize) -> bool {
        let enough = frames <= self.free();
        self.promised += if enough { frames } else { 0 };
        enough
    }

    /// Takes a promise for frames back.
    pub(super) fn take_back(&mut self, frames: usize) {
        self.promised -= frames;
    }

    /// A zeroed frame that was promised.
    pub(super) fn allocate_promised(&mut self) -> Option<Frame> {
        let frame = self.take()?;
        self.promised -= 1;
        // SAFETY: the frame is ours alone and mapped in the window.
        unsafe { (window(frame) as *mut u8).write_bytes(0, PAGE_SIZE) };
        Some(frame)
    }

    fn take(&mut self) -> Option<Frame> {
        if self.returned != 0 {
            let frame = self.returned;
            // SAFETY: frames on the list are mapped in the window, and `release` wrote the link.
            self.returned = unsafe { (window(frame) as *const Frame).read() };
            self.count_taken();
            return Some(frame);
        }
        let mut ranges = self.ranges[..self.range_count].iter_mut().filter(|r| r.next < r.end);
        let range = if self.all_mapped { ranges.next_back() } else { ranges.next() }?;
        let frame = range.next;
        range.next += PAGE_SIZE as u64;
        self.count_taken();
        Some(frame)
    }

    fn count_taken(&mut self) {
        self.free -= 1;
        self.least_free = self.least_free.min(self.free);
    }

    /// The most frames that were in use since the last call.
    pub(super) fn take_peak(&mut self) -> usize {
        self.total - core::mem::replace(&mut self.least_free, self.free)
    }

    /// A zeroed frame.
    pub(super) fn allocate_zeroed(&mut self) -> Option<Frame> {
        let frame = self.allocate()?;
        // SAFETY: the frame is ours alone and mapped in the window.
        unsafe { (window(frame) as *mut u8).write_bytes(0, PAGE_SIZE) };
        Some(frame)
    }

    /// Takes a frame back.
    ///
    /// # Safety
    /// It came from `allocate` and nobody maps or uses it any more.
    pub(super) unsafe fn release(&mut self, frame: Frame) {
        // SAFETY: the caller gives the frame up; it is mapped in the window.
        unsafe { (window(frame) as *mut Frame).write(self.returned) };
        self.returned = frame;
        self.free += 1;
    }

    /// Says that all memory is mapped in the window from now on.
    pub(super) fn set_all_mapped(&mut self) {
        self.all_mapped = true;
    }

    /// Frames that can still be allocated.
    pub(super) fn free(&self) -> usize {
        self.free - self.promised
    }

    /// Frames that are set aside.
    pub(super) fn promised(&self) -> usize {
        self.promised
    }

    /// Frames under management.
    pub(super) fn total(&self) -> usize {
        self.total
    }
}
