//! Panics without an operating system.
//!
//! The unwinder is this crate's own ([`crate::unwind`]); this file names the base image to it, and provides what `std` has on top:
//! catching, with a landing pad and personality of its own, and raising with a payload.

use super::fatal;
use crate::unwind::{
    Context, Image, ReasonCode, UnwindError, UnwindException, UnwindPort, action, raise_exception, reason,
    set_base_image,
};
use alloc::{alloc::alloc, boxed::Box};
use core::{
    alloc::Layout,
    any::Any,
    cell::UnsafeCell,
    mem::MaybeUninit,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

/// Where the base image keeps its code and unwind info.
#[derive(Debug, Clone, Copy)]
pub struct ImageUnwindInfo {
    /// Code addresses.
    pub text: (usize, usize),
    /// Address of the section `.eh_frame_hdr` (`ld --eh-frame-hdr`).
    pub eh_frame_hdr: usize,
    /// Read-only data of the image, which contains `.eh_frame_hdr` and `.eh_frame`.
    pub rodata: (usize, usize),
}

/// Makes panics in the base image unwind. The first call wins.
///
/// # Safety
/// The info must be true for ever.
pub unsafe fn init(image: ImageUnwindInfo) {
    let range = |(start, end): (usize, usize)| start..end;
    let image = Image { text: range(image.text), eh_frame_hdr: image.eh_frame_hdr, readable: range(image.rodata) };
    // SAFETY: by the caller.
    unsafe { set_base_image(image) };
}

/// The port's unwinder.
#[derive(Debug)]
pub struct BareUnwinder;

// SAFETY: the unwinder looks into the registrations itself; there is no other in the kernel.
unsafe impl UnwindPort for BareUnwinder {
    unsafe fn register(&self, _: Range<usize>, _: Range<usize>, _: bool) -> Result<u64, UnwindError> {
        Ok(0)
    }

    unsafe fn deregister(&self, _handle: u64) {}

    unsafe fn catch(&self, f: unsafe extern "C-unwind" fn(*mut u8), data: *mut u8) -> Result<(), Box<dyn Any + Send>> {
        // SAFETY: by the caller.
        let exception = unsafe { planks_catch(f, data) };
        match exception.is_null() {
            true => Ok(()),
            false => {
                // What was called is gone, so whatever it needed the last of the stack for.
                super::task::close_overflow_reserve();
                // SAFETY: our personality only hands out exceptions that `resume` made.
                Err(unsafe { PortException::take(exception) })
            }
        }
    }

    fn resume(&self, payload: Box<dyn Any + Send>) -> ! {
        let exception = PortException::allocate(payload);
        // SAFETY: a well-formed exception object that lives until it is caught.
        let code = unsafe { raise_exception(exception) };
        // SAFETY: it was not raised.
        let payload = unsafe { PortException::take(exception) };
        if crate::heap::is_exhaustion(&*payload) {
            fatal(format_args!("out of memory, in code that cannot do without"));
        }
        fatal(format_args!("unwinding found no one to catch it (reason {code})"))
    }
}

/// Marks the exceptions of this port ("PLANKS" and a version).
pub(super) const CLASS: u64 = u64::from_be_bytes(*b"PLANKS\0\x01");

/// An exception in flight, with its payload.
#[repr(C)]
struct PortException {
    header: UnwindException,
    payload: Option<Box<dyn Any + Send>>,
}

/// Exceptions in flight while there is no memory for one: an allocation failure unwinds too, in several tasks at once and from
/// destructors that another one runs.
static EMERGENCY: EmergencySlots =
    EmergencySlots { taken: AtomicU64::new(0), slots: [const { UnsafeCell::new(MaybeUninit::uninit()) }; SLOTS] };

const SLOTS: usize = u64::BITS as usize;

struct EmergencySlots {
    /// A bit a slot.
    taken: AtomicU64,
    slots: [UnsafeCell<MaybeUninit<PortException>>; SLOTS],
}

// SAFETY: a slot belongs to whoever set its bit of `taken`.
unsafe impl Sync for EmergencySlots {}

impl EmergencySlots {
    fn take(&self) -> Option<*mut PortException> {
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            let i = taken.trailing_ones();
            let slot = self.slots.get(i as usize)?;
            match self.taken.compare_exchange_weak(taken, taken | 1 << i, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(slot.get().cast()),
                Err(now) => taken = now,
            }
        }
    }

    /// Frees a slot. `false`: it is none.
    fn give_back(&self, place: *mut PortException) -> bool {
        let offset = (place as usize).wrapping_sub(self.slots.as_ptr() as usize);
        if offset >= size_of_val(&self.slots) {
            return false;
        }
        let i = offset / size_of::<PortException>();
        self.taken.fetch_and(!(1 << i), Ordering::Release);
        true
    }
}

impl PortException {
    fn allocate(payload: Box<dyn Any + Send>) -> *mut UnwindException {
        // SAFETY: the layout's size is not zero.
        let mut place = unsafe { alloc(Layout::new::<Self>()) }.cast::<Self>();
        if place.is_null() {
            place = match EMERGENCY.take() {
                Some(slot) => slot,
                None => fatal(format_args!("out of memory while unwinding from {SLOTS} allocation failures")),
            };
        }
        // SAFETY: `place` is ours.
        unsafe { place.write(Self { header: UnwindException::new(CLASS), payload: Some(payload) }) };
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
        if !EMERGENCY.give_back(place) {
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
    actions: i32,
    class: u64,
    exception: *mut UnwindException,
    context: &mut Context,
) -> ReasonCode {
    if version != 1 || class != CLASS {
        return reason::CONTINUE_UNWIND;
    }
    if actions & action::SEARCH_PHASE != 0 {
        return reason::HANDLER_FOUND;
    }
    if actions & action::HANDLER_FRAME == 0 {
        return reason::CONTINUE_UNWIND;
    }
    context.land(planks_catch_landing as *const () as usize, exception as usize, 0);
    reason::INSTALL_CONTEXT
}
