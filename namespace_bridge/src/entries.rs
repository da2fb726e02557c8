//! Stable entries: the addresses of a cell's functions for everyone outside (D6, docs/CELL_ABI.md).
//!
//! An entry is 32 bytes: a stub for calls of what is not there, the type id, `mov r11, [rip + version word]; jmp [r11 + 8k]`. The
//! word points to a [version table](crate::version_table), which says what the entries of the block lead to; it alone
//! changes. For a wasm cell, entries lie in the shared frames of the module, beside its text, and the version word behind the
//! data block at a fixed distance, so making the entries of an instance writes no code.

use crate::call::raise;
use crate::code::{CellModule, ModuleLayout};
use crate::entry_labels::EntryLabels;
use crate::image::{CellImage, ImagePages};
use crate::native::EntryPages;
use crate::types_registry::TypeShares;
use crate::version_table;
use alloc::{boxed::Box, string::String, sync::Arc, vec, vec::Vec};
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use kernel_config::cell::{ENTRY_CODE_OFFSET, ENTRY_SIZE};
use wasm_cell::trap::TrapCode;
use wasm_cell::{metadata::Metadata, types::TypeId};

/// The code of a module's entries.
pub(crate) fn code(m: &Metadata, layout: ModuleLayout) -> Vec<u8> {
    let mut bytes = vec![0xcc; layout.entries * ENTRY_SIZE];
    for (k, (func, entry)) in m.escaped_funcs.iter().zip(bytes.chunks_exact_mut(ENTRY_SIZE)).enumerate() {
        let id = m.func_type_id(*func).map_or(0, |id| id.0);
        let code = layout.first_entry + k * ENTRY_SIZE + ENTRY_CODE_OFFSET;
        write_entry(entry, id, (layout.version_word - code - 7) as i32, k as u32);
    }
    bytes
}

/// Writes the code of entry `k` (32 bytes): `distance` is that from the end of its first instruction to the version word.
pub(crate) fn write_entry(entry: &mut [u8], id: u32, distance: i32, k: u32) {
    let at = ENTRY_CODE_OFFSET;
    // What a table that has no function for the entry leads to: mov r10d, k; jmp [r11 + version_table::ABSENT]
    entry[..2].copy_from_slice(&[0x41, 0xba]);
    entry[2..6].copy_from_slice(&k.to_le_bytes());
    entry[6..10].copy_from_slice(&[0x41, 0xff, 0x63, version_table::ABSENT as u8]);
    entry[at - 4..at].copy_from_slice(&id.to_le_bytes());
    // mov r11, [rip + distance]
    entry[at..at + 3].copy_from_slice(&[0x4c, 0x8b, 0x1d]);
    entry[at + 3..at + 7].copy_from_slice(&distance.to_le_bytes());
    // jmp [r11 + 8k]
    entry[at + 7..at + 10].copy_from_slice(&[0x41, 0xff, 0xa3]);
    entry[at + 10..at + 14].copy_from_slice(&(8 * k).to_le_bytes());
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

/// The error of a call of a function that is gone: its cell was unloaded, or the version in service does not have it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("function `{function}` of cell `{cell}` is gone")]
pub struct GoneFunction {
    /// Name of the cell.
    pub cell: Arc<str>,
    /// Name of the function: of an export, else `$name`, else `wasm[N]`.
    pub function: String,
}

/// Where a block of entries lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryPlace {
    /// Address of the first entry's first byte; 32 bytes each follow, as [`write_entry`] makes them.
    pub first: usize,
    /// Address of the version word: 8 bytes, writable.
    pub version_word: usize,
    /// Address of room for a version table: [`version_table::HEADER`] words and one per entry, writable.
    pub gone_table: usize,
}

/// What the entries lie in, which knows what they stand for.
#[derive(Debug)]
enum Place {
    /// The image of a wasm cell.
    Image { pages: Arc<ImagePages>, labels: Arc<EntryLabels>, _types: Arc<TypeShares> },
    /// Pages of their own: those of a native cell.
    Pages(EntryPages),
}

/// The entries that one version of a cell brought, with the word that says which version stands behind them now.
#[derive(Debug)]
pub struct EntryBlock {
    cell: Arc<str>,
    count: usize,
    at: EntryPlace,
    place: Place,
    /// Whether addresses of entries may be held where no dependency edge shows it.
    escaped: AtomicBool,
    gone: AtomicBool,
}

impl EntryBlock {
    /// The entries of a fresh image. They lead to a trap until a version table is made visible.
    pub(crate) fn of_image(cell: Arc<str>, image: &Arc<CellImage>, module: &Arc<CellModule>) -> Arc<EntryBlock> {
        let (count, escapes) = (module.layout().entries, module.funcrefs_can_escape());
        let at = image.entry_place();
        let (pages, labels) = (image.pages().clone(), module.labels().clone());
        if escapes {
            pages.keep_entries();
        }
        EntryBlock::new(cell, count, at, Place::Image { pages, labels, _types: module.types().clone() }, escapes)
    }

    /// The entries of a native cell. They lead to a trap until a version table is made visible.
    pub(crate) fn of_native(cell: Arc<str>, pages: EntryPages, can_escape: bool) -> Arc<EntryBlock> {
        EntryBlock::new(cell, pages.count(), pages.place(), Place::Pages(pages), can_escape)
    }

    fn new(cell: Arc<str>, count: usize, at: EntryPlace, place: Place, escaped: bool) -> Arc<EntryBlock> {
        let (escaped, gone) = (AtomicBool::new(escaped), AtomicBool::new(false));
        let block = Arc::new(EntryBlock { cell, count, at, place, escaped, gone });
        let header = version_table::Header {
            about: Arc::as_ptr(&block) as usize,
            word: at.version_word,
            absent: gone_entry_routine(),
        };
        // SAFETY: image and pages have room for a table there, and nobody else uses it.
        unsafe { version_table::write(at.gone_table, header, (0..count).map(|k| block.absent(k))) };
        block.redirect(block.gone_table());
        block
    }

    /// Number of entries.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Name that the cell had when it brought them.
    pub fn cell(&self) -> &Arc<str> {
        &self.cell
    }

    /// What they stand for.
    pub fn labels(&self) -> &Arc<EntryLabels> {
        match &self.place {
            Place::Image { labels, .. } => labels,
            Place::Pages(pages) => pages.labels(),
        }
    }

    /// Address of entry `k`.
    pub fn entry(&self, k: usize) -> Option<usize> {
        (k < self.count).then(|| self.at.first + k * ENTRY_SIZE + ENTRY_CODE_OFFSET)
    }

    /// The entry at this address, if it is one of these.
    pub(crate) fn position_of(&self, entry: usize) -> Option<usize> {
        let offset = entry.checked_sub(self.at.first + ENTRY_CODE_OFFSET)?;
        (offset.is_multiple_of(ENTRY_SIZE) && offset / ENTRY_SIZE < self.count).then_some(offset / ENTRY_SIZE)
    }

    /// What a version table holds for an entry that it has no function for.
    pub(crate) fn absent(&self, k: usize) -> usize {
        self.at.first + k * ENTRY_SIZE
    }

    /// Address of the version word.
    pub(crate) fn version_word(&self) -> usize {
        self.at.version_word
    }

    /// Notes that entries may be held where no dependency edge shows it: the block outlives its cell.
    pub(crate) fn mark_escaped(self: &Arc<Self>) {
        if self.escaped.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Place::Image { pages, .. } = &self.place {
            pages.keep_entries();
        }
        // The cell may have ended before it could see this.
        if self.gone.load(Ordering::SeqCst) {
            crate::namespace::keep_for_ever(self.clone());
        }
    }

    /// A later cell takes the entries over: what they need of the pages stays when the image goes, and nothing else.
    pub(crate) fn outlive_cell(&self) {
        if let Place::Image { pages, .. } = &self.place {
            pages.keep_entries();
        }
    }

    /// Whether entries may be held where no dependency edge shows it.
    pub fn has_escaped(&self) -> bool {
        self.escaped.load(Ordering::SeqCst)
    }

    /// Makes every entry lead to a trap.
    pub(crate) fn retire(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.redirect(self.gone_table());
    }

    /// Notes that there are functions behind the entries.
    pub(crate) fn revive(&self) {
        self.gone.store(false, Ordering::Release);
    }

    /// Lets the entries lead where a version table says, from this store on. The table must stay as long as it is the visible one
    /// and any task can have read its address.
    pub(crate) fn redirect(&self, table: usize) {
        // SAFETY: the word is 8 writable bytes of this block's pages, accessed atomically by everybody.
        unsafe { &*(self.at.version_word as *const AtomicUsize) }.store(table, Ordering::Release);
    }

    /// The table that has a function for no entry. It is part of the block.
    fn gone_table(&self) -> usize {
        self.at.gone_table + version_table::HEADER * 8
    }

    /// Whether the functions behind the entries are gone.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

impl Drop for EntryBlock {
    fn drop(&mut self) {
        // The pages may stay longer than the names.
        // SAFETY: the header of the block's own table.
        unsafe { (*(self.at.gone_table as *const AtomicUsize)).store(0, Ordering::Release) };
    }
}

unsafe extern "C-unwind" {
    /// What entries without a function lead to: `r11` = the version table, `r10` = number of the entry.
    fn planks_gone_entry();
    /// First byte behind it.
    static planks_gone_entry_end: u8;
}

/// Whether an address lies in the routine.
pub(crate) fn is_gone_routine(pc: usize) -> bool {
    (planks_gone_entry as *const () as usize..&raw const planks_gone_entry_end as usize).contains(&pc)
}

/// Address of what entries without a function lead to.
pub(crate) fn gone_entry_routine() -> usize {
    planks_gone_entry as *const () as usize
}

/// Notes which function is gone; gives the code to raise.
///
/// # Safety
/// `table` must be a version table whose `about` is 0 or a living block.
unsafe extern "C-unwind" fn gone(table: usize, k: usize) -> u32 {
    // SAFETY: the caller's promise.
    let about = unsafe { version_table::header(table) }.about as *const EntryBlock;
    // SAFETY: who calls an entry holds a share of its block (invariant 5), which sets the word to 0 when it goes.
    if let Some(block) = unsafe { about.as_ref() } {
        let error = GoneFunction { cell: block.cell.clone(), function: block.labels().name_of(k) };
        raise::note(TrapCode::FunctionGone, Box::new(error));
    }
    TrapCode::FunctionGone as u32
}

global_asm!(
    r#"
    .pushsection .text.planks_gone_entry,"ax",@progbits
    .p2align 4
    .globl planks_gone_entry
    .hidden planks_gone_entry
    .type planks_gone_entry,@function
planks_gone_entry:
    .cfi_startproc
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    cld
    mov rdi, r11
    mov rsi, r10
    call {gone}
    leave
    .cfi_def_cfa rsp, 8
    jmp {raise}
    .cfi_endproc
    .size planks_gone_entry, . - planks_gone_entry
    .globl planks_gone_entry_end
    .hidden planks_gone_entry_end
planks_gone_entry_end:
    .popsection
    "#,
    gone = sym gone,
    raise = sym crate::call::planks_raise,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_is_stub_then_type_id_then_jump_through_the_version_table() {
        let mut entry = [0xcc; ENTRY_SIZE];
        write_entry(&mut entry, 0x1234_5678, 0x1000, 3);
        assert_eq!(&entry[..10], &[0x41, 0xba, 3, 0, 0, 0, 0x41, 0xff, 0x63, 0xf8]);
        assert_eq!(&entry[12..16], &[0x78, 0x56, 0x34, 0x12]);
        assert_eq!(&entry[16..23], &[0x4c, 0x8b, 0x1d, 0, 0x10, 0, 0]);
        assert_eq!(&entry[23..30], &[0x41, 0xff, 0xa3, 24, 0, 0, 0]);
    }
}
