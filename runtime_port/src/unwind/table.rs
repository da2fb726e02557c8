//! A section that was checked: which record describes an address, and what the records were then.
//!
//! An [`UnwindTable`] is made before a section is used. It says nothing about addresses, only about distances, so all images
//! with the same code share one. It holds a copy of the section: when the mapped one has been damaged, which the records' sums
//! show, the copy's record is used; when the table has been, the copy is searched record by record.
#![deny(unsafe_code)]

use super::UnwindError;
use super::eh_frame::{Record, TableEntry, index, sum_of_many};
use super::reader::Reader;
use alloc::vec::Vec;
use core::ops::Range;

/// The records of an `.eh_frame` section, by address, with a copy of them.
pub struct UnwindTable {
    entries: Vec<TableEntry>,
    copy: Vec<u8>,
    /// Of the copy.
    copy_sum: u32,
    /// Of the entries.
    entries_sum: u32,
    /// Bytes of code that it describes.
    text_length: usize,
    /// From the start of the text to the section.
    distance: usize,
}

/// Where the text of a section that is mapped nowhere is taken to be: an address that no program has.
const NOWHERE: usize = 1 << 62;

impl UnwindTable {
    /// Checks a section (its last record is followed by four zero bytes) that will lie `distance` bytes behind the start of a
    /// text of `text_length` bytes, wherever that is: its pointers to code count from where they are.
    ///
    /// # Errors
    /// A record is malformed, or describes code outside of the text; no memory.
    pub fn new(section: &[u8], text_length: usize, distance: usize) -> Result<UnwindTable, UnwindError> {
        if text_length >= NOWHERE || distance >= NOWHERE {
            return Err(UnwindError::Malformed(0));
        }
        UnwindTable::of_mapped(section, NOWHERE + distance, &(NOWHERE..NOWHERE + text_length))
    }

    /// Checks a section that is mapped at `address`.
    pub(super) fn of_mapped(section: &[u8], address: usize, text: &Range<usize>) -> Result<UnwindTable, UnwindError> {
        let entries = index(section, address, text)?;
        let mut copy = Vec::new();
        copy.try_reserve_exact(section.len()).map_err(|_| UnwindError::OutOfMemory)?;
        copy.extend_from_slice(section);
        Ok(UnwindTable {
            copy_sum: sum_of_many(&copy),
            entries_sum: sum_of_entries(&entries),
            entries,
            copy,
            text_length: text.len(),
            distance: address.wrapping_sub(text.start),
        })
    }

    /// Whether it is what it was when it was made.
    pub fn is_intact(&self) -> bool {
        sum_of_many(&self.copy) == self.copy_sum && sum_of_entries(&self.entries) == self.entries_sum
    }

    /// Addresses of the copy and of the table, for who wants to see what damage does.
    pub fn places(&self) -> [Range<usize>; 2] {
        let range = |r: Range<*const u8>| r.start as usize..r.end as usize;
        let entries = self.entries.as_ptr_range();
        [range(self.copy.as_ptr_range()), range(entries.start.cast()..entries.end.cast())]
    }

    /// Whether it was made for a section of this place.
    pub(super) fn fits(&self, text: &Range<usize>, section: &Range<usize>) -> bool {
        self.text_length == text.len()
            && self.copy.len() == section.len()
            && section.start.wrapping_sub(text.start) == self.distance
    }

    /// The record that describes `pc`: of the section as it is mapped, if that is what it was, else of the copy. `None` without one,
    /// or when nothing that tells is what it was.
    #[inline]
    pub(super) fn record<'a>(&'a self, mapped: &'a [u8], text_start: usize, pc: usize) -> Option<Record<'a>> {
        self.lookup(mapped, text_start, pc).or_else(|| self.record_of_copy(text_start, pc))
    }

    /// The record of these bytes, if they are what they were.
    fn lookup<'a>(&self, bytes: &'a [u8], text_start: usize, pc: usize) -> Option<Record<'a>> {
        let offset = pc.checked_sub(text_start)?;
        let i = self.entries.partition_point(|e| e.function as usize <= offset).checked_sub(1)?;
        let entry = self.entries.get(i)?;
        let section = Reader::new(bytes, text_start.wrapping_add(self.distance), 0);
        let record = Record::parse(section, entry.fde as usize, 0)?;
        (record.covers(pc) && record.sum(section) == entry.sum).then_some(record)
    }

    #[cold]
    fn record_of_copy(&self, text_start: usize, pc: usize) -> Option<Record<'_>> {
        if let Some(record) = self.lookup(&self.copy, text_start, pc) {
            return Some(record);
        }
        if sum_of_entries(&self.entries) == self.entries_sum || sum_of_many(&self.copy) != self.copy_sum {
            return None;
        }
        let section = Reader::new(&self.copy, text_start.wrapping_add(self.distance), 0);
        let mut at = 0;
        loop {
            let mut r = Reader::at_offset(section, at);
            let length = r.u32().filter(|l| *l != 0)? as usize;
            if let Some(record) = Record::parse(section, at, 0).filter(|r| r.covers(pc)) {
                return Some(record);
            }
            at = r.at().checked_add(length)?;
        }
    }
}

fn sum_of_entries(entries: &[TableEntry]) -> u32 {
    let start = entries.len() as u64;
    entries.iter().fold(start, |hash, e| {
        let word = u64::from(e.function) << 32 | u64::from(e.fde);
        let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (hash ^ hash >> 32 ^ u64::from(e.sum)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ hash >> 32
    }) as u32
}

impl core::fmt::Debug for UnwindTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "UnwindTable({} records, {} bytes)", self.entries.len(), self.copy.len())
    }
}
