//! Registration of unwind info as a guard object.

use super::{KeepAlive, UnwindError, eh_frame};
use crate::memory::ImageMapping;
use crate::platform::platform;
use alloc::{sync::Arc, vec::Vec};
use core::ops::Range;

/// Text ranges that are registered, sorted.
static REGISTERED: spin::Mutex<Vec<(usize, usize)>> = spin::Mutex::new(Vec::new());

/// Unwind info in force: frames of the text can be unwound while this lives.
///
/// It holds a share of the owner of text and unwind info, so neither can be unmapped under the unwinder.
#[must_use = "the unwind info is deregistered when this is dropped"]
pub struct UnwindRegistration {
    text: Range<usize>,
    handle: u64,
    _keep: KeepAlive,
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
        eh_frame::check(section, eh_frame.start, &text)?;
        claim(&text)?;
        // SAFETY: `keep` keeps both ranges until the registration is dropped; the section was checked.
        match unsafe { platform().unwinder().register(text.clone(), eh_frame) } {
            Ok(handle) => Ok(UnwindRegistration { text, handle, _keep: keep }),
            Err(e) => {
                disclaim(text.start);
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
        disclaim(self.text.start);
    }
}

impl core::fmt::Debug for UnwindRegistration {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "UnwindRegistration({:#x}..{:#x})", self.text.start, self.text.end)
    }
}

/// Number of registrations in force.
pub fn registrations() -> usize {
    REGISTERED.lock().len()
}

fn claim(text: &Range<usize>) -> Result<(), UnwindError> {
    let mut registered = REGISTERED.lock();
    let i = registered.partition_point(|r| r.0 < text.start);
    let overlaps_next = registered.get(i).is_some_and(|r| r.0 < text.end || r.0 == text.start);
    if overlaps_next || (i > 0 && registered[i - 1].1 > text.start) {
        return Err(UnwindError::Overlap);
    }
    registered.try_reserve(1).map_err(|_| UnwindError::OutOfMemory)?;
    registered.insert(i, (text.start, text.end));
    Ok(())
}

fn disclaim(start: usize) {
    let mut registered = REGISTERED.lock();
    if let Ok(i) = registered.binary_search_by_key(&start, |r| r.0) {
        registered.remove(i);
    }
}
