//! The page tables of the one address space (Intel SDM vol. 3, 4.5: 4-level paging).
//!
//! Tables are frames, written in the window of physical memory. A leaf entry says in its ignored bits whether the frame belongs
//! to the mapping (returned when it is unmapped) or is shared, and keeps a frame that is inaccessible for the moment. A page
//! may also be mapped without a frame: it has one promised, and gets it when it is touched.

use super::frames::{Frame, FrameAllocator, window};
use crate::memory::{MemoryError, PteFlags};
use core::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};
use kernel_config::memory::PAGE_SIZE;
use x86_64::{
    PhysAddr, VirtAddr,
    registers::{
        control::Cr3,
        model_specific::{Efer, EferFlags},
    },
    structures::paging::PhysFrame,
};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
/// Write-through and cache-disable: for registers of devices.
pub(super) const UNCACHED: u64 = 1 << 3 | 1 << 4;
const HUGE: u64 = 1 << 7;
/// The frame belongs to somebody else and is not freed with the mapping.
const SHARED: u64 = 1 << 9;
/// An entry in use. Distinguishes a page made inaccessible from one that was never mapped, whatever its frame.
const IN_USE: u64 = 1 << 10;
/// There is no frame yet. One is promised.
const LAZY: u64 = 1 << 11;
/// Such a page may be touched: the entry is to be [`PRESENT`] with its frame.
const LAZY_VALID: u64 = 1 << 52;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const LEVELS: u32 = 4;
/// Size of a page of level 2.
pub(super) const LARGE_PAGE: usize = 2 << 20;
/// From this many pages on the whole TLB is flushed instead of page by page.
const FLUSH_ALL: usize = 64;

/// 512 entries; the frame at which it stands is its identity.
type Table = [AtomicU64; 512];

/// The root of the tables in use.
pub(super) struct PageTable {
    root: Frame,
}

/// Index of the entry for `address` in a table of this level (1: leaf).
fn index(address: usize, level: u32) -> usize {
    address >> (12 + 9 * (level - 1)) & 511
}

/// Bytes that one entry of a table of this level covers.
fn reach(level: u32) -> usize {
    1 << (12 + 9 * (level - 1))
}

/// # Safety
/// `frame` holds a table and stays one for `'a`.
unsafe fn table<'a>(frame: Frame) -> &'a Table {
    // SAFETY: by the caller; tables are mapped in the window and only written through atomics.
    unsafe { &*(window(frame) as *const Table) }
}

fn bits(flags: PteFlags) -> u64 {
    let mut bits = IN_USE;
    if flags.contains(PteFlags::VALID) {
        bits |= PRESENT;
    }
    if flags.contains(PteFlags::WRITABLE) {
        bits |= WRITABLE;
    }
    if !flags.contains(PteFlags::EXECUTABLE) {
        bits |= no_execute();
    }
    bits
}

/// The bit that forbids execution; 0 on a processor without it, where it is reserved.
fn no_execute() -> u64 {
    static BIT: spin::Once<u64> = spin::Once::new();
    *BIT.call_once(|| match Efer::read().contains(EferFlags::NO_EXECUTE_ENABLE) {
        true => NO_EXECUTE,
        false => 0,
    })
}

/// The entry of a page without a frame.
fn lazy_bits(flags: PteFlags) -> u64 {
    let bits = bits(flags);
    LAZY | bits & !PRESENT | if bits & PRESENT != 0 { LAZY_VALID } else { 0 }
}

fn flags_of(entry: u64) -> PteFlags {
    let mut flags = PteFlags::VALID;
    flags.set(PteFlags::WRITABLE, entry & WRITABLE != 0);
    flags.set(PteFlags::EXECUTABLE, entry & NO_EXECUTE == 0);
    flags
}

/// What a leaf entry maps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The frame is freed when the page is unmapped.
    Mapping,
    /// Somebody else frees the frame.
    Shared,
}

impl PageTable {
    /// Allocates the root.
    pub(super) fn create(frames: &mut FrameAllocator) -> Option<Self> {
        Some(Self { root: frames.allocate_zeroed()? })
    }

    /// Makes this the address space of the processor.
    ///
    /// # Safety
    /// Everything in use (code, stack, tables) must be mapped in it.
    pub(super) unsafe fn activate(&self) {
        let frame = PhysFrame::containing_address(PhysAddr::new(self.root));
        // SAFETY: by the caller.
        unsafe { Cr3::write(frame, Cr3::read().1) };
    }

    /// The entry for `address` in the table of `level`, creating the tables above it.
    fn entry(&self, address: usize, level: u32, frames: &mut FrameAllocator) -> Option<&AtomicU64> {
        // SAFETY: the root is a table for ever; every non-leaf entry refers to one.
        let mut current: &Table = unsafe { table(self.root) };
        for l in (level + 1..=LEVELS).rev() {
            let entry = &current[index(address, l)];
            let mut value = entry.load(Ordering::Relaxed);
            if value == 0 {
                value = frames.allocate_zeroed()? | PRESENT | WRITABLE;
                entry.store(value, Ordering::Release);
            }
            // SAFETY: as above.
            current = unsafe { table(value & ADDRESS) };
        }
        Some(&current[index(address, level)])
    }

    /// The leaf entry for `address`, if its tables exist.
    fn find(&self, address: usize) -> Option<&AtomicU64> {
        // SAFETY: as in `entry`.
        let mut current: &Table = unsafe { table(self.root) };
        for l in (2..=LEVELS).rev() {
            let value = current[index(address, l)].load(Ordering::Acquire);
            if value & PRESENT == 0 || value & HUGE != 0 {
                return None;
            }
            // SAFETY: as above.
            current = unsafe { table(value & ADDRESS) };
        }
        Some(&current[index(address, 1)])
    }

    /// Maps one page.
    ///
    /// # Safety
    /// The page is the caller's and unmapped; the frame is the caller's, or shared and not written through here.
    pub(super) unsafe fn map(
        &self,
        page: usize,
        frame: Frame,
        flags: PteFlags,
        owner: Owner,
        frames: &mut FrameAllocator,
    ) -> Result<(), MemoryError> {
        let entry = self.entry(page, 1, frames).ok_or(MemoryError::OutOfFrames(PAGE_SIZE))?;
        let shared = if owner == Owner::Shared { SHARED } else { 0 };
        entry.store(frame | bits(flags) | shared, Ordering::Release);
        Ok(())
    }

    /// Maps one page without a frame; the caller has one promised for it.
    ///
    /// # Safety
    /// The page is the caller's and unmapped.
    pub(super) unsafe fn map_lazily(
        &self,
        page: usize,
        flags: PteFlags,
        frames: &mut FrameAllocator,
    ) -> Result<(), MemoryError> {
        let entry = self.entry(page, 1, frames).ok_or(MemoryError::OutOfFrames(PAGE_SIZE))?;
        entry.store(lazy_bits(flags), Ordering::Release);
        Ok(())
    }

    /// Gives the page at `address` its frame if it waits for one. Returns whether an access may go on now.
    pub(super) fn touch(&self, address: usize, frames: &mut FrameAllocator) -> bool {
        let Some(entry) = self.find(address) else { return false };
        let value = entry.load(Ordering::Acquire);
        if value & (LAZY | LAZY_VALID) != LAZY | LAZY_VALID {
            return false;
        }
        let Some(frame) = frames.allocate_promised() else { return false };
        entry.store(frame | bits(flags_of(value)), Ordering::Release);
        true
    }

    /// Whether the page at `address` can wait for its frame: a look without a lock.
    pub(super) fn is_lazy(&self, address: usize) -> bool {
        self.find(address).is_some_and(|e| e.load(Ordering::Acquire) & LAZY != 0)
    }

    /// Maps physical memory for ever, with large pages where they fit: each byte at its own address plus `offset`, a multiple of
    /// [`LARGE_PAGE`].
    ///
    /// # Safety
    /// Nothing else maps these addresses; only before `activate`.
    pub(super) unsafe fn map_physical(
        &self,
        range: Range<usize>,
        offset: usize,
        flags: PteFlags,
        frames: &mut FrameAllocator,
    ) -> Option<()> {
        let mut at = range.start;
        while at < range.end {
            let large = at.is_multiple_of(LARGE_PAGE) && range.end - at >= LARGE_PAGE;
            let (level, size, huge) = if large { (2, LARGE_PAGE, HUGE) } else { (1, PAGE_SIZE, 0) };
            let entry = self.entry(offset + at, level, frames)?;
            entry.store(at as u64 | bits(flags) | SHARED | huge, Ordering::Release);
            at += size;
        }
        Some(())
    }

    /// Makes a frame read-only in the window of physical memory, so that nobody writes through it what another page shows as
    /// constant or code. A large page around it is split first, for ever.
    ///
    /// # Errors
    /// No frame for the table of the split.
    ///
    /// # Safety
    /// The frame is the caller's.
    pub(super) unsafe fn seal_frame(&self, frame: Frame, frames: &mut FrameAllocator) -> Result<(), MemoryError> {
        let page = window(frame);
        let out_of_frames = MemoryError::OutOfFrames(PAGE_SIZE);
        let large = self.entry(page, 2, frames).ok_or(out_of_frames)?;
        let value = large.load(Ordering::Acquire);
        if value & HUGE != 0 {
            let small = frames.allocate().ok_or(out_of_frames)?;
            // SAFETY: the frame is fresh, so it may become a table; every entry is written before it is used.
            let entries = unsafe { table(small) };
            for (i, entry) in entries.iter().enumerate() {
                entry.store((value & !HUGE) + (i * PAGE_SIZE) as u64, Ordering::Relaxed);
            }
            // The same translations as before, so it does not matter which of the two the TLB holds.
            large.store(small | PRESENT | WRITABLE, Ordering::Release);
        }
        let entry = self.entry(page, 1, frames).ok_or(out_of_frames)?;
        entry.store(frame | bits(PteFlags::VALID) | SHARED, Ordering::Release);
        x86_64::instructions::tlb::flush(VirtAddr::new(page as u64));
        Ok(())
    }

    /// Undoes [`Self::seal_frame`], if it was done.
    ///
    /// # Safety
    /// The frame is the caller's.
    pub(super) unsafe fn unseal_frame(&self, frame: Frame) {
        // A frame within a large page was never sealed.
        let page = window(frame);
        if let Some(entry) = self.find(page) {
            entry.store(frame | bits(PteFlags::VALID | PteFlags::WRITABLE) | SHARED, Ordering::Release);
            x86_64::instructions::tlb::flush(VirtAddr::new(page as u64));
        }
    }

    /// The physical address that `address` is mapped to.
    pub(super) fn translate(&self, address: usize) -> Option<u64> {
        let value = self.find(address)?.load(Ordering::Acquire);
        (value & PRESENT != 0).then_some((value & ADDRESS) + (address % PAGE_SIZE) as u64)
    }

    /// Changes the flags of mapped pages. Takes no lock and allocates nothing, so that exception handlers may use it:
    /// the tables above a mapped page cannot go away while its owner keeps it.
    ///
    /// # Safety
    /// The pages are mapped and the caller's.
    pub(super) unsafe fn protect(&self, range: Range<usize>, flags: PteFlags) -> Result<(), MemoryError> {
        let done = range.clone().step_by(PAGE_SIZE).try_for_each(|page| {
            let unmapped = MemoryError::OutOfRange { start: page, len: PAGE_SIZE, size: 0 };
            let entry = self.find(page).filter(|e| e.load(Ordering::Acquire) != 0).ok_or(unmapped)?;
            let value = entry.load(Ordering::Acquire);
            let changed = match value & LAZY {
                0 => value & (ADDRESS | SHARED) | bits(flags),
                _ => lazy_bits(flags),
            };
            entry.store(changed, Ordering::Release);
            Ok(())
        });
        flush(range);
        done
    }

    /// Unmaps whatever is mapped in the range, returns the frames it owned and the tables that became empty.
    ///
    /// # Safety
    /// The range is the caller's and nobody uses it any more.
    pub(super) unsafe fn unmap(&self, range: Range<usize>, frames: &mut FrameAllocator) {
        // SAFETY: by the caller; the root is a table and is never freed.
        unsafe { clear(self.root, LEVELS, range.clone(), frames) };
        // The frames cannot be allocated again before this: the caller holds the allocator's lock.
        flush(range);
    }

    /// Calls `f` with every page that is accessible: its first address, its size, its flags.
    pub(super) fn for_each(&self, f: &mut dyn FnMut(usize, usize, PteFlags)) {
        // SAFETY: the root is a table for ever, and every present non-leaf entry refers to one.
        unsafe { visit(self.root, LEVELS, 0, f) };
    }

    /// What `page` maps, for reports and tests.
    pub(super) fn flags(&self, page: usize) -> Option<PteFlags> {
        // SAFETY: as in `entry`.
        let mut current: &Table = unsafe { table(self.root) };
        for l in (1..=LEVELS).rev() {
            let value = current[index(page, l)].load(Ordering::Acquire);
            if value & PRESENT == 0 {
                return (l == 1 && value & LAZY_VALID != 0).then(|| flags_of(value));
            }
            if l == 1 || value & HUGE != 0 {
                return Some(flags_of(value));
            }
            // SAFETY: as above.
            current = unsafe { table(value & ADDRESS) };
        }
        None
    }
}

/// # Safety
/// `frame` holds a table of this level, which covers the addresses from `start`, and nobody frees tables meanwhile.
unsafe fn visit(frame: Frame, level: u32, start: usize, f: &mut dyn FnMut(usize, usize, PteFlags)) {
    // SAFETY: by the caller.
    for (i, entry) in unsafe { table(frame) }.iter().enumerate() {
        let (value, at) = (entry.load(Ordering::Acquire), start + i * reach(level));
        if value & PRESENT == 0 {
            continue;
        }
        match level == 1 || value & HUGE != 0 {
            true => f(at, reach(level), flags_of(value)),
            // SAFETY: by the caller, for the table below.
            false => unsafe { visit(value & ADDRESS, level - 1, at, f) },
        }
    }
}

/// Makes the processor forget translations of the range, and (with any of them) all tables above them (SDM vol. 3, 4.10.4.1).
fn flush(range: Range<usize>) {
    if range.len() / PAGE_SIZE >= FLUSH_ALL {
        return x86_64::instructions::tlb::flush_all();
    }
    for page in range.step_by(PAGE_SIZE) {
        x86_64::instructions::tlb::flush(VirtAddr::new(page as u64));
    }
}

/// Clears the part of a table that lies in `range`; says whether the table is empty now.
///
/// # Safety
/// As [`PageTable::unmap`]; `frame` is a table of this level, and the range lies in what it covers.
unsafe fn clear(frame: Frame, level: u32, range: Range<usize>, frames: &mut FrameAllocator) -> bool {
    // SAFETY: by the caller.
    let entries = unsafe { table(frame) };
    let mut at = range.start;
    while at < range.end {
        let next = (at & !(reach(level) - 1)).saturating_add(reach(level)).min(range.end);
        let entry = &entries[index(at, level)];
        let value = entry.load(Ordering::Acquire);
        if value != 0 {
            let gone = if level == 1 {
                true
            } else {
                // SAFETY: a non-leaf entry in the reservations' window refers to a table of the level below.
                unsafe { clear(value & ADDRESS, level - 1, at..next, frames) }
            };
            if gone {
                entry.store(0, Ordering::Release);
                if level == 1 && value & LAZY != 0 {
                    frames.take_back(1);
                } else if level > 1 || value & SHARED == 0 {
                    // SAFETY: an empty table, or a frame that the mapping owned; nothing refers to it any more.
                    unsafe { frames.release(value & ADDRESS) };
                }
            }
        }
        at = next;
    }
    entries.iter().all(|e| e.load(Ordering::Relaxed) == 0)
}
