//! `MappedPages`: pages one owner has mapped.
//!
//! The invariants are Theseus's (crate `memory`, `paging/mapper.rs`): a range has one owner, it is unmapped exactly
//! once, when the owner is dropped, and borrows of its content cannot outlive it. Beyond Theseus: fresh pages read
//! zero, no page is ever writable and executable, and a typed borrow at a misaligned offset is an error.

use super::{AllocatedPages, FromBytes, MemoryError, PteFlags, SharedFrames, committed};
use crate::platform::platform;
use core::mem::{align_of, size_of};
use kernel_config::memory::PAGE_SIZE;

/// Pages that are mapped with one set of flags. Unmapped and returned on drop. Neither `Clone` nor `Copy`.
#[derive(Debug)]
pub struct MappedPages {
    pages: AllocatedPages,
    flags: PteFlags,
    /// The frames, when they are shared with other mappings, and the offset in them.
    shared: Option<(SharedFrames, usize)>,
}

/// Reserves and maps at least `size` bytes of zeroed memory (Theseus: `memory::create_mapping`).
pub fn create_mapping(size: usize, flags: PteFlags) -> Result<MappedPages, MemoryError> {
    flags.checked()?;
    MappedPages::map(AllocatedPages::reserve(size)?, flags)
}

/// Maps zeroed frames (Theseus: `Mapper::map_allocated_pages`).
pub fn map_allocated_pages(pages: AllocatedPages, flags: PteFlags) -> Result<MappedPages, MemoryError> {
    MappedPages::map(pages, flags)
}

impl MappedPages {
    /// No pages.
    pub const fn empty() -> MappedPages {
        MappedPages { pages: AllocatedPages::empty(), flags: PteFlags::empty(), shared: None }
    }

    /// Maps fresh frames, which read zero. On failure the reservation is returned to the port.
    pub fn map(pages: AllocatedPages, flags: PteFlags) -> Result<MappedPages, MemoryError> {
        let flags = flags.checked()?;
        let range = pages.range();
        if !range.is_empty() {
            // SAFETY: `pages` owns the reservation, and nothing is mapped in an `AllocatedPages`.
            unsafe { platform().memory().commit(range.start, range.len(), flags)? };
            committed::add(range.len());
        }
        Ok(MappedPages { pages, flags, shared: None })
    }

    /// Maps all of `pages` to shared frames from `offset` on. `flags` must not be writable.
    pub fn from_frames(
        pages: AllocatedPages,
        frames: &SharedFrames,
        offset: usize,
        flags: PteFlags,
    ) -> Result<MappedPages, MemoryError> {
        let (flags, range) = (flags.checked()?, pages.range());
        check_frames(frames, offset, range.len(), flags)?;
        if !range.is_empty() {
            // SAFETY: `pages` owns the reservation; the part of the frames was checked, and the new object's share
            // keeps them live.
            unsafe { platform().memory().map_frames(range.start, frames.handle(), offset, range.len(), flags)? };
        }
        Ok(MappedPages { pages, flags, shared: Some((frames.clone(), offset)) })
    }

    /// The flags all pages have.
    pub fn flags(&self) -> PteFlags {
        self.flags
    }

    /// Whether the frames are shared with other mappings, so that these pages can never become writable.
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Appends (or prepends) adjacent pages of equal flags; gives them back when they do not fit.
    pub fn merge(&mut self, other: MappedPages) -> Result<(), (MemoryError, MappedPages)> {
        if other.size_in_bytes() == 0 {
            return Ok(());
        }
        if self.size_in_bytes() == 0 {
            *self = other;
            return Ok(());
        }
        let forward = self.range().end == other.range().start;
        let (low, high) = if forward { (&*self, &other) } else { (&other, &*self) };
        let frames_continue = match (&low.shared, &high.shared) {
            (None, None) => true,
            (Some((a, x)), Some((b, y))) => a.same_frames(b) && x + low.size_in_bytes() == *y,
            _ => false,
        };
        if self.flags != other.flags || low.range().end != high.range().start || !frames_continue {
            return Err((MemoryError::NotMergeable, other));
        }
        let (pages, shared) = other.into_fields();
        if !forward {
            self.shared = shared;
        }
        match self.pages.merge(pages) {
            Ok(()) => Ok(()),
            Err(_) => unreachable!("adjacency was checked above"),
        }
    }

    /// Splits in two after `offset` bytes, a multiple of the page size and at most the size.
    pub fn split(self, offset: usize) -> Result<(MappedPages, MappedPages), (MemoryError, MappedPages)> {
        let flags = self.flags;
        let (pages, shared) = self.into_fields();
        match pages.split(offset) {
            Ok((low, high)) => {
                let upper = shared.as_ref().map(|(f, at)| (f.clone(), at + offset));
                Ok((MappedPages { pages: low, flags, shared }, MappedPages { pages: high, flags, shared: upper }))
            }
            Err((e, pages)) => Err((e, MappedPages { pages, flags, shared })),
        }
    }

    /// Gives all pages new flags; `VALID` is implied. Write and execute together are refused, and so is write for
    /// shared frames.
    pub fn remap(&mut self, flags: PteFlags) -> Result<(), MemoryError> {
        let flags = flags.checked()?;
        if self.shared.is_some() && flags.is_writable() {
            return Err(MemoryError::Flags(flags));
        }
        if flags == self.flags || self.size_in_bytes() == 0 {
            self.flags = flags;
            return Ok(());
        }
        let range = self.range();
        // SAFETY: this object owns the range and has it mapped; the exclusive borrow shows that nobody reads it now.
        unsafe { platform().memory().protect(range.start, range.len(), flags)? };
        self.flags = flags;
        Ok(())
    }

    /// Unmaps and gives back the reservation, with the share of the frames if they were shared.
    pub fn unmap_into_parts(self) -> (AllocatedPages, Option<SharedFrames>) {
        let (pages, shared) = self.into_fields();
        let range = pages.range();
        if !range.is_empty() {
            // SAFETY: the range was this object's and is borrowed by nobody, since the object was taken by value.
            unsafe { platform().memory().decommit(range.start, range.len()) };
            if shared.is_none() {
                committed::subtract(range.len());
            }
        }
        (pages, shared.map(|(frames, _)| frames))
    }

    /// The bytes at `offset` as a `T`.
    pub fn as_type<T: FromBytes>(&self, offset: usize) -> Result<&T, MemoryError> {
        self.check::<T>(offset, 1, PteFlags::VALID)?;
        // SAFETY: in range, aligned and mapped readable (checked); any bytes are a `T`; the borrow of `self` keeps
        // the pages mapped and unchanged by safe code.
        Ok(unsafe { &*((self.range().start + offset) as *const T) })
    }

    /// The bytes at `offset` as a mutable `T`.
    pub fn as_type_mut<T: FromBytes>(&mut self, offset: usize) -> Result<&mut T, MemoryError> {
        self.check::<T>(offset, 1, PteFlags::WRITABLE)?;
        // SAFETY: as in `as_type`; writable (checked), and the borrow is exclusive.
        Ok(unsafe { &mut *((self.range().start + offset) as *mut T) })
    }

    /// `length` elements from `offset` on.
    pub fn as_slice<T: FromBytes>(&self, offset: usize, length: usize) -> Result<&[T], MemoryError> {
        self.check::<T>(offset, length, PteFlags::VALID)?;
        if length == 0 {
            return Ok(&[]);
        }
        // SAFETY: as in `as_type`, for `length` elements.
        Ok(unsafe { core::slice::from_raw_parts((self.range().start + offset) as *const T, length) })
    }

    /// `length` elements from `offset` on, mutable.
    pub fn as_slice_mut<T: FromBytes>(&mut self, offset: usize, length: usize) -> Result<&mut [T], MemoryError> {
        self.check::<T>(offset, length, PteFlags::WRITABLE)?;
        if length == 0 {
            return Ok(&mut []);
        }
        // SAFETY: as in `as_type_mut`, for `length` elements.
        Ok(unsafe { core::slice::from_raw_parts_mut((self.range().start + offset) as *mut T, length) })
    }

    /// Checks a typed borrow: flags, range, alignment.
    fn check<T>(&self, offset: usize, length: usize, needed: PteFlags) -> Result<(), MemoryError> {
        if !self.flags.contains(needed) && length > 0 {
            return Err(MemoryError::Flags(self.flags));
        }
        check_range(offset, length.checked_mul(size_of::<T>()), self.size_in_bytes())?;
        if !(self.range().start.wrapping_add(offset)).is_multiple_of(align_of::<T>()) {
            return Err(MemoryError::Misaligned { offset, align: align_of::<T>() });
        }
        Ok(())
    }

    fn into_fields(mut self) -> (AllocatedPages, Option<(SharedFrames, usize)>) {
        (core::mem::replace(&mut self.pages, AllocatedPages::empty()), self.shared.take())
    }
}

/// Refuses a range of `len` bytes (`None`: too many to count) that leaves an object of `size` bytes.
pub(super) fn check_range(start: usize, len: Option<usize>, size: usize) -> Result<(), MemoryError> {
    match len.and_then(|l| start.checked_add(l)) {
        Some(end) if end <= size => Ok(()),
        _ => Err(MemoryError::OutOfRange { start, len: len.unwrap_or(usize::MAX), size }),
    }
}

/// Refuses to map shared frames writable, unaligned or beyond their end.
pub(super) fn check_frames(
    frames: &SharedFrames,
    offset: usize,
    size: usize,
    flags: PteFlags,
) -> Result<(), MemoryError> {
    if flags.is_writable() {
        return Err(MemoryError::Flags(flags));
    }
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(MemoryError::NotPageAligned(offset));
    }
    check_range(offset, Some(size), frames.size_in_bytes())
}

impl Drop for MappedPages {
    /// The reservation, which is returned next, unmaps what is in it; only the count is kept here.
    fn drop(&mut self) {
        if self.shared.is_none() {
            committed::subtract(self.size_in_bytes());
        }
    }
}

impl core::ops::Deref for MappedPages {
    type Target = AllocatedPages;
    fn deref(&self) -> &AllocatedPages {
        &self.pages
    }
}
