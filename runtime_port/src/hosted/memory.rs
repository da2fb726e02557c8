//! Address space by `mmap`, shared frames from one memory file.
//!
//! Reservations are private anonymous mappings without access; committing is a change of protection. Freed reservations
//! wait in a small pool. A linear memory comes back *warm*: its frames are gone, but its prefix stays accessible (and
//! reads zero), so that the next memory of the same shape needs no system call at all. What may hold code lies
//! [near](super::near) the program's.
//!
//! Shared frames are ranges of one growing `memfd` that is written with `pwrite`: text never has a writable mapping. Small
//! images of modules that are gone are [kept](super::kept_images) with their frames, for modules of the same shape.

use super::arena::Arena;
use super::kept_images::{KeptImage, KeptImages};
use super::near::NearPlaces;
use crate::memory::{ImageRanges, MemoryError, MemoryPort, MemoryStatistics, PteFlags};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

/// Most reservations that wait in the pool.
const POOL_ENTRIES: usize = 64;

/// Most address space that waits in the pool, in bytes.
const POOL_BYTES: usize = 1 << 40;

/// Largest prefix that stays accessible in the pool, in bytes.
const WARM_BYTES: usize = 4 << 20;

/// The hosted memory port.
#[derive(Debug, Default)]
pub struct HostedMemory {
    pool: Mutex<Vec<Pooled>>,
    arena: Mutex<Arena>,
    images: KeptImages,
    near: NearPlaces,
    reserved: AtomicUsize,
}

/// A reservation in the pool: no frames; the first `warm` bytes are readable and writable, the rest inaccessible.
#[derive(Debug, Clone, Copy)]
struct Pooled {
    start: usize,
    size: usize,
    warm: usize,
}

impl HostedMemory {
    /// A port without reservations.
    pub const fn new() -> HostedMemory {
        HostedMemory {
            pool: Mutex::new(Vec::new()),
            arena: Mutex::new(Arena::new()),
            images: KeptImages::new(),
            near: NearPlaces::new(),
            reserved: AtomicUsize::new(0),
        }
    }

    /// Takes a pooled reservation of this size; the one whose accessible prefix is nearest to `warm`.
    fn take_pooled(&self, size: usize, warm: usize) -> Option<Pooled> {
        let mut pool = lock(&self.pool);
        let fitting = pool.iter().enumerate().rev().filter(|(_, p)| p.size == size);
        let (i, _) = fitting.min_by_key(|(_, p)| p.warm.abs_diff(warm))?;
        Some(pool.swap_remove(i))
    }

    /// Gives every pooled reservation and kept image back to the system, for when address space or mappings run out.
    fn drain_pool(&self) -> bool {
        let entries = core::mem::take(&mut *lock(&self.pool));
        entries.iter().for_each(|p| unmap(p.start, p.size));
        let images = self.images.drain();
        images.iter().for_each(|image| self.give_back(*image));
        !entries.is_empty() || !images.is_empty()
    }

    /// Gives an image that was kept back to the system.
    fn give_back(&self, image: KeptImage) {
        unmap(image.start, image.ranges.total());
        lock(&self.arena).free_kept(image.frames, image.frames_size());
    }

    /// Puts a reservation in the pool, or gives it back to the system when the pool is full.
    fn put_pooled(&self, entry: Pooled) {
        let mut pool = lock(&self.pool);
        let bytes: usize = pool.iter().map(|p| p.size).sum();
        if pool.len() < POOL_ENTRIES && bytes.saturating_add(entry.size) <= POOL_BYTES && pool.try_reserve(1).is_ok() {
            pool.push(entry);
            return;
        }
        drop(pool);
        unmap(entry.start, entry.size);
    }

    /// A reservation with an accessible prefix of some size (see the result), from the pool or new.
    fn obtain(&self, size: usize, warm: usize) -> Result<Pooled, MemoryError> {
        if let Some(pooled) = self.take_pooled(size, warm) {
            return Ok(pooled);
        }
        let map = || self.near.map(size).map_or_else(|| map_inaccessible(None, size), Ok);
        let start = match map() {
            Err(_) if self.drain_pool() => map(),
            result => result,
        };
        let start = start.map_err(|_| MemoryError::OutOfAddressSpace(size))?;
        Ok(Pooled { start, size, warm: 0 })
    }
}

// SAFETY: the kernel gives out disjoint mappings, a pool entry leaves the pool when it is handed out, every page
// handed out reads zero (new anonymous mappings do, pooled ones lost their frames), `checked` flags never hold both
// write and execute, and `mprotect` shoots down the other processors' translations.
unsafe impl MemoryPort for HostedMemory {
    fn reserve(&self, size: usize) -> Result<usize, MemoryError> {
        self.reserve_committed(size, 0)
    }

    fn reserve_low(&self, size: usize) -> Result<usize, MemoryError> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_32BIT;
        // SAFETY: a new mapping at an address of the kernel's choice: the first 2 GiB.
        let p = unsafe { libc::mmap(core::ptr::null_mut(), size, libc::PROT_NONE, flags, -1, 0) };
        if p == libc::MAP_FAILED {
            return Err(MemoryError::OutOfAddressSpace(size));
        }
        self.reserved.fetch_add(size, Relaxed);
        Ok(p as usize)
    }

    unsafe fn release(&self, start: usize, size: usize) {
        self.reserved.fetch_sub(size, Relaxed);
        match map_inaccessible(Some(start), size) {
            Ok(_) => self.put_pooled(Pooled { start, size, warm: 0 }),
            Err(_) => unmap(start, size),
        }
    }

    fn reserve_committed(&self, size: usize, committed: usize) -> Result<usize, MemoryError> {
        let Pooled { start, warm, .. } = self.obtain(size, committed)?;
        let adjusted = match warm.cmp(&committed) {
            core::cmp::Ordering::Equal => Ok(()),
            core::cmp::Ordering::Less => protect(start + warm, committed - warm, libc::PROT_READ | libc::PROT_WRITE),
            core::cmp::Ordering::Greater => protect(start + committed, warm - committed, libc::PROT_NONE),
        };
        if adjusted.is_err() {
            unmap(start, size);
            return Err(MemoryError::OutOfFrames(committed));
        }
        self.reserved.fetch_add(size, Relaxed);
        Ok(start)
    }

    unsafe fn release_committed(&self, start: usize, size: usize, committed: usize) {
        if committed > WARM_BYTES || (committed > 0 && !discard(start, committed)) {
            // SAFETY: passed on from the caller.
            return unsafe { self.release(start, size) };
        }
        self.reserved.fetch_sub(size, Relaxed);
        self.put_pooled(Pooled { start, size, warm: committed });
    }

    unsafe fn commit(&self, start: usize, size: usize, flags: PteFlags) -> Result<(), MemoryError> {
        protect(start, size, protection(flags.checked()?)).map_err(|_| MemoryError::OutOfFrames(size))
    }

    unsafe fn decommit(&self, start: usize, size: usize) {
        if map_inaccessible(Some(start), size).is_err() {
            // The system is out of mappings: give the frames back and take the access, which needs none as a rule.
            discard(start, size);
            let _ = protect(start, size, libc::PROT_NONE);
        }
    }

    unsafe fn protect(&self, start: usize, size: usize, flags: PteFlags) -> Result<(), MemoryError> {
        protect(start, size, protection(flags.checked()?)).map_err(|_| MemoryError::OutOfFrames(size))
    }

    fn create_frames(&self, content: &[&[u8]], size: usize) -> Result<u64, MemoryError> {
        lock(&self.arena).allocate(content, size)
    }

    unsafe fn map_frames(
        &self,
        start: usize,
        frames: u64,
        offset: usize,
        size: usize,
        flags: PteFlags,
    ) -> Result<(), MemoryError> {
        let flags = flags.checked()?;
        if flags.is_writable() {
            return Err(MemoryError::Flags(flags));
        }
        let file = lock(&self.arena).file().ok_or(MemoryError::OutOfFrames(size))?;
        let at = libc::off_t::try_from(frames + offset as u64).map_err(|_| MemoryError::OutOfFrames(size))?;
        // Private, so that a debugger's breakpoint in one instance stays there; unwritten, so the frames are shared.
        let map_flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
        // SAFETY: replaces pages of a reservation that the caller owns.
        let p = unsafe { libc::mmap(start as *mut _, size, protection(flags), map_flags, file, at) };
        if p == libc::MAP_FAILED { Err(MemoryError::OutOfFrames(size)) } else { Ok(()) }
    }

    unsafe fn replace_frames(
        &self,
        start: usize,
        frames: u64,
        offset: usize,
        size: usize,
        flags: PteFlags,
    ) -> Result<(), MemoryError> {
        // A fixed mapping takes the place of the old one under the kernel's lock: an access in between faults, waits for
        // the lock and finds the new one.
        // SAFETY: passed on from the caller.
        unsafe { self.map_frames(start, frames, offset, size, flags) }
    }

    unsafe fn free_frames(&self, frames: u64, size: usize) {
        lock(&self.arena).free(frames, size);
    }

    unsafe fn keep_image(&self, start: usize, ranges: ImageRanges, frames: u64, size: usize) -> bool {
        if ranges.text + ranges.rodata != size || !self.images.keep(KeptImage { start, ranges, frames }) {
            return false;
        }
        self.reserved.fetch_sub(ranges.total(), Relaxed);
        lock(&self.arena).count_out(size);
        true
    }

    fn reuse_image(&self, ranges: ImageRanges, content: &[&[u8]]) -> Option<(u64, usize)> {
        match self.images.take(ranges, &self.arena, content) {
            Ok(image) => {
                let KeptImage { start, frames, .. } = image?;
                self.reserved.fetch_add(ranges.total(), Relaxed);
                lock(&self.arena).count_in(ranges.text + ranges.rodata);
                Some((frames, start))
            }
            Err(useless) => {
                self.give_back(useless);
                None
            }
        }
    }

    fn statistics(&self) -> MemoryStatistics {
        let (images, image_bytes) = self.images.count();
        let pool = lock(&self.pool);
        MemoryStatistics {
            reserved_bytes: self.reserved.load(Relaxed),
            shared_bytes: lock(&self.arena).used(),
            pooled_reservations: pool.len() + images,
            pooled_bytes: pool.iter().map(|p| p.size).sum::<usize>() + image_bytes,
        }
    }
}

/// Locks; a panic of another holder does not matter, because every critical section leaves its data whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Maps fresh inaccessible pages, at `at` (replacing what is there) or anywhere.
fn map_inaccessible(at: Option<usize>, size: usize) -> Result<usize, i32> {
    let fixed = if at.is_some() { libc::MAP_FIXED } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
    let hint = at.unwrap_or(0) as *mut libc::c_void;
    // SAFETY: without `MAP_FIXED` the kernel picks unused addresses; with it the callers own the range.
    let p = unsafe { libc::mmap(hint, size, libc::PROT_NONE, flags, -1, 0) };
    if p == libc::MAP_FAILED { Err(errno()) } else { Ok(p as usize) }
}

fn protect(start: usize, size: usize, protection: i32) -> Result<(), i32> {
    // SAFETY: the callers own the range.
    match unsafe { libc::mprotect(start as *mut _, size, protection) } {
        0 => Ok(()),
        _ => Err(errno()),
    }
}

/// Drops the frames of private anonymous pages, which then read zero.
fn discard(start: usize, size: usize) -> bool {
    // SAFETY: the callers own the range.
    unsafe { libc::madvise(start as *mut _, size, libc::MADV_DONTNEED) == 0 }
}

fn unmap(start: usize, size: usize) {
    // SAFETY: the callers own the range and give it up.
    if unsafe { libc::munmap(start as *mut _, size) } != 0 {
        // Out of mappings to split with: the address space is lost, its frames are not.
        discard(start, size);
        let _ = protect(start, size, libc::PROT_NONE);
    }
}

fn protection(flags: PteFlags) -> i32 {
    let mut p = libc::PROT_READ;
    if flags.is_writable() {
        p |= libc::PROT_WRITE;
    }
    if flags.is_executable() {
        p |= libc::PROT_EXEC;
    }
    p
}

/// The calling thread's last error number.
pub(super) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
