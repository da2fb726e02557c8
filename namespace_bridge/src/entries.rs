//! Stable entries: the addresses of a cell's functions for everyone outside (D6, docs/CELL_ABI.md).
//!
//! An entry is 32 bytes: padding, the type id, `mov r11, [rip + version word]; jmp [r11 + 8k]`. Entries lie in the shared
//! frames of the module, beside its text, and the version word behind the data block at a fixed distance, so making the
//! entries of an instance writes no code. What an entry leads to is the version table's matter; the entry itself never
//! changes. When the function is gone, its target is a stub that traps.

use crate::call::gone_routine;
use crate::code::{CellModule, ModuleLayout};
use crate::image::CellImage;
use crate::native::EntryPages;
use alloc::{sync::Arc, vec, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use kernel_config::cell::{ENTRY_CODE_OFFSET, ENTRY_SIZE};
use wasm_cell::{metadata::Metadata, types::TypeId};

/// The code of a module's entries.
pub(crate) fn code(m: &Metadata, layout: ModuleLayout) -> Vec<u8> {
    let mut bytes = vec![0xcc; layout.entries * ENTRY_SIZE];
    for (k, (func, entry)) in m.escaped_funcs.iter().zip(bytes.chunks_exact_mut(ENTRY_SIZE)).enumerate() {
        let id = m.func_type_id(*func).map_or(0, |id| id.0);
        let code = layout.first_entry + k * ENTRY_SIZE + ENTRY_CODE_OFFSET;
        let distance = (layout.version_word - code - 7) as i32;
        write_entry(entry, id, distance, 8 * k as i32);
    }
    bytes
}

/// Writes entry code: `distance` from behind the first instruction to the version word, `target` in the version table.
pub(crate) fn write_entry(entry: &mut [u8], id: u32, distance: i32, target: i32) {
    let at = ENTRY_CODE_OFFSET;
    entry[at - 4..at].copy_from_slice(&id.to_le_bytes());
    // mov r11, [rip + distance]
    entry[at..at + 3].copy_from_slice(&[0x4c, 0x8b, 0x1d]);
    entry[at + 3..at + 7].copy_from_slice(&distance.to_le_bytes());
    // jmp [r11 + target]
    entry[at + 7..at + 10].copy_from_slice(&[0x41, 0xff, 0xa3]);
    entry[at + 10..at + 14].copy_from_slice(&target.to_le_bytes());
}

/// Where the entry at this address leads now; `None` if there is no entry.
///
/// # Safety
/// `address` must be code with at least 16 readable bytes.
pub(crate) unsafe fn target_of(address: usize) -> Option<usize> {
    // SAFETY: the caller's promise.
    let code = unsafe { *(address as *const [u8; 14]) };
    let [0x4c, 0x8b, 0x1d, a, b, c, d, 0x41, 0xff, 0xa3, e, f, g, h] = code else { return None };
    let word = address.wrapping_add(7).wrapping_add_signed(i32::from_le_bytes([a, b, c, d]) as isize);
    // SAFETY: these instructions are an entry's, which load a version word and jump to a target of its table.
    let target = unsafe {
        let table = (*(word as *const AtomicUsize)).load(Ordering::Acquire);
        let target = table.wrapping_add_signed(i32::from_le_bytes([e, f, g, h]) as isize);
        (*(target as *const AtomicUsize)).load(Ordering::Acquire)
    };
    Some(target)
}

/// The code of a stub that jumps to an address and has a type id before it, as an entry has.
pub(crate) fn stub_to(address: usize, id: TypeId) -> [u8; ENTRY_SIZE] {
    let mut stub = [0xcc; ENTRY_SIZE];
    let at = ENTRY_CODE_OFFSET;
    stub[at - 4..at].copy_from_slice(&id.0.to_le_bytes());
    // mov r11, address; jmp r11
    stub[at..at + 2].copy_from_slice(&[0x49, 0xbb]);
    stub[at + 2..at + 10].copy_from_slice(&address.to_le_bytes());
    stub[at + 10..at + 13].copy_from_slice(&[0x41, 0xff, 0xe3]);
    stub
}

/// Stable entries that lie together, with the word that says which version stands behind them.
#[derive(Debug)]
pub struct EntryBlock {
    place: Place,
    /// Whether addresses of entries may be held where no dependency edge shows it.
    escaped: AtomicBool,
    gone: AtomicBool,
}

/// Where entries lie.
#[derive(Debug)]
enum Place {
    /// In the image of a wasm cell.
    Image(Arc<CellImage>, Arc<CellModule>),
    /// In pages of their own: those of a native cell.
    Pages(EntryPages),
}

impl EntryBlock {
    /// The entries of a fresh image. They lead to a trap until they are set.
    pub(crate) fn new(image: Arc<CellImage>, module: Arc<CellModule>) -> Arc<EntryBlock> {
        let escaped = module.funcrefs_can_escape();
        EntryBlock::at(Place::Image(image, module), escaped)
    }

    #[cfg_attr(not(test), expect(dead_code, reason = "the loader of native cells makes them"))]
    /// The entries of a native cell, which can have passed them on anywhere. They lead to a trap until they are set.
    pub(crate) fn of_native(pages: EntryPages) -> Arc<EntryBlock> {
        EntryBlock::at(Place::Pages(pages), true)
    }

    fn at(place: Place, escaped: bool) -> Arc<EntryBlock> {
        let block = EntryBlock { place, escaped: AtomicBool::new(escaped), gone: AtomicBool::new(false) };
        let nowhere = gone_routine();
        (0..block.count()).for_each(|k| block.set_target(k, nowhere));
        block.version_word().store(block.version_table(), Ordering::Release);
        Arc::new(block)
    }

    /// Number of entries.
    pub fn count(&self) -> usize {
        match &self.place {
            Place::Image(_, module) => module.layout().entries,
            Place::Pages(pages) => pages.count(),
        }
    }

    /// The module whose functions they stand for; `None` for those of a native cell.
    pub fn module(&self) -> Option<&Arc<CellModule>> {
        match &self.place {
            Place::Image(_, module) => Some(module),
            Place::Pages(_) => None,
        }
    }

    /// The image they lie in; `None` for those of a native cell.
    pub fn image(&self) -> Option<&Arc<CellImage>> {
        match &self.place {
            Place::Image(image, _) => Some(image),
            Place::Pages(_) => None,
        }
    }

    /// The pages they lie in; `None` for those of a wasm cell.
    pub(crate) fn pages(&self) -> Option<&EntryPages> {
        match &self.place {
            Place::Image(..) => None,
            Place::Pages(pages) => Some(pages),
        }
    }

    /// Address of entry `k`.
    pub fn entry(&self, k: usize) -> Option<usize> {
        match &self.place {
            Place::Image(image, _) => image.entry(k),
            Place::Pages(pages) => pages.entry(k),
        }
    }

    /// Makes entry `k` lead to `target`.
    pub(crate) fn set_target(&self, k: usize, target: usize) {
        match &self.place {
            Place::Image(image, _) => image.set_target(k, target),
            Place::Pages(pages) => pages.set_target(k, target),
        }
    }

    fn version_word(&self) -> &AtomicUsize {
        match &self.place {
            Place::Image(image, _) => image.version_word(),
            Place::Pages(pages) => pages.version_word(),
        }
    }

    /// The block's own version table.
    fn version_table(&self) -> usize {
        match &self.place {
            Place::Image(image, _) => image.version_table(),
            Place::Pages(pages) => pages.version_table(),
        }
    }

    /// Notes that entries may be held where no dependency edge shows it: the block outlives its cell.
    pub(crate) fn mark_escaped(self: &Arc<Self>) {
        if self.escaped.swap(true, Ordering::SeqCst) {
            return;
        }
        // The cell may have ended before it could see this.
        if self.gone.load(Ordering::SeqCst) {
            crate::namespace::keep_for_ever(self.clone());
        }
    }

    /// Whether entries may be held where no dependency edge shows it.
    pub fn has_escaped(&self) -> bool {
        self.escaped.load(Ordering::SeqCst)
    }

    /// Makes every entry lead to a trap.
    pub(crate) fn retire(&self) {
        let nowhere = gone_routine();
        self.gone.store(true, Ordering::SeqCst);
        (0..self.count()).for_each(|k| self.set_target(k, nowhere));
        self.version_word().store(self.version_table(), Ordering::Release);
    }

    /// Notes that there are functions behind the entries again, by the image's own version table.
    pub(crate) fn reopen(&self) {
        self.gone.store(false, Ordering::Release);
        self.version_word().store(self.version_table(), Ordering::Release);
    }

    /// Lets the entries lead where another version table says: one of at least [`count`](EntryBlock::count) targets that stays.
    pub(crate) fn redirect(&self, table: usize) {
        self.version_word().store(table, Ordering::Release);
    }

    /// Whether the functions behind the entries are gone.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_is_type_id_then_jump_through_the_version_table() {
        let mut entry = [0xcc; ENTRY_SIZE];
        write_entry(&mut entry, 0x1234_5678, 0x1000, 24);
        assert_eq!(&entry[12..16], &[0x78, 0x56, 0x34, 0x12]);
        assert_eq!(&entry[16..23], &[0x4c, 0x8b, 0x1d, 0, 0x10, 0, 0]);
        assert_eq!(&entry[23..30], &[0x41, 0xff, 0xa3, 24, 0, 0, 0]);
    }
}
