//! The memory types, by the tests that the hosted port has of them.

#[expect(clippy::unwrap_used, reason = "tests, for which a panic is the failure")]
#[path = "../../../runtime_port/src/memory/tests/any_port.rs"]
mod any_port;

use super::Check;
use runtime_port::{
    bare_metal::memory::page_flags as flags_of,
    memory::{
        AllocatedPages, GrowableMapping, ImageMapping, ImageRanges, MappedPages, MemoryError, PteFlags, SharedFrames,
        VirtualAddress, create_mapping,
    },
    platform,
};

/// One that does not hold panics, which fails the check.
macro_rules! checks {
    ($($name:ident)*) => { &[$((stringify!($name), || { any_port::$name(); Ok(()) })),*] };
}

/// The checks of this file.
pub const CHECKS: &[Check] = checks! {
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
};
