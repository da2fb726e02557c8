//! Where the parts of the base image lie, from the linker script.

use crate::{boot, descriptors};
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
pub fn guards() -> [usize; 5] {
    let stacks = &raw const descriptors::EXCEPTION_STACKS;
    let size = size_of::<boot::GuardedStack<ALTERNATE_STACK>>();
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| stacks as usize + i * size);
    let mut all = [a, b, c, d, &raw const boot::BOOT_STACK as usize];
    all.sort_unstable();
    all
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
    ImageUnwindInfo { text: text(), eh_frame_hdr: address(&__eh_frame_hdr_start) }
}
