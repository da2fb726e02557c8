//! Where things lie: in the data block of an instance, and in the image of a cell (docs/CELL_ABI.md).
//!
//! Memory and table records and globals stand first, because code refers to them most and short displacements make it
//! shorter; the slots follow.

use crate::abi;
use crate::builtin::Builtin;
use crate::cpu::CpuFeatures;
use crate::error::CompileError;
use crate::metadata::{DataLayout, ImageLayout, Metadata};
use crate::module::check_limit;
use alloc::boxed::Box;
use alloc::vec::Vec;
use kernel_config::limits::CELL_BYTES;
use kernel_config::memory::PAGE_SIZE;

/// The builtins that code of the module may call. Known before any body is seen, so that bodies can be compiled in any
/// order; a slot costs 8 bytes.
pub(crate) fn builtins(meta: &Metadata, cpu: CpuFeatures) -> Vec<Builtin> {
    use Builtin::*;
    let mut list = Vec::new();
    if !meta.memories.is_empty() {
        list.extend([
            MemoryGrow,
            MemoryCopy,
            MemoryFill,
            MemoryInit,
            DataDrop,
            AtomicWait32,
            AtomicWait64,
            AtomicNotify,
        ]);
    } else if !meta.data.is_empty() {
        list.push(DataDrop);
    }
    if !meta.tables.is_empty() {
        list.extend([TableGrow, TableFill, TableCopy, TableInit, ElemDrop]);
    } else if !meta.elements.is_empty() {
        list.push(ElemDrop);
    }
    if !cpu.sse41 {
        list.extend([CeilF32, FloorF32, TruncF32, NearestF32, CeilF64, FloorF64, TruncF64, NearestF64]);
    }
    list
}

/// Lays out the data block. `meta.builtins` and `meta.escaped_funcs` are known.
pub(crate) fn data_layout(meta: &Metadata) -> Result<DataLayout, CompileError> {
    let mut next = u64::from(abi::HEADER_SIZE);
    let mut place = |count: usize, size: u32| {
        let start = next;
        next += count as u64 * u64::from(size);
        start as u32
    };
    let each =
        |start: u32, count: usize, size: u32| -> Box<[u32]> { (0..count as u32).map(|i| start + i * size).collect() };

    let memories = place(meta.memories.len(), abi::RECORD_SIZE);
    let globals = place(meta.globals.len(), abi::GLOBAL_SIZE);
    let tables = place(meta.tables.len(), abi::RECORD_SIZE);
    let import_slots = place(meta.imported_funcs.len(), 8);
    let escaped_slots = place(meta.escaped_funcs.len(), 8);
    let layout = DataLayout {
        memories: each(memories, meta.memories.len(), abi::RECORD_SIZE),
        globals: each(globals, meta.globals.len(), abi::GLOBAL_SIZE),
        tables: each(tables, meta.tables.len(), abi::RECORD_SIZE),
        func_import_slots: each(import_slots, meta.imported_funcs.len(), 8),
        escaped_slots: each(escaped_slots, meta.escaped_funcs.len(), 8),
        // Without builtins the place means nothing, so it is the same for all such modules.
        builtin_slots: if meta.builtins.is_empty() { crate::abi::HEADER_SIZE } else { place(meta.builtins.len(), 8) },
        size: 0,
    };
    check_limit("bytes of the data block", next as usize, CELL_BYTES)?;
    Ok(DataLayout { size: next as u32, ..layout })
}

/// Lays out the image. `rodata`: bytes before `.eh_frame`.
pub(crate) fn image_layout(
    text: usize,
    rodata: usize,
    eh_frame: usize,
    data: u32,
) -> Result<ImageLayout, CompileError> {
    let rodata_offset = text.next_multiple_of(PAGE_SIZE);
    let eh_frame_offset = rodata_offset + rodata.next_multiple_of(8);
    let rodata_end = eh_frame_offset + eh_frame;
    let data_offset = rodata_end.next_multiple_of(PAGE_SIZE);
    let total = (data_offset + data as usize).next_multiple_of(PAGE_SIZE);
    check_limit("bytes of the cell", total, CELL_BYTES)?;
    Ok(ImageLayout {
        text_size: text as u32,
        rodata_offset: rodata_offset as u32,
        rodata_size: (rodata_end - rodata_offset) as u32,
        eh_frame_offset: eh_frame_offset as u32,
        eh_frame_size: eh_frame as u32,
        data_offset: data_offset as u32,
        data_size: data,
        total: total as u32,
    })
}
