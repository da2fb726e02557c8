//! Unwinding through code with registered unwind info, on the hosted port.

mod damage;
mod libgcc;
mod rows;

use super::*;
use crate::memory::{ImageMapping, ImageRanges, SharedFrames};
use core::sync::atomic::{AtomicUsize, Ordering};
use kernel_config::memory::PAGE_SIZE;
use std::vec::Vec;

/// `push rbp; mov rbp, rsp; call rdi; pop rbp; ret`: calls its argument.
const CALLS_ARGUMENT: [u8; 8] = [0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3];

/// An `.eh_frame` for one function with a frame pointer, at the given distance before the section.
pub(super) fn eh_frame(text_before: i32, text_length: u32) -> Vec<u8> {
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

pub(super) fn image() -> (Arc<ImageMapping>, usize) {
    let section = eh_frame(PAGE_SIZE as i32, CALLS_ARGUMENT.len() as u32);
    let mut text = CALLS_ARGUMENT.to_vec();
    text.resize(PAGE_SIZE, 0xcc);
    let frames = SharedFrames::new(&[&text, &section], 2 * PAGE_SIZE).unwrap();
    let ranges = ImageRanges { text: PAGE_SIZE, rodata: PAGE_SIZE, data: 0 };
    (Arc::new(ImageMapping::new(&frames, ranges).unwrap()), section.len())
}

pub(super) fn register(image: &Arc<ImageMapping>, length: usize) -> Result<UnwindRegistration, UnwindError> {
    register_unwind_info(image, CALLS_ARGUMENT.len(), PAGE_SIZE..PAGE_SIZE + length)
}

pub(super) fn call_through(image: &ImageMapping, f: extern "C-unwind" fn()) {
    // SAFETY: the image's text is the code above, which has this signature.
    let code: extern "C-unwind" fn(extern "C-unwind" fn()) =
        unsafe { core::mem::transmute(image.start_address().value()) };
    code(f)
}

pub(super) struct CountsDrops<'a>(pub &'a AtomicUsize);

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
    assert_eq!(eh_frame::index(&good, base, &text).unwrap().len(), 1);
    assert!(eh_frame::index(&[0; 4], base, &text).unwrap().is_empty());
    assert!(eh_frame::index(&good[..good.len() - 4], base, &text).is_err(), "no terminator");
    assert_eq!(eh_frame::index(&good, base + 8, &text).unwrap_err(), UnwindError::Malformed(24), "another place");
    assert!(eh_frame::index(&good, base, &(text.start..text.start + 4)).is_err(), "text too short");
    for cut in 0..good.len() - 3 {
        assert!(eh_frame::index(&good[..cut], base, &text).is_err());
    }
    // No single corrupted byte makes the walk panic or leave the section.
    for i in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[i] = value;
            let _ = eh_frame::index(&bad, base, &text);
        }
    }
}

/// Unwinds through `depth` frames with destructors.
#[inline(never)]
fn descend(depth: usize, drops: &AtomicUsize, end: &dyn Fn()) -> usize {
    let _counted = CountsDrops(drops);
    if depth == 0 {
        end();
    }
    match depth {
        0 => 0,
        _ => core::hint::black_box(descend(depth - 1, drops, end)) + 1,
    }
}

#[test]
fn threads_unwind_while_others_register_and_deregister() {
    extern "C-unwind" fn raises() {
        resume_unwind(KillReason::Requested);
    }
    let stop = core::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // A range at addresses that were another's a moment ago.
                    let (image, length) = image();
                    let registration = register(&image, length).unwrap();
                    let r = catch_unwind_with_arg(|()| call_through(&image, raises), ());
                    assert!(matches!(r, Err(KillReason::Requested)));
                    drop(registration);
                }
            });
        }
        let (image, length) = image();
        let _registration = register(&image, length).unwrap();
        let drops = AtomicUsize::new(0);
        for round in 1..=2000 {
            let raised = catch_unwind_with_arg(|()| descend(10, &drops, &|| call_through(&image, raises)), ());
            assert!(matches!(raised, Err(KillReason::Requested)));
            assert_eq!(drops.load(Ordering::Relaxed), round * 11);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn rows_of_a_registration_that_is_gone_are_forgotten() {
    let (image, length) = image();
    let registration = register(&image, length).unwrap();
    let inside = image.start_address().value() + 6;
    let context = Context::at(inside, 0x1000, 0x2000, false, Asker::Exception);
    assert_eq!(context.facts().unwrap().function, image.start_address().value());
    assert!(compact::cached(context.lookup_pc()).is_some());
    drop(registration);
    assert!(compact::cached(context.lookup_pc()).is_none());
    assert_eq!(context.facts().unwrap_err(), Stop::End);
}

#[test]
fn an_exception_that_nobody_handles_is_refused_before_anything_runs() {
    // On a thread whose outermost frames have no handler.
    unsafe extern "C" fn on_thread(drops: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: the test's counter.
        let drops = unsafe { &*drops.cast::<AtomicUsize>() };
        let _counted = CountsDrops(drops);
        let mut exception = UnwindException::new(1);
        // SAFETY: lives until the call returns, which it does.
        let code = unsafe { abi::raise_exception(&raw mut exception) };
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        code as usize as *mut libc::c_void
    }
    let drops = AtomicUsize::new(0);
    let mut result = core::ptr::null_mut();
    // SAFETY: a plain thread with a valid argument, joined before the argument goes.
    unsafe {
        let mut thread = core::mem::zeroed();
        let argument = (&raw const drops).cast_mut().cast();
        let body: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void =
            core::mem::transmute(on_thread as unsafe extern "C" fn(*mut libc::c_void) -> *mut libc::c_void);
        assert_eq!(libc::pthread_create(&raw mut thread, core::ptr::null(), body, argument), 0);
        libc::pthread_join(thread, &raw mut result);
    }
    // `extern "C"` functions of Rust do handle it: by ending the process. Nobody asks them here in phase 1.
    assert!([reason::END_OF_STACK, reason::FATAL_PHASE1_ERROR].contains(&(result as usize as i32)));
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[test]
fn code_that_is_linked_in_uses_this_unwinder_and_libraries_do_not_see_it() {
    unsafe extern "C-unwind" {
        fn _Unwind_Resume(exception: *mut UnwindException) -> !;
    }
    let linked = _Unwind_Resume as *const () as usize;
    let own = |p: usize| crate::hosted::unwind::own_image().is_some_and(|i| i.text.contains(&p));
    assert!(own(linked));
    // SAFETY: the name is terminated.
    let others = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_Unwind_Resume".as_ptr()) } as usize;
    assert!(others != 0 && !own(others));
}
