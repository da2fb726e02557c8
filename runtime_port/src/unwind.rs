//! The unwinder: one for native code and cells, on every port.
//!
//! | file | noun |
//! | --- | --- |
//! | `registration` | unwind info in force, a guard |
//! | `finder` | which unwind info an address has: base image, registrations, other images |
//! | `table` | a checked section, and a copy of it for when it has been damaged |
//! | `eh_frame`, `reader` | records and sections, read within their bounds; sums that tell later damage |
//! | `program`, `expression` | from a record to the row at an instruction |
//! | `compact` | rows in one cache line, and the cache of them |
//! | `context` | a frame, and the step to its caller |
//! | `two_phase`, `abi` | raising exceptions, and the symbols of the interface (Itanium C++ ABI) |
//! | `personality` | what Rust functions do when an exception passes, where std does not bring it |
//! | `catch` | catching and resuming, for Rust |
//!
//! Nothing between raising and catching allocates or takes a lock that interrupted code may hold. A warm frame costs some tens of
//! nanoseconds; a frame whose row is not cached is found by binary search and decoded.
//!
//! Names and meaning of registering and catching are Theseus's (`external_unwind_info`, `catch_unwind`), with its defects
//! mended: a registration is a guard that owns a share of the pages it describes, ranges are checked for overlap, panics keep
//! message and place.

#[cfg(any(feature = "hosted", feature = "bare_metal"))]
mod abi;
mod catch;
mod compact;
mod context;
mod eh_frame;
mod expression;
mod finder;
#[cfg(any(feature = "hosted", feature = "bare_metal"))]
mod personality;
mod program;
mod reader;
mod registration;
mod table;
#[cfg(test)]
#[cfg(feature = "hosted")]
mod tests;
#[cfg(any(feature = "hosted", feature = "bare_metal"))]
mod two_phase;

pub use catch::{Catcher, catch_unwind_with_arg, resume_unwind};
pub use context::{Context, INTEGER_REGISTERS, Stop};
pub use finder::{Asker, Image, is_registered, set_base_image};
pub use registration::{UnwindRegistration, register_unwind_info, registrations};
pub use table::UnwindTable;
#[cfg(any(feature = "hosted", feature = "bare_metal"))]
pub use {
    abi::{is_clear, raise_exception},
    personality::rust_personality,
    two_phase::{ReasonCode, UnwindException, action, reason},
};
#[cfg(feature = "bare_metal")]
pub(crate) use {finder::covers, two_phase::finds_handler};

#[cfg(feature = "hosted")]
pub(crate) use eh_frame::Record;

use alloc::{boxed::Box, string::String, sync::Arc};
use core::any::Any;

/// Why a task or a call was stopped (Theseus: `task_struct::KillReason`).
#[derive(Debug)]
#[non_exhaustive]
pub enum KillReason {
    /// Someone asked for it.
    Requested,
    /// A panic, with its payload.
    Panic(Box<dyn Any + Send>),
    /// A CPU exception of this vector number.
    Exception(u8),
}

impl KillReason {
    /// The panic's message, if it has one.
    pub fn message(&self) -> Option<&str> {
        match self {
            KillReason::Panic(p) if crate::heap::is_exhaustion(&**p) => Some("out of memory"),
            KillReason::Panic(p) => {
                p.downcast_ref::<&'static str>().copied().or_else(|| p.downcast_ref::<String>().map(String::as_str))
            }
            _ => None,
        }
    }
}

/// Why unwind info could not be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnwindError {
    /// The text range overlaps one that is registered.
    #[error("unwind info for an overlapping text range is registered already")]
    Overlap,
    /// The unwind info is malformed or not terminated.
    #[error("malformed unwind info at offset {0:#x}")]
    Malformed(usize),
    /// No memory for the registration.
    #[error("out of memory for an unwind registration")]
    OutOfMemory,
}

/// What a port's unwinder does.
///
/// # Safety
/// `register` must leave both ranges as they are, and must not rely on them after `deregister`.
pub unsafe trait UnwindPort: Sync {
    /// Makes other unwinders in the system find this `.eh_frame` (terminated by four zero bytes) for this text. Returns the port's
    /// handle. `frame_pointers`: the code keeps frame pointers throughout, so `.eh_frame` need not be read.
    ///
    /// # Safety
    /// Both ranges must stay mapped until `deregister`; the `.eh_frame` must describe the text truthfully.
    unsafe fn register(
        &self,
        text: core::ops::Range<usize>,
        eh_frame: core::ops::Range<usize>,
        frame_pointers: bool,
    ) -> Result<u64, UnwindError>;

    /// Undoes `register`.
    ///
    /// # Safety
    /// `handle` came from `register` and is not used again; no frame of the text is on any stack.
    unsafe fn deregister(&self, handle: u64);

    /// Calls `f(data)`; a panic that leaves it is caught and returned.
    ///
    /// # Safety
    /// `f` must be safe to call with `data`.
    unsafe fn catch(&self, f: unsafe extern "C-unwind" fn(*mut u8), data: *mut u8) -> Result<(), Box<dyn Any + Send>>;

    /// Whether the unwinder knows a function with this return address. Takes no lock that interrupted code may hold. By default the
    /// finder of this crate answers; a port with an unwinder of its own answers itself.
    fn covers(&self, pc: usize) -> bool {
        finder::covers(pc.wrapping_sub(1))
    }

    /// Whether unwinding from here would get as far as this stack address. By default the unwinder of this crate answers; a port
    /// with one of its own answers itself.
    fn is_clear(&self, up_to: usize) -> bool {
        #[cfg(any(feature = "hosted", feature = "bare_metal"))]
        return abi::is_clear(up_to);
        #[cfg(not(any(feature = "hosted", feature = "bare_metal")))]
        {
            let _ = up_to;
            true
        }
    }

    /// Starts or continues unwinding with this payload; does not run the panic hook.
    fn resume(&self, payload: Box<dyn Any + Send>) -> !;
}

/// Owner of something that must stay alive while unwind info refers to it.
pub type KeepAlive = Arc<dyn Any + Send + Sync>;
