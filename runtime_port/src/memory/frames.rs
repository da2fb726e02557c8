//! `SharedFrames`: content that several reservations map, never writable.
//!
//! Text and rodata of a cell are filled in once, before anybody maps them, and through no writable mapping. Each
//! instance of the cell maps the same frames; they are freed when the last mapping and the last handle are gone.

use super::{ImageRanges, MemoryError, image::IdleImage, round_up_to_page};
use crate::platform::platform;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

/// A share of frames with fixed content. Cloning makes another share of the same frames.
#[derive(Clone, Debug)]
pub struct SharedFrames(Arc<Frames>);

#[derive(Debug)]
struct Frames {
    handle: u64,
    size: usize,
    /// Whether images may be used again.
    reusable: AtomicBool,
    /// Images of these frames that nobody uses at the moment, ready to be used again.
    idle: spin::Mutex<Vec<IdleImage>>,
}

/// Most images of one content that wait for reuse.
const IDLE_IMAGES: usize = 4;

impl SharedFrames {
    /// Frames that hold `content` (its slices one after the other) and zeroes up to `size` bytes.
    pub fn new(content: &[&[u8]], size: usize) -> Result<SharedFrames, MemoryError> {
        let rounded = checked_size(content, size)?;
        let handle = platform().memory().create_frames(content, rounded)?;
        Ok(SharedFrames::of(handle, rounded, Vec::new()))
    }

    /// Frames for the text and rodata of images with these parts. The first image may be mapped already: one that another module has left.
    pub fn for_image(content: &[&[u8]], ranges: ImageRanges) -> Result<SharedFrames, MemoryError> {
        let size = ranges.text + ranges.rodata;
        let rounded = checked_size(content, size)?;
        let mut idle = Vec::new();
        if rounded == size
            && idle.try_reserve_exact(1).is_ok()
            && let Some((handle, start)) = platform().memory().reuse_image(ranges, content)
        {
            idle.push(IdleImage::mapped(start, ranges));
            return Ok(SharedFrames::of(handle, size, idle));
        }
        SharedFrames::new(content, size)
    }

    fn of(handle: u64, size: usize, idle: Vec<IdleImage>) -> SharedFrames {
        SharedFrames(Arc::new(Frames { handle, size, reusable: AtomicBool::new(true), idle: spin::Mutex::new(idle) }))
    }

    /// Size in bytes, a multiple of the page size.
    pub fn size_in_bytes(&self) -> usize {
        self.0.size
    }

    /// Whether both are shares of the same frames.
    pub fn same_frames(&self, other: &SharedFrames) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// From now on no image of these frames is used again: each new one is mapped afresh. Neither allocates nor locks.
    pub fn retire_images(&self) {
        self.0.reusable.store(false, Ordering::Release);
    }

    /// Gives back the images that wait for reuse.
    pub fn release_idle_images(&self) {
        let idle = core::mem::take(&mut *self.0.idle.lock());
        idle.into_iter().for_each(IdleImage::release);
    }

    pub(super) fn handle(&self) -> u64 {
        self.0.handle
    }

    /// An idle image with these parts, if there is one.
    pub(super) fn take_idle(&self, wanted: impl Fn(&IdleImage) -> bool) -> Option<IdleImage> {
        if !self.0.reusable.load(Ordering::Acquire) {
            return None;
        }
        let mut idle = self.0.idle.lock();
        let i = idle.iter().position(wanted)?;
        Some(idle.swap_remove(i))
    }

    /// Keeps an image for reuse; gives it back when enough are kept. When nobody else could ask for it, one is enough: the port may want it.
    pub(super) fn keep_idle(&self, image: IdleImage) -> Result<(), IdleImage> {
        if !self.0.reusable.load(Ordering::Acquire) {
            return Err(image);
        }
        let most = if Arc::strong_count(&self.0) == 1 { 1 } else { IDLE_IMAGES };
        let mut idle = self.0.idle.lock();
        if idle.len() >= most || idle.try_reserve(1).is_err() {
            return Err(image);
        }
        idle.push(image);
        Ok(())
    }
}

/// The size of frames that are to hold this; refuses what does not fit.
fn checked_size(content: &[&[u8]], size: usize) -> Result<usize, MemoryError> {
    let rounded = round_up_to_page(size).filter(|s| *s > 0).ok_or(MemoryError::OutOfFrames(size))?;
    match content.iter().try_fold(0usize, |n, s| n.checked_add(s.len())) {
        Some(n) if n <= rounded => Ok(rounded),
        n => Err(MemoryError::OutOfRange { start: 0, len: n.unwrap_or(usize::MAX), size: rounded }),
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let last = if *self.reusable.get_mut() { self.idle.get_mut().pop() } else { None };
        self.idle.get_mut().drain(..).for_each(IdleImage::release);
        if let Some(image) = last {
            // SAFETY: every mapping holds a share of this object, so the image is the only one left.
            if unsafe { image.leave_to_port(self.handle, self.size) } {
                return;
            }
        }
        // SAFETY: every mapping holds a share of this object, so none is left; the idle ones were released just now.
        unsafe { platform().memory().free_frames(self.handle, self.size) };
    }
}
