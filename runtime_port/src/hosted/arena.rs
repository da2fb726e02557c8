//! The memory file that shared frames come from.
//!
//! One sparse file for all; a handle is an offset in it. Freed ranges are punched out, so they give their memory back
//! and read zero when used again. A few small ones are kept with their old bytes instead and overwritten by the next
//! content of the same size: that spares punching them and getting new memory, most of the cost of a small module.

use super::memory::errno;
use crate::memory::MemoryError;
use std::vec::Vec;

/// The file grows by at least this many bytes (sparse: they cost nothing until written).
const GROWTH: usize = 64 << 20;

/// Largest range that is kept with its old bytes, in bytes.
const KEPT_SIZE: usize = 64 << 10;

/// Most ranges that are kept with their old bytes.
const KEPT_RANGES: usize = 32;

/// What the rest of a kept range is overwritten with, again and again.
static ZEROES: [u8; 16 << 10] = [0; 16 << 10];

/// Slices that one system call writes.
const SLICES_PER_WRITE: usize = 16;

/// Ranges of one memory file.
#[derive(Debug, Default)]
pub struct Arena {
    file: Option<i32>,
    length: usize,
    used: usize,
    /// Free ranges, sorted by offset, never adjacent.
    free: Vec<(usize, usize)>,
    /// Free ranges that hold old bytes: offset and size.
    kept: Vec<(usize, usize)>,
}

impl Arena {
    /// An arena without a file; the first allocation makes it.
    pub const fn new() -> Arena {
        Arena { file: None, length: 0, used: 0, free: Vec::new(), kept: Vec::new() }
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
        let length: usize = content.iter().map(|s| s.len()).sum();
        let kept = self.kept.iter().rposition(|r| r.1 == size).map(|i| self.kept.remove(i).0);
        let (offset, tail) = match kept {
            Some(offset) => (offset, size.saturating_sub(length)),
            None => (self.take_free(file, size).ok_or(out_of_frames)?, 0),
        };
        self.used += size;
        if write_at(file, content, tail, offset).is_err() {
            self.used -= size;
            self.punch(file, offset, size);
            return Err(out_of_frames);
        }
        Ok(offset as u64)
    }

    /// Overwrites a range with `content`, the rest with zeroes.
    pub fn overwrite(&self, handle: u64, content: &[&[u8]], size: usize) -> bool {
        let length: usize = content.iter().map(|s| s.len()).sum();
        let (Some(file), Some(tail)) = (self.file, size.checked_sub(length)) else { return false };
        write_at(file, content, tail, handle as usize).is_ok()
    }

    /// A range that `allocate` gave out is not in use for the time being.
    pub fn count_out(&mut self, size: usize) {
        self.used -= size;
    }

    /// It is again.
    pub fn count_in(&mut self, size: usize) {
        self.used += size;
    }

    /// Frees a range that was counted out.
    pub fn free_kept(&mut self, handle: u64, size: usize) {
        self.count_in(size);
        self.free(handle, size);
    }

    /// Frees a range that `allocate` gave out.
    pub fn free(&mut self, handle: u64, size: usize) {
        self.used -= size;
        let (Some(file), offset) = (self.file, handle as usize) else { return };
        if size > KEPT_SIZE || self.kept.try_reserve(1).is_err() {
            self.punch(file, offset, size);
            return;
        }
        if self.kept.len() == KEPT_RANGES {
            let (oldest, size) = self.kept.remove(0);
            self.punch(file, oldest, size);
        }
        self.kept.push((offset, size));
    }

    /// Takes a range that reads zero from the free ones, or makes the file longer.
    fn take_free(&mut self, file: i32, size: usize) -> Option<usize> {
        let i = match self.free.iter().position(|r| r.1 >= size) {
            Some(i) => i,
            None => self.grow(file, size)?,
        };
        let (offset, free) = self.free[i];
        if free == size {
            self.free.remove(i);
        } else {
            self.free[i] = (offset + size, free - size);
        }
        Some(offset)
    }

    /// Gives the memory of a range back and records it as free.
    fn punch(&mut self, file: i32, offset: usize, size: usize) {
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

/// Writes slices one after the other, then so many zeroes.
fn write_at(file: i32, content: &[&[u8]], zeroes: usize, mut offset: usize) -> Result<(), i32> {
    let tail = (0..zeroes).step_by(ZEROES.len()).map(|at| &ZEROES[..ZEROES.len().min(zeroes - at)]);
    let mut slices = content.iter().copied().chain(tail).filter(|s| !s.is_empty()).peekable();
    while slices.peek().is_some() {
        let mut batch = [&[][..]; SLICES_PER_WRITE];
        let mut count = 0;
        while count < SLICES_PER_WRITE
            && let Some(slice) = slices.next()
        {
            batch[count] = slice;
            count += 1;
        }
        let mut rest = &mut batch[..count];
        while !rest.is_empty() {
            let written = write_batch(file, rest, offset)?;
            offset += written;
            rest = skip(rest, written);
        }
    }
    Ok(())
}

/// Drops the first `bytes` bytes of a list of slices.
fn skip<'a, 'b>(mut slices: &'b mut [&'a [u8]], mut bytes: usize) -> &'b mut [&'a [u8]] {
    while let Some(first) = slices.first_mut() {
        if bytes < first.len() {
            *first = &first[bytes..];
            break;
        }
        bytes -= first.len();
        slices = &mut slices[1..];
    }
    slices
}

/// Writes some of the slices' bytes, at least one; returns how many.
fn write_batch(file: i32, slices: &[&[u8]], offset: usize) -> Result<usize, i32> {
    let mut vectors = [libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 }; SLICES_PER_WRITE];
    for (vector, slice) in vectors.iter_mut().zip(slices) {
        *vector = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
    }
    let count = slices.len().min(SLICES_PER_WRITE) as i32;
    loop {
        // SAFETY: the vectors describe slices that are valid for reads.
        let n = unsafe { libc::pwritev(file, vectors.as_ptr(), count, offset as libc::off_t) };
        match usize::try_from(n) {
            Ok(0) => return Err(libc::ENOSPC),
            Ok(n) => return Ok(n),
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return Err(errno()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel_config::memory::PAGE_SIZE;

    fn read(arena: &Arena, handle: u64, size: usize) -> Vec<u8> {
        let mut bytes = std::vec![0xee; size];
        // SAFETY: the vector is valid for writes.
        let n = unsafe { libc::pread(arena.file.unwrap(), bytes.as_mut_ptr().cast(), size, handle as libc::off_t) };
        assert_eq!(n as usize, size);
        bytes
    }

    #[test]
    fn content_is_whole_and_the_rest_zero_whatever_was_there() {
        let mut arena = Arena::new();
        let mut random = 1u64;
        let mut held: Vec<(u64, Vec<u8>)> = Vec::new();
        for round in 0..600usize {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = (random >> 33) as usize;
            if held.len() == 12 || (!held.is_empty() && pick.is_multiple_of(3)) {
                let (handle, expected) = held.swap_remove(pick % held.len());
                assert_eq!(read(&arena, handle, expected.len()), expected);
                arena.free(handle, expected.len());
                continue;
            }
            let size = [1, 2, 5, 20][pick % 4] * PAGE_SIZE;
            let mut expected = std::vec![(round % 255) as u8 + 1; pick % size];
            let parts: Vec<&[u8]> = expected.chunks(1 + pick % 7 * 777).collect();
            let handle = arena.allocate(&parts, size).unwrap();
            expected.resize(size, 0);
            held.push((handle, expected));
        }
        let mut ranges: Vec<_> = held.iter().map(|(h, e)| (*h as usize, e.len())).collect();
        assert_eq!(arena.used(), ranges.iter().map(|r| r.1).sum::<usize>());
        ranges.extend(arena.kept.iter().chain(&arena.free));
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|w| w[0].0 + w[0].1 == w[1].0), "ranges tile the file: {ranges:?}");
    }
}
