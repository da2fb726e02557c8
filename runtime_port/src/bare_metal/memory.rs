//! Memory: frames from the boot loader's map, page tables, reservations.
//!
//! Locks are taken in this order: address space (may allocate), heap, frames. Whoever changes the structure of the page
//! tables needs the frame allocator for it, so its lock protects the tables too. The heap grows through [`commit_heap`],
//! which takes that lock only.

use super::{
    address_space::AddressSpace,
    frames::{Frame, FrameAllocator, window},
    lock::InterruptLock,
    page_table::{self, LARGE_PAGE, Owner, PageTable},
};
use crate::memory::{MemoryError, MemoryPort, MemoryStatistics, PteFlags};
use alloc::alloc::{alloc, dealloc};
use core::{
    alloc::Layout,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};
use kernel_config::{
    bare_metal::{CELLS, HEAP, PHYSICAL, RESERVATIONS},
    memory::PAGE_SIZE,
};

/// What the boot code knows about memory.
#[derive(Debug, Clone, Copy)]
pub struct BootMemory<'a> {
    /// Usable memory, physical byte ranges.
    pub ram: &'a [Range<u64>],
    /// Parts of it that are in use: boot modules, tables. The image and the first MiB need not be named.
    pub reserved: &'a [Range<u64>],
    /// The base image.
    pub image: ImageLayout<'a>,
}

/// Page-aligned address ranges of the base image, which runs where it was loaded.
#[derive(Debug, Clone, Copy)]
pub struct ImageLayout<'a> {
    /// Code: executable.
    pub text: (usize, usize),
    /// Constants and unwind info: read-only.
    pub rodata: (usize, usize),
    /// Data, bss and boot stacks: writable.
    pub data: (usize, usize),
    /// Pages of `data` that are left unmapped, ascending: below the stacks.
    pub guards: &'a [usize],
}

/// How many frames there are and how many are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameUse {
    /// Frames under management.
    pub total: usize,
    /// Frames that can be allocated.
    pub free: usize,
    /// Frames that are free too, but that pages will get when they are first touched.
    pub promised: usize,
}

static FRAMES: InterruptLock<FrameAllocator> = InterruptLock::new(FrameAllocator::new());
static TABLES: spin::Once<PageTable> = spin::Once::new();
static SHARED_BYTES: AtomicUsize = AtomicUsize::new(0);
static SPACE: InterruptLock<AddressSpace> = InterruptLock::new(AddressSpace::new(RESERVATIONS));
static CODE_SPACE: InterruptLock<AddressSpace> = InterruptLock::new(AddressSpace::new(CELLS));

const READ: PteFlags = PteFlags::VALID;
const READ_WRITE: PteFlags = PteFlags::VALID.union(PteFlags::WRITABLE);
const READ_EXECUTE: PteFlags = PteFlags::VALID.union(PteFlags::EXECUTABLE);

/// First physical address given out: below it lie firmware tables and the boot loader's structures.
const LOW_MEMORY: usize = 1 << 20;

/// Physical memory above this address is not used: the window has no place for it.
const PHYSICAL_LIMIT: usize = PHYSICAL.end - PHYSICAL.start;

/// Takes over memory and switches to page tables in which no page is writable and executable.
///
/// # Errors
/// Not enough memory for the page tables.
///
/// # Safety
/// To be called once, on the boot processor, with everything in use below 4 GiB mapped at its own address and in the window
/// [`PHYSICAL`], and `boot` telling the truth.
pub unsafe fn init(boot: &BootMemory<'_>) -> Result<(), MemoryError> {
    let mut frames = FRAMES.lock();
    let image = boot.image.text.0 as u64..boot.image.data.1 as u64;
    for range in boot.ram {
        let end = range.end.min(PHYSICAL_LIMIT as u64);
        // SAFETY: usable memory by the boot map, minus the first MiB, the image and what the caller reserved.
        unsafe { add_usable(&mut frames, range.start.max(LOW_MEMORY as u64)..end, boot.reserved, &image) };
    }
    let tables = build(boot, &mut frames).ok_or(MemoryError::OutOfFrames(PAGE_SIZE))?;
    // SAFETY: the image, its data and stacks are mapped at their own addresses and all memory in the window, as before.
    unsafe { tables.activate() };
    frames.set_all_mapped();
    TABLES.call_once(|| tables);
    Ok(())
}

fn tables() -> &'static PageTable {
    TABLES.get().expect("bare_metal::memory::init runs before anything asks for memory")
}

/// Adds `range` without the parts in use, cutting around one part at a time.
///
/// # Safety
/// As [`FrameAllocator::add_range`] for what remains.
unsafe fn add_usable(frames: &mut FrameAllocator, range: Range<u64>, reserved: &[Range<u64>], image: &Range<u64>) {
    if range.start >= range.end {
        return;
    }
    let mut in_use = reserved.iter().chain([image]).filter(|r| r.start < range.end && r.end > range.start);
    match in_use.next() {
        None => {
            // SAFETY: by the caller.
            unsafe { frames.add_range(range.start, range.end) }
        }
        Some(hole) => {
            // SAFETY: by the caller; both parts are smaller, so this ends.
            unsafe {
                add_usable(frames, range.start..hole.start, reserved, image);
                add_usable(frames, hole.end..range.end, reserved, image);
            }
        }
    }
}

fn build(boot: &BootMemory<'_>, frames: &mut FrameAllocator) -> Option<PageTable> {
    let tables = PageTable::create(frames)?;
    let image = &boot.image;
    let page = PAGE_SIZE as u64;
    // SAFETY: these ranges are disjoint: the image's parts at their own addresses, and in the window the first MiB and memory around
    // the image.
    unsafe {
        tables.map_physical(image.text.0..image.text.1, 0, READ_EXECUTE, frames)?;
        tables.map_physical(image.rodata.0..image.rodata.1, 0, READ, frames)?;
        let mut start = image.data.0;
        for guard in image.guards {
            tables.map_physical(start..*guard, 0, READ_WRITE, frames)?;
            start = guard + PAGE_SIZE;
        }
        tables.map_physical(start..image.data.1, 0, READ_WRITE, frames)?;
        tables.map_physical(0..LOW_MEMORY, PHYSICAL.start, READ_WRITE, frames)?;
        for range in boot.ram {
            let start = (range.start.next_multiple_of(page) as usize).max(LOW_MEMORY);
            let end = (range.end.min(PHYSICAL_LIMIT as u64) & !(page - 1)) as usize;
            let (below, above) = (start..end.min(image.text.0), start.max(image.data.1)..end);
            for part in [below, above] {
                if part.start < part.end {
                    tables.map_physical(part, PHYSICAL.start, READ_WRITE, frames)?;
                }
            }
        }
    }
    Some(tables)
}

/// Where boot information, devices' memory and the like lie whose physical address is known.
pub const fn at_physical(address: u64) -> usize {
    PHYSICAL.start + address as usize
}

/// Maps a page of a device's registers, never cached, and returns its address.
///
/// # Errors
/// It is memory, or above what the window has a place for; or there are no frames for tables.
///
/// # Safety
/// The page holds registers of a device whose driver calls this.
pub unsafe fn map_device(physical: u64) -> Result<usize, MemoryError> {
    let register = physical & !(PAGE_SIZE as u64 - 1);
    let outside = MemoryError::OutOfRange { start: register as usize, len: PAGE_SIZE, size: PHYSICAL_LIMIT };
    if register >= PHYSICAL_LIMIT as u64 {
        return Err(outside);
    }
    let (page, tables) = (window(register), tables());
    let mut frames = FRAMES.lock();
    if tables.flags(page).is_some() {
        return Err(outside);
    }
    // SAFETY: nothing is mapped there, and by the caller.
    unsafe { tables.map(page, register | page_table::UNCACHED, READ_WRITE, Owner::Shared, &mut frames)? };
    Ok(page)
}

/// Frames in use.
pub fn frame_use() -> FrameUse {
    let frames = FRAMES.lock();
    FrameUse { total: frames.total(), free: frames.free(), promised: frames.promised() }
}

/// The most frames that were in use at one time since the last call.
pub fn take_peak() -> usize {
    FRAMES.lock().take_peak()
}

/// The physical address behind `address`, `None` where nothing is accessible.
pub fn physical_address(address: usize) -> Option<u64> {
    tables().translate(address)
}

/// The flags of the page at `address`, `None` where nothing is accessible.
pub fn page_flags(address: usize) -> Option<PteFlags> {
    tables().flags(address)
}

/// Whether the page at `address` is accessible and has its frame: reading it cannot fault.
pub fn is_present(address: usize) -> bool {
    let tables = tables();
    tables.flags(address).is_some() && !tables.is_lazy(address)
}

/// Maps fresh frames to a part of the heap's window, for the heap's own growth.
///
/// # Errors
/// No frames left; nothing is mapped then.
///
/// # Safety
/// The range is page-aligned, lies in the heap's window and is not mapped yet.
pub unsafe fn commit_heap(range: Range<usize>) -> Result<(), MemoryError> {
    debug_assert!(HEAP.start <= range.start && range.end <= HEAP.end);
    // SAFETY: by the caller.
    unsafe { commit(range, READ_WRITE) }
}

/// From this many pages on, pages get their frames when they are first touched. Smaller pieces get them at once: exceptions
/// may touch the stacks and data of cells, and a fault for a frame would be one too many there.
const LAZY_PAGES: usize = 16;

/// Maps pages whose frames are promised.
///
/// # Safety
/// As [`MemoryPort::commit`].
unsafe fn commit_lazily(range: Range<usize>, flags: PteFlags) -> Result<(), MemoryError> {
    let out_of_frames = MemoryError::OutOfFrames(range.len());
    let pages = range.len() / PAGE_SIZE;
    if !FRAMES.lock().promise(pages) {
        return Err(out_of_frames);
    }
    // Interrupts are masked for one table of pages at a time.
    let mut at = range.start;
    while at < range.end {
        let next = ((at & !(LARGE_PAGE - 1)) + LARGE_PAGE).min(range.end);
        let mut frames = FRAMES.lock();
        // SAFETY: by the caller.
        let mut map = |page| unsafe { tables().map_lazily(page, flags, &mut frames) };
        if (at..next).step_by(PAGE_SIZE).try_for_each(&mut map).is_err() {
            // Only the first page of a table can fail: the others have the table.
            frames.take_back((range.end - at) / PAGE_SIZE);
            // SAFETY: mapped just now, unknown to anybody else.
            unsafe { tables().unmap(range.start..at + PAGE_SIZE, &mut frames) };
            return Err(out_of_frames);
        }
        at = next;
    }
    Ok(())
}

/// To be called first for a page fault at `address`: gives the page its frame if it waits for its first touch. Returns whether
/// that was so; the access is then to be tried again.
pub fn commit_on_fault(address: usize) -> bool {
    (RESERVATIONS.contains(&address) || CELLS.contains(&address))
        && TABLES.get().is_some_and(|tables| tables.is_lazy(address) && tables.touch(address, &mut FRAMES.lock()))
}

/// Calls `f` with every page that is accessible: its first address, its size, its flags. Frames and tables are locked meanwhile.
pub fn for_each_page(f: &mut dyn FnMut(usize, usize, PteFlags)) {
    let _unchanged = FRAMES.lock();
    tables().for_each(f);
}

/// Maps pages with frames, as [`MemoryPort::commit`] does for small pieces.
///
/// # Errors
/// No frames left; nothing is mapped then.
///
/// # Safety
/// As [`MemoryPort::commit`].
pub unsafe fn commit(range: Range<usize>, flags: PteFlags) -> Result<(), MemoryError> {
    let out_of_frames = MemoryError::OutOfFrames(range.len());
    let tables = tables();
    let mut frames = FRAMES.lock();
    if frames.free() < range.len() / PAGE_SIZE {
        return Err(out_of_frames);
    }
    for page in range.clone().step_by(PAGE_SIZE) {
        let mapped = match frames.allocate_zeroed() {
            None => Err(out_of_frames),
            // SAFETY: the page is the caller's and unmapped, the frame is fresh.
            Some(frame) => unsafe { tables.map(page, frame, flags, Owner::Mapping, &mut frames) }
                // SAFETY: the frame was not mapped.
                .inspect_err(|_| unsafe { frames.release(frame) }),
        };
        if mapped.is_err() {
            // SAFETY: these pages were mapped just now, nobody knows them yet.
            unsafe { tables.unmap(range.start..page + PAGE_SIZE, &mut frames) };
            return Err(out_of_frames);
        }
    }
    Ok(())
}

/// The port's memory.
#[derive(Debug)]
pub struct BareMemory;

fn check(flags: PteFlags) -> Result<(), MemoryError> {
    match flags.contains(PteFlags::WRITABLE | PteFlags::EXECUTABLE) {
        true => Err(MemoryError::WritableAndExecutable),
        false => Ok(()),
    }
}

// SAFETY: reservations are disjoint (`AddressSpace`), frames fresh and zeroed (`commit`), `check` refuses writable and
// executable pages, and the TLB is flushed before protect and unmap return (one processor).
unsafe impl MemoryPort for BareMemory {
    fn reserve(&self, size: usize) -> Result<usize, MemoryError> {
        SPACE.lock().reserve(size).ok_or(MemoryError::OutOfAddressSpace(size))
    }

    fn reserve_for_code(&self, size: usize) -> Result<usize, MemoryError> {
        CODE_SPACE.lock().reserve(size).ok_or(MemoryError::OutOfCodeSpace(size))
    }

    fn reserve_low(&self, size: usize) -> Result<usize, MemoryError> {
        self.reserve_for_code(size)
    }

    unsafe fn release(&self, start: usize, size: usize) {
        // SAFETY: by the caller.
        unsafe { self.decommit(start, size) };
        match CELLS.contains(&start) {
            true => CODE_SPACE.lock().release(start, size),
            false => SPACE.lock().release(start, size),
        }
    }

    fn statistics(&self) -> MemoryStatistics {
        MemoryStatistics {
            reserved_bytes: SPACE.lock().reserved() + CODE_SPACE.lock().reserved(),
            shared_bytes: SHARED_BYTES.load(Ordering::Relaxed),
            pooled_reservations: 0,
            pooled_bytes: 0,
        }
    }

    unsafe fn commit(&self, start: usize, size: usize, flags: PteFlags) -> Result<(), MemoryError> {
        check(flags)?;
        // SAFETY: by the caller.
        unsafe {
            match size / PAGE_SIZE >= LAZY_PAGES {
                true => commit_lazily(start..start + size, flags),
                false => commit(start..start + size, flags),
            }
        }
    }

    unsafe fn decommit(&self, start: usize, size: usize) {
        // SAFETY: by the caller.
        unsafe { tables().unmap(start..start + size, &mut FRAMES.lock()) };
    }

    unsafe fn protect(&self, start: usize, size: usize, flags: PteFlags) -> Result<(), MemoryError> {
        check(flags)?;
        // SAFETY: by the caller.
        unsafe { tables().protect(start..start + size, flags) }
    }

    fn create_frames(&self, content: &[&[u8]], size: usize) -> Result<u64, MemoryError> {
        let error = MemoryError::OutOfFrames(size);
        let total: usize = content.iter().map(|c| c.len()).sum();
        if total > size {
            return Err(MemoryError::OutOfRange { start: 0, len: total, size });
        }
        let layout = frame_list(size).ok_or(error)?;
        // SAFETY: `frame_list` never yields a layout of size 0.
        let list = unsafe { alloc(layout) }.cast::<Frame>();
        if list.is_null() {
            return Err(error);
        }
        for i in 0..size / PAGE_SIZE {
            let Some(frame) = FRAMES.lock().allocate_zeroed() else {
                // SAFETY: the first `i` frames of the list are written and nobody else knows them.
                unsafe { free_list(list, i, layout) };
                return Err(error);
            };
            // SAFETY: the list has room for every frame.
            unsafe { list.add(i).write(frame) };
        }
        // SAFETY: just written.
        let frames = unsafe { core::slice::from_raw_parts(list, size / PAGE_SIZE) };
        // SAFETY: the frames are ours, and `content` fits in them (checked above).
        unsafe { fill(frames, content) };
        if let Err(error) = seal(frames) {
            // SAFETY: nobody else knows the frames; `size / PAGE_SIZE` of them are in the list.
            unsafe { free_list(list, frames.len(), layout) };
            return Err(error);
        }
        SHARED_BYTES.fetch_add(size, Ordering::Relaxed);
        Ok(list as u64)
    }

    unsafe fn map_frames(
        &self,
        start: usize,
        frames: u64,
        offset: usize,
        size: usize,
        flags: PteFlags,
    ) -> Result<(), MemoryError> {
        if flags.contains(PteFlags::WRITABLE) {
            return Err(MemoryError::Flags(flags));
        }
        let list = frames as *const Frame;
        let tables = tables();
        let mut allocator = FRAMES.lock();
        for at in (0..size).step_by(PAGE_SIZE) {
            // SAFETY: the part lies within the frames by the caller's promise; the page is the caller's.
            let mapped = unsafe {
                let frame = list.add((offset + at) / PAGE_SIZE).read();
                tables.map(start + at, frame, flags, Owner::Shared, &mut allocator)
            };
            if let Err(error) = mapped {
                // SAFETY: mapped just now, unknown to anybody else.
                unsafe { tables.unmap(start..start + at + PAGE_SIZE, &mut allocator) };
                return Err(error);
            }
        }
        Ok(())
    }

    unsafe fn replace_frames(
        &self,
        start: usize,
        frames: u64,
        offset: usize,
        size: usize,
        flags: PteFlags,
    ) -> Result<(), MemoryError> {
        let list = frames as *const Frame;
        for at in (0..size).step_by(PAGE_SIZE) {
            // SAFETY: the part lies within the frames, and the page maps a frame that it does not own, by the caller's promise; so its
            // tables exist. The new mapping is one store.
            unsafe {
                let frame = list.add((offset + at) / PAGE_SIZE).read();
                tables().map(start + at, frame, flags, Owner::Shared, &mut FRAMES.lock())?;
            }
        }
        // SAFETY: mapped just now. This also makes the processor forget the old mapping.
        unsafe { tables().protect(start..start + size, flags) }
    }

    unsafe fn free_frames(&self, frames: u64, size: usize) {
        if let Some(layout) = frame_list(size) {
            SHARED_BYTES.fetch_sub(size, Ordering::Relaxed);
            // SAFETY: the handle is the list made by `create_frames` for this size, and nothing maps the frames.
            unsafe { free_list(frames as *mut Frame, size / PAGE_SIZE, layout) };
        }
    }
}

/// Makes frames with fixed content read-only in the window too: text that is executable at one address must
/// not be writable at another.
fn seal(frames: &[Frame]) -> Result<(), MemoryError> {
    let mut allocator = FRAMES.lock();
    // SAFETY: the frames were made by the caller, which writes them no more.
    frames.iter().try_for_each(|frame| unsafe { tables().seal_frame(*frame, &mut allocator) })
}

/// Layout of the list of the frames that hold `size` bytes.
fn frame_list(size: usize) -> Option<Layout> {
    Layout::array::<Frame>((size / PAGE_SIZE).max(1)).ok()
}

/// # Safety
/// `list` was allocated with `layout`, its first `count` frames are allocated and mapped nowhere.
unsafe fn free_list(list: *mut Frame, count: usize, layout: Layout) {
    let mut frames = FRAMES.lock();
    for i in 0..count {
        // SAFETY: by the caller; the frame can be written again before it goes onto the allocator's list.
        unsafe {
            let frame = list.add(i).read();
            tables().unseal_frame(frame);
            frames.release(frame);
        }
    }
    drop(frames);
    // SAFETY: by the caller.
    unsafe { dealloc(list.cast(), layout) };
}

/// Writes `content`, one slice behind the other, into frames.
///
/// # Safety
/// The frames are the caller's alone and hold at least the content.
unsafe fn fill(frames: &[Frame], content: &[&[u8]]) {
    let mut at = 0;
    for slice in content {
        let mut rest = *slice;
        while !rest.is_empty() {
            let (frame, offset) = (frames[at / PAGE_SIZE], at % PAGE_SIZE);
            let (now, later) = rest.split_at(rest.len().min(PAGE_SIZE - offset));
            // SAFETY: by the caller; frames are mapped in the window.
            unsafe { (window(frame) as *mut u8).add(offset).copy_from_nonoverlapping(now.as_ptr(), now.len()) };
            at += now.len();
            rest = later;
        }
    }
}
