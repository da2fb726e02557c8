//! Heap, frames, protection, reservations.

use super::{Check, Outcome, exceptions::probe, expect, expect_eq};
use crate::image;
use alloc::{boxed::Box, format, string::String, vec::Vec};
use kernel_config::memory::{GUARDED_RESERVATION, PAGE_SIZE};
use runtime_port::{
    bare_metal::{
        cpu,
        memory::{FrameUse, at_physical, for_each_page, frame_use, page_flags, physical_address},
        task,
    },
    memory::{MemoryError, MemoryStatistics, PteFlags},
    platform,
};
use x86_64::registers::{
    control::{Cr0, Cr0Flags, Cr4, Cr4Flags},
    model_specific::{Efer, EferFlags},
};

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    ("heap_allocates_grows_and_frees", heap_allocates_grows_and_frees),
    ("allocation_beyond_memory_is_an_error", allocation_beyond_memory_is_an_error),
    ("fresh_frames_are_zeroed", fresh_frames_are_zeroed),
    ("writable_and_executable_is_refused", writable_and_executable_is_refused),
    ("no_page_of_the_image_is_writable_and_executable", no_page_of_the_image_is_writable_and_executable),
    ("no_page_at_all_is_writable_and_executable", no_page_at_all_is_writable_and_executable),
    ("protection_is_on_as_far_as_the_processor_has_it", protection_is_on_as_far_as_the_processor_has_it),
    ("large_pieces_get_frames_when_touched", large_pieces_get_frames_when_touched),
    ("a_reservation_of_4_gib_costs_no_frames", a_reservation_of_4_gib_costs_no_frames),
    ("unmapping_returns_frames_and_tables", unmapping_returns_frames_and_tables),
    ("commit_beyond_memory_is_an_error_and_leaves_nothing", commit_beyond_memory_is_an_error_and_leaves_nothing),
    ("shared_frames_show_their_content_wherever_mapped", shared_frames_show_their_content_wherever_mapped),
    ("frames_with_fixed_content_are_writable_nowhere", frames_with_fixed_content_are_writable_nowhere),
    ("protection_is_enforced", protection_is_enforced),
    ("page_zero_and_the_last_page_are_unmapped", page_zero_and_the_last_page_are_unmapped),
    ("every_stack_has_an_unmapped_page_below", every_stack_has_an_unmapped_page_below),
    ("released_addresses_are_merged_and_reused", released_addresses_are_merged_and_reused),
];

const READ_WRITE: PteFlags = PteFlags::VALID.union(PteFlags::WRITABLE);

fn text<E: core::fmt::Display>(error: E) -> String {
    format!("{error}")
}

fn heap_allocates_grows_and_frees() -> Outcome {
    let mut boxes = Vec::new();
    for round in 0..2000usize {
        boxes.push(vec_of(round * 7 % 5000, round as u8));
        if round % 3 == 0 {
            boxes.swap_remove(round * 31 % boxes.len());
        }
    }
    for b in &boxes {
        expect("a block holds what was written", b.windows(2).all(|w| w[0] == w[1]))?;
    }
    let large = vec_of(9 << 20, 0x5a);
    expect_eq("last byte of a large block", large.last().copied(), Some(0x5a))
}

fn vec_of(len: usize, value: u8) -> Box<[u8]> {
    let mut v = Vec::with_capacity(len);
    v.resize(len, value);
    v.into_boxed_slice()
}

fn allocation_beyond_memory_is_an_error() -> Outcome {
    let mut v = Vec::<u8>::new();
    expect("256 GiB were reserved on the heap", v.try_reserve_exact(256 << 30).is_err())?;
    let all = frame_use().total * PAGE_SIZE;
    expect("more than all memory was reserved on the heap", v.try_reserve_exact(all).is_err())?;
    expect("the heap works afterwards", vec_of(1 << 20, 1).len() == 1 << 20)
}

/// A reservation that is released when dropped.
struct Reserved {
    start: usize,
    size: usize,
}

impl Reserved {
    fn new(size: usize) -> Result<Self, String> {
        let start = platform().memory().reserve(size).map_err(text)?;
        Ok(Self { start, size })
    }

    fn committed(size: usize, flags: PteFlags) -> Result<Self, String> {
        let this = Self::new(size)?;
        // SAFETY: reserved just now.
        unsafe { platform().memory().commit(this.start, size, flags) }.map_err(text)?;
        Ok(this)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: callers committed the whole reservation as writable.
        unsafe { core::slice::from_raw_parts_mut(self.start as *mut u8, self.size) }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: reserved by us and not used any more.
        unsafe { platform().memory().release(self.start, self.size) };
    }
}

fn fresh_frames_are_zeroed() -> Outcome {
    const SIZE: usize = 64 * PAGE_SIZE;
    Reserved::committed(SIZE, READ_WRITE)?.bytes().fill(0xa5);
    let mut again = Reserved::committed(SIZE, READ_WRITE)?;
    expect("a frame came with old content", again.bytes().iter().all(|b| *b == 0))
}

fn writable_and_executable_is_refused() -> Outcome {
    let both = READ_WRITE | PteFlags::EXECUTABLE;
    let pages = Reserved::new(PAGE_SIZE)?;
    let memory = platform().memory();
    // SAFETY: reserved by us; refused before anything is mapped.
    let committed = unsafe { memory.commit(pages.start, PAGE_SIZE, both) };
    expect_eq("commit", committed, Err(MemoryError::WritableAndExecutable))?;
    let pages = Reserved::committed(PAGE_SIZE, READ_WRITE)?;
    // SAFETY: mapped by us.
    let protected = unsafe { memory.protect(pages.start, PAGE_SIZE, both) };
    expect_eq("protect", protected, Err(MemoryError::WritableAndExecutable))?;
    expect_eq("flags", page_flags(pages.start), Some(READ_WRITE))
}

fn no_page_of_the_image_is_writable_and_executable() -> Outcome {
    let guards = crate::image::guards();
    let layout = crate::image::layout(&guards);
    let parts = [
        ("text", layout.text, PteFlags::VALID | PteFlags::EXECUTABLE),
        ("rodata", layout.rodata, PteFlags::VALID),
        ("data", layout.data, READ_WRITE),
    ];
    for (name, (start, end), flags) in parts {
        for page in (start..end).step_by(PAGE_SIZE) {
            let expected = if guards.contains(&page) { None } else { Some(flags) };
            expect_eq(name, page_flags(page), expected)?;
        }
    }
    Ok(())
}

fn no_page_at_all_is_writable_and_executable() -> Outcome {
    let both = PteFlags::WRITABLE | PteFlags::EXECUTABLE;
    let (mut first, mut seen) = (None, [0usize; 3]);
    for_each_page(&mut |start, size, flags| {
        if flags.contains(both) {
            first = first.or(Some(start));
        }
        let kind =
            usize::from(flags.contains(PteFlags::WRITABLE)) + 2 * usize::from(flags.contains(PteFlags::EXECUTABLE));
        if let Some(bytes) = seen.get_mut(kind) {
            *bytes += size;
        }
    });
    let image = crate::image::text();
    expect_eq("first page that is both", first, None)?;
    expect(&format!("bytes that are constant, writable, executable: {seen:?}"), seen[0] > 0 && seen[1] > 0)?;
    expect("the image's text is not among the executable pages", seen[2] >= image.1 - image.0)
}

fn protection_is_on_as_far_as_the_processor_has_it() -> Outcome {
    let (cr0, cr4, leaf) = (Cr0::read(), Cr4::read(), cpu::leaf(7, 0));
    let extended = cpu::leaf(0x8000_0001, 0);
    let on = [
        ("write protection in ring 0", true, cr0.contains(Cr0Flags::WRITE_PROTECT)),
        ("SMEP", leaf.ebx >> 7 & 1 == 1, cr4.contains(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION)),
        ("SMAP", leaf.ebx >> 20 & 1 == 1, cr4.contains(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION)),
        ("UMIP", leaf.ecx >> 2 & 1 == 1, cr4.contains(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION)),
        ("NX", extended.edx >> 20 & 1 == 1, Efer::read().contains(EferFlags::NO_EXECUTE_ENABLE)),
    ];
    on.into_iter().try_for_each(|(name, has, is_on)| expect_eq(name, is_on, has))
}

fn large_pieces_get_frames_when_touched() -> Outcome {
    const SIZE: usize = 48 << 20;
    let taken = || {
        let now = frame_use();
        now.total - now.free - now.promised
    };
    let before = (frame_use(), platform().memory().statistics());
    let frames = taken();
    let mut pages = Reserved::committed(SIZE, READ_WRITE)?;
    let tables = taken() - frames;
    expect(&format!("{tables} frames for the tables of 48 MiB"), tables <= SIZE / (2 << 20) + 4)?;
    expect_eq("promised frames", frame_use().promised, before.0.promised + SIZE / PAGE_SIZE)?;
    for at in (0..SIZE).step_by(1 << 20) {
        expect_eq("a fresh byte", pages.bytes()[at], 0)?;
        pages.bytes()[at] = 1;
    }
    expect_eq("frames for 48 touched pages", taken() - frames - tables, SIZE >> 20)?;
    // Protection of pages without a frame holds for the frame they get.
    let (memory, start) = (platform().memory(), pages.start);
    // SAFETY: mapped by us.
    unsafe { memory.protect(start, SIZE, PteFlags::VALID) }.map_err(text)?;
    expect("an untouched page that is read-only took a write", !probe::write(start + PAGE_SIZE))?;
    expect("it cannot be read", probe::read(start + PAGE_SIZE))?;
    // SAFETY: as above.
    unsafe { memory.protect(start, SIZE, PteFlags::empty()) }.map_err(text)?;
    expect("an untouched page without access was read", !probe::read(start + 2 * PAGE_SIZE))?;
    drop(pages);
    expect_eq("memory in use", (frame_use(), platform().memory().statistics()), before)
}

fn a_reservation_of_4_gib_costs_no_frames() -> Outcome {
    let before = frame_use().free;
    let size = GUARDED_RESERVATION as usize;
    let many = (0..100).map(|_| Reserved::new(size)).collect::<Result<Vec<_>, _>>()?;
    let mut starts: Vec<usize> = many.iter().map(|r| r.start).collect();
    starts.sort_unstable();
    expect("reservations overlap", starts.windows(2).all(|w| w[1] - w[0] >= size))?;
    expect("nothing is accessible", page_flags(starts[0]).is_none())?;
    // The heap may have grown for the list of reservations, but by far less than one page a reservation.
    expect("frames were taken", before - frame_use().free.min(before) < 20)
}

fn in_use() -> (FrameUse, MemoryStatistics) {
    (frame_use(), platform().memory().statistics())
}

fn unmapping_returns_frames_and_tables() -> Outcome {
    // The first round lets the heap and the list of free ranges reach their size.
    for round in 0..3 {
        let before = in_use();
        for _ in 0..50 {
            let pages = Reserved::new(GUARDED_RESERVATION as usize)?;
            for offset in [0, 1 << 21, 1 << 30, 3 << 30] {
                // SAFETY: reserved by us.
                unsafe { platform().memory().commit(pages.start + offset, 16 * PAGE_SIZE, READ_WRITE) }
                    .map_err(text)?;
            }
        }
        if round > 0 {
            expect_eq("memory in use", in_use(), before)?;
        }
    }
    Ok(())
}

fn commit_beyond_memory_is_an_error_and_leaves_nothing() -> Outcome {
    let free = frame_use().free;
    let pages = Reserved::new((free + 1) * PAGE_SIZE)?;
    // SAFETY: reserved by us.
    let result = unsafe { platform().memory().commit(pages.start, pages.size, READ_WRITE) };
    expect_eq("one frame too many", result, Err(MemoryError::OutOfFrames(pages.size)))?;
    // The frames suffice for the pages, but not for their tables too.
    let size = free * PAGE_SIZE;
    // SAFETY: as above; nothing was mapped.
    let result = unsafe { platform().memory().commit(pages.start, size, READ_WRITE) };
    expect_eq("no frames for tables", result, Err(MemoryError::OutOfFrames(size)))?;
    expect_eq("free frames", frame_use().free, free)
}

fn shared_frames_show_their_content_wherever_mapped() -> Outcome {
    const SIZE: usize = 3 * PAGE_SIZE;
    let memory = platform().memory();
    let before = frame_use().free;
    let (a, b) = (vec_of(5000, 1), vec_of(100, 2));
    let frames = memory.create_frames(&[&a, &b], SIZE).map_err(text)?;
    let (whole, part) = (Reserved::new(SIZE)?, Reserved::new(PAGE_SIZE)?);
    // SAFETY: reserved by us; the parts lie in the frames.
    unsafe {
        memory.map_frames(whole.start, frames, 0, SIZE, PteFlags::VALID).map_err(text)?;
        memory.map_frames(part.start, frames, PAGE_SIZE, PAGE_SIZE, PteFlags::VALID).map_err(text)?;
        let refused = memory.map_frames(part.start, frames, 0, PAGE_SIZE, READ_WRITE);
        expect("shared frames were mapped writable", refused.is_err())?;
    }
    // SAFETY: mapped just now.
    let (all, second) = unsafe {
        let slice = |start: usize, len| core::slice::from_raw_parts(start as *const u8, len);
        (slice(whole.start, SIZE), slice(part.start, PAGE_SIZE))
    };
    expect("first slice", all[..5000].iter().all(|b| *b == 1))?;
    expect("second slice", all[5000..5100].iter().all(|b| *b == 2))?;
    expect("the rest is zero", all[5100..].iter().all(|b| *b == 0))?;
    expect("both mappings show the same", all[PAGE_SIZE..2 * PAGE_SIZE] == *second)?;
    drop((whole, part));
    // SAFETY: nothing maps them any more.
    unsafe { memory.free_frames(frames, SIZE) };
    expect("frames were lost", frame_use().free + 8 >= before)
}

fn frames_with_fixed_content_are_writable_nowhere() -> Outcome {
    let memory = platform().memory();
    let frames = memory.create_frames(&[&[0xc3]], PAGE_SIZE).map_err(text)?;
    let text_page = Reserved::new(PAGE_SIZE)?;
    // SAFETY: reserved by us; the page lies in the frames.
    unsafe { memory.map_frames(text_page.start, frames, 0, PAGE_SIZE, PteFlags::VALID | PteFlags::EXECUTABLE) }
        .map_err(text)?;
    expect("the code can be executed", probe::execute(text_page.start))?;
    let alias = at_physical(physical_address(text_page.start).ok_or("the page is not mapped")?);
    expect("code can be written in the window of physical memory", !probe::write(alias))?;
    expect("code can be executed in the window of physical memory", !probe::execute(alias))?;
    drop(text_page);
    // SAFETY: nothing maps them any more.
    unsafe { memory.free_frames(frames, PAGE_SIZE) };
    expect_eq("flags of the free frame", page_flags(alias), Some(READ_WRITE))
}

fn protection_is_enforced() -> Outcome {
    let memory = platform().memory();
    let pages = Reserved::committed(2 * PAGE_SIZE, READ_WRITE)?;
    expect("writable pages take a write", probe::write(pages.start))?;
    // SAFETY: mapped by us.
    unsafe { memory.protect(pages.start, PAGE_SIZE, PteFlags::VALID) }.map_err(text)?;
    expect("read-only pages can be read", probe::read(pages.start))?;
    expect("a write to a read-only page faults", !probe::write(pages.start))?;
    expect("the next page is as it was", probe::write(pages.start + PAGE_SIZE))?;
    // SAFETY: as above.
    unsafe { memory.protect(pages.start, PAGE_SIZE, PteFlags::empty()) }.map_err(text)?;
    expect("an inaccessible page faults", !probe::read(pages.start))?;
    // SAFETY: as above.
    unsafe { memory.protect(pages.start, PAGE_SIZE, READ_WRITE) }.map_err(text)?;
    expect("it can be made accessible again", probe::write(pages.start))?;
    expect("execution of a data page faults", !probe::execute(pages.start))?;
    let text_page = crate::image::text().0;
    expect("a write to the image's text faults", !probe::write(text_page))
}

fn page_zero_and_the_last_page_are_unmapped() -> Outcome {
    expect("null can be read", !probe::read(0))?;
    expect("the word before null can be read", !probe::read(usize::MAX - 7))
}

fn every_stack_has_an_unmapped_page_below() -> Outcome {
    for guard in image::guards() {
        expect("the page below an exception's stack can be read", !probe::read(guard))?;
        expect("an exception's stack cannot be read", probe::read(guard + PAGE_SIZE))?;
    }
    let mut stacks = Vec::with_capacity(64);
    task::inspect(&mut |t| {
        if stacks.len() < stacks.capacity() {
            stacks.push(t.stack.clone());
        }
    });
    expect("no tasks", !stacks.is_empty())?;
    for stack in stacks {
        expect("the page below a task's stack can be read", !probe::read(stack.start - PAGE_SIZE))?;
        expect("a task's stack cannot be read", probe::read(stack.end - 8))?;
    }
    Ok(())
}

fn released_addresses_are_merged_and_reused() -> Outcome {
    let first = Reserved::new(3 * PAGE_SIZE)?;
    let start = first.start;
    let memory = platform().memory();
    core::mem::forget(first);
    for page in [1, 0, 2] {
        // SAFETY: our reservation, given back page by page.
        unsafe { memory.release(start + page * PAGE_SIZE, PAGE_SIZE) };
    }
    let again = Reserved::new(3 * PAGE_SIZE)?;
    expect_eq("start of the same reservation", again.start, start)
}
