//! `KeptPages`: what stays of an image that is not needed any more but for some code and some words of its data block.
//!
//! The code stays at its addresses, in frames of its own: those of the whole image can go. Nobody who executes it meanwhile notices.

use super::{ImageMapping, MemoryError, PteFlags, SharedFrames, committed};
use crate::platform::platform;
use alloc::vec::Vec;
use core::ops::Range;
use kernel_config::memory::PAGE_SIZE;

/// Byte between the code that is kept: `int3`.
const FILL: u8 = 0xcc;

/// The pages that remain of an image; returned on drop.
#[derive(Debug)]
pub struct KeptPages {
    code: Range<usize>,
    data: Range<usize>,
    _frames: SharedFrames,
}

impl KeptPages {
    /// Bytes of memory that it takes.
    pub fn len(&self) -> usize {
        self.code.len() + self.data.len()
    }

    /// Whether it takes none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for KeptPages {
    fn drop(&mut self) {
        committed::subtract(self.data.len());
        // SAFETY: both are parts of a reservation that this object owns.
        unsafe {
            platform().memory().release(self.code.start, self.code.len());
            platform().memory().release(self.data.start, self.data.len());
        }
    }
}

fn pages_of(range: &Range<usize>) -> Range<usize> {
    range.start & !(PAGE_SIZE - 1)..range.end.next_multiple_of(PAGE_SIZE)
}

impl ImageMapping {
    /// Gives everything back but the pages with these addresses: `code` in the text, `data` in the data block. What else the pages of the
    /// code held is overwritten. Gives the whole image back when it cannot be done.
    ///
    /// # Safety
    /// Nobody uses anything else of the image any more; `code` is only executed and read.
    pub unsafe fn keep_only(self, code: Range<usize>, data: Range<usize>) -> Result<KeptPages, ImageMapping> {
        let (start, ranges) = (self.start_address().value(), self.ranges());
        let data_start = self.data_address().value();
        let (code_pages, data_pages) = (pages_of(&code), pages_of(&data));
        let inside = start <= code_pages.start
            && code_pages.end <= start + ranges.text
            && data_start <= data_pages.start
            && data_pages.end <= data_start + ranges.data;
        if code.is_empty() || data.is_empty() || !inside {
            return Err(self);
        }
        let memory = platform().memory();
        let Ok(frames) = frames_with(&code, &code_pages) else { return Err(self) };
        let flags = PteFlags::VALID | PteFlags::EXECUTABLE;
        // SAFETY: the pages are the image's and map other frames; the new ones have the same bytes where anybody looks.
        let replaced = unsafe { memory.replace_frames(code_pages.start, frames.handle(), 0, code_pages.len(), flags) };
        if replaced.is_err() {
            return Err(self);
        }
        let end = data_start + ranges.data;
        // What was shared lives on for other images, so only the mapping goes.
        let _old = self.into_parts();
        committed::subtract(ranges.data - data_pages.len());
        for gap in [start..code_pages.start, code_pages.end..data_pages.start, data_pages.end..end] {
            if !gap.is_empty() {
                // SAFETY: a part of the image's reservation that nobody uses, says the caller.
                unsafe { memory.release(gap.start, gap.len()) };
            }
        }
        Ok(KeptPages { code: code_pages, data: data_pages, _frames: frames })
    }
}

/// Frames for `pages` with the bytes of `code`.
fn frames_with(code: &Range<usize>, pages: &Range<usize>) -> Result<SharedFrames, MemoryError> {
    let mut bytes: Vec<u8> = Vec::new();
    bytes.try_reserve_exact(pages.len()).map_err(|_| MemoryError::OutOfFrames(pages.len()))?;
    bytes.resize(code.start - pages.start, FILL);
    // SAFETY: the code is mapped readable and is written by nobody.
    bytes.extend_from_slice(unsafe { core::slice::from_raw_parts(code.start as *const u8, code.len()) });
    bytes.resize(pages.len(), FILL);
    SharedFrames::new(&[&bytes], pages.len())
}
