//! Images of modules that are gone, kept mapped for modules of the same shape.
//!
//! Mapping a small module and taking it away again is six changes of the address space and as many page faults, most of what loading it
//! costs. A kept image spares them: its frames get the new content by `pwrite`, its data block is cleared, and it is mapped already. No
//! page of it ever has a writable mapping besides its data block; nobody has an address in it while it is here.
//!
//! What is executed must be what was written. The mappings are private, so a page that a debugger has written to keeps that: the mapped
//! bytes are compared with the new ones, and an image that differs is given back. Another processor may have fetched old bytes ahead:
//! `membarrier` makes each that runs a thread of this process fetch anew before anybody is given the image.

use super::arena::Arena;
use super::memory::lock;
use crate::memory::ImageRanges;
use kernel_config::memory::PAGE_SIZE;
use std::sync::Mutex;
use std::vec::Vec;

/// Most images that are kept.
const KEPT_IMAGES: usize = 16;

/// Largest image that is kept, in bytes: so small that it is cheaper to compare and clear than to map.
const LARGEST: usize = 512 << 10;

/// Most bytes of images that are kept.
const KEPT_BYTES: usize = 2 << 20;

/// An image whose text and rodata map all of its frames.
#[derive(Debug, Clone, Copy)]
pub struct KeptImage {
    pub start: usize,
    pub ranges: ImageRanges,
    pub frames: u64,
}

impl KeptImage {
    /// Bytes of its frames.
    pub fn frames_size(&self) -> usize {
        self.ranges.text + self.ranges.rodata
    }

    /// Its text and rodata.
    fn shared_bytes(&self) -> &[u8] {
        // SAFETY: both are mapped readable, and written only by the one who took the image out.
        unsafe { core::slice::from_raw_parts(self.start as *const u8, self.frames_size()) }
    }

    /// Fills an image that was taken out: text and rodata with `content` and then zeroes, the data with zeroes. `false` if what is mapped
    /// there now is not that, or not for certain what every processor executes.
    fn refill(&self, arena: &Arena, content: &[&[u8]]) -> bool {
        // A module that is loaded again, from its source or by another name, finds its own code.
        let filled = self.holds(content)
            || arena.overwrite(self.frames, content, self.frames_size()) && self.holds(content) && fetch_anew();
        let data = self.start + self.frames_size();
        // SAFETY: the data block is mapped writable, and nobody refers to the image.
        unsafe { core::ptr::write_bytes(data as *mut u8, 0, self.ranges.data) };
        filled
    }

    /// Whether this is what is mapped as its text and rodata: `content` and then zeroes.
    fn holds(&self, content: &[&[u8]]) -> bool {
        let mut rest = self.shared_bytes();
        for part in content {
            match rest.split_at_checked(part.len()) {
                Some((mapped, behind)) if mapped == *part => rest = behind,
                _ => return false,
            }
        }
        static ZEROES: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
        rest.chunks(PAGE_SIZE).all(|part| part == &ZEROES[..part.len()])
    }
}

/// The images.
#[derive(Debug, Default)]
pub struct KeptImages(Mutex<Vec<KeptImage>>);

impl KeptImages {
    /// None.
    pub const fn new() -> KeptImages {
        KeptImages(Mutex::new(Vec::new()))
    }

    /// Keeps an image, if it is small and there is room.
    pub fn keep(&self, image: KeptImage) -> bool {
        let mut images = lock(&self.0);
        let size = image.ranges.total();
        let kept: usize = images.iter().map(|image| image.ranges.total()).sum();
        let wanted =
            size <= LARGEST && kept + size <= KEPT_BYTES && images.len() < KEPT_IMAGES && images.try_reserve(1).is_ok();
        if wanted {
            images.push(image);
        }
        wanted
    }

    /// Takes out an image with these parts, and fills it. The error is an image that has to be given back.
    pub fn take(
        &self,
        ranges: ImageRanges,
        arena: &Mutex<Arena>,
        content: &[&[u8]],
    ) -> Result<Option<KeptImage>, KeptImage> {
        let mut images = lock(&self.0);
        let Some(i) = images.iter().rposition(|image| image.ranges == ranges) else { return Ok(None) };
        let image = images.swap_remove(i);
        drop(images);
        if image.refill(&lock(arena), content) { Ok(Some(image)) } else { Err(image) }
    }

    /// Takes out all of them.
    pub fn drain(&self) -> Vec<KeptImage> {
        core::mem::take(&mut *lock(&self.0))
    }

    /// Their number, and bytes of address space.
    pub fn count(&self) -> (usize, usize) {
        let images = lock(&self.0);
        (images.len(), images.iter().map(|image| image.ranges.total()).sum())
    }
}

/// Makes every processor that runs this process forget instructions that it has fetched ahead. `false` if the system cannot.
fn fetch_anew() -> bool {
    /// `MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE` (membarrier(2)).
    const SYNC_CORE: libc::c_int = 1 << 5;
    /// `MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE`.
    const REGISTER: libc::c_int = 1 << 6;
    // SAFETY: takes no pointers and changes no memory.
    let barrier = |command: libc::c_int| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } == 0;
    barrier(SYNC_CORE) || (barrier(REGISTER) && barrier(SYNC_CORE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{ImageMapping, SharedFrames};

    const RANGES: ImageRanges = ImageRanges { text: 3 * PAGE_SIZE, rodata: PAGE_SIZE, data: 2 * PAGE_SIZE };

    #[test]
    fn an_image_comes_back_with_the_new_content_and_clear_data() {
        let image_of = |byte: u8, length: usize| {
            let content = std::vec![byte; length];
            let frames = SharedFrames::for_image(&[&content], RANGES).unwrap();
            let mut image = ImageMapping::new(&frames, RANGES).unwrap();
            let (start, end) = image.shared_bytes().split_at(length);
            assert!(start.iter().all(|b| *b == byte) && end.iter().all(|b| *b == 0));
            assert!(image.data_mut().iter().all(|b| *b == 0));
            image.data_mut().fill(byte);
            image.start_address()
        };
        let lengths = [4 * PAGE_SIZE, 1, 0, 3 * PAGE_SIZE + 5, PAGE_SIZE];
        let places: Vec<_> = lengths.into_iter().zip(1..).map(|(length, byte)| image_of(byte, length)).collect();
        // Other tests may have taken it in between, but not each time.
        assert!(places.windows(2).any(|w| w[0] == w[1]), "{places:?}");
    }

    #[test]
    fn a_page_that_somebody_wrote_to_is_noticed() {
        let arena = Mutex::new(Arena::new());
        let frames = lock(&arena).allocate(&[b"old"], PAGE_SIZE).unwrap();
        let ranges = ImageRanges { text: PAGE_SIZE, rodata: 0, data: PAGE_SIZE };
        let file = lock(&arena).file().unwrap();
        let map = |protection, flags, file| {
            // SAFETY: a new mapping at an address of the kernel's choice.
            unsafe { libc::mmap(core::ptr::null_mut(), 2 * PAGE_SIZE, protection, libc::MAP_PRIVATE | flags, file, 0) }
        };
        let start = map(libc::PROT_READ | libc::PROT_WRITE, libc::MAP_ANONYMOUS, -1);
        let at = |offset: usize| (start as usize + offset) as *mut libc::c_void;
        // SAFETY: the first page of the mapping above.
        let text = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
            libc::mmap(at(0), PAGE_SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, file, frames as libc::off_t)
        };
        assert_eq!(text, start);
        let image = KeptImage { start: start as usize, ranges, frames };
        assert!(image.refill(&lock(&arena), &[b"new", b"er"]));
        // As a debugger does; the page is the mapping's own from now on.
        // SAFETY: mapped writable above.
        unsafe { (at(100) as *mut u8).write(0xcc) };
        assert!(!image.refill(&lock(&arena), &[b"new", b"er"]));
        // SAFETY: nobody uses the mapping any more.
        unsafe { libc::munmap(start, 2 * PAGE_SIZE) };
    }
}
