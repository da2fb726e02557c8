//! What the memory types promise, on the hosted port.

mod any_port;

use super::*;
use crate::platform::platform;
use kernel_config::memory::{GUARDED_RESERVATION, PAGE_SIZE};
use std::string::String;
use std::vec::Vec;

const RW: PteFlags = PteFlags::VALID.union(PteFlags::WRITABLE);

/// What `/proc/self/maps` says about the page at an address.
fn flags_of(address: usize) -> Option<PteFlags> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let protection = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        range.contains(&address).then(|| &rest.as_bytes()[..4])
    })?;
    let flags = PteFlags::new().valid(protection[0] == b'r');
    let flags = flags.writable(protection[1] == b'w').executable(protection[2] == b'x');
    flags.contains(PteFlags::VALID).then_some(flags)
}

macro_rules! tests {
    ($($name:ident)*) => { $(#[test] fn $name() { any_port::$name() })* };
}

tests! {
    virtual_addresses_are_canonical
    fresh_mapping_is_zero_and_writable
    misaligned_and_out_of_range_borrows_are_refused
    write_and_execute_together_are_refused_everywhere
    remap_changes_protection_and_borrow_rights
    drop_unmaps_and_unmapping_into_parts_keeps_the_reservation
    split_and_merge_keep_content_and_refuse_strangers
    reservations_split_and_merge
    an_absurd_size_is_an_error
    shared_frames_appear_in_every_mapping_and_are_never_writable
    content_larger_than_the_frames_is_refused
    freed_frames_read_zero_when_used_again
    growable_mapping_grows_in_place_and_reads_zero
    pooled_memory_reads_zero_and_shows_no_more_than_asked_for
    images_share_text_and_have_data_of_their_own
    borrowed_pages_own_their_mapping
}

#[test]
fn reservations_of_memories_are_flat_over_many_rounds() {
    let size = (GUARDED_RESERVATION as usize) + 3 * PAGE_SIZE;
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let round = || {
        let memories: Vec<_> = (0..3).map(|i| GrowableMapping::new(size, i << 16).unwrap()).collect();
        drop(memories);
    };
    round();
    let before = mappings();
    (0..100_000 / 3).for_each(|_| round());
    assert!(mappings() <= before + 64, "{} mappings, {before} before", mappings());
}

#[test]
fn reservations_of_many_threads_never_overlap_and_read_zero() {
    let sizes = [PAGE_SIZE, 3 * PAGE_SIZE, 1 << 16, 1 << 20];
    std::thread::scope(|s| {
        for thread in 1..=4u8 {
            s.spawn(move || {
                let mut random = u64::from(thread);
                let mut held: Vec<(GrowableMapping, u8)> = Vec::new();
                for round in 0..3000u32 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let pick = (random >> 33) as usize;
                    if held.len() < 8 && pick.is_multiple_of(2) {
                        let size = sizes[pick / 2 % 4];
                        let mut m = GrowableMapping::new(size, size.min((1 + pick / 8 % 3) * PAGE_SIZE)).unwrap();
                        let (length, mark) = (m.len(), thread.wrapping_add(round as u8).max(1));
                        assert!(m.as_slice(0, length).unwrap().iter().all(|b| *b == 0));
                        m.as_slice_mut(0, length).unwrap().fill(mark);
                        held.push((m, mark));
                    } else if !held.is_empty() {
                        let (m, mark) = held.swap_remove(pick / 2 % held.len());
                        assert!(m.as_slice(0, m.len()).unwrap().iter().all(|b| *b == mark));
                    }
                }
            });
        }
    });
}

#[test]
fn nothing_is_left_when_everything_is_dropped() {
    // In a process of its own, because the counters are the process's.
    if std::env::var("PORT_TEST_ROLE").is_ok_and(|r| r == "leaks") {
        let counters = || {
            let s = platform().memory().statistics();
            (s.reserved_bytes, s.shared_bytes, committed_bytes())
        };
        let before = counters();
        for round in 0..2000 {
            let frames = SharedFrames::new(&[&[0xc3; 100]], 2 * PAGE_SIZE).unwrap();
            let ranges = ImageRanges { text: PAGE_SIZE, rodata: PAGE_SIZE, data: 2 * PAGE_SIZE };
            let images = [ImageMapping::new(&frames, ranges).unwrap(), ImageMapping::new(&frames, ranges).unwrap()];
            let mut memory = GrowableMapping::new(GUARDED_RESERVATION as usize, 1 << 16).unwrap();
            memory.commit_more(1 << 16).unwrap();
            memory.decommit_to(1 << 16).unwrap();
            let (low, high) = create_mapping(4 * PAGE_SIZE, RW).unwrap().split(PAGE_SIZE).unwrap();
            assert_eq!(committed_bytes() - before.2, 4 * PAGE_SIZE + (1 << 16) + 4 * PAGE_SIZE);
            drop((images, memory, low));
            drop(ImageMapping::new(&frames, ranges).unwrap());
            let (reservation, _) = high.unmap_into_parts();
            drop((frames, reservation));
            assert_eq!(counters(), before, "round {round}");
        }
        return;
    }
    let name = "memory::tests::nothing_is_left_when_everything_is_dropped";
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output = command.args([name, "--exact"]).env("PORT_TEST_ROLE", "leaks").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
