//! Unwinding without an operating system, on crate `unwinding`.
//!
//! That crate walks and runs the frames. This file tells it where unwind info is (the base image's `.eh_frame_hdr`, and
//! for cells a table sorted by address that is read without a lock), and provides what `std` has on top: catching,
//! with a landing pad and personality of its own, and raising with a payload.

use super::{fatal, lock::InterruptLock};
use crate::unwind::{UnwindError, UnwindPort};
use alloc::{alloc::alloc, boxed::Box, vec::Vec};
use core::{
    alloc::Layout,
    any::Any,
    ops::Range,
    ptr::null_mut,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
};
use gimli::{BaseAddresses, CieOrFde, EhFrame, EndianSlice, LittleEndian, UnwindSection};
use unwinding::{
    abi::{
        _Unwind_RaiseException, _Unwind_SetGR, _Unwind_SetIP, UnwindAction, UnwindContext, UnwindException,
        UnwindReasonCode,
    },
    custom_eh_frame_finder::{EhFrameFinder, FrameInfo, FrameInfoKind, set_custom_eh_frame_finder},
};

/// Where the base image keeps its code and unwind info.
#[derive(Debug, Clone, Copy)]
pub struct ImageUnwindInfo {
    /// Code addresses.
    pub text: (usize, usize),
    /// Address of the section `.eh_frame_hdr` (`ld --eh-frame-hdr`).
    pub eh_frame_hdr: usize,
}

/// Makes panics in the base image unwind. The first call wins.
///
/// # Safety
/// The info must be true for ever.
pub unsafe fn init(image: ImageUnwindInfo) {
    IMAGE.call_once(|| image);
    // An error means that it was set before, which is as good.
    let _ = set_custom_eh_frame_finder(&Finder);
}

static IMAGE: spin::Once<ImageUnwindInfo> = spin::Once::new();

/// One registered text range.
#[derive(Clone, Copy)]
struct Registered {
    text: (usize, usize),
    /// Address of the table made by [`search_table`].
    table: usize,
}

/// The registered ranges, sorted by address. Never changed after it is published.
struct Snapshot(Vec<Registered>);

/// What readers see. Readers announce themselves in `READERS` before they load it.
static CURRENT: AtomicPtr<Snapshot> = AtomicPtr::new(null_mut());
static READERS: AtomicUsize = AtomicUsize::new(0);

/// What only registering and deregistering touch.
struct Registry {
    /// Snapshots and search tables out of use that a reader may still hold.
    retired: Vec<Retired>,
}

enum Retired {
    Snapshot(#[expect(dead_code, reason = "kept for its drop")] Box<Snapshot>),
    Table(#[expect(dead_code, reason = "kept for its drop")] Box<[u64]>),
}

static REGISTRY: InterruptLock<Registry> = InterruptLock::new(Registry { retired: Vec::new() });

struct Finder;

// SAFETY: the base image's info is true by `init`, a cell's by `UnwindPort::register`.
unsafe impl EhFrameFinder for Finder {
    fn find(&self, pc: usize) -> Option<FrameInfo> {
        if let Some(image) = IMAGE.get()
            && (image.text.0..image.text.1).contains(&pc)
        {
            return Some(FrameInfo {
                text_base: Some(image.text.0),
                kind: FrameInfoKind::EhFrameHdr(image.eh_frame_hdr),
            });
        }
        let found = lookup(pc)?;
        Some(FrameInfo { text_base: Some(found.text.0), kind: FrameInfoKind::EhFrameHdr(found.table + HEADER_OFFSET) })
    }
}

/// The registered range that holds `pc`. Lock-free.
fn lookup(pc: usize) -> Option<Registered> {
    READERS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: a published snapshot is freed only after `READERS` was seen at zero when it was no longer published.
    let found = unsafe { CURRENT.load(Ordering::SeqCst).as_ref() }.and_then(|snapshot| {
        let index = snapshot.0.partition_point(|r| r.text.1 <= pc);
        snapshot.0.get(index).filter(|r| r.text.0 <= pc).copied()
    });
    READERS.fetch_sub(1, Ordering::SeqCst);
    found
}

impl Registry {
    /// Publishes the present ranges as `change` makes them.
    fn publish(
        &mut self,
        change: impl FnOnce(&mut Vec<Registered>) -> Result<(), UnwindError>,
    ) -> Result<(), UnwindError> {
        // SAFETY: only the holder of the registry's lock, which is us, replaces the snapshot.
        let present = unsafe { CURRENT.load(Ordering::SeqCst).as_ref() }.map_or(&[][..], |s| &s.0);
        let mut next = Vec::new();
        next.try_reserve_exact(present.len() + 1).map_err(|_| UnwindError::OutOfMemory)?;
        self.retired.try_reserve(2).map_err(|_| UnwindError::OutOfMemory)?;
        next.extend_from_slice(present);
        change(&mut next)?;
        let next = try_box(Snapshot(next)).ok_or(UnwindError::OutOfMemory)?;
        let old = CURRENT.swap(Box::into_raw(next), Ordering::SeqCst);
        if !old.is_null() {
            // SAFETY: it came from `Box::into_raw` above and is not published any more.
            self.retired.push(Retired::Snapshot(unsafe { Box::from_raw(old) }));
        }
        Ok(())
    }

    /// Frees what no reader can hold.
    fn reclaim(&mut self) {
        if READERS.load(Ordering::SeqCst) == 0 {
            self.retired.clear();
        }
    }
}

/// `Box::new` that reports a failed allocation.
fn try_box<T>(value: T) -> Option<Box<T>> {
    const { assert!(size_of::<T>() > 0) };
    // SAFETY: the layout's size is not zero.
    let place = unsafe { alloc(Layout::new::<T>()) }.cast::<T>();
    // SAFETY: a fresh allocation with Box's layout, written before it becomes a box.
    (!place.is_null()).then(|| unsafe {
        place.write(value);
        Box::from_raw(place)
    })
}

/// The port's unwinder.
#[derive(Debug)]
pub struct BareUnwinder;

// SAFETY: `register` publishes the ranges to the one finder that the unwinder asks.
unsafe impl UnwindPort for BareUnwinder {
    unsafe fn register(&self, text: Range<usize>, eh_frame: Range<usize>) -> Result<u64, UnwindError> {
        // SAFETY: by the caller.
        let table = unsafe { search_table(eh_frame) }?;
        let entry = Registered { text: (text.start, text.end), table: table.as_ptr() as usize };
        let mut registry = REGISTRY.lock();
        registry.publish(|ranges| {
            let index = ranges.partition_point(|r| r.text.1 <= text.start);
            match ranges.get(index) {
                Some(next) if next.text.0 < text.end => Err(UnwindError::Overlap),
                _ => {
                    ranges.insert(index, entry);
                    Ok(())
                }
            }
        })?;
        registry.reclaim();
        Ok(Box::into_raw(table).cast::<u64>() as u64)
    }

    unsafe fn deregister(&self, handle: u64) {
        let mut registry = REGISTRY.lock();
        let address = handle as usize;
        // Without memory for the smaller table the registration stays: its text is unmapped next, so no stack frame
        // refers to it, but a later registration of the same addresses is refused.
        let removed = registry.publish(|ranges| {
            ranges.retain(|r| r.table != address);
            Ok(())
        });
        if removed.is_ok() {
            // SAFETY: the table was made by `search_table`, leaked in `register`, and its length stands in it.
            let table = unsafe {
                let words = address as *mut u64;
                Box::from_raw(core::ptr::slice_from_raw_parts_mut(words, HEADER_WORDS + 2 * *words.add(2) as usize))
            };
            registry.retired.push(Retired::Table(table));
        }
        registry.reclaim();
    }

    unsafe fn catch(&self, f: unsafe extern "C-unwind" fn(*mut u8), data: *mut u8) -> Result<(), Box<dyn Any + Send>> {
        // SAFETY: by the caller.
        let exception = unsafe { planks_catch(f, data) };
        match exception.is_null() {
            true => Ok(()),
            // SAFETY: our personality only hands out exceptions that `resume` made.
            false => Err(unsafe { PortException::take(exception) }),
        }
    }

    fn resume(&self, payload: Box<dyn Any + Send>) -> ! {
        let exception = PortException::allocate(payload);
        // SAFETY: a well-formed exception object that lives until it is caught.
        let code = unsafe { _Unwind_RaiseException(exception) };
        fatal(format_args!("unwinding found no one to catch it (reason {})", code.0))
    }
}

/// Words before the entries of a search table.
const HEADER_WORDS: usize = 3;

/// Where the header proper starts: its four encoding bytes are followed at once by an 8-byte word.
const HEADER_OFFSET: usize = 4;

/// Makes a binary search table in the format of `.eh_frame_hdr` (Linux Standard Base, 10.6.2) with 64-bit absolute
/// addresses, so that finding a frame in a large cell does not walk its whole `.eh_frame`.
///
/// # Safety
/// The range is readable and stays so while the table is used.
unsafe fn search_table(eh_frame: Range<usize>) -> Result<Box<[u64]>, UnwindError> {
    // SAFETY: by the caller.
    let bytes = unsafe { core::slice::from_raw_parts(eh_frame.start as *const u8, eh_frame.len()) };
    let section = EhFrame::new(bytes, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(eh_frame.start as u64);
    let mut fdes: Vec<(u64, u64)> = Vec::new();
    let mut entries = section.entries(&bases);
    let malformed = |at: usize| UnwindError::Malformed(at);
    if !bytes.ends_with(&[0; 4]) {
        return Err(malformed(bytes.len()));
    }
    let mut last = 0;
    while let Some(entry) = entries.next().map_err(|_| malformed(last))? {
        if let CieOrFde::Fde(partial) = entry {
            last = partial.offset();
            let fde = partial
                .parse(|s: &EhFrame<EndianSlice<'_, LittleEndian>>, b, o| s.cie_from_offset(b, o))
                .map_err(|_| malformed(last))?;
            fdes.try_reserve(1).map_err(|_| UnwindError::OutOfMemory)?;
            fdes.push((fde.initial_address(), (eh_frame.start + fde.offset()) as u64));
        }
    }
    fdes.sort_unstable();
    let mut table = Vec::new();
    table.try_reserve_exact(HEADER_WORDS + 2 * fdes.len()).map_err(|_| UnwindError::OutOfMemory)?;
    // Version 1; the pointer to .eh_frame, the count and the table are udata8 (0x04).
    table.extend([u64::from_le_bytes([0, 0, 0, 0, 1, 4, 4, 4]), eh_frame.start as u64, fdes.len() as u64]);
    table.extend(fdes.into_iter().flat_map(|(address, fde)| [address, fde]));
    Ok(table.into_boxed_slice())
}

/// Marks the exceptions of this port ("PLANKS" and a version).
const CLASS: u64 = u64::from_be_bytes(*b"PLANKS\0\x01");

/// An exception in flight, with its payload.
#[repr(C)]
struct PortException {
    header: UnwindException,
    payload: Option<Box<dyn Any + Send>>,
}

/// Used for one exception at a time when the heap is exhausted, so that an allocation failure unwinds too.
static EMERGENCY: EmergencySlot = EmergencySlot {
    taken: AtomicBool::new(false),
    slot: core::cell::UnsafeCell::new(core::mem::MaybeUninit::uninit()),
};

struct EmergencySlot {
    taken: AtomicBool,
    slot: core::cell::UnsafeCell<core::mem::MaybeUninit<PortException>>,
}

// SAFETY: the slot belongs to whoever set `taken`.
unsafe impl Sync for EmergencySlot {}

impl PortException {
    fn allocate(payload: Box<dyn Any + Send>) -> *mut UnwindException {
        // SAFETY: the layout's size is not zero.
        let mut place = unsafe { alloc(Layout::new::<Self>()) }.cast::<Self>();
        if place.is_null() {
            if EMERGENCY.taken.swap(true, Ordering::Acquire) {
                fatal(format_args!("out of memory while unwinding from an allocation failure"));
            }
            place = EMERGENCY.slot.get().cast();
        }
        // SAFETY: `place` is ours; zero is a valid header (integers, and `None` for the function pointers).
        unsafe {
            let mut header: UnwindException = core::mem::zeroed();
            header.exception_class = CLASS;
            place.write(Self { header, payload: Some(payload) });
        }
        place.cast()
    }

    /// Takes the payload out of a caught exception and frees it.
    ///
    /// # Safety
    /// `exception` came from `allocate` and is used no more.
    unsafe fn take(exception: *mut UnwindException) -> Box<dyn Any + Send> {
        let place = exception.cast::<Self>();
        // SAFETY: by the caller.
        let payload = unsafe { (*place).payload.take() };
        if place == EMERGENCY.slot.get().cast() {
            EMERGENCY.taken.store(false, Ordering::Release);
        } else {
            // SAFETY: `allocate` made it with this layout, which is Box's.
            drop(unsafe { Box::from_raw(place) });
        }
        payload.unwrap_or_else(|| Box::new("exception without payload"))
    }
}

unsafe extern "C-unwind" {
    /// Calls `f(data)`. Returns null, or the exception that left it.
    fn planks_catch(f: unsafe extern "C-unwind" fn(*mut u8), data: *mut u8) -> *mut UnwindException;
    /// Where `planks_catch` goes on after an exception, which is in `rax`.
    safe fn planks_catch_landing();
}

// The frame saves nothing but rbp: all other callee-saved registers are restored by the unwinder to what they were at
// the call, which is what the caller had.
core::arch::global_asm!(
    ".section .text.planks_catch, \"ax\", @progbits",
    ".globl planks_catch",
    ".globl planks_catch_landing",
    ".type planks_catch, @function",
    "planks_catch:",
    ".cfi_startproc",
    ".cfi_personality 0x1b, {personality}",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "mov rax, rdi",
    "mov rdi, rsi",
    "call rax",
    "xor eax, eax",
    "planks_catch_landing:",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".size planks_catch, . - planks_catch",
    ".text",
    personality = sym catch_personality,
);

/// Personality routine of `planks_catch`: it catches every exception of this port.
unsafe extern "C" fn catch_personality(
    version: i32,
    actions: UnwindAction,
    class: u64,
    exception: *mut UnwindException,
    context: &mut UnwindContext<'_>,
) -> UnwindReasonCode {
    if version != 1 || class != CLASS {
        return UnwindReasonCode::CONTINUE_UNWIND;
    }
    if actions.contains(UnwindAction::SEARCH_PHASE) {
        return UnwindReasonCode::HANDLER_FOUND;
    }
    if !actions.contains(UnwindAction::HANDLER_FRAME) {
        return UnwindReasonCode::CONTINUE_UNWIND;
    }
    /// Number of `rax` in DWARF (System V psABI, figure 3.36).
    const RAX: i32 = 0;
    _Unwind_SetGR(context, RAX, exception as usize);
    _Unwind_SetIP(context, planks_catch_landing as *const () as usize);
    UnwindReasonCode::INSTALL_CONTEXT
}
