//! The process around the unwinder: where its images are, and the other unwinders in it.
//!
//! Code that is linked into this executable or library uses the unwinder of this crate (`crate::unwind`), panics of std
//! included. Shared libraries use libgcc's; for them every registration is made known there too, so that an exception of C++ or
//! the cancellation of a thread crosses the frames of cells.

use crate::unwind::{Asker, Image, ReasonCode, Record, UnwindError, UnwindPort};
use alloc::boxed::Box;
use core::any::Any;
use core::ffi::{c_int, c_void};
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::panic::AssertUnwindSafe;

#[link(name = "gcc_s")]
unsafe extern "C" {
    /// Makes a whole `.eh_frame` section known, up to a zero length word (libgcc, `unwind-dw2-fde.c`). `object` is libgcc's
    /// until it is deregistered.
    fn __register_frame_info(eh_frame: *const u8, object: *mut GccObject);
    /// Undoes `__register_frame_info` for the same address; returns its object.
    fn __deregister_frame_info(eh_frame: *const u8) -> *mut GccObject;
    /// The FDE of a function that somebody registered, or that the loader knows; takes a lock.
    fn _Unwind_Find_FDE(pc: usize, bases: *mut GccBases) -> *const u8;
}

/// Room for libgcc's `struct object`: six words; its own start files reserve as much.
type GccObject = [usize; 8];

/// What `register` allocates.
#[repr(C)]
struct Known {
    object: GccObject,
    summary: Summary,
}

/// An `.eh_frame` with one record for a whole text that keeps frame pointers: right at every call, which is where libgcc meets such
/// code. libgcc walks a section when it first looks for an address, and from GCC 13 on when it is deregistered, without looking
/// where it ends; what stands in a cell's own pages, where it can be damaged, is not for it. (Format: LSB 5.0 Core, 10.6.)
#[repr(C)]
struct Summary {
    cie_length: u32,
    cie_id: u32,
    /// Version 1, no augmentation, code 1, data -8, return address 16; CFA = rbp + 16, return address at CFA - 8, rbp at CFA - 16.
    cie: [u8; 16],
    fde_length: u32,
    fde_cie: u32,
    start: usize,
    length: usize,
    end: u32,
}

impl Summary {
    fn new(text: &Range<usize>) -> Summary {
        const CIE: usize = core::mem::offset_of!(Summary, fde_length);
        const FDE: usize = core::mem::offset_of!(Summary, end) - CIE;
        Summary {
            cie_length: CIE as u32 - 4,
            cie_id: 0,
            cie: [1, 0, 1, 0x78, 16, 0x0c, 6, 16, 0x90, 1, 0x86, 2, 0, 0, 0, 0],
            fde_length: FDE as u32 - 4,
            fde_cie: CIE as u32 + 4,
            start: text.start,
            length: text.len(),
            end: 0,
        }
    }
}

/// `struct dwarf_eh_bases`.
#[repr(C)]
struct GccBases {
    text: usize,
    data: usize,
    function: usize,
}

/// The hosted unwind port.
#[derive(Debug)]
pub struct HostedUnwinder;

// SAFETY: libgcc only reads what is registered with it. Its `_Unwind_Find_FDE` consults every registered section, for every frame
// of every thread.
unsafe impl UnwindPort for HostedUnwinder {
    unsafe fn register(
        &self,
        text: Range<usize>,
        eh_frame: Range<usize>,
        frame_pointers: bool,
    ) -> Result<u64, UnwindError> {
        let known = Known { object: [0; 8], summary: Summary::new(&text) };
        let known = Box::into_raw(crate::heap::try_box(known).ok_or(UnwindError::OutOfMemory)?);
        // SAFETY: just made. The caller keeps the section mapped until `deregister`, and it ends with a zero word. The object
        // lives until libgcc gives it back.
        unsafe {
            let section =
                if frame_pointers { (&raw const (*known).summary).cast() } else { eh_frame.start as *const u8 };
            __register_frame_info(section, known.cast());
            Ok(section as u64)
        }
    }

    unsafe fn deregister(&self, handle: u64) {
        // SAFETY: the handle is the address given to `__register_frame_info`, deregistered once.
        let object = unsafe { __deregister_frame_info(handle as usize as *const u8) };
        if !object.is_null() {
            // SAFETY: the object of `register`, which is the first field of what was allocated.
            drop(unsafe { Box::from_raw(object.cast::<Known>()) });
        }
    }

    unsafe fn catch(&self, f: unsafe extern "C-unwind" fn(*mut u8), data: *mut u8) -> Result<(), Box<dyn Any + Send>> {
        // SAFETY: the caller says that `f` may be called with `data`.
        std::panic::catch_unwind(AssertUnwindSafe(|| unsafe { f(data) }))
    }

    fn resume(&self, payload: Box<dyn Any + Send>) -> ! {
        std::panic::resume_unwind(payload)
    }
}

/// Calls `f`; the payload of a panic that leaves it is the error.
#[inline(always)]
pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    std::panic::catch_unwind(AssertUnwindSafe(f))
}

/// Unwinding cannot go on, and the frames below are gone.
#[cold]
pub(crate) fn lost(code: ReasonCode) -> ! {
    std::eprintln!("fatal: unwinding cannot go on (reason {code}): damaged unwind info");
    std::process::abort()
}

/// The image that this code is part of.
pub(crate) fn own_image() -> Option<Image> {
    // Exception handlers cannot look this up.
    let _ = find_object(Asker::Task);
    image_at(own_image as *const () as usize)
}

/// Calls `f` with the record for code of another image, or of somebody who registered with libgcc.
pub(crate) fn with_foreign_record<R>(pc: usize, asker: Asker, f: impl FnOnce(&Record<'_>) -> R) -> Option<R> {
    let image = match find_object(asker) {
        Some(find) => loaded_object(find, pc),
        None if asker == Asker::Task => image_at(pc),
        None => None,
    };
    match image {
        Some(image) => image.record(pc).map(|r| f(&r)),
        None if asker == Asker::Task => with_libgcc_record(pc, f),
        None => None,
    }
}

/// `struct dl_find_object` (glibc 2.35).
#[repr(C)]
struct FoundObject {
    flags: u64,
    map_start: usize,
    map_end: usize,
    link_map: usize,
    eh_frame: usize,
    reserved: [u64; 7],
}

/// glibc's lock-free look-up of loaded objects; may be called by signal handlers.
type FindObject = unsafe extern "C" fn(*mut c_void, *mut FoundObject) -> c_int;

/// Address of `_dl_find_object`; [`UNKNOWN`] before somebody asked, [`MISSING`] where the C library has none.
static FIND_OBJECT: AtomicUsize = AtomicUsize::new(UNKNOWN);
const UNKNOWN: usize = 0;
const MISSING: usize = 1;

/// `_dl_find_object`, where the C library has it.
fn find_object(asker: Asker) -> Option<FindObject> {
    let mut address = FIND_OBJECT.load(Ordering::Relaxed);
    // Looking the name up takes the loader's lock.
    if address == UNKNOWN && asker == Asker::Task {
        // SAFETY: the name is terminated.
        address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) as usize }.max(MISSING);
        FIND_OBJECT.store(address, Ordering::Relaxed);
    }
    // SAFETY: the function of this name has this type (dlfcn.h).
    (address > MISSING).then(|| unsafe { core::mem::transmute::<usize, FindObject>(address) })
}

fn loaded_object(find: FindObject, pc: usize) -> Option<Image> {
    let mut found = FoundObject { flags: 0, map_start: 0, map_end: 0, link_map: 0, eh_frame: 0, reserved: [0; 7] };
    // SAFETY: the function fills the record or returns an error.
    let code = unsafe { find(pc as *mut c_void, &raw mut found) };
    if code != 0 || found.eh_frame == 0 {
        return None;
    }
    let range = found.map_start..found.map_end;
    Some(Image { text: range.clone(), eh_frame_hdr: found.eh_frame, readable: range })
}

/// The loaded image with code at this address. Takes the loader's lock.
fn image_at(pc: usize) -> Option<Image> {
    struct Search {
        pc: usize,
        found: Option<Image>,
    }

    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
        // SAFETY: the loader passes a valid description of one file, whose headers are mapped while this runs; `data` is
        // the search below.
        let (info, search) = unsafe { (&*info, &mut *data.cast::<Search>()) };
        // SAFETY: as above.
        let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let base = info.dlpi_addr as usize;
        let range = |h: &libc::Elf64_Phdr| {
            let start = base.wrapping_add(h.p_vaddr as usize);
            start..start.wrapping_add(h.p_memsz as usize)
        };
        let mut loaded = headers.iter().filter(|h| h.p_type == libc::PT_LOAD).map(range);
        let Some(text) = loaded.clone().find(|r| r.contains(&search.pc)) else { return 0 };
        let hdr = headers.iter().find(|h| h.p_type == libc::PT_GNU_EH_FRAME).map(|h| range(h).start);
        search.found = hdr.and_then(|hdr| {
            let readable = loaded.find(|r| r.contains(&hdr))?;
            Some(Image { text, eh_frame_hdr: hdr, readable })
        });
        1
    }

    let mut search = Search { pc, found: None };
    // SAFETY: the callback matches its data.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found
}

/// Calls `f` with a record that somebody registered with libgcc: another JIT compiler in this process.
#[cold]
fn with_libgcc_record<R>(pc: usize, f: impl FnOnce(&Record<'_>) -> R) -> Option<R> {
    let mut bases = GccBases { text: 0, data: 0, function: 0 };
    // SAFETY: fills `bases`; takes an address behind the start of the function.
    let fde = unsafe { _Unwind_Find_FDE(pc, &raw mut bases) };
    if fde.is_null() {
        return None;
    }
    // SAFETY: a record of a registered section: its length, and the distance to its CIE, which is a record too.
    let (start, end) = unsafe {
        let word = |at: *const u8| at.cast::<u32>().read_unaligned() as usize;
        let end = fde.add(4 + word(fde));
        let cie = fde.add(4).wrapping_sub(word(fde.add(4)));
        (cie.min(fde), end.max(cie.add(4 + word(cie))))
    };
    // SAFETY: as above; both records lie in one section.
    let bytes = unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) };
    let record = Record::at(bytes, start as usize, fde as usize - start as usize)?;
    record.covers(pc).then(|| f(&record))
}
