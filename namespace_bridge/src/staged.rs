//! A wasm cell on its way: its own memories and tables, its image and its entries have their places, but it is linked to nobody.
//!
//! What such a cell exports can be imported already, so cells may import from each other in a circle: first all are staged, then each
//! is linked. An export that is an import passed on is nothing of the cell's own; who stages several cells knows what it is.
#![deny(unsafe_code)]

use crate::code::CellModule;
use crate::domain::Domain;
use crate::entries::EntryBlock;
use crate::entry_plan::CellEntries;
use crate::error::LoadError;
use crate::function::{Function, Signature, WasmFunction};
use crate::global::Global;
use crate::image::CellImage;
use crate::instance::InstanceRecord;
use crate::integrity;
use crate::linear_memory::{CreateError, LinearMemory};
use crate::options::LoadOptions;
use crate::section::SectionItem;
use crate::table::Table;
use alloc::{sync::Arc, vec::Vec};
use runtime_port::memory::MemoryError;
use wasm_cell::{
    metadata::ExportItem,
    types::{ExternType, MemoryStyle},
};

/// What a cell is made of.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub cell: &'a Arc<str>,
    pub version: u32,
    pub module: &'a Arc<CellModule>,
    /// Entries that earlier cells of this name left.
    pub kept: &'a [Arc<EntryBlock>],
    pub options: &'a LoadOptions,
    /// The domain of the version that this one is to succeed: the new version joins it.
    pub domain: Option<&'a Arc<Domain>>,
    /// The instance whose memories and tables are taken over, those it does not import, in order.
    pub adopt: Option<&'a InstanceRecord>,
}

/// A cell on its way.
pub(crate) struct Staged<'a> {
    pub request: Request<'a>,
    /// Its own ones.
    pub memories: Vec<Arc<LinearMemory>>,
    /// Its own ones.
    pub tables: Vec<Arc<Table>>,
    pub image: Arc<CellImage>,
    pub entries: CellEntries,
    /// Mutable globals of its own that others on their way import: they are state of its domain, too.
    pub promised: Vec<Arc<Global>>,
}

/// What an export of a cell on its way is.
pub(crate) enum Promise {
    /// Something of its own.
    Own(SectionItem),
    /// What its import of this number is, passed on.
    Import(usize),
}

/// What indices count.
#[derive(PartialEq, Eq)]
enum ExternKind {
    Func,
    Memory,
    Table,
    Global,
}

impl ExternKind {
    fn of(ty: &ExternType) -> ExternKind {
        match ty {
            ExternType::Func(_) => ExternKind::Func,
            ExternType::Memory(_) => ExternKind::Memory,
            ExternType::Table(_) => ExternKind::Table,
            ExternType::Global(_) => ExternKind::Global,
        }
    }
}

/// Makes what a cell has of its own.
pub(crate) fn stage(request: Request<'_>) -> Result<Staged<'_>, LoadError> {
    let Request { cell, module, options, kept, adopt, .. } = request;
    let m = module.metadata();
    let (imported_memories, imported_tables) = (m.imported_memories as usize, m.imported_tables as usize);
    let mut memories = Vec::with_capacity(m.memories.len().saturating_sub(imported_memories));
    let mut tables = Vec::with_capacity(m.tables.len().saturating_sub(imported_tables));
    for (i, memory) in m.memories.iter().enumerate().skip(imported_memories) {
        if memory.style == MemoryStyle::Guarded && !options.guarded_memories {
            return Err(LoadError::MemoryStyle { cell: cell.clone(), index: i as u32, style: memory.style });
        }
        let defined = i - imported_memories;
        if let Some(adopted) = adopt.and_then(|o| o.memories().get(o.metadata().imported_memories as usize + defined)) {
            memories.push(adopted.clone());
            continue;
        }
        let made = LinearMemory::new(memory.ty, memory.style, options.memory_limit);
        memories.push(made.map_err(|e| creation_failed(cell, "memory", i, e))?);
    }
    for (i, table) in m.tables.iter().enumerate().skip(imported_tables) {
        let defined = i - imported_tables;
        if let Some(adopted) = adopt.and_then(|o| o.tables().get(o.metadata().imported_tables as usize + defined)) {
            tables.push(adopted.clone());
            continue;
        }
        let made = Table::new(table.ty, options.table_limit);
        tables.push(made.map_err(|e| creation_failed(cell, "table", i, e))?);
    }
    let image = CellImage::map(module).map_err(|source| no_memory(cell, "image", source))?;
    integrity::before_use(cell, module, &image)?;
    let own = EntryBlock::of_image(cell.clone(), &image, module);
    let entries = CellEntries::new(own, kept.to_vec());
    Ok(Staged { request, memories, tables, image, entries, promised: Vec::new() })
}

impl Staged<'_> {
    /// What an export is, by its number.
    pub(crate) fn promise(&mut self, export: usize) -> Option<Promise> {
        let module = self.request.module;
        let m = module.metadata();
        let imports = [m.imported_funcs.len(), m.imported_memories as usize, m.imported_tables as usize];
        let [funcs, memories, tables] = imports;
        let (kind, index) = match m.exports.get(export)?.item {
            ExportItem::Func(i) if i as usize >= funcs => {
                let (block, entry) = self.entries.of(module.entry_index(i)?)?;
                let signature = Signature::Module(module.clone(), i);
                return Some(Promise::Own(SectionItem::Func(Function::Wasm(WasmFunction { block, entry, signature }))));
            }
            ExportItem::Memory(i) if i as usize >= memories => {
                return Some(Promise::Own(SectionItem::Memory(self.memories.get(i as usize - memories)?.clone())));
            }
            ExportItem::Table(i) if i as usize >= tables => {
                return Some(Promise::Own(SectionItem::Table(self.tables.get(i as usize - tables)?.clone())));
            }
            ExportItem::Global(i) if i >= m.imported_globals => {
                let (ty, offset) = (m.globals.get(i as usize)?.ty, *m.layout.globals.get(i as usize)?);
                let global = Global::in_image(ty, self.image.data_address(offset, 16), self.image.clone());
                if ty.mutable {
                    self.promised.push(global.clone());
                }
                return Some(Promise::Own(SectionItem::Global(global)));
            }
            ExportItem::Func(i) => (ExternKind::Func, i),
            ExportItem::Memory(i) => (ExternKind::Memory, i),
            ExportItem::Table(i) => (ExternKind::Table, i),
            ExportItem::Global(i) => (ExternKind::Global, i),
        };
        let of_kind = m.imports.iter().enumerate().filter(|(_, import)| ExternKind::of(&import.ty) == kind);
        of_kind.map(|(number, _)| number).nth(index as usize).map(Promise::Import)
    }
}

pub(crate) fn creation_failed(cell: &Arc<str>, what: &'static str, index: usize, error: CreateError) -> LoadError {
    let cell = cell.clone();
    match error {
        CreateError::Limit { min, limit } => LoadError::Limit { cell, what, index: index as u32, min, limit },
        CreateError::Memory(source) => LoadError::Memory { cell, what, source },
    }
}

pub(crate) fn no_memory(cell: &Arc<str>, what: &'static str, source: MemoryError) -> LoadError {
    LoadError::Memory { cell: cell.clone(), what, source }
}
