//! Frame for frame against libgcc, on real stacks, and both unwinders on each other's objects.

use super::super::context::{Context, Saved};
use super::super::finder::Asker;
use super::super::two_phase::{TraceFunction, reason};
use super::super::*;
use super::{CALLS_ARGUMENT, CountsDrops, call_through, descend, image, register};
use crate::memory::{ImageMapping, PteFlags};
use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};
use kernel_config::memory::PAGE_SIZE;
use std::vec::Vec;

/// A function of libgcc itself, not ours of the same name.
fn libgcc(name: &CStr) -> *mut c_void {
    // SAFETY: plain calls with terminated names.
    unsafe {
        let library = libc::dlopen(c"libgcc_s.so.1".as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null());
        let address = libc::dlsym(library, name.as_ptr());
        assert!(!address.is_null(), "{name:?}");
        address
    }
}

/// libgcc's accessors.
#[derive(Clone, Copy)]
struct Accessors {
    ip: unsafe extern "C" fn(*mut c_void) -> usize,
    cfa: unsafe extern "C" fn(*mut c_void) -> usize,
    register: unsafe extern "C" fn(*mut c_void, c_int) -> usize,
    set_register: unsafe extern "C" fn(*mut c_void, c_int, usize),
    set_ip: unsafe extern "C" fn(*mut c_void, usize),
    lsda: unsafe extern "C" fn(*mut c_void) -> usize,
    start: unsafe extern "C" fn(*mut c_void) -> usize,
    ip_info: unsafe extern "C" fn(*mut c_void, *mut c_int) -> usize,
}

impl Accessors {
    fn of_libgcc() -> Accessors {
        // SAFETY: the functions of these names have these types.
        unsafe {
            use core::mem::transmute as t;
            Accessors {
                ip: t::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> usize>(libgcc(c"_Unwind_GetIP")),
                cfa: t::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> usize>(libgcc(c"_Unwind_GetCFA")),
                register: t::<*mut c_void, unsafe extern "C" fn(*mut c_void, c_int) -> usize>(libgcc(c"_Unwind_GetGR")),
                set_register: t::<*mut c_void, unsafe extern "C" fn(*mut c_void, c_int, usize)>(libgcc(
                    c"_Unwind_SetGR",
                )),
                set_ip: t::<*mut c_void, unsafe extern "C" fn(*mut c_void, usize)>(libgcc(c"_Unwind_SetIP")),
                lsda: t::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> usize>(libgcc(
                    c"_Unwind_GetLanguageSpecificData",
                )),
                start: t::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> usize>(libgcc(c"_Unwind_GetRegionStart")),
                ip_info: t::<*mut c_void, unsafe extern "C" fn(*mut c_void, *mut c_int) -> usize>(libgcc(
                    c"_Unwind_GetIPInfo",
                )),
            }
        }
    }

    fn of_ours() -> Accessors {
        unsafe extern "C" {
            fn _Unwind_GetIP(context: *mut c_void) -> usize;
            fn _Unwind_GetCFA(context: *mut c_void) -> usize;
            fn _Unwind_GetGR(context: *mut c_void, i: c_int) -> usize;
            fn _Unwind_SetGR(context: *mut c_void, i: c_int, value: usize);
            fn _Unwind_SetIP(context: *mut c_void, value: usize);
            fn _Unwind_GetLanguageSpecificData(context: *mut c_void) -> usize;
            fn _Unwind_GetRegionStart(context: *mut c_void) -> usize;
            fn _Unwind_GetIPInfo(context: *mut c_void, before: *mut c_int) -> usize;
        }
        Accessors {
            ip: _Unwind_GetIP,
            cfa: _Unwind_GetCFA,
            register: _Unwind_GetGR,
            set_register: _Unwind_SetGR,
            set_ip: _Unwind_SetIP,
            lsda: _Unwind_GetLanguageSpecificData,
            start: _Unwind_GetRegionStart,
            ip_info: _Unwind_GetIPInfo,
        }
    }
}

/// Callee-saved registers, by DWARF number. The stack pointer is what the CFA says; libgcc keeps no other record of it.
const REGISTERS: [c_int; 6] = [3, 6, 12, 13, 14, 15];

/// What an unwinder says about a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FrameOf {
    ip: usize,
    before: c_int,
    cfa: usize,
    start: usize,
    lsda: usize,
    registers: [usize; REGISTERS.len()],
}

struct Trace {
    accessors: Accessors,
    frames: Vec<FrameOf>,
}

unsafe extern "C" fn note(context: *mut Context, trace: *mut c_void) -> i32 {
    // SAFETY: the trace below; a context of the unwinder whose accessors these are, or one of equal layout.
    unsafe {
        let trace = &mut *trace.cast::<Trace>();
        let (a, c) = (trace.accessors, context.cast::<c_void>());
        let mut before = 0;
        let ip = (a.ip_info)(c, &raw mut before);
        assert_eq!(ip, (a.ip)(c));
        let registers = REGISTERS.map(|r| (a.register)(c, r));
        let frame = FrameOf { ip, before, cfa: (a.cfa)(c), start: (a.start)(c), lsda: (a.lsda)(c), registers };
        trace.frames.push(frame);
    }
    reason::NO_REASON
}

type Backtrace = unsafe extern "C-unwind" fn(TraceFunction, *mut c_void) -> i32;

unsafe extern "C-unwind" {
    #[link_name = "_Unwind_Backtrace"]
    fn our_backtrace(trace: TraceFunction, argument: *mut c_void) -> i32;
}

/// The frames that one unwinder finds, read by the accessors of one.
#[inline(never)]
fn frames(backtrace: Backtrace, accessors: Accessors) -> Vec<FrameOf> {
    let mut trace = Trace { accessors, frames: Vec::with_capacity(256) };
    // SAFETY: `note` takes a trace.
    unsafe { backtrace(note, (&raw mut trace).cast()) };
    trace.frames
}

/// Takes the stack with both unwinders, and with each other's accessors, and compares.
#[inline(never)]
fn compare() -> usize {
    // SAFETY: the function of this name has this type.
    let theirs: Backtrace = unsafe { core::mem::transmute(libgcc(c"_Unwind_Backtrace")) };
    let ways = [
        (theirs, Accessors::of_libgcc()),
        (our_backtrace as Backtrace, Accessors::of_ours()),
        (our_backtrace as Backtrace, Accessors::of_libgcc()),
        (theirs, Accessors::of_ours()),
    ];
    let mut all = ways.map(|(backtrace, accessors)| frames(backtrace, accessors));
    for frames in &mut all {
        // `frames` itself, and this function, whose calls of it are different places.
        frames.drain(..2);
        // libgcc shows the caller that the outermost frame does not have.
        frames.retain(|f| f.ip != 0);
    }
    let [libgcc, others @ ..] = &all;
    // Optimised code has fewer frames of its own.
    assert!(libgcc.len() > if cfg!(debug_assertions) { 5 } else { 2 });
    for ours in others {
        for (i, (a, b)) in libgcc.iter().zip(ours).enumerate() {
            assert_eq!(a, b, "frame {i}");
        }
        assert_eq!(libgcc.len(), ours.len());
    }
    libgcc.len()
}

#[test]
fn frames_are_those_that_libgcc_finds() {
    compare();
}

#[test]
fn frames_of_deep_stacks_and_of_other_threads_are_those_that_libgcc_finds() {
    let drops = AtomicUsize::new(0);
    let deep = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        descend(60, &drops, &|| {
            assert!(compare() > 60);
            std::panic::resume_unwind(Box::new(()));
        })
    }));
    assert!(deep.is_err());
    assert_eq!(drops.load(Ordering::Relaxed), 61);
    std::thread::spawn(compare).join().unwrap();
}

#[test]
fn frames_of_registered_code_are_those_that_libgcc_finds() {
    extern "C-unwind" fn inside() {
        compare();
    }
    let (image, length) = image();
    let _registration = register(&image, length).unwrap();
    call_through(&image, inside);
}

/// Registers the image's code as such that keeps frame pointers.
fn register_with_frame_pointers(image: &Arc<ImageMapping>, length: usize) -> UnwindRegistration {
    let start = image.start_address().value();
    let (text, section) = (start..start + CALLS_ARGUMENT.len(), start + PAGE_SIZE..start + PAGE_SIZE + length);
    let bytes = &image.shared_bytes()[PAGE_SIZE..PAGE_SIZE + length];
    let table = Arc::new(UnwindTable::new(bytes, text.len(), PAGE_SIZE).unwrap());
    // SAFETY: mapped as long as the image, of which the registration has a share; the code is `CALLS_ARGUMENT`.
    unsafe { UnwindRegistration::with_frame_pointers(text, section, &table, image.clone()).unwrap() }
}

#[test]
fn frames_of_code_with_frame_pointers_are_those_that_libgcc_finds() {
    extern "C-unwind" fn inside() {
        compare();
    }
    let (image, length) = image();
    let _registration = register_with_frame_pointers(&image, length);
    call_through(&image, inside);
}

#[test]
fn no_unwinder_minds_that_mapped_unwind_info_is_damaged() {
    extern "C-unwind" fn inside() {
        compare();
        std::panic::resume_unwind(Box::new(7u8));
    }
    for byte in [0, 0x55, 0xff] {
        let (image, length) = image();
        let registration = register_with_frame_pointers(&image, length);
        let section = image.start_address().value() + PAGE_SIZE;
        let memory = crate::platform().memory();
        // SAFETY: a page of the image that nobody executes.
        unsafe {
            memory.protect(section, PAGE_SIZE, PteFlags::VALID | PteFlags::WRITABLE).unwrap();
            core::ptr::write_bytes(section as *mut u8, byte, length);
            memory.protect(section, PAGE_SIZE, PteFlags::VALID).unwrap();
        }
        let drops = AtomicUsize::new(0);
        let result = catch_unwind_with_arg(
            |image| {
                let _outside = CountsDrops(&drops);
                call_through(image, inside);
            },
            &*image,
        );
        assert!(matches!(result, Err(KillReason::Panic(p)) if p.is::<u8>()));
        assert_eq!(drops.load(Ordering::SeqCst), 1);
        drop(registration);
    }
}

#[test]
fn frames_through_the_c_library_are_those_that_libgcc_finds() {
    unsafe extern "C" fn less(_: *const c_void, _: *const c_void) -> c_int {
        compare();
        0
    }
    let mut items = [2u32, 1];
    // SAFETY: two items of four bytes.
    unsafe { libc::qsort(items.as_mut_ptr().cast(), 2, 4, Some(less)) };
}

#[test]
fn frames_through_a_signal_handler_are_those_that_libgcc_finds() {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handler(_: c_int) {
        SEEN.store(compare(), Ordering::SeqCst);
    }
    // SAFETY: the signal is raised here and nowhere else; the handler calls what may be called from a synchronous signal.
    unsafe {
        let old = libc::signal(libc::SIGUSR2, handler as *const () as usize);
        libc::raise(libc::SIGUSR2);
        libc::signal(libc::SIGUSR2, old);
    }
    assert!(SEEN.load(Ordering::SeqCst) > 5);
}

#[test]
fn the_accessors_of_libgcc_set_registers_of_our_contexts() {
    let saved = Saved { rbx: 1, rbp: 2, r12: 3, r13: 4, r14: 5, r15: 6, rsp: 7, rip: 8 };
    for a in [Accessors::of_libgcc(), Accessors::of_ours()] {
        let mut context = Context::new(&saved, Asker::Task);
        let c = (&raw mut context).cast::<c_void>();
        // SAFETY: a live context.
        unsafe {
            (a.set_register)(c, 0, 0x1111);
            (a.set_register)(c, 1, 0x2222);
            (a.set_ip)(c, 0x3333);
            assert_eq!(((a.register)(c, 0), (a.register)(c, 1), (a.ip)(c)), (0x1111, 0x2222, 0x3333));
        }
        assert_eq!((context.register(0), context.register(1), context.pc()), (0x1111, 0x2222, 0x3333));
    }
}

/// A thread that libgcc ends by forced unwinding: it asks Rust's personality routine, which uses our accessors, and Rust's
/// landing pads go on with our `_Unwind_Resume`, which calls the C library's stop function with our context.
#[test]
fn a_thread_that_exits_in_the_c_way_runs_destructors() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    extern "C-unwind" fn body(_: *mut c_void) -> *mut c_void {
        let _outer = CountsDrops(&DROPS);
        leave(20);
        core::ptr::null_mut()
    }
    #[inline(never)]
    fn leave(depth: usize) {
        unsafe extern "C-unwind" {
            fn pthread_exit(value: *mut c_void) -> !;
        }
        let _inner = CountsDrops(&DROPS);
        if depth == 0 {
            // SAFETY: unwinds the thread.
            unsafe { pthread_exit(7 as *mut c_void) }
        }
        leave(depth - 1);
        core::hint::black_box(depth);
    }
    let mut result = core::ptr::null_mut();
    // SAFETY: a plain thread, which is joined.
    unsafe {
        let mut thread = core::mem::zeroed();
        let start: extern "C" fn(*mut c_void) -> *mut c_void =
            core::mem::transmute(body as extern "C-unwind" fn(*mut c_void) -> *mut c_void);
        assert_eq!(libc::pthread_create(&raw mut thread, core::ptr::null(), start, core::ptr::null_mut()), 0);
        libc::pthread_join(thread, &raw mut result);
    }
    assert_eq!(result as usize, 7);
    assert_eq!(DROPS.load(Ordering::SeqCst), 22);
}
