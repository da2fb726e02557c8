//! Adopt: the new version takes over memories, tables and values of globals. No byte of memory is copied.
//!
//! Data in a memory depend on the module that wrote them: on the addresses of its data segments, on what its table indices mean, on where its
//! stack and heap begin. So both modules must agree on all of these, or the new one sees to it in `plank_adopt`.
#![deny(unsafe_code)]

use super::error::{SwapProblem, TransferError};
use super::transaction::Change;
use crate::code::CellModule;
use crate::instance::InstanceRecord;
use crate::linear_memory::LinearMemory;
use crate::table::Table;
use alloc::{collections::BTreeMap, format, string::String, sync::Arc, vec::Vec};
use runtime_port::memory::{AllocatedPages, MappedPages, MemoryError, PteFlags};
use wasm_cell::metadata::{ConstExpr, ConstOp, DataSegment, ElementItems, ElementMode, ExportItem, Metadata};

/// What a module exports that adopts state that fits only after some work: `plank_adopt: [] -> [i32]`, 0 for success.
pub(super) const ADOPT: &str = "plank_adopt";

/// The function by which a module adopts.
pub(super) fn adopter(m: &Metadata) -> Option<u32> {
    super::export::function(m, ADOPT, &[], "i32")
}

/// Why the state of the old version cannot be adopted, if that is the plan.
pub(super) fn problem(change: &Change, new: &CellModule) -> Option<SwapProblem> {
    if !change.plan.adopts() {
        return None;
    }
    let Some(old) = change.old.as_ref().and_then(|o| o.module()) else {
        return Some(match change.old {
            Some(_) => SwapProblem::NativeState { cell: change.name(), plan: "adopt" },
            None => SwapProblem::NoState { cell: change.name(), plan: "adopt" },
        });
    };
    let old_instance = change.old_instance()?;
    let differences = differences(&old_instance, old, new);
    (!differences.is_empty()).then(|| SwapProblem::CannotAdopt { cell: change.name(), differences })
}

/// All differences that stand against adopting.
fn differences(instance: &InstanceRecord, old: &Arc<CellModule>, new: &CellModule) -> Vec<String> {
    let mut found = Vec::new();
    let (a, b) = (old.metadata(), new.metadata());
    shapes(instance, a, b, &mut found);
    if core::ptr::eq(&**old, new) || adopter(b).is_some() {
        return found;
    }
    segments(old, new, &mut found);
    globals(a, b, &mut found);
    tables(a, b, &mut found);
    found
}

/// What no `plank_adopt` can mend: the objects themselves.
fn shapes(instance: &InstanceRecord, a: &Metadata, b: &Metadata, found: &mut Vec<String>) {
    let defined = |all: usize, imported: u32| all - (imported as usize).min(all);
    let count = |what: &str, old: usize, new: usize, found: &mut Vec<String>| {
        if old != new {
            found.push(format!("{old} {what} before, {new} now"));
        }
    };
    count(
        "own memories",
        defined(a.memories.len(), a.imported_memories),
        defined(b.memories.len(), b.imported_memories),
        found,
    );
    count("own tables", defined(a.tables.len(), a.imported_tables), defined(b.tables.len(), b.imported_tables), found);
    let olds = a.memories.iter().zip(instance.memories()).skip(a.imported_memories as usize);
    for (i, ((old, live), new)) in olds.zip(b.memories.iter().skip(b.imported_memories as usize)).enumerate() {
        let same =
            (old.ty.is64, old.ty.shared, old.ty.page_size_log2) == (new.ty.is64, new.ty.shared, new.ty.page_size_log2);
        if !same || old.style != new.style {
            found.push(format!("memory {i} is of another kind"));
        } else if old.ty.max != new.ty.max {
            found.push(format!("memory {i} could grow to {:?} pages, and now to {:?}", old.ty.max, new.ty.max));
        } else if new.ty.min > live.pages() {
            found.push(format!("memory {i} has {} pages, the new version needs {}", live.pages(), new.ty.min));
        }
    }
    let olds = a.tables.iter().zip(instance.tables()).skip(a.imported_tables as usize);
    for (i, ((old, live), new)) in olds.zip(b.tables.iter().skip(b.imported_tables as usize)).enumerate() {
        if old.ty.element != new.ty.element || old.ty.is64 != new.ty.is64 {
            found.push(format!("table {i} has elements of another type"));
        } else if old.ty.max != new.ty.max {
            found.push(format!("table {i} could grow to {:?} elements, and now to {:?}", old.ty.max, new.ty.max));
        } else if new.ty.min > live.len() {
            found.push(format!("table {i} has {} elements, the new version needs {}", live.len(), new.ty.min));
        }
    }
}

/// Data segments: read-only contents and the initial values around which the data were built.
fn segments(old: &CellModule, new: &CellModule, found: &mut Vec<String>) {
    let (a, b) = (old.metadata(), new.metadata());
    if a.data.len() != b.data.len() {
        found.push(format!("{} data segments before, {} now", a.data.len(), b.data.len()));
    }
    let (Ok(x), Ok(y)) = (Rodata::map(old), Rodata::map(new)) else {
        return found.push(String::from("there is no address space to compare the data segments"));
    };
    let contents = (x, y);
    for (i, (x, y)) in a.data.iter().zip(&b.data).enumerate() {
        if x.active != y.active {
            found.push(format!("data segment {i} goes to another place"));
        } else if x.size != y.size {
            found.push(format!("data segment {i} had {} bytes and has {}", x.size, y.size));
        } else if contents.0.segment(x) != contents.1.segment(y) {
            found.push(format!("data segment {i} has other contents"));
        }
    }
}

/// The frames of a module, mapped to be read.
struct Rodata {
    frames: MappedPages,
    start: usize,
}

impl Rodata {
    fn map(module: &CellModule) -> Result<Rodata, MemoryError> {
        let frames = module.frames();
        let pages = AllocatedPages::reserve(frames.size_in_bytes())?;
        let start = module.layout().text + module.metadata().image.rodata_offset as usize;
        Ok(Rodata { frames: MappedPages::from_frames(pages, frames, 0, PteFlags::VALID)?, start })
    }

    fn segment(&self, segment: &DataSegment) -> Option<&[u8]> {
        self.frames.as_slice::<u8>(self.start + segment.rodata_offset as usize, segment.size as usize).ok()
    }
}

/// Initial values of globals: stack pointer, `__heap_base`, `__data_end` and the module's own.
fn globals(a: &Metadata, b: &Metadata, found: &mut Vec<String>) {
    for (at, old) in a.globals.iter().enumerate().skip(a.imported_globals as usize) {
        let name = global_name(a, at);
        let Some(twin) = twin(a, b, at) else {
            if old.ty.mutable {
                found.push(format!("there is no {name} any more, whose value would be lost"));
            }
            continue;
        };
        let Some(new) = b.globals.get(twin) else { continue };
        if old.ty != new.ty {
            found.push(format!("{name} has another type"));
        } else if old.init != new.init {
            found.push(format!("{name} begins with another value"));
        }
    }
}

/// The global of the new module that stands for one of the old: of the same export name, else of the same position among its own.
fn twin(a: &Metadata, b: &Metadata, at: usize) -> Option<usize> {
    let is = |e: &&wasm_cell::metadata::Export| e.item == ExportItem::Global(at as u32);
    if let Some(export) = a.exports.iter().find(is) {
        return b.exports.iter().find(|e| e.name == export.name).and_then(|e| match e.item {
            ExportItem::Global(i) if i >= b.imported_globals => Some(i as usize),
            _ => None,
        });
    }
    let twin = at - a.imported_globals as usize + b.imported_globals as usize;
    let is_exported = b.exports.iter().any(|e| e.item == ExportItem::Global(twin as u32));
    (twin < b.globals.len() && !is_exported).then_some(twin)
}

fn global_name(m: &Metadata, at: usize) -> String {
    let export = m.exports.iter().find(|e| e.item == ExportItem::Global(at as u32));
    export.map_or_else(|| format!("global {at}"), |e| format!("global `{}`", e.name))
}

/// Table indices are the function pointers of compiled languages: each must mean the same function.
fn tables(a: &Metadata, b: &Metadata, found: &mut Vec<String>) {
    let (old, new) = (contents(a), contents(b));
    let (Some(old), Some(new)) = (old, new) else {
        if a.elements != b.elements {
            found.push(String::from("element segments whose place or contents are not constant differ"));
        }
        return;
    };
    const SHOWN: usize = 8;
    let mut more = 0usize;
    let mut differ = |text: String, found: &mut Vec<String>| {
        if more < SHOWN {
            found.push(text);
        }
        more += 1;
    };
    for key @ (table, index) in old.keys().chain(new.keys().filter(|k| !old.contains_key(k))) {
        let place = format!("index {index} of table {table}");
        match (old.get(key), new.get(key)) {
            (Some(f), Some(g)) => match (identity(a, *f), identity(b, *g)) {
                (Some(x), Some(y)) if x == y => {}
                (Some((x, _)), Some((y, _))) => differ(format!("{place} was `{x}` and is `{y}`"), found),
                _ => {
                    differ(format!("{place} is a function without a name, so nothing says that it is the same"), found)
                }
            },
            (Some(_), None) => differ(format!("{place} has no function any more"), found),
            (None, Some(_)) => differ(format!("{place} has a function now, which the adopted table lacks"), found),
            (None, None) => {}
        }
    }
    if more > SHOWN {
        found.push(format!("{} more table indices", more - SHOWN));
    }
    let passive = |m: &Metadata| m.elements.iter().filter(|e| matches!(e.mode, ElementMode::Passive)).count();
    if passive(a) != passive(b) {
        found.push(String::from("the number of passive element segments differs"));
    }
}

/// What active segments put where: function index by own table and index. `None` when that is not constant.
fn contents(m: &Metadata) -> Option<BTreeMap<(u32, u64), u32>> {
    let mut all = BTreeMap::new();
    for segment in &m.elements {
        let ElementMode::Active(table, offset) = &segment.mode else { continue };
        let table = table.checked_sub(m.imported_tables)?;
        let offset = constant(offset)?;
        let funcs: Vec<u32> = match &segment.items {
            ElementItems::Funcs(funcs) => funcs.to_vec(),
            ElementItems::Exprs(exprs) => exprs.iter().map(referred).collect::<Option<_>>()?,
        };
        all.extend(funcs.into_iter().enumerate().map(|(i, f)| ((table, offset.wrapping_add(i as u64)), f)));
    }
    Some(all)
}

fn constant(expr: &ConstExpr) -> Option<u64> {
    match &*expr.0 {
        [ConstOp::I32Const(v)] => Some(u64::from(*v as u32)),
        [ConstOp::I64Const(v)] => Some(*v as u64),
        _ => None,
    }
}

fn referred(expr: &ConstExpr) -> Option<u32> {
    match &*expr.0 {
        [ConstOp::RefFunc(f)] => Some(*f),
        _ => None,
    }
}

/// Name and type of a function.
fn identity(m: &Metadata, func: u32) -> Option<(String, wasm_cell::types::TypeHash)> {
    let ty = m.func_type(func)?.hash;
    let import = |m: &Metadata| {
        let funcs = m.imports.iter().filter(|i| matches!(i.ty, wasm_cell::types::ExternType::Func(_)));
        funcs.clone().nth(func as usize).map(|i| format!("{}::{}", i.module, i.name))
    };
    if (func as usize) < m.imported_funcs.len() {
        return Some((import(m)?, ty));
    }
    let export = m.exports.iter().find(|e| e.item == ExportItem::Func(func)).map(|e| e.name.clone());
    let name = export.or_else(|| m.func_name(func).map(|n| format!("${n}")))?;
    Some((name, ty))
}

/// Takes over. Memories and tables are the new instance's already. Returns the bytes of memory, and what the new version's code may have
/// changed of them: to be restored if the swap fails later.
pub(super) fn adopt(old: &InstanceRecord, new: &Arc<InstanceRecord>) -> Result<(u64, Option<Snapshot>), TransferError> {
    let (a, b) = (old.metadata(), new.metadata());
    for at in a.imported_globals as usize..a.globals.len() {
        if let (Some(twin), Some(bits)) = (twin(a, b, at), old.global_bits(at as u32))
            && a.globals.get(at).is_some_and(|g| g.ty.mutable)
        {
            new.carry_global(twin as u32, bits);
        }
    }
    new.carry_dropped_segments(old);
    let memories = || new.memories().iter().skip(b.imported_memories as usize);
    let mut changed = None;
    if let Some(func) = adopter(b) {
        // The memories are the old version's, too: what the function does to them is undone when it fails, whatever way.
        let mut guard = RestoreUnless(Some(Snapshot::of(new)?));
        match super::export::call_for_code(new, func, &[])? {
            0 => changed = guard.0.take(),
            code => return Err(TransferError::Code(code)),
        }
    }
    Ok((memories().map(|m| m.bytes()).sum(), changed))
}

/// Restores what is in it when it is dropped.
struct RestoreUnless(Option<Snapshot>);

impl Drop for RestoreUnless {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            before.restore();
        }
    }
}

/// Contents of memories and tables, to go back to.
pub(super) struct Snapshot {
    memories: Vec<(Arc<LinearMemory>, Vec<u8>)>,
    tables: Vec<(Arc<Table>, Vec<u64>)>,
}

impl Snapshot {
    fn of(instance: &InstanceRecord) -> Result<Snapshot, TransferError> {
        let mut snapshot = Snapshot { memories: Vec::new(), tables: Vec::new() };
        let m = instance.metadata();
        for memory in instance.memories().iter().skip(m.imported_memories as usize) {
            let mut bytes = Vec::new();
            let len = memory.bytes() as usize;
            bytes.try_reserve_exact(len).map_err(|_| TransferError::NoRoom(len as u64))?;
            bytes.resize(len, 0);
            memory.read(0, &mut bytes).ok_or(TransferError::NoRoom(len as u64))?;
            snapshot.memories.push((memory.clone(), bytes));
        }
        for table in instance.tables().iter().skip(m.imported_tables as usize) {
            let elements = (0..table.len()).filter_map(|i| table.get(i)).collect();
            snapshot.tables.push((table.clone(), elements));
        }
        Ok(snapshot)
    }

    pub(super) fn restore(self) {
        self.memories.iter().for_each(|(memory, bytes)| memory.restore(bytes));
        self.tables.iter().for_each(|(table, elements)| table.restore(elements));
    }
}
