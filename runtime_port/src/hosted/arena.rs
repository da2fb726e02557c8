//! The memory file that shared frames come from.
//!
//! One sparse file for all; a handle is an offset in it. Freed ranges are punched out, so they give their memory back
//! and read zero when used again.

use super::memory::errno;
use crate::memory::MemoryError;
use std::vec::Vec;

/// The file grows by at least this many bytes (sparse: they cost nothing until written).
const GROWTH: usize = 64 << 20;

/// Ranges of one memory file.
#[derive(Debug, Default)]
pub struct Arena {
    file: Option<i32>,
    length: usize,
    used: usize,
    /// Free ranges, sorted by offset, never adjacent.
    free: Vec<(usize, usize)>,
}

impl Arena {
    /// An arena without a file; the first allocation makes it.
    pub const fn new() -> Arena {
        Arena { file: None, length: 0, used: 0, free: Vec::new() }
    }

    /// The file, once there is one.
    pub fn file(&self) -> Option<i32> {
        self.file
    }

    /// Bytes allocated.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Allocates `size` bytes, writes `content` to them; the rest reads zero.
    pub fn allocate(&mut self, content: &[&[u8]], size: usize) -> Result<u64, MemoryError> {
        let out_of_frames = MemoryError::OutOfFrames(size);
        let file = self.open().map_err(|_| out_of_frames)?;
        let i = match self.free.iter().position(|r| r.1 >= size) {
            Some(i) => i,
            None => self.grow(file, size).ok_or(out_of_frames)?,
        };
        let (offset, free) = self.free[i];
        if free == size {
            self.free.remove(i);
        } else {
            self.free[i] = (offset + size, free - size);
        }
        self.used += size;
        let mut at = offset;
        for slice in content {
            if write_at(file, slice, at).is_err() {
                self.free(offset as u64, size);
                return Err(out_of_frames);
            }
            at += slice.len();
        }
        Ok(offset as u64)
    }

    /// Frees a range that `allocate` gave out.
    pub fn free(&mut self, handle: u64, size: usize) {
        self.used -= size;
        let (Some(file), offset) = (self.file, handle as usize) else { return };
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: a call on the arena's own file.
        let punched = unsafe { libc::fallocate(file, mode, offset as libc::off_t, size as libc::off_t) } == 0;
        if !punched || self.free.try_reserve(1).is_err() {
            return; // The range may hold old bytes or cannot be recorded: it is not used again.
        }
        self.insert_free(offset, size);
    }

    /// Records a free range, merged with its neighbours. Room for one more must be reserved.
    fn insert_free(&mut self, offset: usize, size: usize) {
        let i = self.free.partition_point(|r| r.0 < offset);
        let joins_next = self.free.get(i).is_some_and(|n| offset + size == n.0);
        let joins_previous = i > 0 && self.free[i - 1].0 + self.free[i - 1].1 == offset;
        match (joins_previous, joins_next) {
            (true, true) => {
                self.free[i - 1].1 += size + self.free[i].1;
                self.free.remove(i);
            }
            (true, false) => self.free[i - 1].1 += size,
            (false, true) => self.free[i] = (offset, size + self.free[i].1),
            (false, false) => self.free.insert(i, (offset, size)),
        }
    }

    /// Makes the file longer; returns the place in the free list of a range of at least `size` bytes.
    fn grow(&mut self, file: i32, size: usize) -> Option<usize> {
        self.free.try_reserve(1).ok()?;
        let more = size.max(GROWTH);
        let length = self.length.checked_add(more)?;
        // SAFETY: a call on the arena's own file.
        if unsafe { libc::ftruncate(file, libc::off_t::try_from(length).ok()?) } != 0 {
            return None;
        }
        self.insert_free(self.length, more);
        self.length = length;
        Some(self.free.len() - 1)
    }

    fn open(&mut self) -> Result<i32, i32> {
        /// `MFD_EXEC` (Linux 6.3): the file may be mapped executable whatever `vm.memfd_noexec` says.
        const MFD_EXEC: libc::c_uint = 0x10;
        if let Some(file) = self.file {
            return Ok(file);
        }
        for flags in [libc::MFD_CLOEXEC | MFD_EXEC, libc::MFD_CLOEXEC] {
            // SAFETY: the name is a terminated string.
            let file = unsafe { libc::memfd_create(c"cells".as_ptr(), flags) };
            if file >= 0 {
                self.file = Some(file);
                return Ok(file);
            }
        }
        Err(errno())
    }
}

fn write_at(file: i32, mut bytes: &[u8], mut offset: usize) -> Result<(), i32> {
    while !bytes.is_empty() {
        // SAFETY: the slice is valid for reads of its length.
        let n = unsafe { libc::pwrite(file, bytes.as_ptr().cast(), bytes.len(), offset as libc::off_t) };
        match usize::try_from(n) {
            Ok(0) => return Err(libc::ENOSPC),
            Ok(n) => (bytes, offset) = (&bytes[n..], offset + n),
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return Err(errno()),
        }
    }
    Ok(())
}
