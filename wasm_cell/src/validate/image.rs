//! Sections, their distances, and every table of offsets into them.

use super::{Check, ensure, fits};
use crate::abi::{GLOBAL_SIZE, HEADER_SIZE, RECORD_SIZE};
use crate::elf::frames;
use crate::metadata::{DataLayout, Metadata};
use crate::object::CellObject;
use alloc::{format, string::ToString, vec::Vec};
use kernel_config::cell::FUNCTION_ALIGN;
use kernel_config::{limits, memory::PAGE_SIZE};

/// Bytes of a slot, and the alignment of records.
const SLOT: u32 = 8;

/// What a loader relies on.
pub(super) fn check(m: &Metadata, text: &[u8], rodata: &[u8]) -> Check {
    distances(m, text, rodata)?;
    frames_in_text(m, rodata)?;
    data_layout(m)?;
    functions(m, text)?;
    tables_of_offsets(m)
}

/// What other linkers and debuggers rely on, too.
pub(super) fn check_for_tools(object: &CellObject) -> Check {
    symbols(object)?;
    data_references(object)
}

fn distances(m: &Metadata, text: &[u8], rodata: &[u8]) -> Check {
    let image = &m.image;
    let end = |offset: u32, size: u32| u64::from(offset) + u64::from(size);
    let page_aligned = |n: u32| (n as usize).is_multiple_of(PAGE_SIZE);
    let consistent = image.text_size as usize == text.len()
        && image.rodata_size as usize == rodata.len()
        && [image.rodata_offset, image.data_offset, image.total].into_iter().all(page_aligned)
        && u64::from(image.text_size) <= image.rodata_offset.into()
        && end(image.rodata_offset, image.rodata_size) <= image.data_offset.into()
        && end(image.data_offset, image.data_size) <= image.total.into()
        && image.total as usize <= limits::CELL_BYTES;
    ensure(consistent, || format!("inconsistent image layout: {image:?}"))?;
    let frames_are_tail = image.eh_frame_offset >= image.rodata_offset
        && end(image.eh_frame_offset, image.eh_frame_size) == end(image.rodata_offset, image.rodata_size);
    ensure(frames_are_tail, || ".eh_frame is not the tail of rodata".to_string())
}

/// Every FDE describes code of this object, and the section ends with its terminator.
fn frames_in_text(m: &Metadata, rodata: &[u8]) -> Check {
    let image = &m.image;
    let start = image.eh_frame_offset - image.rodata_offset;
    let eh_frame = rodata.get(start as usize..).unwrap_or_default();
    // The terminator is no part of the last record: what ends here must end without it, too.
    let records = eh_frame.strip_suffix(&[0; 4]).ok_or_else(|| ".eh_frame has no terminator".to_string())?;
    frames::each_fde(records, |fde| {
        let begin = i64::from(image.eh_frame_offset) + i64::from(fde.pc_begin_field) + i64::from(fde.pc_begin);
        let inside = u32::try_from(begin).is_ok_and(|b| fits(b, fde.pc_range.into(), image.text_size.into()));
        ensure(inside, || format!(".eh_frame describes code outside .text (entry at {:#x})", fde.pc_begin_field))
    })
}

fn data_layout(m: &Metadata) -> Check {
    let layout = &m.layout;
    ensure(layout.size == m.image.data_size && layout.size >= HEADER_SIZE, || "wrong size of the data block".into())?;
    slots(layout, "func_import_slots", &layout.func_import_slots, m.imported_funcs.len())?;
    slots(layout, "escaped_slots", &layout.escaped_slots, m.escaped_funcs.len())?;
    let builtins: Vec<u32> =
        (0..m.builtins.len() as u32).map(|k| layout.builtin_slots.saturating_add(SLOT * k)).collect();
    slots(layout, "builtin_slots", &builtins, m.builtins.len())?;
    let record = |offset: &u32, align: u32, size: u32| {
        *offset >= HEADER_SIZE && offset.is_multiple_of(align) && fits(*offset, size.into(), layout.size.into())
    };
    let records = |offsets: &[u32], count: usize| {
        offsets.len() == count && offsets.iter().all(|offset| record(offset, SLOT, RECORD_SIZE))
    };
    ensure(records(&layout.memories, m.memories.len()), || "memory records outside the data block".into())?;
    ensure(records(&layout.tables, m.tables.len()), || "table records outside the data block".into())?;
    let globals = layout.globals.len() == m.globals.len()
        && layout.globals.iter().zip(&m.globals).enumerate().all(|(i, (offset, global))| {
            match (i as u64) < u64::from(m.imported_globals) && global.ty.mutable {
                true => record(offset, SLOT, SLOT),
                false => record(offset, GLOBAL_SIZE, GLOBAL_SIZE),
            }
        });
    ensure(globals, || "globals outside the data block".into())
}

/// One slot per item, behind the header, aligned and inside the block.
fn slots(layout: &DataLayout, what: &str, offsets: &[u32], count: usize) -> Check {
    let inside = |offset: &u32| {
        *offset >= HEADER_SIZE && offset.is_multiple_of(SLOT) && fits(*offset, SLOT.into(), layout.size.into())
    };
    ensure(offsets.len() == count && offsets.iter().all(inside), || format!("{what} lie outside the data block"))
}

/// Bodies lie in index order inside text, aligned, apart from each other, and those that escape have their type id.
fn functions(m: &Metadata, text: &[u8]) -> Check {
    let mut end = 0u64;
    for (i, f) in m.funcs.iter().enumerate() {
        let ty = m.type_ids.get(f.ty as usize).ok_or_else(|| format!("function {i} has no type"))?;
        // The 4 bytes before the code are the type id, not the previous body's.
        let placed = u64::from(f.offset) >= end + 4
            && (f.offset as usize).is_multiple_of(FUNCTION_ALIGN)
            && f.size > 0
            && fits(f.offset, f.size.into(), text.len() as u64);
        ensure(placed, || format!("function {i} is misplaced in .text"))?;
        end = u64::from(f.offset) + u64::from(f.size);

        let index = (m.imported_funcs.len() + i) as u32;
        if m.escaped_funcs.binary_search(&index).is_ok() {
            let id = text.get(f.offset as usize - 4..f.offset as usize);
            let expected = ty.id.0.to_le_bytes();
            ensure(id == Some(&expected[..]), || format!("function {i} is not preceded by its type id"))?;
        }
    }
    Ok(())
}

fn tables_of_offsets(m: &Metadata) -> Check {
    let inside = |offset: u32| offset <= m.image.text_size;
    let traps = &m.traps.sites;
    ensure(
        traps.is_sorted_by(|a, b| a.code_offset < b.code_offset) && traps.last().is_none_or(|t| inside(t.code_offset)),
        || "the trap table is unsorted or leaves .text".to_string(),
    )?;
    let addresses = &m.addresses;
    ensure(
        addresses.is_sorted_by_key(|a| a.code_offset) && addresses.last().is_none_or(|a| inside(a.code_offset)),
        || "the address map is unsorted or leaves .text".to_string(),
    )?;
    let inlined = &m.inlined;
    ensure(
        inlined.is_sorted_by(|a, b| a.code_offset < b.code_offset)
            && inlined.last().is_none_or(|a| inside(a.code_offset)),
        || "the table of calls in whose place code stands is unsorted or leaves .text".to_string(),
    )
}

fn symbols(object: &CellObject) -> Check {
    ensure(object.symbols.is_sorted_by_key(|s| s.offset), || "symbols are not sorted by offset".to_string())?;
    match object.symbols.iter().find(|s| !fits(s.offset, s.size.into(), object.text.len() as u64)) {
        None => Ok(()),
        Some(s) => Err(format!("symbol `{}` leaves .text", s.name)),
    }
}

/// Every reference lies inside text, aims into the data block, and its field holds the distance of this image.
fn data_references(object: &CellObject) -> Check {
    let image = &object.metadata.image;
    for r in &object.data_references {
        let target = i64::from(r.addend) + 4;
        let field = (r.text_offset as usize).checked_add(4).and_then(|e| object.text.get(r.text_offset as usize..e));
        let distance = i64::from(image.data_offset) + i64::from(r.addend) - i64::from(r.text_offset);
        let sound = field.is_some_and(|f| i32::try_from(distance).is_ok_and(|d| f == d.to_le_bytes()))
            && (0..i64::from(image.data_size)).contains(&target);
        ensure(sound, || format!("bad reference to the data block at {:#x} of .text", r.text_offset))?;
    }
    Ok(())
}
