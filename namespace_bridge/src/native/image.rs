//! The image of a native cell: one reservation, its parts mapped with the flags of their kind.
//!
//! Parts are written while nothing in them can be executed, and get their final flags before any code of the cell can
//! run: no page is ever writable and executable, and what the linker wrote for the cell to read cannot be written after.

use super::error::NativeError;
use super::object::{PARTS, Part};
use super::plan::Plan;
use core::ops::Range;
use runtime_port::memory::{AllocatedPages, MappedPages, MemoryError, PteFlags};

/// An image that the linker still writes. Nothing in it can be executed.
#[derive(Debug)]
pub(super) struct WritableImage {
    start: usize,
    parts: [(Range<usize>, MappedPages); PARTS],
    /// Address space before and behind, when the image needs more alignment than pages have.
    slack: [AllocatedPages; 2],
}

/// An image as its cell uses it.
#[derive(Debug)]
pub struct NativeImage {
    start: usize,
    parts: [(Range<usize>, MappedPages); PARTS],
    _slack: [AllocatedPages; 2],
}

fn no_memory(source: MemoryError) -> NativeError {
    NativeError::Memory { what: "image", source }
}

impl WritableImage {
    /// Reserves the image and maps it, zeroed.
    pub fn map(plan: &Plan) -> Result<WritableImage, NativeError> {
        let page = kernel_config::memory::PAGE_SIZE;
        let size = plan.size + (plan.align - page);
        // Where there are no low addresses, the relocations that need one say so.
        let low = plan.low.then(|| AllocatedPages::reserve_low(size)).and_then(Result::ok);
        let reserved = low.map_or_else(|| AllocatedPages::reserve_for_code(size), Ok).map_err(no_memory)?;
        let first = reserved.start_address().value();
        let start = first.next_multiple_of(plan.align);
        let (head, rest) = reserved.split(start - first).map_err(|(e, _)| no_memory(e))?;
        let (mut rest, tail) = rest.split(plan.size).map_err(|(e, _)| no_memory(e))?;
        let mut parts = [const { (0..0, MappedPages::empty()) }; PARTS];
        for (at, (range, part)) in plan.parts.iter().zip(&mut parts).enumerate() {
            let end = plan.parts.get(at + 1).map_or(plan.size, |next| next.start);
            let (pages, behind) = rest.split(end - range.start).map_err(|(e, _)| no_memory(e))?;
            rest = behind;
            let mapped = MappedPages::map(pages, PteFlags::VALID | PteFlags::WRITABLE).map_err(no_memory)?;
            *part = (range.clone(), mapped);
        }
        Ok(WritableImage { start, parts, slack: [head, tail] })
    }

    /// Its first address.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Bytes of it, in one part.
    pub fn bytes_mut(&mut self, offset: usize, len: usize) -> Result<&mut [u8], NativeError> {
        let outside = || no_memory(MemoryError::OutOfRange { start: offset, len, size: 0 });
        let found =
            self.parts.iter_mut().find(|(range, _)| range.start <= offset && offset <= range.end && !range.is_empty());
        let (range, part) = found.filter(|(r, _)| len <= r.end - offset).ok_or_else(outside)?;
        part.as_slice_mut::<u8>(offset - range.start, len).map_err(no_memory)
    }

    /// Copies bytes to an offset.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), NativeError> {
        if !bytes.is_empty() {
            self.bytes_mut(offset, bytes.len())?.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Gives every part its final flags.
    pub fn seal(mut self) -> Result<NativeImage, NativeError> {
        let flags = |part: Part| match part {
            Part::Text => PteFlags::VALID | PteFlags::EXECUTABLE,
            Part::Rodata | Part::Relro => PteFlags::VALID,
            Part::Data => PteFlags::VALID | PteFlags::WRITABLE,
        };
        for part in [Part::Text, Part::Rodata, Part::Relro, Part::Data] {
            if let Some((_, pages)) = self.parts.get_mut(part as usize) {
                pages.remap(flags(part)).map_err(no_memory)?;
            }
        }
        Ok(NativeImage { start: self.start, parts: self.parts, _slack: self.slack })
    }
}

impl NativeImage {
    /// Its first address.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Addresses of a part.
    pub(super) fn part(&self, part: Part) -> Range<usize> {
        self.parts.get(part as usize).map_or(0..0, |(r, _)| self.start + r.start..self.start + r.end)
    }

    /// Addresses of the whole image.
    pub fn range(&self) -> Range<usize> {
        self.start..self.parts.iter().map(|(_, pages)| pages.range().end).max().unwrap_or(self.start).max(self.start)
    }

    /// Words of the part that the linker wrote and nobody writes any more.
    pub(super) fn words(&self, offset: usize, count: usize) -> &[usize] {
        let Some((range, pages)) = self.parts.get(Part::Relro as usize) else { return &[] };
        let Some(at) = offset.checked_sub(range.start) else { return &[] };
        // SAFETY of the type: words are plain data; `as_slice` checks range and alignment.
        pages.as_slice::<usize>(at, count).unwrap_or(&[])
    }
}
