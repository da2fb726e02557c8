//! Unwinding through code with registered unwind info, on the hosted port.

use super::*;
use crate::memory::{ImageMapping, ImageRanges, SharedFrames};
use core::sync::atomic::{AtomicUsize, Ordering};
use kernel_config::memory::PAGE_SIZE;
use std::vec::Vec;

/// `push rbp; mov rbp, rsp; call rdi; pop rbp; ret`: calls its argument.
const CALLS_ARGUMENT: [u8; 8] = [0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3];

/// An `.eh_frame` for one function with a frame pointer, at the given distance before the section.
fn eh_frame(text_before: i32, text_length: u32) -> Vec<u8> {
    let mut section = Vec::new();
    let cie = [1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0];
    section.extend((cie.len() as u32 + 4).to_le_bytes());
    section.extend(0u32.to_le_bytes());
    section.extend(cie);
    // Advance 1: CFA = rsp+16, rbp at CFA-16. Advance 3: CFA = rbp+16.
    let instructions = [0, 0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0, 0, 0];
    section.extend((instructions.len() as u32 + 12).to_le_bytes());
    section.extend((section.len() as u32).to_le_bytes());
    section.extend((-text_before - section.len() as i32).to_le_bytes());
    section.extend(text_length.to_le_bytes());
    section.extend(instructions);
    section.extend([0; 4]);
    section
}

fn image() -> (Arc<ImageMapping>, usize) {
    let section = eh_frame(PAGE_SIZE as i32, CALLS_ARGUMENT.len() as u32);
    let mut text = CALLS_ARGUMENT.to_vec();
    text.resize(PAGE_SIZE, 0xcc);
    let frames = SharedFrames::new(&[&text, &section], 2 * PAGE_SIZE).unwrap();
    let ranges = ImageRanges { text: PAGE_SIZE, rodata: PAGE_SIZE, data: 0 };
    (Arc::new(ImageMapping::new(&frames, ranges).unwrap()), section.len())
}

fn register(image: &Arc<ImageMapping>, length: usize) -> Result<UnwindRegistration, UnwindError> {
    register_unwind_info(image, CALLS_ARGUMENT.len(), PAGE_SIZE..PAGE_SIZE + length)
}

fn call_through(image: &ImageMapping, f: extern "C-unwind" fn()) {
    // SAFETY: the image's text is the code above, which has this signature.
    let code: extern "C-unwind" fn(extern "C-unwind" fn()) =
        unsafe { core::mem::transmute(image.start_address().value()) };
    code(f)
}

struct CountsDrops<'a>(&'a AtomicUsize);

impl Drop for CountsDrops<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn panic_unwinds_through_registered_code_and_runs_destructors() {
    extern "C-unwind" fn panics() {
        std::panic::resume_unwind(Box::new("from inside"));
    }
    let (image, length) = image();
    let _registration = register(&image, length).unwrap();
    let drops = AtomicUsize::new(0);
    let result = catch_unwind_with_arg(
        |image| {
            let _outside = CountsDrops(&drops);
            call_through(image, panics);
        },
        &*image,
    );
    assert_eq!(result.unwrap_err().message(), Some("from inside"));
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[test]
fn kill_reason_travels_through_registered_code_on_many_threads() {
    extern "C-unwind" fn raises() {
        resume_unwind(KillReason::Exception(14));
    }
    let (image, length) = image();
    let _registration = register(&image, length).unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..500 {
                    let r = catch_unwind_with_arg(|()| call_through(&image, raises), ());
                    assert!(matches!(r, Err(KillReason::Exception(14))));
                }
            });
        }
    });
}

#[test]
fn catch_returns_the_result_and_nests() {
    assert_eq!(catch_unwind_with_arg(|n: u32| n + 1, 41).unwrap(), 42);
    let outer = catch_unwind_with_arg(
        |()| {
            let inner = catch_unwind_with_arg(|()| resume_unwind(KillReason::Requested), ());
            assert!(matches!(inner, Err::<(), _>(KillReason::Requested)));
            7
        },
        (),
    );
    assert_eq!(outer.unwrap(), 7);
}

#[test]
fn registration_refuses_overlap_and_keeps_the_pages() {
    let (image, length) = image();
    let registration = register(&image, length).unwrap();
    assert_eq!(register(&image, length).unwrap_err(), UnwindError::Overlap);
    assert_eq!(Arc::strong_count(&image), 2);
    drop(registration);
    assert_eq!(Arc::strong_count(&image), 1);
    drop(register(&image, length).unwrap());
}

#[test]
fn registration_refuses_ranges_outside_the_image() {
    let (image, length) = image();
    assert!(register_unwind_info(&image, 2 * PAGE_SIZE, PAGE_SIZE..PAGE_SIZE + length).is_err());
    assert!(register_unwind_info(&image, 8, PAGE_SIZE..3 * PAGE_SIZE).is_err());
    assert!(register_unwind_info(&image, 4, PAGE_SIZE..PAGE_SIZE + length).is_err(), "FDE leaves the text");
}

#[test]
fn check_accepts_the_good_and_finds_each_defect() {
    let base = 0x10_0000;
    let good = eh_frame(0x1000, 8);
    let text = base - 0x1000..base - 0x1000 + 8;
    assert_eq!(eh_frame::check(&good, base, &text), Ok(()));
    assert_eq!(eh_frame::check(&[0; 4], base, &text), Ok(()));
    assert!(eh_frame::check(&good[..good.len() - 4], base, &text).is_err(), "no terminator");
    assert_eq!(eh_frame::check(&good, base + 8, &text), Err(UnwindError::Malformed(24)), "another place");
    assert!(eh_frame::check(&good, base, &(text.start..text.start + 4)).is_err(), "text too short");
    for cut in 0..good.len() - 3 {
        assert!(eh_frame::check(&good[..cut], base, &text).is_err());
    }
    // No single corrupted byte makes the walk panic or leave the section.
    for i in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[i] = value;
            let _ = eh_frame::check(&bad, base, &text);
        }
    }
}
