//! The pages that the stable entries of a native cell lie in (D6, docs/CELL_ABI.md).
//!
//! They belong to the cell's name and outlive its versions, so they are no part of a version's image: a page of code that
//! is never writable while executable, and behind it the version word and the table in which every function is absent.

use crate::entries::{EntryPlace, write_entry};
use crate::entry_labels::{EntryLabel, EntryLabels, EntryName};
use crate::types_registry::TypeShares;
use crate::version_table;
use alloc::{sync::Arc, vec::Vec};
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

/// Entries and their version word.
#[derive(Debug)]
pub(crate) struct EntryPages {
    code: MappedPages,
    words: MappedPages,
    count: usize,
    labels: Arc<EntryLabels>,
    /// Keeps the type ids what they are.
    _types: TypeShares,
}

impl EntryPages {
    /// Makes entries; what they lead to is a version table's matter. `low`: where 32 bits reach them, if the port has such addresses.
    pub(crate) fn new(requests: &[EntryRequest], types: TypeShares, low: bool) -> Result<EntryPages, MemoryError> {
        let count = requests.len();
        let too_many = || MemoryError::OutOfAddressSpace(count.saturating_mul(ENTRY_SIZE));
        let code_size = count.checked_mul(ENTRY_SIZE).and_then(round_up_to_page).ok_or_else(too_many)?;
        let word_size =
            (count + version_table::HEADER + 1).checked_mul(8).and_then(round_up_to_page).ok_or_else(too_many)?;
        let writable = PteFlags::VALID | PteFlags::WRITABLE;
        let size = code_size + word_size;
        let in_reach = low.then(|| AllocatedPages::reserve_low(size)).and_then(Result::ok);
        let pages = in_reach.map_or_else(|| AllocatedPages::reserve_for_code(size), Ok)?;
        let (first, rest) = pages.split(code_size).map_err(|(e, _)| e)?;
        let mut code = MappedPages::map(first, writable)?;
        let words = MappedPages::map(rest, writable)?;
        let bytes = code.as_slice_mut::<u8>(0, code_size)?;
        bytes.fill(0xcc);
        for (k, (request, entry)) in requests.iter().zip(bytes.chunks_exact_mut(ENTRY_SIZE)).enumerate() {
            let distance = code_size - (k * ENTRY_SIZE + ENTRY_CODE_OFFSET) - 7;
            write_entry(entry, request.id.map_or(0, |id| id.0), distance as i32, k as u32);
        }
        code.remap(PteFlags::VALID | PteFlags::EXECUTABLE)?;
        let label = |(name, ty): &Label| EntryLabel { name: EntryName::Export(name.clone()), ty: *ty };
        let labels: Vec<_> = requests.iter().map(|r| r.label.as_ref().map(label)).collect();
        let labels = EntryLabels::new(labels, []);
        Ok(EntryPages { code, words, count, labels, _types: types })
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// What they stand for.
    pub(crate) fn labels(&self) -> &Arc<EntryLabels> {
        &self.labels
    }

    /// Where entries, version word and the table of absent functions lie.
    pub(crate) fn place(&self) -> EntryPlace {
        let (first, version_word) = (self.code.start_address().value(), self.words.start_address().value());
        EntryPlace { first, version_word, gone_table: version_word + 8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::{EntryBlock, target_of};
    use crate::version_table::{Commit, VersionTable, VersionTables};
    use std::vec;

    #[test]
    fn an_entry_has_its_type_id_before_it_and_follows_the_version_word() {
        let request = |name: &str, id| EntryRequest { label: Some((name.into(), TypeHash([0; 16]))), id };
        let requests = [request("a", None), request("b", Some(TypeId(0x1234)))];
        let pages = EntryPages::new(&requests, TypeShares::default(), false).unwrap();
        let block = EntryBlock::of_native("native".into(), pages, false);
        let entry = block.entry(1).unwrap();
        assert_eq!(block.entry(2), None);
        // SAFETY: the entry's code and the id before it are mapped.
        assert_eq!(unsafe { *((entry - 4) as *const u32) }, 0x1234);
        // SAFETY: as above.
        let target = || unsafe { target_of(entry) };
        assert_eq!(target(), Some(block.absent(1)));
        let version = VersionTable::new(&block, |k| Some(0x1111 * (k + 1)));
        let tables = VersionTables::new(vec![version]);
        Commit::new([(&[block.clone()][..], Some(&tables))]).show();
        assert_eq!(target(), Some(0x2222));
        block.retire();
        assert_eq!(target(), Some(block.absent(1)));
    }
}
