//! Finds the unwind info of an address: the one finder of the system.
//!
//! | code | its info | read by |
//! | --- | --- | --- |
//! | the base image (kernel, executable) | binary search table of `.eh_frame_hdr` | two comparisons, then the table |
//! | cells, adapters, whoever holds an [`UnwindRegistration`](super::UnwindRegistration) | its [`UnwindTable`] | a lock-free index |
//! | other images of a process | `.eh_frame_hdr`, found through the dynamic loader | its lock-free index, where it has one |
//! | what others registered with libgcc | libgcc's registry | a lock; never in exception context |

use super::KeepAlive;
use super::compact::{self, Validity};
use super::eh_frame::Record;
use super::reader::{Reader, encoding};
use super::table::UnwindTable;
use crate::range_index::RangeIndex;
use alloc::sync::Arc;
use core::ops::Range;

/// From where unwind info is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Asker {
    /// Ordinary code of a task.
    Task,
    /// An exception handler: nobody may be asked who takes a lock that the interrupted code may hold.
    Exception,
}

/// An ELF image with an `.eh_frame_hdr` (LSB 5.0 Core, 10.6.2).
#[derive(Debug, Clone)]
pub struct Image {
    /// Addresses of its code.
    pub text: Range<usize>,
    /// Address of `.eh_frame_hdr`.
    pub eh_frame_hdr: usize,
    /// Readable bytes around it that contain `.eh_frame` too.
    pub readable: Range<usize>,
}

/// Registered text.
pub(super) struct RegisteredText {
    pub text: Range<usize>,
    pub eh_frame: Range<usize>,
    pub table: Arc<UnwindTable>,
    /// Whether its code keeps frame pointers throughout.
    pub frame_pointers: bool,
    /// Keeps both mapped, for readers too that are still at it when the registration goes.
    pub _keep: KeepAlive,
}

pub(super) static REGISTERED: RangeIndex<RegisteredText> = RangeIndex::new();

static BASE: spin::Once<Image> = spin::Once::new();

/// Names the base image: the code that the unwinder itself is part of. The first call wins.
///
/// # Safety
/// All of it must be true for ever.
pub unsafe fn set_base_image(image: Image) {
    BASE.call_once(|| image);
}

/// Calls `f` with the record of the code at `pc` and says how long what it tells is valid.
pub(super) fn with_record<R>(pc: usize, asker: Asker, f: impl FnOnce(&Record<'_>, Option<Validity>) -> R) -> Option<R> {
    if let Some(base) = base_image(asker)
        && base.text.contains(&pc)
    {
        return base.record(pc).map(|r| f(&r, Some(Validity::Forever)));
    }
    let validity = Validity::Generation(compact::generation());
    {
        let reader = REGISTERED.read();
        if let Some(found) = reader.find(pc) {
            return found.value.record(pc).map(|r| f(&r, Some(validity)));
        }
    }
    #[cfg(feature = "hosted")]
    return crate::hosted::unwind::with_foreign_record(pc, asker, |r| f(r, None));
    #[cfg(not(feature = "hosted"))]
    None
}

/// Finds what exception handlers cannot look for: where the base image is.
pub(super) fn prepare() {
    base_image(Asker::Task);
}

/// Whether the address is in registered code that keeps frame pointers.
pub(super) fn keeps_frame_pointers(pc: usize) -> bool {
    REGISTERED.read().find(pc).is_some_and(|found| found.value.frame_pointers)
}

/// Whether the address is in text that an [`UnwindRegistration`](super::UnwindRegistration) describes: that of a cell or of an adapter. Lock-free.
pub fn is_registered(pc: usize) -> bool {
    REGISTERED.read().find(pc).is_some()
}

/// Whether there is unwind info for the address. True while nobody has said where the base image is.
pub(crate) fn covers(pc: usize) -> bool {
    base_image(Asker::Exception).is_none() || with_record(pc, Asker::Exception, |_, _| ()).is_some()
}

#[inline]
fn base_image(asker: Asker) -> Option<&'static Image> {
    match BASE.get() {
        Some(base) => Some(base),
        None => first_base_image(asker),
    }
}

#[cold]
fn first_base_image(asker: Asker) -> Option<&'static Image> {
    #[cfg(feature = "hosted")]
    if asker == Asker::Task {
        let image = crate::hosted::unwind::own_image()?;
        return Some(BASE.call_once(|| image));
    }
    let _ = asker;
    None
}

impl RegisteredText {
    fn record(&self, pc: usize) -> Option<Record<'_>> {
        // SAFETY: checked and kept mapped by the registration.
        let bytes = unsafe { core::slice::from_raw_parts(self.eh_frame.start as *const u8, self.eh_frame.len()) };
        self.table.record(bytes, self.text.start, pc)
    }
}

/// Encoding of the binary search table that linkers write: pairs of 4-byte offsets from the header.
const SORTED_TABLE: u8 = encoding::DATA_RELATIVE | 0x0b;

impl Image {
    /// The record that describes `pc`.
    pub(crate) fn record(&self, pc: usize) -> Option<Record<'_>> {
        // SAFETY: readable for as long as the image is loaded; `set_base_image` and the loader say so.
        let bytes = unsafe { core::slice::from_raw_parts(self.readable.start as *const u8, self.readable.len()) };
        let section = Reader::new(bytes, self.readable.start, 0);
        let mut r = Reader::at_offset(section, self.eh_frame_hdr.checked_sub(self.readable.start)?);
        let [version, eh_frame_encoding, count_encoding, table_encoding] = r.take()?;
        if version != 1 {
            return None;
        }
        let eh_frame = r.pointer(eh_frame_encoding, self.eh_frame_hdr)?;
        let record = if count_encoding == encoding::OMIT || table_encoding != SORTED_TABLE {
            self.scan(section, eh_frame, pc)?
        } else {
            let count = r.number(count_encoding)?;
            let fde = self.search(r.slice(count.checked_mul(8)?)?, pc)?;
            Record::parse(section, fde.checked_sub(self.readable.start)?, self.eh_frame_hdr)?
        };
        record.covers(pc).then_some(record)
    }

    /// Address of the FDE by the binary search table.
    fn search(&self, table: &[u8], pc: usize) -> Option<usize> {
        let (rows, _) = table.as_chunks::<8>();
        let address = |bytes: [u8; 4]| self.eh_frame_hdr.wrapping_add_signed(i32::from_le_bytes(bytes) as isize);
        let start = |row: &[u8; 8]| {
            let [a, b, c, d, ..] = *row;
            address([a, b, c, d])
        };
        let i = rows.partition_point(|row| start(row) <= pc).checked_sub(1)?;
        let [.., a, b, c, d] = *rows.get(i)?;
        Some(address([a, b, c, d]))
    }

    /// Without a table: one record after the other.
    fn scan<'a>(&self, section: Reader<'a>, eh_frame: usize, pc: usize) -> Option<Record<'a>> {
        let mut at = eh_frame.checked_sub(self.readable.start)?;
        loop {
            let mut r = Reader::at_offset(section, at);
            let length = r.u32().filter(|l| *l != 0)? as usize;
            let next = r.at().checked_add(length)?;
            if r.u32()? != 0
                && let Some(record) = Record::parse(section, at, self.eh_frame_hdr)
                && record.covers(pc)
            {
                return Some(record);
            }
            at = next;
        }
    }
}
