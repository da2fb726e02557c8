//! The pages that the stable entries of a native cell lie in (D6, docs/CELL_ABI.md).
//!
//! They belong to the cell's name and outlive its versions, so they are no part of a version's image: a page of code that
//! is never writable while executable, and behind it the version word and the first version table.

use crate::entries::write_entry;
use crate::types_registry::TypeShares;
use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::{AtomicUsize, Ordering};
use kernel_config::cell::{ENTRY_CODE_OFFSET, ENTRY_SIZE};
use runtime_port::memory::{AllocatedPages, MappedPages, MemoryError, PteFlags, round_up_to_page};
use wasm_cell::types::{TypeHash, TypeId};

/// What identifies a function across versions: its name, and its type (zero when nothing describes it: then the name alone,
/// which of a Rust function contains the compiler's hash).
pub(crate) type Label = (Arc<str>, TypeHash);

/// One entry to be made.
#[derive(Debug, Clone)]
pub(crate) struct EntryRequest {
    /// `None`: no later version can take the entry over.
    pub label: Option<Label>,
    /// The registered id of its type, if it has a description; function references to others fit no type.
    pub id: Option<TypeId>,
}

/// Entries, their version word and their first version table.
#[derive(Debug)]
pub(crate) struct EntryPages {
    code: MappedPages,
    words: MappedPages,
    count: usize,
    labels: Box<[Option<Label>]>,
    /// Keeps the type ids what they are.
    _types: TypeShares,
}

impl EntryPages {
    /// Makes entries; their targets are to be set before anybody learns their addresses.
    pub(crate) fn new(requests: &[EntryRequest], types: TypeShares) -> Result<EntryPages, MemoryError> {
        let count = requests.len();
        let too_many = || MemoryError::OutOfAddressSpace(count.saturating_mul(ENTRY_SIZE));
        let code_size = count.checked_mul(ENTRY_SIZE).and_then(round_up_to_page).ok_or_else(too_many)?;
        let word_size = (count + 1).checked_mul(8).and_then(round_up_to_page).ok_or_else(too_many)?;
        let writable = PteFlags::VALID | PteFlags::WRITABLE;
        let pages = AllocatedPages::reserve(code_size + word_size)?;
        let (low, high) = pages.split(code_size).map_err(|(e, _)| e)?;
        let mut code = MappedPages::map(low, writable)?;
        let words = MappedPages::map(high, writable)?;
        let bytes = code.as_slice_mut::<u8>(0, code_size)?;
        bytes.fill(0xcc);
        for (k, (request, entry)) in requests.iter().zip(bytes.chunks_exact_mut(ENTRY_SIZE)).enumerate() {
            let distance = code_size - (k * ENTRY_SIZE + ENTRY_CODE_OFFSET) - 7;
            write_entry(entry, request.id.map_or(0, |id| id.0), distance as i32, 8 * k as i32);
        }
        code.remap(PteFlags::VALID | PteFlags::EXECUTABLE)?;
        let labels = requests.iter().map(|r| r.label.clone()).collect();
        Ok(EntryPages { code, words, count, labels, _types: types })
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn labels(&self) -> &[Option<Label>] {
        &self.labels
    }

    /// Address of entry `k`, as a function.
    pub(crate) fn entry(&self, k: usize) -> Option<usize> {
        (k < self.count).then(|| self.code.start_address().value() + k * ENTRY_SIZE + ENTRY_CODE_OFFSET)
    }

    /// The version word.
    pub(crate) fn version_word(&self) -> &AtomicUsize {
        self.word(0)
    }

    /// Address of the version table that lies here.
    pub(crate) fn version_table(&self) -> usize {
        self.words.start_address().value() + 8
    }

    /// Sets a target in the version table that lies here.
    pub(crate) fn set_target(&self, k: usize, target: usize) {
        assert!(k < self.count, "there is an entry for every request");
        self.word(1 + k).store(target, Ordering::Release);
    }

    fn word(&self, index: usize) -> &AtomicUsize {
        // SAFETY: `1 + count` words are mapped writable while `self` lives, and are only used as atomics.
        unsafe { &*((self.words.start_address().value() + 8 * index) as *const AtomicUsize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::{EntryBlock, target_of};
    use std::vec;

    #[test]
    fn an_entry_has_its_type_id_before_it_and_follows_the_version_word() {
        let request = |name: &str, id| EntryRequest { label: Some((name.into(), TypeHash([0; 16]))), id };
        let requests = [request("a", None), request("b", Some(TypeId(0x1234)))];
        let block = EntryBlock::of_native(EntryPages::new(&requests, TypeShares::default()).unwrap());
        let entry = block.entry(1).unwrap();
        assert_eq!(block.entry(2), None);
        // SAFETY: the entry's code and the id before it are mapped.
        assert_eq!(unsafe { *((entry - 4) as *const u32) }, 0x1234);
        block.set_target(1, 0x5678);
        // SAFETY: as above.
        assert_eq!(unsafe { target_of(entry) }, Some(0x5678));
        let table = vec![0x1111usize, 0x2222];
        block.redirect(table.as_ptr() as usize);
        // SAFETY: as above.
        assert_eq!(unsafe { target_of(entry) }, Some(0x2222));
        block.reopen();
        // SAFETY: as above.
        assert_eq!(unsafe { target_of(entry) }, Some(0x5678));
    }
}
