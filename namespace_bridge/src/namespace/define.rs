//! Definitions by the embedder: native functions, closures, memories, tables, globals, under `module::name`.

use super::CrateNamespace;
use crate::cell::{LoadedCrate, StrongCrateRef, symbol_name};
use crate::error::DefineError;
use crate::function::{Function, HostFunction};
use crate::global::Global;
use crate::host::{HostFunc, IntoHostFunc};
use crate::linear_memory::{CreateError, LinearMemory};
use crate::native_entry::NativeFunction;
use crate::options::{AddPolicy, LoadOptions};
use crate::section::{LoadedSection, R_X86_64_NONE, RelocationEntry, SectionItem, SectionType, StrongSectionRef};
use crate::table::Table;
use crate::types_registry::TypeShares;
use crate::val::Val;
use alloc::{format, string::ToString, sync::Arc};
use wasm_cell::types::{FuncType, GlobalType, MemoryStyle, MemoryType, TableType};

impl CrateNamespace {
    /// Defines a function by a closure or function item; its wasm type follows from its Rust type. It may take a `Caller`
    /// first. Each importer gets a thunk of its own.
    pub fn define<P, R>(
        &self,
        module: &str,
        name: &str,
        function: impl IntoHostFunc<P, R>,
    ) -> Result<StrongSectionRef, DefineError> {
        self.define_func(module, name, function.into_host_func())
    }

    /// Defines a host function.
    pub fn define_func(&self, module: &str, name: &str, function: HostFunc) -> Result<StrongSectionRef, DefineError> {
        let (type_id, types) = TypeShares::assign(&symbol_name(module, name), function.ty())?;
        let item = SectionItem::Func(Function::Host(Arc::new(HostFunction::new(function, type_id, types))));
        self.add_definition(module, name, SectionType::Text, 0..0, item, AddPolicy::Refuse)
    }

    /// Defines a native function at an address. Importers call it directly: there is nothing between their call and it.
    ///
    /// # Safety
    /// `address` must be an `extern "C-unwind"` function of exactly this signature that stays where it is for ever.
    pub unsafe fn define_native(
        &self,
        module: &str,
        name: &str,
        ty: FuncType,
        address: usize,
    ) -> Result<StrongSectionRef, DefineError> {
        if !ty.is_register_only() {
            let symbol = format!("{module}::{name}");
            return Err(DefineError::NotRegisterOnly { symbol, ty: ty.to_string() });
        }
        let (type_id, types) = TypeShares::assign(&symbol_name(module, name), &ty)?;
        // SAFETY: the caller's promise; the id is the registered one.
        let function = unsafe { NativeFunction::new(ty, address, type_id, types) };
        let item = SectionItem::Func(Function::Native(Arc::new(function)));
        self.add_definition(module, name, SectionType::Text, address..address, item, AddPolicy::Refuse)
    }

    /// Defines a memory. Guarded if the type and the options allow it, as the compiler decides for the importers.
    pub fn define_memory(
        &self,
        module: &str,
        name: &str,
        ty: MemoryType,
        options: &LoadOptions,
    ) -> Result<Arc<LinearMemory>, DefineError> {
        let guarded = options.guarded_memories && !ty.is64 && ty.page_size_log2 == 16;
        let style = if guarded { MemoryStyle::Guarded } else { MemoryStyle::Checked };
        let memory =
            LinearMemory::new(ty, style, options.memory_limit).map_err(|e| creation_failed(module, name, e))?;
        let range = memory.base()..memory.base() + memory.bytes() as usize;
        let item = SectionItem::Memory(memory.clone());
        self.add_definition(module, name, SectionType::Bss, range, item, AddPolicy::Refuse)?;
        Ok(memory)
    }

    /// Defines a table of nulls.
    pub fn define_table(
        &self,
        module: &str,
        name: &str,
        ty: TableType,
        options: &LoadOptions,
    ) -> Result<Arc<Table>, DefineError> {
        let table = Table::new(ty, options.table_limit).map_err(|e| creation_failed(module, name, e))?;
        let range = table.base()..table.base() + 8 * table.len() as usize;
        let item = SectionItem::Table(table.clone());
        self.add_definition(module, name, SectionType::Data, range, item, AddPolicy::Refuse)?;
        Ok(table)
    }

    /// Defines a global with this value.
    pub fn define_global(
        &self,
        module: &str,
        name: &str,
        ty: GlobalType,
        value: Val,
    ) -> Result<Arc<Global>, DefineError> {
        if !value.fits(&ty.content) {
            let symbol = format!("{module}::{name}");
            return Err(DefineError::Value { symbol, ty: ty.content.to_string(), value: value.to_string() });
        }
        let global = Global::new(ty, value.to_raw());
        let range = global.address()..global.address() + 16;
        let item = SectionItem::Global(global.clone());
        self.add_definition(module, name, SectionType::Data, range, item, AddPolicy::Refuse)?;
        Ok(global)
    }

    /// Adds symbols of other cells under `module` (Theseus: `add_symbols`): the same functions, memories, tables, globals
    /// under a second name. Returns how many are new.
    pub fn add_symbols<'a>(
        &self,
        module: &str,
        sections: impl IntoIterator<Item = &'a StrongSectionRef>,
        policy: AddPolicy,
    ) -> Result<usize, DefineError> {
        let mut added = 0;
        for section in sections.into_iter().filter(|s| s.global) {
            let start = section.virt_addr.value();
            let range = start..start + section.size;
            let name = section.export_name();
            let before = self.own_crate(module).and_then(|c| c.export(name));
            let new = self.add_definition(module, name, section.typ, range, section.item.clone(), policy)?;
            if before.is_some_and(|b| Arc::ptr_eq(&b, &new)) {
                continue;
            }
            // The second name depends on the first: the cell cannot go unnoticed while it is in use here.
            section.add_dependent(&new, RelocationEntry { typ: R_X86_64_NONE, addend: 0, offset: 0 });
            added += 1;
        }
        Ok(added)
    }

    /// Removes a definition of a native cell. Importers that have it keep it.
    pub fn undefine(&self, module: &str, name: &str) -> bool {
        let mut tables = self.tables.write();
        let Some(cell) = tables.crates.get(module).filter(|c| c.is_definitions()).cloned() else { return false };
        let Some(removed) = cell.remove_section(name) else { return false };
        // Another cell's symbol can be spelled alike: `a` with `b::c`, `a::b` with `c`.
        if tables.symbols.get(&removed.name).is_some_and(|s| core::ptr::eq(s.as_ptr(), Arc::as_ptr(&removed))) {
            tables.symbols.remove(&removed.name);
        }
        if cell.symbol_count() == 0 {
            tables.crates.remove(module);
        }
        // What goes with it may look into this namespace.
        drop(tables);
        removed.item.release_kept();
        true
    }

    fn add_definition(
        &self,
        module: &str,
        name: &str,
        typ: SectionType,
        range: core::ops::Range<usize>,
        item: SectionItem,
        policy: AddPolicy,
    ) -> Result<StrongSectionRef, DefineError> {
        let symbol = symbol_name(module, name);
        let mut replaced = None;
        let mut tables = self.tables.write();
        let cell = self.native_cell(&mut tables, module)?;
        if let Some(existing) = cell.export(name) {
            match policy {
                AddPolicy::Refuse => return Err(DefineError::Exists(symbol.as_ref().into())),
                AddPolicy::KeepExisting => return Ok(existing),
                AddPolicy::Replace => replaced = cell.remove_section(name),
            }
        }
        let section = LoadedSection::new(symbol.clone(), typ, range, Arc::downgrade(&cell), item);
        cell.add_section(section.clone());
        tables.symbols.insert(symbol, Arc::downgrade(&section));
        // What goes with the old one may look into this namespace.
        drop(tables);
        if let Some(old) = replaced {
            old.item.release_kept();
        }
        Ok(section)
    }

    /// The native cell of this name, made if there is none.
    fn native_cell(&self, tables: &mut super::Tables, name: &str) -> Result<StrongCrateRef, DefineError> {
        match tables.crates.get(name) {
            Some(cell) if !cell.is_definitions() => Err(DefineError::WasmCell(cell.crate_name.clone())),
            Some(cell) => Ok(cell.clone()),
            None => {
                let name: Arc<str> = name.into();
                let cell = LoadedCrate::native(name.clone(), self.me.clone());
                tables.crates.insert(name, cell.clone());
                Ok(cell)
            }
        }
    }
}

fn creation_failed(module: &str, name: &str, error: CreateError) -> DefineError {
    let symbol = format!("{module}::{name}");
    match error {
        CreateError::Limit { min, limit } => DefineError::Limit { symbol, min, limit },
        CreateError::Memory(source) => DefineError::Memory { symbol, source },
    }
}
