//! Registration of unwind info as a guard object.

use super::finder::{REGISTERED, RegisteredText};
use super::table::UnwindTable;
use super::{KeepAlive, UnwindError, compact, finder};
use crate::memory::ImageMapping;
use crate::platform::platform;
use crate::range_index::RangeIndexError;
use alloc::sync::Arc;
use core::ops::Range;

/// Unwind info in force: frames of the text can be unwound while this lives.
///
/// With it goes a share of the owner of text and unwind info, so neither can be unmapped under the unwinder.
#[must_use = "the unwind info is deregistered when this is dropped"]
pub struct UnwindRegistration {
    text: Range<usize>,
    handle: u64,
}

/// Registers the `.eh_frame` section of an image for its text (Theseus: `external_unwind_info::register_unwind_info`).
/// `eh_frame` are offsets in the image's text and rodata; its first `text_length` bytes are code.
pub fn register_unwind_info(
    image: &Arc<ImageMapping>,
    text_length: usize,
    eh_frame: Range<usize>,
) -> Result<UnwindRegistration, UnwindError> {
    let bytes = image.shared_bytes();
    if text_length > image.ranges().text || bytes.get(eh_frame.clone()).is_none() {
        return Err(UnwindError::Malformed(eh_frame.start));
    }
    let start = image.start_address().value();
    let section = start + eh_frame.start..start + eh_frame.end;
    // SAFETY: both ranges lie in the image's immutable part (checked), which the share of the image keeps mapped.
    unsafe { UnwindRegistration::new(start..start + text_length, section, image.clone()) }
}

impl UnwindRegistration {
    /// Registers an `.eh_frame` section (its last record is followed by four zero bytes) for a text range.
    ///
    /// # Safety
    /// Both ranges must be mapped and unchanged as long as `keep` lives.
    pub unsafe fn new(
        text: Range<usize>,
        eh_frame: Range<usize>,
        keep: KeepAlive,
    ) -> Result<UnwindRegistration, UnwindError> {
        // SAFETY: mapped and unchanged, says the caller.
        let section = unsafe { core::slice::from_raw_parts(eh_frame.start as *const u8, eh_frame.len()) };
        let table = Arc::new(UnwindTable::of_mapped(section, eh_frame.start, &text)?);
        // SAFETY: by the caller.
        unsafe { UnwindRegistration::make(text, eh_frame, table, keep, false) }
    }

    /// Registers a section that was checked before, for code that keeps frame pointers (`push rbp; mov rbp, rsp` first, at every
    /// call): its frames can be left even when nothing of the unwind info is to be had any more, which helps if the next native
    /// frame has saved all registers itself. The section is not read now.
    ///
    /// # Errors
    /// `Malformed` when the table was made for another place; as for [`new`](UnwindRegistration::new).
    ///
    /// # Safety
    /// As for [`new`](UnwindRegistration::new); the section is the table's, and the code keeps frame pointers.
    pub unsafe fn with_frame_pointers(
        text: Range<usize>,
        eh_frame: Range<usize>,
        table: &Arc<UnwindTable>,
        keep: KeepAlive,
    ) -> Result<UnwindRegistration, UnwindError> {
        if !table.fits(&text, &eh_frame) {
            return Err(UnwindError::Malformed(0));
        }
        // SAFETY: by the caller.
        unsafe { UnwindRegistration::make(text, eh_frame, table.clone(), keep, true) }
    }

    /// # Safety
    /// As for the constructors.
    unsafe fn make(
        text: Range<usize>,
        eh_frame: Range<usize>,
        table: Arc<UnwindTable>,
        keep: KeepAlive,
        frame_pointers: bool,
    ) -> Result<UnwindRegistration, UnwindError> {
        finder::prepare();
        let registered =
            RegisteredText { text: text.clone(), eh_frame: eh_frame.clone(), table, frame_pointers, _keep: keep };
        REGISTERED.insert(text.clone(), registered)?;
        // SAFETY: `keep` keeps both ranges until the registration is dropped; the section was checked.
        match unsafe { platform().unwinder().register(text.clone(), eh_frame, frame_pointers) } {
            Ok(handle) => Ok(UnwindRegistration { text, handle }),
            Err(e) => {
                REGISTERED.remove(text.start);
                Err(e)
            }
        }
    }

    /// The text this makes unwindable.
    pub fn text(&self) -> Range<usize> {
        self.text.clone()
    }
}

impl Drop for UnwindRegistration {
    fn drop(&mut self) {
        // SAFETY: the handle is this object's own, used once; whoever drops the registration knows that no frame of
        // the text is on a stack, as with any code that goes away.
        unsafe { platform().unwinder().deregister(self.handle) };
        REGISTERED.remove(self.text.start);
        compact::start_generation();
    }
}

impl core::fmt::Debug for UnwindRegistration {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "UnwindRegistration({:#x}..{:#x})", self.text.start, self.text.end)
    }
}

/// Number of registrations in force.
pub fn registrations() -> usize {
    REGISTERED.len()
}

impl From<RangeIndexError> for UnwindError {
    fn from(e: RangeIndexError) -> Self {
        match e {
            RangeIndexError::Overlap { .. } => UnwindError::Overlap,
            RangeIndexError::OutOfMemory => UnwindError::OutOfMemory,
        }
    }
}
