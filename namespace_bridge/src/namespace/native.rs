//! Loading native cells: objects of rustc, gcc and clang; their symbols, which are names of the whole namespace.
#![deny(unsafe_code)]

use super::{CellSource, CrateNamespace, Tables};
use crate::cell::StrongCrateRef;
use crate::error::LoadError;
use crate::native::{self, NativeError, crate_name_from_path};
use crate::options::LoadOptions;
use crate::section::{LoadedSection, SectionItem, StrongSectionRef};
use alloc::{collections::BTreeSet, format, string::ToString, sync::Arc, vec::Vec};
use runtime_port::heap::{guarded, try_to_vec};
use runtime_port::memory::MemoryError;

impl CrateNamespace {
    /// Loads a relocatable object of rustc, gcc or clang (ELF64 x86-64) as cell `name`. Its code is trusted; the file may be
    /// damaged. What it needs and the namespace does not have is loaded from the providers, with it or not at all.
    pub fn load_native(&self, name: &str, bytes: &[u8], options: LoadOptions) -> Result<StrongCrateRef, LoadError> {
        let cell: Arc<str> = guarded(|| name.into())?;
        let bytes = try_to_vec(bytes).map_err(|_| LoadError::Native {
            cell: cell.clone(),
            source: NativeError::Memory { what: "file", source: MemoryError::OutOfHeap },
        })?;
        guarded(|| self.load_native_inner(&cell, bytes, &options, &mut Vec::new()))?
    }

    /// Loads a file as the cell that its name says (Theseus: `load_crate`): a wasm module, an object of this system's
    /// compiler, or a native object. `path` may have folders, a prefix `ksse#`, the compiler's hash, an ending.
    pub fn load_crate_file(
        &self,
        path: &str,
        bytes: Vec<u8>,
        options: LoadOptions,
    ) -> Result<StrongCrateRef, LoadError> {
        guarded(|| self.load_file(path, bytes, options))?
    }

    fn load_file(&self, path: &str, bytes: Vec<u8>, options: LoadOptions) -> Result<StrongCrateRef, LoadError> {
        let unusable = |what: &str| LoadError::Native {
            cell: path.into(),
            source: NativeError::NotRelocatable(format!("{what} `{path}`")),
        };
        let name = crate_name_from_path(path).ok_or_else(|| unusable("no cell name follows from"))?;
        let source = CellSource::of_bytes(bytes).ok_or_else(|| unusable("neither wasm nor ELF is in"))?;
        self.load_crate(name, source, options)
    }

    pub(super) fn load_native_inner(
        &self,
        cell: &Arc<str>,
        bytes: Vec<u8>,
        options: &LoadOptions,
        loading: &mut Vec<Arc<str>>,
    ) -> Result<StrongCrateRef, LoadError> {
        let namespace = self.me.upgrade().expect("a namespace that is borrowed is alive");
        native::load(&namespace, cell, bytes, options, loading)
    }

    /// The section of a symbol in this very namespace.
    pub(crate) fn own_symbol(&self, symbol: &str) -> Option<StrongSectionRef> {
        self.tables.read().symbols.get(symbol)?.upgrade()
    }

    /// Refuses symbols that another cell of this very namespace defines already; those that come with `true` are weak.
    pub(crate) fn check_symbols<'a>(
        &self,
        cell: &Arc<str>,
        symbols: impl Iterator<Item = (&'a str, bool)>,
    ) -> Result<(), LoadError> {
        let mut held = Vec::new();
        let tables = self.tables.read();
        let result = tables.duplicate(cell, symbols, &mut held);
        drop(tables);
        result
    }

    /// Takes a cell out again that was published together with one that could not be.
    pub(crate) fn withdraw(&self, cell: &StrongCrateRef) {
        let mut tables = self.tables.write();
        if tables.crates.get(&cell.crate_name).is_some_and(|c| Arc::ptr_eq(c, cell)) {
            tables.crates.remove(&cell.crate_name);
        }
        tables.remove_symbols(cell);
    }
}

/// What was looked at in a locked namespace, to be dropped when it is unlocked: dropping the last share of a cell locks it.
pub(super) type Held = Vec<(StrongSectionRef, Option<StrongCrateRef>)>;

impl Tables {
    /// Refuses a native cell whose symbols another cell has.
    pub(super) fn check_duplicates(&self, cell: &StrongCrateRef, held: &mut Held) -> Result<(), LoadError> {
        if !cell.is_object() {
            return Ok(());
        }
        let sections = cell.global_sections();
        let natives = sections.iter().filter_map(|s| match &s.item {
            SectionItem::Native(symbol) => Some((&*s.name, symbol.is_weak())),
            _ => None,
        });
        self.duplicate(&cell.crate_name, natives, held)
    }

    /// What is looked at goes to `held`, to be dropped when the namespace is unlocked.
    fn duplicate<'a>(
        &self,
        cell: &Arc<str>,
        symbols: impl Iterator<Item = (&'a str, bool)>,
        held: &mut Held,
    ) -> Result<(), LoadError> {
        for (name, weak) in symbols {
            let Some(section) = self.symbols.get(name).and_then(|s| s.upgrade()) else { continue };
            let owner = section.parent_crate.upgrade();
            let holder = owner.as_ref().map(|c| c.crate_name.clone());
            let is_strong = !weak && !is_weak(&section);
            held.push((section, owner));
            // A cell that is replaced takes its symbols with it.
            if let Some(holder) = holder.filter(|h| is_strong && h != cell) {
                let source = NativeError::Duplicate { symbol: name.to_string(), holder };
                return Err(LoadError::Native { cell: cell.clone(), source });
            }
        }
        Ok(())
    }

    /// Adds the symbols of a cell. A weak one does not take the place of another cell's.
    pub(super) fn add_symbols_of(&mut self, cell: &StrongCrateRef) {
        for section in cell.global_sections() {
            let taken = self.symbols.get(&section.name).is_some_and(|s| s.strong_count() > 0);
            if !(taken && is_weak(&section)) {
                self.symbols.insert(section.name.clone(), Arc::downgrade(&section));
            }
        }
    }
}

impl Tables {
    /// Where a weak symbol goes with its cell, another cell's weak definition stands for it from now on.
    pub(super) fn restore_weak(&mut self, gone: &StrongCrateRef) {
        if !gone.is_object() {
            return;
        }
        let sections = gone.global_sections();
        let names: BTreeSet<&str> = sections.iter().filter(|s| is_weak(s)).map(|s| &*s.name).collect();
        if names.is_empty() {
            return;
        }
        for cell in self.crates.values().filter(|c| c.is_object() && !Arc::ptr_eq(c, gone)) {
            for section in cell.global_sections().iter().filter(|s| is_weak(s) && names.contains(&*s.name)) {
                if !self.symbols.contains_key(&section.name) {
                    self.symbols.insert(section.name.clone(), Arc::downgrade(section));
                }
            }
        }
    }
}

/// Whether it is a weak symbol of a native cell.
pub(super) fn is_weak(section: &LoadedSection) -> bool {
    matches!(&section.item, SectionItem::Native(symbol) if symbol.is_weak())
}
