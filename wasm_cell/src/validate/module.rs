//! The module's items: counts, indices and types.

use super::{Check, const_expr, ensure, fits};
use crate::metadata::{ElementItems, ElementMode, ExportItem, Import, Metadata};
use crate::types::{ExternType, MemoryStyle, MemoryType, RefType, TableType, ValType};
use alloc::{format, string::String, string::ToString, vec::Vec};
use kernel_config::limits;

pub(super) fn check(m: &Metadata) -> Check {
    escaped(m)?;
    imports(m)?;
    tables(m)?;
    memories(m)?;
    globals(m)?;
    exports(m)?;
    start(m)?;
    data(m)?;
    elements(m)?;
    builtins(m)?;
    function_names(m)
}

/// The limits of `kernel_config::limits` hold for objects as they do for modules.
pub(super) fn counts(m: &Metadata) -> Check {
    let elements = m.elements.iter().map(|e| match &e.items {
        ElementItems::Funcs(f) => f.len(),
        ElementItems::Exprs(e) => e.len(),
    });
    let rows = [
        ("types", m.types.len(), limits::TYPES),
        ("functions", m.func_count(), limits::FUNCTIONS),
        ("imports", m.imports.len(), limits::IMPORTS),
        ("exports", m.exports.len(), limits::EXPORTS),
        ("tables", m.tables.len(), limits::TABLES),
        ("memories", m.memories.len(), limits::MEMORIES),
        ("globals", m.globals.len(), limits::GLOBALS),
        ("data segments", m.data.len(), limits::DATA_SEGMENTS),
        ("element segments", m.elements.len(), limits::ELEMENT_SEGMENTS),
        ("elements", elements.sum(), limits::ELEMENTS),
    ];
    for (what, value, limit) in rows {
        ensure(value <= limit, || format!("{value} {what} exceed the limit of {limit} (kernel_config::limits)"))?;
    }
    let sound = m.types.iter().all(|t| t.params.len() <= limits::PARAMS && t.results.len() <= limits::RESULTS);
    ensure(sound, || "a function type exceeds the limits of kernel_config::limits".to_string())
}

/// Every type has the id of its salt; ids are equal where types are, and nowhere else.
pub(super) fn type_ids(m: &Metadata) -> Check {
    ensure(m.types.len() == m.type_ids.len(), || "the numbers of types and type ids differ".to_string())?;
    for (i, (ty, given)) in m.types.iter().zip(&m.type_ids).enumerate() {
        ensure(*given == ty.hash.salted(given.salt), || format!("type {i} has not the id of its salt"))?;
    }
    match crate::type_ids::shared(&m.types, &m.type_ids) {
        None => Ok(()),
        Some(id) => Err(format!("type id {:#x} does not stand for one type by one salt", id.0)),
    }
}

fn escaped(m: &Metadata) -> Check {
    let sorted = m.escaped_funcs.is_sorted_by(|a, b| a < b);
    let known = m.escaped_funcs.last().is_none_or(|f| (*f as usize) < m.func_count());
    ensure(sorted && known, || "escaped functions are unsorted or unknown".to_string())
}

/// Whether a stable entry exists for this function.
fn has_entry(m: &Metadata, func: u32) -> bool {
    m.escaped_funcs.binary_search(&func).is_ok()
}

/// The imports of each kind are, in order, the first items of its index space, and their types agree.
fn imports(m: &Metadata) -> Check {
    let (mut funcs, mut tables, mut memories, mut globals) = (0, 0, 0, 0);
    for import in &m.imports {
        let next = |n: &mut usize| core::mem::replace(n, *n + 1);
        let agrees = match &import.ty {
            ExternType::Func(ty) => {
                let index = m.imported_funcs.get(next(&mut funcs));
                index.and_then(|i| m.types.get(*i as usize)) == Some(ty)
            }
            ExternType::Table(ty) => m.tables.get(next(&mut tables)).map(|t| &t.ty) == Some(ty),
            ExternType::Memory(ty) => m.memories.get(next(&mut memories)).map(|t| &t.ty) == Some(ty),
            ExternType::Global(ty) => m.globals.get(next(&mut globals)).map(|t| &t.ty) == Some(ty),
        };
        let Import { module, name, .. } = import;
        ensure(agrees, || format!("import `{module}` `{name}` does not agree with its item"))?;
    }
    let counted = funcs == m.imported_funcs.len()
        && tables == m.imported_tables as usize
        && memories == m.imported_memories as usize
        && globals == m.imported_globals as usize;
    ensure(counted, || "the numbers of imported items do not match the imports".to_string())
}

fn tables(m: &Metadata) -> Check {
    for (i, table) in m.tables.iter().enumerate() {
        let TableType { element, is64, min, max } = &table.ty;
        let most = if *is64 { u64::MAX } else { u32::MAX.into() };
        ensure(min <= max.as_ref().unwrap_or(&most) && max.unwrap_or(*min) <= most, || {
            format!("table {i} has impossible limits")
        })?;
        match &table.init {
            Some(_) if i < m.imported_tables as usize => Err(format!("imported table {i} has an initial value"))?,
            Some(init) => in_item("table", i, const_expr::check(m, init, &ValType::Ref(*element), m.globals.len()))?,
            None => {}
        }
    }
    Ok(())
}

fn memories(m: &Metadata) -> Check {
    for (i, memory) in m.memories.iter().enumerate() {
        let MemoryType { is64, min, max, page_size_log2, .. } = &memory.ty;
        // So many pages that their bytes reach the end of the index space (core spec 3.2.15; custom page sizes).
        let most = match (is64, page_size_log2) {
            (false, 0) => u64::from(u32::MAX),
            (false, 16) => 1 << 16,
            (true, 0) => u64::MAX,
            (true, 16) => 1 << 48,
            _ => Err(format!("memory {i} has an impossible page size"))?,
        };
        ensure(*min <= max.unwrap_or(most) && max.unwrap_or(*min) <= most, || {
            format!("memory {i} has impossible limits")
        })?;
        let guardable = !is64 && *page_size_log2 == 16;
        ensure(memory.style == MemoryStyle::Checked || guardable, || format!("memory {i} cannot rely on guard pages"))?;
    }
    Ok(())
}

fn globals(m: &Metadata) -> Check {
    for (i, global) in m.globals.iter().enumerate() {
        match &global.init {
            Some(_) if i < m.imported_globals as usize => Err(format!("imported global {i} has an initial value"))?,
            None if i >= m.imported_globals as usize => Err(format!("global {i} has no initial value"))?,
            // A global's initial value refers to earlier globals only (core spec 3.4.16).
            Some(init) => in_item("global", i, const_expr::check(m, init, &global.ty.content, i))?,
            None => {}
        }
    }
    Ok(())
}

fn exports(m: &Metadata) -> Check {
    for export in &m.exports {
        let known = match export.item {
            ExportItem::Func(f) => has_entry(m, f),
            ExportItem::Table(t) => (t as usize) < m.tables.len(),
            ExportItem::Memory(i) => (i as usize) < m.memories.len(),
            ExportItem::Global(g) => (g as usize) < m.globals.len(),
        };
        ensure(known, || format!("export `{}` refers to nothing", export.name))?;
    }
    let mut names: Vec<&str> = m.exports.iter().map(|e| e.name.as_str()).collect();
    names.sort_unstable();
    match names.array_windows().find(|[a, b]| a == b) {
        None => Ok(()),
        Some([name, _]) => Err(format!("two exports are named `{name}`")),
    }
}

fn start(m: &Metadata) -> Check {
    let sound = m.start.is_none_or(|f| m.func_type(f).is_some_and(|t| t.params.is_empty() && t.results.is_empty()));
    ensure(sound, || "the start function does not exist or takes or returns values".to_string())
}

fn data(m: &Metadata) -> Check {
    // Segments lie before the unwind info.
    let len = m.image.eh_frame_offset - m.image.rodata_offset;
    for (i, segment) in m.data.iter().enumerate() {
        ensure(fits(segment.rodata_offset, segment.size.into(), len.into()), || {
            format!("data segment {i} leaves rodata")
        })?;
        if let Some((memory, offset)) = &segment.active {
            let memory = m.memories.get(*memory as usize).ok_or_else(|| format!("data segment {i} has no memory"))?;
            in_item("data segment", i, const_expr::check(m, offset, &index_type(memory.ty.is64), m.globals.len()))?;
        }
    }
    Ok(())
}

fn elements(m: &Metadata) -> Check {
    for (i, segment) in m.elements.iter().enumerate() {
        in_item("element segment", i, element_items(m, &segment.items, segment.ty))?;
        if let ElementMode::Active(table, offset) = &segment.mode {
            let table = m.tables.get(*table as usize).ok_or_else(|| format!("element segment {i} has no table"))?;
            ensure(segment.ty.is_subtype_of(&table.ty.element), || {
                format!("element segment {i} does not fit its table")
            })?;
            in_item("element segment", i, const_expr::check(m, offset, &index_type(table.ty.is64), m.globals.len()))?;
        }
    }
    Ok(())
}

fn element_items(m: &Metadata, items: &ElementItems, ty: RefType) -> Check {
    match items {
        ElementItems::Funcs(funcs) => {
            funcs.iter().try_for_each(|f| const_expr::func_ref(m, *f).and_then(|r| const_expr::fits_type(r, &ty)))
        }
        ElementItems::Exprs(exprs) => {
            exprs.iter().try_for_each(|e| const_expr::check(m, e, &ValType::Ref(ty), m.globals.len()))
        }
    }
}

fn index_type(is64: bool) -> ValType {
    if is64 { ValType::I64 } else { ValType::I32 }
}

fn in_item(what: &str, index: usize, result: Check) -> Check {
    result.map_err(|e: String| format!("{what} {index}: {e}"))
}

fn builtins(m: &Metadata) -> Check {
    let mut sorted = m.builtins.to_vec();
    sorted.sort_unstable();
    ensure(sorted.is_sorted_by(|a, b| a < b), || "a builtin has two slots".to_string())
}

fn function_names(m: &Metadata) -> Check {
    ensure(m.func_names.are_sound(m.func_count()), || {
        "function names are unsorted or name unknown functions".to_string()
    })
}
