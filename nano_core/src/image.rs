//! Where the parts of the base image lie, from the linker script.

use crate::{
    boot::{BOOT_STACK, GuardedStack},
    descriptors::{EXCEPTION_STACKS, STACKS},
};
use kernel_config::task::ALTERNATE_STACK;
use runtime_port::bare_metal::{memory::ImageLayout, unwind::ImageUnwindInfo};

unsafe extern "C" {
    safe static __text_start: u8;
    safe static __text_end: u8;
    safe static __rodata_start: u8;
    safe static __rodata_end: u8;
    safe static __data_start: u8;
    safe static __data_end: u8;
    safe static __eh_frame_hdr_start: u8;
}

fn address(symbol: &'static u8) -> usize {
    core::ptr::from_ref(symbol) as usize
}

/// Code of the base image.
pub fn text() -> (usize, usize) {
    (address(&__text_start), address(&__text_end))
}

/// Pages below the stacks in the image, ascending.
pub fn guards() -> [usize; STACKS + 1] {
    let exception_stacks = &raw const EXCEPTION_STACKS as usize;
    let size = size_of::<GuardedStack<ALTERNATE_STACK>>();
    let mut guards = [&raw const BOOT_STACK as usize; STACKS + 1];
    for (i, guard) in guards.iter_mut().take(STACKS).enumerate() {
        *guard = exception_stacks + i * size;
    }
    guards.sort_unstable();
    guards
}

/// The image for the page tables.
pub fn layout(guards: &[usize]) -> ImageLayout<'_> {
    ImageLayout {
        text: text(),
        rodata: (address(&__rodata_start), address(&__rodata_end)),
        data: (address(&__data_start), address(&__data_end)),
        guards,
    }
}

/// The image for the unwinder.
pub fn unwind_info() -> ImageUnwindInfo {
    let rodata = (address(&__rodata_start), address(&__rodata_end));
    ImageUnwindInfo { text: text(), eh_frame_hdr: address(&__eh_frame_hdr_start), rodata }
}
