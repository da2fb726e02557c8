//! Loading: bytes or a compiled module to a published cell. Nothing is visible before `publish`; every failure before that
//! frees what was made.
#![deny(unsafe_code)]

use super::{CellSource, CrateNamespace, Tables};
use crate::cell::{LoadedCrate, StrongCrateRef};
use crate::code::CellModule;
use crate::compile;
use crate::entries::EntryBlock;
use crate::error::LoadError;
use crate::instantiate;
use crate::linker;
use crate::options::{AddPolicy, LoadOptions};
use crate::retire;
use crate::section::{R_X86_64_64, R_X86_64_COPY, RelocationEntry, StrongSectionRef};
use crate::staged::Request;
use alloc::{sync::Arc, vec::Vec};
use runtime_port::heap::{guarded, without_failing};
use wasm_cell::{CellObject, Loadable, metadata::Metadata, types::ExternType};

impl CrateNamespace {
    /// Compiles a wasm module and loads it as cell `name`. Bytes that were compiled before and are still loaded are not
    /// compiled again.
    pub fn load_wasm(&self, name: &str, bytes: &[u8], options: LoadOptions) -> Result<StrongCrateRef, LoadError> {
        guarded(|| self.load_wasm_inner(&name.into(), bytes, &options, &mut Vec::new()))?
    }

    /// Loads a cell object. Its code is trusted.
    pub fn load_object(
        &self,
        name: &str,
        object: CellObject,
        options: LoadOptions,
    ) -> Result<StrongCrateRef, LoadError> {
        guarded(|| {
            let cell: Arc<str> = name.into();
            compile::check_header(&cell, &object.header)?;
            let module = CellModule::new(&cell, object)?;
            self.load_module_inner(&cell, &module, &options, &mut Vec::new())
        })?
    }

    /// Loads the bytes of a cell object (ELF). Its code is trusted: verify the seal of a file first (`wasm_cell::seal`).
    pub fn load_elf(&self, name: &str, bytes: &[u8], options: LoadOptions) -> Result<StrongCrateRef, LoadError> {
        guarded(|| self.load_elf_inner(&name.into(), bytes, &options, &mut Vec::new()))?
    }

    /// Loads a cell from any source (Theseus: `load_crate`).
    pub fn load_crate(
        &self,
        name: &str,
        source: CellSource,
        options: LoadOptions,
    ) -> Result<StrongCrateRef, LoadError> {
        guarded(|| self.load_source(&name.into(), source, &options, &mut Vec::new()))?
    }

    pub(super) fn load_source(
        &self,
        cell: &Arc<str>,
        source: CellSource,
        options: &LoadOptions,
        loading: &mut Vec<Arc<str>>,
    ) -> Result<StrongCrateRef, LoadError> {
        match source {
            CellSource::Wasm(bytes) => self.load_wasm_inner(cell, &bytes, options, loading),
            CellSource::Object(bytes) => self.load_elf_inner(cell, &bytes, options, loading),
            CellSource::Module(module) => self.load_module_inner(cell, &module, options, loading),
            CellSource::Native(bytes) => self.load_native_inner(cell, bytes, options, loading),
        }
    }

    /// Loads another instance of a compiled module. It maps the same frames.
    pub fn load_module(
        &self,
        name: &str,
        module: &Arc<CellModule>,
        options: LoadOptions,
    ) -> Result<StrongCrateRef, LoadError> {
        guarded(|| self.load_module_inner(&name.into(), module, &options, &mut Vec::new()))?
    }

    fn load_wasm_inner(
        &self,
        cell: &Arc<str>,
        bytes: &[u8],
        options: &LoadOptions,
        loading: &mut Vec<Arc<str>>,
    ) -> Result<StrongCrateRef, LoadError> {
        if let Some(existing) = self.check_name(cell, options)? {
            return Ok(existing);
        }
        let module = compile::module(cell, bytes, options)?;
        self.load_module_inner(cell, &module, options, loading)
    }

    fn load_elf_inner(
        &self,
        cell: &Arc<str>,
        bytes: &[u8],
        options: &LoadOptions,
        loading: &mut Vec<Arc<str>>,
    ) -> Result<StrongCrateRef, LoadError> {
        let object = Loadable::from_elf(bytes).map_err(|source| LoadError::Compile { cell: cell.clone(), source })?;
        compile::check_header(cell, &object.header)?;
        let module = CellModule::new(cell, object)?;
        self.load_module_inner(cell, &module, options, loading)
    }

    fn load_module_inner(
        &self,
        cell: &Arc<str>,
        module: &Arc<CellModule>,
        options: &LoadOptions,
        loading: &mut Vec<Arc<str>>,
    ) -> Result<StrongCrateRef, LoadError> {
        retire::look_again();
        if let Some(existing) = self.check_name(cell, options)? {
            return Ok(existing);
        }
        loading.push(cell.clone());
        let imports = linker::resolve(&linker::Scope::of(self), cell, module, options, loading);
        loading.pop();
        let imports = imports?;
        let (version, kept) = self.claim_remains(cell);
        // Others may hold addresses of what was kept: it goes back, whatever happens.
        let made = guarded(|| -> Result<_, LoadError> {
            let request = Request { cell, version, module, kept: &kept, options, domain: None, adopt: None };
            let (instance, entries) = instantiate::allocate(request, &imports)?;
            entries.prepare(|k| instance.version_target(k));
            Ok((LoadedCrate::wasm(self.me.clone(), instance.clone(), entries, options.clone()), instance))
        });
        let made = made.unwrap_or_else(|exhausted| Err(exhausted.into()));
        let (krate, instance) = made.inspect_err(|_| without_failing(|| self.keep_entries(cell, version - 1, kept)))?;
        // Active segments may publish references to its functions, and its start function may let others call them.
        krate.entries().into_iter().for_each(|entries| without_failing(|| entries.open()));
        add_dependencies(&krate, module.metadata(), &imports);
        if let Err(error) = instantiate::start(&instance, options) {
            without_failing(|| self.keep_orphan(&krate));
            return Err(error);
        }
        self.publish(&krate, options)
    }

    /// Decides by policy what a name that is taken means, before anything is done. `Some`: the existing cell is the answer.
    pub(crate) fn check_name(
        &self,
        cell: &Arc<str>,
        options: &LoadOptions,
    ) -> Result<Option<StrongCrateRef>, LoadError> {
        let mut held = Vec::new();
        let tables = self.tables.read();
        self.name_in(&tables, cell, options, &mut held)
    }

    fn name_in(
        &self,
        tables: &Tables,
        cell: &Arc<str>,
        options: &LoadOptions,
        held: &mut Vec<StrongCrateRef>,
    ) -> Result<Option<StrongCrateRef>, LoadError> {
        let Some(existing) = tables.crates.get(cell).or_else(|| tables.aliases.get(cell)) else { return Ok(None) };
        match options.policy {
            AddPolicy::Refuse => Err(LoadError::NameTaken { namespace: self.name.clone(), cell: cell.clone() }),
            AddPolicy::KeepExisting => Ok(Some(existing.clone())),
            AddPolicy::Replace => match super::unload::in_use(existing, held) {
                None => Ok(None),
                Some(source) => Err(LoadError::Replace { cell: cell.clone(), source }),
            },
        }
    }

    /// The version this load will be, and the entries that earlier cells of the name left, taken out of the namespace.
    pub(crate) fn claim_remains(&self, cell: &Arc<str>) -> (u32, Vec<Arc<EntryBlock>>) {
        let mut tables = self.tables.write();
        let live = tables.crates.get(cell).map_or(0, |c| c.version());
        let Some(remains) = tables.remains.get_mut(cell) else { return (live + 1, Vec::new()) };
        (live.max(remains.version) + 1, core::mem::take(&mut remains.entries))
    }

    /// Makes the cell visible: name, symbols and addresses in one step.
    pub(crate) fn publish(&self, krate: &StrongCrateRef, options: &LoadOptions) -> Result<StrongCrateRef, LoadError> {
        let (mut held, mut looked_at) = (Vec::new(), Vec::new());
        let mut tables = self.tables.write();
        // Another task may have taken the name meanwhile.
        match self.name_in(&tables, &krate.crate_name, options, &mut held) {
            Ok(None) => {}
            Ok(Some(existing)) => {
                drop(tables);
                return Ok(existing);
            }
            Err(e) => {
                drop(tables);
                return Err(e);
            }
        }
        if let Err(duplicate) = tables.check_duplicates(krate, &mut looked_at) {
            drop(tables);
            return Err(duplicate);
        }
        let sections = krate.global_sections();
        let old = tables.crates.get(&krate.crate_name).cloned();
        // All that takes memory, before anything goes.
        let added = guarded(|| {
            tables.add_symbols_of(krate);
            if let Some(range) = krate.image_range() {
                tables.images.insert(range.start, (range.end, Arc::downgrade(krate)));
            }
            tables.crates.insert(krate.crate_name.clone(), krate.clone())
        });
        let replaced = match added {
            Ok(replaced) => replaced,
            Err(exhausted) => {
                without_failing(|| {
                    tables.remove_sections(krate, &sections);
                    if let Some(old) = &old {
                        tables.add_symbols_of(old);
                    }
                });
                drop(tables);
                return Err(exhausted.into());
            }
        };
        if let Some(old) = &replaced {
            tables.remove_symbols(old);
        }
        drop(tables);
        // It is published.
        without_failing(|| {
            if let Some(old) = replaced {
                retire::on_clear_stack(|| self.finish(&old));
            }
            if let Some(supervision) = self.supervision(&krate.crate_name) {
                supervision.attach(krate);
            }
        });
        Ok(krate.clone())
    }

    /// Ends a cell that is no longer in the tables, and keeps what must outlive it.
    pub(super) fn finish(&self, cell: &StrongCrateRef) {
        self.forget_previous(&cell.crate_name);
        let kept = cell.shut_down();
        self.keep_entries(&cell.crate_name, cell.version(), kept);
        retire::look_again();
    }

    /// Keeps a cell whose instantiation trapped, if others may have got hold of its functions: as long as the tables and
    /// globals it could have put them into, or as long as the namespace when it may have passed them on in calls.
    fn keep_orphan(&self, krate: &StrongCrateRef) {
        let Some(instance) = krate.instance().filter(|i| instantiate::may_have_leaked(i)) else { return };
        krate.mark_orphan();
        let (tables, globals) = instantiate::imported_holders(&instance);
        for table in &tables {
            table.keep(krate.clone());
        }
        for global in &globals {
            global.keep(krate.clone());
        }
        if tables.is_empty() && globals.is_empty() {
            self.orphans.lock().push(krate.clone());
        }
    }

    /// Gives a cell a second name, under which imports and look-ups find it too. Replaces an earlier cell of that second
    /// name; refuses the name of a loaded cell.
    pub fn add_alias(&self, alias: &str, cell: &StrongCrateRef) -> Result<(), LoadError> {
        let mut tables = self.tables.write();
        if tables.crates.contains_key(alias) {
            return Err(LoadError::NameTaken { namespace: self.name.clone(), cell: alias.into() });
        }
        let old = tables.aliases.insert(alias.into(), cell.clone());
        drop(tables);
        drop(old);
        Ok(())
    }

    /// Removes a second name.
    pub fn remove_alias(&self, alias: &str) -> bool {
        let old = self.tables.write().aliases.remove(alias);
        old.is_some()
    }
}

impl Tables {
    /// Removes symbols and addresses of a cell.
    pub(super) fn remove_symbols(&mut self, cell: &StrongCrateRef) {
        self.remove_sections(cell, &cell.global_sections());
    }

    /// The same, with the cell's sections at hand: takes no memory.
    pub(super) fn remove_sections(&mut self, cell: &StrongCrateRef, sections: &[StrongSectionRef]) {
        for section in sections {
            let same = |s: &crate::section::WeakSectionRef| core::ptr::eq(s.as_ptr(), Arc::as_ptr(section));
            if self.symbols.get(&section.name).is_some_and(same) {
                self.symbols.remove(&section.name);
            }
        }
        for (symbol, _) in self.reexports.remove(&cell.crate_name).unwrap_or_default() {
            self.symbols.remove(&symbol);
        }
        self.restore_weak(cell);
        self.remove_image(cell);
    }

    /// Removes the addresses of a cell.
    pub(super) fn remove_image(&mut self, cell: &StrongCrateRef) {
        if let Some(range) = cell.image_range() {
            self.images.remove(&range.start);
        }
    }
}

/// Records the edges of every import, on both sides.
pub(crate) fn add_dependencies(krate: &StrongCrateRef, m: &Metadata, imports: &[StrongSectionRef]) {
    if imports.is_empty() {
        return;
    }
    let Some(data) = krate.data_section() else { return };
    let (mut func, mut table, mut memory, mut global) = (0usize, 0usize, 0usize, 0usize);
    for (import, section) in m.imports.iter().zip(imports) {
        let next = |counter: &mut usize| core::mem::replace(counter, *counter + 1);
        let (typ, offset) = match &import.ty {
            ExternType::Func(_) => (R_X86_64_64, slot(&m.layout.func_import_slots, next(&mut func))),
            ExternType::Table(_) => (R_X86_64_64, slot(&m.layout.tables, next(&mut table))),
            ExternType::Memory(_) => (R_X86_64_64, slot(&m.layout.memories, next(&mut memory))),
            ExternType::Global(g) => {
                let typ = if g.mutable { R_X86_64_64 } else { R_X86_64_COPY };
                (typ, slot(&m.layout.globals, next(&mut global)))
            }
        };
        section.add_dependent(data, RelocationEntry { typ, addend: 0, offset });
    }
}

fn slot(offsets: &[u32], index: usize) -> usize {
    offsets.get(index).map_or(0, |o| *o as usize)
}
