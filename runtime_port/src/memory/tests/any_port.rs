//! What the memory types promise on any port: tests of the hosted one, and checks that the kernel carries.
//!
//! Who includes this file gives it `flags_of`, which asks the system for the flags of the page at an address: `None` where nothing is
//! accessible.

use super::{
    AllocatedPages, GrowableMapping, ImageMapping, ImageRanges, MappedPages, MemoryError, PteFlags, SharedFrames,
    VirtualAddress, create_mapping, flags_of, platform,
};
use kernel_config::memory::{GUARDED_RESERVATION, PAGE_SIZE};

const RW: PteFlags = PteFlags::VALID.union(PteFlags::WRITABLE);
const RX: PteFlags = PteFlags::VALID.union(PteFlags::EXECUTABLE);

fn accessible(address: usize) -> bool {
    flags_of(address).is_some()
}

pub fn virtual_addresses_are_canonical() {
    assert!(VirtualAddress::new(0x7fff_ffff_ffff).is_some());
    assert!(VirtualAddress::new(0x8000_0000_0000).is_none());
    assert_eq!(VirtualAddress::new_canonical(0x8000_0000_0000).value(), 0xffff_8000_0000_0000);
    assert_eq!(VirtualAddress::new_canonical(0x1000) - VirtualAddress::new_canonical(0xf00), 0x100);
}

pub fn fresh_mapping_is_zero_and_writable() {
    let mut pages = create_mapping(3 * PAGE_SIZE - 5, RW).unwrap();
    assert_eq!(pages.size_in_pages(), 3);
    assert!(pages.as_slice::<u8>(0, 3 * PAGE_SIZE).unwrap().iter().all(|b| *b == 0));
    pages.as_slice_mut::<u64>(8, 4).unwrap().copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(*pages.as_type::<u64>(24).unwrap(), 3);
    assert_eq!(flags_of(pages.start_address().value()), Some(RW));
}

pub fn misaligned_and_out_of_range_borrows_are_refused() {
    let mut pages = create_mapping(PAGE_SIZE, RW).unwrap();
    assert_eq!(pages.as_type::<u32>(2).unwrap_err(), MemoryError::Misaligned { offset: 2, align: 4 });
    assert_eq!(pages.as_type_mut::<u64>(4).unwrap_err(), MemoryError::Misaligned { offset: 4, align: 8 });
    assert!(matches!(pages.as_type::<u64>(PAGE_SIZE - 4), Err(MemoryError::OutOfRange { .. })));
    assert!(matches!(pages.as_slice::<u64>(0, usize::MAX / 4), Err(MemoryError::OutOfRange { .. })));
    assert!(matches!(pages.as_slice_mut::<u8>(usize::MAX, 2), Err(MemoryError::OutOfRange { .. })));
    assert!(pages.as_slice::<u8>(PAGE_SIZE, 0).unwrap().is_empty());
    assert!(pages.as_slice::<u64>(0, PAGE_SIZE / 8).is_ok());
}

pub fn write_and_execute_together_are_refused_everywhere() {
    let both = PteFlags::new().valid(true).writable(true).executable(true);
    assert_eq!(create_mapping(PAGE_SIZE, both).unwrap_err(), MemoryError::WritableAndExecutable);
    let mut pages = create_mapping(PAGE_SIZE, RW).unwrap();
    assert_eq!(pages.remap(both).unwrap_err(), MemoryError::WritableAndExecutable);
    assert_eq!(pages.flags(), RW);
    let frames = SharedFrames::new(&[b"x"], PAGE_SIZE).unwrap();
    let reserved = AllocatedPages::reserve(PAGE_SIZE).unwrap();
    assert!(MappedPages::from_frames(reserved, &frames, 0, both).is_err());
    // SAFETY: the port must refuse before it touches the range.
    let refused = unsafe { platform().memory().protect(pages.start_address().value(), PAGE_SIZE, both) };
    assert_eq!(refused, Err(MemoryError::WritableAndExecutable));
}

pub fn remap_changes_protection_and_borrow_rights() {
    let mut pages = create_mapping(PAGE_SIZE, RW).unwrap();
    pages.as_slice_mut::<u8>(0, 1).unwrap()[0] = 0xc3;
    pages.remap(RX).unwrap();
    assert_eq!(flags_of(pages.start_address().value()), Some(RX));
    assert_eq!(pages.as_slice_mut::<u8>(0, 1).unwrap_err(), MemoryError::Flags(RX));
    assert_eq!(pages.as_slice::<u8>(0, 1).unwrap(), [0xc3]);
}

pub fn drop_unmaps_and_unmapping_into_parts_keeps_the_reservation() {
    let pages = create_mapping(PAGE_SIZE, RW).unwrap();
    let start = pages.start_address().value();
    assert!(accessible(start));
    let (reservation, frames) = pages.unmap_into_parts();
    assert!(!accessible(start) && frames.is_none());
    assert_eq!(reservation.start_address().value(), start);
    let again = MappedPages::map(reservation, RW).unwrap();
    assert!(accessible(start));
    // Large, so that no other test's reservation of the same size takes its place meanwhile.
    let large = create_mapping(12_345 * PAGE_SIZE, RW).unwrap();
    let at = large.start_address().value();
    drop((again, large));
    assert!(!accessible(at));
}

pub fn split_and_merge_keep_content_and_refuse_strangers() {
    let mut pages = create_mapping(4 * PAGE_SIZE, RW).unwrap();
    pages.as_slice_mut::<u8>(PAGE_SIZE, 1).unwrap()[0] = 7;
    let (_, pages) = pages.split(100).unwrap_err();
    let (mut low, high) = pages.split(PAGE_SIZE).unwrap();
    assert_eq!((low.size_in_pages(), high.size_in_pages()), (1, 3));
    assert_eq!(*high.as_type::<u8>(0).unwrap(), 7);
    let (e, _) = low.merge(create_mapping(PAGE_SIZE, RX).unwrap()).unwrap_err();
    assert_eq!(e, MemoryError::NotMergeable);
    low.merge(high).unwrap();
    assert_eq!(*low.as_type::<u8>(PAGE_SIZE).unwrap(), 7);
    let (low, mut high) = low.split(2 * PAGE_SIZE).unwrap();
    high.merge(low).unwrap();
    assert_eq!((high.size_in_pages(), *high.as_type::<u8>(PAGE_SIZE).unwrap()), (4, 7));
}

pub fn reservations_split_and_merge() {
    let pages = AllocatedPages::reserve(4 * PAGE_SIZE).unwrap();
    let start = pages.start_address();
    let (low, mut high) = pages.split(PAGE_SIZE).unwrap();
    assert_eq!(high.start_address(), start + PAGE_SIZE);
    high.merge(low).unwrap();
    assert_eq!((high.start_address(), high.size_in_pages()), (start, 4));
    assert_eq!(high.address_at_offset(PAGE_SIZE), Some(start + PAGE_SIZE));
    assert_eq!(high.offset_of_address(start + 4 * PAGE_SIZE), None);
}

pub fn an_absurd_size_is_an_error() {
    assert!(matches!(AllocatedPages::reserve(1 << 60), Err(MemoryError::OutOfAddressSpace(_))));
    assert!(matches!(AllocatedPages::reserve(usize::MAX), Err(MemoryError::OutOfAddressSpace(_))));
    assert!(GrowableMapping::new(1 << 46, 1 << 46).is_err());
}

pub fn shared_frames_appear_in_every_mapping_and_are_never_writable() {
    let frames = SharedFrames::new(&[b"hello, ", b"frames"], PAGE_SIZE + 1).unwrap();
    assert_eq!(frames.size_in_bytes(), 2 * PAGE_SIZE);
    let map = |flags| MappedPages::from_frames(AllocatedPages::reserve(2 * PAGE_SIZE).unwrap(), &frames, 0, flags);
    let (mut a, b) = (map(RX).unwrap(), map(PteFlags::VALID).unwrap());
    for pages in [&a, &b] {
        assert_eq!(pages.as_slice::<u8>(0, 14).unwrap(), b"hello, frames\0");
        assert!(pages.as_slice::<u8>(14, 2 * PAGE_SIZE - 14).unwrap().iter().all(|b| *b == 0));
    }
    assert_eq!(map(RW).unwrap_err(), MemoryError::Flags(RW));
    assert_eq!(a.remap(RW).unwrap_err(), MemoryError::Flags(RW));
    assert!(a.as_slice_mut::<u8>(0, 1).is_err());
    drop(frames);
    let (high, low) = {
        let (l, h) = b.split(PAGE_SIZE).unwrap();
        (h, l)
    };
    assert_eq!(*high.as_type::<u8>(0).unwrap(), 0);
    assert_eq!(low.as_slice::<u8>(0, 5).unwrap(), b"hello");
}

pub fn content_larger_than_the_frames_is_refused() {
    let content = [1u8; PAGE_SIZE + 1];
    assert!(matches!(SharedFrames::new(&[&content], PAGE_SIZE), Err(MemoryError::OutOfRange { .. })));
    assert!(SharedFrames::new(&[], 0).is_err());
}

pub fn freed_frames_read_zero_when_used_again() {
    for round in 0..50u8 {
        let frames = SharedFrames::new(&[&[round]], 5 * PAGE_SIZE).unwrap();
        let pages = AllocatedPages::reserve(5 * PAGE_SIZE).unwrap();
        let pages = MappedPages::from_frames(pages, &frames, 0, PteFlags::VALID).unwrap();
        assert!(pages.as_slice::<u8>(1, 5 * PAGE_SIZE - 1).unwrap().iter().all(|b| *b == 0));
        drop(pages);
        let full = SharedFrames::new(&[&[0xff; 5 * PAGE_SIZE]], 5 * PAGE_SIZE).unwrap();
        drop((frames, full));
    }
}

pub fn growable_mapping_grows_in_place_and_reads_zero() {
    let mut memory = GrowableMapping::new(GUARDED_RESERVATION as usize, 1 << 16).unwrap();
    let base = memory.start_address();
    memory.as_slice_mut(0, 1 << 16).unwrap().fill(0xaa);
    assert_eq!(memory.commit_more(1 << 16).unwrap(), 1 << 16);
    assert_eq!((memory.start_address(), memory.len()), (base, 2 << 16));
    assert!(memory.as_slice(1 << 16, 1 << 16).unwrap().iter().all(|b| *b == 0));
    assert!(memory.as_slice(0, 1 << 16).unwrap().iter().all(|b| *b == 0xaa));
    assert!(!accessible(base.value() + (2 << 16)));
    memory.decommit_to(PAGE_SIZE).unwrap();
    assert!(!accessible(base.value() + PAGE_SIZE));
    memory.commit_more(PAGE_SIZE).unwrap();
    assert!(memory.as_slice(PAGE_SIZE, PAGE_SIZE).unwrap().iter().all(|b| *b == 0));
    memory.reset(1 << 16).unwrap();
    assert!(memory.as_slice(0, 1 << 16).unwrap().iter().all(|b| *b == 0));
    assert!(matches!(memory.commit_more(GUARDED_RESERVATION as usize), Err(MemoryError::OutOfRange { .. })));
}

pub fn pooled_memory_reads_zero_and_shows_no_more_than_asked_for() {
    let reserve = (GUARDED_RESERVATION as usize) + 7 * PAGE_SIZE;
    for committed in [1 << 16, 1 << 18, PAGE_SIZE, 0, 1 << 16, 1 << 16, 6 << 20, 1 << 16] {
        let mut memory = GrowableMapping::new(reserve, committed).unwrap();
        assert!(memory.as_slice(0, committed).unwrap().iter().all(|b| *b == 0));
        memory.as_slice_mut(0, committed).unwrap().fill(0x55);
        assert!(!accessible(memory.start_address().value() + committed));
    }
}

pub fn images_share_text_and_have_data_of_their_own() {
    let frames = SharedFrames::new(&[&[0xc3; PAGE_SIZE], b"constants"], 2 * PAGE_SIZE).unwrap();
    let ranges = ImageRanges { text: PAGE_SIZE, rodata: PAGE_SIZE, data: PAGE_SIZE };
    let mut a = ImageMapping::new(&frames, ranges).unwrap();
    let b = ImageMapping::new(&frames, ranges).unwrap();
    a.data_mut()[5] = 9;
    assert_eq!(&b.shared_bytes()[PAGE_SIZE..PAGE_SIZE + 9], b"constants");
    assert_eq!(flags_of(a.start_address().value()), Some(RX));
    assert_eq!(flags_of(a.start_address().value() + PAGE_SIZE), Some(PteFlags::VALID));
    assert_eq!(flags_of(a.data_address().value()), Some(RW));
    let old = a.start_address();
    drop(a);
    let mut again = ImageMapping::new(&frames, ranges).unwrap();
    assert_eq!(again.start_address(), old);
    assert!(again.data_mut().iter().all(|b| *b == 0));
    let too_large = ImageRanges { text: 3 * PAGE_SIZE, ..ranges };
    assert!(matches!(ImageMapping::new(&frames, too_large), Err(MemoryError::OutOfRange { .. })));
    assert!(matches!(
        ImageMapping::new(&frames, ImageRanges { data: 1, ..ranges }),
        Err(MemoryError::NotPageAligned(1))
    ));
}

pub fn borrowed_pages_own_their_mapping() {
    let pages = create_mapping(PAGE_SIZE, RW).unwrap();
    let mut word = pages.into_borrowed_mut::<u64>(8).unwrap();
    *word = 5;
    let pages = word.into_inner();
    let (e, pages) = pages.into_borrowed::<u64>(9).unwrap_err();
    assert_eq!(e, MemoryError::Misaligned { offset: 9, align: 8 });
    let slice = pages.into_borrowed_slice::<u64>(0, 2).unwrap();
    assert_eq!(*slice, [0, 5]);
    let mut slice = slice.into_inner().into_borrowed_slice_mut::<u32>(4, 3).unwrap();
    slice[2] = 9;
    let mut pages = slice.into_inner();
    assert_eq!(pages.as_slice::<u32>(0, 4).unwrap(), [0, 0, 5, 9]);
    pages.remap(RX).unwrap();
    assert!(pages.into_borrowed_mut::<u64>(0).is_err());
}
